//! The import module `vmsync1`: decode the guest's words, call [`Vm`], encode the answer. Nothing is decided here.
//!
//! The functions come in two widths, as the calls of C libraries do: pointers, addresses and sizes are `i32` for a
//! 32-bit memory and `i64` for a 64-bit one.
//!
//! Invariants:
//! - whatever the guest passes, the answer is a `kern_return`; a trap says that the *host* is set up wrongly;
//! - an out parameter is checked before the call does anything, and written after it succeeded.

use vmsync_core::{
    KernReturn,
    abi::{
        Behavior, Inherit, MODULE, NAME_BYTES_MAX, ObjectInfo, OpenFlags, RegionInfo, TASK_SELF, VmFlags,
        VmProt, VmSync,
    },
    task::{MapRequest, check_placement_flags},
};
use wasmtime::{Caller, Extern, Linker, Memory};

use crate::{
    Error, Vm,
    prepare::CARDS_EXPORT,
    vm::MemoryPlace,
    writeback::{Waiter, finished},
};

/// The memory that a guest must export.
pub(crate) const MEMORY_EXPORT: &str = "memory";

/// A word of the guest's memory: its bytes, and how far it reaches.
trait Word: wasmtime::WasmTy + Copy + Send + 'static {
    const BYTES: u64;
    /// One behind the highest address that it holds; `u64::MAX` for 64 bits.
    const END: u64;
    fn to_u64(self) -> u64;
}

impl Word for i32 {
    const BYTES: u64 = 4;
    const END: u64 = 1 << 32;
    fn to_u64(self) -> u64 {
        u64::from(self.cast_unsigned())
    }
}

impl Word for i64 {
    const BYTES: u64 = 8;
    const END: u64 = u64::MAX;
    fn to_u64(self) -> u64 {
        self.cast_unsigned()
    }
}

/// Finds a guest's [`Vm`] in the data of its store.
trait Get<T>: Fn(&mut T) -> &mut Vm + Send + Sync + Copy + 'static {}

impl<T, G: Fn(&mut T) -> &mut Vm + Send + Sync + Copy + 'static> Get<T> for G {}

/// Adds `vmsync1` to `linker` for guests with a 32-bit memory. `get` finds the guest's [`Vm`] in the store's data.
///
/// # Errors
/// When the names are defined already.
pub fn add_to_linker<T: 'static>(
    linker: &mut Linker<T>,
    get: impl Fn(&mut T) -> &mut Vm + Send + Sync + Copy + 'static,
) -> Result<(), Error> {
    add::<i32, T, _>(linker, get)?;
    add_syncs::<i32, T, _>(linker, get)
}

/// Adds `vmsync1` to `linker` for guests with a 64-bit memory.
///
/// # Errors
/// When the names are defined already.
pub fn add_to_linker_memory64<T: 'static>(
    linker: &mut Linker<T>,
    get: impl Fn(&mut T) -> &mut Vm + Send + Sync + Copy + 'static,
) -> Result<(), Error> {
    add::<i64, T, _>(linker, get)?;
    add_syncs::<i64, T, _>(linker, get)
}

/// [`add_to_linker`] for stores whose guests are called asynchronously: while a guest's sync is under way, its thread goes on with
/// other tasks. Dropping the future of the guest's call gives the sync up: what it covered stays dirty, and may be durable.
///
/// Only syncs yield (`vm_msync`, `mach_vm_msync`, and `vm_behavior_set` where it is one). Opening an object, mapping it, and
/// giving up pages that their pager wants back take the thread as long as the pager does. So does a sync of a pager that has
/// no thread of its own to spare ([`pager::SynchronizeFlags::nowait`](crate::pager::SynchronizeFlags::nowait)). A mapping that makes
/// the memory grow asks the store's limiter without waiting: one that is asynchronous ([`wasmtime::Store::limiter_async`]) refuses
/// it, and the guest gets NO_SPACE.
///
/// # Errors
/// When the names are defined already.
pub fn add_to_linker_async<T: Send + 'static>(
    linker: &mut Linker<T>,
    get: impl Fn(&mut T) -> &mut Vm + Send + Sync + Copy + 'static,
) -> Result<(), Error> {
    add::<i32, T, _>(linker, get)?;
    add_syncs_async::<i32, T, _>(linker, get)
}

