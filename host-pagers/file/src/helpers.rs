//! [`with_helpers`]: threads of this process that take a share of a caller's work, where they come in time.
//!
//! ```text
//!   caller   open the gate, wake helpers --> work() ---------------> close the gate --> wait for who is inside
//!   helper                     (begins) --> enter --> work() --> leave        '-- one that begins later is not let in
//! ```
//!
//! A thread that sleeps begins 30 to 50 us after it is woken, a new one 100 us and more. Some schedulers put whoever is woken on the
//! processor of whoever wakes it, to use few of them: then what was to be done beside the caller's share is done behind it. So
//! helpers are kept away from that processor until they have begun.
//!
//! Invariants:
//! - `work` is called inside the gate only, and its owner does not return before the gate is closed and everybody has left;
//! - nobody waits for a helper that has not begun: where all processors are busy, the caller does all of it;
//! - a helper is one caller's at a time.

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
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc::{Sender, channel},
    },
    thread::{self, Thread},
    time::Instant,
};

use crate::{
    limits::{HELPER_SPIN, HELPERS_MAX},
    store::lock,
};

/// They sleep until they are woken, as long as the process lives: as many as the processors of the first caller with more than one.
static HELPERS: LazyLock<Vec<Helper>> = LazyLock::new(|| {
    let processors = thread::available_parallelism().map_or(1, NonZero::get);
    (1..processors.min(HELPERS_MAX + 1))
        .map_while(|_| Helper::start())
        .collect()
});

/// Calls `work` on this thread, and on up to `count` helpers that begin before this thread's call of it returns.
pub(crate) fn with_helpers(count: usize, work: &(dyn Fn() + Sync)) {
    let Some(processors) = Processors::of_caller() else {
        return work();
    };
    let gate = Owned(Arc::new(Gate::new(work, processors)));
    for helper in HELPERS.iter().filter(|helper| helper.claim()).take(count) {
        helper.wake(&gate.0);
    }
    work();
    gate.close();
}

/// A thread, by what wakes it.
struct Helper {
    gates: Sender<Arc<Gate>>,
    claimed: Arc<AtomicBool>,
    #[cfg(target_os = "linux")]
    thread: rustix::thread::Pid,
}

impl Helper {
    fn start() -> Option<Self> {
        let (gates, woken) = channel::<Arc<Gate>>();
        let claimed = Arc::new(AtomicBool::new(false));
        #[cfg(target_os = "linux")]
        let (tell, thread) = channel();
        let help = {
            let claimed = claimed.clone();
            move || {
                #[cfg(target_os = "linux")]
                let _ = tell.send(rustix::thread::gettid());
                while let Ok(gate) = woken.recv() {
                    gate.visit();
                    claimed.store(false, Ordering::Release);
                }
            }
        };
        let builder = thread::Builder::new().name("vmsync-helper".into());
        builder.spawn(help).ok()?;
        Some(Self {
            gates,
            claimed,
            #[cfg(target_os = "linux")]
            thread: thread.recv().ok()?,
        })
    }

    /// Whether it is the caller's now; it is free again after a visit.
    fn claim(&self) -> bool {
        !self.claimed.swap(true, Ordering::Acquire)
    }

    /// Has it visit `gate`; it is claimed.
    fn wake(&self, gate: &Arc<Gate>) {
        #[cfg(target_os = "linux")]
        gate.processors.keep_away(self.thread);
        // It lives as long as the process.
        let _ = self.gates.send(gate.clone());
    }
}

/// Where a caller and its helpers may be.
struct Processors {
    #[cfg(target_os = "linux")]
    all: rustix::thread::CpuSet,
    #[cfg(target_os = "linux")]
    elsewhere: rustix::thread::CpuSet,
}

impl Processors {
    /// `None`: nowhere but where the caller is.
    #[cfg(target_os = "linux")]
    fn of_caller() -> Option<Self> {
        let all = rustix::thread::sched_getaffinity(None).ok()?;
        let mut elsewhere = all;
        elsewhere.unset(rustix::thread::sched_getcpu());
        (elsewhere.count() > 0).then_some(Self { all, elsewhere })
    }

    #[cfg(not(target_os = "linux"))]
    fn of_caller() -> Option<Self> {
        Some(Self {})
    }

    /// Keeps a thread that is about to be woken away from the caller's processor. Where it is refused, the scheduler has its way.
    #[cfg(target_os = "linux")]
    fn keep_away(&self, thread: rustix::thread::Pid) {
        let _ = rustix::thread::sched_setaffinity(Some(thread), &self.elsewhere);
    }

