//! The import module `vmsync1` for a 32-bit memory: decode the guest's words, call core, encode the answer.
//!
//! Addresses and sizes arrive as `u32`; what is 64 bits wide as `BigInt`. Each function answers a `kern_return`.
//!
//! Invariant: an out parameter is checked before the call does anything, and written after it succeeded.

use vmsync_core::{
    ByteRange, KernReturn,
    abi::{
        Behavior, Inherit, NAME_BYTES_MAX, ObjectInfo, OpenFlags, PORT_NULL, RegionInfo, VmFlags, VmProt,
        VmSync,
    },
    limits::OBJECT_BYTES_MAX,
    pager::{InitRequest, ObjectName},
    task::{MapRequest, behavior_flags, check_placement_flags},
};
use wasm_bindgen::prelude::wasm_bindgen;

use crate::{Vm, host::PAGE_SIZE, vm::Attached};

/// One behind the highest address.
const WORD_END: u64 = 1 << 32;
const WORD_BYTES: u64 = 4;

fn code(result: Result<(), KernReturn>) -> i32 {
    KernReturn::from(result).code()
}

#[wasm_bindgen]
impl Vm {
    /// `vm_msync`.
    pub fn vm_msync(&mut self, task: u32, address: u32, size: u32, flags: u32) -> i32 {
        match self.check_task(task) {
            Ok(()) => self.msync(address.into(), size.into(), VmSync(flags), WORD_END),
            Err(error) => error.code(),
        }
    }

    /// `mach_vm_msync`.
    pub fn mach_vm_msync(&mut self, task: u32, address: u64, size: u64, flags: u32) -> i32 {
        match self.check_task(task) {
            Ok(()) => self.msync(address, size, VmSync(flags), u64::MAX),
            Err(error) => error.code(),
        }
    }

    /// `vm_map`.
    #[expect(clippy::too_many_arguments, reason = "it is Mach's signature")]
    pub fn vm_map(
        &mut self,
        task: u32,
        address: u32,
        size: u32,
        mask: u32,
        flags: u32,
        object: u32,
        offset: u64,
        copy: u32,
        protection: u32,
        max_protection: u32,
        inherit: i32,
    ) -> i32 {
        let Some(inherit) = Inherit::from_code(inherit) else {
            return KernReturn::InvalidArgument.code();
        };
        let request = MapRequest {
            address: 0,
            size: size.into(),
            overwrite: false,
            port: object,
            offset,
            copy: copy != 0,
            protection: VmProt(protection),
            max_protection: VmProt(max_protection),
            inherit,
        };
        code(self.map(task, address.into(), mask.into(), VmFlags(flags), request))
    }

    /// `vm_allocate`.
    pub fn vm_allocate(&mut self, task: u32, address: u32, size: u32, flags: u32) -> i32 {
        let request = MapRequest::allocate(0, size.into());
        code(self.map(task, address.into(), 0, VmFlags(flags), request))
    }

    /// `vm_deallocate`.
    pub fn vm_deallocate(&mut self, task: u32, address: u32, size: u32) -> i32 {
        let done = self
            .check_task(task)
            .and_then(|()| self.deallocate(address.into(), size.into()));
        code(done)
    }

    /// `vm_protect`.
    pub fn vm_protect(
        &mut self,
        task: u32,
        address: u32,
        size: u32,
        set_maximum: u32,
        protection: u32,
    ) -> i32 {
        let checked = self.check_task(task);
        code(checked.and_then(|()| {
            let Attached { task, memory } = self.attached()?;
            task.protect(
                address.into(),
                size.into(),
                set_maximum != 0,
                VmProt(protection),
                memory,
            )
        }))
    }

    /// `vm_region`.
    #[expect(clippy::too_many_arguments, reason = "it is Mach's signature")]
    pub fn vm_region(
        &mut self,
        task: u32,
        address: u32,
        size: u32,
        flavor: i32,
        info: u32,
        count: u32,
        object: u32,
    ) -> i32 {
        code(self.region(task, [address, size, info, count, object].map(u64::from), flavor))
    }

    /// `vm_behavior_set`.
    pub fn vm_behavior_set(&mut self, task: u32, address: u32, size: u32, behavior: i32) -> i32 {
        if let Err(error) = self.check_task(task) {
            return error.code();
        }
        let (address, size) = (u64::from(address), u64::from(size));
        let Some(behavior) = Behavior::from_code(behavior) else {
            return KernReturn::InvalidArgument.code();
        };
        match behavior_flags(behavior) {
            Some(flags) => self.msync(address, size, flags, u64::MAX),
            None => code(
                self.attached()
                    .and_then(|Attached { task, memory }| task.behavior_set(address, size, behavior, memory)),
            ),
        }
    }

