//! What the records of a log do: to the catalog, and to pages.
//!
//! Invariants:
//! - entries are seen in the order of the journal;
//! - replay sets, for each byte that any record since the checkpoint set, the value that the last of them set; so it
//!   comes to the same image from any mixture of older and newer bytes.

use std::collections::BTreeMap;

use vmsync_core::PageSize;

use crate::{
    layout::{
        Cursor,
        catalog::Catalog,
        entry::{Entry, PageEntry, decode_call},
        record::{HEADER_BYTES, RecordKind},
        segment_name,
    },
    problem::{Problem, Trouble},
    scan::Record,
};

/// Newest checksums by object and page.
pub(crate) type Sums = BTreeMap<(u64, u64), u64>;

/// The catalog at the checkpoint and at the end, and the checksum of each page in the journal.
pub(crate) struct Replayed {
    pub(crate) checkpoint: Catalog,
    pub(crate) catalog: Catalog,
    pub(crate) sums: Sums,
}

fn broken(record: &Record, what: &str) -> Trouble {
    Problem::new(
        segment_name(record.slot),
        record.offset + HEADER_BYTES as u64,
        what,
    )
    .into()
}

/// Goes through the calls of `records` in order: the call's number and its entries.
pub(crate) fn for_each_call<'a>(
    records: &'a [Record],
    page_size: PageSize,
    mut body: impl FnMut(&Record, u64, Vec<Entry<'a>>) -> Result<(), Trouble>,
) -> Result<(), Trouble> {
    for record in records
        .iter()
        .filter(|record| record.header.kind == RecordKind::Calls)
    {
        let mut cursor = Cursor(&record.body);
        for index in 0..u64::from(record.header.calls) {
            let Some(entries) = decode_call(&mut cursor, page_size) else {
                return Err(broken(record, "a call with a right checksum does not decode"));
            };
            body(record, record.header.sequence + index, entries)?;
        }
        if !cursor.0.is_empty() {
            return Err(broken(record, "bytes are left behind the last call"));
        }
    }
    Ok(())
}

/// Goes through the page entries of calls before `limit`.
pub(crate) fn for_each_page<'a>(
    records: &'a [Record],
    page_size: PageSize,
    limit: u64,
    mut body: impl FnMut(PageEntry<'a>) -> Result<(), Trouble>,
) -> Result<(), Trouble> {
    for_each_call(records, page_size, |_, sequence, entries| {
        for entry in entries {
            match entry {
                Entry::Page(entry) if sequence < limit => body(entry)?,
                Entry::Page(_) | Entry::Catalog(_) => {}
            }
        }
        Ok(())
    })
}

/// Replays the catalog, and checks each later snapshot against it.
pub(crate) fn replay_catalog(records: &[Record], page_size: PageSize) -> Result<Replayed, Trouble> {
    let first = records.first().expect("a log begins with a snapshot");
    let checkpoint = decode_snapshot(first)?;
    let mut replayed = Replayed {
        catalog: checkpoint.clone(),
        checkpoint,
        sums: Sums::new(),
    };
    for record in &records[1..] {
        if record.header.kind == RecordKind::Snapshot {
            let snapshot = decode_snapshot(record)?;
            if !snapshot.objects().eq(replayed.catalog.objects()) {
                return Err(broken(
                    record,
                    "the snapshot of the catalog differs from the calls before it",
                ));
            }
            // Ids may have been taken by creations that failed.
            replayed.catalog = snapshot;
            continue;
        }
        for_each_call(
            std::slice::from_ref(record),
            page_size,
            |record, sequence, entries| {
                for entry in entries {
                    replayed
                        .apply(sequence, &entry, page_size)
                        .ok_or_else(|| broken(record, "a call contradicts the catalog"))?;
                }
                Ok(())
            },
        )?;
    }
    // Pages of objects that are gone need no replay.
    let catalog = &replayed.catalog;
    replayed
        .sums
        .retain(|(object, _), _| catalog.get(*object).is_some());
    Ok(replayed)
}

fn decode_snapshot(record: &Record) -> Result<Catalog, Trouble> {
    Catalog::decode(&record.body).ok_or_else(|| broken(record, "the snapshot of the catalog does not decode"))
}

impl Replayed {
    fn apply(&mut self, sequence: u64, entry: &Entry<'_>, page_size: PageSize) -> Option<()> {
        match entry {
            Entry::Catalog(change) => self.catalog.apply(change),
            Entry::Page(entry) => {
                self.catalog.touch(entry.object, sequence)?;
                let pages = page_size.page_of(self.catalog.get(entry.object)?.size);
                if entry.page >= pages {
                    return None;
                }
                self.sums.insert((entry.object, entry.page), entry.sum);
                Some(())
            }
        }
    }
}

/// Replays `records` before `limit` over the pages in `pages`.
pub(crate) fn replay_pages(
    records: &[Record],
    page_size: PageSize,
    limit: u64,
    pages: &mut BTreeMap<(u64, u64), Vec<u8>>,
) -> Result<(), Trouble> {
    for_each_page(records, page_size, limit, |entry| {
        if let Some(page) = pages.get_mut(&(entry.object, entry.page)) {
            entry.apply(page);
        }
        Ok(())
    })
}
