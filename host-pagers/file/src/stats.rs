//! [`Stats`]: what a store has done since it was opened.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts since the store was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Calls that became durable.
    pub calls: u64,
    /// Records written; less than `calls` where calls shared one.
    pub records: u64,
    /// Bytes of those records.
    pub bytes_journaled: u64,
    /// Syncs of the journal.
    pub syncs: u64,
    /// Pages handed back.
    pub pages_returned: u64,
    /// Of those, pages that differed from what was committed.
    pub pages_changed: u64,
    /// Checkpoints that were completed.
    pub checkpoints: u64,
    /// Groups of calls that failed.
    pub failures: u64,
}

#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) calls: AtomicU64,
    pub(crate) records: AtomicU64,
    pub(crate) bytes_journaled: AtomicU64,
    pub(crate) syncs: AtomicU64,
    pub(crate) pages_returned: AtomicU64,
    pub(crate) pages_changed: AtomicU64,
    pub(crate) checkpoints: AtomicU64,
    pub(crate) failures: AtomicU64,
}

/// Adds to a count that nothing is ordered by.
pub(crate) fn count(counter: &AtomicU64, amount: u64) {
    counter.fetch_add(amount, Ordering::Relaxed);
}

impl Counters {
    pub(crate) fn read(&self) -> Stats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            calls: read(&self.calls),
            records: read(&self.records),
            bytes_journaled: read(&self.bytes_journaled),
            syncs: read(&self.syncs),
            pages_returned: read(&self.pages_returned),
            pages_changed: read(&self.pages_changed),
            checkpoints: read(&self.checkpoints),
            failures: read(&self.failures),
        }
    }
}
