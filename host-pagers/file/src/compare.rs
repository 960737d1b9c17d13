//! Comparing what came back with what is supplied.
//!
//! ```text
//!   runs --in chunks, for several threads where there are many--> a page whose lines' sums are known? -------------> summed
//!                                                                 |-- the image alone is the base, and in memory? --> looked at
//!                                                                 '-- else a copy of it, with what is newer --------> compared
//! ```
//!
//! Pages are compared where they are: memory that nobody touched lately is what it waits for, and a copy waits as well.
//!
//! Invariants:
//! - no lock is held while pages are read but the call's, and for reading that of the file's mapping;
//! - what is compared with may change meanwhile: `epoch` tells later.

use std::{
    cell::RefCell,
    iter,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize},
    },
};

use vmsync_core::{ByteRange, PageRange, pager::Run};

use crate::{
    ahead::Newer,
    call::Call,
    delta::Delta,
    difference::{difference, difference_of_shared},
    disk::Result,
    helpers::with_helpers,
    limits::{COMPARE_PAGES, HELPER_PAGES, SHOWN_PAGES_MIN},
    lines::prefetch,
    object::Object,
    store::{Background, Shared, lock},
};

thread_local! {
    /// What pages are compared with; at most as long as the longest run.
    static BASE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// What a run that is compared with a copy of its base is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// One of few that change again and again: what it is compared with is kept ([`Shared::keep_whole`]).
    Hot,
    /// Any other.
    Cold,
    /// Perhaps back once more in the same call.
    Again,
}

impl Shared {
    /// Adds to `call` what `runs`, pages of `object`, change.
    ///
    /// # Errors
    /// The disk's, reading the base: then the call is to be aborted.
    pub(crate) fn compare(&self, call: &mut Call, object: &Arc<Object>, runs: &[Run<'_>]) -> Result<()> {
        let (mut ascend, behind) = (true, &mut call.objects.entry(object.id).or_default().behind);
        for pages in runs.iter().map(|run| self.pages_of(run)) {
            ascend &= *behind <= pages.start;
            *behind = pages.end.max(*behind);
        }
        if ascend {
            return self.compare_ascending(call, object, runs);
        }
        for run in runs {
            let (epoch, newer) = self.newer(object, self.pages_of(run));
            call.delta.seen_at(epoch);
            let (delta, unread) = (&mut call.delta, &call.unread_bytes_left);
            self.compare_copied(delta, unread, object, run, (Way::Again, newer))?;
        }
        Ok(())
    }

    /// The same for pages none of which came back before.
    fn compare_ascending(&self, call: &mut Call, object: &Arc<Object>, runs: &[Run<'_>]) -> Result<()> {
        let (delta, unread) = (&mut call.delta, &call.unread_bytes_left);
        let pages: u64 = runs.iter().map(|run| self.pages_of(run).len()).sum();
        if pages <= COMPARE_PAGES {
            return self.compare_chunk(delta, unread, object, runs);
        }
        let mut chunks = self.chunks(runs).into_iter();
        let helpers = match self.options.background {
            Background::Thread => (pages / HELPER_PAGES).saturating_sub(1) as usize,
            Background::Caller | Background::Host => 0,
        };
        let helpers = helpers.min(chunks.len().saturating_sub(1));
        if helpers == 0 {
            return chunks.try_for_each(|runs| self.compare_chunk(delta, unread, object, runs));
        }
        let (chunks, found) = (Mutex::new(chunks), Mutex::new(Vec::new()));
        with_helpers(helpers, &|| {
            let mut part = Delta::default();
            let compared = iter::from_fn(|| lock(&chunks).next())
                .try_for_each(|runs| self.compare_chunk(&mut part, unread, object, runs));
            if compared.is_err() {
                // Nobody needs the rest.
                lock(&chunks).by_ref().for_each(drop);
            }
            lock(&found).push((part, compared));
        });
        for (part, compared) in found.into_inner().unwrap_or_else(PoisonError::into_inner) {
            compared?;
            delta.append(part);
        }
        Ok(())
    }

    /// Parts of `runs` of at least [`COMPARE_PAGES`], but for the last.
    fn chunks<'a, 'b>(&self, runs: &'a [Run<'b>]) -> Vec<&'a [Run<'b>]> {
        let (mut chunks, mut start, mut pages) = (Vec::new(), 0, 0);
        for (index, run) in runs.iter().enumerate() {
            pages += self.pages_of(run).len();
            if pages >= COMPARE_PAGES || index + 1 == runs.len() {
                chunks.push(&runs[start..=index]);
                (start, pages) = (index + 1, 0);
            }
        }
        chunks
    }

