//! The `uffd-async` rung: userfaultfd `WP_ASYNC`, read and re-armed by `PAGEMAP_SCAN` (Linux ≥ 6.7, also unprivileged).
//!
//! Nothing is armed when a range is attached. A page that was never touched has no page-table entry to look at, and one
//! that was only read is a page of the page cache or the shared page of zeros. So what a scan sees of a page tells:
//!
//! | the page | categories | |
//! |---|---|---|
//! | never touched, or dropped | none of PRESENT, SWAPPED | clean |
//! | only read, of a file | PRESENT WRITTEN FILE | clean |
//! | only read, anonymous | PRESENT WRITTEN PFNZERO | clean |
//! | stored to | PRESENT or SWAPPED, WRITTEN | **dirty** |
//! | stored to, then collected | PRESENT or SWAPPED | clean, armed |
//!
//! Attaching is one system call, a first store costs the kernel's own fault and nothing more, and page tables that do
//! not exist are skipped in units of 2 MiB. The kernel records its own writes as well (`read(2)`, `process_vm_writev`).
//!
//! Two costs shape [`UffdAsync::walk`]. Asking for WRITTEN alone takes the kernel's shortest path (0.2 ms/GiB of armed
//! pages), but counts missing entries as written; asking for more takes three times as long; and asking for FILE reads
//! each page's descriptor (10 times as long). So a *probe* finds the next entry that is not armed, a window behind it is
//! examined in full, and FILE is asked of the pages that look dirty only.
//!
//! Invariants:
//! - only attached ranges are scanned, and each is registered: a mapping that was replaced makes a scan fail (EPERM)
//!   rather than lie, until it is attached again;
//! - a page is looked at and re-armed in one critical section of the kernel, so that a racing store is in this set or
//!   the next;
//! - PRESENT is never required: a dirty page may have been swapped out;
//! - no huge pages in attached ranges: their first store would count 512 pages;
//! - the descriptors belong to one process. After a fork the child opens its own; the kernel has dropped the armed state
//!   there, so its first collect reports every page that was ever stored to, and [`Tracker::reports_superset`].

use core::ops::Range;

use rustix::{
    io::Errno,
    mm::{Advice, madvise},
};
use vmsync_core::{
    ByteRange, PageRange, PageSet,
    tracker::{Backing, Tracker, TrackerError, TrackerKind},
};

use crate::{
    attached::Attached,
    error::failed,
    limits::{CANDIDATE_GAP_BYTES, GRANULE_BYTES, REGIONS_MAX, WINDOW_BYTES_MAX},
    memory::Memory,
    sys::{
        pagemap::{Arm, FILE, PRESENT, Pagemap, Query, Region, SWAPPED, WRITTEN, ZERO},
        uffd::{Faults, OpenError, Uffd, WP, WP_ASYNC, WP_UNPOPULATED},
    },
    watch::process,
};

const KIND: TrackerKind = TrackerKind::UffdAsync;

/// Is any entry not armed? Missing entries count as such, missing page tables do not.
const PROBE: Query = Query {
    all_of: WRITTEN,
    any_of: 0,
    inverted: 0,
    returned: WRITTEN,
    arm: Arm::No,
    pages_max: 1,
};

/// Pages of anonymous memory that were stored to.
const DIRTY_ANONYMOUS: Query = Query {
    all_of: WRITTEN | ZERO,
    any_of: PRESENT | SWAPPED,
    inverted: ZERO,
    returned: WRITTEN,
    arm: Arm::Yes,
    pages_max: 0,
};

/// Pages of a file mapping that are not armed: stored to, or only read.
const CANDIDATES: Query = Query {
    arm: Arm::No,
    ..DIRTY_ANONYMOUS
};

/// The same, armed, so that a page that was only read is a candidate once. FILE tells them apart.
const TOUCHED_FILE: Query = Query {
    all_of: WRITTEN,
    any_of: PRESENT | SWAPPED,
    inverted: 0,
    returned: WRITTEN | FILE | ZERO,
    arm: Arm::Yes,
    pages_max: 0,
};

/// The descriptors of one process.
#[derive(Debug)]
struct Session {
    process: u32,
    uffd: Uffd,
    pagemap: Pagemap,
}

