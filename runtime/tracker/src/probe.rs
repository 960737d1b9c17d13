//! Which rungs work here: each is tried on two pages, by the calls that a run would make.
//!
//! Invariants: probing leaves nothing behind but the fault handler of the `mprotect` rung, which is installed for good.

use vmsync_core::{
    ByteRange, PageSet, PageSize,
    tracker::{Backing, Tracker, TrackerKind},
};

use crate::{LinearRange, new_tracker, trial::Trial};

/// What was found out about a rung.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rung {
    /// Which one.
    pub kind: TrackerKind,
    /// Whether it recorded a store to anonymous memory; if not, what went wrong, in words.
    pub available: Result<(), String>,
    /// Whether it also watches private mappings of files; if not, why. Where it does not, copy the file in.
    pub private_file: Result<(), String>,
}

/// Tries every rung, best first.
pub fn probe() -> Vec<Rung> {
    TrackerKind::ALL.into_iter().map(probe_one).collect()
}

/// The best rung that needs no instrumented guest, and works. `Compare` always does.
pub fn best() -> TrackerKind {
    let works = |kind: &TrackerKind| *kind != TrackerKind::Barrier && probe_one(*kind).available.is_ok();
    TrackerKind::ALL
        .into_iter()
        .find(works)
        .unwrap_or(TrackerKind::Compare)
}

fn probe_one(kind: TrackerKind) -> Rung {
    if kind == TrackerKind::Barrier {
        // It needs nothing of the system, but a guest whose stores are instrumented.
        return Rung {
            kind,
            available: Ok(()),
            private_file: Ok(()),
        };
    }
    let available = try_on(kind, Backing::Anonymous);
    let private_file = available
        .clone()
        .and_then(|()| try_on(kind, Backing::PrivateFile));
    Rung {
        kind,
        available,
        private_file,
    }
}

/// Maps two pages, stores to the second, collects twice.
fn try_on(kind: TrackerKind, backing: Backing) -> Result<(), String> {
    let page = PageSize::KIB_64;
    let trial = Trial::new(backing, 2 * page.bytes() as usize)?;
    let all = ByteRange::new(0, 2 * page.bytes());
    let range = LinearRange {
        base: trial.base(),
        bytes_reserved: all.end,
    };
    // SAFETY: the trial's memory is ours, and outlives the tracker, which is dropped first.
    let mut tracker = unsafe { new_tracker(kind, range, page) }.map_err(|error| error.to_string())?;
    tracker.attach(all, backing).map_err(|error| error.to_string())?;
    // SAFETY: inside the mapping, which is writable.
    unsafe { trial.base().add(page.bytes() as usize + 1).write_volatile(1) };
    let first = collect(tracker.as_mut(), all)?;
    let second = collect(tracker.as_mut(), all)?;
    if first.runs() != PageSet::from_iter([1]).runs() || !second.is_empty() {
        return Err(format!(
            "{kind} tracker: a store to page 1 was seen as {:?}, then {:?}",
            first.runs(),
            second.runs()
        ));
    }
    Ok(())
}

fn collect(tracker: &mut dyn Tracker, range: ByteRange) -> Result<PageSet, String> {
    let mut dirty = PageSet::new();
    tracker
        .collect(range, &mut dirty)
        .map_err(|error| error.to_string())?;
    Ok(dirty)
}
