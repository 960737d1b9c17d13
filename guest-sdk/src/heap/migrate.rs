//! From one root type to the next: [`Heap::migrate`].
//!
//! Invariant: the schema in the header changes in the flush that makes the new root durable.

use super::alloc::{self, Alloc};
use super::header::Header;
use super::persist::{Persist, Root};
use super::{Heap, HeapMemory, UNDONE, Undo};
use crate::error::Error;

impl<Old: Root, M: HeapMemory> Heap<Old, M> {
    /// If `memory` holds a heap with this root type, `work` makes a root of type `New` of it, once, and durably or not at
    /// all; every other memory is handed back as it is. The values of the old root may be moved into the new one: nothing
    /// has to be copied.
    ///
    /// ```no_run
    /// # fn main() -> vmsync_guest::Result<()> {
    /// use vmsync_guest::{Error, Heap, PMap, PString, Region, persist};
    ///
    /// persist! {
    ///     struct Visits<'h> { by_name: PMap<'h, PString<'h>, u64> } // the root of the last release
    ///     struct Site<'h> { total: u64, by_name: PMap<'h, PString<'h>, u64> }
    /// }
    ///
    /// let region = Region::map("visits", 1 << 20)?;
    /// let region = Heap::<Visits>::migrate::<Site, Error>(region, |old, _alloc| {
    ///     let total = old.by_name.iter().map(|(_, count)| count).sum();
    ///     Ok(Site { total, by_name: old.by_name })
    /// })?;
    /// let heap = Heap::<Site>::open(region)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// Releases before that are one more such line each, the oldest first.
    ///
    /// # Panics
    /// As [`Heap::transaction`].
    ///
    /// # Errors
    /// Where there is such a heap: those of [`Heap::open`] and of `work`, [`Error::ReadOnly`], [`Error::HeapFull`].
    pub fn migrate<New: Root, E: From<Error>>(
        memory: M,
        work: impl for<'h> FnOnce(Old::In<'h>, Alloc<'h>) -> core::result::Result<New::In<'h>, E>,
    ) -> core::result::Result<M, E> {
        const { alloc::check_type::<New::In<'static>>() };
        if !holds::<Old, M>(&memory) {
            return Ok(memory);
        }
        let mut heap = Self::open(memory)?;
        if !heap.memory.is_writable() {
            return Err(Error::ReadOnly.into());
        }
        replace_root::<Old, New, M, E>(Undo::begin(&mut heap)?, work)?;
        Ok(heap.memory)
    }

    /// The memory, closed as a heap. What was not flushed is not durable yet; a transaction that trapped is undone.
    ///
    /// # Panics
    /// Where that undoing fails.
    pub fn into_memory(mut self) -> M {
        self.undo_unfinished().expect(UNDONE);
        self.memory
    }
}

/// Whether a heap with a root of this type, and of no other, is in `memory`.
fn holds<R: Root, M: HeapMemory>(memory: &M) -> bool {
    if (memory.size() as u64) < Header::BYTES {
        return false;
    }
    // SAFETY: the memory has room for a header, is initialised, and any bytes are one.
    let header = unsafe { memory.base().cast::<Header>().read() };
    !header.is_blank() && header.schema == R::In::SCHEMA
}

fn replace_root<Old: Root, New: Root, M: HeapMemory, E: From<Error>>(
    undo: Undo<'_, Old, M>,
    work: impl for<'h> FnOnce(Old::In<'h>, Alloc<'h>) -> core::result::Result<New::In<'h>, E>,
) -> core::result::Result<(), E> {
    let header = undo.heap.header();
    // SAFETY: the header was checked, and the old root is of this type. It is moved out once: either the new root takes
    // its place, or everything is undone.
    unsafe {
        let alloc = Alloc::new(header);
        let old = undo.heap.root();
        let new = work(old.read(), alloc)?;
        let block = alloc.allocate(size_of::<New::In<'static>>())?;
        block.cast().write(new);
        alloc.free(old.cast(), size_of::<Old::In<'static>>());
        (*header.as_ptr()).root = (block.as_ptr() as usize - header.as_ptr() as usize) as u64;
        (*header.as_ptr()).schema = New::In::SCHEMA;
    }
    Ok(undo.commit()?)
}
