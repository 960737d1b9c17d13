//! What the VM needs of one linear memory and its tracker.
//!
//! A host implements [`TaskMemory`] over mapped memory (Wasmtime), over a byte array (tests) or over the engine's
//! buffer (the browser). All ranges are page-aligned, in bytes from the start of linear memory, and inside
//! [`TaskMemory::size`]; the VM checks them, an implementation may assert them.
//!
//! Invariant: what the host itself places in memory (`map_*`, `fill`, `discard`) is not a store of the guest and is
//! not reported by `collect`.

use alloc::string::String;

use crate::{abi::VmProt, page::ByteRange, page_set::PageSet, pager::Image, tracker::TrackerError};

/// Why the memory could not be changed: an operating system limit, as a rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("linear memory: {message}")]
pub struct MemoryError {
    /// What failed and what to do about it.
    pub message: String,
}

impl From<TrackerError> for MemoryError {
    fn from(error: TrackerError) -> Self {
        Self {
            message: alloc::format!("{error}"),
        }
    }
}

/// One linear memory with its tracker.
pub trait TaskMemory {
    /// Its size in bytes.
    fn size(&self) -> u64;

    /// The bytes of `range`. A memory that this program cannot address keeps a copy of them until the next call.
    fn pages(&mut self, range: ByteRange) -> &[u8];

    /// Whether this program can address the memory: then [`TaskMemory::pages`] of much costs what it costs of little.
    fn is_addressable(&self) -> bool;

    /// Maps `image` privately over `range` and watches it if `track`. `false`: this memory cannot map files, and
    /// nothing has changed.
    fn map_image(&mut self, range: ByteRange, image: Image, track: bool) -> Result<bool, MemoryError>;

    /// Makes room for one more entry of the task's map, which has `entries`: asked before a call that may make one. Taking
    /// entries away later asks for nothing, though the host may need more for a hole than for what was there.
    fn make_room(&mut self, entries: usize) -> Result<(), MemoryError> {
        let _ = entries;
        Ok(())
    }

    /// Makes `range` zero-filled memory of its own, readable and writable, and watches it if `track`.
    fn map_zero(&mut self, range: ByteRange, track: bool) -> Result<(), MemoryError>;

    /// Takes `range` out of use: it holds nothing, and accesses trap where the host can make them.
    fn unmap(&mut self, range: ByteRange) -> Result<(), MemoryError>;

    /// Copies `bytes` to `offset`; the pages count as clean.
    fn fill(&mut self, offset: u64, bytes: &[u8]) -> Result<(), MemoryError>;

    /// Drops the private copies of a range that [`TaskMemory::map_image`] mapped: it shows the image again.
    fn discard(&mut self, range: ByteRange) -> Result<(), MemoryError>;

    /// Sets which accesses are allowed.
    fn protect(&mut self, range: ByteRange, protection: VmProt) -> Result<(), MemoryError>;

    /// Hints that `range` is not needed soon. Nothing is lost.
    fn deactivate(&mut self, range: ByteRange);

    /// Hints that `range` is needed soon.
    fn will_need(&mut self, range: ByteRange);

    /// Adds the watched pages of `range` that were stored to since the last look, and watches them again.
    fn collect(&mut self, range: ByteRange, dirty: &mut PageSet) -> Result<(), MemoryError>;

    /// As [`TaskMemory::collect`], but may also add pages that were not stored to, and leave pages unwatched which it then
    /// adds every time.
    fn collect_superset(&mut self, range: ByteRange, dirty: &mut PageSet) -> Result<(), MemoryError> {
        self.collect(range, dirty)
    }
}