/// [`add_to_linker_async`] for guests with a 64-bit memory.
///
/// # Errors
/// When the names are defined already.
pub fn add_to_linker_memory64_async<T: Send + 'static>(
    linker: &mut Linker<T>,
    get: impl Fn(&mut T) -> &mut Vm + Send + Sync + Copy + 'static,
) -> Result<(), Error> {
    add::<i64, T, _>(linker, get)?;
    add_syncs_async::<i64, T, _>(linker, get)
}

/// What the guest gets for a result.
fn code(result: Result<(), KernReturn>) -> i32 {
    KernReturn::from(result).code()
}

/// A call in progress: the caller with its memory, and the way to its [`Vm`].
struct Call<'a, T: 'static, G> {
    caller: Caller<'a, T>,
    memory: Memory,
    get: G,
}

impl<'a, T: 'static, G: Get<T>> Call<'a, T, G> {
    fn enter(mut caller: Caller<'a, T>, get: G) -> wasmtime::Result<Self> {
        let memory = match caller.get_export(MEMORY_EXPORT) {
            Some(Extern::Memory(memory)) => memory,
            Some(Extern::SharedMemory(_)) => {
                wasmtime::bail!("shared memories are not supported: compile the guest without threads")
            }
            _ => wasmtime::bail!("the guest exports no memory named \"{MEMORY_EXPORT}\": export it"),
        };
        let mut call = Self { caller, memory, get };
        call.refresh()?;
        Ok(call)
    }

    /// Looks at the memory again: at the start, and after it has grown.
    fn refresh(&mut self) -> wasmtime::Result<()> {
        let cards = if self.vm().is_attached() {
            None
        } else {
            self.caller.get_export(CARDS_EXPORT).and_then(Extern::into_memory)
        };
        let place = MemoryPlace::of(&self.memory, &self.caller, cards);
        self.vm()
            .enter(&place)
            .map_err(|error| wasmtime::format_err!("{error}"))
    }

    fn vm(&mut self) -> &mut Vm {
        (self.get)(self.caller.data_mut())
    }

    fn read_word<W: Word>(&mut self, pointer: u64) -> Result<u64, KernReturn> {
        let mut bytes = [0; 8];
        self.vm().read_guest(pointer, &mut bytes[..W::BYTES as usize])?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn write_word<W: Word>(&mut self, pointer: u64, value: u64) -> Result<(), KernReturn> {
        self.vm()
            .write_guest(pointer, &value.to_le_bytes()[..W::BYTES as usize])
    }

    /// Grows the memory so that `placement` fits.
    fn grow(&mut self, memory_size: u64) -> Result<(), KernReturn> {
        let page_bytes = self.memory.page_size(&self.caller);
        let have = self.memory.data_size(&self.caller) as u64;
        let missing = memory_size.saturating_sub(have).div_ceil(page_bytes);
        if missing == 0 {
            return Ok(());
        }
        self.memory
            .grow(&mut self.caller, missing)
            .map_err(|_| KernReturn::NoSpace)?;
        self.refresh().map_err(|_| KernReturn::InvalidTask)
    }

    /// `vm_map` and `vm_allocate` after their words have been decoded.
    fn map<W: Word>(
        &mut self,
        task: i32,
        address_pointer: u64,
        mask: u64,
        flags: VmFlags,
        mut request: MapRequest,
    ) -> Result<(), KernReturn> {
        self.vm().check_task(task.cast_unsigned())?;
        check_placement_flags(flags)?;
        request.address = self.read_word::<W>(address_pointer)?;
        self.vm().check_writable(address_pointer, W::BYTES)?;
        request.overwrite = flags.contains(VmFlags::OVERWRITE);
        if flags.contains(VmFlags::ANYWHERE) {
            self.map_anywhere(&mut request, mask)?;
            return self.write_word::<W>(address_pointer, request.address);
        }
        if request.address & mask != 0 {
            return Err(KernReturn::NoSpace);
        }
        self.vm().vm_map(&request)?;
        // The new region may lie over the pointer. Where it takes no stores nothing is told: the guest chose the address.
        let _ = self.write_word::<W>(address_pointer, request.address);
        Ok(())
    }

    /// Finds a place and maps there; a mapping that is refused leaves a hole there, for the next one.
    fn map_anywhere(&mut self, request: &mut MapRequest, mask: u64) -> Result<(), KernReturn> {
        if request.size == 0 {
            return Err(KernReturn::InvalidArgument);
        }
        let placement = self.vm().place(request.size, mask, request.port)?;
        self.grow(placement.memory_size)?;
        request.address = placement.address;
        let mapped = self.vm().vm_map(request);
        if mapped.is_err() {
            // Its own failure would change nothing of the answer.
            let _ = self.vm().vm_deallocate(request.address, request.size);
        }
        mapped
    }

    fn region<W: Word>(&mut self, task: i32, pointers: [u64; 5], flavor: i32) -> Result<(), KernReturn> {
        let [address, size, info, count, object] = pointers;
        self.vm().check_task(task.cast_unsigned())?;
        let mut words = [0; 4];
        self.vm().read_guest(count, &mut words)?;
        if flavor != RegionInfo::FLAVOR || u32::from_le_bytes(words) < RegionInfo::COUNT {
            return Err(KernReturn::InvalidArgument);
        }
        let from = self.read_word::<W>(address)?;
        let outs = [
            (address, W::BYTES),
            (size, W::BYTES),
            (info, RegionInfo::BYTES as u64),
            (count, 4),
            (object, 4),
        ];
        for (pointer, length) in outs {
            self.vm().check_writable(pointer, length)?;
        }
        let region = self.vm().vm_region(from)?;
        self.write_word::<W>(address, region.range.start)?;
        self.write_word::<W>(size, region.range.len())?;
        self.vm().write_guest(info, &region.info.to_bytes())?;
        self.vm().write_guest(count, &RegionInfo::COUNT.to_le_bytes())?;
        self.vm().write_guest(object, &region.port.to_le_bytes())
    }

    fn open(&mut self, name: (u64, i32), size: i64, flags: i32, port_pointer: u64) -> Result<(), KernReturn> {
        let (name_pointer, name_bytes) = name;
        let length = usize::try_from(name_bytes).map_err(|_| KernReturn::InvalidArgument)?;
        if length > NAME_BYTES_MAX || size < 0 {
            return Err(KernReturn::InvalidArgument);
        }
        let mut bytes = [0; NAME_BYTES_MAX];
        let bytes = &mut bytes[..length];
        self.vm().read_guest(name_pointer, bytes)?;
        let name = std::str::from_utf8(bytes).map_err(|_| KernReturn::InvalidArgument)?;
        vmsync_core::pager::ObjectName::new(name).map_err(|_| KernReturn::InvalidArgument)?;
        self.vm().check_writable(port_pointer, 4)?;
        let flags = OpenFlags(flags.cast_unsigned());
        let port = self.vm().memory_object_open(name, size.cast_unsigned(), flags)?;
        self.vm().write_guest(port_pointer, &port.to_le_bytes())
    }

    fn info(&mut self, port: i32, pointer: u64) -> Result<(), KernReturn> {
        self.vm().check_writable(pointer, ObjectInfo::BYTES as u64)?;
        let info = self.vm().memory_object_info(port.cast_unsigned())?;
        self.vm().write_guest(pointer, &info.to_bytes())
    }
}

