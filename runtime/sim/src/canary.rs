//! Bugs that the simulator must find, at least one for each fault of its model.
//!
//! ```text
//!   missing or late syncs     change what reached the disk and when: the trace is spoilt, and cut          lost, reordered, torn writes
//!   a failure that is ignored the disk does not tell the store of it                                       EIO, also of reads, ENOSPC, short writes, failed syncs
//!   damage that is not told   the disk is damaged, and nobody verifies it                                  rot, misdirected and phantom writes
//!   what is not looked at     the disk hides it                                                            broken headers and records of the journal
//! ```

use std::collections::BTreeMap;

use crate::{
    damage::Damage,
    disk::Failure,
    life::Life,
    platter::{Change, FileNumber},
};

/// A bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Canary {
    /// The sync of the journal does nothing.
    JournalNotSynced,
    /// The sync of images does nothing.
    ImagesNotSynced,
    /// The sync of checksums does nothing.
    SumsNotSynced,
    /// The sync of the superblock does nothing.
    StoreNotSynced,
    /// The sync of names does nothing.
    NamesNotSynced,
    /// Pages go into the images before the record that changes them is durable.
    ImagesEarly,
    /// Operations that fail this way count as done.
    Ignored(Failure),
    /// Syncs that fail count as done.
    FailedSyncIgnored,
    /// Verifying does not tell what is damaged this way. (Files that are cut short or missing are told by opening as well.) What
    /// opening tells a broken header or record by is hidden from it: what lies behind, and the superblock that names the segment.
    Untold(Damage),
}

impl Canary {
    /// All of them, by the name that the command knows.
    pub const ALL: [(&'static str, Self); 16] = [
        ("journal-not-synced", Self::JournalNotSynced),
        ("images-not-synced", Self::ImagesNotSynced),
        ("sums-not-synced", Self::SumsNotSynced),
        ("store-not-synced", Self::StoreNotSynced),
        ("names-not-synced", Self::NamesNotSynced),
        ("images-early", Self::ImagesEarly),
        ("eio-ignored", Self::Ignored(Failure::Io)),
        ("enospc-ignored", Self::Ignored(Failure::NoSpace)),
        ("short-write-ignored", Self::Ignored(Failure::Short)),
        ("read-error-ignored", Self::Ignored(Failure::Read)),
        ("failed-sync-ignored", Self::FailedSyncIgnored),
        ("rot-untold", Self::Untold(Damage::Rot)),
        ("misdirected-untold", Self::Untold(Damage::Misdirected)),
        ("phantom-untold", Self::Untold(Damage::Phantom)),
        ("header-untold", Self::Untold(Damage::Header)),
        ("record-untold", Self::Untold(Damage::Record)),
    ];

    /// Which failures of the disk the store is not told of.
    pub fn ignores(self, failure: Failure, sync: bool) -> bool {
        match self {
            Self::Ignored(ignored) => ignored == failure && !sync,
            Self::FailedSyncIgnored => failure != Failure::FalseAlarm && sync,
            _ => false,
        }
    }

    /// Whether the bug shows only where operations fail.
    pub fn needs_faults(self) -> bool {
        matches!(self, Self::Ignored(_) | Self::FailedSyncIgnored)
    }

    /// The damage that is not told.
    pub fn untold(self) -> Option<Damage> {
        match self {
            Self::Untold(damage) => Some(damage),
            _ => None,
        }
    }

    /// Makes `life` one of a store with the bug. The number of changes stays, so that the history fits.
    pub fn spoil(self, life: &mut Life) {
        let names = names(life);
        let is = |file: &FileNumber, want: fn(&str) -> bool| names.get(file).is_some_and(|name| want(name));
        let nothing = || Change::Write(0, 0, [].into());
        if self == Self::ImagesEarly {
            return images_early(
                &mut life.trace,
                |file| is(file, is_image),
                |file| is(file, is_journal),
            );
        }
        for change in &mut life.trace {
            let hit = match (self, &*change) {
                (Self::JournalNotSynced, Change::Sync(file)) => is(file, is_journal),
                (Self::ImagesNotSynced, Change::Sync(file)) => is(file, is_image),
                (Self::SumsNotSynced, Change::Sync(file)) => is(file, |name| name.ends_with(".sums")),
                (Self::StoreNotSynced, Change::Sync(file)) => is(file, |name| name == "STORE"),
                (Self::NamesNotSynced, Change::SyncNames) => true,
                _ => false,
            };
            if hit {
                *change = nothing();
            }
        }
    }
}

fn is_journal(name: &str) -> bool {
    name.starts_with("journal-")
}

fn is_image(name: &str) -> bool {
    name.starts_with("object-") && !name.ends_with(".sums")
}

/// The name of every file that the life had.
fn names(life: &Life) -> BTreeMap<FileNumber, String> {
    let mut names: BTreeMap<FileNumber, String> = (0..).zip(life.base.keys().cloned()).collect();
    for change in &life.trace {
        if let Change::Create(name, file) = change {
            names.insert(*file, name.clone());
        }
    }
    names
}

/// Moves writes of images that directly follow a sync of the journal in front of it.
fn images_early(
    trace: &mut [Change],
    is_image: impl Fn(&FileNumber) -> bool,
    is_journal: impl Fn(&FileNumber) -> bool,
) {
    let mut sync = None;
    for index in 0..trace.len() {
        match (&trace[index], sync) {
            (Change::Sync(file), _) if is_journal(file) => sync = Some(index),
            (Change::Write(file, ..), Some(at)) if is_image(file) => {
                trace[at..=index].rotate_right(1);
                sync = Some(at + 1);
            }
            _ => sync = None,
        }
    }
}
