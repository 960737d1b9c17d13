//! [`inspect_on`]: what a store holds, without opening it. Changes nothing and reads no page.

use vmsync_core::{
    PageSize, PagerError, PagerErrorKind,
    pager::{Attributes, ObjectName},
};

use crate::{
    disk::{Access, Disk, Result, Sharing},
    layout::record::RecordKind,
    recovery::existing,
    replay::replay_catalog,
    scan::scan,
    store::attributes,
};

/// What a store holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The format version of its superblock.
    pub format_version: u32,
    /// The page size of the store.
    pub page_size: PageSize,
    /// Its objects, by name.
    pub objects: Vec<(ObjectName, Attributes)>,
    /// Its journal.
    pub journal: JournalSummary,
    /// The number of its superblock: one more with each checkpoint, each new part of the journal and each closing.
    pub superblock: u64,
}

/// What a store's journal holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalSummary {
    /// Files with records that count.
    pub segments: usize,
    /// Files that wait to be used again.
    pub segments_free: usize,
    /// Bytes of the files with records that count.
    pub bytes_in_use: u64,
    /// Records with calls that a replay would do.
    pub records: usize,
    /// Calls in them.
    pub calls: u64,
    /// The number that the next call gets.
    pub sequence_next: u64,
}

/// Summarizes the store on `disk`.
///
/// # Errors
/// [`PagerErrorKind::Busy`] while a program has it open for writing, [`PagerErrorKind::NotFound`] where there is none,
/// [`PagerErrorKind::Damaged`] and [`PagerErrorKind::Version`] as for opening it, and what reading fails with.
pub fn inspect_on(disk: &dyn Disk) -> Result<Summary> {
    let _lock = disk.lock(Sharing::Shared)?;
    let superblock = existing(disk)?.ok_or_else(|| {
        PagerError::new(
            PagerErrorKind::NotFound,
            format!("there is no store in {}", disk.place()),
        )
    })?;
    let log = scan(disk, Access::Read, &superblock)?;
    let replayed = replay_catalog(&log.records, superblock.page_size)?;
    let named = |entry: &crate::layout::catalog::CatalogEntry| (entry.name.clone(), attributes(entry));
    let mut objects: Vec<_> = replayed
        .catalog
        .objects()
        .map(|(_, entry)| named(entry))
        .collect();
    objects.sort_by(|left, right| left.0.cmp(&right.0));
    let calls = log
        .records
        .iter()
        .filter(|record| record.header.kind == RecordKind::Calls);
    let journal = JournalSummary {
        segments: log.live.len(),
        segments_free: log.free.len(),
        bytes_in_use: log.live.iter().map(|live| live.end).sum(),
        records: calls.clone().count(),
        calls: calls.map(|record| u64::from(record.header.calls)).sum(),
        sequence_next: log.sequence_next,
    };
    Ok(Summary {
        format_version: superblock.version,
        page_size: superblock.page_size,
        objects,
        journal,
        superblock: superblock.number,
    })
}
