//! The errors of this crate, made in one place so that they read alike.

use vmsync_core::{PagerError, PagerErrorKind};

/// The stored bytes of `file` contradict themselves at `offset`.
pub(crate) fn damaged(file: &str, offset: u64, what: impl std::fmt::Display) -> PagerError {
    PagerError::new(
        PagerErrorKind::Damaged,
        format!("{file} at byte {offset}: {what}"),
    )
}

/// The caller asked for something that makes no sense.
pub(crate) fn invalid(what: impl Into<String>) -> PagerError {
    PagerError::new(PagerErrorKind::Invalid, what)
}
