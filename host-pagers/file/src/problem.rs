//! [`Problem`]: damage with its place, and [`Trouble`]: damage or a disk that does not answer.

use vmsync_core::{PagerError, PagerErrorKind};

/// Something in a store that contradicts itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file in the store's folder.
    pub file: String,
    /// Where in the file, in bytes.
    pub offset: u64,
    /// What was expected and what was found.
    pub what: String,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} at byte {}: {}", self.file, self.offset, self.what)
    }
}

impl Problem {
    pub(crate) fn new(file: impl Into<String>, offset: u64, what: impl Into<String>) -> Self {
        Self {
            file: file.into(),
            offset,
            what: what.into(),
        }
    }
}

/// Why stored bytes could not be read.
#[derive(Clone, Debug)]
pub(crate) enum Trouble {
    /// The disk failed, or the store cannot be used this way.
    Disk(PagerError),
    /// The bytes are there and wrong.
    Damage(Problem),
}

impl From<PagerError> for Trouble {
    fn from(error: PagerError) -> Self {
        Self::Disk(error)
    }
}

impl From<Problem> for Trouble {
    fn from(problem: Problem) -> Self {
        Self::Damage(problem)
    }
}

impl From<Trouble> for PagerError {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Disk(error) => error,
            Trouble::Damage(problem) => Self::new(
                PagerErrorKind::Damaged,
                format!("{problem}; verify the store, and restore it from a copy"),
            ),
        }
    }
}
