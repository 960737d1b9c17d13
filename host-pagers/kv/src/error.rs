//! What the database fails with, in the words of a pager.
//!
//! Invariants:
//! - a panic of the database, which contradictions in its file can cause, becomes an error and goes no further;
//! - every message names the file and what to do.

use std::{
    any::Any,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use vmsync_core::{PagerError, PagerErrorKind};
use vmsync_pager_group::Result;

/// What a step inside the database answers.
pub(crate) type Step<T> = std::result::Result<T, redb::Error>;

/// A contradiction that this crate found, as the database would report one of its own.
pub(crate) fn corrupted(what: impl Into<String>) -> redb::Error {
    redb::Error::Corrupted(what.into())
}

/// Runs `work` on the database in `file`.
pub(crate) fn guarded<T>(file: &Path, work: impl FnOnce() -> Step<T>) -> Result<T> {
    // What the closure leaves half done is inside the database, which refuses to go on after a panic.
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(answer) => answer.map_err(|error| translate(file, &error)),
        Err(panic) => {
            let message = format!(
                "{}: the database gave up on its file: {}: open it with a check, or restore it",
                file.display(),
                panic_text(&*panic)
            );
            Err(PagerError::new(PagerErrorKind::Damaged, message))
        }
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no reason given")
}

fn translate(file: &Path, error: &redb::Error) -> PagerError {
    use redb::Error;
    let (kind, advice) = match error {
        Error::DatabaseAlreadyOpen | Error::LockProtocolMismatch => (
            PagerErrorKind::Busy,
            "it is open elsewhere, in this process or another: close it there",
        ),
        Error::UpgradeRequired(_) => (
            PagerErrorKind::Version,
            "another version of the database wrote it: convert it with that version",
        ),
        Error::RepairAborted => (
            PagerErrorKind::Denied,
            "it was not closed cleanly: open it once for writing, which repairs it",
        ),
        Error::Corrupted(_)
        | Error::TableTypeMismatch { .. }
        | Error::TypeDefinitionChanged { .. }
        | Error::TableDoesNotExist(_)
        | Error::TableIsMultimap(_)
        | Error::TableIsNotMultimap(_) => (PagerErrorKind::Damaged, "restore it from a copy"),
        Error::Io(error) => return input_output(file, error),
        Error::PreviousIo | Error::DatabaseClosed => {
            (PagerErrorKind::Io, "an earlier operation on it failed: retry")
        }
        _ => (PagerErrorKind::Io, "retry; where that fails, open it again"),
    };
    PagerError::new(kind, format!("{}: {error}: {advice}", file.display()))
}

/// An error of the operating system, or of the check whether a file is a database at all.
pub(crate) fn input_output(file: &Path, error: &io::Error) -> PagerError {
    use io::ErrorKind;
    let (kind, advice) = match error.kind() {
        ErrorKind::NotFound => (PagerErrorKind::NotFound, "there is no store: create it"),
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            (PagerErrorKind::Denied, "the right is missing")
        }
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
            (PagerErrorKind::NoSpace, "free room, then retry")
        }
        ErrorKind::InvalidData | ErrorKind::UnexpectedEof => (
            PagerErrorKind::Damaged,
            "it is not a whole database: restore it from a copy",
        ),
        _ => (PagerErrorKind::Io, "what was returned is not durable: retry"),
    };
    PagerError::new(kind, format!("{}: {error}: {advice}", file.display()))
}