fn add<W: Word, T: 'static, G: Get<T>>(linker: &mut Linker<T>, get: G) -> Result<(), Error> {
    linker.func_wrap(MODULE, "mach_task_self", || TASK_SELF.cast_signed())?;
    add_regions::<W, T, G>(linker, get)?;
    add_objects::<W, T, G>(linker, get)
}

/// `vm_msync` and `mach_vm_msync`: their words, of which `E` are addresses.
async fn msync<E: Word, T: 'static, G: Get<T>>(
    caller: Caller<'_, T>,
    get: G,
    waiter: Waiter,
    (task, address, size, flags): (i32, E, E, i32),
) -> wasmtime::Result<i32> {
    let mut call = Call::enter(caller, get)?;
    let vm = call.vm();
    if let Err(error) = vm.check_task(task.cast_unsigned()) {
        return Ok(error.code());
    }
    let flags = VmSync(flags.cast_unsigned());
    let result = vm.vm_msync(waiter, address.to_u64(), size.to_u64(), flags, E::END);
    Ok(result.await.code())
}

/// `vm_behavior_set`.
async fn behavior_set<W: Word, T: 'static, G: Get<T>>(
    caller: Caller<'_, T>,
    get: G,
    waiter: Waiter,
    (task, address, size, behavior): (i32, W, W, i32),
) -> wasmtime::Result<i32> {
    let mut call = Call::enter(caller, get)?;
    let vm = call.vm();
    if let Err(error) = vm.check_task(task.cast_unsigned()) {
        return Ok(error.code());
    }
    let Some(behavior) = Behavior::from_code(behavior) else {
        return Ok(KernReturn::InvalidArgument.code());
    };
    let result = vm.vm_behavior_set(waiter, address.to_u64(), size.to_u64(), behavior);
    Ok(result.await.code())
}

