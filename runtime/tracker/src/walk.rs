//! [`Walk`]: how `uffd-async` finds the pages of a range that were stored to, and arms them again.
//!
//! What a scan costs decides how it goes about it. Asking for WRITTEN alone takes the kernel's shortest path, 0.6 ns a page,
//! but counts missing entries as written and arms them; asking for more costs 2 ns, twice that where present and missing
//! entries alternate at random; asking for FILE reads each page's descriptor, 6 to 15 ns. So:
//! - pages that were armed once are remembered: they have an entry, and when it is no longer armed they were stored to. A
//!   stretch of them is read and re-armed by the shortest path;
//! - elsewhere a *probe* by the shortest path, without arming, finds the next entry that is not armed, and a window
//!   behind it is examined in full;
//! - FILE is asked only of pages of a file mapping that were not armed before, after they were. (One that was only read,
//!   and that the kernel reclaims just then, is reported: no harm, as it holds what it held.)
//!
//! Invariants:
//! - a page is looked at and re-armed in one critical section of the kernel, so that a racing store is in this set or
//!   the next;
//! - PRESENT is never required: a dirty page may have been swapped out.

use core::ops::Range;

use rustix::io::Errno;
use vmsync_core::{PageRange, PageSet, PageSize, tracker::Backing};

use crate::{
    bitmap::AtomicBitmap,
    limits::{FILE_GAP_PAGES, GRANULE_BYTES, REGIONS_MAX, WINDOW_BYTES_MAX},
    memory::Memory,
    sys::pagemap::{Arm, FILE, PRESENT, Pagemap, Query, Region, SWAPPED, WRITTEN, ZERO},
};

/// Is any entry not armed? Missing entries count as such, missing page tables do not.
const PROBE: Query = Query {
    all_of: WRITTEN,
    any_of: 0,
    inverted: 0,
    returned: WRITTEN,
    arm: Arm::No,
    pages_max: 1,
};

/// Pages that are not armed: stored to, or only read. Missing entries are not among them.
const TOUCHED: Query = Query {
    all_of: WRITTEN,
    any_of: PRESENT | SWAPPED,
    inverted: 0,
    returned: WRITTEN | ZERO,
    arm: Arm::Yes,
    pages_max: 0,
};

/// Pages that were stored to, among pages that were armed before.
const DIRTY_ARMED: Query = Query {
    all_of: WRITTEN,
    any_of: 0,
    inverted: 0,
    returned: WRITTEN,
    arm: Arm::Yes,
    pages_max: 0,
};

/// Pages of the page cache: of a private mapping, those that were not stored to.
const FILES: Query = Query {
    all_of: FILE,
    any_of: 0,
    inverted: 0,
    returned: FILE,
    arm: Arm::No,
    pages_max: 0,
};

/// Where dirty pages go; `None` where they are to be clean from now on, and nobody asks which they were.
pub(crate) type Dirty<'a> = Option<&'a mut PageSet>;

/// Room for what one scan finds.
pub(crate) fn no_regions() -> Box<[Region]> {
    let none = Region {
        start: 0,
        end: 0,
        categories: 0,
    };
    vec![none; REGIONS_MAX].into_boxed_slice()
}

/// One pass over a range.
pub(crate) struct Walk<'a> {
    pub memory: &'a Memory,
    pub host_page: PageSize,
    pub pagemap: &'a Pagemap,
    /// Pages of the host, from the base, that were armed since they were attached or cleared: if they no longer are, they
    /// were stored to.
    pub armed: &'a AtomicBitmap,
    /// Room for what a scan finds.
    pub regions: &'a mut [Region],
}

