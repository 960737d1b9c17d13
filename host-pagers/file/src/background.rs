//! The store's threads: one flushes what is queued, the other puts pages into images, takes checkpoints and makes segments.
//!
//! Invariants:
//! - they hold no lock while they wait, and no lock of their own while they work;
//! - an asynchronous call waits for them no longer than the configured delay, unless another thread flushes first: the thread
//!   that flushes has nothing to do with images and checkpoints until memory or the journal is at its bound;
//! - when they stop, nobody relies on them any more.

use std::{
    io,
    ops::Bound,
    sync::{Arc, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::{
    ahead::Key,
    limits::{APPLY_BYTES_MIN, APPLY_DELAY, APPLY_PAGES_MAX, APPLY_WAKE_PAGES},
    store::{Shared, lock},
};

/// Starts the threads, those that can be made.
pub(crate) fn start(shared: &Arc<Shared>) -> Vec<JoinHandle<()>> {
    let flusher = spawn("vmsync-store", shared, flush);
    lock(&shared.queue).has_flusher = flusher.is_ok();
    let tidier = spawn("vmsync-tidy", shared, tidy);
    lock(&shared.queue).has_tidier = tidier.is_ok();
    [flusher, tidier].into_iter().flatten().collect()
}

fn spawn(name: &str, shared: &Arc<Shared>, run: fn(&Shared)) -> io::Result<JoinHandle<()>> {
    let own = shared.clone();
    thread::Builder::new().name(name.into()).spawn(move || run(&own))
}

/// Flushes queued calls a delay after they were first seen, or when there is a reason to hurry.
fn flush(shared: &Shared) {
    let mut flush_at = None;
    let mut queue = lock(&shared.queue);
    loop {
        let pending = queue.has_pending() && !queue.flushing;
        flush_at = due(pending, flush_at, shared.options.write_behind_delay);
        // A store that is dropped by whom this thread answers has nobody else who would write what is queued.
        if pending && (queue.urgent || queue.stop || is_past(flush_at)) {
            // What comes behind waits from then on.
            (queue.urgent, queue.flushing, flush_at) = (false, true, None);
            let ticket = queue.queued;
            drop(queue);
            shared.flush_until(ticket);
            queue = lock(&shared.queue);
            continue;
        }
        if queue.stop {
            queue.has_flusher = false;
            return;
        }
        queue = match flush_at {
            None => shared.work.wait(queue).unwrap_or_else(PoisonError::into_inner),
            Some(until) => {
                let left = until.saturating_duration_since(Instant::now());
                let woken = shared.work.wait_timeout(queue, left);
                woken.unwrap_or_else(PoisonError::into_inner).0
            }
        };
    }
}

/// What to do next.
enum Work {
    MakeSegment,
    Apply,
    Checkpoint,
    Stop,
}

fn tidy(shared: &Shared) {
    let mut sweep = Sweep::default();
    loop {
        let work = next(shared, &sweep);
        let stop = matches!(work, Work::Stop);
        let done = shared.guarded(|| {
            match work {
                Work::Stop => {}
                Work::MakeSegment => shared.make_segment(),
                Work::Apply => sweep.go_on(shared),
                // Where it fails the journal grows, and the next roll-over asks again.
                Work::Checkpoint => drop(shared.checkpoint_sealed()),
            }
            Ok(())
        });
        if stop || done.is_err() {
            lock(&shared.queue).has_tidier = false;
            return;
        }
    }
}

/// Puts the pages that wait into the images, some at a time, in the order of their keys: a page that cannot be written keeps no
/// other from it.
#[derive(Default)]
struct Sweep {
    /// What is behind this page comes next; `None` where none is under way.
    behind: Option<Key>,
    failed: bool,
    /// How many pages were left by one that failed: another begins when there are more, not in a loop.
    stuck: usize,
}

impl Sweep {
    fn go_on(&mut self, shared: &Shared) {
        let start = self.behind.map_or(Bound::Unbounded, Bound::Excluded);
        let (last, applied) = shared.apply_waiting((start, Bound::Unbounded), APPLY_PAGES_MAX);
        self.failed |= applied.is_err();
        self.behind = last;
        if last.is_none() {
            let left = lock(&shared.queue).ahead.durable();
            self.stuck = if self.failed { left } else { 0 };
            self.failed = false;
        }
    }
}

/// Waits for work. Pages that are not in their images wait for a delay, from when they were first seen, unless there are too
/// many; where some were just put there, the others follow.
fn next(shared: &Shared, sweep: &Sweep) -> Work {
    let mut queue = lock(&shared.queue);
    let mut apply_at = None;
    loop {
        if queue.stop {
            return Work::Stop;
        }
        if queue.segment_wanted {
            return Work::MakeSegment;
        }
        if queue.checkpoint_wanted {
            return Work::Checkpoint;
        }
        let unapplied = queue.ahead.durable();
        let some = unapplied > sweep.stuck;
        let many = queue.ahead.durable_bytes() >= APPLY_BYTES_MIN;
        apply_at = due(some && unapplied >= APPLY_WAKE_PAGES, apply_at, APPLY_DELAY);
        if sweep.behind.is_some() || (some && (many || is_past(apply_at))) {
            return Work::Apply;
        }
        queue = match apply_at {
            None => {
                queue.tidier_idle = true;
                shared.tidying.wait(queue).unwrap_or_else(PoisonError::into_inner)
            }
            Some(until) => {
                queue.tidier_delays = true;
                let left = until.saturating_duration_since(Instant::now());
                let woken = shared.tidying.wait_timeout(queue, left);
                woken.unwrap_or_else(PoisonError::into_inner).0
            }
        };
        (queue.tidier_idle, queue.tidier_delays) = (false, false);
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
