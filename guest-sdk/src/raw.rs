//! The imports of module `vmsync1`, and one safe function for each.
//!
//! Sits below everything else in this crate; the only file that talks to the host. `raw_host.rs` has the same
//! functions for targets that are not WebAssembly.
//!
//! Invariants:
//! - a word that is an address, a size or a mask is `usize`: `i32` in a 32-bit memory, `i64` in a 64-bit one;
//! - a function here returns `Ok` only where the host answered `KERN_SUCCESS`;
//! - the host reads and writes only what the arguments point to, so the wrappers are safe. `map` and `unmap` are
//!   not: they change what lies at an address.

use vmsync_abi::{Behavior, Inherit, ObjectInfo, OpenFlags, RegionInfo, TASK_SELF, VmFlags, VmProt, VmSync};

use crate::error::{Error, Result};

mod import {
    use vmsync_abi::{ObjectInfo, RegionInfo};

    #[link(wasm_import_module = "vmsync1")]
    unsafe extern "C" {
        pub fn vm_msync(task: u32, address: usize, size: usize, flags: u32) -> i32;
        pub fn vm_map(
            task: u32,
            address: *mut usize,
            size: usize,
            mask: usize,
            flags: u32,
            object: u32,
            offset: u64,
            copy: u32,
            cur_protection: u32,
            max_protection: u32,
            inheritance: i32,
        ) -> i32;
        pub fn vm_deallocate(task: u32, address: usize, size: usize) -> i32;
        pub fn vm_protect(task: u32, address: usize, size: usize, set_maximum: u32, protection: u32) -> i32;
        pub fn vm_region(
            task: u32,
            address: *mut usize,
            size: *mut usize,
            flavor: i32,
            info: *mut RegionInfo,
            count: *mut u32,
            object_name: *mut u32,
        ) -> i32;
        pub fn vm_behavior_set(task: u32, address: usize, size: usize, behavior: i32) -> i32;
        pub fn memory_object_open(
            name: *const u8,
            name_len: u32,
            size: u64,
            flags: u32,
            port: *mut u32,
        ) -> i32;
        pub fn memory_object_close(port: u32) -> i32;
        pub fn memory_object_info(port: u32, info: *mut ObjectInfo) -> i32;
    }
}

fn check(call: &'static str, code: i32) -> Result<()> {
    if code == 0 {
        Ok(())
    } else {
        Err(Error::from_code(call, code))
    }
}

/// `vm_msync` of this task.
pub fn msync(address: usize, size: usize, flags: VmSync) -> Result<()> {
    // SAFETY: takes no pointer; the host refuses a range that is not allocated.
    check("vm_msync", unsafe {
        import::vm_msync(TASK_SELF, address, size, flags.0)
    })
}

/// `vm_map` of all of `object`, or of zero-filled memory for `PORT_NULL`; the address where it was mapped.
///
/// # Safety
/// No Rust object lives in `address..address + size`, unless `flags` has ANYWHERE.
pub unsafe fn map(
    address: usize,
    size: usize,
    flags: VmFlags,
    object: u32,
    copy: bool,
    protection: VmProt,
) -> Result<usize> {
    let mut mapped = address;
    let inheritance = Inherit::default() as i32;
    // SAFETY: `mapped` is a live word; the caller vouches for the range.
    let code = unsafe {
        import::vm_map(
            TASK_SELF,
            &mut mapped,
            size,
            0,
            flags.0,
            object,
            0,
            u32::from(copy),
            protection.0,
            protection.0,
            inheritance,
        )
    };
    check("vm_map", code).map(|()| mapped)
}

/// `vm_deallocate`.
///
/// # Safety
/// Nothing uses `address..address + size` any more.
pub unsafe fn unmap(address: usize, size: usize) -> Result<()> {
    // SAFETY: the caller vouches for the range.
    check("vm_deallocate", unsafe {
        import::vm_deallocate(TASK_SELF, address, size)
    })
}

/// `vm_protect` of the current protection.
pub fn protect(address: usize, size: usize, protection: VmProt) -> Result<()> {
    // SAFETY: takes no pointer; an access that the new protection forbids traps, it is not undefined.
    check("vm_protect", unsafe {
        import::vm_protect(TASK_SELF, address, size, 0, protection.0)
    })
}

/// `vm_region`: start and size of the first region at or above `address`, and what it is.
pub fn region(address: usize) -> Result<(usize, usize, RegionInfo)> {
    let (mut start, mut size, mut info) = (address, 0_usize, RegionInfo::default());
    let (mut count, mut name) = (RegionInfo::COUNT, 0_u32);
    // SAFETY: every pointer is to a live value of the size that the flavor names.
    let code = unsafe {
        let flavor = RegionInfo::FLAVOR;
        import::vm_region(
            TASK_SELF, &mut start, &mut size, flavor, &mut info, &mut count, &mut name,
        )
    };
    check("vm_region", code).map(|()| (start, size, info))
}

/// `vm_behavior_set`.
///
/// # Safety
/// With [`Behavior::Free`] or [`Behavior::Zero`], nothing relies on the bytes of the range.
pub unsafe fn behave(address: usize, size: usize, behavior: Behavior) -> Result<()> {
    // SAFETY: takes no pointer; the caller vouches for the destructive values.
    let code = unsafe { import::vm_behavior_set(TASK_SELF, address, size, behavior as i32) };
    check("vm_behavior_set", code)
}

/// `memory_object_open`; the port.
pub fn open(name: &str, size_min: u64, flags: OpenFlags) -> Result<u32> {
    let mut port = 0;
    let name_len = u32::try_from(name.len()).unwrap_or(u32::MAX);
    // SAFETY: `name` is readable for its length and `port` is a live word.
    let code = unsafe { import::memory_object_open(name.as_ptr(), name_len, size_min, flags.0, &mut port) };
    check("memory_object_open", code).map(|()| port)
}

/// `memory_object_close`.
pub fn close(port: u32) -> Result<()> {
    // SAFETY: takes no pointer.
    check("memory_object_close", unsafe {
        import::memory_object_close(port)
    })
}

/// `memory_object_info`.
pub fn info(port: u32) -> Result<ObjectInfo> {
    let mut info = ObjectInfo::default();
    // SAFETY: `info` is a live struct of the wire layout.
    let code = unsafe { import::memory_object_info(port, &mut info) };
    check("memory_object_info", code).map(|()| info)
}

/// The addresses that the link leaves free between the stack and the static data; empty where it leaves none.
pub fn window() -> (usize, usize) {
    unsafe extern "C" {
        static __stack_high: u8;
        static __global_base: u8;
    }
    (
        &raw const __stack_high as usize,
        &raw const __global_base as usize,
    )
}