/// The calls that wait for pagers; the thread does.
fn add_syncs<W: Word, T: 'static, G: Get<T>>(linker: &mut Linker<T>, get: G) -> Result<(), Error> {
    linker.func_wrap(
        MODULE,
        "vm_msync",
        move |caller: Caller<'_, T>, task: i32, address: W, size: W, flags: i32| {
            finished(msync(caller, get, Waiter::Thread, (task, address, size, flags)))
        },
    )?;
    linker.func_wrap(
        MODULE,
        "mach_vm_msync",
        move |caller: Caller<'_, T>, task: i32, address: i64, size: i64, flags: i32| {
            finished(msync(caller, get, Waiter::Thread, (task, address, size, flags)))
        },
    )?;
    linker.func_wrap(
        MODULE,
        "vm_behavior_set",
        move |caller: Caller<'_, T>, task: i32, address: W, size: W, behavior: i32| {
            let words = (task, address, size, behavior);
            finished(behavior_set(caller, get, Waiter::Thread, words))
        },
    )?;
    Ok(())
}

/// The same; the task does, and its thread goes on.
fn add_syncs_async<W: Word, T: Send + 'static, G: Get<T>>(
    linker: &mut Linker<T>,
    get: G,
) -> Result<(), Error> {
    linker.func_wrap_async(MODULE, "vm_msync", move |caller, words: (i32, W, W, i32)| {
        Box::new(msync(caller, get, Waiter::Task, words))
    })?;
    linker.func_wrap_async(
        MODULE,
        "mach_vm_msync",
        move |caller, words: (i32, i64, i64, i32)| Box::new(msync(caller, get, Waiter::Task, words)),
    )?;
    linker.func_wrap_async(
        MODULE,
        "vm_behavior_set",
        move |caller, words: (i32, W, W, i32)| Box::new(behavior_set(caller, get, Waiter::Task, words)),
    )?;
    Ok(())
}

