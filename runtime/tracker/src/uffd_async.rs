//! The `uffd-async` rung: userfaultfd `WP_ASYNC`, read and re-armed by `PAGEMAP_SCAN` (Linux ≥ 6.7, also unprivileged).
//!
//! Nothing is armed when a range is attached. A page that was never touched has no page-table entry to look at, and one
//! that was only read is a page of the page cache or the shared page of zeros. So what a scan sees of a page tells:
//!
//! | the page | categories | |
//! |---|---|---|
//! | never touched, or dropped | none of PRESENT, SWAPPED | clean |
//! | only read, of a file | PRESENT WRITTEN FILE | clean, and armed by the first scan that sees it |
//! | only read, anonymous | PRESENT WRITTEN PFNZERO | the same |
//! | stored to | PRESENT or SWAPPED, WRITTEN | **dirty** |
//! | stored to, then collected | PRESENT or SWAPPED | clean, armed |
//!
//! Attaching is one system call, a first store costs the kernel's own fault and nothing more, and page tables that do
//! not exist are skipped in units of 2 MiB. The kernel records its own writes as well (`read(2)`, `process_vm_writev`).
//!
//! How a range is scanned is in `walk.rs`.
//!
//! Invariants:
//! - only attached ranges are scanned, and each is registered: a mapping that was replaced makes a scan fail (EPERM)
//!   rather than lie, until it is attached again;
//! - no huge pages in attached ranges: their first store would count 512 pages;
//! - the descriptors belong to one process. After a fork the child opens its own; the kernel has dropped the armed state
//!   there, so its first collect reports every page that was ever stored to, and [`Tracker::reports_superset`].

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
    memory::Memory,
    sys::{
        pagemap::{Pagemap, Region},
        uffd::{Faults, OpenError, Uffd, WP, WP_ASYNC, WP_UNPOPULATED},
    },
    walk::{Dirty, Walk, no_regions},
    watch::process,
};

const KIND: TrackerKind = TrackerKind::UffdAsync;

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

    /// Watches `pages` of `memory`.
    fn register(&self, memory: &Memory, pages: PageRange) -> Result<(), TrackerError> {
        let addresses = memory.addresses(pages);
        // SAFETY: advice on huge pages changes no contents. A kernel without them refuses, and needs no advice.
        let _ = unsafe {
            madvise(
                memory.pointer(pages).cast(),
                addresses.len(),
                Advice::LinuxNoHugepage,
            )
        };
        self.uffd.register(addresses).map_err(|errno| {
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
    /// Pages of the host, from the base, that were armed since they were attached or cleared.
    armed: AtomicBitmap,
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
        Ok(Self {
            memory,
            session: Session::open()?,
            attached: Attached::default(),
            forked: false,
            host_page,
            armed: AtomicBitmap::new(host_page.page_of(reserved.end)),
            regions: no_regions(),
        })
    }

    /// Opens new descriptors in a forked child.
    fn ensure_session(&mut self) -> Result<(), TrackerError> {
        if self.session.process == process() {
            return Ok(());
        }
        // Whole or not at all: the next call tries again.
        let session = Session::open()?;
        for (pages, _) in self.attached.all() {
            session.register(&self.memory, pages)?;
        }
        let all = PageRange::new(0, self.memory.pages_reserved());
        self.armed
            .remove(self.host_page.shrink(self.memory.page.byte_range(all)));
        self.forked = true;
        self.session = session;
        Ok(())
    }

    /// Arms the dirty pages of what is attached in `pages`, and adds them to `dirty`.
    fn walk_attached(&mut self, pages: PageRange, mut dirty: Dirty) -> Result<(), TrackerError> {
        self.ensure_session()?;
        for (run, backing) in self.attached.within(pages) {
            let walk = Walk {
                memory: &self.memory,
                host_page: self.host_page,
                pagemap: &self.session.pagemap,
                armed: &self.armed,
                regions: &mut self.regions,
            };
            walk.walk(run, backing, dirty.as_deref_mut()).map_err(|errno| {
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
        self.session.register(&self.memory, pages)?;
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
        // Before the walk: a dropped page has no entry, and is not to be taken for one that is no longer armed.
        let bytes = self.memory.page.byte_range(pages);
        self.armed.remove(self.host_page.shrink(bytes));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::with_memory;

    #[test]
    fn a_session_that_watches_a_part_is_no_session() {
        with_memory(8, |memory| {
            // SAFETY: the memory outlives the tracker.
            let mut tracker = match unsafe { UffdAsync::new(memory) } {
                Ok(tracker) => tracker,
                Err(error) => return eprintln!("skipped: {error}"),
            };
            let runs = [PageRange::new(0, 2), PageRange::new(4, 6)];
            for run in runs {
                let range = memory.page.byte_range(run);
                tracker.attach(range, Backing::Anonymous).expect("it was probed");
                // SAFETY: a byte of the memory, which nobody else uses.
                unsafe { memory.pointer(run).write_volatile(1) };
            }
            // As in a forked child, in which somebody else watches the second run.
            for run in runs {
                let addresses = memory.addresses(run);
                let unregistered = tracker.session.uffd.unregister(addresses);
                unregistered.expect("it was registered");
            }
            let other = Session::open().expect("it was probed");
            other.register(&memory, runs[1]).expect("nobody watches");
            tracker.session.process = 0;
            let all = memory.page.byte_range(PageRange::new(0, 8));
            for _ in 0..2 {
                assert!(tracker.collect(all, &mut PageSet::new()).is_err());
            }
            drop(other);
            let mut dirty = PageSet::new();
            tracker.collect(all, &mut dirty).expect("nobody else watches now");
            let stored = runs.map(|run| PageRange::new(run.start, run.start + 1));
            assert_eq!(dirty.runs(), stored);
        });
    }
}
