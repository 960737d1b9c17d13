//! [`Bridge`]: asynchronous clients, called from pagers, which are synchronous.
//!
//! Invariants:
//! - no wait is without a bound;
//! - it works on any thread: work runs on threads of its own, so a caller may itself be inside a runtime, where
//!   blocking on another one would panic.

use std::{
    future::Future,
    sync::mpsc,
    time::{Duration, Instant},
};

use tokio::runtime::{Builder, Handle, Runtime};
use vmsync_core::{PagerError, PagerErrorKind};

use crate::Result;

/// Threads that drive asynchronous clients.
pub struct Bridge(Option<Runtime>);

impl Bridge {
    /// Starts them: two, so that reading goes on while a commit is encoded.
    ///
    /// # Errors
    /// [`PagerErrorKind::Io`] where threads cannot be started.
    pub fn new() -> Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("vmsync-remote")
            .enable_all()
            .build();
        let failed = |error| PagerError::new(PagerErrorKind::Io, format!("cannot start threads: {error}"));
        Ok(Self(Some(runtime.map_err(failed)?)))
    }

    /// For what goes on in the background.
    pub fn handle(&self) -> &Handle {
        self.0.as_ref().expect("there until it is dropped").handle()
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
        let (sender, receiver) = mpsc::sync_channel(1);
        let task = self.handle().spawn(async move {
            // A receiver that is gone has given up.
            let _ = sender.try_send(tokio::time::timeout_at(deadline.into(), work).await);
        });
        // Only a machine that is far too busy exceeds the work's own deadline by so much.
        let left = deadline.saturating_duration_since(Instant::now()) + Duration::from_secs(5);
        let too_slow = || {
            PagerError::new(
                PagerErrorKind::TimedOut,
                format!("{what}: no answer in time: retry"),
            )
        };
        match receiver.recv_timeout(left) {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(too_slow()),
            Err(_) => {
                task.abort();
                Err(too_slow())
            }
        }
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        // Dropping a runtime inside another one would panic, and waiting for a dead network has no bound.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// A number that nobody else draws, from the operating system.
pub fn nonce() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    // The keys of the hasher are random for the process and different for each one made.
    let mut hasher = RandomState::new().build_hasher();
    hasher.write_u32(std::process::id());
    hasher.finish()
}
