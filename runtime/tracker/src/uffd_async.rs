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
//! What a scan costs decides how [`UffdAsync::walk`] goes about it. Asking for WRITTEN alone takes the kernel's shortest
//! path, 0.6 ns a page, but counts missing entries as written and arms them; asking for more costs 2 ns; asking for FILE
//! reads each page's descriptor, 6 to 15 ns. So:
//! - pages that were once found stored to are remembered as *known*: they have an entry and are no longer the file's. A
//!   stretch of known pages is read and re-armed by the shortest path;
//! - elsewhere a *probe* by the shortest path, without arming, finds the next entry that is not armed, and a window
//!   behind it is examined in full;
//! - FILE is asked only of pages of a file mapping that look dirty and are not known, after they were armed. (One that
//!   was only read, and that the kernel reclaims just then, is reported: no harm, as it holds what it held.)
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
    ByteRange, PageRange, PageSet, PageSize,
    tracker::{Backing, Tracker, TrackerError, TrackerKind},
};

use crate::{
    attached::Attached,
    bitmap::AtomicBitmap,
    error::failed,
    limits::{FILE_GAP_PAGES, GRANULE_BYTES, REGIONS_MAX, WINDOW_BYTES_MAX},
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

/// Pages that are not armed: stored to, or of a file and only read. Missing entries and the page of zeros are not.
const TOUCHED: Query = Query {
    all_of: WRITTEN | ZERO,
    any_of: PRESENT | SWAPPED,
    inverted: ZERO,
    returned: WRITTEN,
    arm: Arm::Yes,
    pages_max: 0,
};

/// Pages that were stored to, among pages that are known to have been stored to before.
const DIRTY_KNOWN: Query = Query {
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
    host_page: PageSize,
    /// Pages of the host, from the base, that were found stored to since they were attached or cleared.
    known: AtomicBitmap,
    regions: Box<[Region]>,
}

impl UffdAsync {
    /// A tracker of `memory`.
    ///
    /// # Safety
    /// See [`crate::new_tracker`].
    pub unsafe fn new(memory: Memory) -> Result<Self, TrackerError> {
        let host_page_bytes = rustix::param::page_size();
        memory
            .check_host_page(host_page_bytes)
            .map_err(|why| failed(KIND, "new", why))?;
        let host_page = PageSize::new(host_page_bytes as u64).expect("a multiple of it is a page size");
        let reserved = memory.page.byte_range(PageRange::new(0, memory.pages_reserved()));
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
            host_page,
            known: AtomicBitmap::new(host_page.page_of(reserved.end)),
            regions: vec![empty; REGIONS_MAX].into_boxed_slice(),
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

    /// Arms the dirty pages of `pages`, which are attached, and adds them to `dirty`.
    fn walk(&mut self, pages: PageRange, backing: Backing, mut dirty: Dirty) -> Result<(), Errno> {
        let all = self.memory.addresses(pages);
        let mut at = all.start;
        while at < all.end {
            let (end, known) = self.stretch(at..all.end);
            if known {
                self.examine(at..end, &DIRTY_KNOWN, Backing::Anonymous, dirty.as_deref_mut())?;
            } else {
                self.search(at..end, backing, dirty.as_deref_mut())?;
            }
            at = end;
        }
        Ok(())
    }

    /// Where the stretch at the start of `range` ends whose granules are all known, or all not; and which it is.
    fn stretch(&self, range: Range<usize>) -> (usize, bool) {
        let granule_end = |at: usize| ((at | (GRANULE_BYTES - 1)) + 1).min(range.end);
        let is_known = |granule: Range<usize>| self.known.contains_all(self.host_pages(granule));
        let mut end = granule_end(range.start);
        let known = is_known(range.start..end);
        while end < range.end && is_known(end..granule_end(end)) == known {
            end = granule_end(end);
        }
        (end, known)
    }

    /// Looks for entries that are not armed, and examines a window behind each.
    fn search(&mut self, range: Range<usize>, backing: Backing, mut dirty: Dirty) -> Result<(), Errno> {
        if range.len() <= GRANULE_BYTES {
            return self.examine(range, &TOUCHED, backing, dirty);
        }
        let mut at = range.start;
        let mut window = GRANULE_BYTES;
        while at < range.end {
            let probe = self
                .session
                .pagemap
                .scan(at..range.end, &PROBE, &mut self.regions[..1])?;
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
            self.examine(examined, &TOUCHED, backing, dirty.as_deref_mut())?;
        }
        Ok(())
    }

    /// Arms what `query` finds in `range`. What of it is not the file's is dirty, and known from now on.
    fn examine(
        &mut self,
        range: Range<usize>,
        query: &Query,
        backing: Backing,
        mut dirty: Dirty,
    ) -> Result<(), Errno> {
        let mut at = range.start;
        while at < range.end {
            let answer = self
                .session
                .pagemap
                .scan(at..range.end, query, &mut self.regions)?;
            at = answer.walk_end;
            let Some(dirty) = dirty.as_deref_mut() else {
                continue;
            };
            let runs = self.regions[..answer.regions].iter().map(addresses_of);
            match backing {
                Backing::Anonymous => {
                    for run in runs {
                        self.known.insert(self.host_pages(run.clone()));
                        dirty.insert(self.memory.pages_at(run));
                    }
                }
                Backing::PrivateFile => {
                    let mut touched = PageSet::new();
                    runs.for_each(|run| touched.insert(self.host_pages(run)));
                    self.remove_files(&mut touched)?;
                    for run in touched.runs() {
                        self.known.insert(*run);
                        dirty.insert(self.memory.pages_at(self.addresses(*run)));
                    }
                }
            }
        }
        Ok(())
    }

    /// Removes from `touched`, in pages of the host, those that are still the file's.
    fn remove_files(&mut self, touched: &mut PageSet) -> Result<(), Errno> {
        let mut unknown = PageSet::new();
        for run in touched.runs() {
            self.known.missing(*run, |run| unknown.insert(run));
        }
        let mut runs = unknown.runs().iter().copied().peekable();
        while let Some(mut asked) = runs.next() {
            while let Some(near) = runs.next_if(|near| near.start - asked.end <= FILE_GAP_PAGES) {
                asked.end = near.end;
            }
            let Range { start: mut at, end } = self.addresses(asked);
            while at < end {
                let answer = self.session.pagemap.scan(at..end, &FILES, &mut self.regions)?;
                at = answer.walk_end;
                for region in &self.regions[..answer.regions] {
                    touched.remove(self.host_pages(addresses_of(region)));
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

    fn walk_attached(&mut self, pages: PageRange, mut dirty: Dirty) -> Result<(), TrackerError> {
        self.ensure_session()?;
        for (run, backing) in self.attached.within(pages) {
            self.walk(run, backing, dirty.as_deref_mut()).map_err(|errno| {
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

/// Where dirty pages go; `None` where they are to be clean from now on, and nobody asks which they were.
type Dirty<'a> = Option<&'a mut PageSet>;

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
        let pages = self.memory.pages(range);
        // Before the walk: a dropped page has no entry, and is not to be taken for one that was stored to.
        self.known.remove(self.host_pages(self.memory.addresses(pages)));
        self.walk_attached(pages, None)
    }

    fn collect(&mut self, range: ByteRange, dirty: &mut PageSet) -> Result<(), TrackerError> {
        self.walk_attached(self.memory.pages(range), Some(dirty))
    }
}

impl Drop for UffdAsync {
    fn drop(&mut self) {
        // A forked child may hold a copy of the descriptor, so closing it is not enough.
        let all = PageRange::new(0, self.memory.pages_reserved());
        self.detach(self.memory.page.byte_range(all));
    }
}
