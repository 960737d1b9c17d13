//! `raw.rs` for targets that are not WebAssembly: there is no host, so every call is `KERN_NOT_SUPPORTED`.
//!
//! It lets the crate build, document and test its heap on an ordinary machine.

use vmsync_abi::{Behavior, KernReturn, ObjectInfo, OpenFlags, RegionInfo, VmFlags, VmProt, VmSync};

use crate::error::{Error, Result};

fn refuse<T>(call: &'static str) -> Result<T> {
    Err(Error::Host {
        call,
        result: KernReturn::NotSupported,
    })
}

pub fn msync(_address: usize, _size: usize, _flags: VmSync) -> Result<()> {
    refuse("vm_msync")
}

pub unsafe fn map(
    _address: usize,
    _size: usize,
    _flags: VmFlags,
    _object: u32,
    _copy: bool,
    _protection: VmProt,
) -> Result<usize> {
    refuse("vm_map")
}

pub unsafe fn unmap(_address: usize, _size: usize) -> Result<()> {
    refuse("vm_deallocate")
}

pub fn protect(_address: usize, _size: usize, _protection: VmProt) -> Result<()> {
    refuse("vm_protect")
}

pub fn region(_address: usize) -> Result<(usize, usize, RegionInfo)> {
    refuse("vm_region")
}

pub unsafe fn behave(_address: usize, _size: usize, _behavior: Behavior) -> Result<()> {
    refuse("vm_behavior_set")
}

pub fn open(_name: &str, _size_min: u64, _flags: OpenFlags) -> Result<u32> {
    refuse("memory_object_open")
}

pub fn close(_port: u32) -> Result<()> {
    refuse("memory_object_close")
}

pub fn info(_port: u32) -> Result<ObjectInfo> {
    refuse("memory_object_info")
}

/// The window of a guest that is linked with `--global-base=268435456`.
pub fn window() -> (usize, usize) {
    (1 << 20, 256 << 20)
}
