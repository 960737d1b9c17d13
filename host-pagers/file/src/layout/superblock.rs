//! [`Superblock`]: where the store stands. Two slots; a new one goes where the older one is.
//!
//! Invariants:
//! - a slot fits one sector, so that it is old or new and never half;
//! - the slot with the higher number counts; the other is a step behind and still true where its segments exist;
//! - one that says `closed` is written only when everything before it is durable;
//! - `newest` is written before a call in that segment is reported, so that a journal that ends before it is known to.

use vmsync_core::PageSize;

use crate::{
    layout::{Cursor, FORMAT_VERSION, Seed, VERSIONS_READ},
    limits::{NUMBER_MAX, SECTOR_BYTES, SLOT_BYTES, VERSION_MAX},
};

/// Says that this is a store of ours.
pub(crate) const MAGIC: [u8; 8] = *b"vmsync-S";

/// The bytes of a slot that mean something; the rest is zero.
pub(crate) const ENCODED_BYTES: usize = 88;

/// The same of version 2, which has no newest segment.
const ENCODED_BYTES_2: usize = 80;

/// The same of version 1, which has no flags either.
const ENCODED_BYTES_1: usize = 72;

/// Flag: the store was closed, and its journal was empty then.
const CLOSED: u64 = 1;

const _: () = assert!(ENCODED_BYTES <= SECTOR_BYTES);
const _: () = assert!(ENCODED_BYTES_1 == 8 + 4 + 4 + 16 + 8 + 8 + 8 + 8 + 8);
const _: () = assert!(ENCODED_BYTES_2 == ENCODED_BYTES_1 + 8);
const _: () = assert!(ENCODED_BYTES == ENCODED_BYTES_2 + 8);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Superblock {
    /// The format that it was read in; it is written in the newest.
    pub(crate) version: u32,
    pub(crate) page_size: PageSize,
    pub(crate) nonce: u128,
    /// Number of this superblock; it rises with each checkpoint, each new segment and each closing.
    pub(crate) number: u64,
    /// The segment that replay begins with.
    pub(crate) generation: u64,
    /// The first call that is not in the images for sure: the first of that segment.
    pub(crate) sequence: u64,
    /// Size that new segments get.
    pub(crate) segment_bytes: u64,
    /// No call went into the segment of `generation`, and all that was ever written was durable.
    pub(crate) closed: bool,
    /// The newest segment that may have calls.
    pub(crate) newest: u64,
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
            self.newest,
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
            return Some(Self::decode_other_version(used, version));
        }
        let page_size = 1u64.checked_shl(cursor.u32()?).and_then(PageSize::new)?;
        let (nonce, number) = (cursor.u128()?, cursor.u64()?);
        let (generation, sequence) = (cursor.u64()?, cursor.u64()?);
        let superblock = Self {
            version,
            page_size,
            nonce,
            number,
            generation,
            sequence,
            segment_bytes: cursor.u64()?,
            closed: version > 1 && cursor.u64()? & CLOSED != 0,
            newest: if version > 2 { cursor.u64()? } else { generation },
        };
        let front = &used[..used.len() - cursor.0.len()];
        let checksum = Seed::of(superblock.nonce).checksum(front);
        let counts = [
            number,
            generation,
            sequence,
            superblock.newest,
            superblock.segment_bytes,
        ];
        let counts = counts.iter().all(|number| *number <= NUMBER_MAX);
        Some(if cursor.u64()? == checksum && counts {
            Slot::Valid(superblock)
        } else {
            Slot::Damaged
        })
    }

    /// A slot that says it is of another version. Where there never will be such a one, or all the rest is right for a version of
    /// ours, the version is what is damaged.
    fn decode_other_version(used: &[u8], version: u32) -> Slot {
        let is_ours = |own: u32| {
            let mut bytes = used.to_vec();
            bytes[MAGIC.len()..][..4].copy_from_slice(&own.to_le_bytes());
            matches!(Self::decode_fields(&bytes), Some(Slot::Valid(_)))
        };
        let is_one = (1..=VERSION_MAX).contains(&version);
        match is_one && !VERSIONS_READ.into_iter().any(is_ours) {
            true => Slot::Version(version),
            false => Slot::Damaged,
        }
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
            newest: 11,
        };
        let bytes = superblock.encode();
        assert_eq!(bytes.len(), SLOT_BYTES);
        assert_eq!(Superblock::decode(&bytes), Slot::Valid(superblock));
        assert_eq!(Superblock::decode(&[0; SLOT_BYTES]), Slot::Blank);
        assert_eq!(Superblock::decode(&[]), Slot::Blank);
        for bit in 0..ENCODED_BYTES * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let is_magic = bit / 8 < MAGIC.len();
            let expected = if is_magic { Slot::Foreign } else { Slot::Damaged };
            assert_eq!(Superblock::decode(&flipped), expected, "bit {bit}");
        }
    }

    #[test]
    fn older_versions_have_fewer_fields() {
        for (version, length) in [(1, ENCODED_BYTES_1), (2, ENCODED_BYTES_2)] {
            let superblock = Superblock {
                version,
                page_size: PageSize::KIB_4,
                nonce: 5,
                number: 1,
                generation: 2,
                sequence: 3,
                segment_bytes: 1 << 24,
                closed: version > 1,
                newest: 2,
            };
            let mut bytes = superblock.encode();
            bytes[8] = version as u8;
            let checksum = Seed::of(5).checksum(&bytes[..length - 8]);
            bytes[length - 8..length].copy_from_slice(&checksum.to_le_bytes());
            bytes[length..].fill(0);
            assert_eq!(Superblock::decode(&bytes), Slot::Valid(superblock));
            bytes[40] ^= 1;
            assert_eq!(Superblock::decode(&bytes), Slot::Damaged);
        }
    }

    #[test]
    fn a_version_to_come_is_no_damage() {
        let mut bytes = vec![0; SLOT_BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8] = FORMAT_VERSION as u8 + 1;
        bytes[40..].fill(0x5a);
        assert_eq!(Superblock::decode(&bytes), Slot::Version(FORMAT_VERSION + 1));
    }
}
