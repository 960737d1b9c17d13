//! The `barrier` rung: instrumented stores mark a card table, a byte per page.
//!
//! A store marks the card of its first byte, after it succeeded. It may reach into the next page, and others that share its
//! mark may begin there: of that page [`SUSPECT_BYTES`] may have changed. So its head is compared with the one kept when
//! the page was last known to be clean; where none is kept it is reported.
//!
//! ```text
//!   cards --drain--> pending: pages that are dirty and not yet reported --collect(range)--> dirty
//! ```
//!
//! Invariants:
//! - a mark is taken together with what it means for its own page and the next, so that the border of a collected range
//!   loses nothing: what lies outside stays in `pending`;
//! - the mark before a range is read with the range;
//! - heads are read of pages that are being reported or lie behind a marked one, never of others;
//! - a store and its mark reach the collector in that order: it runs on the guest's thread, or synchronises with it.

use core::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use vmsync_core::{
    ByteRange, PageRange, PageSet, PageSize,
    tracker::{Backing, Tracker, TrackerError, TrackerKind},
};

use crate::{
    bitmap::AtomicBitmap,
    limits::SUSPECT_BYTES,
    memory::{LinearRange, Memory},
};

const KIND: TrackerKind = TrackerKind::Barrier;
const WORD: u64 = size_of::<AtomicU64>() as u64;

/// How many cards are looked at between two branches while everything is clean.
const BLOCK_CARDS: u64 = 128;
/// The same where the processor has AVX-512.
#[cfg(target_arch = "x86_64")]
const WIDE_BLOCK_CARDS: u64 = 512;

/// The start of a page, as far as it may change without a mark.
type Head = u128;

const _: () = assert!(size_of::<Head>() == SUSPECT_BYTES);

/// A table with a byte per page: zero for clean.
#[derive(Clone, Copy, Debug)]
pub struct CardTable {
    /// The card of page 0.
    pub first: *const AtomicU8,
    /// How many cards there are: ranges beyond them are never attached.
    pub cards: u64,
}

/// Watches pages by the marks of instrumented stores. The host marks its own writes.
#[derive(Debug)]
pub struct Barrier {
    table: CardTable,
    attached: PageSet,
    pending: PageSet,
    heads: Heads,
}

/// The heads of pages when they were last known to be clean.
#[derive(Debug)]
struct Heads {
    memory: Memory,
    /// Those of the pages in `known`.
    heads: Vec<Head>,
    known: AtomicBitmap,
}

// SAFETY: the table is read and cleared through atomics only.
unsafe impl Send for Barrier {}

impl Barrier {
    /// A tracker of `memory` whose pages of `page_size` bytes have their cards in `table`.
    ///
    /// # Safety
    /// Until the tracker is dropped, `table` is readable and writable memory, written only atomically or by the guest's
    /// thread while no method runs, and attached ranges of `memory` are mapped and readable.
    ///
    /// # Panics
    /// When `memory` is not aligned to 16 bytes: a programmer's error.
    pub unsafe fn new(table: CardTable, memory: LinearRange, page_size: PageSize) -> Self {
        assert!(memory.base.addr().is_multiple_of(size_of::<Head>()));
        let memory = Memory::new(memory, page_size);
        let pages = table.cards.min(memory.pages_reserved());
        Self {
            table: CardTable {
                cards: pages,
                ..table
            },
            attached: PageSet::new(),
            pending: PageSet::new(),
            heads: Heads {
                memory,
                // Zeroed by the allocator: an entry costs memory from its first use only.
                heads: vec![0; usize::try_from(pages).expect("a head per page fits the address space")],
                known: AtomicBitmap::new(pages),
            },
        }
    }

    fn pages(&self, range: ByteRange) -> PageRange {
        let pages = self.heads.memory.pages(range);
        assert!(pages.end <= self.table.cards, "{range} has no cards");
        pages
    }

    /// Moves what the cards say of `pages` to `pending`.
    fn drain(&mut self, pages: PageRange) {
        let first = pages.start.saturating_sub(1);
        let Self {
            table,
            attached,
            pending,
            heads,
            ..
        } = self;
        // What lies behind a marked page, until the next one is known: that may be it.
        let mut behind = None;
        let check = |behind: Option<u64>, pending: &mut PageSet| {
            let changed = |page: &u64| attached.contains(*page) && heads.is_changed(*page);
            if let Some(page) = behind.filter(changed) {
                pending.insert(PageRange::new(page, page + 1));
            }
        };
        take_marks(table, PageRange::new(first, pages.end), |page| {
            check(behind.filter(|behind| *behind != page), pending);
            if attached.contains(page) {
                pending.insert(PageRange::new(page, page + 1));
            }
            behind = Some(page + 1);
        });
        check(behind, pending);
    }

