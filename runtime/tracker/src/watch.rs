//! The registry that the fault handler reads: which pages are watched, and which were stored to.
//!
//! ```text
//!   SLOTS[i] --watch--> Watch { memory, attached: bitmap, dirty: bitmap }
//!       ^ the handler enters a slot (readers + 1), marks, unprotects, leaves
//!       ^ the tracker takes a slot for itself (owner = its process) and waits until no handler is inside
//! ```
//!
//! Marking and unprotecting are two steps, and so are taking a mark and protecting again. The slot is the lock that
//! keeps the two pairs apart: were they interleaved, a page could stay writable with its mark gone.
//!
//! Each run of pages that were stored to takes mappings, of which the process has so many. Where there are too many runs, a fault
//! makes all of a watched run writable, and all of it counts as stored to.
//!
//! Invariants:
//! - the slots are static: a handler never reads freed memory to find out that there is nothing to read;
//! - a [`Watch`] is freed only when its slot no longer names it and no handler is inside;
//! - the owner of a slot never stores to watched memory, so that the handler's wait is bounded;
//! - a watched page is protected, or its dirty bit is set.

use core::{
    ptr,
    sync::atomic::{AtomicBool, AtomicIsize, AtomicPtr, AtomicU32, AtomicUsize, Ordering},
};

use rustix::{
    io::Errno,
    mm::{MprotectFlags, mprotect},
    process::{Pid, getpid},
};
use vmsync_core::PageRange;

use crate::{
    bitmap::AtomicBitmap,
    limits::{SPLITS_MAX, SPLITS_MIN, WATCHES_MAX},
    memory::Memory,
};

/// What is watched in one linear memory.
#[derive(Debug)]
pub(crate) struct Watch {
    /// Where it lies.
    pub memory: Memory,
    /// Pages that are watched.
    pub attached: AtomicBitmap,
    /// Pages that were stored to and are writable.
    pub dirty: AtomicBitmap,
    /// How many runs of pages are dirty.
    splits: AtomicIsize,
    /// Whether a mapping once was not to be split, and pages were marked that were not stored to.
    pub overflowed: AtomicBool,
}

impl Watch {
    /// Nothing watched yet in `memory`.
    pub fn new(memory: Memory) -> Self {
        Self {
            memory,
            attached: AtomicBitmap::new(memory.pages_reserved()),
            dirty: AtomicBitmap::new(memory.pages_reserved()),
            splits: AtomicIsize::new(0),
            overflowed: AtomicBool::new(false),
        }
    }

    /// Makes `pages` writable, or read-only.
    pub fn protect(&self, pages: PageRange, flags: MprotectFlags) -> Result<(), Errno> {
        let (start, length) = (self.memory.pointer(pages), self.memory.length(pages));
        // SAFETY: the pages belong to the linear memory that the tracker was given; protection changes no contents.
        unsafe { mprotect(start.cast(), length, flags) }
    }

    /// Answers a fault at `address`; false where it is not ours. Async-signal-safe.
    fn on_fault(&self, address: usize) -> bool {
        let page = self.memory.pages_at(address..address + 1).start;
        if !self.attached.contains(page) {
            return false;
        }
        let writable = MprotectFlags::READ | MprotectFlags::WRITE;
        let only = PageRange::new(page, page + 1);
        if self.has_room(page) {
            self.counted(only, || self.dirty.insert(only));
            if self.protect(only, writable).is_ok() {
                return true;
            }
        }
        // No more mappings (vm.max_map_count), or none for this one: a whole mapping needs none. All of it counts as stored to.
        let run = self.attached.run_around(page);
        if self.protect(run, writable).is_err() {
            return false;
        }
        self.overflowed.store(true, Ordering::Release);
        self.counted(run, || self.dirty.insert(run));
        true
    }

    /// Whether `page` alone may become writable.
    fn has_room(&self, page: u64) -> bool {
        let splits = |count: &AtomicIsize| count.load(Ordering::Relaxed);
        splits(&self.splits) < SPLITS_MIN
            || splits(&SPLITS) < SPLITS_MAX
            || self.dirty.contains(page.wrapping_sub(1))
            || self.dirty.contains(page + 1)
    }

