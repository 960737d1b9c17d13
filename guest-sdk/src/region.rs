//! A region: a memory object mapped into linear memory.
//!
//! Made by `options.rs`; `view.rs` reads it as typed data, and the heap lives in one.
//!
//! Invariants:
//! - `len` bytes at `address` are mapped for as long as the region lives, and nothing else in the program refers
//!   to them but through it;
//! - stores are made durable by [`Region::flush`] and its relatives only, and all that one call returns becomes
//!   durable together or not at all.

use core::ops::Range;

use vmsync_abi::{Behavior, KernReturn, ObjectInfo, ObjectInfoFlags, PORT_NULL, RegionInfo, VmProt, VmSync};

use crate::error::{Error, Result};
use crate::options::RegionOptions;
use crate::{raw, window};

/// A memory object, mapped. Dropping it unmaps it; what was not flushed is lost then.
///
/// ```no_run
/// # fn main() -> vmsync_guest::Result<()> {
/// use vmsync_guest::Region;
///
/// let mut region = Region::map("counter", 4096)?;
/// *region.view_mut::<u64>()? += 1;
/// region.flush()?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Region {
    parts: Parts,
}

/// What a region is made of.
#[derive(Debug)]
pub(crate) struct Parts {
    pub address: usize,
    pub len: usize,
    pub port: u32,
    pub writable: bool,
    /// Whether stores reach the object.
    pub shared: bool,
}

impl Region {
    /// Maps the object `name` for loads and stores, creating it if the store does not have it, with at least
    /// `size` bytes.
    ///
    /// # Errors
    /// As [`RegionOptions::map`].
    pub fn map(name: &str, size: usize) -> Result<Self> {
        Self::options().map(name, size)
    }

    /// Other ways to map.
    pub fn options() -> RegionOptions {
        RegionOptions::default()
    }

    /// # Safety
    /// The range is mapped with the rights that `parts` says, is noted as taken in the window, and belongs to the
    /// new region alone.
    pub(crate) unsafe fn from_parts(parts: Parts) -> Self {
        assert!(parts.address != 0 && parts.len > 0, "the host mapped nothing");
        Self { parts }
    }

    /// Where it lies, in bytes from the start of linear memory.
    pub fn address(&self) -> usize {
        self.parts.address
    }

    /// Its size, in bytes: a multiple of the VM page, at least what was asked for.
    #[allow(clippy::len_without_is_empty, reason = "a region has at least one page")]
    pub fn len(&self) -> usize {
        self.parts.len
    }

    /// Whether stores are allowed.
    pub fn is_writable(&self) -> bool {
        self.parts.writable
    }

    /// Whether it is backed by no object.
    pub fn is_anonymous(&self) -> bool {
        self.parts.port == PORT_NULL
    }