impl Session {
    fn open() -> Result<Self, TrackerError> {
        let features = WP | WP_ASYNC | WP_UNPOPULATED;
        let uffd = Uffd::open(features, Faults::UserMode).map_err(|error| match error {
            OpenError::Call(errno) => failed(KIND, "userfaultfd(UFFD_USER_MODE_ONLY)", explain_call(errno)),
            OpenError::Features(errno) => failed(
                KIND,
                "UFFD_FEATURE_WP_ASYNC",
                format!("{errno}; Linux 6.7 or newer has it"),
            ),
        })?;
        let pagemap = Pagemap::open().map_err(|errno| failed(KIND, "opening /proc/self/pagemap", errno))?;
        Ok(Self {
            process: process(),
            uffd,
            pagemap,
        })
    }
}

/// What an error of the userfaultfd system call means, in words.
pub(crate) fn explain_call(errno: Errno) -> String {
    match errno {
        Errno::PERM => format!("{errno}; a system call filter (a container's seccomp profile) refuses it"),
        Errno::NOSYS => {
            format!("{errno}; the kernel was built without CONFIG_USERFAULTFD, or a filter hides it")
        }
        Errno::INVAL => format!("{errno}; the kernel is older than Linux 5.11"),
        _ => errno.to_string(),
    }
}

/// Watches pages by asynchronous write protection.
#[derive(Debug)]
pub(crate) struct UffdAsync {
    memory: Memory,
    session: Session,
    attached: Attached,
    forked: bool,
    regions: Box<[Region]>,
    candidates: Box<[Region]>,
}

impl UffdAsync {
    /// A tracker of `memory`.
    ///
    /// # Safety
    /// See [`crate::new_tracker`].
    pub unsafe fn new(memory: Memory) -> Result<Self, TrackerError> {
        memory
            .check_host_page(rustix::param::page_size())
            .map_err(|why| failed(KIND, "new", why))?;
        let empty = Region {
            start: 0,
            end: 0,
            categories: 0,
        };
        Ok(Self {
            memory,
            session: Session::open()?,
            attached: Attached::default(),
            forked: false,
            regions: vec![empty; REGIONS_MAX].into_boxed_slice(),
            candidates: vec![empty; REGIONS_MAX].into_boxed_slice(),
        })
    }

    /// Opens new descriptors in a forked child.
    fn ensure_session(&mut self) -> Result<(), TrackerError> {
        if self.session.process == process() {
            return Ok(());
        }
        self.forked = true;
        self.session = Session::open()?;
        for (pages, _) in self.attached.all() {
            self.register(pages)?;
        }
        Ok(())
    }

    fn register(&self, pages: PageRange) -> Result<(), TrackerError> {
        let addresses = self.memory.addresses(pages);
        // SAFETY: advice on huge pages changes no contents. A kernel without them refuses, and needs no advice.
        let _ = unsafe {
            madvise(
                self.memory.pointer(pages).cast(),
                addresses.len(),
                Advice::LinuxNoHugepage,
            )
        };
        self.session.uffd.register(addresses).map_err(|errno| {
            let why = match errno {
                Errno::BUSY => format!("{errno}; another userfaultfd watches this range"),
                Errno::INVAL => {
                    format!("{errno}; the range is not mapped, or of a kind that cannot be watched")
                }
                _ => errno.to_string(),
            };
            failed(KIND, "UFFDIO_REGISTER", why)
        })
    }

    /// Hands the dirty pages of `pages`, which are attached, to `found`, and arms them.
    fn walk(
        &mut self,
        pages: PageRange,
        backing: Backing,
        found: &mut dyn FnMut(Range<usize>),
    ) -> Result<(), Errno> {
        let all = self.memory.addresses(pages);
        if all.len() <= GRANULE_BYTES {
            return self.examine(all, backing, found);
        }
        let mut at = all.start;
        let mut window = GRANULE_BYTES;
        while at < all.end {
            let probe = self
                .session
                .pagemap
                .scan(at..all.end, &PROBE, &mut self.regions[..1])?;
            if probe.regions == 0 {
                at = probe.walk_end;
                continue;
            }
            let first = self.regions[0].start as usize;
            let granule = first & !(GRANULE_BYTES - 1);
            let examined = first..granule.saturating_add(window).min(all.end);
            // A probe that skipped nothing was wasted: look at more at once.
            let skipped = first - at;
            window = if skipped < window {
                (window * 2).min(WINDOW_BYTES_MAX)
            } else {
                GRANULE_BYTES
            };
            // The probe stopped at the second entry that is not armed, or at the end.
            at = examined.end.max(probe.walk_end);
            self.examine(examined, backing, found)?;
        }
        Ok(())
    }

