//! [`Call`]: what one `vm_msync` has sent so far, and [`Queued`]: the same on its way into a batch.
//!
//! Invariants:
//! - a page occurs once in a call, as it was returned last;
//! - a failure of an asynchronous call is told at once, perhaps before it was told that the call is queued.

use std::{
    collections::BTreeMap,
    sync::{Arc, mpsc::SyncSender},
};

use vmsync_core::{
    ByteRange, PagerError,
    pager::{MemoryObjectControl, ObjectName},
};

use crate::{Pages, Result};

/// A call under way.
#[derive(Default)]
pub(crate) struct Call {
    pub(crate) pages: Pages,
    /// The objects that it changes, and where each was mapped last.
    pub(crate) objects: BTreeMap<ObjectName, Option<u64>>,
    pub(crate) answers: Vec<Answer>,
    /// Bytes of its pages.
    pub(crate) bytes: usize,
    /// Something was lost since it began: why, and why it fails.
    pub(crate) lost: Option<PagerError>,
}

/// A call that waits for its batch.
pub(crate) struct Queued {
    pub(crate) ticket: u64,
    pub(crate) call: Call,
    pub(crate) told: Told,
}

/// When who waits for a call is told.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    /// When it is queued; later only that it is lost.
    Queued,
    /// When it is durable, or failed.
    Done,
}

/// Who waits for a call.
#[derive(Clone)]
pub(crate) enum Answer {
    /// The runtime, for one range.
    Control {
        control: Arc<dyn MemoryObjectControl>,
        range: ByteRange,
    },
    /// A thread that called the store itself.
    Waiter(SyncSender<Result<()>>),
}

impl Answer {
    /// Whether `control` gets it.
    pub(crate) fn is_for(&self, control: &Arc<dyn MemoryObjectControl>) -> bool {
        matches!(self, Self::Control { control: own, .. } if Arc::ptr_eq(own, control))
    }

    /// Tells the result.
    pub(crate) fn complete(self, result: Result<()>) {
        match self {
            // A refusal means that the runtime gave the request up (a time-out); what happened stands.
            Self::Control { control, range } => drop(control.synchronize_completed(range, result)),
            // A waiter that is gone does not want to know.
            Self::Waiter(sender) => drop(sender.try_send(result)),
        }
    }

    /// Tells that what was reported as queued is lost.
    fn fail_behind(self, error: PagerError) {
        match self {
            Self::Control { control, range } => control.write_behind_failed(range, error),
            Self::Waiter(sender) => drop(sender.try_send(Err(error))),
        }
    }
}

impl Queued {
    /// Tells whoever waits for it what became of it.
    pub(crate) fn settle(self, result: Result<()>) {
        for answer in self.call.answers {
            match (self.told, result.clone()) {
                (Told::Done, result) => answer.complete(result),
                (Told::Queued, Ok(())) => {}
                (Told::Queued, Err(error)) => answer.fail_behind(error),
            }
        }
    }
}
