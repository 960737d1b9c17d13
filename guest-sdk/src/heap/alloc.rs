//! The allocator: size classes with free lists, and a bump pointer behind them.
//!
//! All of its state is in the heap's header, so that it is exactly as durable as the data. A crate from the registry
//! would keep it in structs whose layout a compiler may change between two builds of the program.
//!
//! Invariants:
//! - a block is either live or in the free list of its class, whose first 8 bytes then hold the next one's offset;
//! - live blocks do not overlap, are aligned to 16 bytes, and lie below `bump`.
//!
//! Freed blocks are not merged. A full heap cuts up a larger free block before it gives up.

use core::marker::PhantomData;
use core::ptr::NonNull;

use super::header::Header;
use super::size_class::{self, BLOCK_ALIGN, CLASSES};
use crate::error::{Error, Result};

/// A lifetime that stands for one access to one heap and can be neither shortened nor stretched, so that nothing
/// of one heap gets into another, or out of it.
pub type Brand<'h> = PhantomData<fn(&'h ()) -> &'h ()>;

/// A heap's allocator, which new collections are made with.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub struct Alloc<'h> {
    header: NonNull<Header>,
    brand: Brand<'h>,
}

/// How full a heap is, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeapStats {
    /// In live blocks, with what rounding up costs.
    pub live: u64,
    /// In freed blocks.
    pub free: u64,
    /// Never used yet.
    pub untouched: u64,
    /// In all, with the header.
    pub len: u64,
}

impl<'h> Alloc<'h> {
    /// # Safety
    /// `header` is a checked header at the start of a heap that is mapped, and accessed by nobody else, for `'h`.
    pub(super) unsafe fn new(header: NonNull<Header>) -> Self {
        Self {
            header,
            brand: PhantomData,
        }
    }

    /// How full the heap is.
    pub fn stats(self) -> HeapStats {
        // SAFETY: `new`'s contract.
        let header = unsafe { self.header.as_ref() };
        HeapStats {
            live: header.live,
            free: header.bump - Header::BYTES - header.live,
            untouched: header.len - header.bump,
            len: header.len,
        }
    }

    /// A block of at least `bytes` bytes, not initialised.
    pub(super) fn allocate(self, bytes: usize) -> Result<NonNull<u8>> {
        let full = Error::HeapFull { wanted: bytes };
        let class = size_class::of(bytes).ok_or(full)?;
        let size = size_class::bytes(class);
        let offset = match self.pop(class) {
            Some(offset) => offset,
            None => self.bump(size).or_else(|| self.cut(class)).ok_or(full)?,
        };
        self.header_mut(|header| header.live += size);
        Ok(self.pointer(offset))
    }

    /// Frees a block of [`Alloc::allocate`] or [`Alloc::reallocate`].
    ///
    /// # Safety
    /// `block` was allocated with `bytes` from this heap and is not used any more.
    pub(super) unsafe fn free(self, block: NonNull<u8>, bytes: usize) {
        let class = size_class::of(bytes).expect("it was allocated");
        let offset = (block.as_ptr() as usize - self.header.as_ptr() as usize) as u64;
        self.push(class, offset);
        self.header_mut(|header| header.live -= size_class::bytes(class));
    }

    /// Makes a block larger, moving it if it must; its first `old` bytes keep their contents.
    ///
    /// # Safety
    /// As [`Alloc::free`], with `old` bytes, unless this fails: then the block is as it was.
    pub(super) unsafe fn reallocate(self, block: NonNull<u8>, old: usize, new: usize) -> Result<NonNull<u8>> {
        assert!(new >= old, "blocks only grow");
        let full = Error::HeapFull { wanted: new };
        let (from, to) = (size_class::of(old).ok_or(full)?, size_class::of(new).ok_or(full)?);
        if from == to || self.extend(block, size_class::bytes(from), size_class::bytes(to)) {
            return Ok(block);
        }
        let moved = self.allocate(new)?;
        // SAFETY: two distinct blocks of at least `old` bytes; the old one is given up.
        unsafe {
            core::ptr::copy_nonoverlapping(block.as_ptr(), moved.as_ptr(), old);
            self.free(block, old);
        }
        Ok(moved)
    }

    /// How many bytes a block that was asked for with `bytes` really has.
    pub(super) fn usable(bytes: usize) -> usize {
        size_class::of(bytes).map_or(bytes, |class| size_class::bytes(class) as usize)
    }

    /// Extends the block that ends where untouched memory begins.
    fn extend(self, block: NonNull<u8>, from: u64, to: u64) -> bool {
        let offset = (block.as_ptr() as usize - self.header.as_ptr() as usize) as u64;
        self.header_mut(|header| {
            let fits = offset + from == header.bump && header.len - offset >= to;
            if fits {
                header.bump = offset + to;
                header.live += to - from;
            }
            fits
        })
    }

    fn bump(self, size: u64) -> Option<u64> {
        self.header_mut(|header| {
            let offset = header.bump;
            (header.len - offset >= size).then(|| {
                header.bump = offset + size;
                offset
            })
        })
    }

    /// Takes a free block of a larger class and frees what is left of it.
    fn cut(self, class: usize) -> Option<u64> {
        let larger = (class + 1..CLASSES).find_map(|larger| Some((larger, self.pop(larger)?)));
        let (larger, offset) = larger?;
        let (mut rest, end) = (
            offset + size_class::bytes(class),
            offset + size_class::bytes(larger),
        );
        while rest < end {
            let fits = |class: &usize| size_class::bytes(*class) <= end - rest;
            let piece = (0..larger)
                .rev()
                .find(fits)
                .expect("the rest is a multiple of the smallest block");
            self.push(piece, rest);
            rest += size_class::bytes(piece);
        }
        Some(offset)
    }

    fn pop(self, class: usize) -> Option<u64> {
        // SAFETY: `new`'s contract.
        let header = unsafe { self.header.as_ref() };
        let offset = header.free[class];
        if offset == 0 {
            return None;
        }
        let size = size_class::bytes(class);
        assert!(
            header.is_block(offset) && header.bump - offset >= size,
            "the heap's free list is damaged"
        );
        // SAFETY: a free block lies here, and its first bytes hold the next offset.
        let next = unsafe { self.pointer(offset).cast::<u64>().read() };
        self.header_mut(|header| header.free[class] = next);
        Some(offset)
    }

    fn push(self, class: usize, offset: u64) {
        let next = self.header_mut(|header| core::mem::replace(&mut header.free[class], offset));
        // SAFETY: the block is free, aligned, and has at least 16 bytes.
        unsafe { self.pointer(offset).cast::<u64>().write(next) };
    }

    fn header_mut<T>(self, work: impl FnOnce(&mut Header) -> T) -> T {
        let mut header = self.header;
        // SAFETY: `new`'s contract; no other reference to the header lives while `work`, which is in this file, runs.
        work(unsafe { header.as_mut() })
    }

    fn pointer(self, offset: u64) -> NonNull<u8> {
        // SAFETY: offsets lie within the heap's `len` bytes.
        unsafe { self.header.cast::<u8>().add(offset as usize) }
    }
}

/// Fails to compile where a type cannot live in a block.
pub(super) const fn check_type<T>() {
    assert!(align_of::<T>() <= BLOCK_ALIGN, "a block is aligned to 16 bytes");
    assert!(size_of::<T>() > 0, "a persistent value has bytes");
}
