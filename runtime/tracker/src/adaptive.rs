//! [`Adaptive`]: a rung that stops watching, for some collects, what is stored to all the time anyway.
//!
//! A first store costs a fault (about 1 µs with `uffd-async`, 5 µs with `mprotect`), and arming its page again makes other
//! processors forget translations (some µs more); a page that is reported though it did not change costs the pager a
//! comparison (0.3 µs). So it is cheaper to report, and to leave writable:
//! - granules of which half or more is stored to between two collects;
//! - single pages that were stored to before several collects in a row, where these find few: a counter, a header.
//!
//! Each of these places decides for itself:
//!
//! ```text
//!   watched --busy, so many times in a row--> hot: the next `rest` collects report all of it, unseen
//!      ^                                        |
//!      |                                        v
//!      '--it was not-- measured <--one interval-- armed again, whatever is found is reported
//!                          '--still busy: hot for twice as long
//! ```
//!
//! Invariants:
//! - a place is left unwatched only by [`Tracker::collect_superset`], and every collect reports all of it until it is
//!   armed again: nothing is lost, and [`Tracker::reports_superset`] says so from then on;
//! - [`Tracker::collect`] arms whatever it is asked about.

use std::collections::BTreeMap;

use vmsync_core::{
    ByteRange, PageRange, PageSet,
    tracker::{Backing, Tracker, TrackerError, TrackerKind},
};

use crate::{
    limits::{HOT_GRANULE_PAGES, HOT_PAGE_COLLECTS, HOT_PAGES_KEPT_MAX, HOT_PAGES_MAX, REST_COLLECTS_MAX},
    memory::Memory,
};

/// Where a place stands that was busy before the last collect; others are watched.
#[derive(Clone, Copy, Debug)]
struct Hot {
    /// How many collects in a row found it busy.
    streak: u32,
    /// So many collects more report it unseen; then one arms it, and the next one measures.
    rest: u32,
    /// How long it rested, or is to rest.
    rest_next: u32,
    /// It is watched.
    armed: bool,
}

impl Hot {
    /// What is watched now; its first busy collect follows.
    const WATCHED: Self = Self {
        streak: 0,
        rest: 0,
        rest_next: 0,
        armed: true,
    };

    /// A collect found it busy; the one that makes it `patience` in a row lets it rest.
    fn busy(&mut self, patience: u32) {
        self.streak += 1;
        if self.streak >= patience {
            self.rest_next = (self.rest_next * 2).clamp(1, REST_COLLECTS_MAX);
            (self.rest, self.armed) = (self.rest_next, false);
        }
    }
}

/// Places of one size.
struct Places {
    /// Pages of each.
    pages: u64,
    /// How many collects in a row find it busy before it rests.
    patience: u32,
    /// By index.
    hot: BTreeMap<u64, Hot>,
}

impl Places {
    const fn new(pages: u64, patience: u32) -> Self {
        Self {
            pages,
            patience,
            hot: BTreeMap::new(),
        }
    }

    /// The places that lie in `pages` as a whole.
    fn within(&self, pages: PageRange) -> core::ops::Range<u64> {
        let first = pages.start.div_ceil(self.pages);
        first..(pages.end / self.pages).max(first)
    }

    /// The places that `pages` touch begin anew.
    fn forget(&mut self, pages: PageRange) {
        let touched = pages.start / self.pages..pages.end.div_ceil(self.pages);
        self.hot.extract_if(touched, |_, _| true).for_each(drop);
    }

    /// Adds to `resting` the pages of places inside `pages` that rest; they do so one collect less now.
    fn take_resting(&mut self, pages: PageRange, resting: &mut PageSet) {
        let (within, each) = (self.within(pages), self.pages);
        if within.is_empty() {
            return;
        }
        let hot = self.hot.range_mut(within);
        for (index, hot) in hot.filter(|(_, hot)| hot.rest > 0) {
            hot.rest -= 1;
            resting.insert(PageRange::new(index * each, (index + 1) * each));
        }
    }

    /// Learns which places in `pages`, none of which rested, were `busy`; whether one of them rests from now on.
    fn learn(&mut self, pages: PageRange, mut busy: Vec<u64>) -> bool {
        let within = self.within(pages);
        if within.is_empty() {
            return false;
        }
        let mut rested = Vec::new();
        let has_cooled = |index: &u64, hot: &mut Hot| {
            if !hot.armed {
                // What was found now is of all the time that it rested: the next collect tells.
                hot.armed = true;
                rested.push(*index);
                return false;
            }
            busy.binary_search(index).is_err()
        };
        self.hot.extract_if(within.clone(), has_cooled).for_each(drop);
        busy.retain(|index| within.contains(index) && rested.binary_search(index).is_err());
        let mut rests = false;
        for index in busy {
            let hot = self.hot.entry(index).or_insert(Hot::WATCHED);
            hot.busy(self.patience);
            rests |= !hot.armed;
        }
        rests
    }
}

/// A rung whose first stores cost a fault, and what is known of its memory.
pub(crate) struct Adaptive {
    inner: Box<dyn Tracker>,
    memory: Memory,
    attached: PageSet,
    granules: Places,
    single_pages: Places,
    was_hot: bool,
}

