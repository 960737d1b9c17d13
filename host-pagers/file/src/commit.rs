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
//! - when a record fails, everything queued behind it fails too: it may be a difference to what is not there. So does what had
//!   returned pages and was not queued: it does not have those again that somebody took for safe;
//! - after a panic of whatever a commit rests on, nothing is committed until the store is opened again.

use std::{
    collections::BTreeMap,
    iter,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{MutexGuard, PoisonError},
};

use vmsync_core::{PageRange, PagerError, PagerErrorKind};

use crate::{
    call::{Answer, Prepared},
    disk::Result,
    journal::Journal,
    layout::record::record_bytes,
    limits::{BACK_PRESSURE, OBJECTS_TOUCHED_MAX, UNAPPLIED_BYTES_MAX},
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
            let _ = self.guarded(|| {
                let settled = self.flush_group();
                let pages = settled.pages_to_apply;
                self.answer(settled);
                match pages {
                    0 => Ok(()),
                    // What cannot be written stays in memory.
                    _ => self.apply_waiting(.., pages).1,
                }
            });
            let mut queue = lock(&self.queue);
            queue.finish_taken();
            leads = queue.settled < ticket || (queue.has_pending() && !queue.has_flusher);
            if !leads {
                queue.flushing = false;
                queue.urgent = queue.has_pending();
                wake = queue.urgent;
                tidy = queue.tidier_should_wake();
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
        let journal = self.guarded(|| self.relieve(open));
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
        match journal.and_then(|journal| self.guarded(|| self.commit(journal, &group, crowded))) {
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
                queue.begin_loss(&error);
                Settled {
                    failed: Some((error, group, behind)),
                    ..Settled::default()
                }
            }
        }
    }

    /// Does `work`; where it panics, nothing is committed any more.
    pub(crate) fn guarded<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
            let message = "the store has panicked: open it again, and it has what was committed before";
            let error = PagerError::new(PagerErrorKind::Io, message);
            Err(lock(&self.queue).broken.get_or_insert(error).clone())
        })
    }

    /// How many objects are open: their files are, whether or not they have pages in the journal.
    fn open_objects(&self) -> usize {
        let handles = self.handles.read().unwrap_or_else(PoisonError::into_inner);
        handles.len()
    }

    /// The journal, if it may be written, with room in it: where it has grown over its bounds, with `open` objects, a checkpoint is
    /// taken first.
    fn relieve(&self, open: usize) -> Result<MutexGuard<'_, Journal>> {
        let bound = self.options.checkpoint_bytes.saturating_mul(BACK_PRESSURE);
        let objects_max = OBJECTS_TOUCHED_MAX * BACK_PRESSURE as usize + open;
        let mut journal = lock(&self.journal);
        let objects = {
            let queue = lock(&self.queue);
            if let Some(error) = &queue.broken {
                return Err(error.clone());
            }
            queue.journaled_objects()
        };
        if journal.sealed_capacity() <= bound && objects <= objects_max {
            return Ok(journal);
        }
        // Without an active segment a checkpoint has nowhere to advance to.
        let rolled = match journal.is_active() {
            true => Ok(()),
            false => self.roll(&mut journal, 0),
        };
        // It takes the lock itself, and not all the time.
        drop(journal);
        rolled
            .and_then(|()| self.checkpoint_sealed())
            .map_err(|error| error.within("the journal is full, and a checkpoint fails"))?;
        Ok(lock(&self.journal))
    }

    /// Makes `group` durable; `crowded`: the active segment has pages of as many objects as it may. How many pages this thread is
    /// to put into the images: none, as long as another does and not too many wait.
    fn commit<'a>(
        &'a self,
        mut journal: MutexGuard<'a, Journal>,
        group: &Group,
        crowded: bool,
    ) -> Result<usize> {
        let calls = group.iter().filter(|call| !call.is_empty());
        let (count_of_calls, pieces) = (calls.clone().count(), calls.flat_map(Prepared::pieces));
        let pieces: Vec<&[u8]> = pieces.collect();
        if pieces.is_empty() {
            if journal.is_doubtful() {
                self.roll(&mut journal, 0)?;
            }
            lock(&self.queue).settle(group, journal.sequence_next());
            return Ok(0);
        }
        let length = pieces.iter().map(|piece| piece.len()).sum();
        if crowded || !journal.has_room(length) {
            journal = self.roll_with_room(journal, length)?;
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

    /// [`Shared::roll`], or where it fails the active segment if there is room in it.
    fn roll_with_room<'a>(
        &'a self,
        mut journal: MutexGuard<'a, Journal>,
        length: usize,
    ) -> Result<MutexGuard<'a, Journal>> {
        let Err(error) = self.roll(&mut journal, length) else {
            return Ok(journal);
        };
        if journal.fits(length) {
            return Ok(journal);
        }
        let error = error.within("the journal cannot go on in a fresh segment");
        if error.kind != PagerErrorKind::NoSpace {
            return Err(error);
        }
        // Room there may be in the segments before, when the images have what is in them.
        drop(journal);
        let relieved = self.checkpoint_sealed();
        let mut journal = lock(&self.journal);
        relieved
            .and_then(|()| self.roll(&mut journal, length))
            .map_err(|_| error)?;
        Ok(journal)
    }

    /// Goes on in a fresh segment with room for a body of `length` bytes.
    pub(crate) fn roll(&self, journal: &mut Journal, length: usize) -> Result<()> {
        let (snapshot, open) = {
            let queue = lock(&self.queue);
            if let Some(error) = &queue.broken {
                return Err(error.clone());
            }
            (queue.catalog.encode(), self.open_objects())
        };
        let generation = journal.activate(&snapshot, length)?;
        lock(&self.store_file).extend(generation)?;
        journal.begin();
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
        let Some((error, group, behind)) = settled.failed else {
            return;
        };
        let error_behind = error.clone().behind();
        let calls = group.into_iter().zip(iter::repeat(error));
        let behind = behind.into_iter().zip(iter::repeat(error_behind));
        let (queued, waiting): (Vec<_>, Vec<_>) = calls
            .chain(behind)
            .inspect(|(call, error)| self.tell_readers(call, error))
            .partition(|(call, _)| call.write_behind);
        fail(queued);
        lock(&self.queue).end_loss();
        // Who still waits has taken nothing for safe, and may try again at once.
        fail(waiting);
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

/// Tells the calls that they failed.
fn fail(calls: Vec<(Prepared, PagerError)>) {
    for (call, error) in calls {
        for answer in call.answers {
            answer.fail(error.clone(), call.write_behind);
        }
    }
}
