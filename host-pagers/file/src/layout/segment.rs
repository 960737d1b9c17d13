//! [`SegmentHeader`]: whose turn a journal file serves.
//!
//! Segments are recycled: the file stays, its generation rises. The first record of a segment is a snapshot of the
//! catalog, so that replay can begin with any of them.
//!
//! Invariants:
//! - generations rise with time and are not used again;
//! - records in earlier generations with a sequence from `sequence` on are void: their commit failed;
//! - the header fits one sector.

use crate::{
    layout::{Cursor, Seed},
    limits::{NUMBER_MAX, SECTOR_BYTES, SEGMENT_HEADER_BYTES},
};

const MAGIC: [u8; 8] = *b"vmsync-J";

/// The bytes that mean something; the rest is zero.
pub(crate) const ENCODED_BYTES: usize = 48;

const _: () = assert!(ENCODED_BYTES == 8 + 5 * 8);
const _: () = assert!(ENCODED_BYTES <= SECTOR_BYTES);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) generation: u64,
    /// The number of the first call in it.
    pub(crate) sequence: u64,
    /// The checksum of the record before it.
    pub(crate) chain: u64,
    /// The length of the file.
    pub(crate) capacity: u64,
}

/// What the front of a segment file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    Blank,
    Valid(SegmentHeader),
    Damaged,
}

impl SegmentHeader {
    pub(crate) fn encode(&self, seed: Seed) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(SEGMENT_HEADER_BYTES);
        bytes.extend_from_slice(&MAGIC);
        for number in [self.generation, self.sequence, self.chain, self.capacity] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        let checksum = seed.checksum(&bytes);
        bytes.extend_from_slice(&checksum.to_le_bytes());
        assert!(bytes.len() == ENCODED_BYTES);
        bytes.resize(SEGMENT_HEADER_BYTES, 0);
        bytes
    }

    pub(crate) fn decode(bytes: &[u8], seed: Seed) -> Found {
        let Some(used) = bytes.get(..ENCODED_BYTES) else {
            return Found::Blank;
        };
        if used.iter().all(|byte| *byte == 0) {
            return Found::Blank;
        }
        Self::decode_fields(used, seed).map_or(Found::Damaged, Found::Valid)
    }

    fn decode_fields(used: &[u8], seed: Seed) -> Option<Self> {
        let mut cursor = Cursor(used);
        if cursor.bytes(MAGIC.len())? != MAGIC {
            return None;
        }
        let header = Self {
            generation: cursor.u64()?,
            sequence: cursor.u64()?,
            chain: cursor.u64()?,
            capacity: cursor.u64()?,
        };
        let counts = header.generation.max(header.sequence) <= NUMBER_MAX;
        (cursor.u64()? == seed.checksum(&used[..ENCODED_BYTES - 8]) && counts).then_some(header)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_is_noticed() {
        let (seed, header) = (
            Seed::of(1),
            SegmentHeader {
                generation: 4,
                sequence: 100,
                chain: 5,
                capacity: 1 << 20,
            },
        );
        let bytes = header.encode(seed);
        assert_eq!(SegmentHeader::decode(&bytes, seed), Found::Valid(header));
        assert_eq!(SegmentHeader::decode(&bytes, Seed::of(2)), Found::Damaged);
        assert_eq!(SegmentHeader::decode(&[0; ENCODED_BYTES], seed), Found::Blank);
        for bit in 0..ENCODED_BYTES * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(SegmentHeader::decode(&flipped, seed), Found::Damaged, "bit {bit}");
        }
    }
}
