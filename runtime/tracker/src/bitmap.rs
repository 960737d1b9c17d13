//! [`AtomicBitmap`]: a bit per page that a signal handler may set.
//!
//! Invariants: no operation but [`AtomicBitmap::new`] allocates, locks or waits; a word that was never touched costs no
//! memory, because it comes zeroed from the operating system.

use core::sync::atomic::{AtomicU64, Ordering};

use vmsync_core::{PageRange, PageSet};

const BITS: u64 = u64::BITS as u64;

/// A bit for each of a fixed number of pages.
#[derive(Debug)]
pub(crate) struct AtomicBitmap {
    words: Box<[AtomicU64]>,
}

impl AtomicBitmap {
    /// `pages` clear bits.
    pub fn new(pages: u64) -> Self {
        let length = usize::try_from(pages.div_ceil(BITS)).expect("a bitmap fits the address space");
        let words = Box::into_raw(vec![0u64; length].into_boxed_slice());
        // SAFETY: an `AtomicU64` has the layout and the valid values of a `u64`, and the box is not used again.
        let words = unsafe { Box::from_raw(words as *mut [AtomicU64]) };
        Self { words }
    }

    /// Whether the bit of `page` is set; a page beyond the end has none.
    pub fn contains(&self, page: u64) -> bool {
        self.words
            .get((page / BITS) as usize)
            .is_some_and(|word| word.load(Ordering::Acquire) & (1 << (page % BITS)) != 0)
    }

    /// Whether all bits of `pages` are set.
    pub fn contains_all(&self, pages: PageRange) -> bool {
        words_of(pages).all(|(word, mask)| self.words[word].load(Ordering::Acquire) & mask == mask)
    }

    /// Hands each run of `pages` whose bits are not set to `found`, ascending; a run ends at every 64th page.
    pub fn missing(&self, pages: PageRange, found: impl FnMut(PageRange)) {
        let words =
            words_of(pages).map(|(word, mask)| (word, !self.words[word].load(Ordering::Acquire) & mask));
        runs_of(words, found);
    }

    /// How many runs of set bits `pages` hold.
    pub fn runs(&self, pages: PageRange) -> usize {
        let (mut runs, mut before) = (0, 0);
        for (word, mask) in words_of(pages) {
            let bits = self.words[word].load(Ordering::Acquire) & mask;
            runs += (bits & !(bits << 1 | before)).count_ones() as usize;
            before = bits >> (BITS - 1);
        }
        runs
    }

    /// Sets the bits of `pages`.
    pub fn insert(&self, pages: PageRange) {
        for (word, mask) in words_of(pages) {
            self.words[word].fetch_or(mask, Ordering::AcqRel);
        }
    }

    /// Clears the bits of `pages`.
    pub fn remove(&self, pages: PageRange) {
        self.take(pages, |_| ());
    }

    /// Clears the bits of `pages` and hands each run that was set to `found`, ascending; a run ends at every 64th page.
    pub fn take(&self, pages: PageRange, found: impl FnMut(PageRange)) {
        let words = words_of(pages).map(|(index, mask)| {
            let word = &self.words[index];
            match word.load(Ordering::Acquire) & mask {
                0 => (index, 0),
                _ => (index, word.fetch_and(!mask, Ordering::AcqRel) & mask),
            }
        });
        runs_of(words, found);
    }

    /// The runs of `pages`, joined over gaps of at most `gap_pages_max` pages whose bits are all set.
    pub fn joined(&self, pages: &PageSet, gap_pages_max: u64) -> Vec<PageRange> {
        let mut joined: Vec<PageRange> = Vec::new();
        for run in pages.runs() {
            match joined.last_mut() {
                Some(last)
                    if run.start - last.end <= gap_pages_max
                        && self.contains_all(PageRange::new(last.end, run.start)) =>
                {
                    last.end = run.end;
                }
                _ => joined.push(*run),
            }
        }
        joined
    }

    /// The run of set bits around `page`, whose bit is set.
    pub fn run_around(&self, page: u64) -> PageRange {
        let (mut start, mut end) = (page, page + 1);
        while start > 0 && self.contains(start - 1) {
            start -= 1;
        }
        while self.contains(end) {
            end += 1;
        }
        PageRange::new(start, end)
    }
}

/// Hands the runs of set bits in `words` to `found`.
fn runs_of(words: impl Iterator<Item = (usize, u64)>, mut found: impl FnMut(PageRange)) {
    for (index, mut bits) in words {
        while bits != 0 {
            let first = bits.trailing_zeros();
            let length = (bits >> first).trailing_ones();
            let start = index as u64 * BITS + u64::from(first);
            found(PageRange::new(start, start + u64::from(length)));
            bits &= !(ones(length) << first);
        }
    }
}

/// The lowest `length` bits, of which there is at least one.
const fn ones(length: u32) -> u64 {
    u64::MAX >> (u64::BITS - length)
}

/// The words that hold `pages`, each with the mask of its part.
fn words_of(pages: PageRange) -> impl Iterator<Item = (usize, u64)> {
    (pages.start / BITS..pages.end.div_ceil(BITS))
        .filter(move |_| !pages.is_empty())
        .map(move |word| {
            let part = pages.intersect(PageRange::new(word * BITS, (word + 1) * BITS));
            (word as usize, ones(part.len() as u32) << (part.start % BITS))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_joined_over_small_gaps_of_set_bits() {
        let bitmap = AtomicBitmap::new(256);
        bitmap.insert(PageRange::new(0, 100));
        bitmap.insert(PageRange::new(101, 256));
        let pages = PageSet::from_iter([3, 5, 9, 99, 102]);
        let joined = [
            PageRange::new(3, 10),
            PageRange::new(99, 100),
            PageRange::new(102, 103),
        ];
        assert_eq!(bitmap.joined(&pages, 3), joined);
    }
}

#[cfg(test)]
mod properties {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn behaves_as_a_page_set(steps in prop::collection::vec((0u8..3, 0u64..200, 0u64..150), 0..32)) {
            let (bitmap, mut oracle) = (AtomicBitmap::new(350), PageSet::new());
            for (operation, start, length) in steps {
                let pages = PageRange::new(start, start + length);
                match operation {
                    0 => {
                        bitmap.remove(pages);
                        oracle.remove(pages);
                    }
                    1 => {
                        let mut missing = PageSet::from(pages);
                        missing.subtract(&oracle);
                        let mut found = PageSet::new();
                        bitmap.missing(pages, |run| found.insert(run));
                        prop_assert_eq!(&found, &missing);
                        prop_assert_eq!(bitmap.contains_all(pages), missing.is_empty());
                        let mut taken = PageSet::new();
                        bitmap.take(pages, |run| taken.insert(run));
                        prop_assert_eq!(taken, oracle.within(pages));
                        oracle.remove(pages);
                    }
                    _ => {
                        bitmap.insert(pages);
                        oracle.insert(pages);
                    }
                }
                prop_assert_eq!(bitmap.runs(PageRange::new(0, 350)), oracle.runs().len());
                prop_assert_eq!(bitmap.runs(pages), oracle.within(pages).runs().len());
                for page in 0..400 {
                    prop_assert_eq!(bitmap.contains(page), oracle.contains(page));
                }
            }
            for run in oracle.runs() {
                prop_assert_eq!(bitmap.run_around(run.start), *run);
            }
        }
    }
}