impl Adaptive {
    /// `inner` watches `memory`.
    pub fn new(inner: Box<dyn Tracker>, memory: Memory) -> Self {
        Self {
            inner,
            memory,
            attached: PageSet::new(),
            granules: Places::new(HOT_GRANULE_PAGES, 1),
            single_pages: Places::new(1, HOT_PAGE_COLLECTS),
            was_hot: false,
        }
    }

    fn forget(&mut self, pages: PageRange) {
        self.granules.forget(pages);
        self.single_pages.forget(pages);
    }

    /// Learns from what was found in `pages`, nothing of which rested.
    fn learn(&mut self, pages: PageRange, found: &PageSet) {
        self.was_hot |= self.granules.learn(pages, busy_granules(found));
        let few = found.runs().iter().map(|run| run.len()).sum::<u64>() <= HOT_PAGES_MAX;
        let busy = found.runs().iter().flat_map(|run| run.start..run.end);
        let busy = if few { busy.collect() } else { Vec::new() };
        self.was_hot |= self.single_pages.learn(pages, busy);
        if self.single_pages.hot.len() > HOT_PAGES_KEPT_MAX {
            // They are watched, and only their count of collects is lost.
            self.single_pages.hot.retain(|_, hot| !hot.armed);
        }
    }
}

/// The granules of which `found` holds half or more, ascending.
fn busy_granules(found: &PageSet) -> Vec<u64> {
    let mut counts: Vec<(u64, u64)> = Vec::new();
    for run in found.runs() {
        for index in run.start / HOT_GRANULE_PAGES..run.end.div_ceil(HOT_GRANULE_PAGES) {
            let granule = PageRange::new(index * HOT_GRANULE_PAGES, (index + 1) * HOT_GRANULE_PAGES);
            let pages = granule.intersect(*run).len();
            match counts.last_mut() {
                Some((last, count)) if *last == index => *count += pages,
                _ => counts.push((index, pages)),
            }
        }
    }
    counts.retain(|(_, count)| count * 2 >= HOT_GRANULE_PAGES);
    counts.into_iter().map(|(index, _)| index).collect()
}

impl Tracker for Adaptive {
    fn kind(&self) -> TrackerKind {
        self.inner.kind()
    }

    fn reports_superset(&self) -> bool {
        self.was_hot || self.inner.reports_superset()
    }

    fn attach(&mut self, range: ByteRange, backing: Backing) -> Result<(), TrackerError> {
        let pages = self.memory.pages(range);
        self.forget(pages);
        self.inner.attach(range, backing)?;
        self.attached.insert(pages);
        Ok(())
    }

    fn detach(&mut self, range: ByteRange) {
        let pages = self.memory.pages(range);
        self.forget(pages);
        self.attached.remove(pages);
        self.inner.detach(range);
    }

    fn clear(&mut self, range: ByteRange) -> Result<(), TrackerError> {
        self.forget(self.memory.pages(range));
        self.inner.clear(range)
    }

    fn collect(&mut self, range: ByteRange, dirty: &mut PageSet) -> Result<(), TrackerError> {
        self.forget(self.memory.pages(range));
        self.inner.collect(range, dirty)
    }

    fn collect_superset(&mut self, range: ByteRange, dirty: &mut PageSet) -> Result<(), TrackerError> {
        let pages = self.memory.pages(range);
        let mut resting = PageSet::new();
        self.granules.take_resting(pages, &mut resting);
        self.single_pages.take_resting(pages, &mut resting);
        let mut watched = PageSet::from(pages);
        watched.subtract(&resting);
        for run in watched.runs() {
            let mut found = PageSet::new();
            let collected = self.inner.collect(self.memory.page.byte_range(*run), &mut found);
            if collected.is_ok() {
                self.learn(*run, &found);
            }
            // Also before a failure: what was found is not found again.
            dirty.append(found);
            collected?;
        }
        for run in resting.runs() {
            dirty.union(&self.attached.within(*run));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use vmsync_core::PageSize;

    use super::*;
    use crate::LinearRange;

    /// Fails behind the first page that it finds.
    struct Failing;

    impl Tracker for Failing {
        fn kind(&self) -> TrackerKind {
            TrackerKind::Compare
        }

        fn attach(&mut self, _: ByteRange, _: Backing) -> Result<(), TrackerError> {
            Ok(())
        }

        fn detach(&mut self, _: ByteRange) {}

        fn clear(&mut self, _: ByteRange) -> Result<(), TrackerError> {
            Ok(())
        }

        fn collect(&mut self, _: ByteRange, dirty: &mut PageSet) -> Result<(), TrackerError> {
            dirty.insert(PageRange::new(1, 2));
            Err(crate::error::failed(
                self.kind(),
                "collect",
                "as the test asked for",
            ))
        }
    }

    #[test]
    fn what_was_found_before_a_failure_is_reported_with_it() {
        let range = LinearRange {
            base: core::ptr::null_mut(),
            bytes_reserved: 1 << 20,
        };
        let memory = Memory::new(range, PageSize::KIB_4);
        let mut adaptive = Adaptive::new(Box::new(Failing), memory);
        let mut dirty = PageSet::new();
        let collected = adaptive.collect_superset(ByteRange::new(0, 1 << 20), &mut dirty);
        assert!(collected.is_err());
        assert_eq!(dirty, PageSet::from_iter([1]));
    }
}