    /// Its bytes.
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: the first invariant; every bit pattern is a `u8`.
        unsafe { core::slice::from_raw_parts(self.parts.address as *const u8, self.parts.len) }
    }

    /// Its bytes, for stores.
    ///
    /// # Panics
    /// Where the region is read-only.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        assert!(self.parts.writable, "the region is mapped read-only");
        // SAFETY: the first invariant, and `self` is borrowed exclusively.
        unsafe { core::slice::from_raw_parts_mut(self.parts.address as *mut u8, self.parts.len) }
    }

    /// Size, version, page size and flags of the object, as the host knows them now.
    ///
    /// # Errors
    /// [`Error::Host`]; `KERN_INVALID_OBJECT` for an anonymous region.
    pub fn info(&self) -> Result<ObjectInfo> {
        raw::info(self.parts.port)
    }

    /// Protection, offset and behaviour of the mapping, as the host knows them now.
    ///
    /// # Errors
    /// [`Error::Host`].
    pub fn vm_region(&self) -> Result<RegionInfo> {
        raw::region(self.parts.address).map(|(_, _, info)| info)
    }

    /// Makes every change durable, and waits for it.
    ///
    /// # Errors
    /// [`Error::Host`]: nothing of this call is durable then, or, where the pager did not answer in time
    /// ([`KernReturn::Aborted`]), all of it may be; what was dirty stays dirty, and another call returns it again.
    ///
    /// [`KernReturn::Aborted`]: crate::abi::KernReturn::Aborted
    pub fn flush(&self) -> Result<()> {
        self.msync(VmSync::SYNCHRONOUS)
    }

    /// Makes the changes to the pages that `range` touches durable, and waits for it. Offsets in bytes.
    ///
    /// # Errors
    /// [`Error::OutOfRange`], else as [`Region::flush`].
    pub fn flush_range(&self, range: Range<usize>) -> Result<()> {
        self.msync_range(range, VmSync::SYNCHRONOUS)
    }

    /// Hands every change to the store and does not wait. A failure is reported by the next flush.
    ///
    /// # Errors
    /// As [`Region::flush`].
    pub fn flush_async(&self) -> Result<()> {
        self.msync(VmSync::ASYNCHRONOUS)
    }

    /// Undoes every change since the last flush: the region reads as it was made durable.
    ///
    /// # Errors
    /// As [`Region::check_invalidate`], else [`Error::Host`].
    pub fn invalidate(&mut self) -> Result<()> {
        self.check_invalidate()?;
        self.msync_unchecked(0..self.parts.len, VmSync::INVALIDATE)
    }

    /// Fails where [`Region::invalidate`] does not undo.
    ///
    /// # Errors
    /// `KERN_NOT_SUPPORTED`: nothing was made durable that the region could go back to (it is anonymous or private),
    /// or its resident pages are the only copy (the object is precious), and are returned instead of dropped.
    pub fn check_invalidate(&self) -> Result<()> {
        if !self.parts.shared || self.info()?.flags & ObjectInfoFlags::PRECIOUS.0 != 0 {
            return Err(Error::Host {
                call: "vm_msync",
                result: KernReturn::NotSupported,
            });
        }
        Ok(())
    }

    /// `vm_msync` of the whole region.
    ///
    /// # Panics
    /// Where `flags` has INVALIDATE or KILLPAGES, which change the contents: that is [`Region::invalidate`].
    ///
    /// # Errors
    /// As [`Region::flush`].
    pub fn msync(&self, flags: VmSync) -> Result<()> {
        self.msync_range(0..self.parts.len, flags)
    }

    /// `vm_msync` of the pages that `range` touches. Offsets in bytes.
    ///
    /// # Panics
    /// As [`Region::msync`].
    ///
    /// # Errors
    /// [`Error::OutOfRange`], else as [`Region::flush`].
    pub fn msync_range(&self, range: Range<usize>, flags: VmSync) -> Result<()> {
        let destructive = VmSync::INVALIDATE | VmSync::KILLPAGES;
        assert!(
            !flags.intersects(destructive),
            "contents change under a shared borrow"
        );
        self.msync_unchecked(range, flags)
    }

    fn msync_unchecked(&self, range: Range<usize>, flags: VmSync) -> Result<()> {
        let size = self.check_range(&range)?;
        raw::msync(self.parts.address + range.start, size, flags)
    }

    /// Tells the host how the pages that `range` touches will be used. Offsets in bytes.
    ///
    /// # Panics
    /// Where `behavior` is `Free` or `Zero`, which change the contents.
    ///
    /// # Errors
    /// [`Error::OutOfRange`], [`Error::Host`].
    pub fn advise(&self, range: Range<usize>, behavior: Behavior) -> Result<()> {
        let destructive = matches!(behavior, Behavior::Free | Behavior::Zero);
        assert!(!destructive, "contents change under a shared borrow");
        let size = self.check_range(&range)?;
        // SAFETY: the value is none of the destructive ones.
        unsafe { raw::behave(self.parts.address + range.start, size, behavior) }
    }

    /// Forbids stores from now on: a stray one traps.
    ///
    /// # Errors
    /// [`Error::Host`].
    pub fn make_read_only(&mut self) -> Result<()> {
        raw::protect(self.parts.address, self.parts.len, VmProt::READ)?;
        self.parts.writable = false;
        Ok(())
    }

    /// The size of `range`, in bytes, if it lies in the region.
    fn check_range(&self, range: &Range<usize>) -> Result<usize> {
        let size = range
            .end
            .checked_sub(range.start)
            .filter(|_| range.end <= self.parts.len);
        size.ok_or(Error::OutOfRange {
            offset: range.start,
            size: range.end.saturating_sub(range.start),
            len: self.parts.len,
        })
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: nothing borrows the region any more.
        let unmapped = unsafe { raw::unmap(self.parts.address, self.parts.len) };
        if unmapped.is_ok() {
            window::release(self.parts.address);
        }
        if !self.is_anonymous() {
            // A close that fails leaves a port open until the program ends; there is no one to tell.
            let _ = raw::close(self.parts.port);
        }
    }
}
