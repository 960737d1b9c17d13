//! Bugs that change what reaches the disk, and when: they are put into the trace of a life.
//!
//! Invariant: the number of changes stays, so that the history fits.

use std::collections::BTreeMap;

use super::Canary;
use crate::{
    life::Life,
    platter::{Change, FileNumber},
    random::Random,
};

impl Canary {
    /// Makes `life` one of a store with the bug.
    pub fn spoil(self, life: &mut Life) {
        let files = Files::of(life);
        let trace = &mut life.trace;
        let is_skipped = |change: &Change| match (self, change) {
            (Self::JournalNotSynced, Change::Sync(file)) => files.is_journal(*file),
            (Self::ImagesNotSynced, Change::Sync(file)) => files.is_image(*file),
            (Self::SumsNotSynced, Change::Sync(file)) => files.is_sums(*file),
            (Self::StoreNotSynced, Change::Sync(file)) => files.is_store(*file),
            (Self::NamesNotSynced, Change::SyncNames) => true,
            _ => false,
        };
        trace
            .iter_mut()
            .filter(|change| is_skipped(change))
            .for_each(skip);
        match self {
            Self::OneSyncSkipped => skip_one(trace, |change| {
                matches!(change, Change::Sync(_) | Change::SyncNames)
            }),
            Self::CreationLost => {
                skip_one(
                    trace,
                    |change| matches!(change, Change::Create(name, _) if is_image(name)),
                );
            }
            Self::ImagesEarly => images_early(trace, &files),
            Self::WritesSwapped => swap_writes(trace, &files),
            Self::RemovedEarly => removed_early(trace, &files),
            Self::FreedEarly => freed_early(trace, &files),
            Self::ReusedEarly => reused_early(trace, &files),
            _ => {}
        }
    }
}

fn is_image(name: &str) -> bool {
    name.starts_with("object-") && !name.ends_with(".sums")
}

/// The name of every file that a life had.
struct Files(BTreeMap<FileNumber, String>);

impl Files {
    fn of(life: &Life) -> Self {
        let mut names: BTreeMap<FileNumber, String> = (0..).zip(life.base.keys().cloned()).collect();
        for change in &life.trace {
            if let Change::Create(name, file) = change {
                names.insert(*file, name.clone());
            }
        }
        Self(names)
    }

    fn has(&self, file: FileNumber, want: impl Fn(&str) -> bool) -> bool {
        self.0.get(&file).is_some_and(|name| want(name))
    }

    fn is_journal(&self, file: FileNumber) -> bool {
        self.has(file, |name| name.starts_with("journal-"))
    }

    fn is_image(&self, file: FileNumber) -> bool {
        self.has(file, is_image)
    }

    fn is_sums(&self, file: FileNumber) -> bool {
        self.has(file, |name| name.ends_with(".sums"))
    }

    fn is_store(&self, file: FileNumber) -> bool {
        self.has(file, |name| name == "STORE")
    }
}

fn skip(change: &mut Change) {
    *change = Change::Write(0, 0, [].into());
}

/// Skips one of those that are `wanted`.
fn skip_one(trace: &mut [Change], wanted: impl Fn(&Change) -> bool) {
    let mut random = Random::new(trace.len() as u64);
    let count = trace.iter().filter(|change| wanted(change)).count();
    let chosen = random.below(count.max(1));
    trace
        .iter_mut()
        .filter(|change| wanted(change))
        .skip(chosen)
        .take(1)
        .for_each(skip);
}

/// Moves writes of images that directly follow a sync of the journal in front of it.
fn images_early(trace: &mut [Change], files: &Files) {
    let mut sync = None;
    for index in 0..trace.len() {
        match (&trace[index], sync) {
            (Change::Sync(file), _) if files.is_journal(*file) => sync = Some(index),
            (Change::Write(file, ..), Some(at)) if files.is_image(*file) => {
                trace[at..=index].rotate_right(1);
                sync = Some(at + 1);
            }
            _ => sync = None,
        }
    }
}

/// Swaps the first writes of images to one place that no sync of theirs is between, and so on behind them.
fn swap_writes(trace: &mut [Change], files: &Files) {
    let mut unsynced: BTreeMap<(FileNumber, usize), usize> = BTreeMap::new();
    for index in 0..trace.len() {
        match &trace[index] {
            Change::Sync(file) | Change::Lose(file, _) => unsynced.retain(|(other, _), _| other != file),
            Change::Write(file, offset, _) if files.is_image(*file) => {
                match unsynced.remove(&(*file, *offset)) {
                    Some(before) => trace.swap(before, index),
                    None => drop(unsynced.insert((*file, *offset), index)),
                }
            }
            _ => {}
        }
    }
}

/// Moves the removals of images in front of the record, written and synced, that they directly follow.
fn removed_early(trace: &mut [Change], files: &Files) {
    for index in 2..trace.len() {
        if let [
            Change::Write(record, ..),
            Change::Sync(synced),
            Change::Remove(name),
        ] = &trace[index - 2..=index]
            && is_image(name)
            && record == synced
            && files.is_journal(*record)
        {
            trace[index - 2..=index].rotate_right(1);
        }
    }
}

/// Moves superblocks, written and synced, in front of the syncs that a checkpoint makes before.
fn freed_early(trace: &mut [Change], files: &Files) {
    let is_of_checkpoint = |change: &Change| match change {
        Change::Write(file, ..) => files.is_sums(*file),
        Change::Sync(file) => files.is_sums(*file) || files.is_image(*file),
        Change::SyncNames => true,
        _ => false,
    };
    for index in 1..trace.len() {
        if let [Change::Write(written, ..), Change::Sync(synced)] = &trace[index - 1..=index]
            && written == synced
            && files.is_store(*written)
        {
            let before = trace[..index - 1]
                .iter()
                .rposition(|change| !is_of_checkpoint(change));
            trace[before.map_or(0, |before| before + 1)..=index].rotate_right(2);
        }
    }
}

/// Moves the header of each segment that is used again in front of the superblock before it.
fn reused_early(trace: &mut [Change], files: &Files) {
    for index in 0..trace.len() {
        let Change::Write(file, 0, _) = trace[index] else {
            continue;
        };
        let is_own = |change: &Change| matches!(change, Change::Create(_, created) if *created == file);
        let is_superblock =
            |change: &Change| matches!(change, Change::Write(file, ..) if files.is_store(*file));
        let before = &trace[..index];
        if let Some(superblock) = before.iter().rposition(is_superblock)
            && files.is_journal(file)
            && !before[superblock..].iter().any(is_own)
        {
            trace[superblock..=index].rotate_right(1);
        }
    }
}
