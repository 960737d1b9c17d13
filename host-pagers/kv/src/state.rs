//! [`State`]: what a store keeps in memory, under one lock.
//!
//! Invariants:
//! - tickets rise in the order of the queue, and are settled in that order;
//! - `newer` has a page of a call from its queueing until it is settled: committed and in the database, or dropped;
//! - only the leader changes `catalog`, `calls_committed`, `undo` and `unsure`, and there is one at a time.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    mem,
    sync::Arc,
};

use vmsync_core::{
    PageSize, PagerError, PagerErrorKind,
    pager::{CallId, MemoryObjectControl, ObjectId, ObjectName},
};

use crate::{
    call::{Call, Notice, Queued},
    error::{Result, invalid},
    limits::GROUP_BYTES_MAX,
    tables::{Catalog, Contents, Entry, Pages, Place},
};

/// An object that the runtime has open.
pub(crate) struct Opened {
    pub(crate) name: ObjectName,
    pub(crate) write: bool,
    pub(crate) control: Arc<dyn MemoryObjectControl>,
    pub(crate) address: Option<u64>,
}

/// A page, and the ticket of the call that returned it.
type Ticketed = (u64, Arc<[u8]>);

/// See the head of this file.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) catalog: Catalog,
    pub(crate) object_next: u64,
    pub(crate) calls_committed: u64,
    pub(crate) opened: HashMap<ObjectId, Opened>,
    pub(crate) calls: HashMap<CallId, Call>,
    queue: VecDeque<Queued>,
    queued_bytes: usize,
    newer: BTreeMap<Place, Vec<Ticketed>>,
    /// The last ticket that was given out.
    pub(crate) ticket: u64,
    /// Every ticket up to this one is settled.
    pub(crate) settled: u64,
    /// A thread commits.
    pub(crate) leading: bool,
    /// Pages to put back with the next transaction: a commit that failed may have taken place all the same.
    pub(crate) undo: Pages,
    /// The same of the last failed commit, before it is known whether it took place.
    pub(crate) unsure: Pages,
    pub(crate) stop: bool,
}

impl State {
    pub(crate) fn new(contents: Contents) -> Self {
        Self {
            catalog: contents.catalog,
            object_next: contents.object_next,
            calls_committed: contents.calls,
            ..Self::default()
        }
    }

    pub(crate) fn opened(&self, object: ObjectId) -> Result<(&Opened, &Entry)> {
        let unknown = || invalid(format!("object {} is not open in this store", object.0));
        let opened = self.opened.get(&object).ok_or_else(unknown)?;
        let entry = self.catalog.get(&opened.name).ok_or_else(|| {
            let message = format!("\"{}\" is not in the store any more", opened.name);
            PagerError::new(PagerErrorKind::Gone, message)
        })?;
        Ok((opened, entry))
    }

    /// The open object, if `length` bytes at `offset` are whole pages of it.
    pub(crate) fn checked(
        &self,
        object: ObjectId,
        page_size: PageSize,
        (offset, length): (u64, u64),
    ) -> Result<(&Opened, &Entry)> {
        let (opened, entry) = self.opened(object)?;
        let aligned = page_size.is_aligned(offset) && page_size.is_aligned(length);
        if aligned && offset.checked_add(length).is_some_and(|end| end <= entry.size) {
            return Ok((opened, entry));
        }
        Err(invalid(format!(
            "{length} bytes at {offset} are not whole pages of {} bytes inside \"{}\" of {} bytes",
            page_size.bytes(),
            opened.name,
            entry.size
        )))
    }

    /// Puts `call` behind the others; answers with its ticket.
    pub(crate) fn enqueue(&mut self, call: Call, notice: Option<Arc<Notice>>) -> u64 {
        self.ticket += 1;
        for (place, bytes) in &call.pages {
            let versions = self.newer.entry(*place).or_default();
            versions.push((self.ticket, bytes.clone()));
        }
        self.queued_bytes += call.bytes;
        self.queue.push_back(Queued {
            ticket: self.ticket,
            call,
            notice,
        });
        self.ticket
    }

    /// Takes the calls that go into the next transaction.
    pub(crate) fn take_group(&mut self) -> Vec<Queued> {
        let (mut group, mut bytes) = (Vec::new(), 0);
        while let Some(next) = self.queue.front() {
            bytes += next.call.bytes;
            if !group.is_empty() && bytes > GROUP_BYTES_MAX {
                break;
            }
            group.extend(self.queue.pop_front());
        }
        group
    }

    /// Forgets the pages of `group`: the database has them, or nobody.
    pub(crate) fn settle(&mut self, group: &[Queued]) {
        for queued in group {
            self.settled = queued.ticket;
            self.queued_bytes -= queued.call.bytes;
            for place in queued.call.pages.keys() {
                if let Some(versions) = self.newer.get_mut(place) {
                    versions.retain(|(ticket, _)| *ticket != queued.ticket);
                    if versions.is_empty() {
                        self.newer.remove(place);
                    }
                }
            }
        }
    }

    pub(crate) fn has_queued(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Bytes of calls that are queued or being committed.
    pub(crate) fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }

    /// The pages of object `id` from `first` on that are newer than the database's, by their distance from `first`.
    pub(crate) fn newer(&self, id: u64, first: u64, count: u64) -> BTreeMap<u64, Arc<[u8]>> {
        let range = (id, first)..(id, first.saturating_add(count));
        let undone = self
            .undo
            .range(range.clone())
            .map(|((_, page), bytes)| (page - first, bytes.clone()));
        let mut pages: BTreeMap<_, _> = undone.collect();
        for ((_, page), versions) in self.newer.range(range) {
            pages.extend(versions.last().map(|(_, bytes)| (page - first, bytes.clone())));
        }
        pages
    }

    /// Takes over what a database that was opened again holds.
    pub(crate) fn reload(&mut self, contents: Contents) {
        let unsure = mem::take(&mut self.unsure);
        if contents.calls != self.calls_committed {
            for (place, bytes) in unsure {
                self.undo.entry(place).or_insert(bytes);
            }
        }
        let old = mem::replace(&mut self.catalog, contents.catalog);
        for (name, entry) in &mut self.catalog {
            // What a call that was reported as failed has left in them is not shown.
            if let Some(old) = old.get(name).filter(|old| old.id == entry.id) {
                (entry.version, entry.address) = (old.version, old.address);
            }
        }
        // A removal that was reported as failed may have taken place; then there is nothing to put back.
        let ids: BTreeSet<u64> = self.catalog.values().map(|entry| entry.id).collect();
        self.undo.retain(|(id, _), _| ids.contains(id));
        self.object_next = self.object_next.max(contents.object_next);
        self.calls_committed = self.calls_committed.max(contents.calls);
    }
}
