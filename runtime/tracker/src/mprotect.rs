//! The `mprotect` rung: watched pages are read-only, and the first store to each faults.
//!
//! Invariants:
//! - a watched page is read-only, or it is in the next [`Tracker::collect`];
//! - the host's own signal handlers do not store to watched memory;
//! - where the kernel has no mapping left to split (`vm.max_map_count`), or this process's trackers have their part, a whole
//!   watched run is made writable and reported; from then on [`Tracker::reports_superset`].
//!
//! Does not do: writes by the kernel. `read(2)` into a watched page that was not stored to yet fails with EFAULT; store
//! to its pages first. Nor does it share page protection: between attach and detach nobody else calls mprotect(2) there.

use core::sync::atomic::Ordering;

use rustix::mm::MprotectFlags;
use vmsync_core::{
    ByteRange, PageRange, PageSet,
    tracker::{Backing, Tracker, TrackerError, TrackerKind},
};

use crate::{
    error::failed,
    limits::{REARM_GAP_PAGES, WATCHES_MAX},
    memory::Memory,
    sys::signal,
    watch::{Registration, Watch},
};

const KIND: TrackerKind = TrackerKind::Mprotect;
const WRITABLE: MprotectFlags = MprotectFlags::READ.union(MprotectFlags::WRITE);

/// Puts the fault handler of the `mprotect` rung in front of every other one. [`Tracker::attach`] and
/// [`Tracker::collect`] do it too; a host calls this after something else may have installed a handler (Wasmtime does
/// when its first `Engine` is made), so that no store is taken for a crash or a trap.
///
/// # Errors
/// Where sigaction(2) fails, or other handlers went in front more often than the chain has room for.
pub fn ensure_installed() -> Result<(), TrackerError> {
    signal::ensure_installed().map_err(|error| failed(KIND, "installing the fault handler", error))
}

/// The rung.
///
/// # Safety
/// See [`crate::new_tracker`].
pub(crate) unsafe fn new(memory: Memory) -> Result<Box<dyn Tracker>, TrackerError> {
    // SAFETY: by the contract of this function.
    Ok(Box::new(unsafe { Mprotect::new(memory) }?))
}

/// Watches pages by their protection.
#[derive(Debug)]
pub(crate) struct Mprotect {
    registration: Registration,
}

impl Mprotect {
    /// A tracker of `memory`.
    ///
    /// # Safety
    /// See [`crate::new_tracker`].
    pub unsafe fn new(memory: Memory) -> Result<Self, TrackerError> {
        memory
            .check_host_page(rustix::param::page_size())
            .map_err(|why| failed(KIND, "new", why))?;
        let registration = Registration::new(Box::new(Watch::new(memory))).ok_or_else(|| {
            failed(
                KIND,
                "new",
                format!("{WATCHES_MAX} trackers of this kind are alive"),
            )
        })?;
        ensure_installed()?;
        Ok(Self { registration })
    }

    fn pages(&self, range: ByteRange) -> PageRange {
        self.registration.watch().memory.pages(range)
    }
}

impl Tracker for Mprotect {
    fn kind(&self) -> TrackerKind {
        KIND
    }

    fn reports_superset(&self) -> bool {
        self.registration.watch().overflowed.load(Ordering::Acquire)
    }

    fn attach(&mut self, range: ByteRange, _: Backing) -> Result<(), TrackerError> {
        let pages = self.pages(range);
        if pages.is_empty() {
            return Ok(());
        }
        ensure_installed()?;
        self.registration.exclusively(|watch| {
            watch
                .protect(pages, MprotectFlags::READ)
                .map_err(|errno| failed(KIND, "mprotect", errno))?;
            watch.counted(pages, || watch.dirty.remove(pages));
            watch.attached.insert(pages);
            Ok(())
        })
    }

    fn detach(&mut self, range: ByteRange) {
        let pages = self.pages(range);
        self.registration.exclusively(|watch| {
            let mut watched = PageSet::new();
            watch.attached.take(pages, |run| watched.insert(run));
            watch.counted(pages, || watch.dirty.remove(pages));
            for run in watched.runs() {
                // It may be unmapped by now: then there is nothing left to make writable.
                let _ = watch.protect(*run, WRITABLE);
            }
        });
    }

    fn clear(&mut self, range: ByteRange) -> Result<(), TrackerError> {
        self.collect(range, &mut PageSet::new())
    }

    fn collect(&mut self, range: ByteRange, dirty: &mut PageSet) -> Result<(), TrackerError> {
        let pages = self.pages(range);
        ensure_installed()?;
        let rearm = |watch: &Watch| {
            let mut found = PageSet::new();
            watch.dirty.take(pages, |run| found.insert(run));
            // What lies between is read-only already: one call over it costs less than one for each side.
            for run in watch.attached.joined(&found, REARM_GAP_PAGES) {
                if watch.protect(run, MprotectFlags::READ).is_err() {
                    // No mapping left to split: it stays writable, and so it stays dirty.
                    watch.overflowed.store(true, Ordering::Release);
                    found
                        .within(run)
                        .runs()
                        .iter()
                        .for_each(|run| watch.dirty.insert(*run));
                }
            }
            found
        };
        let found = self
            .registration
            .exclusively(|watch| watch.counted(pages, || rearm(watch)));
        dirty.union(&found);
        Ok(())
    }
}

impl Drop for Mprotect {
    fn drop(&mut self) {
        let memory = self.registration.watch().memory;
        let all = PageRange::new(0, memory.pages_reserved());
        self.detach(memory.page.byte_range(all));
    }
}
