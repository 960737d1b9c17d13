//! [`PageBitmap`]: a set of pages that grows page by page all over an object, and is asked about a part at a time.
//!
//! Beside [`PageSet`], whose runs are what a call works on: a set that lives as long as its object may hold tens of
//! thousands of scattered pages, and putting one more among so many runs would move half of them.
//!
//! Invariants: no chunk is empty.

use alloc::{collections::BTreeMap, vec::Vec};

use crate::{page::PageRange, page_set::PageSet};

/// Pages of one chunk: a cache line of bits.
const CHUNK_PAGES: u64 = WORDS as u64 * WORD_PAGES;
const WORDS: usize = 8;
const WORD_PAGES: u64 = u64::BITS as u64;

/// A set of pages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PageBitmap {
    chunks: BTreeMap<u64, [u64; WORDS]>,
}

impl PageBitmap {
    /// The empty set.
    pub const fn new() -> Self {
        Self {
            chunks: BTreeMap::new(),
        }
    }

    /// Whether no page is in it.
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// How many pages are in it.
    pub fn len(&self) -> u64 {
        let words = self.chunks.values().flatten();
        words.map(|word| u64::from(word.count_ones())).sum()
    }

    /// Adds every page of `range`.
    pub fn insert(&mut self, range: PageRange) {
        for chunk in chunks(range) {
            let words = self.chunks.entry(chunk).or_default();
            if range.len() == 1 {
                let page = range.start % CHUNK_PAGES;
                words[(page / WORD_PAGES) as usize] |= 1 << (page % WORD_PAGES);
                continue;
            }
            let masks = masks(range, chunk);
            words.iter_mut().zip(masks).for_each(|(word, mask)| *word |= mask);
        }
    }

    /// Removes every page of `range`.
    pub fn remove(&mut self, range: PageRange) {
        let mut emptied = Vec::new();
        for (chunk, words) in self.chunks.range_mut(chunks(range)) {
            let masks = masks(range, *chunk);
            words
                .iter_mut()
                .zip(masks)
                .for_each(|(word, mask)| *word &= !mask);
            if *words == [0; WORDS] {
                emptied.push(*chunk);
            }
        }
        for chunk in emptied {
            self.chunks.remove(&chunk);
        }
    }

    /// Adds every page of `pages`.
    pub fn union(&mut self, pages: &PageSet) {
        pages.runs().iter().for_each(|run| self.insert(*run));
    }

    /// The part inside `range`, as runs.
    #[must_use]
    pub fn within(&self, range: PageRange) -> PageSet {
        let mut part = PageSet::new();
        for (chunk, words) in self.chunks.range(chunks(range)) {
            for (index, (word, mask)) in words.iter().zip(masks(range, *chunk)).enumerate() {
                let (mut bits, base) = (word & mask, chunk * CHUNK_PAGES + index as u64 * WORD_PAGES);
                while bits != 0 {
                    let first = u64::from(bits.trailing_zeros());
                    let length = u64::from((bits >> first).trailing_ones());
                    part.insert(PageRange::new(base + first, base + first + length));
                    bits &= !(ones(length) << first);
                }
            }
        }
        part
    }
}

/// The chunks that hold pages of `range`.
fn chunks(range: PageRange) -> core::ops::Range<u64> {
    if range.is_empty() {
        return 0..0;
    }
    range.start / CHUNK_PAGES..range.end.div_ceil(CHUNK_PAGES)
}

/// The pages of `range` in the words of `chunk`.
fn masks(range: PageRange, chunk: u64) -> [u64; WORDS] {
    core::array::from_fn(|index| {
        let first = chunk * CHUNK_PAGES + index as u64 * WORD_PAGES;
        let part = range.intersect(PageRange::new(first, first + WORD_PAGES));
        if part.is_empty() {
            0
        } else {
            ones(part.len()) << (part.start - first)
        }
    })
}

/// The lowest `length` bits, of which there is at least one.
const fn ones(length: u64) -> u64 {
    u64::MAX >> (WORD_PAGES - length)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn behaves_as_a_page_set(steps in prop::collection::vec((0u8..4, 0u64..3000, 0u64..1600), 0..48)) {
            let (mut bitmap, mut oracle) = (PageBitmap::new(), PageSet::new());
            for (operation, start, length) in steps {
                let range = PageRange::new(start, start + length);
                match operation {
                    0 => {
                        bitmap.remove(range);
                        oracle.remove(range);
                    }
                    1 => {
                        let few = PageSet::from_iter((range.start..range.end).step_by(7));
                        bitmap.union(&few);
                        oracle.union(&few);
                    }
                    _ => {
                        bitmap.insert(range);
                        oracle.insert(range);
                    }
                }
                prop_assert_eq!(bitmap.within(range), oracle.within(range));
                prop_assert_eq!((bitmap.len(), bitmap.is_empty()), (oracle.len(), oracle.is_empty()));
                prop_assert_eq!(&bitmap.within(PageRange::new(0, u64::MAX)), &oracle);
                prop_assert!(bitmap.chunks.values().all(|words| *words != [0; WORDS]));
            }
        }
    }
}
