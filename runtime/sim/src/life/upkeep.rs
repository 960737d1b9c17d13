//! What tasks do to the store as a whole: checkpoints, flushes, tidying up.

use super::{Broken, World};

impl World {
    pub(super) fn checkpoint(&mut self) -> Result<(), Broken> {
        // Flushing is a step of its own: it may work where the rest does not.
        self.flush()?;
        let (start, failed) = (self.disk.position(), self.disk.failed());
        match self.store().checkpoint() {
            Ok(()) => self.written(start, "checkpoint"),
            Err(error) => self
                .refused(failed, &error, "checkpoint")
                .and_then(|()| self.failed(start, &self.supplied.clone(), "checkpoint")),
        }
    }

    /// What the host does when nothing waits.
    pub(super) fn tidy(&mut self) -> Result<(), Broken> {
        self.flush()?;
        let (start, failed) = (self.disk.position(), self.disk.failed());
        match self.store().tidy() {
            // It may have written images only: nothing new is promised.
            Ok(()) => self.compare("tidy"),
            Err(error) => self
                .refused(failed, &error, "tidy")
                .and_then(|()| self.failed(start, &self.supplied.clone(), "tidy")),
        }
    }

    pub(super) fn flush(&mut self) -> Result<(), Broken> {
        let (start, failed) = (self.disk.position(), self.disk.failed());
        match self.store().flush() {
            Ok(()) => self.written(start, "flush"),
            Err(error) => self
                .refused(failed, &error, "flush")
                .and_then(|()| self.failed(start, &self.supplied.clone(), "flush")),
        }
    }
}
