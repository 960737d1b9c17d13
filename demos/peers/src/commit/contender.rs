//! [`Contender`]: who commits changes; and what several of them share.

use std::{sync::Barrier, time::Instant};

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

    /// Commits of eight bytes each a second, of so many threads with `each` commits; `None` where that makes no sense.
    ///
    /// # Errors
    /// As for `commit`.
    fn rate(&mut self, threads: usize, each: usize) -> Result<Option<f64>>;

    /// Seconds from nothing to the first page or record; `None` where that makes no sense.
    ///
    /// # Errors
    /// As for `commit`.
    fn open(&mut self) -> Result<Option<f64>>;
}

/// Commits a second of one thread for each of `committers`; each commits `each` times, all begin at once.
pub fn rate_of<C: FnMut(usize) -> Result<()> + Send>(committers: Vec<C>, each: usize) -> Result<f64> {
    let (threads, barrier) = (committers.len(), Barrier::new(committers.len() + 1));
    let mut start = Instant::now();
    std::thread::scope(|scope| {
        let running: Vec<_> = committers
            .into_iter()
            .map(|mut commit| {
                let barrier = &barrier;
                scope.spawn(move || {
                    barrier.wait();
                    (0..each).try_for_each(&mut commit)
                })
            })
            .collect();
        barrier.wait();
        start = Instant::now();
        running
            .into_iter()
            .try_for_each(|thread| thread.join().expect("a committer does not panic"))
    })?;
    Ok((threads * each) as f64 / start.elapsed().as_secs_f64())
}

/// Calls `body` and measures it.
pub fn timed<T>(body: impl FnOnce() -> Result<T>) -> Result<(T, f64)> {
    let start = Instant::now();
    let value = body()?;
    Ok((value, start.elapsed().as_secs_f64()))
}
