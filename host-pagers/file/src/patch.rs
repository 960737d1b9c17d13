//! [`Patch`]: what calls change in one page, as runs of bytes.
//!
//! ```text
//!   a call's entries (journal, in memory):  ... | page header | start, length, bytes | start, length, bytes | ...
//!                                                             '------------------ patch -----------------'
//! ```
//!
//! A patch is a part of the entries that were written to the journal: a page that waits for its image takes no more
//! memory than what changed in it.
//!
//! Invariant: the runs ascend, do not touch, and lie inside the page.

use std::{ops::Range, sync::Arc};

use vmsync_core::PageSize;

use crate::layout::entry::{PageEntry, RUN_HEADER_BYTES, encode_run, read_runs};

/// See the head of the file.
#[derive(Clone)]
pub(crate) struct Patch {
    entries: Arc<Vec<u8>>,
    runs: Range<usize>,
}

impl Patch {
    /// The runs at `runs` in `entries`.
    pub(crate) fn new(entries: &Arc<Vec<u8>>, runs: Range<usize>) -> Self {
        assert!(!runs.is_empty() && runs.end <= entries.len());
        Self {
            entries: entries.clone(),
            runs,
        }
    }

    /// The ranges of `page` in `ranges`.
    pub(crate) fn of_page(page: &[u8], ranges: &[(usize, usize)]) -> Self {
        let mut entries = Vec::new();
        for range in ranges {
            encode_run(&mut entries, page, *range);
        }
        let runs = 0..entries.len();
        Self::new(&Arc::new(entries), runs)
    }

    /// What a journaled entry changes, copied; `None` where that is nothing.
    pub(crate) fn of_entry(entry: &PageEntry<'_>) -> Option<Self> {
        let runs = entry.encoded_runs();
        (!runs.is_empty()).then(|| Self::new(&Arc::new(runs.to_vec()), 0..runs.len()))
    }

    /// Bytes of memory that it takes, roughly.
    pub(crate) fn bytes(&self) -> usize {
        self.runs.len()
    }

    /// Where in the page, and what.
    pub(crate) fn runs(&self) -> impl Iterator<Item = (usize, &[u8])> {
        read_runs(&self.entries[self.runs.clone()])
    }

    /// Puts the runs into `page`.
    pub(crate) fn apply(&self, page: &mut [u8]) {
        for (start, bytes) in self.runs() {
            page[start..start + bytes.len()].copy_from_slice(bytes);
        }
    }

    /// The page, where every byte of it is in the patch.
    pub(crate) fn whole(&self, page_size: PageSize) -> Option<&[u8]> {
        let (_, bytes) = self.runs().next()?;
        (bytes.len() as u64 == page_size.bytes()).then_some(bytes)
    }

    /// What `older` changes and then this.
    pub(crate) fn over(&self, older: &Self) -> Self {
        let covered = |(start, end): (usize, usize)| self.ranges().any(|own| own.0 <= start && end <= own.1);
        if older.ranges().all(covered) {
            return self.clone();
        }
        let mut ranges: Vec<(usize, usize)> = older.ranges().chain(self.ranges()).collect();
        ranges.sort_unstable();
        ranges.dedup_by(|next, last| {
            let touch = next.0 <= last.1;
            if touch {
                last.1 = last.1.max(next.1);
            }
            touch
        });
        let mut page = vec![0; ranges.last().map_or(0, |range| range.1)];
        older.apply(&mut page);
        self.apply(&mut page);
        Self::of_page(&page, &ranges)
    }

    /// Makes it what this changes and then `newer`: in place, where this covers `newer` and nobody else has it.
    pub(crate) fn absorb(&mut self, newer: &Self) {
        let covers =
            |(from, to): (usize, usize)| newer.ranges().all(|(start, end)| from <= start && end <= to);
        let first = self.ranges().next().filter(|first| covers(*first));
        match (first, Arc::get_mut(&mut self.entries)) {
            (Some((from, to)), Some(entries)) => {
                let at = self.runs.start + RUN_HEADER_BYTES;
                let bytes = &mut entries[at..at + to - from];
                for (start, changed) in newer.runs() {
                    bytes[start - from..][..changed.len()].copy_from_slice(changed);
                }
            }
            _ => *self = newer.over(self),
        }
    }

