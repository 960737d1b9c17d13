//! [`Guest`]: the generic guest with a method for each of its exports.

use vmsync::{Error, KernReturn, Sandbox, abi::ObjectInfo, abi::RegionInfo};
use wasmtime::{WasmParams, WasmResults};

use super::{
    BASE, P, SCRATCH,
    task::{self, block_on},
};

/// How wide the guest's addresses are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// A 32-bit memory.
    Bits32,
    /// A 64-bit memory.
    Bits64,
}

impl Width {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Bits32, Self::Bits64];

    /// The guest's text.
    pub fn wat(self) -> &'static str {
        match self {
            Self::Bits32 => include_str!("../guests/generic32.wat"),
            Self::Bits64 => include_str!("../guests/generic64.wat"),
        }
    }

    /// The highest address that a word holds.
    pub fn address_max(self) -> u64 {
        match self {
            Self::Bits32 => u64::from(u32::MAX),
            Self::Bits64 => u64::MAX,
        }
    }
}

/// The words of `vm_map`, as a guest passes them.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// Where, in pages.
    pub page: u64,
    /// In pages.
    pub pages: u64,
    /// FIXED is 0.
    pub flags: u64,
    /// The object's port.
    pub port: u64,
    /// In the object, in pages.
    pub first_page: u64,
    /// Copy-on-write.
    pub copy: bool,
    /// Allowed now, and at most.
    pub protection: (u64, u64),
}

impl Window {
    /// The first `pages` pages of `port` at page 256, for loads and stores.
    pub fn new(port: u64, pages: u64) -> Self {
        Self {
            page: BASE / P,
            pages,
            flags: 0,
            port,
            first_page: 0,
            copy: false,
            protection: (3, 3),
        }
    }
}

/// A guest of a test.
pub struct Guest {
    /// The instance.
    pub inner: vmsync::Guest,
    /// Called asynchronously.
    task: bool,
}

impl From<vmsync::Guest> for Guest {
    fn from(inner: vmsync::Guest) -> Self {
        Self { inner, task: false }
    }
}

/// What a call answered, decoded.
pub fn kern(code: i64) -> KernReturn {
    let code = i32::try_from(code).expect("a kern_return has 32 bits");
    KernReturn::from_code(code).expect("a known kern_return")
}

impl Guest {
    /// A guest of `sandbox`.
    pub fn new(sandbox: &Sandbox, width: Width) -> Self {
        let (wasm, task) = (width.wat().as_bytes(), task::wanted());
        let inner = if task {
            block_on(sandbox.instantiate_async(wasm))
        } else {
            sandbox.instantiate(wasm)
        };
        Self {
            inner: inner.expect("the generic guest runs"),
            task,
        }
    }

