//! The store's thread: flushes what is queued, applies what waits, takes checkpoints.
//!
//! Invariants:
//! - it holds no lock while it waits, and no lock of its own while it works;
//! - an asynchronous call waits for it no longer than the configured delay, unless another thread flushes first;
//! - when it stops, nobody relies on it any more.

use std::{
    sync::{Arc, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::{
    limits::{APPLY_DELAY, APPLY_PAGES_MAX, APPLY_PAGES_MIN, APPLY_WAKE_PAGES},
    store::{Shared, lock},
};

/// What to do next.
enum Work {
    Flush(u64),
    Apply,
    Checkpoint,
    Stop,
}

/// Starts the thread, `None` where there are no threads.
pub(crate) fn start(shared: &Arc<Shared>) -> Option<JoinHandle<()>> {
    let own = shared.clone();
    let thread = thread::Builder::new()
        .name("vmsync-store".into())
        .spawn(move || run(&own));
    lock(&shared.queue).has_thread = thread.is_ok();
    thread.ok()
}

fn run(shared: &Shared) {
    // Failed attempts to apply; they are repeated when there is other work, not in a loop.
    let mut stuck = 0;
    let (mut applying, mut flush_at) = (false, None);
    loop {
        let work = next(shared, stuck, applying, &mut flush_at);
        applying = matches!(work, Work::Apply);
        match work {
            Work::Stop => return,
            Work::Flush(ticket) => shared.flush_until(ticket),
            Work::Apply => {
                let applied = shared.apply_waiting(.., APPLY_PAGES_MAX);
                stuck = if applied.is_err() {
                    lock(&shared.queue).ahead.durable()
                } else {
                    0
                };
            }
            // Where it fails the journal grows, and the next roll-over asks again.
            Work::Checkpoint => drop(shared.checkpoint_sealed()),
        }
    }
}

/// Waits for work. Queued calls and pages that are not in their images wait for their delays, from when they were first seen, unless
/// there is a reason to hurry; where some were just put there, the others follow.
fn next(shared: &Shared, stuck: usize, mut applying: bool, flush_at: &mut Option<Instant>) -> Work {
    let mut queue = lock(&shared.queue);
    let mut apply_at = None;
    loop {
        queue.thread_ready = !queue.stop;
        let pending = queue.has_pending() && !queue.flushing;
        *flush_at = due(pending, *flush_at, shared.options.write_behind_delay);
        // A store that is dropped by whom this thread answers has nobody else who would write what is queued.
        if pending && (queue.urgent || queue.stop || is_past(*flush_at)) {
            // What comes behind waits from then on.
            (queue.urgent, queue.flushing, *flush_at) = (false, true, None);
            return Work::Flush(queue.queued);
        }
        if queue.stop {
            queue.has_thread = false;
            return Work::Stop;
        }
        if queue.checkpoint_wanted {
            queue.thread_ready = false;
            return Work::Checkpoint;
        }
        let unapplied = queue.ahead.durable();
        let some = unapplied > stuck;
        apply_at = due(some && unapplied >= APPLY_WAKE_PAGES, apply_at, APPLY_DELAY);
        if some && (applying || unapplied >= APPLY_PAGES_MIN || is_past(apply_at)) {
            queue.thread_ready = false;
            return Work::Apply;
        }
        let Some(until) = [*flush_at, apply_at].into_iter().flatten().min() else {
            queue.thread_idle = true;
            queue = shared.work.wait(queue).unwrap_or_else(PoisonError::into_inner);
            (queue.thread_idle, applying) = (false, false);
            continue;
        };
        let left = until.saturating_duration_since(Instant::now());
        let woken = shared.work.wait_timeout(queue, left);
        queue = woken.unwrap_or_else(PoisonError::into_inner).0;
    }
}

/// When what waits is due: a delay after it was first seen.
fn due(waits: bool, known: Option<Instant>, delay: Duration) -> Option<Instant> {
    let known = known.filter(|_| waits);
    known.or_else(|| waits.then(|| Instant::now().checked_add(delay)).flatten())
}

fn is_past(due: Option<Instant>) -> bool {
    due.is_some_and(|due| due <= Instant::now())
}
