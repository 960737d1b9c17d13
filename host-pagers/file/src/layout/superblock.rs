//! [`Superblock`]: where the store stands. Two slots; a new one goes where the older one is.
//!
//! Invariants:
//! - a slot fits one sector, so that it is old or new and never half;
//! - the slot with the higher number counts; the other is a step behind and still true where its segments exist;
//! - one that says `closed` is written only when everything before it is durable.

use vmsync_core::PageSize;

use crate::{
    layout::{Cursor, FORMAT_VERSION, Seed, VERSIONS_READ},
    limits::{NUMBER_MAX, SECTOR_BYTES, SLOT_BYTES},
};

/// Says that this is a store of ours.
pub(crate) const MAGIC: [u8; 8] = *b"vmsync-S";

/// The bytes of a slot that mean something; the rest is zero.
pub(crate) const ENCODED_BYTES: usize = 80;

/// The same of version 1, which has no flags.
const ENCODED_BYTES_1: usize = 72;

/// Flag: the store was closed, and its journal was empty then.
const CLOSED: u64 = 1;

const _: () = assert!(ENCODED_BYTES <= SECTOR_BYTES);
const _: () = assert!(ENCODED_BYTES_1 == 8 + 4 + 4 + 16 + 8 + 8 + 8 + 8 + 8);
const _: () = assert!(ENCODED_BYTES == ENCODED_BYTES_1 + 8);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Superblock {
    /// The format that it was read in; it is written in the newest.
    pub(crate) version: u32,
    pub(crate) page_size: PageSize,
    pub(crate) nonce: u128,
    /// Number of this superblock; it rises with each checkpoint and each closing.
    pub(crate) number: u64,
    /// The segment that replay begins with.
    pub(crate) generation: u64,
    /// The first call that is not in the images for sure: the first of that segment.
    pub(crate) sequence: u64,
    /// Size that new segments get.
    pub(crate) segment_bytes: u64,
    /// No call went into the segment of `generation`, and all that was ever written was durable.
    pub(crate) closed: bool,
}

/// What a slot holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slot {
    /// Nothing was ever written.
    Blank,
    Valid(Superblock),
    /// Ours by its magic, of another format version.
    Version(u32),
    /// Not ours.
    Foreign,
    /// Ours by its magic and version, with a wrong checksum.
    Damaged,
}

impl Superblock {
    /// Which slot this one goes to.
    pub(crate) fn slot_offset(&self) -> u64 {
        (self.number % 2) * SLOT_BYTES as u64
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(SLOT_BYTES);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes.extend_from_slice(&self.page_size.shift().to_le_bytes());
        bytes.extend_from_slice(&self.nonce.to_le_bytes());
        let flags = if self.closed { CLOSED } else { 0 };
        for number in [
            self.number,
            self.generation,
            self.sequence,
            self.segment_bytes,
            flags,
        ] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        let checksum = Seed::of(self.nonce).checksum(&bytes);
        bytes.extend_from_slice(&checksum.to_le_bytes());
        assert!(bytes.len() == ENCODED_BYTES);
        bytes.resize(SLOT_BYTES, 0);
        bytes
    }

    /// What the slot `bytes` holds.
    pub(crate) fn decode(bytes: &[u8]) -> Slot {
        let Some(used) = bytes.get(..ENCODED_BYTES) else {
            return Slot::Blank;
        };
        if used.iter().all(|byte| *byte == 0) {
            return Slot::Blank;
        }
        Self::decode_fields(used).unwrap_or(Slot::Damaged)
    }

    fn decode_fields(used: &[u8]) -> Option<Slot> {
        let mut cursor = Cursor(used);
        if cursor.bytes(MAGIC.len())? != MAGIC {
            return Some(Slot::Foreign);
        }
        let version = cursor.u32()?;
        if !VERSIONS_READ.contains(&version) {
            return Some(Slot::Version(version));
        }
        let page_size = 1u64.checked_shl(cursor.u32()?).and_then(PageSize::new)?;
        let superblock = Self {
            version,
            page_size,
            nonce: cursor.u128()?,
            number: cursor.u64()?,
            generation: cursor.u64()?,
            sequence: cursor.u64()?,
            segment_bytes: cursor.u64()?,
            closed: version > 1 && cursor.u64()? & CLOSED != 0,
        };
        let front = &used[..used.len() - cursor.0.len()];
        let checksum = Seed::of(superblock.nonce).checksum(front);
        let counts = [superblock.number, superblock.generation, superblock.sequence];
        let counts = counts.iter().all(|number| *number <= NUMBER_MAX);
        Some(if cursor.u64()? == checksum && counts {
            Slot::Valid(superblock)
        } else {
            Slot::Damaged
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_is_noticed() {
        let superblock = Superblock {
            version: FORMAT_VERSION,
            page_size: PageSize::KIB_16,
            nonce: 0x0123_4567_89ab_cdef_1122_3344_5566_7788,
            number: 3,
            generation: 9,
            sequence: 77,
            segment_bytes: 1 << 24,
            closed: true,
        };
        let bytes = superblock.encode();
        assert_eq!(bytes.len(), SLOT_BYTES);
        assert_eq!(Superblock::decode(&bytes), Slot::Valid(superblock));
        assert_eq!(Superblock::decode(&[0; SLOT_BYTES]), Slot::Blank);
        assert_eq!(Superblock::decode(&[]), Slot::Blank);
        for bit in 0..ENCODED_BYTES * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(
                !matches!(Superblock::decode(&flipped), Slot::Valid(_) | Slot::Blank),
                "bit {bit}"
            );
        }
    }

    #[test]
    fn version_1_has_no_flags() {
        let superblock = Superblock {
            version: 1,
            page_size: PageSize::KIB_4,
            nonce: 5,
            number: 1,
            generation: 2,
            sequence: 3,
            segment_bytes: 1 << 24,
            closed: false,
        };
        let mut bytes = superblock.encode();
        bytes[8] = 1;
        let checksum = Seed::of(5).checksum(&bytes[..ENCODED_BYTES_1 - 8]);
        bytes[ENCODED_BYTES_1 - 8..ENCODED_BYTES_1].copy_from_slice(&checksum.to_le_bytes());
        bytes[ENCODED_BYTES_1..].fill(0);
        assert_eq!(Superblock::decode(&bytes), Slot::Valid(superblock));
        bytes[40] ^= 1;
        assert_eq!(Superblock::decode(&bytes), Slot::Damaged);
    }
}
