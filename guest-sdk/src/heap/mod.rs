//! A persistent heap: collections with plain pointers that live in a region, and a typed root that leads to them.
//!
//! ```no_run
//! # fn main() -> vmsync_guest::Result<()> {
//! use vmsync_guest::{Heap, PMap, PString, persist};
//!
//! persist! {
//!     struct Visits<'h> { total: u64, by_name: PMap<'h, PString<'h>, u64> }
//! }
//!
//! let mut heap = Heap::<Visits>::map("visits", 1 << 20)?;
//! heap.transaction(|root, _alloc| {
//!     root.total += 1;
//!     let new = |alloc| Ok((PString::new_in(alloc, "ann")?, 0));
//!     *root.by_name.get_or_insert_with("ann", new)? += 1;
//!     Ok::<(), vmsync_guest::Error>(())
//! })?; // durable now; had it failed, undone
//! # Ok(())
//! # }
//! ```
//!
//! ```text
//!  Heap<R, M> ──── M: HeapMemory        the region (in tests, a buffer)
//!    │ brand 'h
//!    ├── R::In<'h>   the root ──> PMap, PHashMap, PVec, PString, PRing ──> blocks
//!    └── Alloc<'h>   size classes + bump pointer; all state in the Header, in the region
//! ```
//!
//! Invariants:
//! - values of a heap are reached only within a closure that is given to [`Heap::read`], [`Heap::update`] or
//!   [`Heap::transaction`]; their lifetime `'h` keeps them from leaving it, and from getting into another heap;
//! - a heap opens only at the address where it was made, with the root type that it was made with.
//!
//! A value that left its heap would dangle once the region is unmapped, or after an undo:
//!
//! ```compile_fail
//! # use vmsync_guest::{Heap, PVec};
//! # fn escape(heap: &mut Heap<PVec<'static, u64>>) {
//! let stolen = heap.update(|root, alloc| core::mem::replace(root, PVec::new_in(alloc)));
//! # }
//! ```
//!
//! and one that got into another heap would dangle after a restart:
//!
//! ```compile_fail
//! # use vmsync_guest::{Heap, PVec};
//! # fn mix(a: &mut Heap<PVec<'static, PVec<'static, u64>>>, b: &mut Heap<u64>) {
//! a.update(|root, _| b.update(|_, alloc| root.push(PVec::new_in(alloc))));
//! # }
//! ```
//!
//! What it does not do: enums, recursive types, moving a heap to another address, merging freed blocks.

mod alloc;
mod btree;
mod hash;
mod header;
mod memory;
mod migrate;
mod persist;
mod phashmap;
mod pmap;
mod pmap_iter;
mod pring;
mod pstring;
mod pvec;
mod size_class;
#[cfg(test)]
mod tests;

use core::marker::PhantomData;
use core::ptr::NonNull;

pub use alloc::{Alloc, HeapStats};
pub use hash::{StableHash, StableHasher};
pub use memory::HeapMemory;
pub use persist::{Persist, Root, check_layout, schema};
pub use phashmap::PHashMap;
pub use pmap::PMap;
pub use pmap_iter::Iter as PMapIter;
pub use pring::PRing;
pub use pstring::PString;
pub use pvec::PVec;

use crate::error::{Error, Result};
use crate::region::Region;
use header::Header;

/// A heap in `M` with a root of type `R`.
#[derive(Debug)]
pub struct Heap<R: Root, M: HeapMemory = Region> {
    memory: M,
    state: State,
    root: PhantomData<R>,
}

/// What the memory has that is not durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing.
    Flushed,
    /// Changes that the next flush makes durable.
    Changed,
    /// What a transaction changed so far. Where a call of the heap begins, the transaction trapped: it never ended.
    InTransaction,
}

impl<R: Root> Heap<R> {
    /// Maps the object `name` with at least `size` bytes and opens the heap in it; a new one has an empty root.
    ///
    /// # Errors
    /// Those of [`Region::map`] and [`Heap::open`].
    pub fn map(name: &str, size: usize) -> Result<Self> {
        Self::open(Region::map(name, size)?)
    }
}

