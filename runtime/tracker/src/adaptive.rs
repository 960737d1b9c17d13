//! [`Adaptive`]: a rung that stops watching, for some collects, where nearly everything is stored to anyway.
//!
//! A first store costs a fault (about 1 µs with `uffd-async`, 5 µs with `mprotect`); a page that is reported though it
//! did not change costs the pager a comparison (0.3 µs). So where more than half of a granule is stored to between two
//! collects, it is cheaper to report all of it and to leave it writable. Each granule decides for itself:
//!
//! ```text
//!   watched --half of it or more was stored to--> hot: the next `rest` collects report all of it, unseen
//!      ^                                            |
//!      |                                            v
//!      '--less was-- measured <--one interval-- armed again, whatever is found is reported
//!                        '--still half or more: hot for twice as long
//! ```
//!
//! Invariants:
//! - a granule is left unwatched only by [`Tracker::collect_superset`], and every collect reports all of it until it is
//!   armed again: nothing is lost, and [`Tracker::reports_superset`] says so from then on;
//! - [`Tracker::collect`] arms whatever it is asked about.

use std::collections::BTreeMap;

use vmsync_core::{
    ByteRange, PageRange, PageSet,
    tracker::{Backing, Tracker, TrackerError, TrackerKind},
};

use crate::{
    limits::{HOT_GRANULE_PAGES, REST_COLLECTS_MAX},
    memory::Memory,
};

/// Where a granule that was hot once stands; others are watched.
#[derive(Clone, Copy, Debug)]
struct Hot {
    /// So many collects more report it unseen; then one arms it, and the next one measures.
    rest: u32,
    /// How long it rested, or is to rest.
    rest_next: u32,
    /// Whether the collect that armed it again has been.
    armed: bool,
}

/// A rung whose first stores cost a fault, and what is known of its granules.
pub(crate) struct Adaptive {
    inner: Box<dyn Tracker>,
    memory: Memory,
    attached: PageSet,
    /// By the granule's index.
    hot: BTreeMap<u64, Hot>,
    was_hot: bool,
}

impl Adaptive {
    /// `inner` watches `memory`.
    pub fn new(inner: Box<dyn Tracker>, memory: Memory) -> Self {
        Self {
            inner,
            memory,
            attached: PageSet::new(),
            hot: BTreeMap::new(),
            was_hot: false,
        }
    }

    /// The granules that lie in `pages` as a whole.
    fn granules_in(pages: PageRange) -> core::ops::Range<u64> {
        let first = pages.start.div_ceil(HOT_GRANULE_PAGES);
        first..(pages.end / HOT_GRANULE_PAGES).max(first)
    }

    /// The granules that `pages` touch begin anew.
    fn forget(&mut self, pages: PageRange) {
        let touched = pages.start / HOT_GRANULE_PAGES..pages.end.div_ceil(HOT_GRANULE_PAGES);
        self.hot.extract_if(touched, |_, _| true).for_each(drop);
    }

    /// The pages of resting granules inside `pages`, which rest one collect less now.
    fn take_resting(&mut self, pages: PageRange) -> PageSet {
        let mut resting = PageSet::new();
        let granules = Self::granules_in(pages);
        if granules.is_empty() {
            return resting;
        }
        let hot = self.hot.range_mut(granules);
        for (index, hot) in hot.filter(|(_, hot)| hot.rest > 0) {
            hot.rest -= 1;
            resting.insert(granule(*index));
        }
        resting
    }

    /// Learns from what was found in `pages`, none of which rested.
    fn learn(&mut self, pages: PageRange, found: &PageSet) {
        let granules = Self::granules_in(pages);
        if granules.is_empty() {
            return;
        }
        let mut busy = busy_granules(found);
        busy.retain(|index| granules.contains(index));
        let has_cooled = |index: &u64, hot: &mut Hot| {
            if !hot.armed {
                // What was found is of all the time that the granule rested: the next collect tells.
                hot.armed = true;
            } else if busy.binary_search(index).is_ok() {
                *hot = Hot::resting((hot.rest_next * 2).min(REST_COLLECTS_MAX));
            } else {
                return true;
            }
            false
        };
        self.hot.extract_if(granules, has_cooled).for_each(drop);
        for index in busy {
            self.was_hot = true;
            self.hot.entry(index).or_insert(Hot::resting(1));
        }
    }
}

/// The pages of the granule `index`.
fn granule(index: u64) -> PageRange {
    PageRange::new(index * HOT_GRANULE_PAGES, (index + 1) * HOT_GRANULE_PAGES)
}

/// The granules of which `found` holds half or more, ascending.
fn busy_granules(found: &PageSet) -> Vec<u64> {
    let mut counts: Vec<(u64, u64)> = Vec::new();
    for run in found.runs() {
        for index in run.start / HOT_GRANULE_PAGES..run.end.div_ceil(HOT_GRANULE_PAGES) {
            let pages = granule(index).intersect(*run).len();
            match counts.last_mut() {
                Some((last, count)) if *last == index => *count += pages,
                _ => counts.push((index, pages)),
            }
        }
    }
    counts.retain(|(_, count)| count * 2 >= HOT_GRANULE_PAGES);
    counts.into_iter().map(|(index, _)| index).collect()
}

impl Hot {
    fn resting(rest: u32) -> Self {
        Self {
            rest,
            rest_next: rest,
            armed: false,
        }
    }
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
        let resting = self.take_resting(pages);
        let mut watched = PageSet::from(pages);
        watched.subtract(&resting);
        for run in watched.runs() {
            let mut found = PageSet::new();
            self.inner
                .collect(self.memory.page.byte_range(*run), &mut found)?;
            self.learn(*run, &found);
            if dirty.is_empty() {
                *dirty = found;
            } else {
                dirty.union(&found);
            }
        }
        for run in resting.runs() {
            dirty.union(&self.attached.within(*run));
        }
        Ok(())
    }
}
