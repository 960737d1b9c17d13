//! [`PageSet`]: a set of pages as sorted, disjoint, non-adjacent runs.
//!
//! Dirty pages come in runs and in ascending order from every tracker, so that adding at the end is the fast path.
//!
//! Invariants: runs are non-empty, ascending, and at least one page apart.

use alloc::vec::Vec;

use crate::page::PageRange;

/// From so many runs on, two sets are merged in one pass; below it each run is put in its place.
const MERGE_RUNS_MIN: usize = 8;

/// A set of pages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PageSet {
    runs: Vec<PageRange>,
}

impl PageSet {
    /// The empty set.
    pub const fn new() -> Self {
        Self { runs: Vec::new() }
    }

    /// Whether no page is in it.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// How many pages are in it.
    pub fn len(&self) -> u64 {
        self.runs.iter().map(|run| run.len()).sum()
    }

    /// Its maximal runs, ascending.
    pub fn runs(&self) -> &[PageRange] {
        &self.runs
    }

    /// Its pages, ascending.
    pub fn pages(&self) -> impl Iterator<Item = u64> + '_ {
        self.runs.iter().flat_map(|run| run.start..run.end)
    }

    /// Whether `page` is in it.
    pub fn contains(&self, page: u64) -> bool {
        let index = self.runs.partition_point(|run| run.end <= page);
        self.runs.get(index).is_some_and(|run| run.contains(page))
    }

    /// Adds every page of `range`.
    pub fn insert(&mut self, range: PageRange) {
        if range.is_empty() {
            return;
        }
        match self.runs.last_mut() {
            None => return self.runs.push(range),
            Some(last) if range.start > last.end => return self.runs.push(range),
            Some(last) if range.start >= last.start => {
                last.end = last.end.max(range.end);
                return;
            }
            Some(_) => {}
        }
        let first = self.runs.partition_point(|run| run.end < range.start);
        let behind = self.runs.partition_point(|run| run.start <= range.end);
        let merged = self.runs[first..behind].iter().fold(range, |sum, run| {
            PageRange::new(sum.start.min(run.start), sum.end.max(run.end))
        });
        self.runs.splice(first..behind, [merged]);
    }

    /// Removes every page of `range`.
    pub fn remove(&mut self, range: PageRange) {
        if range.is_empty() {
            return;
        }
        let first = self.runs.partition_point(|run| run.end <= range.start);
        let behind = self.runs.partition_point(|run| run.start < range.end);
        if first >= behind {
            return;
        }
        let left = PageRange {
            start: self.runs[first].start,
            end: range.start,
        };
        let right = PageRange {
            start: range.end,
            end: self.runs[behind - 1].end,
        };
        let keep = [left, right].into_iter().filter(|run| run.start < run.end);
        self.runs.splice(first..behind, keep);
    }

    /// Adds every page of `other`.
    pub fn union(&mut self, other: &PageSet) {
        if self.runs.is_empty() {
            self.runs.clone_from(&other.runs);
            return;
        }
        if other.runs.len() < MERGE_RUNS_MIN {
            other.runs.iter().for_each(|run| self.insert(*run));
            return;
        }
        let mut merged: Vec<PageRange> = Vec::with_capacity(self.runs.len() + other.runs.len());
        let (mut ours, mut theirs) = (self.runs.iter().peekable(), other.runs.iter().peekable());
        while let Some(next) = match (ours.peek(), theirs.peek()) {
            (Some(our), Some(their)) if their.start < our.start => theirs.next(),
            (Some(_), _) => ours.next(),
            (None, _) => theirs.next(),
        } {
            match merged.last_mut() {
                Some(last) if next.start <= last.end => last.end = last.end.max(next.end),
                _ => merged.push(*next),
            }
        }
        self.runs = merged;
    }

    /// Adds every page of `other`, and takes it over where this set is empty.
    pub fn append(&mut self, other: PageSet) {
        if self.runs.is_empty() {
            *self = other;
        } else {
            self.union(&other);
        }
    }

    /// Takes the part inside `range` out.
    #[must_use]
    pub fn take(&mut self, range: PageRange) -> PageSet {
        let reaches_out = |run: &PageRange| run.start < range.start || run.end > range.end;
        if !self.runs.first().is_some_and(reaches_out) && !self.runs.last().is_some_and(reaches_out) {
            return core::mem::take(self);
        }
        let part = self.within(range);
        self.remove(range);
        part
    }

    /// The pages that both have.
    pub fn intersection(&self, other: &PageSet) -> PageSet {
        let (mut ours, mut theirs) = (&self.runs[..], &other.runs[..]);
        let mut runs = Vec::with_capacity(ours.len().min(theirs.len()));
        while let ([our, ours_rest @ ..], [their, theirs_rest @ ..]) = (ours, theirs) {
            let shared = our.intersect(*their);
            if !shared.is_empty() {
                runs.push(shared);
            }
            if our.end <= their.end {
                ours = ours_rest;
            } else {
                theirs = theirs_rest;
            }
        }
        PageSet { runs }
    }

    /// Removes every page of `other`.
    pub fn subtract(&mut self, other: &PageSet) {
        if other.runs.len() < MERGE_RUNS_MIN {
            other.runs.iter().for_each(|run| self.remove(*run));
            return;
        }
        let mut kept = Vec::with_capacity(self.runs.len());
        let mut holes = other.runs.iter().peekable();
        for run in &self.runs {
            let mut start = run.start;
            while let Some(hole) = holes.next_if(|hole| hole.end <= run.end) {
                if start < hole.start {
                    kept.push(PageRange::new(start, hole.start));
                }
                start = start.max(hole.end);
            }
            // This one may reach into the next run as well.
            let end = holes.peek().map_or(run.end, |hole| hole.start.min(run.end));
            if start < end {
                kept.push(PageRange::new(start, end));
            }
        }
        self.runs = kept;
    }

    /// The part inside `range`.
    #[must_use]
    pub fn within(&self, range: PageRange) -> PageSet {
        let first = self.runs.partition_point(|run| run.end <= range.start);
        let behind = self.runs.partition_point(|run| run.start < range.end);
        let mut part = PageSet::new();
        if first < behind && !range.is_empty() {
            part.runs
                .extend(self.runs[first..behind].iter().map(|run| run.intersect(range)));
        }
        part
    }

    /// The same pages, moved so that page `from` becomes page `to`. No page may lie below `from`.
    #[must_use]
    pub fn rebase(mut self, from: u64, to: u64) -> PageSet {
        self.runs.iter_mut().for_each(|run| *run = run.rebase(from, to));
        self
    }

    /// Its runs with none longer than `pages_max` pages.
    pub fn runs_capped(&self, pages_max: u64) -> impl Iterator<Item = PageRange> + '_ {
        assert!(pages_max > 0);
        self.runs.iter().flat_map(move |run| {
            (run.start..run.end)
                .step_by(usize::try_from(pages_max).unwrap_or(usize::MAX))
                .map(move |start| PageRange::new(start, run.end.min(start + pages_max)))
        })
    }
}

