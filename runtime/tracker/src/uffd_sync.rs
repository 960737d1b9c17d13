//! The `uffd-sync` rung: userfaultfd write protection, answered by a thread (Linux ≥ 5.7).
//!
//! ```text
//!   a store -> the kernel parks its thread -> [serve] marks the page, releases it -> the store goes on
//! ```
//!
//! A thread and not SIGBUS: where the process may answer the kernel's faults (CAP_SYS_PTRACE, or the sysctl
//! `vm.unprivileged_userfaultfd`), `read(2)` into a watched page is recorded. Where it may not, such a call fails with
//! EFAULT, as on the `mprotect` rung: store to its pages first.
//!
//! Invariants:
//! - a watched page is armed, or its dirty bit is set; both change under one lock, which no thread holds while it
//!   stores to watched memory;
//! - pages that were never touched are armed too: by the kernel since Linux 6.4, before that by reading them first;
//! - private mappings of files are refused: the kernel write-protects anonymous memory and shared memory only;
//! - the descriptor and the thread belong to one process. A forked child starts its own, and reports every watched page
//!   once, and [`Tracker::reports_superset`].

use core::ops::Range;
use std::{
    os::fd::OwnedFd,
    sync::{Arc, Mutex, MutexGuard},
    thread::JoinHandle,
};

use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, eventfd, poll},
    io::Errno,
    mm::{Advice, madvise},
};
use vmsync_core::{
    ByteRange, PageRange, PageSet,
    tracker::{Backing, Tracker, TrackerError, TrackerKind},
};

use crate::{
    attached::Attached,
    bitmap::AtomicBitmap,
    error::failed,
    limits::REARM_GAP_PAGES,
    memory::Memory,
    sys::uffd::{Faults, OpenError, Protect, Uffd, WP, WP_UNPOPULATED},
    uffd_async::explain_call,
    watch::process,
};

const KIND: TrackerKind = TrackerKind::UffdSync;

/// How pages that were never touched are armed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unpopulated {
    /// The kernel arms them.
    Armed,
    /// They are read first.
    ReadFirst,
}

/// What the tracker and its thread share.
#[derive(Debug)]
struct Shared {
    memory: Memory,
    host_page_bytes: usize,
    uffd: Uffd,
    stop: OwnedFd,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    attached: AtomicBitmap,
    dirty: AtomicBitmap,
    /// Why the thread gave up: everything is released and counts as dirty.
    broken: Option<Errno>,
}

