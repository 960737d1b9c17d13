//! Committing: one thread leads, and takes everything that is queued into one batch.
//!
//! ```text
//!   callers --enqueue--> queue --leader: group--> Engine::commit --> answers
//!                          ^                                           |
//!                          '------ whoever waits next leads the next group
//! ```
//!
//! Invariants:
//! - there is one leader at a time, and it stops being so also when it panics;
//! - completions are given while no lock is held and nobody leads on their behalf;
//! - a call fails with its whole group and with everything that is queued or returned behind it, and then no page of it
//!   is shown;
//! - that what was reported as queued is lost is told before anything else is committed, so that no later call succeeds
//!   without it;
//! - an engine that panics ends the store, and nothing else: every call has its answer.

use std::{
    iter,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, PoisonError, mpsc},
    time::Instant,
};

use vmsync_core::{PagerError, PagerErrorKind, pager::ObjectName};

use crate::{
    Batch, Engine, Entry, Result,
    call::{Answer, Call, Queued, Told},
    limits::WAIT_MAX,
    state::State,
    store::Shared,
};

/// The right to commit and to change the catalog.
pub(crate) struct Lead<'shared, E: Engine>(&'shared Shared<E>);

impl<E: Engine> Drop for Lead<'_, E> {
    fn drop(&mut self) {
        self.0.lock().stop_leading();
        self.0.progress.notify_all();
    }
}