impl FromIterator<u64> for PageSet {
    fn from_iter<I: IntoIterator<Item = u64>>(pages: I) -> Self {
        let mut set = Self::new();
        for page in pages {
            set.insert(PageRange::new(page, page + 1));
        }
        set
    }
}

impl From<PageRange> for PageSet {
    fn from(range: PageRange) -> Self {
        let mut set = Self::new();
        set.insert(range);
        set
    }
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn check(set: &PageSet, oracle: &BTreeSet<u64>) {
        assert_eq!(
            set.pages().collect::<Vec<_>>(),
            oracle.iter().copied().collect::<Vec<_>>()
        );
        assert_eq!(set.len(), oracle.len() as u64);
        assert!(set.runs().iter().all(|run| !run.is_empty()));
        assert!(set.runs().windows(2).all(|pair| pair[0].end < pair[1].start));
    }

    proptest! {
        #[test]
        fn behaves_as_a_set_of_numbers(steps in prop::collection::vec((0u8..4, 0u64..64, 0u64..12), 0..64)) {
            let (mut set, mut oracle) = (PageSet::new(), BTreeSet::new());
            for (operation, start, length) in steps {
                let range = PageRange::new(start, start + length);
                if operation == 0 {
                    set.remove(range);
                    oracle.retain(|page| !range.contains(*page));
                } else {
                    set.insert(range);
                    oracle.extend(range.start..range.end);
                }
                check(&set, &oracle);
                let inside = oracle.iter().copied().filter(|page| range.contains(*page)).collect();
                check(&set.within(range), &inside);
                let mut rest = set.clone();
                let taken = rest.take(range);
                check(&taken, &inside);
                check(&rest, &oracle.difference(&inside).copied().collect());
                rest.append(taken);
                prop_assert_eq!(&rest, &set);
                prop_assert_eq!(set.contains(start), oracle.contains(&start));
            }
            let capped: Vec<_> = set.runs_capped(3).collect();
            prop_assert!(capped.iter().all(|run| run.len() <= 3));
            prop_assert_eq!(capped.iter().map(|run| run.len()).sum::<u64>(), set.len());
        }

        #[test]
        fn sets_of_many_runs_are_merged_as_sets_of_numbers(
            ours in prop::collection::btree_set(0u64..200, 0..100),
            theirs in prop::collection::btree_set(0u64..200, 0..100),
        ) {
            let set: PageSet = ours.iter().copied().collect();
            let other: PageSet = theirs.iter().copied().collect();
            let mut union = set.clone();
            union.union(&other);
            check(&union, &ours.union(&theirs).copied().collect());
            check(&set.intersection(&other), &ours.intersection(&theirs).copied().collect());
            let mut rest = set;
            rest.subtract(&other);
            check(&rest, &ours.difference(&theirs).copied().collect());
        }
    }
}
