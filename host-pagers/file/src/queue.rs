//! [`Queue`]: calls on their way to the journal, and the state that changes with them.
//!
//! ```text
//!   enqueue --> pending --take_group--> (journal) --> settle: catalog, touched
//!                  |                       |      '-> discard: as if never queued
//!                  '------- ahead ---------'
//! ```
//!
//! Invariants:
//! - what the store supplies for a page is the image's bytes, over them those in `ahead`;
//! - a page changes what is supplied only together with its stamp;
//! - `touched` and `sealed` name every page that the journal holds a record of, with its newest checksum;
//! - the catalog is what the durable calls made it.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use vmsync_core::{PageRange, PagerError};

use crate::{
    ahead::Ahead,
    call::Prepared,
    delta::Changed,
    layout::{catalog::Catalog, entry::CatalogChange},
    limits::{
        APPLY_BYTES_MIN, APPLY_WAKE_PAGES, GROUP_BYTES_MAX, QUEUE_BYTES_MAX, QUEUED_CALL_BYTES, STAMP_COUNT,
    },
    object::Object,
    sums::Sums,
};

/// The calls that go into one record.
pub(crate) type Group = Vec<Prepared>;

/// An object with pages that the journal holds records of, and their sums.
pub(crate) struct TouchedObject {
    pub(crate) object: Arc<Object>,
    pub(crate) sums: Sums,
    /// The last sync of the image failed: what is cached may be what was lost.
    pub(crate) suspect: bool,
}

/// Objects by id.
pub(crate) type Touched = BTreeMap<u64, TouchedObject>;

/// See the head of the file.
pub(crate) struct Queue {
    pending: VecDeque<Prepared>,
    pending_bytes: usize,
    pub(crate) ahead: Ahead,
    epoch: u64,
    stamps: Box<[u64]>,
    /// Why calls were lost last, and the epoch from which on everybody has been told.
    lost: Option<(PagerError, u64)>,
    pub(crate) catalog: Catalog,
    /// By object, the address that the newest of the queued calls that have one gives it, and that call's number.
    addresses: BTreeMap<u64, (u64, u64)>,
    /// Pages in the active segment.
    pub(crate) touched: Touched,
    /// Pages in segments before it.
    pub(crate) sealed: Touched,
    /// A thread is taking groups.
    pub(crate) flushing: bool,
    /// How many calls were queued, and how many of them have their outcome.
    pub(crate) queued: u64,
    pub(crate) settled: u64,
    /// The thread that flushes should not wait for its delay.
    pub(crate) urgent: bool,
    /// There is one: it takes over what is left in the queue.
    pub(crate) has_flusher: bool,
    /// Another thread, or the host, applies and takes checkpoints.
    pub(crate) has_tidier: bool,
    /// It waits until somebody wakes it, or for pages to have waited.
    pub(crate) tidier_idle: bool,
    pub(crate) tidier_delays: bool,
    /// Threads that wait for room in the queue.
    pub(crate) room_waiters: usize,
    pub(crate) checkpoint_wanted: bool,
    /// The journal has no segment for the next roll-over.
    pub(crate) segment_wanted: bool,
    /// Why nothing is committed any more: something has panicked, and what it left is not known.
    pub(crate) broken: Option<PagerError>,
    pub(crate) stop: bool,
}