    /// This thread has begun: whoever takes its processor from it does not stop it.
    fn stay_anywhere(&self) {
        #[cfg(target_os = "linux")]
        let _ = rustix::thread::sched_setaffinity(None, &self.all);
    }
}

/// What is done inside, and who is.
struct Gate {
    /// How many helpers are inside, and [`CLOSED`].
    state: AtomicUsize,
    owner: Thread,
    processors: Processors,
    work: *const (dyn Fn() + Sync),
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

const CLOSED: usize = 1 << (usize::BITS - 1);

// SAFETY: `work` is used by several threads at a time, which `Sync` allows, and only inside the gate, while its owner lends it.
unsafe impl Send for Gate {}
// SAFETY: as above.
unsafe impl Sync for Gate {}

impl Gate {
    fn new<'a>(work: &'a (dyn Fn() + Sync + 'a), processors: Processors) -> Self {
        let work: *const (dyn Fn() + Sync + 'a) = work;
        Self {
            state: AtomicUsize::new(0),
            owner: thread::current(),
            processors,
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
        self.processors.stay_anywhere();
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
        let mut closed = None;
        while !self.0.is_empty() {
            // What is left is a small part of a share, as a rule.
            if closed.get_or_insert_with(Instant::now).elapsed() < HELPER_SPIN {
                hint::spin_loop();
            } else {
                thread::park();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Barrier, time::Duration};

    use super::*;

    #[cfg(target_os = "linux")]
    fn processors() -> Processors {
        let all = rustix::thread::sched_getaffinity(None).expect("it can be asked");
        Processors { all, elsewhere: all }
    }

    #[cfg(not(target_os = "linux"))]
    fn processors() -> Processors {
        Processors {}
    }

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
            let gate = Owned(Arc::new(Gate::new(&work, processors())));
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
        let gate = Owned(Arc::new(Gate::new(&work, processors())));
        let shared = gate.0.clone();
        shared.visit();
        gate.close();
        shared.visit();
        assert_eq!(visits.into_inner(), 1);
    }

    #[test]
    fn a_panic_of_a_helper_is_that_of_the_caller() {
        let work = || panic!("of a helper");
        let gate = Owned(Arc::new(Gate::new(&work, processors())));
        gate.0.visit();
        let panic = catch_unwind(AssertUnwindSafe(|| gate.close())).expect_err("it panics");
        assert_eq!(panic.downcast_ref(), Some(&"of a helper"));
    }

    #[test]
    fn helpers_come() {
        if Processors::of_caller().is_none() || HELPERS.is_empty() {
            println!("skipped: there is one processor");
            return;
        }
        // Another test may have all of them for a while, and a busy machine lets nobody begin in time.
        let begun = Instant::now();
        loop {
            let (inside, called) = (AtomicUsize::new(0), Instant::now());
            with_helpers(HELPERS_MAX, &|| {
                inside.fetch_add(1, Ordering::SeqCst);
                while inside.load(Ordering::SeqCst) < 2 && called.elapsed() < Duration::from_millis(50) {
                    thread::yield_now();
                }
            });
            if inside.into_inner() > 1 {
                break;
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "nobody ever comes");
        }
    }

    /// As a scheduler that packs threads would not by itself.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_helper_is_kept_away_from_the_processor_of_the_caller_until_it_begins() {
        use rustix::thread::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};
        let all = sched_getaffinity(None).expect("it can be asked");
        let Some(processors) = Processors::of_caller() else {
            println!("skipped: there is one processor");
            return;
        };
        assert_eq!(processors.elsewhere.count(), all.count() - 1);
        let helper = Helper::start().expect("a thread begins");
        let affinity = || sched_getaffinity(Some(helper.thread)).expect("it can be asked");
        let elsewhere = processors.elsewhere;
        processors.keep_away(helper.thread);
        assert_eq!(affinity(), elsewhere);
        let inside = Barrier::new(2);
        let work = || {
            inside.wait();
        };
        let gate = Owned(Arc::new(Gate::new(&work, processors)));
        assert!(helper.claim() && !helper.claim());
        helper.wake(&gate.0);
        inside.wait();
        assert_eq!(affinity(), all);
        gate.close();
        // Where this thread may go nowhere else, nobody is woken.
        let mut here = CpuSet::new();
        here.set(sched_getcpu());
        let stay = |processors| sched_setaffinity(None, processors).expect("it may move itself");
        stay(&here);
        assert!(Processors::of_caller().is_none());
        stay(&all);
    }
}
