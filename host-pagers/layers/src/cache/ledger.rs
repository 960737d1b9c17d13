//! [`Ledger`]: which pages of one object calls on their way have touched, and what became of them.
//!
//! A completion names a range and no call, so calls are not told apart. What counts is the moment at which none is on its
//! way any more:
//!
//! ```text
//!   a period:  returned, requested, handed over … completed, completed, … the last one
//!              all were synchronous and succeeded   -->  the bytes of a page that one return has touched are known
//!              one failed                           -->  the remote store says what the pages are now
//!              one was asynchronous                 -->  not even that: wait for a later period without one
//! ```
//!
//! Invariants:
//! - a page is in `touched` from before the remote store has it until the copy has it, or has forgotten it;
//! - bytes are known only where one call alone has touched the page.

use std::{
    collections::{BTreeMap, HashMap},
    mem,
    sync::Arc,
};

use vmsync_core::pager::CallId;

use crate::limits::HELD_BYTES_MAX;

/// Pages that calls have touched, and their bytes where they are known.
pub(super) type Touched = BTreeMap<u64, Option<Arc<[u8]>>>;

/// A call that can still return pages.
#[derive(Default)]
pub(super) struct Open {
    pages: Vec<u64>,
    /// Completions that will answer it.
    requests: usize,
}

/// See the head of this file.
#[derive(Default)]
pub(super) struct Ledger {
    touched: Touched,
    held_bytes: usize,
    calls: HashMap<CallId, Open>,
    /// Completions that are to come.
    outstanding: usize,
    /// In this period something failed.
    failed: bool,
    /// In this period a call was asynchronous.
    asynchronous: bool,
    generation: u64,
}

impl Ledger {
    /// Another number after each return, and where the copy moves on: pages that were asked for before are not to be kept.
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// The copy moves on to another version.
    pub(super) fn moved_on(&mut self) {
        self.generation += 1;
    }

    pub(super) fn has_touched(&self, first: u64, count: u64) -> bool {
        let range = first..first.saturating_add(count);
        self.touched.range(range).next().is_some()
    }

    /// `call` hands pages of `page_bytes` back, from `first` on.
    pub(super) fn returned(&mut self, call: CallId, first: u64, pages: &[u8], page_bytes: usize) {
        self.generation += 1;
        let open = self.calls.entry(call).or_default();
        for (page, bytes) in (first..).zip(pages.chunks_exact(page_bytes)) {
            open.pages.push(page);
            let known = !self.touched.contains_key(&page) && self.held_bytes < HELD_BYTES_MAX;
            self.held_bytes += if known { bytes.len() } else { 0 };
            self.touched.insert(page, known.then(|| bytes.into()));
        }
    }

    /// A completion for `call` is to come.
    pub(super) fn requested(&mut self, call: CallId) {
        self.calls.entry(call).or_default().requests += 1;
        self.outstanding += 1;
    }

    /// `call` is complete; answers with what it was. One that returned pages and asked for no completion stays open, for
    /// nobody will tell what became of it.
    pub(super) fn handed_over(&mut self, call: CallId, synchronous: bool) -> Option<Open> {
        self.calls.get(&call).filter(|open| open.requests > 0)?;
        if !synchronous {
            self.asynchronous = true;
            self.forget(call);
        }
        self.calls.remove(&call)
    }

    /// The last request of `call` was refused: it is `open` again.
    pub(super) fn taken_back(&mut self, call: CallId, open: Open) {
        self.calls.insert(call, open);
    }

    /// `call` is dropped, and no completion of it will come.
    pub(super) fn aborted(&mut self, call: CallId) {
        self.forget(call);
        if let Some(open) = self.calls.remove(&call) {
            self.outstanding = self.outstanding.saturating_sub(open.requests);
        }
    }

    /// Pages of `call` were refused.
    pub(super) fn refused(&mut self, call: CallId) {
        self.forget(call);
    }

    /// A request of `call` was refused: no completion of it will come.
    pub(super) fn request_refused(&mut self, call: CallId) {
        if let Some(open) = self.calls.get_mut(&call) {
            open.requests = open.requests.saturating_sub(1);
        }
        self.outstanding = self.outstanding.saturating_sub(1);
        self.failed = true;
    }

    /// A completion has come. Answers with what the copy has to take over, when nothing is on its way any more.
    pub(super) fn completed(&mut self, succeeded: bool) -> Option<Touched> {
        self.failed |= !succeeded;
        self.outstanding = self.outstanding.saturating_sub(1);
        if self.outstanding > 0 || !self.calls.is_empty() {
            return None;
        }
        let (failed, asynchronous) = (mem::take(&mut self.failed), mem::take(&mut self.asynchronous));
        if failed || asynchronous {
            self.touched.values_mut().for_each(|bytes| *bytes = None);
        }
        if asynchronous {
            return None;
        }
        self.held_bytes = 0;
        self.moved_on();
        Some(mem::take(&mut self.touched))
    }

    /// The object is closed: there is no copy for bytes to go to. Answers whether nothing has to be remembered.
    pub(super) fn closed(&mut self) -> bool {
        self.touched.values_mut().for_each(|bytes| *bytes = None);
        self.held_bytes = 0;
        self.touched.is_empty() && self.calls.is_empty() && self.outstanding == 0
    }

    /// What the pages of `call` are is not known any more.
    fn forget(&mut self, call: CallId) {
        let Some(open) = self.calls.get(&call) else { return };
        for page in &open.pages {
            self.touched.insert(*page, None);
        }
    }
}
