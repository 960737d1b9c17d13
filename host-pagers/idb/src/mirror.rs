//! [`Mirror`]: the store's objects as they are in memory.
//!
//! Invariants:
//! - a page that is not there reads as zero;
//! - each page knows the call that changed it last, so that a failed call takes back only what is still its own.

use std::collections::{BTreeMap, HashMap};

use vmsync_core::{
    PageSize,
    pager::{Attributes, CallId, ObjectName},
};

/// The page size of stores here.
pub(crate) const PAGE_SIZE: PageSize = PageSize::KIB_4;

/// A page's bytes, and the call that returned them; `None`: they were read from the database.
#[derive(Clone)]
pub(crate) struct Page {
    pub bytes: Box<[u8]>,
    pub by: Option<CallId>,
}

/// One object.
#[derive(Clone, Default)]
pub(crate) struct Stored {
    pub size: u64,
    pub version: u64,
    pub address: Option<u64>,
    pub pages: BTreeMap<u64, Page>,
}

/// Every object, by name.
#[derive(Default)]
pub(crate) struct Mirror {
    pub objects: HashMap<ObjectName, Stored>,
}

/// What a call put into the mirror, and what was there before.
pub(crate) struct Change {
    pub object: ObjectName,
    pub page: u64,
    pub before: Option<Page>,
}

impl Stored {
    pub fn attributes(&self) -> Attributes {
        Attributes {
            size: self.size,
            version: self.version,
            precious: false,
            address: self.address,
        }
    }

    /// Fills `buffer` from `offset` on, both whole pages; where no page is stored, leaves it alone and says so.
    pub fn read(&self, offset: u64, buffer: &mut [u8]) -> bool {
        let first = PAGE_SIZE.page_of(offset);
        let behind = first + PAGE_SIZE.page_of(buffer.len() as u64);
        if self.pages.range(first..behind).next().is_none() {
            return false;
        }
        for (page, target) in (first..).zip(buffer.chunks_mut(PAGE_SIZE.bytes() as usize)) {
            match self.pages.get(&page) {
                Some(page) => target.copy_from_slice(&page.bytes),
                None => target.fill(0),
            }
        }
        true
    }
}

impl Mirror {
    /// Puts a page in place; what undoes it.
    pub fn put(&mut self, object: &ObjectName, page: u64, bytes: Box<[u8]>, call: CallId) -> Change {
        let stored = self.objects.entry(object.clone()).or_default();
        let before = stored.pages.insert(
            page,
            Page {
                bytes,
                by: Some(call),
            },
        );
        Change {
            object: object.clone(),
            page,
            before,
        }
    }

    /// Takes back what `call` changed, except pages that a later call has changed again.
    pub fn undo(&mut self, call: CallId, changes: Vec<Change>) {
        for change in changes.into_iter().rev() {
            let Some(stored) = self.objects.get_mut(&change.object) else {
                continue;
            };
            let own = stored
                .pages
                .get(&change.page)
                .is_some_and(|page| page.by == Some(call));
            match change.before {
                Some(before) if own => drop(stored.pages.insert(change.page, before)),
                None if own => drop(stored.pages.remove(&change.page)),
                _ => {}
            }
        }
    }
}
