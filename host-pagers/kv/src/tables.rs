//! The tables of a store, and every step that reads or writes them.
//!
//! ```text
//!   meta      "format" | "page_size" | "calls" | "object_next"  -->  number
//!   objects   name                                              -->  (id, size, version, address)
//!   pages     (id, page index)                                  -->  page bytes, then their sum (8 bytes)
//! ```
//!
//! Invariants:
//! - a page of zeroes is not stored;
//! - the sum depends on the place, so a page that moved is found out as well as one that changed: the database checks
//!   its own sums only when it opens, this one holds for every read;
//! - ids are not used again in a store.

use std::collections::BTreeMap;

use redb::{
    Durability, ReadTransaction, ReadableTable, ReadableTableMetadata, Table, TableDefinition, TableError,
    WriteTransaction,
};
use twox_hash::XxHash3_64;
use vmsync_core::{PageSize, pager::ObjectName};
use vmsync_pager_group::{Batch, Catalog, Contents, Entry, Place};

use crate::error::{Step, corrupted};

/// The version of everything in this file.
pub(crate) const FORMAT_VERSION: u64 = 1;

const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
const OBJECTS: TableDefinition<&str, (u64, u64, u64, Option<u64>)> = TableDefinition::new("objects");
const PAGES: TableDefinition<(u64, u64), &[u8]> = TableDefinition::new("pages");

const FORMAT: &str = "format";
const PAGE_SIZE: &str = "page_size";
const CALLS: &str = "calls";
const OBJECT_NEXT: &str = "object_next";

const SUM_BYTES: usize = 8;

/// What a database turned out to be.
pub(crate) enum Found {
    /// It has no tables at all.
    Fresh,
    /// It has tables, and none of them are a store's.
    Foreign,
    /// A store of another format.
    Version(u64),
    /// A store.
    Store { page_size: u64, contents: Contents },
}

/// Reads everything but the pages. Of another format only its number is read.
pub(crate) fn load(transaction: &ReadTransaction) -> Step<Found> {
    let meta = match transaction.open_table(META) {
        Err(TableError::TableDoesNotExist(_)) => {
            let fresh = transaction.list_tables()?.next().is_none();
            return Ok(if fresh { Found::Fresh } else { Found::Foreign });
        }
        opened => opened?,
    };
    let number = |name: &str| -> Step<u64> {
        let value = meta.get(name)?.map(|value| value.value());
        value.ok_or_else(|| corrupted(format!("the record \"{name}\" is missing")))
    };
    let format = number(FORMAT)?;
    if format != FORMAT_VERSION {
        return Ok(Found::Version(format));
    }
    let page_size = number(PAGE_SIZE)?;
    let known = PageSize::new(page_size)
        .ok_or_else(|| corrupted(format!("{page_size} bytes are no size of a page")))?;
    let object_next = number(OBJECT_NEXT)?;
    let mut catalog = Catalog::new();
    for record in transaction.open_table(OBJECTS)?.iter()? {
        let (name, value) = record?;
        let name = ObjectName::new(name.value()).map_err(|error| corrupted(error.message))?;
        let (id, size, version, address) = value.value();
        if id >= object_next || !known.is_aligned(size) {
            return Err(corrupted(format!("object \"{name}\": id {id} or size {size}")));
        }
        let entry = Entry {
            id,
            size,
            version,
            address,
        };
        catalog.insert(name, entry);
    }
    // Where it is missing, so is every page; better to know now.
    transaction.open_table(PAGES)?;
    let contents = Contents {
        calls: number(CALLS)?,
        object_next,
        catalog,
    };
    Ok(Found::Store { page_size, contents })
}

/// Makes the tables of an empty store.
pub(crate) fn create(transaction: WriteTransaction, page_size: PageSize) -> Step<()> {
    {
        let mut meta = transaction.open_table(META)?;
        meta.insert(FORMAT, FORMAT_VERSION)?;
        meta.insert(PAGE_SIZE, page_size.bytes())?;
        meta.insert(CALLS, 0)?;
        meta.insert(OBJECT_NEXT, 1)?;
        transaction.open_table(OBJECTS)?;
        transaction.open_table(PAGES)?;
    }
    commit(transaction)
}