    /// `memory_object_open`.
    pub fn memory_object_open(
        &mut self,
        name: u32,
        name_bytes: i32,
        size: u64,
        flags: u32,
        port: u32,
    ) -> i32 {
        code(self.open((name.into(), name_bytes), size, OpenFlags(flags), port.into()))
    }

    /// `memory_object_close`.
    pub fn memory_object_close(&mut self, port: u32) -> i32 {
        code(
            self.attached()
                .and_then(|attached| attached.task.close_object(port)),
        )
    }

    /// `memory_object_info`.
    pub fn memory_object_info(&mut self, port: u32, info: u32) -> i32 {
        code(self.info(port, info.into()))
    }
}

impl Vm {
    fn check_task(&mut self, port: u32) -> Result<(), KernReturn> {
        self.attached()?.task.check_task(port)
    }

    fn read(&mut self, address: u64, buffer: &mut [u8]) -> Result<(), KernReturn> {
        let Attached { task, memory } = self.attached()?;
        task.check_access(address, buffer.len() as u64, VmProt::READ)?;
        memory
            .read(address, buffer)
            .map_err(|_| KernReturn::InvalidAddress)
    }

    fn write(&mut self, address: u64, bytes: &[u8]) -> Result<(), KernReturn> {
        let Attached { task, memory } = self.attached()?;
        task.check_access(address, bytes.len() as u64, VmProt::WRITE)?;
        memory
            .write(address, bytes)
            .map_err(|_| KernReturn::InvalidAddress)?;
        if let Some(range) = ByteRange::at(address, bytes.len() as u64) {
            task.note_store(range);
        }
        Ok(())
    }

    fn check_writable(&mut self, address: u64, length: u64) -> Result<(), KernReturn> {
        self.attached()?.task.check_access(address, length, VmProt::WRITE)
    }

    fn read_word(&mut self, address: u64) -> Result<u64, KernReturn> {
        let mut bytes = [0; WORD_BYTES as usize];
        self.read(address, &mut bytes)?;
        Ok(u32::from_le_bytes(bytes).into())
    }

    fn write_word(&mut self, address: u64, value: u64) -> Result<(), KernReturn> {
        self.write(address, &value.to_le_bytes()[..WORD_BYTES as usize])
    }

    /// `vm_map` and `vm_allocate` after their words have been decoded.
    fn map(
        &mut self,
        task: u32,
        pointer: u64,
        mask: u64,
        flags: VmFlags,
        mut request: MapRequest,
    ) -> Result<(), KernReturn> {
        self.check_task(task)?;
        check_placement_flags(flags)?;
        request.address = self.read_word(pointer)?;
        self.check_writable(pointer, WORD_BYTES)?;
        request.overwrite = flags.contains(VmFlags::OVERWRITE);
        if flags.contains(VmFlags::ANYWHERE) {
            self.map_anywhere(&mut request, mask)?;
            return self.write_word(pointer, request.address);
        }
        if request.address & mask != 0 {
            return Err(KernReturn::NoSpace);
        }
        self.map_fixed(&request)?;
        // The new region may lie over the pointer. Where it takes no stores nothing is told: the guest chose the address.
        let _ = self.write_word(pointer, request.address);
        Ok(())
    }

    /// Finds a place and maps there; a mapping that is refused leaves a hole there, for the next one.
    fn map_anywhere(&mut self, request: &mut MapRequest, mask: u64) -> Result<(), KernReturn> {
        if request.size == 0 {
            return Err(KernReturn::InvalidArgument);
        }
        let lowest = self.lowest(request.port);
        let attached = self.attached()?;
        let placement = attached.task.place(request.size, mask, lowest)?;
        if !attached.memory.grow_to(placement.memory_size) {
            return Err(KernReturn::NoSpace);
        }
        request.address = placement.address;
        let mapped = self.map_fixed(request);
        if mapped.is_err() {
            // Its own failure would change nothing of the answer.
            let _ = self.deallocate(request.address, request.size);
        }
        mapped
    }

    /// Below it no region of the object `port` may begin: nobody sees the guest's stores to its shadow stack.
    fn lowest(&self, port: u32) -> u64 {
        if port == PORT_NULL { 0 } else { self.stack_end }
    }

