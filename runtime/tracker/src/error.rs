//! How this crate's errors are worded: the rung, what was tried, what came back.

use core::fmt::Display;

use vmsync_core::tracker::{TrackerError, TrackerKind};

/// `what` failed on rung `kind`, because of `why`.
pub(crate) fn failed(kind: TrackerKind, what: &str, why: impl Display) -> TrackerError {
    TrackerError {
        kind,
        message: format!("{what}: {why}"),
    }
}
