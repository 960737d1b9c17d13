//! The store's thread: flushes what is queued, applies what waits, takes checkpoints.
//!
//! Invariants:
//! - it holds no lock while it waits, and no lock of its own while it works;
//! - an asynchronous call waits for it no longer than the configured delay, unless another thread flushes first;
//! - when it stops, nobody relies on it any more.

use std::{
    sync::{Arc, PoisonError},
    thread::{self, JoinHandle},
};

use crate::{
    limits::APPLY_INLINE_PAGES,
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
    loop {
        match next(shared, stuck) {
            Work::Stop => return,
            Work::Flush(ticket) => {
                shared.gather();
                shared.flush_until(ticket);
            }
            Work::Apply => {
                let mut journal = lock(&shared.journal);
                let applied = shared.apply_waiting(&mut journal, |_, _| true, APPLY_INLINE_PAGES);
                drop(journal);
                stuck = if applied.is_err() {
                    lock(&shared.queue).unapplied.len()
                } else {
                    0
                };
            }
            // Where it fails the journal grows, and the next roll-over asks again.
            Work::Checkpoint => drop(shared.checkpoint_sealed()),
        }
    }
}

/// Waits for work. Queued calls wait for the delay, unless somebody says that it is urgent.
fn next(shared: &Shared, stuck: usize) -> Work {
    let mut queue = lock(&shared.queue);
    let mut waited = false;
    loop {
        queue.thread_ready = !queue.stop;
        if queue.stop {
            queue.has_thread = false;
            return Work::Stop;
        }
        if queue.has_pending() && !queue.flushing && (queue.urgent || waited) {
            (queue.urgent, queue.flushing) = (false, true);
            return Work::Flush(queue.queued);
        }
        if queue.checkpoint_wanted {
            queue.thread_ready = false;
            return Work::Checkpoint;
        }
        if queue.unapplied.len() > stuck {
            queue.thread_ready = false;
            return Work::Apply;
        }
        if queue.has_pending() && !queue.flushing {
            let delay = shared.options.write_behind_delay;
            let woken = shared
                .work
                .wait_timeout(queue, delay)
                .unwrap_or_else(PoisonError::into_inner);
            waited |= woken.1.timed_out();
            queue = woken.0;
        } else {
            queue = shared.work.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }
}