impl Queue {
    pub(crate) fn new(catalog: Catalog, sealed: Touched) -> Self {
        Self {
            pending: VecDeque::new(),
            pending_bytes: 0,
            ahead: Ahead::default(),
            epoch: 0,
            lost: None,
            stamps: vec![0; STAMP_COUNT].into(),
            catalog,
            addresses: BTreeMap::new(),
            touched: Touched::new(),
            sealed,
            flushing: false,
            queued: 0,
            settled: 0,
            urgent: false,
            has_flusher: false,
            has_tidier: false,
            tidier_idle: false,
            tidier_delays: false,
            room_waiters: 0,
            checkpoint_wanted: false,
            segment_wanted: false,
            broken: None,
            stop: false,
        }
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    pub(crate) fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Whether asynchronous calls have to wait.
    pub(crate) fn is_full(&self) -> bool {
        self.pending_bytes > QUEUE_BYTES_MAX
    }

    /// Calls are lost: who made them, or was supplied with what they had, is being told.
    pub(crate) fn begin_loss(&mut self, error: &PagerError) {
        self.lost = Some((error.clone(), u64::MAX));
    }

    /// Everybody has been told.
    pub(crate) fn end_loss(&mut self) {
        self.epoch += 1;
        if let Some((_, told)) = &mut self.lost {
            *told = self.epoch;
        }
    }

    /// Why something was lost of which whoever returned pages at `epoch` need not have known.
    pub(crate) fn lost_since(&self, epoch: u64) -> Option<&PagerError> {
        let lost = self.lost.as_ref().filter(|(_, told)| epoch < *told);
        lost.map(|(error, _)| error)
    }

    /// Whether what is supplied for a page changed after `epoch`; perhaps also when it did not.
    pub(crate) fn changed_since(&self, object: u64, pages: PageRange, epoch: u64) -> bool {
        epoch != self.epoch && (pages.start..pages.end).any(|page| self.stamps[stamp(object, page)] > epoch)
    }

    /// How many objects have pages in the journal; some may be in both parts.
    pub(crate) fn journaled_objects(&self) -> usize {
        self.touched.len() + self.sealed.len()
    }

    /// Whether there is something to do for it now.
    pub(crate) fn tidier_should_wake(&self) -> bool {
        let some = self.ahead.durable() >= APPLY_WAKE_PAGES;
        (self.tidier_idle && some) || (self.tidier_delays && self.ahead.durable_bytes() >= APPLY_BYTES_MIN)
    }

    /// All calls that were taken have their outcome; or, after a panic, get none.
    pub(crate) fn finish_taken(&mut self) {
        self.settled = self.queued - self.pending.len() as u64;
    }

    /// Queues a call; answers with its ticket.
    pub(crate) fn enqueue(&mut self, call: Prepared) -> u64 {
        self.mark(&call.changed);
        self.queued += 1;
        for changed in &call.changed {
            self.ahead.queue(changed, self.queued);
        }
        for change in &call.changes {
            if let CatalogChange::Address { object, address } = change {
                self.addresses.insert(*object, (*address, self.queued));
            }
        }
        self.pending_bytes += call.len() + QUEUED_CALL_BYTES;
        self.pending.push_back(call);
        self.queued
    }

    /// Where `object` was last mapped, once all that is queued is committed.
    pub(crate) fn address(&self, object: u64) -> Option<u64> {
        let queued = self.addresses.get(&object).map(|(address, _)| *address);
        queued.or_else(|| self.catalog.get(object).and_then(|entry| entry.address))
    }

    fn mark(&mut self, changed: &[Changed]) {
        self.epoch += 1;
        for changed in changed {
            self.stamps[stamp(changed.object.id, changed.page)] = self.epoch;
        }
    }

    /// Takes the oldest calls, as many as belong into one record.
    pub(crate) fn take_group(&mut self) -> Group {
        let (mut group, mut bytes) = (Group::new(), 0);
        while let Some(call) = self.pending.front() {
            bytes += call.len();
            if !group.is_empty() && bytes > GROUP_BYTES_MAX {
                break;
            }
            self.pending_bytes -= call.len() + QUEUED_CALL_BYTES;
            group.extend(self.pending.pop_front());
        }
        group
    }

    /// Takes everything that is queued.
    pub(crate) fn take_all(&mut self) -> Group {
        self.pending_bytes = 0;
        self.pending.drain(..).collect()
    }

    /// The calls of `group` are durable, the first of them as number `sequence`, and not in the images yet.
    pub(crate) fn settle(&mut self, group: &Group, mut sequence: u64) {
        for call in group {
            self.settled += 1;
            if call.is_empty() {
                continue;
            }
            for change in &call.changes {
                self.catalog
                    .apply(change)
                    .expect("changes are checked before they are queued");
                if let CatalogChange::Address { object, .. } = change
                    && self
                        .addresses
                        .get(object)
                        .is_some_and(|(_, newest)| *newest == self.settled)
                {
                    self.addresses.remove(object);
                }
            }
            if let Some(object) = &call.resized {
                let entry = self.catalog.get(object.id).expect("it was just changed");
                object.set_size(entry.size);
                touch(&mut self.touched, object);
            }
            for of_object in call
                .changed
                .chunk_by(|last, next| last.object.id == next.object.id)
            {
                self.settle_pages(of_object, sequence);
            }
            sequence += 1;
        }
    }

    /// The pages `changed`, all of one object, were changed by call `sequence`, the newest that is settled.
    fn settle_pages(&mut self, changed: &[Changed], sequence: u64) {
        let object = &changed[0].object;
        self.catalog
            .touch(object.id, sequence)
            .expect("pages belong to objects of the catalog");
        let touched = touch(&mut self.touched, object);
        for changed in changed {
            touched.sums.set(changed.page, changed.sum);
            self.ahead.settle(changed, self.settled);
            if changed.learner.is_none() {
                object.lines.settle(changed.page);
            }
        }
    }

    /// The calls of `group` are not durable: they leave no trace. All that is queued goes together.
    pub(crate) fn discard(&mut self, group: &Group) {
        for call in group {
            self.mark(&call.changed);
            for changed in &call.changed {
                self.ahead.discard(changed.key());
                changed.give_up();
            }
        }
        self.addresses.clear();
        self.settled += group.len() as u64;
    }

    /// The active segment is no longer the active one.
    pub(crate) fn seal(&mut self) {
        merge(&mut self.sealed, std::mem::take(&mut self.touched));
    }
}

/// The entry of `object`.
pub(crate) fn touch<'a>(touched: &'a mut Touched, object: &Arc<Object>) -> &'a mut TouchedObject {
    touched.entry(object.id).or_insert_with(|| TouchedObject {
        object: object.clone(),
        sums: Sums::default(),
        suspect: false,
    })
}

/// Adds `newer` to `older`.
pub(crate) fn merge(older: &mut Touched, newer: Touched) {
    for (_, mut from) in newer {
        let into = touch(older, &from.object);
        into.sums.append(&mut from.sums);
        into.suspect |= from.suspect;
    }
}

/// The stamp that a page shares with others.
fn stamp(object: u64, page: u64) -> usize {
    let mixed = (page ^ object.rotate_left(40)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 32) as usize & (STAMP_COUNT - 1)
}
