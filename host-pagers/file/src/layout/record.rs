//! [`RecordHeader`]: one write to the journal: a group of calls, or a snapshot of the catalog.
//!
//! Invariants:
//! - a record is written as a whole and synced before the next one is written, so that a record behind a broken one
//!   means damage and not a power cut;
//! - its checksum covers the header, and through `body_sum` the body; generation, sequence and chain tie it to its
//!   place, so that stale bytes of a recycled file are never taken for it.

use crate::{
    layout::{Cursor, Seed, align_up},
    limits::{NUMBER_MAX, RECORD_ALIGN},
};

pub(crate) const MAGIC: u32 = u32::from_le_bytes(*b"vmsR");

pub(crate) const HEADER_BYTES: usize = 64;

const _: () = assert!(HEADER_BYTES == 4 + 4 + 4 + 4 + 6 * 8);
const _: () = assert!(HEADER_BYTES.is_multiple_of(RECORD_ALIGN));

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RecordKind {
    /// Calls that commit together.
    Calls,
    /// The catalog.
    Snapshot,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecordHeader {
    pub(crate) kind: RecordKind,
    /// How many calls the body holds.
    pub(crate) calls: u32,
    /// The length of the body in bytes, without the padding behind it.
    pub(crate) length: u32,
    pub(crate) generation: u64,
    /// The number of the first call; of the next one for a snapshot.
    pub(crate) sequence: u64,
    /// The checksum of the record before.
    pub(crate) chain: u64,
    pub(crate) body_sum: u64,
}

impl RecordHeader {
    /// The room of the whole record in the journal.
    pub(crate) fn record_bytes(&self) -> usize {
        record_bytes(self.length as usize)
    }

    /// The encoded header, and the checksum that the next record chains to.
    pub(crate) fn encode(&self, seed: Seed) -> ([u8; HEADER_BYTES], u64) {
        let kind = match self.kind {
            RecordKind::Calls => 1u32,
            RecordKind::Snapshot => 2,
        };
        let mut bytes = [0; HEADER_BYTES];
        let (words, longs) = bytes.split_at_mut(4 * 4);
        for (place, number) in words
            .chunks_exact_mut(4)
            .zip([MAGIC, kind, self.calls, self.length])
        {
            place.copy_from_slice(&number.to_le_bytes());
        }
        let numbers = [self.generation, self.sequence, self.chain, self.body_sum];
        for (place, number) in longs.chunks_exact_mut(8).zip(numbers) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        let checksum = seed.checksum(&bytes[..HEADER_BYTES - 8]);
        bytes[HEADER_BYTES - 8..].copy_from_slice(&checksum.to_le_bytes());
        (bytes, checksum)
    }

    /// The header at the front of `bytes` and its checksum, where its checksum is right.
    pub(crate) fn decode(bytes: &[u8], seed: Seed) -> Option<(Self, u64)> {
        let used = bytes.get(..HEADER_BYTES)?;
        let mut cursor = Cursor(used);
        if cursor.u32()? != MAGIC {
            return None;
        }
        let kind = match cursor.u32()? {
            1 => RecordKind::Calls,
            2 => RecordKind::Snapshot,
            _ => return None,
        };
        let (calls, length) = (cursor.u32()?, cursor.u32()?);
        let (generation, sequence) = (cursor.u64()?, cursor.u64()?);
        let (chain, body_sum, _) = (cursor.u64()?, cursor.u64()?, cursor.u64()?);
        let checksum = cursor.u64()?;
        if checksum != seed.checksum(&used[..HEADER_BYTES - 8]) || generation.max(sequence) > NUMBER_MAX {
            return None;
        }
        Some((
            Self {
                kind,
                calls,
                length,
                generation,
                sequence,
                chain,
                body_sum,
            },
            checksum,
        ))
    }
}

/// The room of a record with a body of `length` bytes.
pub(crate) const fn record_bytes(length: usize) -> usize {
    align_up(HEADER_BYTES + length, RECORD_ALIGN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_is_noticed() {
        let header = RecordHeader {
            kind: RecordKind::Calls,
            calls: 2,
            length: 100,
            generation: 7,
            sequence: 41,
            chain: 12345,
            body_sum: 999,
        };
        let (bytes, checksum) = header.encode(Seed::of(3));
        assert_eq!(
            RecordHeader::decode(&bytes, Seed::of(3)),
            Some((header, checksum))
        );
        assert_eq!(RecordHeader::decode(&bytes, Seed::of(4)), None);
        assert_eq!(RecordHeader::decode(&bytes[1..], Seed::of(3)), None);
        for bit in 0..HEADER_BYTES * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(RecordHeader::decode(&flipped, Seed::of(3)), None, "bit {bit}");
        }
    }
}
