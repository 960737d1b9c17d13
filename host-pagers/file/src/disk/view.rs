//! [`View`]: a file in this process's address space, to look at bytes without a copy of them.
//!
//! Invariants:
//! - the mapping is only read, and word by word as atomics: the file is written to meanwhile;
//! - nothing is shown but what the kernel has in memory. Were it to give such a page up within the microseconds until it is
//!   looked at, and its drive could not read it again, the process would end (SIGBUS), as at a load of a guest.
#![allow(unsafe_code, reason = "mmap(2): the invariants say why it is sound")]

use std::{
    os::fd::BorrowedFd,
    ptr::{self, NonNull},
    sync::atomic::{AtomicU64, Ordering},
};

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, munmap};
use vmsync_core::ByteRange;

/// Pages of the system that the kernel is asked about at once.
const PAGES_AT_ONCE: usize = 4096;

/// Ranges at most so far apart are asked about at once where all between is in the page tables: a page takes 2 ns there,
/// 70 where the kernel looks for it in the file, asking takes 1 us.
const GAP_BYTES: u64 = 2 << 20;

/// What a fault puts into the page tables, where it is in memory.
const WINDOW_BYTES: u64 = 64 << 10;

/// See the head of the file.
pub(super) struct View {
    base: NonNull<u8>,
    length: usize,
    /// A bit for each window of addresses, set where something was looked at.
    looked: Box<[AtomicU64]>,
}

// SAFETY: the mapping belongs to the process, and is only read.
unsafe impl Send for View {}
// SAFETY: as above.
unsafe impl Sync for View {}

impl View {
    /// The first `length` bytes of `file`, which has as many; `None` where they cannot be mapped.
    pub fn new(file: BorrowedFd<'_>, length: u64) -> Option<Self> {
        let length = usize::try_from(length).ok().filter(|length| *length > 0)?;
        // SAFETY: a mapping of its own, wherever there is room.
        let base = unsafe {
            mmap(
                ptr::null_mut(),
                length,
                ProtFlags::READ,
                MapFlags::SHARED,
                file,
                0,
            )
        }
        .ok()?;
        // SAFETY: advice changes no contents: nothing is read ahead for what is looked at here and there.
        let _ = unsafe { madvise(base, length, Advice::Random) };
        let base = NonNull::new(base.cast())?;
        let windows = length / WINDOW_BYTES as usize + 2;
        let looked = (0..windows.div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        Some(Self { base, length, looked })
    }

    /// Shows each of `ranges` that is in memory; see [`crate::disk::DiskFile::show_cached`].
    pub fn show(&self, ranges: &[ByteRange], look: &mut dyn FnMut(Option<&[AtomicU64]>)) {
        let page = rustix::param::page_size() as u64;
        let joined = ranges.chunk_by(|last, next| self.is_near(last.end, next.start));
        // A page at either end of a chunk may belong to a neighbour.
        let at_once = (PAGES_AT_ONCE as u64 - 2) * page;
        let mut states = [0; PAGES_AT_ONCE];
        for ranges in joined.flat_map(|ranges| split(ranges, at_once)) {
            let start = ranges[0].start / page * page;
            let end = ranges[ranges.len() - 1].end;
            let pages = (end - start).div_ceil(page) as usize;
            let known = pages <= PAGES_AT_ONCE && self.ask(start, pages, &mut states);
            for range in ranges {
                let first = (range.start - start) / page;
                let behind = (range.end - start).div_ceil(page);
                let cached = known
                    && states[first as usize..behind as usize]
                        .iter()
                        .all(|state| state & 1 != 0);
                look(cached.then(|| self.words(*range)));
                if cached {
                    self.set_looked(*range);
                }
            }
        }
    }

    /// Whether asking about what is between two ranges takes less than asking twice.
    fn is_near(&self, end: u64, start: u64) -> bool {
        start - end <= GAP_BYTES
            && self.windows(end, start).all(|window| {
                // A file that somebody else cut short has fewer.
                let bits = self.looked.get(window / 64);
                bits.is_some_and(|bits| bits.load(Ordering::Relaxed) & (1 << (window % 64)) != 0)
            })
    }

    fn set_looked(&self, range: ByteRange) {
        for window in self.windows(range.start, range.end) {
            let bit = 1 << (window % 64);
            let bits = &self.looked[window / 64];
            if bits.load(Ordering::Relaxed) & bit == 0 {
                bits.fetch_or(bit, Ordering::Relaxed);
            }
        }
    }

    /// The windows of the file's bytes from `start` to `end`.
    fn windows(&self, start: u64, end: u64) -> std::ops::Range<usize> {
        let base = self.base.addr().get() as u64;
        let window = |offset: u64| (base % WINDOW_BYTES + offset) / WINDOW_BYTES;
        window(start) as usize..window(end + WINDOW_BYTES - 1) as usize
    }

    /// Which of `count` pages from `start` on are in memory: mincore(2). Whether the kernel said so.
    fn ask(&self, start: u64, count: usize, states: &mut [u8; PAGES_AT_ONCE]) -> bool {
        let length = count * rustix::param::page_size();
        let inside = usize::try_from(start).is_ok_and(|start| start.saturating_add(length) <= self.length);
        // SAFETY: the range lies inside the mapping, and there is room for an answer for each of its pages.
        inside
            && unsafe {
                let first = self.base.add(start as usize).as_ptr().cast();
                libc::mincore(first, length, states.as_mut_ptr().cast()) == 0
            }
    }

    fn words(&self, range: ByteRange) -> &[AtomicU64] {
        let (start, length) = (range.start as usize, range.len() as usize);
        assert!(start + length <= self.length && start.is_multiple_of(size_of::<u64>()));
        // SAFETY: the words lie inside the mapping, and are aligned, as it is to pages.
        unsafe {
            let first = self.base.add(start).cast::<AtomicU64>();
            std::slice::from_raw_parts(first.as_ptr(), length / size_of::<u64>())
        }
    }
}

/// Parts of `ranges` that reach over at most `bytes` each, where one range alone does not reach over more.
fn split(mut ranges: &[ByteRange], bytes: u64) -> impl Iterator<Item = &[ByteRange]> {
    std::iter::from_fn(move || {
        let first = ranges.first()?;
        let count = ranges
            .partition_point(|range| range.end - first.start <= bytes)
            .max(1);
        let (part, rest) = ranges.split_at(count);
        ranges = rest;
        Some(part)
    })
}

impl Drop for View {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's, and nothing borrows from it any more.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), self.length) };
    }
}
