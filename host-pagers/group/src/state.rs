//! [`State`]: what a store keeps in memory, under one lock.
//!
//! Invariants:
//! - tickets rise in the order of the queue, and are settled in that order;
//! - `newer` has a page of a call from its queueing until it is settled: committed and in the engine, or dropped;
//! - only the leader changes `contents`, and there is one at a time.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    mem,
    sync::Arc,
};

use vmsync_core::{
    PageRange, PageSize, PagerError, PagerErrorKind,
    pager::{CallId, MemoryObjectControl, ObjectId, ObjectName},
};

use crate::{
    Batch, Contents, Entry, Place, Result,
    call::{Call, Queued, Told},
    invalid,
};

/// An object that the runtime has open.
pub(crate) struct Opened {
    pub(crate) name: ObjectName,
    pub(crate) write: bool,
    pub(crate) control: Arc<dyn MemoryObjectControl>,
    pub(crate) address: Option<u64>,
    /// The object's when it was opened.
    pub(crate) version: u64,
}

/// A page, and the ticket of the call that returned it.
type Ticketed = (u64, Arc<[u8]>);

/// See the head of this file.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) contents: Contents,
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
    /// Why something is lost, while its callers are being told.
    pub(crate) losing: Option<PagerError>,
    /// Why nothing works any more.
    pub(crate) gone: Option<PagerError>,
    /// The store's thread runs, and should not wait for its delay.
    pub(crate) has_thread: bool,
    pub(crate) urgent: bool,
    pub(crate) stop: bool,
}

impl State {
    /// # Errors
    /// Why the store refuses everything.
    pub(crate) fn require_alive(&self) -> Result<()> {
        self.gone.clone().map_or(Ok(()), Err)
    }

    pub(crate) fn opened(&self, object: ObjectId) -> Result<(&Opened, &Entry)> {
        let unknown = || invalid(format!("object {} is not open in this store", object.0));
        let opened = self.opened.get(&object).ok_or_else(unknown)?;
        let entry = self.contents.catalog.get(&opened.name).ok_or_else(|| {
            let message = format!("\"{}\" is not in the store any more", opened.name);
            PagerError::new(PagerErrorKind::Gone, message)
        })?;
        Ok((opened, entry))
    }

    /// Who else has an object of these calls open, and may have read pages of theirs, for which they were queued: whoever made
    /// a call may have closed it since, or given it up.
    pub(crate) fn readers(&self, group: &[Queued]) -> Vec<(Arc<dyn MemoryObjectControl>, PageRange)> {
        let mut readers = Vec::new();
        for Queued { call, .. } in group {
            let mut pages: BTreeMap<u64, PageRange> = BTreeMap::new();
            for (object, page) in call.pages.keys() {
                let first = PageRange::new(*page, page + 1);
                // Pages come in ascending order.
                pages.entry(*object).or_insert(first).end = page + 1;
            }
            for opened in self.opened.values() {
                let entry = self.contents.catalog.get(&opened.name);
                let Some(pages) = entry.and_then(|entry| pages.get(&entry.id)) else {
                    continue;
                };
                if !call.answers.iter().any(|answer| answer.is_for(&opened.control)) {
                    readers.push((opened.control.clone(), *pages));
                }
            }
        }
        readers
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
            self.require_alive()?;
            return Ok((opened, entry));
        }
        Err(invalid(format!(
            "{length} bytes at {offset} are not whole pages of {} bytes inside \"{}\" of {} bytes",
            page_size.bytes(),
            opened.name,
            entry.size
        )))
    }

    /// Puts `call`, which is answered when it is `told`, behind the others; answers with its ticket.
    pub(crate) fn enqueue(&mut self, call: Call, told: Told) -> u64 {
        self.ticket += 1;
        for (place, bytes) in &call.pages {
            let versions = self.newer.entry(*place).or_default();
            versions.push((self.ticket, bytes.clone()));
        }
        self.queued_bytes += call.bytes;
        self.queue.push_back(Queued {
            ticket: self.ticket,
            call,
            told,
        });
        self.ticket
    }

    /// Takes the calls that go into the next batch.
    pub(crate) fn take_group(&mut self, group_bytes_max: usize) -> Vec<Queued> {
        let (mut group, mut bytes) = (Vec::new(), 0);
        while let Some(next) = self.queue.front() {
            bytes += next.call.bytes;
            if !group.is_empty() && bytes > group_bytes_max {
                break;
            }
            group.extend(self.queue.pop_front());
        }
        group
    }

    /// Takes every call that is queued: something before them is lost.
    pub(crate) fn lose_queue(&mut self, error: &PagerError) -> VecDeque<Queued> {
        self.losing = Some(error.clone());
        mem::take(&mut self.queue)
    }

    /// Nobody leads any more, and of what is lost everybody was told. Calls that have returned pages did so before.
    pub(crate) fn stop_leading(&mut self) {
        self.leading = false;
        if let Some(error) = self.losing.take() {
            for call in self.calls.values_mut() {
                call.lost = Some(error.clone());
            }
        }
    }

    /// What `group` commits: its calls are numbered in their order, and of each page the last version counts.
    pub(crate) fn batch(&self, group: &[Queued]) -> Batch {
        let contents = &self.contents;
        let mut batch = Batch {
            calls: contents.calls,
            object_next: contents.object_next,
            ..Batch::default()
        };
        for Queued { call, .. } in group.iter().filter(|queued| !queued.call.pages.is_empty()) {
            batch.calls += 1;
            for (name, address) in &call.objects {
                let known = batch.objects.get(name).or_else(|| contents.catalog.get(name));
                // An object that calls have returned pages of is not removed.
                let Some(entry) = known.copied() else { continue };
                let entry = Entry {
                    version: batch.calls,
                    address: address.or(entry.address),
                    ..entry
                };
                batch.objects.insert(name.clone(), entry);
            }
            let pages = call.pages.iter();
            batch
                .pages
                .extend(pages.map(|(place, bytes)| (*place, bytes.clone())));
        }
        batch
    }

    /// Takes over what the engine has committed.
    pub(crate) fn apply(&mut self, batch: Batch) {
        let contents = &mut self.contents;
        contents.catalog.extend(batch.objects);
        for (name, _) in batch.removed {
            contents.catalog.remove(&name);
        }
        contents.calls = batch.calls;
        contents.object_next = batch.object_next;
    }

    /// Forgets the pages of `group`: the engine has them, or nobody.
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

    /// Leaves what is queued to the store's thread, which is then to be told; `false` where there is none.
    pub(crate) fn hand_over(&mut self) -> bool {
        self.urgent = self.has_thread;
        self.has_thread
    }

    pub(crate) fn has_queued(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Bytes of calls that are queued or being committed.
    pub(crate) fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }

    /// The pages of object `id` from `first` on that are newer than the engine's, by their distance from `first`.
    pub(crate) fn newer(&self, (id, first): Place, count: u64) -> BTreeMap<u64, Arc<[u8]>> {
        let range = (id, first)..(id, first.saturating_add(count));
        let newest = |((_, page), versions): (&Place, &Vec<Ticketed>)| {
            versions.last().map(|(_, bytes)| (page - first, bytes.clone()))
        };
        self.newer.range(range).filter_map(newest).collect()
    }
}
