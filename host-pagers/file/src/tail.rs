//! [`Tail`]: the last block of the active segment, so that records are written as whole blocks.
//!
//! ```text
//!   segment:  ... | records | rec. . . |            blocks: [ rec. | record | zeroes ]  -- one write -->
//!                           ^- start    ^- end
//! ```
//!
//! What is on disk of the last block is written again with each record that begins in it. These are the same bytes: however
//! much of a write arrives, the records before it stand. A file system would do the same to the page in its cache.

use std::ops::Range;

use crate::limits::{BLOCK_BYTES, ROOM_BYTES_MAX};

/// See the head of the file.
#[derive(Default)]
pub(crate) struct Tail {
    /// What the last block holds; less than a block.
    last: Vec<u8>,
    /// Room for blocks at an aligned place.
    room: Vec<u8>,
    /// The blocks of the next record, in `room`.
    blocks: Range<usize>,
    /// That record, in them.
    record: Range<usize>,
}

impl Tail {
    /// A segment that holds `written` from its beginning on.
    pub(crate) fn begin(&mut self, written: &[u8]) {
        self.last.clear();
        self.last
            .extend_from_slice(&written[written.len() / BLOCK_BYTES * BLOCK_BYTES..]);
    }

    /// How many bytes of its last block are used.
    pub(crate) fn used(&self) -> usize {
        self.last.len()
    }

    /// The place of the next record, of `length` bytes, in blocks: behind what the last one holds, and with zeroes up to
    /// the end of a block, but not more than `length_max` bytes in all.
    pub(crate) fn place(&mut self, length: usize, length_max: usize) -> &mut [u8] {
        let (used, end) = (self.last.len(), self.last.len() + length);
        let blocks = end.next_multiple_of(BLOCK_BYTES).min(length_max);
        if self.room.len() > ROOM_BYTES_MAX {
            self.room = Vec::new();
        }
        if self.room.len() < blocks + BLOCK_BYTES {
            self.room.resize(blocks + BLOCK_BYTES, 0);
        }
        let start = self.room.as_ptr().align_offset(BLOCK_BYTES).min(BLOCK_BYTES);
        (self.blocks, self.record) = (start..start + blocks, used..end);
        let blocks = &mut self.room[self.blocks.clone()];
        blocks[..used].copy_from_slice(&self.last);
        blocks[end..].fill(0);
        &mut blocks[used..end]
    }

    /// These blocks.
    pub(crate) fn blocks(&self) -> &[u8] {
        &self.room[self.blocks.clone()]
    }

    /// The record is written: the segment goes on behind it.
    pub(crate) fn advance(&mut self) {
        let end = self.record.end;
        let full = end / BLOCK_BYTES * BLOCK_BYTES;
        self.last.clear();
        self.last
            .extend_from_slice(&self.room[self.blocks.clone()][full..end]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_written_in_place_make_the_segment() {
        let lengths = [64, 8, 4096, 4088, 8, 12_000, 8, 8176, 64, 4096 - 96];
        let (mut tail, mut file, mut expected) = (Tail::default(), Vec::new(), vec![7; 5000]);
        file.extend_from_slice(&expected);
        tail.begin(&expected);
        for (number, length) in lengths.into_iter().cycle().take(100).enumerate() {
            let record = vec![number as u8 + 1; length];
            let start = expected.len() - tail.used();
            tail.place(length, usize::MAX).copy_from_slice(&record);
            let blocks = tail.blocks();
            assert!(start.is_multiple_of(BLOCK_BYTES) && blocks.len().is_multiple_of(BLOCK_BYTES));
            assert!(blocks.as_ptr().addr().is_multiple_of(BLOCK_BYTES));
            file.resize(start + blocks.len(), 0xff);
            file[start..].copy_from_slice(blocks);
            expected.extend_from_slice(&record);
            tail.advance();
            assert!(file[..expected.len()] == expected, "record {number}");
            assert!(file[expected.len()..].iter().all(|byte| *byte == 0));
        }
    }

    #[test]
    fn room_for_large_records_is_not_kept() {
        let mut tail = Tail::default();
        tail.begin(&[]);
        tail.place(2 * ROOM_BYTES_MAX, usize::MAX).fill(1);
        tail.advance();
        tail.place(64, usize::MAX).fill(2);
        assert!(tail.room.len() <= 2 * BLOCK_BYTES && tail.room.capacity() <= ROOM_BYTES_MAX);
    }

    #[test]
    fn a_segment_that_ends_inside_a_block_is_not_left() {
        let mut tail = Tail::default();
        tail.begin(&[1; 100]);
        for length_max in [200, 150] {
            assert_eq!(tail.place(50, length_max).len(), 50);
            assert_eq!(tail.blocks().len(), length_max);
        }
    }
}
