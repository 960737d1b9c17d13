//! The first bytes of a heap: what it is, where it was made, and the allocator's state.
//!
//! Everything that the heap knows lies in the region, so that it becomes durable, or is undone, together with the
//! data. `mod.rs` checks the header on opening; `alloc.rs` works on it.
//!
//! ```text
//! offset  bytes  field
//!      0      8  magic           "vmsyheap"
//!      8      4  version         of this layout
//!     12      4  pointer_bytes   4 or 8
//!     16      8  base            address of the heap when it was made
//!     24      8  len             bytes that the heap may use
//!     32      8  schema          fingerprint of the root's type
//!     40      8  root            offset of the root value
//!     48      8  bump            offset of the first byte that was never allocated
//!     56      8  live            bytes allocated now, in whole blocks
//!     64  8 × N  free            per size class, offset of the first free block; 0: none
//! ```
//!
//! Invariants: numbers are little-endian; offsets are from `base`, multiples of [`BLOCK_ALIGN`], and below `len`;
//! `bump` is at most `len`; blocks lie in `size_of::<Header>()..bump`.
//!
//! What is trusted: the header is checked on opening, and free-list heads again whenever they are used. Data
//! behind the root is not: it is what a former run of this program made durable, and the store checks that by
//! checksum.

use super::size_class::{BLOCK_ALIGN, CLASSES};
use crate::error::{Error, Result};

pub const MAGIC: [u8; 8] = *b"vmsyheap";

/// Version of the layout of the header, of blocks, and of the collections.
pub const VERSION: u32 = 1;

#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Header {
    pub magic: [u8; 8],
    pub version: u32,
    pub pointer_bytes: u32,
    pub base: u64,
    pub len: u64,
    pub schema: u64,
    pub root: u64,
    pub bump: u64,
    pub live: u64,
    pub free: [u64; CLASSES],
}

const _: () = assert!(size_of::<Header>() == 64 + 8 * CLASSES);
const _: () = assert!(
    size_of::<Header>() <= 4096,
    "allocating dirties one page of metadata"
);

impl Header {
    /// Offset of the first block, in bytes.
    pub const BYTES: u64 = (size_of::<Header>() as u64).next_multiple_of(BLOCK_ALIGN as u64);

    /// The header of an empty heap of `len` bytes at `base`, without a root yet.
    pub fn new(base: usize, len: usize, schema: u64) -> Self {
        Self {
            magic: MAGIC,
            version: VERSION,
            pointer_bytes: size_of::<usize>() as u32,
            base: base as u64,
            len: (len - len % BLOCK_ALIGN) as u64,
            schema,
            root: 0,
            bump: Self::BYTES,
            live: 0,
            free: [0; CLASSES],
        }
    }

    /// Whether nothing was ever written here.
    pub fn is_blank(&self) -> bool {
        self.magic == [0; 8] && self.version == 0 && self.base == 0 && self.bump == 0
    }

    /// Fails unless this is a heap that a program with `schema` can use in `len` bytes at `base`.
    pub fn check(&self, base: usize, len: usize, schema: u64, root_bytes: usize) -> Result<()> {
        if self.magic != MAGIC {
            return Err(Error::NotAHeap);
        }
        let found = self.version | self.pointer_bytes << 16;
        let expected = VERSION | (size_of::<usize>() as u32) << 16;
        if found != expected {
            return Err(Error::HeapVersion { found, expected });
        }
        if self.schema != schema {
            return Err(Error::HeapSchema {
                found: self.schema,
                expected: schema,
            });
        }
        if self.base != base as u64 {
            return Err(Error::HeapMoved {
                from: self.base,
                to: base,
            });
        }
        let damaged = |what| Err(Error::HeapDamaged { what });
        if self.len > len as u64 || !self.len.is_multiple_of(BLOCK_ALIGN as u64) {
            return damaged("its length exceeds the region");
        }
        if self.bump < Self::BYTES || self.bump > self.len || !self.bump.is_multiple_of(BLOCK_ALIGN as u64) {
            return damaged("its end is out of range");
        }
        if self.live > self.bump - Self::BYTES {
            return damaged("more bytes are live than were ever allocated");
        }
        if !self.is_block(self.root) || self.bump - self.root < root_bytes as u64 {
            return damaged("its root is out of range");
        }
        if self.free.iter().any(|head| *head != 0 && !self.is_block(*head)) {
            return damaged("a free list is out of range");
        }
        Ok(())
    }

    /// Whether a block can start at `offset`.
    pub fn is_block(&self, offset: u64) -> bool {
        offset >= Self::BYTES && offset < self.bump && offset.is_multiple_of(BLOCK_ALIGN as u64)
    }
}