impl State {
    /// Whether somebody answers faults: else a store to an armed page would wait for ever.
    fn check(&self) -> Result<(), TrackerError> {
        match self.broken {
            None => Ok(()),
            Some(errno) => Err(failed(
                KIND,
                "the fault thread stopped and nothing is watched any more",
                errno,
            )),
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Answers faults until the tracker stops or the kernel fails.
    fn serve(&self) {
        if let Err(errno) = self.serve_until_stopped() {
            let mut state = self.state();
            state.broken = Some(errno);
            let mut runs = PageSet::new();
            state
                .attached
                .take(PageRange::new(0, self.memory.pages_reserved()), |run| {
                    runs.insert(run)
                });
            for run in runs.runs() {
                state.dirty.insert(*run);
                let _ = self.uffd.unregister(self.memory.addresses(*run));
            }
        }
    }

    fn serve_until_stopped(&self) -> Result<(), Errno> {
        loop {
            let mut waits = [
                PollFd::new(&self.uffd, PollFlags::IN),
                PollFd::new(&self.stop, PollFlags::IN),
            ];
            match poll(&mut waits, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
            if !waits[1].revents().is_empty() {
                return Ok(());
            }
            while let Some(address) = self.uffd.next_fault()? {
                self.answer(address);
            }
        }
    }

    /// Marks the page of `address` and lets the store go on.
    fn answer(&self, address: usize) {
        let start = address & !(self.host_page_bytes - 1);
        let host_page = start..start + self.host_page_bytes;
        let page = self.memory.pages_at(host_page.clone());
        let state = self.state();
        let released = if state.attached.contains(page.start) {
            state.dirty.insert(page);
            self.uffd
                .write_protect(self.memory.addresses(page), Protect::Release)
        } else {
            self.uffd.write_protect(host_page.clone(), Protect::Release)
        };
        if released.is_err() {
            // Unmapped or replaced meanwhile: the store finds that out when it tries again.
            let _ = self.uffd.wake(host_page);
        }
    }
}

/// The descriptor and the thread of one process.
#[derive(Debug)]
struct Session {
    process: u32,
    unpopulated: Unpopulated,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Session {
    fn open(memory: Memory) -> Result<Self, TrackerError> {
        let (uffd, unpopulated) = open_uffd()?;
        let stop = eventfd(0, EventfdFlags::CLOEXEC).map_err(|errno| failed(KIND, "eventfd", errno))?;
        let state = State {
            attached: AtomicBitmap::new(memory.pages_reserved()),
            dirty: AtomicBitmap::new(memory.pages_reserved()),
            broken: None,
        };
        let host_page_bytes = rustix::param::page_size();
        let shared = Arc::new(Shared {
            memory,
            host_page_bytes,
            uffd,
            stop,
            state: Mutex::new(state),
        });
        let served = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("vmsync-uffd".into())
            .spawn(move || served.serve())
            .map_err(|error| failed(KIND, "starting the fault thread", error))?;
        Ok(Self {
            process: process(),
            unpopulated,
            shared,
            thread: Some(thread),
        })
    }

    fn register(&self, pages: PageRange) -> Result<(), TrackerError> {
        let addresses: Range<usize> = self.shared.memory.addresses(pages);
        // SAFETY: advice on huge pages changes no contents. A kernel without them refuses, and needs no advice.
        let _ = unsafe {
            madvise(
                self.shared.memory.pointer(pages).cast(),
                addresses.len(),
                Advice::LinuxNoHugepage,
            )
        };
        self.shared.uffd.register(addresses).map_err(|errno| {
            let why = match errno {
                Errno::INVAL => {
                    format!("{errno}; not mapped, or a private mapping of a file: supply it by copying")
                }
                Errno::BUSY => format!("{errno}; another userfaultfd watches this range"),
                _ => errno.to_string(),
            };
            failed(KIND, "UFFDIO_REGISTER", why)
        })
    }

    /// Arms every page of `pages`.
    fn arm(&self, pages: PageRange) -> Result<(), Errno> {
        let addresses = self.shared.memory.addresses(pages);
        if self.unpopulated == Unpopulated::ReadFirst {
            let start = self.shared.memory.pointer(pages);
            for offset in (0..addresses.len()).step_by(self.shared.host_page_bytes) {
                // SAFETY: an attached page is mapped and readable; the byte is not used.
                unsafe { start.add(offset).read_volatile() };
            }
        }
        self.shared.uffd.write_protect(addresses, Protect::Arm)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if self.process != process() {
            // The thread is the parent's: here there is none to join or to let go.
            core::mem::forget(self.thread.take());
            return;
        }
        let _ = rustix::io::write(&self.shared.stop, &1u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The most able descriptor that this kernel and this process's rights give.
fn open_uffd() -> Result<(Uffd, Unpopulated), TrackerError> {
    let mut last = OpenError::Call(Errno::NOSYS);
    for faults in [Faults::All, Faults::UserMode] {
        for (features, unpopulated) in [
            (WP | WP_UNPOPULATED, Unpopulated::Armed),
            (WP, Unpopulated::ReadFirst),
        ] {
            match Uffd::open(features, faults) {
                Ok(uffd) => return Ok((uffd, unpopulated)),
                Err(error) => last = error,
            }
        }
    }
    Err(match last {
        OpenError::Call(errno) => failed(KIND, "userfaultfd", explain_call(errno)),
        OpenError::Features(errno) => failed(
            KIND,
            "UFFD_FEATURE_PAGEFAULT_FLAG_WP",
            format!("{errno}; Linux 5.7 or newer has it"),
        ),
    })
}

/// Watches pages by synchronous write protection.
#[derive(Debug)]
pub(crate) struct UffdSync {
    memory: Memory,
    session: Session,
    attached: Attached,
    forked: bool,
}

impl UffdSync {
    /// A tracker of `memory`.
    ///
    /// # Safety
    /// See [`crate::new_tracker`].
    pub unsafe fn new(memory: Memory) -> Result<Self, TrackerError> {
        memory
            .check_host_page(rustix::param::page_size())
            .map_err(|why| failed(KIND, "new", why))?;
        let session = Session::open(memory)?;
        Ok(Self {
            memory,
            session,
            attached: Attached::default(),
            forked: false,
        })
    }

    /// In a forked child: a new descriptor, a new thread, and every watched page counts as dirty, released as it is.
    fn ensure_session(&mut self) -> Result<(), TrackerError> {
        if self.session.process == process() {
            return Ok(());
        }
        // Whole or not at all: the next call tries again.
        let session = Session::open(self.memory)?;
        for (pages, _) in self.attached.all() {
            session.register(pages)?;
            let state = session.shared.state();
            state.attached.insert(pages);
            state.dirty.insert(pages);
        }
        self.forked = true;
        self.session = session;
        Ok(())
    }

    /// Arms `pages` anew, all of them clean.
    fn arm_clean(&self, pages: PageRange) -> Result<(), TrackerError> {
        let state = self.session.shared.state();
        state.check()?;
        state.attached.insert(pages);
        state.dirty.remove(pages);
        self.session.arm(pages).map_err(|errno| {
            state.dirty.insert(pages);
            failed(KIND, "UFFDIO_WRITEPROTECT", errno)
        })
    }
}

impl Tracker for UffdSync {
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
        self.session.register(pages)?;
        self.attached.insert(pages, backing);
        self.arm_clean(pages)
    }

    fn detach(&mut self, range: ByteRange) {
        let pages = self.memory.pages(range);
        if self.session.process == process() {
            let state = self.session.shared.state();
            state.attached.remove(pages);
            state.dirty.remove(pages);
            for (run, _) in self.attached.within(pages) {
                // It may be unmapped or replaced by now: then there is nothing left to undo.
                let _ = self.session.shared.uffd.unregister(self.memory.addresses(run));
            }
        }
        self.attached.remove(pages);
    }

    fn clear(&mut self, range: ByteRange) -> Result<(), TrackerError> {
        self.ensure_session()?;
        let runs = self.attached.within(self.memory.pages(range));
        runs.into_iter().try_for_each(|(run, _)| self.arm_clean(run))
    }

    fn collect(&mut self, range: ByteRange, dirty: &mut PageSet) -> Result<(), TrackerError> {
        let pages = self.memory.pages(range);
        self.ensure_session()?;
        let state = self.session.shared.state();
        state.check()?;
        let mut found = PageSet::new();
        state.dirty.take(pages, |run| found.insert(run));
        // What lies between is armed already: one call over it costs less than one for each side.
        for run in state.attached.joined(&found, REARM_GAP_PAGES) {
            self.session.arm(run).map_err(|errno| {
                found.runs().iter().for_each(|run| state.dirty.insert(*run));
                failed(KIND, "UFFDIO_WRITEPROTECT", errno)
            })?;
        }
        dirty.union(&found);
        Ok(())
    }
}

impl Drop for UffdSync {
    fn drop(&mut self) {
        let all = PageRange::new(0, self.memory.pages_reserved());
        self.detach(self.memory.page.byte_range(all));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::with_memory;

    const PAGES: u64 = 8;

    /// Runs `body` with a tracker of fresh memory, where this rung works.
    fn with_tracker(body: impl FnOnce(&mut UffdSync)) {
        with_memory(PAGES, |memory| {
            // SAFETY: the memory outlives the tracker.
            match unsafe { UffdSync::new(memory) } {
                Ok(mut tracker) => body(&mut tracker),
                Err(error) => eprintln!("skipped: {error}"),
            }
        });
    }

    fn bytes(tracker: &UffdSync, start: u64, end: u64) -> ByteRange {
        tracker.memory.page.byte_range(PageRange::new(start, end))
    }

    #[test]
    fn a_session_that_watches_a_part_is_no_session() {
        with_tracker(|tracker| {
            for (start, end) in [(0, 2), (4, 6)] {
                let range = bytes(tracker, start, end);
                tracker.attach(range, Backing::Anonymous).expect("it was probed");
            }
            // As in a forked child, in which somebody else watches the second run.
            tracker.session.process = 0;
            let first = tracker.memory.addresses(PageRange::new(0, 2));
            tracker
                .session
                .shared
                .uffd
                .unregister(first)
                .expect("it was registered");
            let all = bytes(tracker, 0, PAGES);
            for _ in 0..2 {
                assert!(tracker.collect(all, &mut PageSet::new()).is_err());
            }
            let second = tracker.memory.addresses(PageRange::new(4, 6));
            tracker
                .session
                .shared
                .uffd
                .unregister(second)
                .expect("it was registered");
            let mut dirty = PageSet::new();
            tracker.collect(all, &mut dirty).expect("nobody else watches now");
            assert_eq!(dirty.runs(), [PageRange::new(0, 2), PageRange::new(4, 6)]);
        });
    }

    #[test]
    fn nothing_is_armed_that_nobody_answers_for() {
        with_tracker(|tracker| {
            let range = bytes(tracker, 0, 2);
            tracker.attach(range, Backing::Anonymous).expect("it was probed");
            tracker.session.shared.state().broken = Some(Errno::IO);
            let other = bytes(tracker, 4, 6);
            assert!(tracker.attach(other, Backing::Anonymous).is_err());
            assert!(tracker.clear(range).is_err());
            assert!(tracker.collect(range, &mut PageSet::new()).is_err());
        });
    }
}
