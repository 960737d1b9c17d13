//! [`Queue`]: calls on their way to the journal, and the state that changes with them.
//!
//! ```text
//!   enqueue --> pending --take_group--> (journal) --> settle: catalog, touched, unapplied
//!                  |                              '-> discard: as if never queued
//!               overlay: page -> newest queued bytes
//! ```
//!
//! Invariants:
//! - what the store supplies for a page is its bytes in `overlay`, else in `unapplied`, else in the image;
//! - a page changes what is supplied only together with its stamp;
//! - `touched` and `sealed` name every page that the journal holds a record of, with its newest checksum;
//! - the catalog is what the durable calls made it.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
};

use vmsync_core::PageRange;

use crate::{
    call::Prepared,
    delta::Changed,
    layout::catalog::Catalog,
    limits::{GROUP_BYTES_MAX, STAMP_COUNT},
    object::{Object, PageBytes},
};

/// The calls that go into one record.
pub(crate) type Group = Vec<Prepared>;

/// The pages of an object that the journal holds records of.
pub(crate) struct TouchedObject {
    pub(crate) object: Arc<Object>,
    pub(crate) pages: BTreeMap<u64, u64>,
    /// The last sync of the image failed: what is cached may be what was lost.
    pub(crate) suspect: bool,
}

/// Pages by object and number, with what to write them with.
pub(crate) type Unapplied = BTreeMap<(u64, u64), (Arc<Object>, PageBytes)>;

/// Objects by id.
pub(crate) type Touched = BTreeMap<u64, TouchedObject>;

/// See the head of the file.
pub(crate) struct Queue {
    pending: VecDeque<Prepared>,
    pending_bytes: usize,
    overlay: HashMap<(u64, u64), PageBytes>,
    /// Durable pages that are not in their images yet.
    pub(crate) unapplied: Unapplied,
    epoch: u64,
    stamps: Box<[u64]>,
    pub(crate) catalog: Catalog,
    /// Pages in the active segment.
    pub(crate) touched: Touched,
    /// Pages in segments before it.
    pub(crate) sealed: Touched,
    /// A thread is taking groups.
    pub(crate) flushing: bool,
    /// How many calls were queued, and how many of them have their outcome.
    pub(crate) queued: u64,
    pub(crate) settled: u64,
    /// The background thread should not wait for its delay.
    pub(crate) urgent: bool,
    /// A background thread, or the host, does what can wait.
    pub(crate) has_thread: bool,
    /// Threads that wait for room in the queue.
    pub(crate) room_waiters: usize,
    /// It waits until somebody wakes it.
    pub(crate) thread_idle: bool,
    /// It waits, or flushes: it takes over what is left in the queue.
    pub(crate) thread_ready: bool,
    pub(crate) checkpoint_wanted: bool,
    pub(crate) stop: bool,
}