impl<E: Engine> Shared<E> {
    /// Waits until `ticket` is settled, leading where nobody does. After a bounded time it gives up waiting; the
    /// thread that leads then gives the answer.
    pub(crate) fn commit_until(&self, ticket: u64) {
        let deadline = Instant::now() + WAIT_MAX;
        let mut state = self.lock();
        while state.settled < ticket {
            if !state.leading {
                state.leading = true;
                drop(state);
                self.commit_group(Lead(self));
                state = self.lock();
                continue;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            state = self
                .progress
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Becomes the leader.
    pub(crate) fn take_lead(&self) -> Result<Lead<'_, E>> {
        let waited = self
            .progress
            .wait_timeout_while(self.lock(), WAIT_MAX, |state| state.leading);
        let (mut state, outcome) = waited.unwrap_or_else(PoisonError::into_inner);
        if outcome.timed_out() {
            return Err(self.too_slow());
        }
        state.leading = true;
        Ok(Lead(self))
    }

    fn commit_group(&self, lead: Lead<'_, E>) {
        let (group, batch) = {
            let mut state = self.lock();
            let group = state.take_group(self.options.group_bytes_max);
            let batch = state.batch(&group);
            (group, batch)
        };
        let result = if batch.pages.is_empty() {
            self.lock().require_alive()
        } else {
            self.commit_batch(&lead, batch)
        };
        if let Err(error) = result {
            return self.lose(lead, group, &error);
        }
        self.lock().settle(&group);
        drop(lead);
        for queued in group {
            queued.settle(Ok(()));
        }
    }

    /// Fails `group`, and everything that was queued or returned behind it: who made those calls may have taken pages of
    /// `group` for safe, and not have returned them again. Nobody else leads until it was told.
    fn lose(&self, lead: Lead<'_, E>, mut group: Vec<Queued>, error: &PagerError) {
        let of_group = group.len();
        let readers = {
            let mut state = self.lock();
            group.extend(state.lose_queue(error));
            state.settle(&group);
            state.readers(&group)
        };
        let page_size = self.engine.page_size();
        for (control, pages) in readers {
            control.write_behind_failed(page_size.byte_range(pages), error.clone());
        }
        let of_group = iter::repeat_n(error.clone(), of_group);
        let errors = of_group.chain(iter::repeat(error.clone().behind()));
        let (queued, waiting): (Vec<_>, Vec<_>) = group
            .into_iter()
            .zip(errors)
            .partition(|(queued, _)| queued.told == Told::Queued);
        for (queued, error) in queued {
            queued.settle(Err(error));
        }
        // What is still waited for nobody has taken for safe, and may be tried again at once.
        drop(lead);
        for (queued, error) in waiting {
            queued.settle(Err(error));
        }
    }

    /// Has the engine commit `batch`, and shows it.
    fn commit_batch(&self, _lead: &Lead<'_, E>, batch: Batch) -> Result<()> {
        self.lock().require_alive()?;
        let commit = AssertUnwindSafe(|| self.engine.commit(&batch));
        let committed = catch_unwind(commit).unwrap_or_else(|_| {
            let message = format!(
                "{}: a bug of the engine: whether the call took place is not known: open the store again",
                self.engine.name()
            );
            Err(PagerError::new(PagerErrorKind::Gone, message))
        });
        match &committed {
            Ok(()) => self.lock().apply(batch),
            Err(error) if error.kind == PagerErrorKind::Gone => self.end(error),
            Err(_) => {}
        }
        committed
    }

    /// Nothing that is open here can go on.
    pub(crate) fn end(&self, reason: &PagerError) {
        let controls: Vec<_> = {
            let mut state = self.lock();
            if state.gone.is_some() {
                return;
            }
            state.gone = Some(reason.clone());
            state
                .opened
                .values()
                .map(|opened| opened.control.clone())
                .collect()
        };
        for control in controls {
            control.destroy(reason.clone());
        }
    }

    /// Creates an object, or lets it grow to `size`.
    pub(crate) fn put_object(&self, name: &ObjectName, size: u64) -> Result<()> {
        let lead = self.take_lead()?;
        let batch = {
            let state = self.lock();
            let contents = &state.contents;
            let fresh = Entry {
                id: contents.object_next,
                size,
                version: 0,
                address: None,
            };
            let found = contents.catalog.get(name).copied().unwrap_or(fresh);
            let size = found.size.max(size);
            Batch {
                objects: [(name.clone(), Entry { size, ..found })].into(),
                calls: contents.calls,
                object_next: contents.object_next.max(found.id + 1),
                ..Batch::default()
            }
        };
        self.commit_batch(&lead, batch)
    }

    /// Removes an object that nobody uses, behind everything that is queued.
    pub(crate) fn take_object(&self, name: &ObjectName) -> Result<()> {
        // What was queued for it and fails now is lost with it.
        let ticket = self.lock().ticket;
        self.commit_until(ticket);
        let lead = self.take_lead()?;
        let batch = {
            let state = self.lock();
            if state.settled < ticket {
                return Err(self.too_slow());
            }
            let contents = &state.contents;
            let Some(entry) = contents.catalog.get(name) else {
                let message = format!("no object \"{name}\" in this store");
                return Err(PagerError::new(PagerErrorKind::NotFound, message));
            };
            Batch {
                removed: vec![(name.clone(), entry.id)],
                calls: contents.calls,
                object_next: contents.object_next,
                ..Batch::default()
            }
        };
        self.commit_batch(&lead, batch)
    }

    /// Commits everything that is queued.
    pub(crate) fn flush(&self) -> Result<()> {
        let (sender, receiver) = mpsc::sync_channel(1);
        let call = Call {
            answers: vec![Answer::Waiter(sender)],
            ..Call::default()
        };
        let ticket = self.lock().enqueue(call, Told::Done);
        self.commit_until(ticket);
        receiver
            .recv_timeout(WAIT_MAX)
            .unwrap_or_else(|_| Err(self.too_slow()))
    }

    fn too_slow(&self) -> PagerError {
        let message = format!("{} does not keep up: retry", self.engine.name());
        PagerError::new(PagerErrorKind::TimedOut, message)
    }
}

/// While it is there, the store's thread runs.
struct Running<'shared, E: Engine>(&'shared Shared<E>);

impl<E: Engine> Drop for Running<'_, E> {
    fn drop(&mut self) {
        self.0.lock().has_thread = false;
    }
}