    /// Looks at every page of `range`.
    fn examine(
        &mut self,
        range: Range<usize>,
        backing: Backing,
        found: &mut dyn FnMut(Range<usize>),
    ) -> Result<(), Errno> {
        match backing {
            Backing::Anonymous => self.take(range, &DIRTY_ANONYMOUS, found),
            Backing::PrivateFile => self.examine_file(range, found),
        }
    }

    /// Looks for pages that are not armed, then asks of those whether they are the file's.
    fn examine_file(
        &mut self,
        range: Range<usize>,
        found: &mut dyn FnMut(Range<usize>),
    ) -> Result<(), Errno> {
        let mut at = range.start;
        while at < range.end {
            let answer = self
                .session
                .pagemap
                .scan(at..range.end, &CANDIDATES, &mut self.candidates)?;
            at = answer.walk_end;
            let mut next = 0;
            while next < answer.regions {
                let mut run = addresses_of(&self.candidates[next]);
                next += 1;
                while next < answer.regions {
                    let near = addresses_of(&self.candidates[next]);
                    if near.start - run.end > CANDIDATE_GAP_BYTES {
                        break;
                    }
                    run.end = near.end;
                    next += 1;
                }
                self.take(run, &TOUCHED_FILE, found)?;
            }
        }
        Ok(())
    }

    /// Arms what `query` finds in `range` and hands on what of it is neither the file's nor the page of zeros.
    fn take(
        &mut self,
        range: Range<usize>,
        query: &Query,
        found: &mut dyn FnMut(Range<usize>),
    ) -> Result<(), Errno> {
        let mut at = range.start;
        while at < range.end {
            let answer = self
                .session
                .pagemap
                .scan(at..range.end, query, &mut self.regions)?;
            at = answer.walk_end;
            for region in &self.regions[..answer.regions] {
                if region.categories & (FILE | ZERO) == 0 {
                    found(addresses_of(region));
                }
            }
        }
        Ok(())
    }

    fn walk_attached(&mut self, pages: PageRange, dirty: &mut PageSet) -> Result<(), TrackerError> {
        self.ensure_session()?;
        let memory = self.memory;
        for (run, backing) in self.attached.within(pages) {
            let mut found = |addresses| dirty.insert(memory.pages_at(addresses));
            self.walk(run, backing, &mut found).map_err(|errno| {
                let why = match errno {
                    Errno::PERM => {
                        format!("{errno}; a mapping in pages {run} was replaced and not attached again")
                    }
                    _ => errno.to_string(),
                };
                failed(KIND, "PAGEMAP_SCAN", why)
            })?;
        }
        Ok(())
    }
}

fn addresses_of(region: &Region) -> Range<usize> {
    region.start as usize..region.end as usize
}

impl Tracker for UffdAsync {
    fn kind(&self) -> TrackerKind {
        KIND
    }

    fn reports_superset(&self) -> bool {
        self.forked || self.session.process != process()
    }

    fn attach(&mut self, range: ByteRange, backing: Backing) -> Result<(), TrackerError> {
        let pages = self.memory.pages(range);
        if pages.is_empty() {
            return Ok(());
        }
        self.ensure_session()?;
        self.register(pages)?;
        self.attached.insert(pages, backing);
        self.clear(range)
    }

    fn detach(&mut self, range: ByteRange) {
        let pages = self.memory.pages(range);
        if self.session.process == process() {
            for (run, _) in self.attached.within(pages) {
                // It may be unmapped or replaced by now: then there is nothing left to undo.
                let _ = self.session.uffd.unregister(self.memory.addresses(run));
            }
        }
        self.attached.remove(pages);
    }

    fn clear(&mut self, range: ByteRange) -> Result<(), TrackerError> {
        self.walk_attached(self.memory.pages(range), &mut PageSet::new())
    }

    fn collect(&mut self, range: ByteRange, dirty: &mut PageSet) -> Result<(), TrackerError> {
        self.walk_attached(self.memory.pages(range), dirty)
    }
}

impl Drop for UffdAsync {
    fn drop(&mut self) {
        // A forked child may hold a copy of the descriptor, so closing it is not enough.
        let all = PageRange::new(0, self.memory.pages_reserved());
        self.detach(self.memory.page.byte_range(all));
    }
}
