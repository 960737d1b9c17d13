//! Group commit: from the queue through the journal.
//!
//! ```text
//!   caller A: enqueue, flushing = true --> take group [A] --> write + sync --> settle, answer A
//!   caller B: enqueue, returns at once       (meanwhile)
//!   caller C: enqueue, returns at once                        A hands over: thread takes [B, C] --> one sync ...
//! ```
//!
//! Invariants:
//! - one thread flushes at a time, and it took the role under the queue's lock;
//! - a call is taken by the flush that is running or by a later one: nobody leaves the role while calls are queued
//!   without waking the thread that goes on, where there is one;
//! - when a record fails, everything queued behind it fails too: it may be a difference to what is not there;
//! - after a commit that panicked nothing is committed until the store is opened again.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{MutexGuard, PoisonError},
};

use vmsync_core::{PageRange, PagerError, PagerErrorKind};

use crate::{
    call::{Answer, Prepared},
    disk::Result,
    error::within,
    journal::Journal,
    layout::record::record_bytes,
    limits::{APPLY_WAKE_PAGES, BACK_PRESSURE, OBJECTS_TOUCHED_MAX, UNAPPLIED_BYTES_MAX},
    queue::Group,
    stats::count,
    store::{Shared, lock},
};

impl Shared {
    /// Sees to it that the call with `ticket` is flushed: by this thread, or by the one that flushes now.
    pub(crate) fn lead(&self, ticket: u64) {
        {
            let mut queue = lock(&self.queue);
            if queue.flushing || queue.settled >= ticket {
                return;
            }
            queue.flushing = true;
        }
        self.flush_until(ticket);
    }

    /// Flushes until the call with `ticket` is settled; in the role of the flushing thread, which it gives up.
    pub(crate) fn flush_until(&self, ticket: u64) {
        let (mut checkpoint, mut wake, mut tidy, mut room) = (false, false, false, false);
        let mut leads = true;
        while leads {
            let settled = self.flush_group();
            let pages = settled.pages_to_apply;
            self.answer(settled);
            if pages > 0 {
                // What cannot be written stays in memory.
                let _ = self.apply_waiting(.., pages);
            }
            let mut queue = lock(&self.queue);
            leads = queue.settled < ticket || (queue.has_pending() && !queue.has_flusher);
            if !leads {
                queue.flushing = false;
                queue.urgent = queue.has_pending();
                wake = queue.urgent;
                tidy = queue.tidier_idle && queue.ahead.durable() >= APPLY_WAKE_PAGES;
                room = queue.room_waiters > 0;
                checkpoint = queue.checkpoint_wanted && !queue.has_tidier;
            }
        }
        // Whoever is woken wants the queue's lock.
        if wake {
            self.work.notify_one();
        }
        if tidy {
            self.tidying.notify_one();
        }
        if room {
            self.drained.notify_all();
        }
        if checkpoint {
            // The journal goes on growing where it fails, until the bound of the back-pressure.
            let _ = self.checkpoint_sealed();
        }
    }

    /// Commits one group.
    fn flush_group(&self) -> Settled {
        let open = self.open_objects();
        let (mut journal, pressure) = self.relieve(open);
        let (group, crowded, room) = {
            let mut queue = lock(&self.queue);
            let group = queue.take_group();
            // One that was sealed and waits for a checkpoint is enough.
            let crowded = queue.touched.len() >= OBJECTS_TOUCHED_MAX + open && !queue.checkpoint_wanted;
            (group, crowded, queue.room_waiters > 0 && !queue.is_full())
        };
        if room {
            self.drained.notify_all();
        }
        if group.is_empty() {
            return Settled::default();
        }
        let commit = || self.commit(&mut journal, &group, crowded);
        let committed = pressure.and_then(|()| match catch_unwind(AssertUnwindSafe(commit)) {
            Ok(committed) => committed,
            Err(_) => Err(self.break_down()),
        });
        match committed {
            Ok(pages_to_apply) => Settled {
                durable: group,
                pages_to_apply,
                failed: None,
            },
            Err(error) => {
                count(&self.counters.failures, 1);
                let mut queue = lock(&self.queue);
                let behind = queue.take_all();
                queue.discard(&behind);
                queue.discard(&group);
                Settled {
                    failed: Some((error, group, behind)),
                    ..Settled::default()
                }
            }
        }
    }

    /// A commit has panicked.
    fn break_down(&self) -> PagerError {
        let message = "a commit has panicked: open the store again, which has what was committed before";
        let error = PagerError::new(PagerErrorKind::Io, message);
        lock(&self.queue).broken = Some(error.clone());
        error
    }

    /// How many objects are open: their files are, whether or not they have pages in the journal.
    fn open_objects(&self) -> usize {
        let handles = self.handles.read().unwrap_or_else(PoisonError::into_inner);
        handles.len()
    }

    /// The journal, if it can be written, with room in it: where it has grown over its bounds, with `open` objects, a checkpoint is
    /// taken first.
    fn relieve(&self, open: usize) -> (MutexGuard<'_, Journal>, Result<()>) {
        let bound = self.options.checkpoint_bytes.saturating_mul(BACK_PRESSURE);
        let objects_max = OBJECTS_TOUCHED_MAX * BACK_PRESSURE as usize + open;
        let journal = lock(&self.journal);
        {
            let queue = lock(&self.queue);
            if let Some(error) = &queue.broken {
                return (journal, Err(error.clone()));
            }
            if journal.sealed_capacity() <= bound && queue.journaled_objects() <= objects_max {
                drop(queue);
                return (journal, Ok(()));
            }
        }
        // It takes the lock itself, and not all the time.
        drop(journal);
        let taken = self.checkpoint_sealed();
        let relieved = taken.map_err(|error| within("the journal is full, and a checkpoint fails", error));
        (lock(&self.journal), relieved)
    }