/// The store's thread: commits what is queued when its delay is over, or is left to it, or the store goes.
pub(crate) fn write_behind<E: Engine>(shared: &Arc<Shared<E>>) {
    let _running = Running(shared);
    let mut state = shared.lock();
    loop {
        if !state.has_queued() {
            if state.stop {
                return;
            }
            state.urgent = false;
            state = shared.work.wait(state).unwrap_or_else(PoisonError::into_inner);
            continue;
        }
        let ticket = state.ticket;
        let delay = shared.options.write_behind_delay;
        let can_wait = |state: &mut State| !state.stop && !state.urgent && state.settled < ticket;
        let waited = shared.work.wait_timeout_while(state, delay, can_wait);
        state = waited.unwrap_or_else(PoisonError::into_inner).0;
        state.urgent = false;
        let ticket = state.ticket;
        drop(state);
        shared.commit_until(ticket);
        state = shared.lock();
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{Mutex, OnceLock, Weak},
        time::Duration,
    };

    use vmsync_core::{
        ByteRange, KernReturn, PageSize,
        pager::{
            Attributes, CallId, InitRequest, LockRequest, MemoryObjectControl, ObjectId, Pager, ReturnFlags,
            SynchronizeFlags,
        },
    };

    use super::*;
    use crate::{Contents, Options, Place, Store};

    /// Creates objects, and refuses pages.
    struct Full;

    impl Engine for Full {
        fn page_size(&self) -> PageSize {
            PageSize::KIB_4
        }

        fn name(&self) -> &str {
            "a full one"
        }

        fn load(&self) -> Result<Contents> {
            Ok(Contents::default())
        }

        fn read(&self, _: Place, _: &mut [u8]) -> Result<bool> {
            Ok(false)
        }

        fn commit(&self, batch: &Batch) -> Result<()> {
            match batch.pages.is_empty() {
                true => Ok(()),
                false => Err(PagerError::new(PagerErrorKind::NoSpace, "it is full")),
            }
        }
    }

    /// Notes, when it is told of a failure, whether another call could be committed meanwhile.
    #[derive(Default)]
    struct Control {
        shared: OnceLock<Weak<Shared<Full>>>,
        free: Mutex<Vec<bool>>,
    }

    impl MemoryObjectControl for Control {
        fn synchronize_completed(
            &self,
            _: ByteRange,
            _: std::result::Result<(), PagerError>,
        ) -> std::result::Result<(), KernReturn> {
            Ok(())
        }

        fn write_behind_failed(&self, _: ByteRange, _: PagerError) {
            let shared = self.shared.get().and_then(Weak::upgrade).unwrap();
            let free = !shared.lock().leading;
            self.free.lock().unwrap().push(free);
        }

        fn lock_request(&self, _: LockRequest) -> std::result::Result<(), KernReturn> {
            Ok(())
        }

        fn change_attributes(&self, _: Attributes) {}

        fn destroy(&self, _: PagerError) {}
    }

    /// Row E3: were it told later, the sync of a task that has nothing else to sync could succeed before.
    #[test]
    fn a_failure_is_told_before_anything_else_is_committed() {
        let options = Options {
            read_only: false,
            write_behind_delay: Duration::from_secs(30),
            group_bytes_max: 1 << 20,
        };
        let (store, page_size) = (Store::start(Full, options).unwrap(), PageSize::KIB_4);
        let name = ObjectName::new("object").unwrap();
        let request = |write| InitRequest {
            page_size,
            size_min: page_size.bytes(),
            create: write,
            write,
        };
        let open = |object, write| {
            let control = Arc::new(Control::default());
            let _ = control.shared.set(Arc::downgrade(&store.shared));
            store
                .init(object, &name, request(write), control.clone())
                .unwrap();
            control
        };
        let writer = open(ObjectId(1), true);
        let reader = open(ObjectId(2), false);
        let flags = ReturnFlags {
            dirty: true,
            kernel_copy: true,
        };
        store
            .data_return(CallId(1), ObjectId(1), 0, &[1; 4096], flags)
            .unwrap();
        let asynchronous = SynchronizeFlags::ASYNCHRONOUS;
        let range = ByteRange::new(0, page_size.bytes());
        store
            .synchronize(CallId(1), ObjectId(1), range, asynchronous)
            .unwrap();
        store.flush().unwrap_err();
        for told in [writer, reader] {
            assert_eq!(*told.free.lock().unwrap(), [false]);
        }
    }
}
