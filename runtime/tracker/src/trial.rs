//! [`Trial`]: a little memory to try a rung on.
//!
//! Invariants: the mapping is private, writable, at least as long as asked for, and lives as long as its trial.

use core::{ffi::c_void, ptr};

use rustix::{
    fs::{Mode, OFlags},
    mm::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap},
};
use vmsync_core::tracker::Backing;

/// A private mapping.
#[derive(Debug)]
pub(crate) struct Trial {
    start: *mut c_void,
    length: usize,
}

impl Trial {
    /// Maps `length` bytes, which are not read.
    pub fn new(backing: Backing, length: usize) -> Result<Self, String> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        let start = match backing {
            // SAFETY: a new mapping at an address of the kernel's choice.
            Backing::Anonymous => unsafe {
                mmap_anonymous(ptr::null_mut(), length, protection, MapFlags::PRIVATE)
            },
            Backing::PrivateFile => {
                // Any file on a real file system does; this one is always there.
                let path = std::env::current_exe().map_err(|error| error.to_string())?;
                let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
                    .map_err(|errno| format!("opening this program's file: {errno}"))?;
                // SAFETY: as above; nobody truncates the file of a running program.
                unsafe { mmap(ptr::null_mut(), length, protection, MapFlags::PRIVATE, file, 0) }
            }
        };
        start
            .map(|start| Self { start, length })
            .map_err(|errno| format!("mapping {length} bytes: {errno}"))
    }

    /// Its first byte.
    pub fn base(&self) -> *mut u8 {
        self.start.cast()
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        // SAFETY: our mapping, and the tracker that watched it is gone.
        let _ = unsafe { munmap(self.start, self.length) };
    }
}