impl Queue {
    pub(crate) fn new(catalog: Catalog, sealed: Touched) -> Self {
        Self {
            pending: VecDeque::new(),
            pending_bytes: 0,
            overlay: HashMap::new(),
            unapplied: BTreeMap::new(),
            epoch: 0,
            stamps: vec![0; STAMP_COUNT].into(),
            catalog,
            touched: Touched::new(),
            sealed,
            flushing: false,
            queued: 0,
            settled: 0,
            urgent: false,
            has_thread: false,
            room_waiters: 0,
            thread_idle: false,
            thread_ready: false,
            checkpoint_wanted: false,
            stop: false,
        }
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    pub(crate) fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    pub(crate) fn pending_bytes(&self) -> usize {
        self.pending_bytes
    }

    /// Pages from `first` on that are not in the image: their index and bytes.
    pub(crate) fn not_in_image(&self, object: u64, first: u64, count: u64) -> Vec<(usize, PageBytes)> {
        if self.overlay.is_empty() && self.unapplied.is_empty() {
            return Vec::new();
        }
        let find = |page: u64| {
            let key = (object, page);
            self.overlay
                .get(&key)
                .or_else(|| self.unapplied.get(&key).map(|(_, bytes)| bytes))
        };
        let found = |index: u64| Some((index as usize, find(first + index)?.clone()));
        (0..count).filter_map(found).collect()
    }

    /// Whether a queued call changes a page of `pages`.
    pub(crate) fn is_queued(&self, object: u64, pages: PageRange) -> bool {
        self.overlay
            .keys()
            .any(|(id, page)| *id == object && pages.contains(*page))
    }

    /// Whether what is supplied for a page changed after `epoch`; perhaps also when it did not.
    pub(crate) fn changed_since(&self, object: u64, pages: (u64, u64), epoch: u64) -> bool {
        epoch != self.epoch && (pages.0..pages.1).any(|page| self.stamps[stamp(object, page)] > epoch)
    }

    /// Queues a call; answers with its ticket.
    pub(crate) fn enqueue(&mut self, call: Prepared) -> u64 {
        self.mark(&call.changed);
        for changed in &call.changed {
            self.overlay
                .insert((changed.object.id, changed.page), changed.bytes.clone());
        }
        self.pending_bytes += call.record.len();
        self.pending.push_back(call);
        self.queued += 1;
        self.queued
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
            bytes += call.record.len();
            if !group.is_empty() && bytes > GROUP_BYTES_MAX {
                break;
            }
            self.pending_bytes -= call.record.len();
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
        for call in group.iter().filter(|call| !call.is_empty()) {
            for change in &call.changes {
                self.catalog
                    .apply(change)
                    .expect("changes are checked before they are queued");
            }
            if let Some(object) = &call.resized {
                let entry = self.catalog.get(object.id).expect("it was just changed");
                object.set_size(entry.size);
                touch(&mut self.touched, object);
            }
            for changed in &call.changed {
                self.settle_page(changed, sequence);
            }
            sequence += 1;
        }
        self.settled += group.len() as u64;
    }

    fn settle_page(&mut self, changed: &Changed, sequence: u64) {
        let key = (changed.object.id, changed.page);
        self.catalog
            .touch(key.0, sequence)
            .expect("pages belong to objects of the catalog");
        touch(&mut self.touched, &changed.object)
            .pages
            .insert(changed.page, changed.sum);
        self.unapplied
            .insert(key, (changed.object.clone(), changed.bytes.clone()));
        self.forget(key, &changed.bytes);
    }

    /// The calls of `group` are not durable: they leave no trace.
    pub(crate) fn discard(&mut self, group: &Group) {
        for call in group {
            self.mark(&call.changed);
            for changed in &call.changed {
                self.forget((changed.object.id, changed.page), &changed.bytes);
            }
        }
        self.settled += group.len() as u64;
    }

    /// Takes a page out of the overlay, unless a newer call has put other bytes there.
    fn forget(&mut self, key: (u64, u64), bytes: &PageBytes) {
        if self.overlay.get(&key).is_some_and(|newest| newest.is(bytes)) {
            self.overlay.remove(&key);
        }
    }

    /// A page is in its image.
    pub(crate) fn applied(&mut self, object: u64, page: u64, bytes: &PageBytes) {
        let key = (object, page);
        if self
            .unapplied
            .get(&key)
            .is_some_and(|(_, newest)| newest.is(bytes))
        {
            self.unapplied.remove(&key);
        }
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
        pages: BTreeMap::new(),
        suspect: false,
    })
}

/// Adds `newer` to `older`.
pub(crate) fn merge(older: &mut Touched, newer: Touched) {
    for (_, mut from) in newer {
        let into = touch(older, &from.object);
        into.pages.append(&mut from.pages);
        into.suspect |= from.suspect;
    }
}

/// The stamp that a page shares with others.
fn stamp(object: u64, page: u64) -> usize {
    let mixed = (page ^ object.rotate_left(40)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 32) as usize & (STAMP_COUNT - 1)
}
