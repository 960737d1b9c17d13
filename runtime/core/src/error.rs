//! What a pager can fail with. The kind says what the caller does next, and maps to the `kern_return` that the
//! guest sees; the message is for the people who run the host.

use alloc::{format, string::String};
use core::fmt;

use crate::KernReturn;

/// Why a pager could not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct PagerError {
    /// What the caller does next.
    pub kind: PagerErrorKind,
    /// What happened, where, and what to do about it.
    pub message: String,
}

/// What the caller of a failed pager does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PagerErrorKind {
    /// The store does not have the object: ask for it to be created.
    NotFound,
    /// The name, size or page size cannot be used: call again with other ones.
    Invalid,
    /// The store or the object is read-only, or the right is missing.
    Denied,
    /// Another process or task holds it: close it there.
    Busy,
    /// Storage or a quota is full: free room, then retry.
    NoSpace,
    /// An I/O operation failed: what was returned is not durable; retry.
    Io,
    /// The pager could not supply a page: retry.
    Unavailable,
    /// The pager did not answer in time.
    TimedOut,
    /// The stored bytes contradict themselves: stop and verify the store.
    Damaged,
    /// The store was written by another format version.
    Version,
    /// The object is gone for good.
    Gone,
    /// This pager does not offer it.
    Unsupported,
}

impl PagerError {
    /// An error of `kind`.
    pub fn new(kind: PagerErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }

    /// The same with where it happened, or what it is the reason of, in front.
    #[must_use]
    pub fn within(self, place: impl fmt::Display) -> Self {
        Self::new(self.kind, format!("{place}: {}", self.message))
    }

    /// Of a call that is on its way, or queued, behind one that fails so.
    #[must_use]
    pub fn behind(self) -> Self {
        self.within("a call before it is lost, and it may be a mix without that: sync again")
    }
}

impl PagerErrorKind {
    /// What the guest sees when a write-back fails with this (rows E of `tests/rows`).
    pub fn write_back(self) -> KernReturn {
        match self {
            Self::NoSpace => KernReturn::ResourceShortage,
            Self::Gone => KernReturn::MemoryFailure,
            Self::TimedOut => KernReturn::Aborted,
            _ => KernReturn::Failure,
        }
    }

    /// What the guest sees when a page cannot be supplied.
    pub fn supply(self) -> KernReturn {
        match self {
            Self::Gone => KernReturn::MemoryFailure,
            Self::TimedOut => KernReturn::Aborted,
            _ => KernReturn::MemoryError,
        }
    }

    /// What the guest sees when an object cannot be opened.
    pub fn open(self) -> KernReturn {
        match self {
            Self::NotFound => KernReturn::InvalidObject,
            Self::Invalid => KernReturn::InvalidArgument,
            Self::Denied | Self::Busy => KernReturn::NoAccess,
            Self::NoSpace => KernReturn::ResourceShortage,
            Self::TimedOut => KernReturn::Aborted,
            Self::Gone => KernReturn::MemoryFailure,
            Self::Unsupported => KernReturn::NotSupported,
            Self::Io | Self::Unavailable | Self::Damaged | Self::Version => KernReturn::MemoryError,
        }
    }
}
