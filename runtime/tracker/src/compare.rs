//! The `compare` rung: a shadow of every watched page, compared word by word. Exact, everywhere, and the oracle that the
//! other rungs are tested against.
//!
//! A shadow and not a hash: out of memory, comparing a page with its shadow costs what hashing it with xxh3-128 does
//! (0.5 µs), the answer is exact whatever the guest stores, and a page of zeros has no shadow.
//!
//! Invariants:
//! - it reports what *changed*: a store of the value that was there is not seen, which is all a pager needs;
//! - no page is read before it is attached; attaching reads all of it, whatever lies under it, as a wrong guess would
//!   lose a store;
//! - pages are read through relaxed atomics, so that a store by another thread is a race and not undefined.

use core::sync::atomic::{AtomicU64, Ordering};
use std::collections::HashMap;

use vmsync_core::{
    ByteRange, PageRange, PageSet,
    tracker::{Backing, Tracker, TrackerError, TrackerKind},
};

use crate::{attached::Attached, error::failed, memory::Memory};

const KIND: TrackerKind = TrackerKind::Compare;

/// How many words are compared between two branches: a cache line.
const LINE_WORDS: usize = 8;

/// Watches pages by comparison.
#[derive(Debug)]
pub(crate) struct Compare {
    memory: Memory,
    attached: Attached,
    /// What watched pages held; a page that is missing held zeros.
    shadows: HashMap<u64, Box<[u64]>>,
}

impl Compare {
    /// A tracker of `memory`.
    ///
    /// # Safety
    /// See [`crate::new_tracker`].
    pub unsafe fn new(memory: Memory) -> Result<Self, TrackerError> {
        memory
            .check_host_page(size_of::<u64>())
            .map_err(|why| failed(KIND, "new", why))?;
        Ok(Self {
            memory,
            attached: Attached::default(),
            shadows: HashMap::new(),
        })
    }

    /// The words of `page`, which is attached.
    fn words(&self, page: u64) -> &[AtomicU64] {
        let pages = PageRange::new(page, page + 1);
        let (start, bytes) = (self.memory.pointer(pages), self.memory.length(pages));
        // SAFETY: an attached page is mapped and readable, aligned to a word, and every bit pattern is a word. It is
        // accessed atomically here; a plain store by a guest's thread is a word or less to the hardware.
        unsafe { core::slice::from_raw_parts(start.cast::<AtomicU64>(), bytes / size_of::<u64>()) }
    }

    /// Whether `page` differs from its shadow.
    fn is_changed(&self, page: u64) -> bool {
        let words = self.words(page);
        match self.shadows.get(&page) {
            Some(shadow) => words
                .chunks_exact(LINE_WORDS)
                .zip(shadow.chunks_exact(LINE_WORDS))
                .any(|(now, was)| {
                    now.iter()
                        .zip(was)
                        .fold(0, |sum, (now, was)| sum | (now.load(Ordering::Relaxed) ^ was))
                        != 0
                }),
            None => words
                .chunks_exact(LINE_WORDS)
                .any(|now| now.iter().fold(0, |sum, now| sum | now.load(Ordering::Relaxed)) != 0),
        }
    }

    /// Makes the shadow of `page` what the page holds.
    fn remember(&mut self, page: u64) {
        let mut shadow = self.shadows.remove(&page).unwrap_or_default();
        let words = self.words(page);
        if shadow.is_empty() {
            if words.iter().all(|word| word.load(Ordering::Relaxed) == 0) {
                return;
            }
            shadow = vec![0; words.len()].into_boxed_slice();
        }
        for (word, now) in shadow.iter_mut().zip(words) {
            *word = now.load(Ordering::Relaxed);
        }
        self.shadows.insert(page, shadow);
    }

    fn forget(&mut self, pages: PageRange) {
        if pages.len() < self.shadows.len() as u64 {
            for page in pages.start..pages.end {
                self.shadows.remove(&page);
            }
        } else {
            self.shadows.retain(|page, _| !pages.contains(*page));
        }
    }

    fn remember_all(&mut self, pages: PageRange) {
        for page in pages.start..pages.end {
            self.remember(page);
        }
    }
}

impl Tracker for Compare {
    fn kind(&self) -> TrackerKind {
        KIND
    }

    fn attach(&mut self, range: ByteRange, backing: Backing) -> Result<(), TrackerError> {
        let pages = self.memory.pages(range);
        self.attached.insert(pages, backing);
        self.remember_all(pages);
        Ok(())
    }

    fn detach(&mut self, range: ByteRange) {
        let pages = self.memory.pages(range);
        self.attached.remove(pages);
        self.forget(pages);
    }

    fn clear(&mut self, range: ByteRange) -> Result<(), TrackerError> {
        for (run, _) in self.attached.within(self.memory.pages(range)) {
            self.remember_all(run);
        }
        Ok(())
    }

    fn collect(&mut self, range: ByteRange, dirty: &mut PageSet) -> Result<(), TrackerError> {
        for (run, _) in self.attached.within(self.memory.pages(range)) {
            for page in run.start..run.end {
                if self.is_changed(page) {
                    self.remember(page);
                    dirty.insert(PageRange::new(page, page + 1));
                }
            }
        }
        Ok(())
    }
}