    /// Everything in `pages` is clean: its marks are dropped, but not what they mean for pages outside.
    fn drop_marks(&mut self, pages: PageRange) {
        self.drain(pages);
        self.pending.remove(pages);
        self.heads.known.remove(pages);
    }
}

impl Tracker for Barrier {
    fn kind(&self) -> TrackerKind {
        KIND
    }

    fn reports_superset(&self) -> bool {
        true
    }

    fn attach(&mut self, range: ByteRange, _: Backing) -> Result<(), TrackerError> {
        let pages = self.pages(range);
        // What is mapped here now is new: old marks say nothing of it.
        self.attached.remove(pages);
        self.drop_marks(pages);
        self.attached.insert(pages);
        Ok(())
    }

    fn detach(&mut self, range: ByteRange) {
        let pages = self.heads.memory.pages(range);
        let pages = pages.intersect(PageRange::new(0, self.table.cards));
        for run in self.attached.within(pages).runs() {
            self.attached.remove(*run);
            self.drop_marks(*run);
        }
    }

    fn clear(&mut self, range: ByteRange) -> Result<(), TrackerError> {
        for run in self.attached.within(self.pages(range)).runs() {
            self.drop_marks(*run);
        }
        Ok(())
    }

    fn collect(&mut self, range: ByteRange, dirty: &mut PageSet) -> Result<(), TrackerError> {
        let pages = self.pages(range);
        for run in self.attached.within(pages).runs() {
            self.drain(*run);
        }
        let found = self.pending.take(pages);
        self.heads.keep(&found);
        dirty.append(found);
        Ok(())
    }
}

impl Heads {
    /// Whether a store that began in the page before `page`, which is attached, may have changed it.
    fn is_changed(&self, page: u64) -> bool {
        !(self.known.contains(page) && self.read(page) == self.heads[page as usize])
    }

    /// The head of `page`, which is attached.
    fn read(&self, page: u64) -> Head {
        let start = self
            .memory
            .pointer(PageRange::new(page, page + 1))
            .cast::<AtomicU64>();
        // SAFETY: an attached page is mapped and readable, and aligned to 16 bytes as its memory is.
        let (low, high) = unsafe { (&*start, &*start.add(1)) };
        Head::from(low.load(Ordering::Relaxed)) << u64::BITS | Head::from(high.load(Ordering::Relaxed))
    }

    /// Keeps the heads of `pages`, which are about to be reported.
    fn keep(&mut self, pages: &PageSet) {
        for page in pages.pages() {
            self.heads[page as usize] = self.read(page);
        }
        pages.runs().iter().for_each(|run| self.known.insert(*run));
    }
}

/// Clears the cards of `pages` and hands on the pages that were marked, ascending.
fn take_marks(table: &CardTable, pages: PageRange, mut found: impl FnMut(u64)) {
    assert!(pages.end <= table.cards);
    let mut at = pages.start;
    while at < pages.end {
        if is_word(table, at) {
            at = skip_clean(table, at, pages.end);
        }
        let word_end = pages.end.min(at + WORD - (table.first.addr() as u64 + at) % WORD);
        for page in at..word_end {
            // SAFETY: the card lies inside the table.
            let card = unsafe { &*table.first.add(page as usize) };
            if card.load(Ordering::Relaxed) != 0 && card.swap(0, Ordering::AcqRel) != 0 {
                found(page);
            }
        }
        at = word_end.max(at);
    }
}

/// Whether the card of page `at` begins a word.
fn is_word(table: &CardTable, at: u64) -> bool {
    (table.first.addr() as u64 + at).is_multiple_of(WORD)
}

/// The first page from `at`, whose card begins a word, to `end` whose word is not clean or not whole.
fn skip_clean(table: &CardTable, mut at: u64, end: u64) -> u64 {
    // SAFETY: a whole word of cards inside the table, aligned.
    let word =
        |at: u64| unsafe { &*table.first.add(at as usize).cast::<AtomicU64>() }.load(Ordering::Relaxed);
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx512f") {
        // SAFETY: a whole block of cards inside the table, and the processor knows the instructions.
        while at + WIDE_BLOCK_CARDS <= end && unsafe { is_wide_block_clean(table.first.add(at as usize)) } {
            at += WIDE_BLOCK_CARDS;
        }
    }
    // SAFETY: a whole block of cards inside the table, aligned as words are.
    while at + BLOCK_CARDS <= end && unsafe { is_block_clean(table.first.add(at as usize)) } {
        at += BLOCK_CARDS;
    }
    while at + WORD <= end && word(at) == 0 {
        at += WORD;
    }
    at
}

