//! Committing: one thread leads, and takes everything that is queued into one transaction.
//!
//! ```text
//!   callers --enqueue--> queue --leader: group--> one transaction, one sync --> answers
//!                          ^                                                     |
//!                          '------- whoever waits next leads the next group -----'
//! ```
//!
//! Invariants:
//! - there is one leader at a time, and it stops being so also when it panics;
//! - answers are given while no lock is held and nobody leads on their behalf;
//! - a call fails with its whole group, and then no page of it is shown.

use std::{
    sync::{Arc, PoisonError, mpsc},
    time::Instant,
};

use vmsync_core::{PagerError, PagerErrorKind, pager::ObjectName};

use crate::{
    call::{Answer, Call, Queued},
    error::Result,
    limits::WAIT_MAX,
    store::{Check, Shared},
    tables::{self, Batch, Catalog, Entry, Pages},
};

/// The right to write to the database and to change the catalog.
struct Lead<'shared>(&'shared Shared);

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        self.0.lock().leading = false;
        self.0.progress.notify_all();
    }
}

impl Shared {
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
    fn take_lead(&self) -> Result<Lead<'_>> {
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

    fn commit_group(&self, lead: Lead<'_>) {
        let group = self.lock().take_group();
        let result = self.write_group(&lead, &group);
        self.lock().settle(&group);
        drop(lead);
        for queued in group {
            queued.settle(result.clone());
        }
    }

    /// Writes a group in one transaction.
    fn write_group(&self, lead: &Lead<'_>, group: &[Queued]) -> Result<()> {
        let empty = group.iter().all(|queued| queued.call.pages.is_empty());
        if empty && self.lock().undo.is_empty() && self.lock().unsure.is_empty() {
            return Ok(());
        }
        self.open_again(lead)?;
        let (undo, objects, counter) = {
            let state = self.lock();
            let (objects, counter) = changed(&state.catalog, group, state.calls_committed);
            // Each transaction has a number, so that it shows whether it took place.
            (
                state.undo.clone(),
                objects,
                counter.max(state.calls_committed + 1),
            )
        };
        let batch = Batch {
            undo: &undo,
            calls: group.iter().map(|queued| &queued.call.pages).collect(),
            objects: &objects,
            counter,
        };
        let mut before = Pages::new();
        let written = self
            .db
            .write(|transaction| tables::write(transaction, &batch, &mut before));
        let mut state = self.lock();
        match &written {
            Ok(()) => {
                state.catalog.extend(objects);
                state.calls_committed = counter;
                state.undo.clear();
            }
            Err(_) => state.unsure = before,
        }
        written
    }

    /// Opens the database again where it failed.
    fn open_again(&self, _lead: &Lead<'_>) -> Result<()> {
        if self.db.has_failed() {
            let contents = self.db.reopen(Check::AfterCrash)?;
            self.lock().reload(contents);
        }
        Ok(())
    }

    /// Makes the database of use again after a failure.
    pub(crate) fn recover(&self) -> Result<()> {
        let lead = self.take_lead()?;
        self.open_again(&lead)
    }

    /// Creates an object, or lets it grow to `size`.
    pub(crate) fn put_object(&self, name: &ObjectName, size: u64) -> Result<()> {
        let lead = self.take_lead()?;
        self.open_again(&lead)?;
        let (entry, object_next) = {
            let state = self.lock();
            let fresh = Entry {
                id: state.object_next,
                size,
                version: 0,
                address: None,
            };
            let found = state.catalog.get(name).copied().unwrap_or(fresh);
            let size = found.size.max(size);
            (Entry { size, ..found }, state.object_next.max(found.id + 1))
        };
        // Also where it fails: the commit may have taken place.
        self.lock().object_next = object_next;
        self.db
            .write(|transaction| tables::put_object(transaction, name, entry, object_next))?;
        self.lock().catalog.insert(name.clone(), entry);
        Ok(())
    }

    /// Removes an object that nobody uses, behind everything that is queued.
    pub(crate) fn take_object(&self, name: &ObjectName) -> Result<()> {
        // What was queued for it and fails now is lost with it.
        let ticket = self.lock().ticket;
        self.commit_until(ticket);
        let lead = self.take_lead()?;
        if self.lock().settled < ticket {
            return Err(self.too_slow());
        }
        self.open_again(&lead)?;
        let Some(id) = self.lock().catalog.get(name).map(|entry| entry.id) else {
            let message = format!("no object \"{name}\" in this store");
            return Err(PagerError::new(PagerErrorKind::NotFound, message));
        };
        self.db
            .write(|transaction| tables::remove_object(transaction, name, id))?;
        let mut state = self.lock();
        state.catalog.remove(name);
        state.undo.retain(|(object, _), _| *object != id);
        Ok(())
    }

    /// Commits everything that is queued.
    pub(crate) fn flush(&self) -> Result<()> {
        let (sender, receiver) = mpsc::sync_channel(1);
        let call = Call {
            answers: vec![Answer::Waiter(sender)],
            ..Call::default()
        };
        let ticket = self.lock().enqueue(call, None);
        self.commit_until(ticket);
        receiver
            .recv_timeout(WAIT_MAX)
            .unwrap_or_else(|_| Err(self.too_slow()))
    }

    fn too_slow(&self) -> PagerError {
        let message = format!("{}: the disk does not keep up: retry", self.db.path.display());
        PagerError::new(PagerErrorKind::TimedOut, message)
    }
}

/// The objects that `group` changes, as they are behind it, and the counter of calls.
fn changed(catalog: &Catalog, group: &[Queued], mut counter: u64) -> (Catalog, u64) {
    let mut objects = Catalog::new();
    for queued in group.iter().filter(|queued| !queued.call.pages.is_empty()) {
        counter += 1;
        for (name, address) in &queued.call.objects {
            let known = objects.get(name).or_else(|| catalog.get(name)).copied();
            // An object that calls have returned pages of is not removed.
            let Some(entry) = known else { continue };
            let entry = Entry {
                version: counter,
                address: address.or(entry.address),
                ..entry
            };
            objects.insert(name.clone(), entry);
        }
    }
    (objects, counter)
}

/// The store's thread: commits what is queued when its delay is over.
pub(crate) fn write_behind(shared: &Arc<Shared>) {
    let mut state = shared.lock();
    loop {
        if state.stop {
            return;
        }
        if !state.has_queued() {
            state = shared.work.wait(state).unwrap_or_else(PoisonError::into_inner);
            continue;
        }
        let ticket = state.ticket;
        let delay = shared.options.write_behind_delay;
        let waited = shared
            .work
            .wait_timeout_while(state, delay, |state| !state.stop && state.settled < ticket);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
        shared.commit_until(ticket);
        state = shared.lock();
    }
}