    /// Calls an export.
    #[track_caller]
    pub fn call<A: WasmParams + Sync + 'static, R: WasmResults + Sync + 'static>(
        &mut self,
        name: &str,
        arguments: A,
    ) -> R {
        self.try_call(name, arguments)
            .unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// Calls an export that may trap.
    pub fn try_call<A, R>(&mut self, name: &str, arguments: A) -> Result<R, Error>
    where
        A: WasmParams + Sync + 'static,
        R: WasmResults + Sync + 'static,
    {
        if self.task {
            block_on(self.inner.call_async(name, arguments))
        } else {
            self.inner.call(name, arguments)
        }
    }

    // --- the imports -----------------------------------------------------------------------------------------

    /// `vm_msync` of a range in bytes.
    #[track_caller]
    pub fn msync(&mut self, address: u64, size: u64, flags: u32) -> KernReturn {
        self.msync_of(1, address, size, flags)
    }

    /// `vm_msync` with any task.
    #[track_caller]
    pub fn msync_of(&mut self, task: i64, address: u64, size: u64, flags: u32) -> KernReturn {
        let words = (task, address as i64, size as i64, i64::from(flags));
        kern(self.call("vm_msync", words))
    }

    /// `mach_vm_msync`.
    #[track_caller]
    pub fn mach_msync(&mut self, address: u64, size: u64, flags: u32) -> KernReturn {
        let words = (1_i64, address as i64, size as i64, i64::from(flags));
        kern(self.call("mach_vm_msync", words))
    }

    /// `memory_object_open` with the name in scratch memory; its result and port.
    #[track_caller]
    pub fn try_open(&mut self, name: &[u8], size: u64, flags: u64) -> (KernReturn, u64) {
        self.poke(SCRATCH + 64, name);
        let words = (
            (SCRATCH + 64) as i64,
            name.len() as i64,
            size as i64,
            flags as i64,
            SCRATCH as i64,
        );
        let result = kern(self.call("memory_object_open", words));
        (result, self.load32(SCRATCH))
    }

    /// Opens `name` for loads and stores, created where it is missing, of `pages` pages at least.
    #[track_caller]
    pub fn open(&mut self, name: &str, pages: u64) -> u64 {
        let (result, port) = self.try_open(name.as_bytes(), pages * P, 7);
        assert_eq!(
            result,
            KernReturn::Success,
            "open {name}: {:?}",
            self.inner.last_error()
        );
        port
    }

    /// `vm_map`.
    #[track_caller]
    pub fn try_map(&mut self, window: Window) -> KernReturn {
        self.store64(SCRATCH, window.page * P);
        let words = (
            1_i64,
            SCRATCH as i64,
            (window.pages * P) as i64,
            0_i64,
            window.flags as i64,
            window.port as i64,
            (window.first_page * P) as i64,
            i64::from(window.copy),
            window.protection.0 as i64,
            window.protection.1 as i64,
            1_i64,
        );
        kern(self.call("vm_map", words))
    }

    /// `vm_map` that must succeed.
    #[track_caller]
    pub fn map(&mut self, window: Window) {
        assert_eq!(
            self.try_map(window),
            KernReturn::Success,
            "{:?}",
            self.inner.last_error()
        );
    }

    /// Opens `name` and maps its first `pages` pages at [`BASE`]: row region R.
    #[track_caller]
    pub fn map_region(&mut self, name: &str, pages: u64) -> u64 {
        let port = self.open(name, pages);
        self.map(Window::new(port, pages));
        port
    }

    /// Opens `name` for loads only and maps it at [`BASE`].
    #[track_caller]
    pub fn map_for_loads(&mut self, name: &str, pages: u64) {
        let (result, port) = self.try_open(name.as_bytes(), 0, 1);
        assert_eq!(result, KernReturn::Success);
        self.map(Window {
            protection: (1, 1),
            ..Window::new(port, pages)
        });
    }

    /// `vm_allocate` at `address`, or anywhere with flag 1; its result and address.
    #[track_caller]
    pub fn allocate(&mut self, address: u64, size: u64, flags: u64) -> (KernReturn, u64) {
        self.store64(SCRATCH, address);
        let words = (1_i64, SCRATCH as i64, size as i64, flags as i64);
        let result = kern(self.call("vm_allocate", words));
        (result, self.load64(SCRATCH))
    }

    /// `vm_deallocate`.
    #[track_caller]
    pub fn deallocate(&mut self, address: u64, size: u64) -> KernReturn {
        kern(self.call("vm_deallocate", (1_i64, address as i64, size as i64)))
    }

    /// `vm_protect`.
    #[track_caller]
    pub fn protect(&mut self, address: u64, size: u64, set_maximum: bool, protection: u64) -> KernReturn {
        let words = (
            1_i64,
            address as i64,
            size as i64,
            i64::from(set_maximum),
            protection as i64,
        );
        kern(self.call("vm_protect", words))
    }

    /// `vm_behavior_set`.
    #[track_caller]
    pub fn behave(&mut self, address: u64, size: u64, behavior: i64) -> KernReturn {
        kern(self.call("vm_behavior_set", (1_i64, address as i64, size as i64, behavior)))
    }

    /// `vm_region` from `address` on: its start, size, info as on the wire, and object port.
    #[track_caller]
    pub fn region(&mut self, address: u64) -> Result<(u64, u64, [u8; RegionInfo::BYTES], u64), KernReturn> {
        let at = SCRATCH;
        for (offset, value) in [(0, address), (8, 0), (16, u64::from(RegionInfo::COUNT)), (24, 0)] {
            self.store64(at + offset, value);
        }
        let words = (
            1_i64,
            at as i64,
            (at + 8) as i64,
            i64::from(RegionInfo::FLAVOR),
            (at + 64) as i64,
            (at + 16) as i64,
            (at + 24) as i64,
        );
        kern(self.call("vm_region", words)).ok()?;
        let info = self.peek(at + 64, RegionInfo::BYTES as u64);
        let info = info.try_into().expect("as long as asked for");
        Ok((self.load64(at), self.load64(at + 8), info, self.load32(at + 24)))
    }

    /// `memory_object_info`: size, version, flags.
    #[track_caller]
    pub fn info(&mut self, port: u64) -> Result<(u64, u64, u32), KernReturn> {
        let at = SCRATCH + 64;
        kern(self.call("memory_object_info", (port as i64, at as i64))).ok()?;
        let bytes = self.peek(at, ObjectInfo::BYTES as u64);
        let word = |from: usize| u64::from_le_bytes(bytes[from..from + 8].try_into().expect("8 bytes"));
        Ok((word(0), word(8), (word(24) >> 32) as u32))
    }

    /// `memory_object_close`.
    #[track_caller]
    pub fn close(&mut self, port: u64) -> KernReturn {
        kern(self.call("memory_object_close", port as i64))
    }

    // --- loads and stores ------------------------------------------------------------------------------------

    /// Loads a byte.
    #[track_caller]
    pub fn load8(&mut self, address: u64) -> u64 {
        self.call::<i64, i64>("load8", address as i64) as u64
    }

    /// Loads 4 bytes.
    #[track_caller]
    pub fn load32(&mut self, address: u64) -> u64 {
        self.call::<i64, i64>("load32", address as i64) as u64
    }

    /// Loads 8 bytes.
    #[track_caller]
    pub fn load64(&mut self, address: u64) -> u64 {
        self.call::<i64, i64>("load64", address as i64) as u64
    }

    /// Stores a byte.
    #[track_caller]
    pub fn store8(&mut self, address: u64, value: u64) {
        self.call::<_, ()>("store8", (address as i64, value as i64));
    }

    /// Stores 8 bytes.
    #[track_caller]
    pub fn store64(&mut self, address: u64, value: u64) {
        self.call::<_, ()>("store64", (address as i64, value as i64));
    }

    /// Stores `value` into the middle of each of the `pages` of the region at [`BASE`].
    #[track_caller]
    pub fn touch(&mut self, pages: impl IntoIterator<Item = u64>, value: u64) {
        for page in pages {
            self.store8(BASE + page * P + 100, value);
        }
    }

    /// What [`Guest::touch`] stored into `page`.
    #[track_caller]
    pub fn touched(&mut self, page: u64) -> u64 {
        self.load8(BASE + page * P + 100)
    }

    /// Stores bytes one by one.
    #[track_caller]
    pub fn poke(&mut self, address: u64, bytes: &[u8]) {
        for (address, byte) in (address..).zip(bytes) {
            self.store8(address, u64::from(*byte));
        }
    }

    /// Loads bytes one by one.
    #[track_caller]
    pub fn peek(&mut self, address: u64, length: u64) -> Vec<u8> {
        (address..address + length)
            .map(|address| self.load8(address) as u8)
            .collect()
    }
}
