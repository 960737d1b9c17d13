//! [`Mapping`]: private memory without huge pages to measure faults in. With `peer.rs` the unsafe part of this
//! benchmark: faults are what it measures, and safe code has none.

use std::{fs::File, ptr, time::Instant};

use anyhow::Result;
use rustix::mm::{
    Advice, MapFlags, MprotectFlags, ProtFlags, madvise, mmap, mmap_anonymous, mprotect, munmap,
};
use vmsync_core::{
    ByteRange, PageSize,
    tracker::{Backing, Tracker, TrackerKind},
};
use vmsync_tracker::{LinearRange, new_tracker};

pub const PAGE: usize = 4096;

/// A private mapping, writable unless [`Mapping::protect`] says otherwise.
pub struct Mapping {
    base: *mut u8,
    pages: usize,
}

impl Mapping {
    /// `pages` pages, of `file` or anonymous.
    pub fn new(file: Option<&File>, pages: usize) -> Result<Self> {
        let (length, protection) = (pages * PAGE, ProtFlags::READ | ProtFlags::WRITE);
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: a new mapping at an address of the kernel's choice; nobody truncates the file.
        let base = unsafe {
            let start = match file {
                None => mmap_anonymous(ptr::null_mut(), length, protection, flags),
                Some(file) => mmap(ptr::null_mut(), length, protection, flags, file, 0),
            }?;
            // A kernel without huge pages refuses, and needs no advice.
            let _ = madvise(start, length, Advice::LinuxNoHugepage);
            start.cast()
        };
        Ok(Self { base, pages })
    }

    /// All of it.
    pub fn range(&self) -> ByteRange {
        ByteRange::new(0, (self.pages * PAGE) as u64)
    }

    /// How many pages it has.
    pub fn pages(&self) -> usize {
        self.pages
    }

    /// Its first address.
    pub fn base(&self) -> *mut u8 {
        self.base
    }

    /// A tracker that watches all of it. It lives no longer than the mapping.
    pub fn track(&self, kind: TrackerKind, backing: Backing) -> Result<Tracked<'_>> {
        let linear = LinearRange {
            base: self.base,
            bytes_reserved: self.range().end,
        };
        // SAFETY: the borrow keeps the mapping, which is private and writable, until the tracker is gone.
        let mut tracker = unsafe { new_tracker(kind, linear, PageSize::KIB_4) }?;
        tracker.attach(self.range(), backing)?;
        Ok(Tracked {
            tracker,
            mapping: self,
        })
    }

    /// Stores to each of `pages` in turn; nanoseconds a store.
    pub fn store(&self, pages: impl ExactSizeIterator<Item = usize>) -> f64 {
        let count = pages.len();
        let start = Instant::now();
        for page in pages {
            assert!(page < self.pages);
            // SAFETY: inside the mapping. Where it is not writable just now, whoever protected it answers the fault.
            unsafe { self.base.add(page * PAGE + 64).write_volatile(page as u8 | 1) };
        }
        nanoseconds(start) / count as f64
    }

    /// Loads from every page.
    pub fn load_all(&self) {
        for page in 0..self.pages {
            // SAFETY: inside the mapping.
            unsafe { _ = self.base.add(page * PAGE).read_volatile() };
        }
    }

    /// Takes the right to store away, or all rights.
    pub fn protect(&self, flags: MprotectFlags) -> Result<()> {
        // SAFETY: our own mapping; whoever stores to it next answers the fault.
        Ok(unsafe { mprotect(self.base.cast(), self.pages * PAGE, flags) }?)
    }

    /// Makes the kernel write-protect every page as its own: a child is forked, which shares them, and ends.
    pub fn share_with_a_child(&self) {
        // SAFETY: the child does nothing but end.
        match unsafe { libc::fork() } {
            // SAFETY: ends the child at once.
            0 => unsafe { libc::_exit(0) },
            child => {
                let mut status = 0;
                // SAFETY: our own child, if there is one.
                assert!(child > 0 && unsafe { libc::waitpid(child, &mut status, 0) } == child);
            }
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: our own mapping, and no tracker borrows it.
        let _ = unsafe { munmap(self.base.cast(), self.pages * PAGE) };
    }
}

/// A tracker on a [`Mapping`].
pub struct Tracked<'a> {
    tracker: Box<dyn Tracker>,
    mapping: &'a Mapping,
}

impl Tracked<'_> {
    /// Collects all of the mapping: nanoseconds, and how many pages were dirty.
    pub fn collect(&mut self) -> Result<(f64, u64)> {
        let mut dirty = vmsync_core::PageSet::new();
        let start = Instant::now();
        self.tracker.collect(self.mapping.range(), &mut dirty)?;
        Ok((nanoseconds(start), dirty.len()))
    }
}

/// Nanoseconds since `start`.
pub fn nanoseconds(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e9
}
