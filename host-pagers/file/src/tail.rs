//! [`Tail`]: the last block of the active segment, so that records are written as whole blocks.
//!
//! ```text
//!   segment:  ... | records | rec. . . |            blocks: [ rec. | record | zeroes ]  -- one write -->
//!                           ^- start    ^- end
//! ```
//!
//! What is on disk of the last block is written again with each record that begins in it. These are the same bytes: however
//! much of a write arrives, the records before it stand. A file system would do the same to the page in its cache.

use crate::limits::BLOCK_BYTES;

/// See the head of the file.
#[derive(Default)]
pub(crate) struct Tail {
    /// What the last block holds; less than a block.
    last: Vec<u8>,
    /// Room for blocks at an aligned place.
    room: Vec<u8>,
}

impl Tail {
    /// A segment that holds `written` from its beginning on.
    pub(crate) fn begin(&mut self, written: &[u8]) {
        self.last.clear();
        self.advance(written);
    }

    /// How many bytes of its last block are used.
    pub(crate) fn used(&self) -> usize {
        self.last.len()
    }

    /// The last block with `record` behind what it holds and zeroes up to the end of a block, but not more than `length_max`
    /// bytes.
    pub(crate) fn blocks(&mut self, record: &[u8], length_max: usize) -> &[u8] {
        let (used, end) = (self.last.len(), self.last.len() + record.len());
        let length = end.next_multiple_of(BLOCK_BYTES).min(length_max);
        if self.room.len() < length + BLOCK_BYTES {
            self.room.resize(length + BLOCK_BYTES, 0);
        }
        let start = self.room.as_ptr().align_offset(BLOCK_BYTES).min(BLOCK_BYTES);
        let blocks = &mut self.room[start..start + length];
        blocks[..used].copy_from_slice(&self.last);
        blocks[used..end].copy_from_slice(record);
        blocks[end..].fill(0);
        blocks
    }

    /// The segment goes on with `record`.
    pub(crate) fn advance(&mut self, record: &[u8]) {
        let used = (self.last.len() + record.len()) % BLOCK_BYTES;
        if used <= record.len() {
            self.last.clear();
        }
        let new = used - self.last.len();
        self.last.extend_from_slice(&record[record.len() - new..]);
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
            let blocks = tail.blocks(&record, usize::MAX);
            assert!(start.is_multiple_of(BLOCK_BYTES) && blocks.len().is_multiple_of(BLOCK_BYTES));
            assert!(blocks.as_ptr().addr().is_multiple_of(BLOCK_BYTES));
            file.resize(start + blocks.len(), 0xff);
            file[start..].copy_from_slice(blocks);
            expected.extend_from_slice(&record);
            tail.advance(&record);
            assert!(file[..expected.len()] == expected, "record {number}");
            assert!(file[expected.len()..].iter().all(|byte| *byte == 0));
        }
    }

    #[test]
    fn a_segment_that_ends_inside_a_block_is_not_left() {
        let mut tail = Tail::default();
        tail.begin(&[1; 100]);
        assert_eq!(tail.blocks(&[2; 50], 200).len(), 200);
        assert_eq!(tail.blocks(&[2; 50], 150).len(), 150);
    }
}