    /// Adds what `runs`, none of which came back before, change.
    fn compare_chunk(
        &self,
        delta: &mut Delta,
        unread: &AtomicUsize,
        object: &Arc<Object>,
        runs: &[Run<'_>],
    ) -> Result<()> {
        let many = runs.iter().map(|run| self.pages_of(run).len()).sum::<u64>() >= SHOWN_PAGES_MIN;
        // Memory that nobody touched lately is waited for before the lock.
        let known = |pages: PageRange| pages.len() == 1 && object.lines.is_known(pages.start);
        let known: Vec<bool> = runs.iter().map(|run| known(self.pages_of(run))).collect();
        let (mut claimed, mut shown, mut copied) = (Vec::new(), Vec::new(), Vec::new());
        {
            let queue = lock(&self.queue);
            delta.seen_at(queue.epoch());
            for (run, known) in runs.iter().zip(known) {
                let pages = self.pages_of(run);
                let in_image = queue.ahead.is_in_image(object.id, pages);
                let free = known && (in_image || (many && !queue.ahead.is_queued(object.id, pages)));
                let page = free.then(|| object.lines.claim(pages.start, delta.learner));
                if let Some(page) = page.flatten() {
                    claimed.push((page, run));
                } else if many && in_image {
                    shown.push(run);
                } else if in_image {
                    copied.push((run, Way::Cold, Vec::new()));
                } else {
                    let way = if many { Way::Cold } else { Way::Hot };
                    copied.push((run, way, queue.ahead.newer(object.id, pages)));
                }
            }
        }
        let mut ranges = Vec::new();
        let mut claimed = claimed.into_iter().peekable();
        while let Some((page, run)) = claimed.next() {
            if let Some((_, next)) = claimed.peek() {
                prefetch(next.pages);
            }
            page.compare(run.pages, &mut ranges);
            let page = self.pages_of(run).start;
            self.add(delta, object, page, run.pages, (&ranges, true));
        }
        let places: Vec<ByteRange> = shown
            .iter()
            .map(|run| self.page_size.byte_range(self.pages_of(run)))
            .collect();
        let mut shown = shown.into_iter();
        object.image.show_cached(&places, &mut |base| {
            let run = shown.next().expect("each range is shown once");
            match base {
                Some(base) => self.compare_shown(delta, object, run, base),
                None => copied.push((run, Way::Cold, Vec::new())),
            }
        });
        for (run, way, newer) in copied {
            self.compare_copied(delta, unread, object, run, (way, newer))?;
        }
        Ok(())
    }

    /// The same for one run, whose base is the image as it is.
    fn compare_shown(&self, delta: &mut Delta, object: &Arc<Object>, run: &Run<'_>, base: &[AtomicU64]) {
        let page_bytes = self.page_size.bytes() as usize;
        let base = base.chunks_exact(page_bytes / size_of::<u64>());
        let mut ranges = Vec::new();
        for (number, (old, new)) in
            (self.pages_of(run).start..).zip(base.zip(run.pages.chunks_exact(page_bytes)))
        {
            difference_of_shared(old, new, &mut ranges);
            let scattered = run.pages.len() == page_bytes;
            let learned = !ranges.is_empty() && learn(delta, object, number, new, scattered);
            self.add(delta, object, number, new, (&ranges, learned));
        }
    }

    /// The same for one run, with `newer` than the image: a copy of its base, or what is kept of it as a whole.
    fn compare_copied(
        &self,
        delta: &mut Delta,
        unread: &AtomicUsize,
        object: &Arc<Object>,
        run: &Run<'_>,
        (way, newer): (Way, Vec<Newer>),
    ) -> Result<()> {
        let page_bytes = self.page_size.bytes() as usize;
        let pages = self.pages_of(run);
        let scattered = way == Way::Cold && pages.len() == 1;
        let mut ranges = Vec::new();
        let mut compare = |delta: &mut Delta, number, old: &[u8], new: &[u8]| {
            difference(old, new, &mut ranges);
            let learned = !ranges.is_empty() && learn(delta, object, number, new, scattered);
            self.add(delta, object, number, new, (&ranges, learned));
        };
        let whole = |newer: &Newer| newer.durable_page(self.page_size).is_some();
        if way != Way::Again && newer.len() as u64 == pages.len() && newer.iter().all(whole) {
            for (newer, new) in newer.iter().zip(run.pages.chunks_exact(page_bytes)) {
                let old = newer.durable_page(self.page_size).expect("it is whole");
                compare(delta, pages.start + newer.index as u64, old, new);
            }
            return Ok(());
        }
        BASE.with_borrow_mut(|base| {
            base.resize(run.pages.len(), 0);
            let all_read = self.read_base(object, run.offset, (run.pages, base), unread, &newer)?;
            if all_read && way != Way::Again && !scattered {
                self.keep_whole(object, pages.start, &newer, base);
            }
            if way == Way::Again {
                delta.rebase(object.id, pages.start, base, page_bytes);
            }
            let base = base.chunks_exact(page_bytes);
            for (number, (old, new)) in (pages.start..).zip(base.zip(run.pages.chunks_exact(page_bytes))) {
                compare(delta, number, old, new);
            }
            Ok(())
        })
    }

    /// Adds a page that came back as `new`, which differs in `ranges`.
    fn add(
        &self,
        delta: &mut Delta,
        object: &Arc<Object>,
        number: u64,
        new: &[u8],
        (ranges, learned): (&[(usize, usize)], bool),
    ) {
        if !ranges.is_empty() {
            let sum = self.seed.page_sum(object.id, number, new);
            delta.add(object, (number, sum), new, ranges, learned);
        }
    }

    fn pages_of(&self, run: &Run<'_>) -> PageRange {
        self.pages(run.offset, run.pages.len())
    }
}

/// Keeps the sums of the lines of a page that came back as `new`, where it is `scattered`; otherwise they are forgotten.
fn learn(delta: &Delta, object: &Object, number: u64, new: &[u8], scattered: bool) -> bool {
    let learned = scattered && object.lines.learn(number, new, delta.learner);
    if !learned {
        object.lines.forget(number);
    }
    learned
}
