//! [`Bridge`]: asynchronous clients, called from pagers, which are synchronous.
//!
//! ```text
//!   caller ------------------ run ---> drives its work and the client's connections by itself
//!   caller inside a runtime --.
//!   work in the background ---+------> the bridge's thread drives them while there are any
//! ```
//!
//! Invariants:
//! - no wait is without a bound;
//! - a caller that is alone waits for the network only: no other thread has to wake up for its request or its answer;
//! - it works on any thread: a caller that is itself inside a runtime, where blocking on another one would panic, has
//!   the bridge's thread do the work;
//! - while nobody waits and nothing goes on in the background, nothing runs.

use std::{
    future::{Future, poll_fn},
    hash::{BuildHasher, RandomState},
    pin::Pin,
    sync::{Arc, mpsc},
    task::Poll,
    thread,
    time::{Duration, Instant, SystemTime},
};

use tokio::{
    runtime::{Builder, Handle, Runtime},
    sync::mpsc::{UnboundedReceiver, UnboundedSender, WeakUnboundedSender, unbounded_channel},
    task::{JoinSet, yield_now},
    time::timeout_at,
};
use vmsync_core::{PagerError, PagerErrorKind};

use crate::Result;

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// See the head of this file.
pub struct Bridge {
    /// There until it is dropped.
    runtime: Option<Arc<Runtime>>,
    /// To the thread, which ends with it.
    background: UnboundedSender<Work>,
}

/// What goes on in the background of a [`Bridge`], and ends with that.
#[derive(Clone)]
pub struct Background(WeakUnboundedSender<Work>);

impl Background {
    /// Has the bridge's thread do `work`.
    pub fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        if let Some(background) = self.0.upgrade() {
            // A thread that is gone has lost what it had, too.
            let _ = background.send(Box::pin(work));
        }
    }
}

impl Bridge {
    /// Starts its thread.
    ///
    /// # Errors
    /// [`PagerErrorKind::Io`] where that is not possible.
    pub fn new() -> Result<Self> {
        let failed = |error| PagerError::new(PagerErrorKind::Io, format!("cannot start a thread: {error}"));
        let runtime = Arc::new(
            Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(failed)?,
        );
        let (background, work) = unbounded_channel();
        let own = runtime.clone();
        thread::Builder::new()
            .name("vmsync-remote".into())
            .spawn(move || drive(own, work))
            .map_err(failed)?;
        Ok(Self {
            runtime: Some(runtime),
            background,
        })
    }

    /// For what goes on in the background.
    pub fn background(&self) -> Background {
        Background(self.background.downgrade())
    }

    /// Runs `work` to its end, and gives it up at `deadline`.
    ///
    /// # Errors
    /// The work's, and [`PagerErrorKind::TimedOut`], then whether it took place is not known.
    pub fn run<T: Send + 'static>(
        &self,
        what: &str,
        deadline: Instant,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let too_slow = || {
            let message = format!("{what}: no answer in time: retry");
            Err(PagerError::new(PagerErrorKind::TimedOut, message))
        };
        let bounded = async move {
            // What became of idle connections is seen before one of them is used: the first turn learns of events, the
            // second one lets the connections act on them.
            yield_now().await;
            yield_now().await;
            timeout_at(deadline.into(), work).await.ok()
        };
        if Handle::try_current().is_err() {
            let runtime = self.runtime.as_ref().expect("there until it is dropped");
            return runtime.block_on(bounded).unwrap_or_else(too_slow);
        }
        let (sender, receiver) = mpsc::sync_channel(1);
        self.background().spawn(async move {
            // A receiver that is gone has given up.
            let _ = sender.try_send(bounded.await);
        });
        // Only a machine that is far too busy exceeds the work's own deadline by so much.
        let left = deadline.saturating_duration_since(Instant::now()) + Duration::from_secs(5);
        receiver
            .recv_timeout(left)
            .ok()
            .flatten()
            .unwrap_or_else(too_slow)
    }
}

/// The thread: does what comes while there is anything to be done, and then waits outside of the runtime, so that
/// callers drive it.
fn drive(runtime: Arc<Runtime>, mut work: UnboundedReceiver<Work>) {
    let mut doing = JoinSet::new();
    let mut ended = false;
    while let Some(first) = work.blocking_recv() {
        doing.spawn_on(first, runtime.handle());
        runtime.block_on(poll_fn(|context| {
            while let Poll::Ready(next) = work.poll_recv(context) {
                let Some(next) = next else {
                    ended = true;
                    return Poll::Ready(());
                };
                doing.spawn(next);
            }
            // One that panicked is over as well.
            while let Poll::Ready(Some(_)) = doing.poll_join_next(context) {}
            if doing.is_empty() {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        }));
        if ended {
            break;
        }
    }
    drop(doing);
    end(runtime);
}

/// Ends the runtime where this is its last owner. Dropping it inside another one would panic, and waiting for a dead
/// network has no bound.
fn end(runtime: Arc<Runtime>) {
    if let Some(runtime) = Arc::into_inner(runtime) {
        runtime.shutdown_background();
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            end(runtime);
        }
    }
}

