//! [`DurableMemory`]: linear memory, and behind it pages for the state that is not in linear memory, as one
//! [`TaskMemory`], so that one call commits both.
//!
//! Invariants: a range lies on one side of [`STATE_AT`]; state pages never show a pager's image.

use vmsync_core::{
    ByteRange, PageSet, PageSize,
    abi::VmProt,
    memory::{MemoryError, TaskMemory},
    pager::Image,
};

use crate::memory::GuestMemory;

/// Where the state pages begin: behind every linear memory.
pub(super) const STATE_AT: u64 = 1 << 47;

const _: () = assert!(crate::limits::MEMORY64_RESERVED_BYTES_MAX as u64 <= STATE_AT);

/// Linear memory and state pages.
pub(super) struct DurableMemory {
    pub linear: GuestMemory,
    pub state: StatePages,
}

/// Bytes on the host's heap with marks of what changed.
pub(super) struct StatePages {
    bytes: Vec<u8>,
    page_size: PageSize,
    dirty: PageSet,
}

impl StatePages {
    pub fn new(page_size: PageSize) -> Self {
        Self {
            bytes: Vec::new(),
            page_size,
            dirty: PageSet::new(),
        }
    }

    /// All of them.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Adds zeroes.
    pub fn grow(&mut self, bytes: usize) {
        self.bytes.resize(bytes.max(self.bytes.len()), 0);
    }

    /// Replaces the first bytes and marks the pages that are different afterwards.
    pub fn set(&mut self, new: &[u8]) {
        let page_bytes = self.page_size.bytes() as usize;
        let first = self.page_size.page_of(STATE_AT);
        for ((page, old), new) in (first..)
            .zip(self.bytes.chunks_mut(page_bytes))
            .zip(new.chunks(page_bytes))
        {
            if old[..new.len()] != *new {
                old[..new.len()].copy_from_slice(new);
                self.dirty.insert(vmsync_core::PageRange::new(page, page + 1));
            }
        }
    }

    fn part(&mut self, range: ByteRange) -> &mut [u8] {
        let offset = |at: u64| usize::try_from(at - STATE_AT).expect("state pages fit the address space");
        &mut self.bytes[offset(range.start)..offset(range.end)]
    }
}

fn is_state(range: ByteRange) -> bool {
    range.start >= STATE_AT
}

impl TaskMemory for DurableMemory {
    fn size(&self) -> u64 {
        STATE_AT + self.state.bytes.len() as u64
    }

    fn is_addressable(&self) -> bool {
        true
    }

    fn pages(&mut self, range: ByteRange) -> &[u8] {
        if is_state(range) {
            let offset = |at: u64| usize::try_from(at - STATE_AT).expect("state pages fit the address space");
            return &self.state.bytes[offset(range.start)..offset(range.end)];
        }
        self.linear.pages(range)
    }

    fn map_image(&mut self, range: ByteRange, image: Image, track: bool) -> Result<bool, MemoryError> {
        if is_state(range) {
            return Ok(false);
        }
        self.linear.map_image(range, image, track)
    }

    fn make_room(&mut self, entries: usize) -> Result<(), MemoryError> {
        self.linear.make_room(entries)
    }

    fn map_zero(&mut self, range: ByteRange, track: bool) -> Result<(), MemoryError> {
        if is_state(range) {
            return self.fill(range.start, &vec![0; range.len() as usize]);
        }
        self.linear.map_zero(range, track)
    }

    fn unmap(&mut self, range: ByteRange) -> Result<(), MemoryError> {
        if is_state(range) {
            return Ok(());
        }
        self.linear.unmap(range)
    }

    fn fill(&mut self, offset: u64, bytes: &[u8]) -> Result<(), MemoryError> {
        let range = ByteRange::new(offset, offset + bytes.len() as u64);
        if is_state(range) {
            self.state.part(range).copy_from_slice(bytes);
            self.state.dirty.remove(self.state.page_size.shrink(range));
            return Ok(());
        }
        self.linear.fill(offset, bytes)
    }

    fn discard(&mut self, range: ByteRange) -> Result<(), MemoryError> {
        if is_state(range) {
            return Ok(());
        }
        self.linear.discard(range)
    }

    fn protect(&mut self, range: ByteRange, protection: VmProt) -> Result<(), MemoryError> {
        if is_state(range) {
            return Ok(());
        }
        self.linear.protect(range, protection)
    }

    fn deactivate(&mut self, range: ByteRange) {
        if !is_state(range) {
            self.linear.deactivate(range);
        }
    }

    fn will_need(&mut self, range: ByteRange) {
        if !is_state(range) {
            self.linear.will_need(range);
        }
    }

    fn collect(&mut self, range: ByteRange, dirty: &mut PageSet) -> Result<(), MemoryError> {
        if is_state(range) {
            let pages = self.state.page_size.shrink(range);
            dirty.union(&self.state.dirty.within(pages));
            self.state.dirty.remove(pages);
            return Ok(());
        }
        self.linear.collect(range, dirty)
    }
}
