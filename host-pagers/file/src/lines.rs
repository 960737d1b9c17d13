//! [`Lines`]: checksums of the lines of an object's pages, for pages that come back scattered.
//!
//! Looking at the base of a page that nobody touched lately costs more than the page itself: a fault, or a system call that
//! asks whether it is in memory. Its lines' sums are 256 bytes, and tell which of them changed; a few bytes more are journaled
//! than really did.
//!
//! ```text
//!   Unknown --call n compares, or learns--> Call n --call m compares--> Call m        call n fails: Unknown
//!      |                                                                  '-- another changes it, and does not learn: Unknown
//!      '--- apply learns --> Apply --still the newest--> Known: as that of a call
//! ```
//!
//! Invariants:
//! - the sums of a page that is claimed by a call, or known, are those of what is supplied for it, where no other call is under
//!   way or queued that changes it. Calls under way return different pages; whether one is queued says the queue;
//! - so a call that fails gives up what it claimed before anybody can return the page again;
//! - sums are written by whoever claimed the page, and who applies claims no page that a call has.
//!
//! A sum has 64 bits, and its seed is this process's own: of 2^64 changed lines one goes unnoticed.

#![allow(
    unsafe_code,
    reason = "a slice of zeroes that costs memory from its first use only, and a hint to the processor"
)]

use std::{
    hash::{BuildHasher, RandomState},
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use twox_hash::XxHash3_64;
use vmsync_core::PageSize;

use crate::limits::{LINE_BYTES, LINES_PAGES_MAX};

/// Rows that are allocated together.
const CHUNK_ROWS: usize = 512;

/// States of a row; see the head of the file. Higher ones are [`Learner`]s. Above them all, but for the first, stands which of the
/// pages that share the row it is about.
const UNKNOWN: u64 = 0;
const APPLY: u64 = 1;
const KNOWN: u64 = 2;
const STATE_BITS: u32 = 48;

/// See the head of the file.
pub(crate) struct Lines {
    seed: u64,
    /// Words of a row: the state, and a sum for each line.
    row_words: usize,
    chunks: OnceLock<Box<[Chunk]>>,
}

type Chunk = OnceLock<Box<[AtomicU64]>>;

/// Who claims pages for a call; one for each thread that compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Learner(u64);

impl Learner {
    /// A new one.
    pub(crate) fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(KNOWN + 1);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// The state of a page, and its sums.
#[derive(Clone, Copy)]
struct Row<'a> {
    page: u64,
    state: &'a AtomicU64,
    sums: &'a [AtomicU64],
}

impl Row<'_> {
    /// The word for `state` of this row's page.
    fn word(&self, state: u64) -> u64 {
        match state {
            UNKNOWN => UNKNOWN,
            state => (self.page / LINES_PAGES_MAX) << STATE_BITS | state,
        }
    }

    /// The word that is there, if it says that the sums are those of this page.
    fn known(&self) -> Option<u64> {
        let word = self.state.load(Ordering::Acquire);
        let state = word & ((1 << STATE_BITS) - 1);
        (state >= KNOWN && word == self.word(state)).then_some(word)
    }

    /// Replaces `word` by that for `state`.
    fn change(&self, word: u64, state: u64) -> bool {
        self.state
            .compare_exchange(word, self.word(state), Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
    }
}

/// A known page that a call has claimed, to compare it.
pub(crate) struct Claimed<'a> {
    row: Row<'a>,
    seed: u64,
}

impl Claimed<'_> {
    /// Puts the ranges of `new` that differ from the page into `ranges`; the sums are those of `new` then.
    pub(crate) fn compare(self, new: &[u8], ranges: &mut Vec<(usize, usize)>) {
        ranges.clear();
        for (index, (line, kept)) in new.chunks_exact(LINE_BYTES).zip(self.row.sums).enumerate() {
            let sum = XxHash3_64::oneshot_with_seed(self.seed, line);
            if kept.load(Ordering::Relaxed) == sum {
                continue;
            }
            kept.store(sum, Ordering::Relaxed);
            let start = index * LINE_BYTES;
            match ranges.last_mut() {
                Some((_, end)) if *end == start => *end += LINE_BYTES,
                _ => ranges.push((start, start + LINE_BYTES)),
            }
        }
    }
}

impl Lines {
    /// Nothing is known of any page.
    pub(crate) fn new(page_size: PageSize) -> Self {
        Self {
            seed: RandomState::new().hash_one(0),
            row_words: 1 + page_size.bytes() as usize / LINE_BYTES,
            chunks: OnceLock::new(),
        }
    }

