//! What the host application gets to see when something is wrong with its own set-up. Errors of a guest's calls are
//! `kern_return` values and go to the guest.

use vmsync_core::{KernReturn, PagerError, memory::MemoryError, tracker::TrackerError};

/// An error of the host side.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The guest cannot be run as it is.
    #[error("{0}")]
    Guest(String),
    /// The configuration contradicts itself.
    #[error("{0}")]
    Config(String),
    /// Wasmtime refused.
    #[error("{0:#}")]
    Wasmtime(wasmtime::Error),
    /// A tracker does not work here.
    #[error(transparent)]
    Tracker(#[from] TrackerError),
    /// Memory could not be mapped.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// A pager refused.
    #[error(transparent)]
    Pager(#[from] PagerError),
    /// An instance cannot be kept, opened or committed.
    #[error(transparent)]
    Durable(#[from] crate::DurableError),
    /// A call that the host made for the guest failed.
    #[error("{call}: {result}")]
    Call {
        /// The call.
        call: &'static str,
        /// Its result.
        result: KernReturn,
    },
}

impl From<wasmtime::Error> for Error {
    fn from(error: wasmtime::Error) -> Self {
        Self::Wasmtime(error)
    }
}