    fn map_fixed(&mut self, request: &MapRequest) -> Result<(), KernReturn> {
        if request.address < self.lowest(request.port) {
            return Err(KernReturn::NoSpace);
        }
        if request.overwrite {
            // Precious pages go back before their regions do.
            let call = self.host.next_call();
            let Attached { task, memory } = self.attached()?;
            task.check_map(request, memory)?;
            let mut before = task.deallocate(request.address, request.size, call, memory)?;
            self.drive(&mut before.returns);
            self.attached()?.task.check_returned(&before)?;
        }
        let Attached { task, memory } = self.attached()?;
        task.map_region(request, memory)
    }

    fn deallocate(&mut self, address: u64, size: u64) -> Result<(), KernReturn> {
        let call = self.host.next_call();
        let Attached { task, memory } = self.attached()?;
        let mut deallocation = task.deallocate(address, size, call, memory)?;
        // Precious pages are returned; with those that were not, the guest keeps the range.
        self.drive(&mut deallocation.returns);
        let Attached { task, memory } = self.attached()?;
        task.finish_deallocate(&deallocation, memory)
    }

    fn region(&mut self, task: u32, pointers: [u64; 5], flavor: i32) -> Result<(), KernReturn> {
        let [address, size, info, count, object] = pointers;
        self.check_task(task)?;
        let words = self.read_word(count)?;
        if flavor != RegionInfo::FLAVOR || words < u64::from(RegionInfo::COUNT) {
            return Err(KernReturn::InvalidArgument);
        }
        let from = self.read_word(address)?;
        let info_bytes = RegionInfo::BYTES as u64;
        for (pointer, length) in [
            (address, 4),
            (size, 4),
            (info, info_bytes),
            (count, 4),
            (object, 4),
        ] {
            self.check_writable(pointer, length)?;
        }
        let region = self.attached()?.task.region(from)?;
        self.write_word(address, region.range.start)?;
        self.write_word(size, region.range.len())?;
        self.write(info, &region.info.to_bytes())?;
        self.write_word(count, RegionInfo::COUNT.into())?;
        self.write_word(object, region.port.into())
    }

    fn open(&mut self, name: (u64, i32), size: u64, flags: OpenFlags, port: u64) -> Result<(), KernReturn> {
        let length = usize::try_from(name.1).map_err(|_| KernReturn::InvalidArgument)?;
        if length > NAME_BYTES_MAX || i64::try_from(size).is_err() {
            return Err(KernReturn::InvalidArgument);
        }
        let mut bytes = [0; NAME_BYTES_MAX];
        let bytes = &mut bytes[..length];
        self.read(name.0, bytes)?;
        let name = std::str::from_utf8(bytes).map_err(|_| KernReturn::InvalidArgument)?;
        ObjectName::new(name).map_err(|_| KernReturn::InvalidArgument)?;
        self.check_writable(port, 4)?;
        let opened = self.open_granted(name, size, flags)?;
        self.write_word(port, opened.into())
    }

    fn open_granted(&mut self, name: &str, size: u64, flags: OpenFlags) -> Result<u32, KernReturn> {
        if flags.has_unknown() || !flags.intersects(OpenFlags::READ | OpenFlags::WRITE) {
            return Err(KernReturn::InvalidArgument);
        }
        let size_min = PAGE_SIZE.round_up(size).ok_or(KernReturn::InvalidArgument)?;
        let grant = self.host.grant(name).ok_or(KernReturn::NoAccess)?;
        if !grant.rights.contains(flags.without(OpenFlags::CREATE)) {
            return Err(KernReturn::NoAccess);
        }
        if size_min > grant.size_max.min(OBJECT_BYTES_MAX) {
            return Err(KernReturn::ResourceShortage);
        }
        let write = grant.rights.contains(OpenFlags::WRITE);
        let request = InitRequest {
            page_size: PAGE_SIZE,
            size_min: if write { size_min } else { 0 },
            create: flags.contains(OpenFlags::CREATE) && grant.rights.contains(OpenFlags::CREATE),
            write,
        };
        self.attached()?.task.has_port()?;
        let object = self.host.open_object(&grant, request).map_err(|error| {
            let result = error.kind.open();
            self.last_error = Some(error);
            result
        })?;
        self.attached()?.task.open_object(object, flags)
    }

    fn info(&mut self, port: u32, pointer: u64) -> Result<(), KernReturn> {
        self.check_writable(pointer, ObjectInfo::BYTES as u64)?;
        let info = self.attached()?.task.object_info(port)?;
        self.write(pointer, &info.to_bytes())
    }
}