    /// Whether `page` is likely to be claimed; then its sums are on their way to the processor.
    pub(crate) fn is_known(&self, page: u64) -> bool {
        let row = self.row(page).filter(|row| row.known().is_some());
        row.inspect(|row| prefetch(row.sums)).is_some()
    }

    /// Claims `page` for a call that compares it, if it is known. Nothing of it is queued.
    pub(crate) fn claim(&self, page: u64, learner: Learner) -> Option<Claimed<'_>> {
        let row = self.row(page)?;
        let claimed = row.change(row.known()?, learner.0);
        claimed.then_some(Claimed { row, seed: self.seed })
    }

    /// Keeps the sums of `new`, which a call makes of the page; `false` where others are at work on its row.
    pub(crate) fn learn(&self, page: u64, new: &[u8], learner: Learner) -> bool {
        let row = self.row_to_fill(page);
        // Another page's row is taken over only where no call can be at work on it.
        let word = row.known().unwrap_or_else(|| {
            let word = row.state.load(Ordering::Acquire);
            let idle = word & ((1 << STATE_BITS) - 1) == KNOWN;
            if idle { word } else { UNKNOWN }
        });
        row.change(word, learner.0) && self.fill(row, new)
    }

    /// The same for a page that is applied, unless the row is in use. [`Lines::applied`] follows.
    pub(crate) fn learn_applied(&self, page: u64, new: &[u8]) -> bool {
        let row = self.row_to_fill(page);
        row.change(UNKNOWN, APPLY) && self.fill(row, new)
    }

    fn fill(&self, row: Row<'_>, new: &[u8]) -> bool {
        for (line, kept) in new.chunks_exact(LINE_BYTES).zip(row.sums) {
            kept.store(XxHash3_64::oneshot_with_seed(self.seed, line), Ordering::Relaxed);
        }
        true
    }

    /// A page that was learned is in its image; `newest`: nothing newer waits or is queued. The queue is locked.
    pub(crate) fn applied(&self, page: u64, newest: bool) {
        if let Some(row) = self.row(page) {
            row.change(row.word(APPLY), if newest { KNOWN } else { UNKNOWN });
        }
    }

    /// A call compares the page, and may change it, without learning.
    pub(crate) fn forget(&self, page: u64) {
        if let Some((row, word)) = self.row(page).and_then(|row| Some((row, row.known()?))) {
            row.change(word, UNKNOWN);
        }
    }

    /// A call that changed the page without learning is durable. Before, who applied may have found the page as it was. The
    /// queue is locked.
    pub(crate) fn settle(&self, page: u64) {
        if let Some(row) = self.row(page) {
            row.change(row.word(KNOWN), UNKNOWN);
        }
    }

    /// What `learner` made of the page is not supplied.
    pub(crate) fn give_up(&self, page: u64, learner: Learner) {
        if let Some(row) = self.row(page) {
            row.change(row.word(learner.0), UNKNOWN);
        }
    }

    fn row(&self, page: u64) -> Option<Row<'_>> {
        let (chunk, index) = place(page);
        let chunk = self.chunks.get()?[chunk].get()?;
        Some(self.row_in(chunk, index, page))
    }

    /// The same; there is room for it then.
    fn row_to_fill(&self, page: u64) -> Row<'_> {
        let (chunk, index) = place(page);
        let count = LINES_PAGES_MAX as usize / CHUNK_ROWS;
        let chunks = self
            .chunks
            .get_or_init(|| (0..count).map(|_| Chunk::new()).collect());
        let chunk = chunks[chunk].get_or_init(|| zeroes(CHUNK_ROWS * self.row_words));
        self.row_in(chunk, index, page)
    }

    fn row_in<'a>(&self, chunk: &'a [AtomicU64], index: usize, page: u64) -> Row<'a> {
        let row = &chunk[index * self.row_words..][..self.row_words];
        let (state, sums) = row.split_first().expect("a row has a state");
        Row { page, state, sums }
    }
}

/// The chunk and the row in it that `page` shares with others.
fn place(page: u64) -> (usize, usize) {
    let row = (page % LINES_PAGES_MAX) as usize;
    (row / CHUNK_ROWS, row % CHUNK_ROWS)
}

/// `count` words that are zero; the system makes room for them when they are used.
fn zeroes(count: usize) -> Box<[AtomicU64]> {
    // SAFETY: all zeroes is a value of an `AtomicU64`, which is in memory as a `u64` is.
    unsafe { Box::new_zeroed_slice(count).assume_init() }
}

