//! What PostgreSQL fails with, in the words of a pager.
//!
//! Invariant: no message has a password: the driver's messages name parameters and servers, never their secrets.

use std::error::Error as _;

use tokio_postgres::{Error, Row, types::FromSql};
use vmsync_core::{PagerError, PagerErrorKind};

/// Why a step failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The connection is gone or silent: what the last statement did is not known.
    Lost(String),
    /// The server refused; nothing was done.
    Refused(PagerError),
}

impl Failure {
    /// For a caller that does not try again.
    pub(crate) fn into_error(self, store: &str) -> PagerError {
        match self {
            Self::Lost(message) => PagerError::new(
                PagerErrorKind::Io,
                format!("{store}: {message}: check that the server runs and can be reached, then retry"),
            ),
            Self::Refused(error) => error,
        }
    }
}

impl From<PagerError> for Failure {
    fn from(error: PagerError) -> Self {
        Self::Refused(error)
    }
}

/// What is in the database is not what was written.
pub(crate) fn damaged(store: &str, what: &str) -> PagerError {
    PagerError::new(
        PagerErrorKind::Damaged,
        format!("{store}: {what}: restore the database"),
    )
}

/// A value, if it has the type that it was written with.
pub(crate) fn column<'row, T: FromSql<'row>>(
    store: &str,
    row: &'row Row,
    index: usize,
) -> Result<T, PagerError> {
    row.try_get(index)
        .map_err(|error| damaged(store, &error.to_string()))
}

/// Sorts an error of the driver.
pub(crate) fn failure(store: &str, error: &Error) -> Failure {
    let Some(refusal) = error.as_db_error() else {
        let cause = error
            .source()
            .map(|cause| format!(": {cause}"))
            .unwrap_or_default();
        return Failure::Lost(format!("{error}{cause}"));
    };
    let code = refusal.code();
    // Operator intervention: the server stops, and a statement under way may have been committed. And what only ran
    // into others, or found no room for a connection: it is tried again in the same way.
    let passing = ["57014", "40001", "40P01", "55P03", "53300"].contains(&code.code());
    if passing || code.code().starts_with("57P") || code.code().starts_with("08") {
        return Failure::Lost(refusal.message().to_owned());
    }
    let (kind, advice) = match code.code() {
        "53100" | "53200" | "53400" => (PagerErrorKind::NoSpace, "free room on the server, then retry"),
        "25006" => (PagerErrorKind::Denied, "the server is read-only: use the primary"),
        "3D000" => (PagerErrorKind::NotFound, "create the database first"),
        "3F000" => (
            PagerErrorKind::NotFound,
            "create the schema that search_path names first",
        ),

        code if code.starts_with("28") || code == "42501" => (
            PagerErrorKind::Denied,
            "check the user, the password (PGPASSWORD) and the rights",
        ),
        _ => (PagerErrorKind::Io, "see the server's log"),
    };
    Failure::Refused(PagerError::new(
        kind,
        format!("{store}: {} ({}): {advice}", refusal.message(), code.code()),
    ))
}
