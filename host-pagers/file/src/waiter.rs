//! [`Waiter`]: a thread of this crate waits for the outcome of a call, with a bound.

use std::sync::{Condvar, Mutex, PoisonError};

use vmsync_core::{PagerError, PagerErrorKind};

use crate::{disk::Result, limits::WAIT_MAX};

/// A place for one outcome.
#[derive(Default)]
pub(crate) struct Waiter {
    outcome: Mutex<Option<Result<()>>>,
    arrived: Condvar,
}

impl Waiter {
    /// Gives the outcome.
    pub(crate) fn finish(&self, result: Result<()>) {
        *self.outcome.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
        self.arrived.notify_all();
    }

    /// Whether there is an outcome.
    pub(crate) fn is_finished(&self) -> bool {
        self.outcome
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_some()
    }

    /// Takes the outcome.
    ///
    /// # Errors
    /// The outcome's own; [`PagerErrorKind::TimedOut`] when there is none in time.
    pub(crate) fn wait(&self) -> Result<()> {
        let outcome = self.outcome.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(result) = &*outcome {
            return result.clone();
        }
        let (outcome, _) = self
            .arrived
            .wait_timeout_while(outcome, WAIT_MAX, |outcome| outcome.is_none())
            .unwrap_or_else(PoisonError::into_inner);
        outcome.clone().unwrap_or_else(|| {
            let seconds = WAIT_MAX.as_secs();
            Err(PagerError::new(
                PagerErrorKind::TimedOut,
                format!(
                    "the disk did not answer within {seconds} s; whether the change was made is not known"
                ),
            ))
        })
    }
}
