//! [`Mapping`]: a range that `mmap` has given, of any offset and length.
//!
//! Invariants:
//! - `pages` bytes from `base` are mapped, from a page on, for as long as the value lives;
//! - the `len` bytes from `pointer` lie in them.

use std::ffi::{c_int, c_void};
use std::io::{Error, ErrorKind, Result};
use std::ptr::{NonNull, null_mut};

use crate::sys;

/// The page of the VM, in bytes, which is Linux's on the machines that the tests run on.
const PAGE: u64 = 4096;

#[derive(Debug)]
pub(crate) struct Mapping {
    base: NonNull<u8>,
    pages: usize,
    pointer: NonNull<u8>,
    len: usize,
}

// SAFETY: an owner of memory, as a `Vec` is.
unsafe impl Send for Mapping {}
// SAFETY: as above; what changes the bytes takes the owner mutably, or a raw pointer.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `len` bytes of `fd` from `offset`.
    pub fn new(len: usize, protection: c_int, flags: c_int, fd: c_int, offset: u64) -> Result<Self> {
        let invalid = |why| Error::new(ErrorKind::InvalidInput, why);
        let before = (offset % PAGE) as usize;
        let aligned =
            i64::try_from(offset - before as u64).map_err(|_| invalid("the offset is too large"))?;
        let pages = before
            .checked_add(len)
            .filter(|bytes| isize::try_from(*bytes).is_ok());
        // An empty map has an address, too.
        let pages = pages
            .ok_or_else(|| invalid("memory map length overflows isize"))?
            .max(1);
        // SAFETY: a new mapping where the system likes; nothing is replaced.
        let base = unsafe { sys::mmap(null_mut(), pages, protection, flags, fd, aligned) };
        if base.addr() == usize::MAX {
            return Err(Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).ok_or_else(|| Error::other("mapped at address 0"))?;
        Ok(Self {
            base,
            pages,
            // SAFETY: `before` bytes after the base are in the mapping.
            pointer: unsafe { base.add(before) },
            len,
        })
    }

    pub fn pointer(&self) -> NonNull<u8> {
        self.pointer
    }

    pub fn len(&self) -> usize {
        self.len
    }

    /// Runs `call` on the pages that hold a range, given by offset and length.
    fn on_pages(
        &self,
        offset: usize,
        len: usize,
        call: impl FnOnce(*mut c_void, usize) -> c_int,
    ) -> Result<()> {
        let end = offset.checked_add(len).filter(|end| *end <= self.len);
        let end = end.ok_or_else(|| Error::new(ErrorKind::InvalidInput, "the range leaves the map"))?;
        let first = self.pointer.as_ptr().addr() + offset;
        let before = first % PAGE as usize;
        let at = self.pointer.as_ptr().wrapping_add(offset).wrapping_sub(before);
        match call(at.cast(), before + (end - offset)) {
            0 => Ok(()),
            _ => Err(Error::last_os_error()),
        }
    }

    pub fn sync(&self, offset: usize, len: usize, flags: c_int) -> Result<()> {
        // SAFETY: the pages are mapped; syncing does not change what they hold.
        self.on_pages(offset, len, |at, length| unsafe { sys::msync(at, length, flags) })
    }

    /// # Safety
    /// With an advice that drops contents, nobody relies on them.
    pub unsafe fn advise(&self, offset: usize, len: usize, advice: c_int) -> Result<()> {
        // SAFETY: the pages are mapped; the caller vouches for their contents.
        self.on_pages(offset, len, |at, length| unsafe {
            sys::madvise(at, length, advice)
        })
    }

    pub fn protect(&mut self, protection: c_int) -> Result<()> {
        // SAFETY: the mapping is this value's; an access that is then forbidden traps.
        match unsafe { sys::mprotect(self.base.as_ptr().cast(), self.pages, protection) } {
            0 => Ok(()),
            _ => Err(Error::last_os_error()),
        }
    }

    pub fn lock(&self, locked: bool) -> Result<()> {
        // SAFETY: the pages are mapped; locking does not change what they hold.
        self.on_pages(0, self.len, |at, length| unsafe {
            if locked {
                sys::mlock(at, length)
            } else {
                sys::munlock(at, length)
            }
        })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's, and nothing refers to it any more.
        let unmapped = unsafe { sys::munmap(self.base.as_ptr().cast(), self.pages) };
        debug_assert_eq!(unmapped, 0);
    }
}