/// Commits to stable storage.
fn commit(mut transaction: WriteTransaction) -> Step<()> {
    transaction.set_durability(Durability::Immediate)?;
    transaction.commit()?;
    Ok(())
}

/// Writes and commits `batch`.
pub(crate) fn write(transaction: WriteTransaction, batch: &Batch) -> Step<()> {
    {
        let mut objects = transaction.open_table(OBJECTS)?;
        let mut pages = transaction.open_table(PAGES)?;
        for (name, id) in &batch.removed {
            objects.remove(name.as_str())?;
            pages.retain_in((*id, 0)..=(*id, u64::MAX), |_, _| false)?;
        }
        for (name, entry) in &batch.objects {
            objects.insert(
                name.as_str(),
                (entry.id, entry.size, entry.version, entry.address),
            )?;
        }
        for (place, bytes) in &batch.pages {
            put_page(&mut pages, *place, bytes)?;
        }
        let mut meta = transaction.open_table(META)?;
        meta.insert(CALLS, batch.calls)?;
        meta.insert(OBJECT_NEXT, batch.object_next)?;
    }
    commit(transaction)
}

fn put_page(pages: &mut Table<(u64, u64), &'static [u8]>, place: Place, bytes: &[u8]) -> Step<()> {
    if bytes.iter().all(|byte| *byte == 0) {
        pages.remove(place)?;
        return Ok(());
    }
    let mut value = pages.insert_reserve(place, bytes.len() + SUM_BYTES)?;
    let (page, own) = value.as_mut().split_at_mut(bytes.len());
    page.copy_from_slice(bytes);
    own.copy_from_slice(&sum(place, bytes).to_le_bytes());
    Ok(())
}

/// Fills `buffer` with the pages of object `id` from `first` on, zeroes where there are none; answers whether there
/// are any.
pub(crate) fn read(
    transaction: &ReadTransaction,
    (id, first): Place,
    page_bytes: usize,
    buffer: &mut [u8],
) -> Step<bool> {
    let table = transaction.open_table(PAGES)?;
    let count = (buffer.len() / page_bytes) as u64;
    let mut next = 0;
    for record in table.range((id, first)..(id, first.saturating_add(count)))? {
        let (place, value) = record?;
        let place = place.value();
        let bytes = checked(place, value.value(), page_bytes)?;
        // In bounds: the range ends at the last page of the buffer.
        let start = (place.1 - first) as usize * page_bytes;
        buffer[next..start].fill(0);
        next = start + page_bytes;
        buffer[start..next].copy_from_slice(bytes);
    }
    if next > 0 {
        buffer[next..].fill(0);
    }
    Ok(next > 0)
}

/// The bytes of a stored page, if they are what was written there.
fn checked(place: Place, value: &[u8], page_bytes: usize) -> Step<&[u8]> {
    let (id, page) = place;
    match value.split_last_chunk::<SUM_BYTES>() {
        Some((bytes, stored))
            if bytes.len() == page_bytes && sum(place, bytes) == u64::from_le_bytes(*stored) =>
        {
            Ok(bytes)
        }
        _ => Err(corrupted(format!(
            "page {page} of the object with id {id} is not what was written"
        ))),
    }
}

fn sum((id, page): Place, bytes: &[u8]) -> u64 {
    // An odd factor keeps different ids apart for every page that an object can have.
    const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
    XxHash3_64::oneshot_with_seed(id.wrapping_mul(SPREAD) ^ page, bytes)
}

/// Checks every page against its sum and its object. Answers how many there are.
pub(crate) fn check_snapshot(transaction: &ReadTransaction, page_size: PageSize) -> Step<u64> {
    let Found::Store { contents, .. } = load(transaction)? else {
        return Err(corrupted("the records of the store are gone"));
    };
    let sizes: BTreeMap<u64, u64> = contents
        .catalog
        .values()
        .map(|entry| (entry.id, entry.size))
        .collect();
    let table = transaction.open_table(PAGES)?;
    for record in table.iter()? {
        let (place, value) = record?;
        let (id, page) = place.value();
        let inside = sizes.get(&id).is_some_and(|size| page < page_size.page_of(*size));
        if !inside {
            return Err(corrupted(format!("page {page} of id {id} is in no object")));
        }
        checked((id, page), value.value(), page_size.bytes() as usize)?;
    }
    Ok(table.len()?)
}
