//! [`Clock`]: wakes tasks that have waited for their time-out.
//!
//! A task that waits seldom waits so long, so an alarm costs two short looks at a map, and one thread looks at all of them
//! every tick. It begins with the first alarm, and sleeps while there are none.
//!
//! Invariant: an alarm that is due is told within a tick, whatever becomes of others.

use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    task::Waker,
    thread,
    time::{Duration, Instant},
};

use indexmap::IndexMap;
use rustc_hash::FxBuildHasher;

use crate::{
    limits::{TICK_MAX, TICK_MIN, TICKS},
    wake::wake_all,
};

/// See the head of the file.
pub(crate) struct Clock {
    shared: Arc<Shared>,
}

struct Shared {
    tick: Duration,
    state: Mutex<State>,
    /// The thread has something to do.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    alarms: IndexMap<u64, (Instant, Option<Waker>), FxBuildHasher>,
    next: u64,
    has_thread: bool,
    /// It waits for an alarm.
    asleep: bool,
    stop: bool,
}

/// One task's time-out; given up when dropped.
pub(crate) struct Alarm<'a> {
    clock: &'a Clock,
    key: u64,
}

impl Clock {
    /// A clock for alarms that are seldom due before `time_out`.
    pub fn new(time_out: Duration) -> Self {
        let shared = Shared {
            tick: (time_out / TICKS).clamp(TICK_MIN, TICK_MAX),
            state: Mutex::default(),
            changed: Condvar::new(),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// An alarm at `deadline`, which wakes nobody yet. `None` where there is no thread to look at it: who waits has to look.
    pub fn alarm(&self, deadline: Instant) -> Option<Alarm<'_>> {
        let mut state = self.shared.lock();
        if !state.has_thread {
            let shared = self.shared.clone();
            let thread = thread::Builder::new().name("vmsync-clock".into());
            match thread.spawn(move || shared.run()) {
                Ok(_) => state.has_thread = true,
                Err(error) => {
                    tracing::warn!(%error, "no thread for time-outs: the next call tries again");
                    return None;
                }
            }
        }
        let key = state.next;
        state.next += 1;
        state.alarms.insert(key, (deadline, None));
        let asleep = state.asleep;
        drop(state);
        if asleep {
            self.shared.changed.notify_one();
        }
        Some(Alarm { clock: self, key })
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.changed.notify_one();
    }
}

impl Alarm<'_> {
    /// Has `waker` woken when the time comes.
    pub fn set(&self, waker: &Waker) {
        let mut state = self.clock.shared.lock();
        if let Some((_, set)) = state.alarms.get_mut(&self.key) {
            match set {
                Some(known) => known.clone_from(waker),
                None => *set = Some(waker.clone()),
            }
        }
    }
}

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        self.clock.shared.lock().alarms.swap_remove(&self.key);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        let mut state = self.lock();
        while !state.stop {
            if state.alarms.is_empty() {
                state.asleep = true;
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.asleep = false;
                continue;
            }
            let waited = self.changed.wait_timeout(state, self.tick);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            let now = Instant::now();
            let due = state.alarms.values_mut().filter(|(deadline, _)| *deadline <= now);
            let wakers = due.filter_map(|(_, waker)| waker.take()).collect();
            drop(state);
            wake_all(wakers);
            state = self.lock();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, task::Wake};

    use super::*;

    struct Told(mpsc::Sender<Instant>);

    impl Wake for Told {
        fn wake(self: Arc<Self>) {
            let _ = self.0.send(Instant::now());
        }
    }

    #[test]
    fn an_alarm_is_told_when_it_is_due_and_not_when_it_was_given_up() {
        let clock = Clock::new(Duration::from_millis(80));
        let (sender, told) = mpsc::channel();
        let waker = Waker::from(Arc::new(Told(sender)));
        // The second time the thread has been asleep.
        for _ in 0..2 {
            let begun = Instant::now();
            let alarm = |after| {
                clock
                    .alarm(begun + Duration::from_millis(after))
                    .expect("a thread")
            };
            let given_up = alarm(1);
            given_up.set(Waker::noop());
            drop(given_up);
            assert!(clock.shared.lock().alarms.is_empty(), "nobody is told of it");
            let due = begun + Duration::from_millis(50);
            let alarm = alarm(50);
            alarm.set(&waker);
            let when = told.recv_timeout(Duration::from_secs(60)).expect("it is told");
            assert!(when >= due, "too early");
            assert!(
                told.recv_timeout(Duration::from_millis(30)).is_err(),
                "told twice"
            );
            drop(alarm);
        }
        assert!(clock.shared.lock().alarms.is_empty());
    }

    struct Panics;

    impl Wake for Panics {
        fn wake(self: Arc<Self>) {
            panic!("as the test says");
        }
    }

    #[test]
    fn a_waker_that_panics_leaves_the_others_theirs() {
        let clock = Clock::new(Duration::from_millis(8));
        let (sender, told) = mpsc::channel();
        let wakers = [Waker::from(Arc::new(Panics)), Waker::from(Arc::new(Told(sender)))];
        for _ in 0..2 {
            let now = Instant::now();
            let alarms = wakers.each_ref().map(|waker| {
                let alarm = clock.alarm(now).expect("a thread");
                alarm.set(waker);
                alarm
            });
            told.recv_timeout(Duration::from_secs(60)).expect("it is told");
            drop(alarms);
        }
    }
}