fn add_regions<W: Word, T: 'static, G: Get<T>>(linker: &mut Linker<T>, get: G) -> Result<(), Error> {
    linker.func_wrap(
        MODULE,
        "vm_map",
        move |caller: Caller<'_, T>,
              task: i32,
              address: W,
              size: W,
              mask: W,
              flags: i32,
              object: i32,
              offset: i64,
              copy: i32,
              protection: i32,
              max_protection: i32,
              inherit: i32| {
            let mut call = Call::enter(caller, get)?;
            let Some(inherit) = Inherit::from_code(inherit) else {
                return Ok(KernReturn::InvalidArgument.code());
            };
            let request = MapRequest {
                address: 0,
                size: size.to_u64(),
                overwrite: false,
                port: object.cast_unsigned(),
                offset: offset.cast_unsigned(),
                copy: copy != 0,
                protection: VmProt(protection.cast_unsigned()),
                max_protection: VmProt(max_protection.cast_unsigned()),
                inherit,
            };
            let flags = VmFlags(flags.cast_unsigned());
            Ok(code(call.map::<W>(
                task,
                address.to_u64(),
                mask.to_u64(),
                flags,
                request,
            )))
        },
    )?;
    linker.func_wrap(
        MODULE,
        "vm_allocate",
        move |caller: Caller<'_, T>, task: i32, address: W, size: W, flags: i32| {
            let mut call = Call::enter(caller, get)?;
            let request = MapRequest::allocate(0, size.to_u64());
            let flags = VmFlags(flags.cast_unsigned());
            Ok(code(call.map::<W>(task, address.to_u64(), 0, flags, request)))
        },
    )?;
    linker.func_wrap(
        MODULE,
        "vm_deallocate",
        move |caller: Caller<'_, T>, task: i32, address: W, size: W| {
            let mut call = Call::enter(caller, get)?;
            let vm = call.vm();
            let checked = vm.check_task(task.cast_unsigned());
            Ok(code(checked.and_then(|()| {
                vm.vm_deallocate(address.to_u64(), size.to_u64())
            })))
        },
    )?;
    linker.func_wrap(
        MODULE,
        "vm_protect",
        move |caller: Caller<'_, T>, task: i32, address: W, size: W, set_maximum: i32, protection: i32| {
            let mut call = Call::enter(caller, get)?;
            let vm = call.vm();
            let protection = VmProt(protection.cast_unsigned());
            let checked = vm.check_task(task.cast_unsigned());
            Ok(code(checked.and_then(|()| {
                vm.vm_protect(address.to_u64(), size.to_u64(), set_maximum != 0, protection)
            })))
        },
    )?;
    linker.func_wrap(
        MODULE,
        "vm_region",
        move |caller: Caller<'_, T>,
              task: i32,
              address: W,
              size: W,
              flavor: i32,
              info: W,
              count: W,
              object: W| {
            let mut call = Call::enter(caller, get)?;
            let pointers = [address, size, info, count, object].map(Word::to_u64);
            Ok(code(call.region::<W>(task, pointers, flavor)))
        },
    )?;
    Ok(())
}

fn add_objects<W: Word, T: 'static, G: Get<T>>(linker: &mut Linker<T>, get: G) -> Result<(), Error> {
    linker.func_wrap(
        MODULE,
        "memory_object_open",
        move |caller: Caller<'_, T>, name: W, name_bytes: i32, size: i64, flags: i32, port: W| {
            let mut call = Call::enter(caller, get)?;
            Ok(code(call.open(
                (name.to_u64(), name_bytes),
                size,
                flags,
                port.to_u64(),
            )))
        },
    )?;
    linker.func_wrap(
        MODULE,
        "memory_object_close",
        move |caller: Caller<'_, T>, port: i32| {
            let mut call = Call::enter(caller, get)?;
            Ok(code(call.vm().memory_object_close(port.cast_unsigned())))
        },
    )?;
    linker.func_wrap(
        MODULE,
        "memory_object_info",
        move |caller: Caller<'_, T>, port: i32, info: W| {
            let mut call = Call::enter(caller, get)?;
            Ok(code(call.info(port, info.to_u64())))
        },
    )?;
    Ok(())
}