    /// Counts the runs that `change`, which changes which of `pages` are dirty, makes more or fewer.
    pub fn counted<R>(&self, pages: PageRange, change: impl FnOnce() -> R) -> R {
        let end = self.memory.pages_reserved();
        let around = PageRange::new(pages.start.saturating_sub(1), (pages.end + 1).min(end));
        let before = self.dirty.runs(around);
        let result = change();
        // Handlers at neighbours at the same time may both count one, or none: that is few, and forgotten with the watch.
        let change = self.dirty.runs(around).cast_signed() - before.cast_signed();
        self.splits.fetch_add(change, Ordering::Relaxed);
        SPLITS.fetch_add(change, Ordering::Relaxed);
        result
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        SPLITS.fetch_sub(self.splits.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

/// A place for one watch. `start..end` are the addresses of its memory, a hint that is checked again inside.
struct Slot {
    start: AtomicUsize,
    end: AtomicUsize,
    claimed: AtomicBool,
    watch: AtomicPtr<Watch>,
    readers: AtomicUsize,
    /// The process whose tracker has taken the slot for itself, or 0. One that a fork left behind counts for nothing.
    owner: AtomicU32,
}

static SLOTS: [Slot; WATCHES_MAX] = [const {
    Slot {
        start: AtomicUsize::new(0),
        end: AtomicUsize::new(0),
        claimed: AtomicBool::new(false),
        watch: AtomicPtr::new(ptr::null_mut()),
        readers: AtomicUsize::new(0),
        owner: AtomicU32::new(0),
    }
}; WATCHES_MAX];

/// How many runs of pages are dirty in all watches.
static SPLITS: AtomicIsize = AtomicIsize::new(0);

/// How many slots from the first were ever claimed.
static SLOTS_USED: AtomicUsize = AtomicUsize::new(0);

/// Answers a fault at `address`; false where no watch wants it. Async-signal-safe.
pub(crate) fn on_fault(address: usize) -> bool {
    let used = SLOTS_USED.load(Ordering::Acquire).min(WATCHES_MAX);
    SLOTS[..used].iter().any(|slot| {
        let hint = slot.start.load(Ordering::Acquire)..slot.end.load(Ordering::Acquire);
        hint.contains(&address) && slot.on_fault(address)
    })
}

impl Slot {
    fn on_fault(&self, address: usize) -> bool {
        self.enter();
        let watch = self.watch.load(Ordering::SeqCst);
        // SAFETY: it is null, or alive until we have left.
        let handled = match unsafe { watch.as_ref() } {
            Some(watch) => {
                let all = watch
                    .memory
                    .addresses(PageRange::new(0, watch.memory.pages_reserved()));
                all.contains(&address) && watch.on_fault(address)
            }
            None => false,
        };
        self.readers.fetch_sub(1, Ordering::SeqCst);
        handled
    }

    fn enter(&self) {
        loop {
            self.readers.fetch_add(1, Ordering::SeqCst);
            let owner = self.owner.load(Ordering::SeqCst);
            if owner == 0 || owner != process() {
                return;
            }
            self.readers.fetch_sub(1, Ordering::SeqCst);
            rustix::thread::sched_yield();
        }
    }

    fn wait_until_empty(&self) {
        while self.readers.load(Ordering::SeqCst) != 0 {
            rustix::thread::sched_yield();
        }
    }
}

/// This process. A system call, so that it is right in a child that was forked without libc's knowledge.
pub(crate) fn process() -> u32 {
    Pid::as_raw(Some(getpid())).unsigned_abs()
}

/// A claimed slot with its watch.
#[derive(Debug)]
pub(crate) struct Registration {
    index: usize,
    process: u32,
}

impl Registration {
    /// Registers `watch`; `None` where [`WATCHES_MAX`] are registered.
    pub fn new(watch: Box<Watch>) -> Option<Self> {
        let claim = |slot: &Slot| !slot.claimed.swap(true, Ordering::SeqCst);
        let index = SLOTS.iter().position(claim)?;
        SLOTS_USED.fetch_max(index + 1, Ordering::SeqCst);
        let slot = &SLOTS[index];
        let all = watch
            .memory
            .addresses(PageRange::new(0, watch.memory.pages_reserved()));
        slot.watch.store(Box::into_raw(watch), Ordering::SeqCst);
        slot.start.store(all.start, Ordering::SeqCst);
        slot.end.store(all.end, Ordering::SeqCst);
        Some(Self {
            index,
            process: process(),
        })
    }

    /// The watch, while handlers may be at it too.
    pub fn watch(&self) -> &Watch {
        // SAFETY: the slot holds the watch of this registration until it is dropped.
        unsafe { &*SLOTS[self.index].watch.load(Ordering::SeqCst) }
    }

    /// Runs `body` while no handler is inside; a thread that faults meanwhile waits.
    pub fn exclusively<R>(&mut self, body: impl FnOnce(&Watch) -> R) -> R {
        let slot = &SLOTS[self.index];
        let process = self.forget_other_process();
        slot.owner.store(process, Ordering::SeqCst);
        slot.wait_until_empty();
        let _release = Release(slot);
        body(self.watch())
    }

    /// After a fork: the handlers that were inside belong to threads that do not exist here.
    fn forget_other_process(&mut self) -> u32 {
        let now = process();
        if now != self.process {
            SLOTS[self.index].readers.store(0, Ordering::SeqCst);
            self.process = now;
        }
        now
    }
}

/// Gives the slot back, also when the body panics.
struct Release(&'static Slot);

impl Drop for Release {
    fn drop(&mut self) {
        self.0.owner.store(0, Ordering::SeqCst);
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.forget_other_process();
        let slot = &SLOTS[self.index];
        slot.start.store(0, Ordering::SeqCst);
        slot.end.store(0, Ordering::SeqCst);
        let watch = slot.watch.swap(ptr::null_mut(), Ordering::SeqCst);
        slot.wait_until_empty();
        // SAFETY: it came from `Box::into_raw`, the slot no longer names it, and no handler is inside.
        drop(unsafe { Box::from_raw(watch) });
        slot.claimed.store(false, Ordering::SeqCst);
    }
}
