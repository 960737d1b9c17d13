//! [`Call`]: what one `vm_msync` has sent so far, and [`Queued`]: the same on its way into a batch.
//!
//! Invariants:
//! - a page occurs once in a call, as it was returned last;
//! - a failure of an asynchronous call is told after the call was told to be queued, by whichever of the two threads
//!   comes second.

use std::{
    collections::BTreeMap,
    mem,
    sync::{Arc, Mutex, PoisonError, mpsc::SyncSender},
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
    /// Of an asynchronous call.
    pub(crate) notice: Option<Arc<Notice>>,
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
        let answers = self.call.answers;
        match (self.notice, result) {
            (None, result) => answers
                .into_iter()
                .for_each(|answer| answer.complete(result.clone())),
            (Some(_), Ok(())) => {}
            (Some(notice), Err(error)) => {
                if notice.fail(&error) {
                    answers
                        .into_iter()
                        .for_each(|answer| answer.fail_behind(error.clone()));
                }
            }
        }
    }
}

/// How far an asynchronous call's answers are.
#[derive(Default)]
pub(crate) struct Notice(Mutex<Stage>);

#[derive(Default)]
enum Stage {
    /// It is queued, and nobody was told.
    #[default]
    Queued,
    /// The runtime knows that it is queued.
    Told,
    /// It failed before the runtime knew that it is queued.
    Failed(PagerError),
}

impl Notice {
    /// Tells `answers` that the call is queued.
    pub(crate) fn tell(&self, answers: Vec<Answer>) {
        for answer in &answers {
            answer.clone().complete(Ok(()));
        }
        let before = mem::replace(
            &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner),
            Stage::Told,
        );
        if let Stage::Failed(error) = before {
            answers
                .into_iter()
                .for_each(|answer| answer.fail_behind(error.clone()));
        }
    }

    /// Notes a failure; answers whether the caller has to tell it.
    fn fail(&self, error: &PagerError) -> bool {
        let mut stage = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*stage, Stage::Told) {
            return true;
        }
        *stage = Stage::Failed(error.clone());
        false
    }
}