/// A number that nobody else draws, from the operating system: each time, as a copy of this process (a machine that is
/// resumed from a snapshot) would go on drawing the same ones.
///
/// Where the operating system gives none (a sandbox that forbids it), time, process and the hasher's keys have to do.
pub fn nonce() -> u64 {
    let mut bytes = [0; 8];
    if getrandom::fill(&mut bytes).is_ok() {
        return u64::from_ne_bytes(bytes);
    }
    RandomState::new().hash_one((SystemTime::now(), std::process::id()))
}

#[cfg(test)]
mod tests {
    use std::{
        future::pending,
        io,
        net::{self, TcpListener},
        sync::atomic::{AtomicBool, Ordering},
    };

    use tokio::{net::TcpStream, time::sleep};

    use super::*;

    fn run<T: Send + 'static>(
        bridge: &Bridge,
        milliseconds: u64,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T> {
        let deadline = Instant::now() + Duration::from_millis(milliseconds);
        bridge.run("a test", deadline, async { Ok(work.await) })
    }

    #[test]
    fn callers_do_not_wait_for_each_other() {
        let bridge = Bridge::new().unwrap();
        let (sender, receiver) = tokio::sync::oneshot::channel();
        thread::scope(|scope| {
            // It can only end when the other one gets on meanwhile.
            let waiting = scope.spawn(|| run(&bridge, 10_000, receiver).unwrap());
            thread::sleep(Duration::from_millis(20));
            run(&bridge, 10_000, async { sender.send(7).unwrap() }).unwrap();
            assert_eq!(waiting.join().unwrap(), Ok(7));
        });
    }

    #[test]
    fn every_wait_ends() {
        let bridge = Bridge::new().unwrap();
        let error = run(&bridge, 20, pending::<()>()).unwrap_err();
        assert_eq!(error.kind, PagerErrorKind::TimedOut);
    }

    #[test]
    fn a_caller_may_be_inside_a_runtime() {
        let outer = Builder::new_current_thread().build().unwrap();
        outer.block_on(async {
            let bridge = Bridge::new().unwrap();
            bridge
                .background()
                .spawn(async { sleep(Duration::from_millis(20)).await });
            assert_eq!(run(&bridge, 10_000, async { 7 }).unwrap(), 7);
        });
    }

    #[test]
    fn background_work_goes_on_without_callers_and_ends_with_the_bridge() {
        struct Ends(mpsc::Sender<&'static str>);
        impl Drop for Ends {
            fn drop(&mut self) {
                self.0.send("ended").unwrap();
            }
        }
        let (sender, receiver) = mpsc::channel();
        let bridge = Bridge::new().unwrap();
        bridge.background().spawn(async move {
            let ends = Ends(sender);
            sleep(Duration::from_millis(20)).await;
            ends.0.send("goes on").unwrap();
            pending::<()>().await;
        });
        let wait = || receiver.recv_timeout(Duration::from_secs(10)).unwrap();
        assert_eq!(wait(), "goes on");
        drop(bridge);
        assert_eq!(wait(), "ended");
    }

    #[test]
    fn a_call_sees_what_became_of_idle_connections() {
        let bridge = Bridge::new().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let closed = Arc::new(AtomicBool::new(false));
        let own = closed.clone();
        let connect = async move {
            let stream = net::TcpStream::connect(address)?;
            stream.set_nonblocking(true)?;
            let idle = stream.try_clone()?;
            let stream = TcpStream::from_std(stream)?;
            tokio::spawn(async move {
                stream.readable().await.unwrap();
                own.store(true, Ordering::Relaxed);
            });
            io::Result::Ok(idle)
        };
        let idle = run(&bridge, 10_000, connect).unwrap().unwrap();
        let (peer, _) = listener.accept().unwrap();
        run(&bridge, 10_000, async {}).unwrap();
        assert!(!closed.load(Ordering::Relaxed));
        drop(peer);
        // Until the kernel knows.
        while idle.peek(&mut [0]).is_err() {
            thread::sleep(Duration::from_millis(1));
        }
        assert!(!closed.load(Ordering::Relaxed), "nobody drives it");
        assert!(run(&bridge, 10_000, async move { closed.load(Ordering::Relaxed) }).unwrap());
    }
}
