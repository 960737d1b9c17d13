//! [`with_helpers`]: threads of this process that take a share of a caller's work, where they come in time.
//!
//! ```text
//!   caller   open the gate, wake helpers --> work() ---------------> close the gate --> wait for who is inside
//!   helper                     (begins) --> enter --> work() --> leave        '-- one that begins later is not let in
//! ```
//!
//! A thread that sleeps begins 30 to 50 us after it is woken, a new one 100 us and more. Some schedulers put whoever is woken on the
//! processor of whoever wakes it, to use few of them: what was to be done beside the caller's share is done behind it then. So
//! helpers are told to keep away from it.
//!
//! Invariants:
//! - `work` is called inside the gate only, and its owner does not return before the gate is closed and everybody has left;
//! - nobody waits for a helper that has not begun: where all processors are busy, the caller does all of it.

#![allow(
    unsafe_code,
    reason = "threads that stay borrow what a caller lends them: the invariants say why it is sound"
)]

use std::{
    any::Any,
    hint, mem,
    num::NonZero,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Arc, LazyLock, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::{self, Thread},
};

use crate::{
    limits::{HELPER_SPINS, HELPERS_MAX},
    store::lock,
};

/// They sleep until they are woken, as long as the process lives.
static HELPERS: LazyLock<Vec<Helper>> = LazyLock::new(|| {
    let processors = thread::available_parallelism().map_or(1, NonZero::get);
    (1..processors.min(HELPERS_MAX + 1))
        .map_while(|_| Helper::start())
        .collect()
});

/// Calls `work` on this thread, and on up to `count` helpers that begin before this thread's call of it returns.
pub(crate) fn with_helpers(count: usize, work: &(dyn Fn() + Sync)) {
    if count == 0 || HELPERS.is_empty() {
        return work();
    }
    let gate = Owned(Arc::new(Gate::new(work)));
    let elsewhere = Elsewhere::new();
    for helper in HELPERS.iter().take(count) {
        helper.wake(&gate.0, &elsewhere);
    }
    work();
    gate.close();
}

/// A thread, by what wakes it.
struct Helper {
    gates: SyncSender<Arc<Gate>>,
    #[cfg(target_os = "linux")]
    thread: rustix::thread::Pid,
}

impl Helper {
    fn start() -> Option<Self> {
        // One is on its way, another waits at most: who is late finds most gates closed.
        let (gates, woken) = sync_channel(1);
        #[cfg(target_os = "linux")]
        let (tell, thread) = sync_channel(1);
        let begin = move || {
            #[cfg(target_os = "linux")]
            let _ = tell.send(rustix::thread::gettid());
            help(&woken);
        };
        let builder = thread::Builder::new().name("vmsync-helper".into());
        builder.spawn(begin).ok()?;
        Some(Self {
            gates,
            #[cfg(target_os = "linux")]
            thread: thread.recv().ok()?,
        })
    }

    fn wake(&self, gate: &Arc<Gate>, elsewhere: &Elsewhere) {
        #[cfg(target_os = "linux")]
        elsewhere.keep(self.thread);
        #[cfg(not(target_os = "linux"))]
        let _ = elsewhere;
        // It is busy otherwise.
        let _ = self.gates.try_send(gate.clone());
    }
}

fn help(woken: &Receiver<Arc<Gate>>) {
    while let Ok(gate) = woken.recv() {
        gate.visit();
    }
}

/// The processors that this thread may use, but for the one that it uses now.
struct Elsewhere {
    #[cfg(target_os = "linux")]
    processors: Option<rustix::thread::CpuSet>,
}

impl Elsewhere {
    fn new() -> Self {
        #[cfg(target_os = "linux")]
        let processors = rustix::thread::sched_getaffinity(None)
            .ok()
            .map(|mut processors| {
                processors.unset(rustix::thread::sched_getcpu());
                processors
            })
            .filter(|processors| processors.count() > 0);
        Self {
            #[cfg(target_os = "linux")]
            processors,
        }
    }

    #[cfg(target_os = "linux")]
    fn keep(&self, thread: rustix::thread::Pid) {
        if let Some(processors) = &self.processors {
            // Where it is refused, the scheduler has its way.
            let _ = rustix::thread::sched_setaffinity(Some(thread), processors);
        }
    }
}

