//! [`Call`]: what one `vm_msync` has sent so far, and [`Prepared`]: the same ready for the journal.
//!
//! ```text
//!   data_return --> Run { bytes, Delta }    Delta: encoded entries + Changed pages, against the committed base
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
    difference::difference,
    layout::{
        Seed,
        entry::{CALL_HEADER_BYTES, CatalogChange, encode_call_header, encode_change, encode_page},
        record::HEADER_BYTES,
    },
    object::{Object, PageBytes},
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
    pub(crate) delta: Delta,
}

/// What differs from the base.
#[derive(Default)]
pub(crate) struct Delta {
    /// When the base was read.
    pub(crate) epoch: u64,
    pub(crate) entries: Vec<u8>,
    pub(crate) changed: Vec<Changed>,
}

/// A page that differs.
#[derive(Clone)]
pub(crate) struct Changed {
    pub(crate) object: Arc<Object>,
    pub(crate) page: u64,
    pub(crate) sum: u64,
    pub(crate) bytes: PageBytes,
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

impl Delta {
    /// The difference of `bytes`, pages of `object` from `first` on, and `base`, read at `epoch`.
    pub(crate) fn new(
        (seed, page_size): (Seed, PageSize),
        object: &Arc<Object>,
        first: u64,
        bytes: &Arc<Buffer>,
        (base, epoch): (&[u8], u64),
    ) -> Self {
        assert!(base.len() == bytes.len());
        let mut delta = Self {
            epoch,
            ..Self::default()
        };
        let length = page_size.bytes() as usize;
        let mut runs = Vec::new();
        for (index, (old, new)) in base
            .chunks_exact(length)
            .zip(bytes.chunks_exact(length))
            .enumerate()
        {
            difference(old, new, &mut runs);
            if runs.is_empty() {
                continue;
            }
            let page = first + index as u64;
            let sum = seed.page_sum(object.id, page, new);
            encode_page(&mut delta.entries, (object.id, page, sum), new, &runs);
            delta.changed.push(Changed {
                object: object.clone(),
                page,
                sum,
                bytes: PageBytes::new(bytes, index * length),
            });
        }
        delta
    }
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
                    delta: Delta::default(),
                };
                pages.insert((run.object.id, page), single);
            }
        }
        self.runs.extend(pages.into_values());
    }
}

impl Run {
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
        let length: usize = runs.iter().map(|run| run.delta.entries.len()).sum();
        let mut record = Vec::with_capacity(front + length + 64);
        record.resize(front, 0);
        let mut changed = Vec::new();
        for run in runs {
            record.extend_from_slice(&run.delta.entries);
            changed.extend(run.delta.changed);
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
