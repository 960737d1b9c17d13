//! Bugs that the simulator must find, at least one for each fault of its model.
//!
//! ```text
//!   missing or late syncs,    change what reached the disk and when: the trace is spoilt, and cut          lost, reordered, torn writes
//!   steps in another order    [trace]
//!   a failure that is ignored the disk does not tell the store of it                                       EIO, also of reads, ENOSPC, short writes, failed syncs
//!   damage that is not told   the disk is damaged, and nobody verifies it                                  rot, misdirected and phantom writes
//!   what is not looked at     the disk hides it                                                            broken headers and records of the journal
//!   what a process forgets    the next one finds a segment as it was before the last write                 killed processes
//!   a success of nothing      the store is not asked                                                       failed calls
//! ```

mod trace;

use crate::{damage::Damage, disk::Failure};

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
    /// One sync of each life does nothing.
    OneSyncSkipped,
    /// The name of one image of each life never arrives.
    CreationLost,
    /// Two writes to one place of an image, with no sync in between, arrive in the other order.
    WritesSwapped,
    /// An image is removed before the record that removes the object is durable.
    RemovedEarly,
    /// The superblock frees segments before images and checksums have durably what is in them.
    FreedEarly,
    /// A segment is used again before the superblock that frees it is written.
    ReusedEarly,
    /// A segment is what it was before its last write when a process begins.
    SegmentOld,
    /// A call of nothing, where nothing is queued, is answered without asking the store.
    EmptyUnasked,
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
    pub const ALL: [(&'static str, Self); 24] = [
        ("journal-not-synced", Self::JournalNotSynced),
        ("images-not-synced", Self::ImagesNotSynced),
        ("sums-not-synced", Self::SumsNotSynced),
        ("store-not-synced", Self::StoreNotSynced),
        ("names-not-synced", Self::NamesNotSynced),
        ("one-sync-skipped", Self::OneSyncSkipped),
        ("creation-lost", Self::CreationLost),
        ("writes-swapped", Self::WritesSwapped),
        ("removed-early", Self::RemovedEarly),
        ("freed-early", Self::FreedEarly),
        ("reused-early", Self::ReusedEarly),
        ("segment-old", Self::SegmentOld),
        ("empty-unasked", Self::EmptyUnasked),
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
        matches!(
            self,
            Self::Ignored(_) | Self::FailedSyncIgnored | Self::EmptyUnasked
        )
    }

    /// The damage that is not told.
    pub fn untold(self) -> Option<Damage> {
        match self {
            Self::Untold(damage) => Some(damage),
            _ => None,
        }
    }
}
