//! The calls of the POSIX library, whose numbers are Linux's.

use std::ffi::{c_int, c_void};

pub const PROT_READ: c_int = 1;
pub const PROT_WRITE: c_int = 2;
pub const PROT_EXEC: c_int = 4;
pub const MAP_SHARED: c_int = 1;
pub const MAP_PRIVATE: c_int = 2;
pub const MAP_ANONYMOUS: c_int = 0x20;
pub const MS_ASYNC: c_int = 1;
pub const MS_SYNC: c_int = 4;

unsafe extern "C" {
    pub fn mmap(
        address: *mut c_void,
        length: usize,
        protection: c_int,
        flags: c_int,
        fd: c_int,
        offset: i64,
    ) -> *mut c_void;
    pub fn munmap(address: *mut c_void, length: usize) -> c_int;
    pub fn mprotect(address: *mut c_void, length: usize, protection: c_int) -> c_int;
    pub fn msync(address: *mut c_void, length: usize, flags: c_int) -> c_int;
    pub fn madvise(address: *mut c_void, length: usize, advice: c_int) -> c_int;
    pub fn mlock(address: *const c_void, length: usize) -> c_int;
    pub fn munlock(address: *const c_void, length: usize) -> c_int;
}
