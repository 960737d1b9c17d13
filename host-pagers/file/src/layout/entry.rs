//! [`Entry`]: what a call in the journal does, one step each.
//!
//! ```text
//!   call:  length u32, entry count u32, entries
//!   entry: tag u8, fields
//!     1 page:     object u64, page u64, sum u64, run count u16, runs of { start u16, length - 1 u16, bytes }
//!     2 address:  object u64, address u64
//!     3 create:   object u64, size u64, name length u8, name
//!     4 grow:     object u64, size u64
//!     5 remove:   object u64
//! ```
//!
//! Invariants:
//! - the runs of a page ascend, do not touch, and lie inside the page;
//! - `sum` is the checksum of the whole page after the entry, so that replay can tell a right page from a wrong one.

use std::ops::Range;

use vmsync_core::{PageSize, pager::ObjectName};

use crate::layout::Cursor;

/// The front of a call: its length without this front, and its count of entries.
pub(crate) const CALL_HEADER_BYTES: usize = 8;

const TAG_PAGE: u8 = 1;
const TAG_ADDRESS: u8 = 2;
const TAG_CREATE: u8 = 3;
const TAG_GROW: u8 = 4;
const TAG_REMOVE: u8 = 5;

/// The front of a page's entry.
const PAGE_HEADER_BYTES: usize = 27;

/// What a page's runs cost beside their bytes.
pub(crate) const RUN_HEADER_BYTES: usize = 4;

/// A change of the catalog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CatalogChange {
    Address {
        object: u64,
        address: u64,
    },
    Create {
        object: u64,
        size: u64,
        name: ObjectName,
    },
    Grow {
        object: u64,
        size: u64,
    },
    Remove {
        object: u64,
    },
}

/// The difference of one page.
#[derive(Clone, Copy)]
pub(crate) struct PageEntry<'a> {
    pub(crate) object: u64,
    pub(crate) page: u64,
    pub(crate) sum: u64,
    runs: &'a [u8],
}

/// One step of a call.
pub(crate) enum Entry<'a> {
    Page(PageEntry<'a>),
    Catalog(CatalogChange),
}

impl<'a> PageEntry<'a> {
    /// The runs: where in the page, and what.
    pub(crate) fn runs(&self) -> impl Iterator<Item = (usize, &'a [u8])> + use<'a> {
        read_runs(self.runs)
    }

    /// The runs as they are encoded.
    pub(crate) fn encoded_runs(&self) -> &'a [u8] {
        self.runs
    }

    /// Puts the runs into `page`.
    pub(crate) fn apply(&self, page: &mut [u8]) {
        for (start, bytes) in self.runs() {
            page[start..start + bytes.len()].copy_from_slice(bytes);
        }
    }
}

/// Goes through encoded runs: where in the page, and what.
pub(crate) fn read_runs(runs: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let mut cursor = Cursor(runs);
    std::iter::from_fn(move || read_run(&mut cursor))
}

fn read_run<'a>(cursor: &mut Cursor<'a>) -> Option<(usize, &'a [u8])> {
    let start = usize::from(cursor.u16()?);
    let length = usize::from(cursor.u16()?) + 1;
    Some((start, cursor.bytes(length)?))
}

/// Appends the entry of a page; `runs` are ranges of `page`. Answers where the encoded runs are.
pub(crate) fn encode_page(
    body: &mut Vec<u8>,
    (object, number, sum): (u64, u64, u64),
    page: &[u8],
    runs: &[(usize, usize)],
) -> Range<usize> {
    let changed: usize = runs.iter().map(|(start, end)| end - start).sum();
    body.reserve(PAGE_HEADER_BYTES + runs.len() * RUN_HEADER_BYTES + changed);
    body.push(TAG_PAGE);
    for field in [object, number, sum] {
        body.extend_from_slice(&field.to_le_bytes());
    }
    let count = u16::try_from(runs.len()).expect("fewer runs than bytes in a page");
    body.extend_from_slice(&count.to_le_bytes());
    let start = body.len();
    runs.iter().for_each(|run| encode_run(body, page, *run));
    start..body.len()
}

/// Appends a run: the bytes of `page` from `start` to `end`.
pub(crate) fn encode_run(body: &mut Vec<u8>, page: &[u8], (start, end): (usize, usize)) {
    assert!(start < end && end <= page.len());
    let field = |value: usize| u16::try_from(value).expect("a position in a page").to_le_bytes();
    body.extend_from_slice(&field(start));
    body.extend_from_slice(&field(end - start - 1));
    body.extend_from_slice(&page[start..end]);
}

/// Appends the entry of a change of the catalog.
pub(crate) fn encode_change(body: &mut Vec<u8>, change: &CatalogChange) {
    let mut fields = |tag: u8, fields: &[u64]| {
        body.push(tag);
        fields
            .iter()
            .for_each(|field| body.extend_from_slice(&field.to_le_bytes()));
    };
    match change {
        CatalogChange::Address { object, address } => fields(TAG_ADDRESS, &[*object, *address]),
        CatalogChange::Grow { object, size } => fields(TAG_GROW, &[*object, *size]),
        CatalogChange::Remove { object } => fields(TAG_REMOVE, &[*object]),
        CatalogChange::Create { object, size, name } => {
            fields(TAG_CREATE, &[*object, *size]);
            body.push(u8::try_from(name.as_str().len()).expect("names are checked"));
            body.extend_from_slice(name.as_str().as_bytes());
        }
    }
}

