//! What a heap lives in: a region, or in tests an ordinary buffer.

use core::ptr::NonNull;

use crate::error::Result;
use crate::region::Region;

/// Memory that a heap can live in.
///
/// # Safety
/// For as long as the value lives, wherever it is moved: `size` bytes at `base` are initialised, may be read (and
/// written if `is_writable`), belong to nobody else, and stay at the same address; `base` is aligned to 16 bytes.
pub unsafe trait HeapMemory {
    /// Where it begins.
    fn base(&self) -> NonNull<u8>;

    /// Its size, in bytes.
    fn size(&self) -> usize;

    /// Whether it may be written.
    fn is_writable(&self) -> bool;

    /// Makes every change durable, all or nothing.
    ///
    /// # Errors
    /// Nothing is durable then, or all of it where the pager did not answer in time; what was changed stays changed.
    fn flush(&mut self) -> Result<()>;

    /// Undoes every change since the last flush.
    ///
    /// # Errors
    /// The changes are still there.
    fn undo(&mut self) -> Result<()>;

    /// Fails where [`HeapMemory::undo`] never works.
    ///
    /// # Errors
    /// Why not.
    fn check_undo(&self) -> Result<()>;
}

// SAFETY: a region's invariants; it starts at a page.
unsafe impl HeapMemory for Region {
    fn base(&self) -> NonNull<u8> {
        NonNull::new(self.address() as *mut u8).expect("a region is not at address 0")
    }

    fn size(&self) -> usize {
        self.len()
    }

    fn is_writable(&self) -> bool {
        Region::is_writable(self)
    }

    fn flush(&mut self) -> Result<()> {
        Region::flush(self)
    }

    fn undo(&mut self) -> Result<()> {
        self.invalidate()
    }

    fn check_undo(&self) -> Result<()> {
        self.check_invalidate()
    }
}
