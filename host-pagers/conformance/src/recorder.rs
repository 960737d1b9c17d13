//! [`Recorder`]: the runtime's side of the protocol, reduced to remembering.
//!
//! Invariants:
//! - a completion is accepted once for each request, with exactly its range;
//! - a completion that was not asked for is refused, and [`Recorder::assert_exact`] tells of it.

use std::{
    sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use vmsync_core::{
    ByteRange, KernReturn, PagerError, PagerErrorKind,
    pager::{
        Attributes, CallId, LockRequest, MemoryObjectControl, ObjectId, Pager, ReturnFlags, SynchronizeFlags,
    },
};

use crate::limits::{COMPLETION_WAIT, PAUSES_MAX};

/// A [`MemoryObjectControl`] that remembers.
#[derive(Default)]
pub struct Recorder {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    outstanding: Vec<ByteRange>,
    completed: Vec<(ByteRange, Result<(), PagerError>)>,
    unexpected: Vec<ByteRange>,
    write_behind_failures: Vec<(ByteRange, PagerError)>,
    lock_requests: Vec<LockRequest>,
    destroyed: Option<PagerError>,
}

/// What [`set_pause`] was told.
static PAUSE: OnceLock<fn()> = OnceLock::new();

/// Waits for completions by calling `pause`, which lets them arrive, in place of sleeping: for hosts without threads.
pub fn set_pause(pause: fn()) {
    // Told again: the first one stays.
    let _ = PAUSE.set(pause);
}

/// How pages go back in the helpers here: changed, and kept by the VM.
pub(crate) const DIRTY: ReturnFlags = ReturnFlags {
    dirty: true,
    kernel_copy: true,
};

impl Recorder {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a `synchronize` whose completion is then expected.
    ///
    /// # Errors
    /// What the pager answered at once; then no completion is expected.
    pub fn synchronize(
        &self,
        pager: &dyn Pager,
        call: CallId,
        object: ObjectId,
        range: ByteRange,
        flags: SynchronizeFlags,
    ) -> Result<(), PagerError> {
        self.lock().outstanding.push(range);
        let answer = pager.synchronize(call, object, range, flags);
        if answer.is_err() {
            self.forget(range);
        }
        answer
    }

    /// Takes back an expectation: the call was aborted.
    pub fn forget(&self, range: ByteRange) {
        let outstanding = &mut self.lock().outstanding;
        if let Some(index) = outstanding.iter().position(|asked| *asked == range) {
            outstanding.swap_remove(index);
        }
    }

    /// Waits for the completion of `range`.
    ///
    /// # Errors
    /// The completion's own, or [`PagerErrorKind::TimedOut`] when there is none.
    pub fn wait(&self, range: ByteRange) -> Result<(), PagerError> {
        let (mut deadline, mut pauses) = (None, 0);
        let mut state = self.lock();
        loop {
            if let Some(index) = state.completed.iter().position(|(done, _)| *done == range) {
                return state.completed.remove(index).1;
            }
            // With one thread and no clock, what is there comes while the host pauses, or never.
            if let Some(pause) = PAUSE.get() {
                drop(state);
                pause();
                pauses += 1;
                state = self.lock();
                if pauses < PAUSES_MAX {
                    continue;
                }
            }
            let left = if cfg!(target_family = "wasm") {
                Duration::ZERO
            } else {
                let deadline = *deadline.get_or_insert_with(|| Instant::now() + COMPLETION_WAIT);
                deadline.saturating_duration_since(Instant::now())
            };
            if left.is_zero() {
                return Err(PagerError::new(
                    PagerErrorKind::TimedOut,
                    format!("no completion of {range}"),
                ));
            }
            state = self
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Whether `range` was completed and not yet waited for.
    pub fn is_completed(&self, range: ByteRange) -> bool {
        self.lock().completed.iter().any(|(done, _)| *done == range)
    }

    /// One whole synchronous call: returns `runs` and waits until they are durable.
    ///
    /// # Errors
    /// The first that the pager reports; the call was aborted unless it was the completion's.
    pub fn commit(
        &self,
        pager: &dyn Pager,
        call: CallId,
        object: ObjectId,
        runs: &[(u64, Vec<u8>)],
    ) -> Result<(), PagerError> {
        let start = runs.iter().map(|run| run.0).min().unwrap_or(0);
        let end = runs
            .iter()
            .map(|run| run.0 + run.1.len() as u64)
            .max()
            .unwrap_or(0);
        for (offset, bytes) in runs {
            pager
                .data_return(call, object, *offset, bytes, DIRTY)
                .inspect_err(|_| pager.abort(call))?;
        }
        let range = ByteRange::new(start, end);
        let flags = SynchronizeFlags::SYNCHRONOUS;
        self.synchronize(pager, call, object, range, flags)
            .inspect_err(|_| pager.abort(call))?;
        self.wait(range)
    }

    /// What `write_behind_failed` told since the last look.
    pub fn take_write_behind_failures(&self) -> Vec<(ByteRange, PagerError)> {
        std::mem::take(&mut self.lock().write_behind_failures)
    }

    /// What `lock_request` asked since the last look.
    pub fn take_lock_requests(&self) -> Vec<LockRequest> {
        std::mem::take(&mut self.lock().lock_requests)
    }

    /// Why the pager said that the object is gone.
    pub fn destroyed(&self) -> Option<PagerError> {
        self.lock().destroyed.clone()
    }

    /// # Panics
    /// When a request is unanswered, or an answer was not asked for or not waited for.
    #[track_caller]
    pub fn assert_exact(&self) {
        let state = self.lock();
        assert!(
            state.outstanding.is_empty(),
            "no completion of {:?}",
            state.outstanding
        );
        assert!(
            state.completed.is_empty(),
            "completed but not awaited: {:?}",
            state.completed
        );
        assert!(
            state.unexpected.is_empty(),
            "completions that nobody asked for: {:?}",
            state.unexpected
        );
    }
}

impl MemoryObjectControl for Recorder {
    fn synchronize_completed(
        &self,
        range: ByteRange,
        result: Result<(), PagerError>,
    ) -> Result<(), KernReturn> {
        let mut state = self.lock();
        let Some(index) = state.outstanding.iter().position(|asked| *asked == range) else {
            state.unexpected.push(range);
            return Err(KernReturn::InvalidArgument);
        };
        state.outstanding.swap_remove(index);
        state.completed.push((range, result));
        // A thread that wakes while the lock is held goes to sleep again.
        drop(state);
        self.changed.notify_all();
        Ok(())
    }

    fn write_behind_failed(&self, range: ByteRange, error: PagerError) {
        self.lock().write_behind_failures.push((range, error));
        self.changed.notify_all();
    }

    fn lock_request(&self, request: LockRequest) -> Result<(), KernReturn> {
        self.lock().lock_requests.push(request);
        Ok(())
    }

    fn change_attributes(&self, _attributes: Attributes) {}

    fn destroy(&self, reason: PagerError) {
        self.lock().destroyed = Some(reason);
        self.changed.notify_all();
    }
}
