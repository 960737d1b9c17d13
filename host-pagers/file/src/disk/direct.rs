//! [`Direct`]: writes past the page cache that are durable when they return (`O_DIRECT`, `O_DSYNC`).
//!
//! One system call in the place of two, no copy, no search for dirty pages, and one command to a drive that has
//! "force unit access". Not every file system can (tmpfs of old kernels, some network and overlay ones); the kernel says so
//! when the file is opened or with `EINVAL` at the first write, and nobody asks again.

use std::{
    ffi::OsStr,
    os::fd::OwnedFd,
    sync::atomic::{AtomicBool, Ordering},
};

use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
};

use crate::limits::BLOCK_BYTES;

#[cfg(target_os = "linux")]
const FLAGS: Option<OFlags> = Some(
    OFlags::WRONLY
        .union(OFlags::DIRECT)
        .union(OFlags::DSYNC)
        .union(OFlags::CLOEXEC)
        .union(OFlags::NOFOLLOW),
);

/// Other systems bypass their caches in other ways, if at all.
#[cfg(not(target_os = "linux"))]
const FLAGS: Option<OFlags> = None;

/// A file, or the knowledge that it cannot be written so.
#[derive(Default)]
pub(super) struct Direct {
    descriptor: Option<OwnedFd>,
    refused: AtomicBool,
}

impl Direct {
    /// The file `name` of `folder`, which exists.
    pub fn open(folder: &OwnedFd, name: &OsStr) -> Self {
        let open = |flags| rustix::fs::openat(folder, name, flags, Mode::empty()).ok();
        Self {
            descriptor: FLAGS.and_then(open),
            refused: AtomicBool::new(false),
        }
    }

    /// Writes `bytes`, and waits until they are durable. `None` where that cannot be done so: then any part of them may
    /// be written, and they are to be written in the usual way.
    pub fn write(&self, offset: u64, bytes: &[u8]) -> Option<Result<(), Errno>> {
        let descriptor = self.descriptor.as_ref()?;
        let aligned = offset.is_multiple_of(BLOCK_BYTES as u64)
            && bytes.len().is_multiple_of(BLOCK_BYTES)
            && bytes.as_ptr().addr().is_multiple_of(BLOCK_BYTES);
        if !aligned || self.refused.load(Ordering::Relaxed) {
            return None;
        }
        let mut count = 0;
        while count < bytes.len() {
            match rustix::io::pwrite(descriptor, &bytes[count..], offset + count as u64) {
                Ok(written) if written > 0 && written.is_multiple_of(BLOCK_BYTES) => count += written,
                // Less than a block was written: the rest cannot be.
                Ok(_) => return None,
                Err(Errno::INTR) => {}
                Err(Errno::INVAL | Errno::OPNOTSUPP) => {
                    self.refused.store(true, Ordering::Relaxed);
                    return None;
                }
                Err(errno) => return Some(Err(errno)),
            }
        }
        Some(Ok(()))
    }
}
