//! [`Contender`]: who commits changes; and what several of them share.

use std::{
    sync::{
        Barrier,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use anyhow::Result;

use crate::workload::{Change, Workload};

/// Seconds of one commit.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spent {
    /// Making the change: stores, or the statements of a transaction.
    pub change: f64,
    /// Making it durable.
    pub commit: f64,
}

/// Somebody who keeps 1 GiB of state durable.
pub trait Contender {
    /// Its name, with the options that were chosen for it.
    fn name(&self) -> &'static str;

    /// Makes `change` and commits it.
    ///
    /// # Errors
    /// Whatever goes wrong; the run is over then.
    fn commit(&mut self, workload: Workload, change: &Change) -> Result<Spent>;

    /// Brings everything to its final place, as a checkpoint would.
    ///
    /// # Errors
    /// As for `commit`.
    fn settle(&mut self) -> Result<()> {
        Ok(())
    }

    /// Commits of eight bytes each a second, of so many committers for `time`; `None` where that makes no sense.
    ///
    /// # Errors
    /// As for `commit`.
    fn rate(&mut self, committers: usize, time: Duration) -> Result<Option<f64>>;

    /// Seconds from nothing to the first page or record; `None` where that makes no sense.
    ///
    /// # Errors
    /// As for `commit`.
    fn open(&mut self) -> Result<Option<f64>>;
}

/// Commits a second of one thread for each of `committers`; all begin at once, and none begins another commit after
/// `time`.
pub fn rate_of<C: FnMut(usize) -> Result<()> + Send>(committers: Vec<C>, time: Duration) -> Result<f64> {
    let barrier = Barrier::new(committers.len());
    let (start, count) = (Instant::now(), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let running: Vec<_> = committers
            .into_iter()
            .map(|mut commit| {
                let (barrier, count) = (&barrier, &count);
                scope.spawn(move || {
                    barrier.wait();
                    for number in 0.. {
                        if start.elapsed() >= time {
                            break;
                        }
                        commit(number)?;
                        count.fetch_add(1, Relaxed);
                    }
                    Ok(())
                })
            })
            .collect();
        running
            .into_iter()
            .try_for_each(|thread| thread.join().expect("a committer does not panic"))
    })
    .map(|()| count.into_inner() as f64 / start.elapsed().as_secs_f64())
}

/// Calls `body` and measures it.
pub fn timed<T>(body: impl FnOnce() -> Result<T>) -> Result<(T, f64)> {
    let start = Instant::now();
    let value = body()?;
    Ok((value, start.elapsed().as_secs_f64()))
}
