//! [`Mirror`]: the store's objects as they are in memory.
//!
//! Invariants:
//! - a page that is not there reads as zero;
//! - what a call puts in place covers what was there, which is kept until the call ends: one that fails takes its own out,
//!   from under what later calls have put over it as well. Calls end in their order, save those that never began to write.

use std::collections::{BTreeMap, HashMap};

use vmsync_core::{
    PageRange, PageSize,
    pager::{Attributes, CallId, ObjectName},
};

/// The page size of stores here.
pub(crate) const PAGE_SIZE: PageSize = PageSize::KIB_4;

/// A page's bytes.
pub(crate) type Page = Box<[u8]>;

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
    /// Calls that have not ended, oldest first.
    running: Vec<Covered>,
}

/// What a call covers: what was there before it.
struct Covered {
    call: CallId,
    pages: HashMap<(ObjectName, u64), Option<Page>>,
    /// Versions and addresses.
    objects: HashMap<ObjectName, (u64, Option<u64>)>,
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

    pub fn without_pages(&self) -> Self {
        Self {
            pages: BTreeMap::new(),
            ..*self
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
                Some(page) => target.copy_from_slice(page),
                None => target.fill(0),
            }
        }
        true
    }
}

impl Mirror {
    /// Puts a page of `call` in place.
    pub fn put(&mut self, call: CallId, object: &ObjectName, page: u64, bytes: Page) {
        let stored = self.objects.entry(object.clone()).or_default();
        let before = stored.pages.insert(page, bytes);
        let covered = self.covered(call);
        covered.pages.entry((object.clone(), page)).or_insert(before);
    }

    /// Puts the version that `call` makes of an object in place, with the address if it knows one; the object as it is then,
    /// without its pages.
    pub fn stamp(&mut self, call: CallId, object: &ObjectName, version: u64, address: Option<u64>) -> Stored {
        let stored = self.objects.entry(object.clone()).or_default();
        let before = (stored.version, stored.address);
        stored.version = version;
        stored.address = address.or(stored.address);
        let entry = stored.without_pages();
        self.covered(call).objects.entry(object.clone()).or_insert(before);
        entry
    }

    /// `call` has ended, and what it put in place stays.
    pub fn keep(&mut self, call: CallId) {
        self.running.retain(|covered| covered.call != call);
    }

    /// Takes out what `call` put in place; of each object the pages that went, from the first to the last.
    pub fn undo(&mut self, call: CallId) -> HashMap<ObjectName, PageRange> {
        let mut lost = HashMap::new();
        let Some(at) = self.running.iter().position(|covered| covered.call == call) else {
            return lost;
        };
        let covered = self.running.remove(at);
        let later = &mut self.running[at..];
        for (place, before) in covered.pages {
            let page = PageRange::new(place.1, place.1 + 1);
            let range = lost.entry(place.0.clone()).or_insert(page);
            *range = PageRange::new(range.start.min(page.start), range.end.max(page.end));
            if let Some(its) = later.iter_mut().find_map(|later| later.pages.get_mut(&place)) {
                *its = before;
            } else if let Some(stored) = self.objects.get_mut(&place.0) {
                match before {
                    Some(before) => drop(stored.pages.insert(place.1, before)),
                    None => drop(stored.pages.remove(&place.1)),
                }
            }
        }
        for (object, before) in covered.objects {
            if let Some(its) = later.iter_mut().find_map(|later| later.objects.get_mut(&object)) {
                *its = before;
            } else if let Some(stored) = self.objects.get_mut(&object) {
                (stored.version, stored.address) = before;
            }
        }
        lost
    }

    /// What `call`, the newest, covers.
    fn covered(&mut self, call: CallId) -> &mut Covered {
        if self.running.last().is_none_or(|newest| newest.call != call) {
            self.running.push(Covered {
                call,
                pages: HashMap::new(),
                objects: HashMap::new(),
            });
        }
        self.running.last_mut().expect("it was just pushed")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALLS: [CallId; 3] = [CallId(1), CallId(2), CallId(3)];

    /// An object with page 0 as the database has it, over which each of [`CALLS`] puts page 0 and a page of its own.
    fn three_calls() -> (Mirror, ObjectName) {
        let name = ObjectName::new("object").unwrap();
        let mut mirror = Mirror::default();
        let stored = mirror.objects.entry(name.clone()).or_default();
        stored.pages.insert(0, page(0));
        for call in CALLS {
            mirror.put(call, &name, 0, page(call.0));
            mirror.put(call, &name, call.0, page(call.0));
            mirror.stamp(call, &name, call.0, Some(call.0 << 16));
        }
        (mirror, name)
    }

    fn page(value: u64) -> Page {
        vec![value as u8; PAGE_SIZE.bytes() as usize].into()
    }

    /// That the mirror is as if only the calls in `kept` had been.
    fn check(mirror: &Mirror, name: &ObjectName, kept: &[CallId]) {
        let stored = &mirror.objects[name];
        let last = kept.last().map_or(0, |call| call.0);
        let mut pages = BTreeMap::from([(0, page(last))]);
        pages.extend(kept.iter().map(|call| (call.0, page(call.0))));
        assert_eq!(stored.pages, pages);
        assert_eq!(
            (stored.version, stored.address),
            (last, (last > 0).then_some(last << 16))
        );
    }

    #[test]
    fn calls_that_fail_over_one_page_leave_nothing() {
        for failing in 0..1 << CALLS.len() {
            let (mut mirror, name) = three_calls();
            let (failed, kept): (Vec<_>, Vec<_>) = CALLS
                .into_iter()
                .partition(|call| failing >> (call.0 - 1) & 1 == 1);
            for call in CALLS {
                if failed.contains(&call) {
                    mirror.undo(call);
                } else {
                    mirror.keep(call);
                }
            }
            check(&mirror, &name, &kept);
            assert!(mirror.running.is_empty());
        }
    }

    #[test]
    fn a_call_that_never_began_to_write_ends_before_older_ones() {
        let (mut mirror, name) = three_calls();
        mirror.undo(CALLS[2]);
        check(&mirror, &name, &CALLS[..2]);
        mirror.undo(CALLS[0]);
        check(&mirror, &name, &CALLS[1..2]);
        mirror.undo(CALLS[1]);
        check(&mirror, &name, &[]);
    }
}