    /// Whether both are the same place in memory.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.entries, &other.entries) && self.runs == other.runs
    }

    fn ranges(&self) -> impl Iterator<Item = (usize, usize)> {
        self.runs().map(|(start, bytes)| (start, start + bytes.len()))
    }
}

#[cfg(test)]
mod tests {
    use vmsync_pager_conformance::random::Random;

    use super::*;
    use crate::difference::difference;

    /// A patch that turns a page of `base` into `new`.
    fn between(base: &[u8], new: &[u8]) -> Patch {
        let mut runs = Vec::new();
        difference(base, new, &mut runs);
        Patch::of_page(new, &runs)
    }

    #[test]
    fn patches_over_patches_are_the_same_as_one_after_the_other() {
        let mut random = Random::from_environment("patches");
        for _ in 0..500 {
            let mut first = vec![0; 4096];
            random.fill(&mut first);
            let (mut page, mut all) = (first.clone(), None::<Patch>);
            for _ in 0..=random.below(6) {
                let base = page.clone();
                for _ in 0..=random.below(5) {
                    let start = random.below(4096) as usize;
                    let end = (start + 1 + random.below(60) as usize).min(4096);
                    random.fill(&mut page[start..end]);
                }
                if page == base {
                    continue;
                }
                let patch = between(&base, &page);
                let mut absorbed = all.clone();
                all = Some(all.map_or(patch.clone(), |all| patch.over(&all)));
                let all = all.as_ref().expect("just set");
                if let Some(absorbed) = &mut absorbed {
                    absorbed.absorb(&patch);
                    assert!(absorbed.runs().eq(all.runs()));
                }
                let ranges: Vec<_> = all.ranges().collect();
                assert!(ranges.windows(2).all(|pair| pair[0].1 < pair[1].0), "{ranges:?}");
                let mut patched = first.clone();
                all.apply(&mut patched);
                assert!(patched == page);
            }
        }
    }

    #[test]
    fn a_patch_that_covers_the_older_one_is_kept_as_it_is() {
        let (zeroes, ones) = (vec![0; 4096], vec![1; 4096]);
        let older = Patch::of_page(&zeroes, &[(8, 16), (100, 101)]);
        let newer = Patch::of_page(&ones, &[(0, 101)]);
        assert!(newer.over(&older).is(&newer));
        assert!(newer.whole(PageSize::KIB_4).is_none());
        let whole = Patch::of_page(&ones, &[(0, 4096)]);
        assert!(whole.whole(PageSize::KIB_4) == Some(&ones[..]));
        assert!(whole.over(&newer).is(&whole));
        let mixed = older.over(&whole);
        let mut page = vec![7; 4096];
        mixed.apply(&mut page);
        assert!(page[8..16] == zeroes[8..16] && page[16..100] == ones[16..100] && page[100] == 0);
        assert!(mixed.whole(PageSize::KIB_4).is_some());
    }

    #[test]
    fn a_page_that_is_whole_and_nobody_elses_changes_in_place() {
        let page = vec![1; 4096];
        let mut whole = Patch::of_page(&page, &[(0, 4096)]);
        let newer = Patch::of_page(&vec![2; 4096], &[(0, 8), (4088, 4096)]);
        let place = Arc::as_ptr(&whole.entries);
        whole.absorb(&newer);
        assert_eq!(Arc::as_ptr(&whole.entries), place);
        let mut expected = page;
        expected[..8].fill(2);
        expected[4088..].fill(2);
        assert!(whole.whole(PageSize::KIB_4) == Some(&expected[..]));
        // Somebody is about to write it: what he has stays as it is.
        let shared = whole.clone();
        whole.absorb(&Patch::of_page(&vec![3; 4096], &[(0, 1)]));
        assert!(shared.whole(PageSize::KIB_4) == Some(&expected[..]) && !shared.is(&whole));
        assert_eq!(whole.whole(PageSize::KIB_4).map(|page| page[0]), Some(3));
    }
}