/// Has the processor fetch `memory` while it works on something else: of a page that nobody touched lately its own prefetcher sees little.
/// (Comparing 100 such pages took 106 us, then 85.)
pub(crate) fn prefetch<T>(memory: &[T]) {
    #[cfg(target_arch = "x86_64")]
    for line in memory.chunks((64 / size_of::<T>()).max(1)) {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: a hint, which changes nothing, wherever it points.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(line.as_ptr().cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = memory;
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use vmsync_pager_conformance::random::Random;

    use super::*;

    const PAGE: usize = 4096;

    /// A page as the store has it, and what is under way.
    struct Page {
        number: u64,
        durable: Vec<u8>,
        version: u64,
        queued: VecDeque<(Vec<u8>, Option<Learner>)>,
        under_way: Option<(Vec<u8>, Option<Learner>)>,
        /// The version that is being applied, and whether it was learned.
        applied: Option<(u64, bool)>,
        /// What it was, or was to be: a guest tries again, and takes back.
        before: VecDeque<Vec<u8>>,
    }

    impl Page {
        fn supplied(&self) -> &Vec<u8> {
            self.queued.back().map_or(&self.durable, |(bytes, _)| bytes)
        }

        /// A call returns the page, and compares it.
        fn begin(&mut self, lines: &Lines, random: &mut Random) -> bool {
            let mut new = self.supplied().clone();
            if let (true, Some(before)) = (random.once_in(2), self.before.get(random.below(3) as usize)) {
                new.clone_from(before);
            } else {
                for _ in 0..random.below(4) {
                    let place = random.below(PAGE as u64) as usize;
                    new[place] = random.number() as u8;
                }
            }
            self.before.push_front(new.clone());
            self.before.truncate(3);
            let learner = Learner::next();
            let known = self.queued.is_empty() && lines.is_known(self.number);
            if let Some(claimed) = known.then(|| lines.claim(self.number, learner)).flatten() {
                let (mut ranges, mut patched) = (Vec::new(), self.supplied().clone());
                claimed.compare(&new, &mut ranges);
                for (start, end) in &ranges {
                    patched[*start..*end].copy_from_slice(&new[*start..*end]);
                }
                assert!(patched == new, "page {}: a change goes unnoticed", self.number);
                assert!(ranges.windows(2).all(|pair| pair[0].1 < pair[1].0));
                self.under_way = (!ranges.is_empty()).then_some((new, Some(learner)));
                return true;
            }
            if new != *self.supplied() {
                let scattered = !random.once_in(3);
                let learned = scattered && lines.learn(self.number, &new, learner);
                if !learned {
                    lines.forget(self.number);
                }
                self.under_way = Some((new, learned.then_some(learner)));
            }
            false
        }

        fn step(&mut self, lines: &Lines, random: &mut Random) -> bool {
            match random.below(8) {
                0..3 if self.under_way.is_none() => return self.begin(lines, random),
                3 if random.once_in(3) => {
                    if let Some((_, Some(learner))) = self.under_way.take() {
                        lines.give_up(self.number, learner);
                    }
                }
                3 | 4 => self.queued.extend(self.under_way.take()),
                5 if random.once_in(6) => {
                    for (_, learner) in self.queued.drain(..) {
                        learner.inspect(|learner| lines.give_up(self.number, *learner));
                    }
                }
                5 | 6 => {
                    if let Some((bytes, learner)) = self.queued.pop_front() {
                        (self.durable, self.version) = (bytes, self.version + 1);
                        if learner.is_none() {
                            lines.settle(self.number);
                        }
                    }
                }
                7 => match self.applied.take() {
                    None => {
                        let learned = lines.learn_applied(self.number, &self.durable);
                        self.applied = Some((self.version, learned));
                    }
                    Some((version, true)) => {
                        let newest = version == self.version && self.queued.is_empty();
                        lines.applied(self.number, newest);
                    }
                    Some((_, false)) => {}
                },
                _ => {}
            }
            false
        }
    }

    #[test]
    fn no_change_goes_unnoticed_whoever_learned_the_page() {
        let mut random = Random::from_environment("lines");
        let lines = Lines::new(PageSize::KIB_4);
        // The last two share their rows with the first two.
        let mut pages: Vec<Page> = [0, 700, LINES_PAGES_MAX, LINES_PAGES_MAX + 700]
            .map(|number| Page {
                number,
                durable: vec![0; PAGE],
                version: 0,
                queued: VecDeque::new(),
                under_way: None,
                applied: None,
                before: VecDeque::new(),
            })
            .into();
        let mut claimed = [0; 4];
        for _ in 0..200_000 {
            let index = random.below(4) as usize;
            claimed[index] += u64::from(pages[index].step(&lines, &mut random));
        }
        println!("claimed {claimed:?}");
        assert!(claimed.iter().sum::<u64>() > 1000, "{claimed:?}");
    }
}