impl Walk<'_> {
    /// Arms the dirty pages of `pages`, which are attached, and adds them to `dirty`.
    pub fn walk(mut self, pages: PageRange, backing: Backing, mut dirty: Dirty) -> Result<(), Errno> {
        let all = self.memory.addresses(pages);
        let mut at = all.start;
        while at < all.end {
            let (end, armed) = self.stretch(at..all.end);
            if armed {
                self.rearm(at..end, dirty.as_deref_mut())?;
            } else {
                self.search(at..end, backing, dirty.as_deref_mut())?;
            }
            at = end;
        }
        Ok(())
    }

    /// Where the stretch at the start of `range` ends whose granules were all armed, or all not; and which it is.
    fn stretch(&self, range: Range<usize>) -> (usize, bool) {
        let granule_end = |at: usize| ((at | (GRANULE_BYTES - 1)) + 1).min(range.end);
        let is_armed = |granule: Range<usize>| self.armed.contains_all(self.host_pages(granule));
        let mut end = granule_end(range.start);
        let armed = is_armed(range.start..end);
        while end < range.end && is_armed(end..granule_end(end)) == armed {
            end = granule_end(end);
        }
        (end, armed)
    }

    /// Looks for entries that are not armed, and examines a window behind each.
    fn search(&mut self, range: Range<usize>, backing: Backing, mut dirty: Dirty) -> Result<(), Errno> {
        if range.len() <= GRANULE_BYTES {
            return self.examine(range, backing, dirty);
        }
        let mut at = range.start;
        let mut window = GRANULE_BYTES;
        while at < range.end {
            let probe = self.pagemap.scan(at..range.end, &PROBE, &mut self.regions[..1])?;
            if probe.regions == 0 {
                at = probe.walk_end;
                continue;
            }
            let first = self.regions[0].start as usize;
            let granule = first & !(GRANULE_BYTES - 1);
            let examined = first..granule.saturating_add(window).min(range.end);
            // A probe that skipped nothing was wasted: look at more at once.
            let skipped = first - at;
            window = if skipped < window {
                (window * 2).min(WINDOW_BYTES_MAX)
            } else {
                GRANULE_BYTES
            };
            // The probe stopped at the second entry that is not armed, or at the end.
            at = examined.end.max(probe.walk_end);
            self.examine(examined, backing, dirty.as_deref_mut())?;
        }
        Ok(())
    }

    /// Arms what was stored to in `range`, all of which was armed before.
    fn rearm(&mut self, range: Range<usize>, mut dirty: Dirty) -> Result<(), Errno> {
        let room = room(self.host_pages(range.clone()).len());
        let mut at = range.start;
        while at < range.end {
            let answer = self
                .pagemap
                .scan(at..range.end, &DIRTY_ARMED, &mut self.regions[..room])?;
            at = answer.walk_end;
            if let Some(dirty) = dirty.as_deref_mut() {
                for region in &self.regions[..answer.regions] {
                    dirty.insert(self.memory.pages_at(addresses_of(region)));
                }
            }
        }
        Ok(())
    }

    /// Arms what is in `range`. What of it is neither the page of zeros nor the file's was stored to.
    fn examine(&mut self, range: Range<usize>, backing: Backing, mut dirty: Dirty) -> Result<(), Errno> {
        let room = room(self.host_pages(range.clone()).len());
        let mut at = range.start;
        while at < range.end {
            let answer = self
                .pagemap
                .scan(at..range.end, &TOUCHED, &mut self.regions[..room])?;
            at = answer.walk_end;
            let mut stored = PageSet::new();
            for region in &self.regions[..answer.regions] {
                let pages = self.host_pages(addresses_of(region));
                if region.categories & ZERO == 0 {
                    stored.insert(pages);
                } else {
                    self.armed.insert(pages);
                }
            }
            let mut removed = Ok(());
            if backing == Backing::PrivateFile && dirty.is_some() {
                removed = self.remove_files(&mut stored);
            }
            // All are armed by now: what could not be looked at counts as stored to.
            for run in stored.runs() {
                self.armed.insert(*run);
                if let Some(dirty) = dirty.as_deref_mut() {
                    dirty.insert(self.memory.pages_at(self.addresses(*run)));
                }
            }
            removed?;
        }
        Ok(())
    }

    /// Removes from `stored`, in pages of the host that were just armed, those that are still the file's.
    fn remove_files(&mut self, stored: &mut PageSet) -> Result<(), Errno> {
        let mut unknown = PageSet::new();
        for run in stored.runs() {
            self.armed.missing(*run, |run| unknown.insert(run));
        }
        let mut runs = unknown.runs().iter().copied().peekable();
        while let Some(mut asked) = runs.next() {
            while let Some(near) = runs.next_if(|near| near.start - asked.end <= FILE_GAP_PAGES) {
                asked.end = near.end;
            }
            let Range { start: mut at, end } = self.addresses(asked);
            let room = room(asked.len());
            while at < end {
                let answer = self.pagemap.scan(at..end, &FILES, &mut self.regions[..room])?;
                at = answer.walk_end;
                for region in &self.regions[..answer.regions] {
                    let pages = self.host_pages(addresses_of(region));
                    self.armed.insert(pages);
                    stored.remove(pages);
                }
            }
        }
        Ok(())
    }

    /// The pages of the host, from the base, at `addresses`, which are aligned to them.
    fn host_pages(&self, addresses: Range<usize>) -> PageRange {
        let base = self.memory.addresses(PageRange::new(0, 0)).start;
        let page = |address: usize| self.host_page.page_of((address - base) as u64);
        PageRange::new(page(addresses.start), page(addresses.end))
    }

    /// The addresses of `host_pages`.
    fn addresses(&self, host_pages: PageRange) -> Range<usize> {
        let base = self.memory.addresses(PageRange::new(0, 0)).start;
        let bytes = self.host_page.byte_range(host_pages);
        base + bytes.start as usize..base + bytes.end as usize
    }
}

fn addresses_of(region: &Region) -> Range<usize> {
    region.start as usize..region.end as usize
}

/// Regions that a scan of so many pages may find: two pages make at most one more. The kernel allocates as much memory
/// as it is given room for, which takes longer than looking at a page.
fn room(pages: u64) -> usize {
    (pages / 2 + 1).min(REGIONS_MAX as u64) as usize
}