    /// Makes `group` durable; `crowded`: the active segment has pages of as many objects as it may. How many pages this thread is
    /// to put into the images: none, as long as another does and not too many wait.
    fn commit(&self, journal: &mut Journal, group: &Group, crowded: bool) -> Result<usize> {
        let calls = group.iter().filter(|call| !call.is_empty());
        let (count_of_calls, pieces) = (calls.clone().count(), calls.flat_map(Prepared::pieces));
        let pieces: Vec<&[u8]> = pieces.collect();
        if pieces.is_empty() {
            if journal.is_doubtful() {
                self.roll(journal, 0)?;
            }
            lock(&self.queue).settle(group, journal.sequence_next());
            return Ok(0);
        }
        let length = pieces.iter().map(|piece| piece.len()).sum();
        if crowded || !journal.has_room(length) {
            self.roll(journal, length).map_err(|error| {
                // Room there may be in the segments before, when the images have what is in them.
                lock(&self.queue).checkpoint_wanted = true;
                self.tidying.notify_one();
                within("the journal cannot go on in a fresh segment", error)
            })?;
        }
        let sequence = journal.sequence_next();
        journal.append(&pieces, count_of_calls as u32)?;
        count(&self.counters.records, 1);
        count(&self.counters.syncs, 1);
        count(&self.counters.calls, count_of_calls as u64);
        count(&self.counters.bytes_journaled, record_bytes(length) as u64);
        let mut queue = lock(&self.queue);
        queue.settle(group, sequence);
        if queue.has_tidier && journal.wants_spare() && !queue.segment_wanted {
            queue.segment_wanted = true;
            self.tidying.notify_one();
        }
        if queue.has_tidier && queue.ahead.durable_bytes() <= UNAPPLIED_BYTES_MAX {
            return Ok(0);
        }
        // Twice what came, so that less and less waits.
        let pages: usize = group.iter().map(|call| call.changed.len()).sum();
        Ok(2 * pages)
    }

    /// Goes on in a fresh segment with room for a body of `length` bytes.
    pub(crate) fn roll(&self, journal: &mut Journal, length: usize) -> Result<()> {
        let (snapshot, open) = (lock(&self.queue).catalog.encode(), self.open_objects());
        let generation = journal.activate(&snapshot, length)?;
        if let Err(error) = lock(&self.store_file).extend(generation) {
            journal.retire();
            return Err(error);
        }
        count(&self.counters.syncs, 2);
        let mut queue = lock(&self.queue);
        queue.seal();
        let many = queue.sealed.len() >= OBJECTS_TOUCHED_MAX + open;
        if many || journal.sealed_bytes() > self.options.checkpoint_bytes {
            queue.checkpoint_wanted = true;
            self.tidying.notify_one();
        }
        Ok(())
    }

    /// Makes the segment that the next roll-over needs, if it is wanted.
    pub(crate) fn make_segment(&self) {
        let plan = {
            let mut journal = lock(&self.journal);
            lock(&self.queue).segment_wanted = false;
            journal.plan_spare()
        };
        // Where it cannot be made, the roll-over tries again, and tells.
        if let Some(Ok(segment)) = plan.map(|plan| plan.make(self.disk.as_ref())) {
            lock(&self.journal).add_spare(segment);
        }
    }
}

/// Calls whose outcome is known and not yet told.
#[derive(Default)]
struct Settled {
    durable: Group,
    pages_to_apply: usize,
    /// Why, the calls of the record, the calls behind it.
    failed: Option<(PagerError, Group, Group)>,
}

impl Shared {
    fn answer(&self, settled: Settled) {
        for call in settled.durable.into_iter().filter(|call| !call.write_behind) {
            call.answers.into_iter().for_each(Answer::succeed);
        }
        if let Some((error, group, behind)) = settled.failed {
            self.fail(group, &error);
            self.fail(behind, &within("a commit before it failed", error));
        }
    }

    /// Tells the calls that they failed.
    fn fail(&self, calls: Vec<Prepared>, error: &PagerError) {
        for call in calls {
            self.tell_readers(&call, error);
            for answer in call.answers {
                answer.fail(error.clone(), call.write_behind);
            }
        }
    }

    /// Tells everybody else who has an object of `call` open, and may have read what was queued and is lost now: who
    /// made the call may have closed it since, or given it up.
    fn tell_readers(&self, call: &Prepared, error: &PagerError) {
        let mut lost: BTreeMap<u64, PageRange> = BTreeMap::new();
        for changed in &call.changed {
            let page = PageRange::new(changed.page, changed.page + 1);
            let range = lost.entry(changed.object.id).or_insert(page);
            *range = PageRange::new(range.start.min(page.start), range.end.max(page.end));
        }
        let handles = self.handles.read().unwrap_or_else(PoisonError::into_inner);
        let readers: Vec<_> = handles
            .values()
            .filter(|handle| !call.answers.iter().any(|answer| answer.is_for(&handle.control)))
            .filter_map(|handle| Some((handle.control.clone(), *lost.get(&handle.object.id)?)))
            .collect();
        drop(handles);
        for (control, pages) in readers {
            control.write_behind_failed(self.page_size.byte_range(pages), error.clone());
        }
    }
}
