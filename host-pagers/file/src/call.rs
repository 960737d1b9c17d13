//! [`Call`]: what one `vm_msync` has sent so far, and [`Prepared`]: the same ready for the journal.
//!
//! ```text
//!   data_return --> Run { bytes }       its Delta comes from delta.rs
//!   synchronize --> Call { runs, answers } --prepare--> Prepared { record, changed, changes, answers }
//! ```
//!
//! Invariants:
//! - a delta is only used while no page that it was computed against has changed since (`epoch`);
//! - a page occurs once in a prepared call.

use std::{collections::BTreeMap, sync::Arc};

use vmsync_core::{ByteRange, PageSize, PagerError, pager::MemoryObjectControl};

use crate::{
    buffer::{Buffer, Pool},
    delta::{Changed, Delta},
    layout::{
        entry::{CALL_HEADER_BYTES, CatalogChange, encode_call_header, encode_change},
        record::HEADER_BYTES,
    },
    object::Object,
    queue::Queue,
    waiter::Waiter,
};

/// A call under way.
#[derive(Default)]
pub(crate) struct Call {
    pub(crate) runs: Vec<Run>,
    pub(crate) answers: Vec<Answer>,
    pub(crate) bytes: usize,
}

/// A run of pages that came back.
pub(crate) struct Run {
    pub(crate) object: Arc<Object>,
    /// Where the object was last mapped by who returned it.
    pub(crate) address: Option<u64>,
    pub(crate) first: u64,
    pub(crate) bytes: Arc<Buffer>,
    /// `None` until it is computed, and when it is out of date.
    pub(crate) delta: Option<Delta>,
}

/// Somebody who waits for the outcome of a call.
pub(crate) enum Answer {
    /// The runtime.
    Control {
        control: Arc<dyn MemoryObjectControl>,
        range: ByteRange,
    },
    /// A thread in this crate.
    Waiter(Arc<Waiter>),
}

/// A call that can be journaled.
pub(crate) struct Prepared {
    /// Room for a record's header, a call's header, entries.
    pub(crate) record: Vec<u8>,
    pub(crate) changed: Vec<Changed>,
    pub(crate) changes: Vec<CatalogChange>,
    /// The object that the call makes or grows.
    pub(crate) resized: Option<Arc<Object>>,
    pub(crate) answers: Vec<Answer>,
    /// Whether the answers were given when the call was queued.
    pub(crate) write_behind: bool,
}

impl Call {
    /// Whether a page was returned twice.
    pub(crate) fn repeats_pages(&self, page_size: PageSize) -> bool {
        let mut ranges: Vec<_> = self
            .runs
            .iter()
            .map(|run| (run.object.id, run.pages(page_size)))
            .collect();
        ranges.sort_unstable();
        ranges
            .windows(2)
            .any(|pair| pair[0].0 == pair[1].0 && pair[1].1.0 < pair[0].1.1)
    }

    /// Drops the deltas that are out of date; whether there was none. While `queue` is locked none becomes so.
    pub(crate) fn forget_stale_deltas(&mut self, queue: &Queue, page_size: PageSize) -> bool {
        let mut all_fresh = true;
        for run in &mut self.runs {
            let (id, pages) = (run.object.id, run.pages(page_size));
            let stale = |delta: &Delta| queue.changed_since(id, pages, delta.epoch);
            if run.delta.as_ref().is_none_or(stale) {
                run.delta = None;
                all_fresh = false;
            }
        }
        all_fresh
    }

    /// Leaves the last return of each page, as runs of one page. The deltas are gone with it.
    pub(crate) fn keep_last_returns(&mut self, page_size: PageSize, pool: &Arc<Pool>) {
        let length = page_size.bytes() as usize;
        let mut pages = BTreeMap::new();
        for run in self.runs.drain(..) {
            for (page, bytes) in (run.first..).zip(run.bytes.chunks_exact(length)) {
                let single = Run {
                    object: run.object.clone(),
                    address: run.address,
                    first: page,
                    bytes: pool.copy(bytes),
                    delta: None,
                };
                pages.insert((run.object.id, page), single);
            }
        }
        self.runs.extend(pages.into_values());
    }
}

impl Run {
    /// Whether its delta has anything in it.
    pub(crate) fn is_changed(&self) -> bool {
        self.delta.as_ref().is_some_and(|delta| !delta.changed.is_empty())
    }

    /// Its pages: the first and the one behind the last.
    pub(crate) fn pages(&self, page_size: PageSize) -> (u64, u64) {
        (
            self.first,
            self.first + page_size.page_of(self.bytes.len() as u64),
        )
    }
}

impl Prepared {
    /// A call that changes the catalog only.
    pub(crate) fn of_changes(changes: Vec<CatalogChange>, answer: Answer) -> Self {
        Self::new(Vec::new(), changes, vec![answer])
    }

    /// The call that `runs` make, with `changes` of the catalog.
    pub(crate) fn new(runs: Vec<Run>, changes: Vec<CatalogChange>, answers: Vec<Answer>) -> Self {
        let front = HEADER_BYTES + CALL_HEADER_BYTES;
        let deltas: Vec<Delta> = runs.into_iter().filter_map(|run| run.delta).collect();
        let length: usize = deltas.iter().map(|delta| delta.entries.len()).sum();
        let mut record = Vec::with_capacity(front + length + 64);
        record.resize(front, 0);
        let mut changed = Vec::new();
        for delta in deltas {
            record.extend_from_slice(&delta.entries);
            changed.extend(delta.changed);
        }
        changes
            .iter()
            .for_each(|change| encode_change(&mut record, change));
        let (length, entries) = (record.len() - front, changed.len() + changes.len());
        encode_call_header(&mut record[HEADER_BYTES..front], length, entries);
        Self {
            record,
            changed,
            changes,
            resized: None,
            answers,
            write_behind: false,
        }
    }

    /// Whether there is anything to journal.
    pub(crate) fn is_empty(&self) -> bool {
        self.changed.is_empty() && self.changes.is_empty()
    }

    /// Its bytes in a record.
    pub(crate) fn body(&self) -> &[u8] {
        &self.record[HEADER_BYTES..]
    }
}

impl Answer {
    /// The same once more: a queued call is answered when it is queued, and told later if it fails.
    pub(crate) fn again(&self) -> Self {
        match self {
            Self::Control { control, range } => Self::Control {
                control: control.clone(),
                range: *range,
            },
            Self::Waiter(waiter) => Self::Waiter(waiter.clone()),
        }
    }

    /// Whether `control` gets it.
    pub(crate) fn is_for(&self, control: &Arc<dyn MemoryObjectControl>) -> bool {
        match self {
            Self::Control { control: own, .. } => Arc::as_ptr(own).addr() == Arc::as_ptr(control).addr(),
            Self::Waiter(_) => false,
        }
    }

    /// Tells that the call is durable.
    pub(crate) fn succeed(self) {
        match self {
            // A refusal means that the runtime gave the request up (a time-out); the commit stands.
            Self::Control { control, range } => drop(control.synchronize_completed(range, Ok(()))),
            Self::Waiter(waiter) => waiter.finish(Ok(())),
        }
    }

    /// Tells that the call failed; `write_behind`: after it was said to be queued.
    pub(crate) fn fail(self, error: PagerError, write_behind: bool) {
        match self {
            Self::Control { control, range } if write_behind => control.write_behind_failed(range, error),
            Self::Control { control, range } => drop(control.synchronize_completed(range, Err(error))),
            Self::Waiter(waiter) => waiter.finish(Err(error)),
        }
    }
}
