//! The process that has the store open: how it begins, is killed or closes the store, and what the next one finds.

use std::sync::Arc;

use vmsync_pager_file::{FileStore, Options};

use super::{Broken, World, lost};
use crate::{
    history::print,
    limits::{
        ATTEMPTS, KILL_OPERATIONS_MAX, OPERATIONS_OF_LIFE, OPERATIONS_OF_OPENING, READS_OF_LIFE,
        READS_OF_OPENING,
    },
    store::options,
    task::Task,
};

impl World {
    pub(super) fn begin(&mut self) -> Result<(), Broken> {
        if self.faulty && self.random.once_in(2) {
            self.inject_faults(OPERATIONS_OF_OPENING, READS_OF_OPENING);
        }
        self.open_store("open")?;
        if self.faulty {
            self.inject_faults(OPERATIONS_OF_LIFE, READS_OF_LIFE);
        }
        Ok(())
    }

    /// Opens the store; what it then holds must be allowed by the history.
    fn open_store(&mut self, what: &str) -> Result<(), Broken> {
        let start = self.disk.position();
        let options = Options {
            background: self.shape.background,
            ..options(self.shape.page_size)
        };
        let open = || FileStore::open_on(Arc::new(self.disk.clone()), &options);
        let mut attempts = 0;
        let store = loop {
            let failed = self.disk.failed();
            let error = match open() {
                Ok(store) => break store,
                Err(error) => error,
            };
            if attempts == ATTEMPTS {
                return Err(lost(format!("{what}: the store does not open: {error}")));
            }
            self.refused(failed, &error, what)?;
            // Another process tries.
            self.disk.thaw();
            attempts += 1;
            if attempts == ATTEMPTS {
                self.disk.heal();
            }
        };
        self.store = Some(store);
        let found = self.read()?;
        let state = print(&found);
        if self.history.steps.iter().any(|step| step.state.is_some()) {
            self.history.judge(usize::MAX, Some(&state))?;
        }
        (self.supplied, self.firm) = (found.clone(), found);
        // A fresh store is durable when it is open; what a recovery found may still be on its way, also of a store whose
        // making failed.
        let fresh = self.history.steps[0].state.is_none() && self.history.steps.len() == 1;
        let promised = fresh && attempts == 0;
        self.step(start, promised, state, what);
        Ok(())
    }

    /// Ends the process, cleanly or not, and starts another.
    pub(super) fn reopen(&mut self, clean: bool) -> Result<(), Broken> {
        let (start, failed) = (self.disk.position(), self.disk.failed());
        self.tasks.iter_mut().for_each(|task| *task = Task::default());
        if !clean {
            self.disk.freeze();
        }
        self.store = None;
        let whole = clean && self.disk.failed() == failed && !self.disk.is_frozen();
        self.disk.thaw();
        if clean {
            let state = print(&self.supplied);
            self.step(start, whole, state, "close");
        }
        if self.random.once_in(3) {
            self.set_kill();
        }
        self.open_store(if clean { "open again" } else { "open after a kill" })
    }

    pub(super) fn end(&mut self) {
        let (start, failed) = (self.disk.position(), self.disk.failed());
        self.tasks.clear();
        self.store = None;
        let whole = self.disk.failed() == failed && !self.disk.is_frozen();
        let state = print(&self.supplied);
        self.step(start, whole, state, "close");
    }

    /// The process will be killed in the middle of something.
    pub(super) fn set_kill(&mut self) {
        let operations = self.random.below(KILL_OPERATIONS_MAX);
        self.disk.kill_after(operations as u64);
    }
}