/// Whether all [`WIDE_BLOCK_CARDS`] from `first` on are clean. Where the second-level cache is what a scan waits for, 1 GiB took 2.3 us;
/// between two waits for a drive 3.4, and 6.1 without (a program that does nothing else, not kept; medians of five runs in turn).
///
/// # Safety
/// They are readable, and the processor has AVX-512F.
#[cfg(target_arch = "x86_64")]
unsafe fn is_wide_block_clean(first: *const AtomicU8) -> bool {
    let marked: u32;
    // SAFETY: what is loaded is what relaxed loads of words would load.
    unsafe {
        core::arch::asm!(
            "vmovdqu64 zmm16, [{first}]",
            "vmovdqu64 zmm17, [{first} + 64]",
            "vporq zmm16, zmm16, [{first} + 128]",
            "vporq zmm17, zmm17, [{first} + 192]",
            "vporq zmm16, zmm16, [{first} + 256]",
            "vporq zmm17, zmm17, [{first} + 320]",
            "vporq zmm16, zmm16, [{first} + 384]",
            "vporq zmm17, zmm17, [{first} + 448]",
            "vporq zmm16, zmm16, zmm17",
            "vptestmq k1, zmm16, zmm16",
            "kmovw {marked:e}, k1",
            first = in(reg) first,
            marked = out(reg) marked,
            // Above the first sixteen, so that SSE instructions behind this are not slowed down.
            out("xmm16") _,
            out("xmm17") _,
            out("k1") _,
            options(readonly, nostack, preserves_flags),
        );
    }
    marked == 0
}

/// Whether all [`BLOCK_CARDS`] from `first` on are clean. In assembly, because atomics are loaded eight bytes at a time at best: 1 GiB has
/// 256 KiB of cards, which took 4.4 us, and 2.6 so.
///
/// # Safety
/// They are readable, and aligned as a word is.
#[cfg(target_arch = "x86_64")]
unsafe fn is_block_clean(first: *const AtomicU8) -> bool {
    let clean: u32;
    // SAFETY: SSE2 is part of x86-64. What is loaded is what eight relaxed loads of two words each would load.
    unsafe {
        core::arch::asm!(
            "movdqu {a}, [{first}]",
            "movdqu {b}, [{first} + 16]",
            "movdqu {c}, [{first} + 32]",
            "movdqu {d}, [{first} + 48]",
            "por {a}, {b}",
            "por {c}, {d}",
            "movdqu {b}, [{first} + 64]",
            "movdqu {d}, [{first} + 80]",
            "por {a}, {b}",
            "por {c}, {d}",
            "movdqu {b}, [{first} + 96]",
            "movdqu {d}, [{first} + 112]",
            "por {a}, {b}",
            "por {c}, {d}",
            "por {a}, {c}",
            "pxor {b}, {b}",
            "pcmpeqb {a}, {b}",
            "pmovmskb {clean:e}, {a}",
            first = in(reg) first,
            clean = out(reg) clean,
            a = out(xmm_reg) _,
            b = out(xmm_reg) _,
            c = out(xmm_reg) _,
            d = out(xmm_reg) _,
            options(readonly, nostack, preserves_flags),
        );
    }
    clean == 0xffff
}

/// The same, word by word.
///
/// # Safety
/// As above.
#[cfg(not(target_arch = "x86_64"))]
unsafe fn is_block_clean(first: *const AtomicU8) -> bool {
    let words = (0..(BLOCK_CARDS / WORD) as usize).map(|index| {
        // SAFETY: a whole word inside the block, aligned.
        unsafe { &*first.cast::<AtomicU64>().add(index) }.load(Ordering::Relaxed)
    });
    words.fold(0, |sum, word| sum | word) == 0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Blocks of both widths, words and single cards, wherever the table and the range begin and end.
        #[test]
        fn every_mark_in_a_range_is_taken_and_none_outside(
            marks in prop::collection::btree_set(0u64..2000, 0..12),
            skew in 0usize..24,
            (start, end) in (0u64..=2000, 0u64..=2000),
        ) {
            let cards: Vec<AtomicU8> = (0..2024).map(|_| AtomicU8::new(0)).collect();
            let table = CardTable { first: cards[skew..].as_ptr(), cards: 2000 };
            // Neither is a card of the table's.
            let outside = [skew.checked_sub(1), Some(skew + 2000)].map(|place| place.map(|place| &cards[place]));
            outside.iter().flatten().for_each(|card| card.store(1, Ordering::Relaxed));
            for mark in &marks {
                // Any value but zero marks.
                cards[skew + *mark as usize].store(1 << (mark % 8), Ordering::Relaxed);
            }
            let pages = PageRange { start: start.min(end), end: start.max(end) };
            let mut found = Vec::new();
            take_marks(&table, pages, |page| found.push(page));
            let expected: Vec<u64> = marks.iter().copied().filter(|page| pages.contains(*page)).collect();
            prop_assert_eq!(found, expected);
            for page in 0..2000 {
                let left = cards[skew + page as usize].load(Ordering::Relaxed) != 0;
                prop_assert_eq!(left, marks.contains(&page) && !pages.contains(page));
            }
            prop_assert!(outside.iter().flatten().all(|card| card.load(Ordering::Relaxed) == 1));
        }
    }
}