impl<R: Root, M: HeapMemory> Heap<R, M> {
    /// Opens the heap in `memory`, or makes one where nothing was ever written. Memory that has grown since it was
    /// made is used in full. What was changed in it and not flushed yet counts as changed here: the first flush makes
    /// that durable too.
    ///
    /// # Errors
    /// [`Error::NotAHeap`], [`Error::HeapVersion`], [`Error::HeapSchema`], [`Error::HeapMoved`],
    /// [`Error::HeapDamaged`]; [`Error::HeapFull`] where not even the root fits; [`Error::ReadOnly`] where one would
    /// have to be made. `memory` is not changed then.
    pub fn open(memory: M) -> Result<Self> {
        const { alloc::check_type::<R::In<'static>>() };
        let len = memory.size();
        if (len as u64) < Header::BYTES {
            return Err(Error::HeapFull {
                wanted: Header::BYTES as usize,
            });
        }
        let mut heap = Self {
            memory,
            state: State::Changed, // by its former owner, for all we know
            root: PhantomData,
        };
        let pointer = heap.header();
        let base = pointer.as_ptr() as usize;
        // SAFETY: the memory has room for a header, is initialised, and any bytes are one.
        let header = unsafe { pointer.read() };
        if header.is_blank() {
            heap.create(base, len)?;
            return Ok(heap);
        }
        header.check(base, len, R::In::SCHEMA, size_of::<R::In<'static>>())?;
        let grown = (len - len % size_class::BLOCK_ALIGN) as u64;
        if heap.memory.is_writable() && grown > header.len {
            // SAFETY: as above, and it may be written.
            unsafe { (*pointer.as_ptr()).len = grown };
        }
        Ok(heap)
    }

    /// Makes an empty heap in blank memory.
    fn create(&mut self, base: usize, len: usize) -> Result<()> {
        if !self.memory.is_writable() {
            return Err(Error::ReadOnly);
        }
        let header = Header::new(base, len, R::In::SCHEMA);
        if header.len - header.bump < Alloc::usable(size_of::<R::In<'static>>()) as u64 {
            return Err(Error::HeapFull {
                wanted: size_of::<R::In<'static>>(),
            });
        }
        // SAFETY: the memory is writable, and has room for the header and, as was checked, the root's block.
        unsafe {
            self.header().write(header);
            let alloc = Alloc::new(self.header());
            let root = alloc.allocate(size_of::<R::In<'static>>())?;
            root.cast().write(R::In::empty_in(alloc));
            (*self.header().as_ptr()).root = (root.as_ptr() as usize - base) as u64;
        }
        Ok(())
    }

    /// Looks at the root.
    ///
    /// # Panics
    /// After a transaction that trapped, until a [`Heap::flush`] or a change of the heap has undone it.
    pub fn read<T>(&self, work: impl for<'h> FnOnce(&R::In<'h>) -> T) -> T {
        let whole = self.state != State::InTransaction;
        assert!(whole, "a transaction trapped: `flush` undoes it");
        // SAFETY: a root of this type lies there: the schema is the program's. Nobody changes it while `self` is
        // borrowed.
        work(unsafe { self.root().as_ref() })
    }

    /// Changes what the root leads to. It is durable after the next [`Heap::flush`]. If `work` panics, what it changed
    /// until then stays.
    ///
    /// # Panics
    /// Where the memory is read-only, or a transaction trapped before and its undoing fails.
    pub fn update<T>(&mut self, work: impl for<'h> FnOnce(&mut R::In<'h>, Alloc<'h>) -> T) -> T {
        self.undo_unfinished().expect(UNDONE);
        self.assert_writable();
        self.note(State::Changed);
        self.change(work)
    }

    /// Changes what the root leads to, all or nothing: what `work` changed is durable if it succeeds, and undone if
    /// it, or making it durable, fails. Earlier changes are flushed first.
    ///
    /// It is undone as well if `work` panics: at once where panics unwind. Where a panic is a trap, as in WebAssembly,
    /// nothing more runs; if the host calls the program again, this heap's next [`Heap::flush`], [`Heap::update`],
    /// [`Heap::transaction`] or [`Heap::into_memory`] undoes it first, and [`Heap::read`] panics before that.
    ///
    /// # Panics
    /// Where the memory is read-only, or the undoing fails: then the changes could neither be kept nor dropped.
    ///
    /// # Errors
    /// That of `work`; [`Error::Host`] where flushing failed. Where the pager did not answer in time
    /// ([`KernReturn::Aborted`]), undoing waits until it does, and the heap is then as the pager has it: with all of the
    /// changes if they became durable after all.
    ///
    /// [`KernReturn::Aborted`]: crate::abi::KernReturn::Aborted
    pub fn transaction<T, E: From<Error>>(
        &mut self,
        work: impl for<'h> FnOnce(&mut R::In<'h>, Alloc<'h>) -> core::result::Result<T, E>,
    ) -> core::result::Result<T, E> {
        let undo = Undo::begin(self)?;
        let value = undo.heap.change(work)?;
        undo.commit()?;
        Ok(value)
    }

    /// Makes every change durable, all or nothing, and waits for it. A transaction that trapped is undone first.
    ///
    /// # Errors
    /// [`Error::Host`]; nothing is durable then, and another call tries again.
    pub fn flush(&mut self) -> Result<()> {
        self.undo_unfinished()?;
        if self.state == State::Changed {
            self.memory.flush()?;
            self.note(State::Flushed);
        }
        Ok(())
    }

    /// How full it is.
    pub fn stats(&self) -> HeapStats {
        // SAFETY: the header was checked, and nobody changes it while `self` is borrowed.
        unsafe { Alloc::new(self.header()) }.stats()
    }

    /// The memory that it lives in.
    pub fn memory(&self) -> &M {
        &self.memory
    }

    fn assert_writable(&self) {
        assert!(self.memory.is_writable(), "the heap's region is mapped read-only");
    }

    /// The caller has noted that the memory changes.
    fn change<T>(&mut self, work: impl for<'h> FnOnce(&mut R::In<'h>, Alloc<'h>) -> T) -> T {
        // SAFETY: as for `read`; the brand is fresh, and `self` is borrowed exclusively while it lives.
        let (root, alloc) = unsafe { (self.root().as_mut(), Alloc::new(self.header())) };
        work(root, alloc)
    }

    /// Undoes a transaction that did not reach its end.
    fn undo_unfinished(&mut self) -> Result<()> {
        if self.state == State::InTransaction {
            self.memory.undo()?;
            self.note(State::Flushed);
        }
        Ok(())
    }

    /// Volatile, because a state is read after a trap: the compiler takes a trap for the end of the program, and drops
    /// a store that is overwritten on every other way.
    fn note(&mut self, state: State) {
        // SAFETY: a field of the borrowed heap.
        unsafe { (&raw mut self.state).write_volatile(state) };
    }

    fn header(&self) -> NonNull<Header> {
        self.memory.base().cast()
    }

    fn root<'h>(&self) -> NonNull<R::In<'h>> {
        // SAFETY: the header was checked: the root's offset lies in the heap.
        unsafe {
            let offset = self.header().as_ref().root as usize;
            self.memory.base().add(offset).cast()
        }
    }
}

/// Why undoing is not expected to fail.
const UNDONE: &str = "a failed transaction can be undone";

/// A transaction: undone when dropped, by an error or by a panic that unwinds, unless it was committed.
struct Undo<'a, R: Root, M: HeapMemory> {
    heap: &'a mut Heap<R, M>,
}

impl<'a, R: Root, M: HeapMemory> Undo<'a, R, M> {
    /// Flushes earlier changes; what changes from now on is the transaction's.
    fn begin(heap: &'a mut Heap<R, M>) -> Result<Self> {
        heap.memory.check_undo()?;
        heap.flush()?;
        heap.assert_writable();
        heap.note(State::InTransaction);
        Ok(Self { heap })
    }

    fn commit(self) -> Result<()> {
        self.heap.memory.flush()?;
        self.heap.note(State::Flushed);
        Ok(())
    }
}

impl<R: Root, M: HeapMemory> Drop for Undo<'_, R, M> {
    fn drop(&mut self) {
        self.heap.undo_unfinished().expect(UNDONE);
    }
}