/// Writes the front of a call whose entries follow it at the end of `body`.
pub(crate) fn encode_call_header(header: &mut [u8], length: usize, entries: usize) {
    let field = |value: usize| u32::try_from(value).expect("calls are limited").to_le_bytes();
    header[..4].copy_from_slice(&field(length));
    header[4..CALL_HEADER_BYTES].copy_from_slice(&field(entries));
}

/// Reads the next call: its entries, or `None` where the bytes are not one.
pub(crate) fn decode_call<'a>(cursor: &mut Cursor<'a>, page_size: PageSize) -> Option<Vec<Entry<'a>>> {
    let (length, count) = (cursor.u32()?, cursor.u32()?);
    let mut entries = Cursor(cursor.bytes(length as usize)?);
    let mut decoded = Vec::new();
    for _ in 0..count {
        decoded.push(decode_entry(&mut entries, page_size)?);
    }
    entries.0.is_empty().then_some(decoded)
}

fn decode_entry<'a>(cursor: &mut Cursor<'a>, page_size: PageSize) -> Option<Entry<'a>> {
    let (tag, object) = (cursor.u8()?, cursor.u64()?);
    let change = match tag {
        TAG_PAGE => return decode_page(cursor, object, page_size).map(Entry::Page),
        TAG_ADDRESS => CatalogChange::Address {
            object,
            address: cursor.u64()?,
        },
        TAG_GROW => CatalogChange::Grow {
            object,
            size: cursor.u64()?,
        },
        TAG_REMOVE => CatalogChange::Remove { object },
        TAG_CREATE => {
            let size = cursor.u64()?;
            CatalogChange::Create {
                object,
                size,
                name: decode_name(cursor)?,
            }
        }
        _ => return None,
    };
    Some(Entry::Catalog(change))
}

/// A length byte and a name.
pub(crate) fn decode_name(cursor: &mut Cursor<'_>) -> Option<ObjectName> {
    let length = usize::from(cursor.u8()?);
    let text = std::str::from_utf8(cursor.bytes(length)?).ok()?;
    ObjectName::new(text).ok()
}

fn decode_page<'a>(cursor: &mut Cursor<'a>, object: u64, page_size: PageSize) -> Option<PageEntry<'a>> {
    let (page, sum, run_count) = (cursor.u64()?, cursor.u64()?, cursor.u16()?);
    let all = cursor.0;
    let mut end_last = 0;
    for _ in 0..run_count {
        let (start, bytes) = read_run(cursor)?;
        if start < end_last || (start + bytes.len()) as u64 > page_size.bytes() {
            return None;
        }
        end_last = start + bytes.len();
    }
    let runs = &all[..all.len() - cursor.0.len()];
    Some(PageEntry {
        object,
        page,
        sum,
        runs,
    })
}

#[cfg(test)]
mod tests {
    use vmsync_pager_conformance::random::Random;

    use super::*;

    #[test]
    fn a_call_comes_back_as_it_was() {
        let mut body = vec![0; CALL_HEADER_BYTES];
        let page: Vec<u8> = (0..4096u32).map(|byte| byte as u8).collect();
        encode_page(&mut body, (3, 9, 77), &page, &[(0, 8), (100, 101), (4000, 4096)]);
        let name = ObjectName::new("a.name").unwrap();
        let changes = [
            CatalogChange::Address {
                object: 3,
                address: 0x10_0000,
            },
            CatalogChange::Create {
                object: 4,
                size: 8192,
                name,
            },
            CatalogChange::Grow {
                object: 4,
                size: 16384,
            },
            CatalogChange::Remove { object: 4 },
        ];
        changes.iter().for_each(|change| encode_change(&mut body, change));
        let length = body.len() - CALL_HEADER_BYTES;
        encode_call_header(&mut body, length, 5);

        let entries = decode_call(&mut Cursor(&body), PageSize::KIB_4).expect("decodes");
        let mut copy = vec![0; 4096];
        match &entries[0] {
            Entry::Page(entry) => {
                assert_eq!((entry.object, entry.page, entry.sum), (3, 9, 77));
                assert_eq!(entry.runs().count(), 3);
                entry.apply(&mut copy);
            }
            Entry::Catalog(_) => panic!("a page comes first"),
        }
        assert!(copy[..8] == page[..8] && copy[8..100].iter().all(|byte| *byte == 0));
        assert!(copy[4000..] == page[4000..] && copy[100] == page[100]);
        for (entry, change) in entries[1..].iter().zip(&changes) {
            assert!(matches!(entry, Entry::Catalog(decoded) if decoded == change));
        }
    }

    #[test]
    fn any_bytes_decode_without_a_panic() {
        let mut random = Random::from_environment("entries");
        for _ in 0..20_000 {
            let mut bytes = vec![0; random.below(120) as usize + 8];
            random.fill(&mut bytes);
            let length = bytes.len() - CALL_HEADER_BYTES;
            encode_call_header(&mut bytes, length, 1 + random.below(3) as usize);
            bytes[CALL_HEADER_BYTES..]
                .iter_mut()
                .take(1)
                .for_each(|tag| *tag %= 7);
            if let Some(entries) = decode_call(&mut Cursor(&bytes), PageSize::KIB_4) {
                for entry in entries {
                    if let Entry::Page(entry) = entry {
                        entry.apply(&mut [0; 4096]);
                    }
                }
            }
        }
    }
}