/// What is done inside, and who is.
struct Gate {
    /// How many helpers are inside, and [`CLOSED`].
    state: AtomicUsize,
    owner: Thread,
    work: *const (dyn Fn() + Sync),
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

const CLOSED: usize = 1 << (usize::BITS - 1);

// SAFETY: `work` is used by several threads at a time, which `Sync` allows, and only inside the gate, while its owner lends it.
unsafe impl Send for Gate {}
// SAFETY: as above.
unsafe impl Sync for Gate {}

impl Gate {
    fn new<'a>(work: &'a (dyn Fn() + Sync + 'a)) -> Self {
        let work: *const (dyn Fn() + Sync + 'a) = work;
        Self {
            state: AtomicUsize::new(0),
            owner: thread::current(),
            // SAFETY: the types differ in a lifetime only, and nothing is used through it after that: see `Owned`.
            work: unsafe { mem::transmute::<*const (dyn Fn() + Sync + 'a), *const (dyn Fn() + Sync)>(work) },
            panic: Mutex::new(None),
        }
    }

    /// A helper comes, and takes its share if it is let in.
    fn visit(&self) {
        let enter = |state| (state & CLOSED == 0).then_some(state + 1);
        let entered = self
            .state
            .fetch_update(Ordering::Acquire, Ordering::Relaxed, enter);
        if entered.is_err() {
            return;
        }
        // SAFETY: the gate's owner lends it until nobody is inside.
        let work = unsafe { &*self.work };
        if let Err(panic) = catch_unwind(AssertUnwindSafe(work)) {
            *lock(&self.panic) = Some(panic);
        }
        if self.state.fetch_sub(1, Ordering::Release) == CLOSED + 1 {
            self.owner.unpark();
        }
    }

    fn is_empty(&self) -> bool {
        self.state.load(Ordering::Acquire) == CLOSED
    }
}

/// A gate that closes when its owner has done its own share, in whichever way.
struct Owned(Arc<Gate>);

impl Owned {
    /// A helper's panic is the owner's.
    fn close(self) {
        let gate = self.0.clone();
        drop(self);
        if let Some(panic) = lock(&gate.panic).take() {
            resume_unwind(panic);
        }
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        self.0.state.fetch_or(CLOSED, Ordering::Relaxed);
        // What is left is a small part of a share, as a rule.
        for _ in 0..HELPER_SPINS {
            if self.0.is_empty() {
                return;
            }
            hint::spin_loop();
        }
        while !self.0.is_empty() {
            thread::park();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Barrier, time::Duration};

    use super::*;

    /// Shares are taken from what the caller's stack holds, while other callers do the same.
    #[test]
    fn all_of_the_work_is_done_and_nobody_works_on() {
        const CALLERS: usize = 4;
        let call = || {
            for round in 0..500 {
                let parts: Vec<AtomicUsize> = (0..round % 40).map(|_| AtomicUsize::new(0)).collect();
                let (next, inside) = (AtomicUsize::new(0), AtomicUsize::new(0));
                with_helpers(round % 4, &|| {
                    inside.fetch_add(1, Ordering::SeqCst);
                    while let Some(part) = parts.get(next.fetch_add(1, Ordering::SeqCst)) {
                        part.fetch_add(1, Ordering::SeqCst);
                        thread::yield_now();
                    }
                    inside.fetch_sub(1, Ordering::SeqCst);
                });
                assert_eq!(inside.into_inner(), 0, "round {round}");
                assert!(
                    parts.into_iter().all(|part| part.into_inner() == 1),
                    "round {round}"
                );
            }
        };
        thread::scope(|scope| (0..CALLERS).for_each(|_| drop(scope.spawn(call))));
    }

    #[test]
    fn who_is_inside_is_waited_for() {
        let (entered, left) = (Barrier::new(2), AtomicUsize::new(0));
        let work = || {
            entered.wait();
            // Longer than the owner spins.
            thread::sleep(Duration::from_millis(20));
            left.fetch_add(1, Ordering::SeqCst);
        };
        thread::scope(|scope| {
            let gate = Owned(Arc::new(Gate::new(&work)));
            let shared = gate.0.clone();
            scope.spawn(move || shared.visit());
            entered.wait();
            gate.close();
            assert_eq!(left.load(Ordering::SeqCst), 1);
        });
    }

    #[test]
    fn who_comes_late_is_not_let_in() {
        let visits = AtomicUsize::new(0);
        let work = || {
            visits.fetch_add(1, Ordering::SeqCst);
        };
        let gate = Owned(Arc::new(Gate::new(&work)));
        let shared = gate.0.clone();
        shared.visit();
        gate.close();
        shared.visit();
        assert_eq!(visits.into_inner(), 1);
    }

    #[test]
    fn a_panic_of_a_helper_is_that_of_the_caller() {
        let work = || panic!("of a helper");
        let gate = Owned(Arc::new(Gate::new(&work)));
        gate.0.visit();
        let panic = catch_unwind(AssertUnwindSafe(|| gate.close())).expect_err("it panics");
        assert_eq!(panic.downcast_ref(), Some(&"of a helper"));
    }

    /// As a scheduler that packs threads would not by itself.
    #[cfg(target_os = "linux")]
    #[test]
    fn helpers_keep_away_from_the_processor_of_the_caller() {
        let Some(processors) = Elsewhere::new().processors else {
            println!("skipped: there is one processor");
            return;
        };
        let all = rustix::thread::sched_getaffinity(None).expect("it can be asked");
        assert_eq!(processors.count(), all.count() - 1);
        // Where this thread may go nowhere else, nobody is sent away.
        let mut here = rustix::thread::CpuSet::new();
        here.set(rustix::thread::sched_getcpu());
        let stay =
            |processors| rustix::thread::sched_setaffinity(None, processors).expect("it may move itself");
        stay(&here);
        assert!(Elsewhere::new().processors.is_none());
        stay(&all);
    }
}
