//! The tracker trait: who was written since the last look.
//!
//! A tracker watches attached ranges of one linear memory. Ranges are in bytes from the start of that memory and
//! page-aligned. The trait is the whole interface between the VM and the rungs of the ladder.
//!
//! Invariants:
//! - a store to an attached page between two `collect`s is in the set of the second, or of the first when it raced;
//! - the marks of a page are cleared before `collect` returns, so that a page is copied out after its mark is gone;
//! - a page that `collect` did not report is as it was, unless [`Tracker::reports_superset`] says otherwise.

use alloc::string::String;

use crate::{page::ByteRange, page_set::PageSet};

/// The rungs of the ladder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TrackerKind {
    /// userfaultfd with asynchronous write protection, read by `PAGEMAP_SCAN` (Linux ≥ 6.7).
    UffdAsync,
    /// userfaultfd with synchronous write protection (Linux ≥ 5.7).
    UffdSync,
    /// Page protection and SIGSEGV (any Unix).
    Mprotect,
    /// Stores of an instrumented module mark a card table (everywhere).
    Barrier,
    /// Comparison with a shadow (everywhere).
    Compare,
}

impl TrackerKind {
    /// Every rung, best first.
    pub const ALL: [Self; 5] = [
        Self::UffdAsync,
        Self::UffdSync,
        Self::Mprotect,
        Self::Barrier,
        Self::Compare,
    ];

    /// The name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::UffdAsync => "uffd-async",
            Self::UffdSync => "uffd-sync",
            Self::Mprotect => "mprotect",
            Self::Barrier => "barrier",
            Self::Compare => "compare",
        }
    }

    /// The rung with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

impl core::fmt::Display for TrackerKind {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter.write_str(self.name())
    }
}

/// What lies under a range when it is attached. The memory was just mapped: no page has been stored to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backing {
    /// A private mapping of a file.
    PrivateFile,
    /// Private anonymous memory.
    Anonymous,
}

/// Why tracking failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind} tracker: {message}")]
pub struct TrackerError {
    /// The rung.
    pub kind: TrackerKind,
    /// What happened and what to do about it.
    pub message: String,
}

/// Records which pages of a linear memory were stored to.
pub trait Tracker: Send {
    /// Which rung this is.
    fn kind(&self) -> TrackerKind;

    /// Whether `collect` may report pages that were not stored to.
    fn reports_superset(&self) -> bool {
        false
    }

    /// Watches `range` from now on; all of it counts as clean. Called again for a range whose mapping was replaced.
    fn attach(&mut self, range: ByteRange, backing: Backing) -> Result<(), TrackerError>;

    /// Stops watching `range`; ranges that are not watched are left alone.
    fn detach(&mut self, range: ByteRange);

    /// Everything in `range` counts as clean from now on: the host itself has just supplied or dropped it.
    fn clear(&mut self, range: ByteRange) -> Result<(), TrackerError>;

    /// Adds the pages of `range` that were stored to since they were last attached, cleared or collected to `dirty`
    /// (page numbers of the linear memory), and watches them again. Where it fails, what it has found is in `dirty`, or found
    /// again.
    fn collect(&mut self, range: ByteRange, dirty: &mut PageSet) -> Result<(), TrackerError>;

    /// As [`Tracker::collect`], but may also report pages that were not stored to, and leave pages unwatched which it then
    /// reports every time: cheaper where nearly all are stored to. For a caller who has no use for an exact set.
    fn collect_superset(&mut self, range: ByteRange, dirty: &mut PageSet) -> Result<(), TrackerError> {
        self.collect(range, dirty)
    }
}
