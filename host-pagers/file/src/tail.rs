//! [`Tail`]: the last block of the active segment, so that records are written as whole blocks.
//!
//! ```text
//!   segment:  ... | records | rec. . . |            blocks: [ rec. | record | zeroes ]  -- one write -->
//!                           ^- start    ^- end
//! ```
//!
//! What is on disk of the last block is written again with each record that begins in it. These are the same bytes: however
//! much of a write arrives, the records before it stand. A file system would do the same to the page in its cache.

use crate::limits::{BLOCK_BYTES, ROOM_BYTES_MAX};

/// See the head of the file.
#[derive(Default)]
pub(crate) struct Tail {
    /// The blocks of the next record, from an aligned place on: the last block as it is, and room.
    room: Vec<u8>,
    /// Where that place is.
    start: usize,
    /// How many bytes of the last block are used.
    used: usize,
    /// The next record is behind them, and its end is here.
    end: usize,
    /// Behind these bytes of the blocks there are only zeroes.
    touched: usize,
    /// The bytes of all blocks of the next record.
    length: usize,
}

impl Tail {
    /// A segment that holds `written` from its beginning on.
    pub(crate) fn begin(&mut self, written: &[u8]) {
        let last = &written[written.len() / BLOCK_BYTES * BLOCK_BYTES..];
        self.used = 0;
        self.reserve(BLOCK_BYTES);
        self.wipe_behind(0);
        self.room[self.start..][..last.len()].copy_from_slice(last);
        (self.used, self.touched) = (last.len(), last.len());
    }

    /// How many bytes of its last block are used.
    pub(crate) fn used(&self) -> usize {
        self.used
    }

    /// The place of the next record, of `length` bytes, in blocks: behind what the last one holds, and with zeroes up to
    /// the end of a block, but not more than `length_max` bytes in all.
    pub(crate) fn place(&mut self, length: usize, length_max: usize) -> &mut [u8] {
        self.end = self.used + length;
        self.length = self.end.next_multiple_of(BLOCK_BYTES).min(length_max);
        self.reserve(self.length);
        self.wipe_behind(self.end);
        self.touched = self.end;
        &mut self.room[self.start..][self.used..self.end]
    }

    /// These blocks.
    pub(crate) fn blocks(&self) -> &[u8] {
        &self.room[self.start..][..self.length]
    }

    /// The record is written: the segment goes on behind it.
    pub(crate) fn advance(&mut self) {
        let full = self.end / BLOCK_BYTES * BLOCK_BYTES;
        self.used = self.end - full;
        if full > 0 {
            let last = self.start + full..self.start + self.end;
            self.room.copy_within(last, self.start);
            self.wipe_behind(self.used);
        }
    }

    /// Sees to room for `length` bytes of blocks, and for not much more than is usual.
    fn reserve(&mut self, length: usize) {
        if (length + BLOCK_BYTES..=ROOM_BYTES_MAX).contains(&self.room.len()) {
            return;
        }
        let mut room = vec![0; length + BLOCK_BYTES];
        let start = room.as_ptr().align_offset(BLOCK_BYTES).min(BLOCK_BYTES);
        room[start..][..self.used].copy_from_slice(&self.room[self.start..][..self.used]);
        (self.room, self.start, self.touched) = (room, start, self.used);
    }

    /// Puts zeroes behind the first `kept` bytes of the blocks.
    fn wipe_behind(&mut self, kept: usize) {
        if kept < self.touched {
            self.room[self.start..][kept..self.touched].fill(0);
            self.touched = kept;
        }
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
