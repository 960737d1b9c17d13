//! [`Redb`]: the engine of the pager.
//!
//! Invariants:
//! - the outcome of a commit that failed is read back from the database, opened again; a batch that took place is
//!   reported as committed, whatever failed behind it;
//! - where it cannot be read back, nothing else is read or committed before it is, and a batch that was reported as
//!   failed and took place all the same stops the store;
//! - `unsure` is locked while a batch is committed or the database opened again.

use std::sync::{Mutex, PoisonError};

use vmsync_core::{PageSize, PagerError, PagerErrorKind};
use vmsync_pager_group::{Batch, Contents, Engine, Pages, Place, Result};

use crate::{database::Db, limits, tables};

/// A store in a redb database.
pub struct Redb {
    db: Db,
    name: String,
    /// The batch that nobody knows about whether it took place, without its pages.
    unsure: Mutex<Option<Batch>>,
}

impl Redb {
    pub(crate) fn new(db: Db) -> Self {
        Self {
            name: db.path.display().to_string(),
            db,
            unsure: Mutex::default(),
        }
    }

    /// Reads every committed page and checks it against its sum; answers how many there are. Others may go on
    /// meanwhile.
    ///
    /// # Errors
    /// [`PagerErrorKind::Damaged`] with the first page that is, and the database's.
    pub fn verify(&self) -> Result<u64> {
        self.ready()?;
        let page_size = self.page_size();
        self.db
            .read(|snapshot| tables::check_snapshot(snapshot, page_size))
    }

    /// Makes a database that failed one of use.
    fn ready(&self) -> Result<()> {
        if !self.db.has_failed() {
            return Ok(());
        }
        let mut unsure = self.unsure.lock().unwrap_or_else(PoisonError::into_inner);
        self.settle(&mut unsure)
    }

    fn settle(&self, unsure: &mut Option<Batch>) -> Result<()> {
        if !self.db.has_failed() {
            return Ok(());
        }
        let found = self.db.look()?;
        if unsure.as_ref().is_some_and(|batch| took_place(&found, batch)) {
            let message = format!(
                "{}: a call that was reported as failed has taken place all the same: open the store again to go on \
                 from it",
                self.name
            );
            return Err(PagerError::new(PagerErrorKind::Gone, message));
        }
        *unsure = None;
        self.db.trust();
        Ok(())
    }
}

/// Whether `batch` is what was committed last. The counter of calls tells for one with pages, and one without has
/// nothing else to look for.
fn took_place(found: &Contents, batch: &Batch) -> bool {
    let objects = &found.catalog;
    found.calls == batch.calls
        && found.object_next == batch.object_next
        && batch
            .objects
            .iter()
            .all(|(name, entry)| objects.get(name) == Some(entry))
        && batch.removed.iter().all(|(name, _)| !objects.contains_key(name))
}

impl Engine for Redb {
    const CALL_BYTES_MAX: usize = limits::CALL_BYTES_MAX;
    const OBJECTS_MAX: usize = limits::OBJECTS_MAX;

    fn page_size(&self) -> PageSize {
        self.db.page_size()
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn load(&self) -> Result<Contents> {
        self.ready()?;
        self.db.look()
    }

    fn read(&self, place: Place, buffer: &mut [u8]) -> Result<bool> {
        let page_bytes = self.page_size().bytes() as usize;
        let read = |buffer: &mut [u8]| {
            self.ready()?;
            self.db
                .read(|snapshot| tables::read(snapshot, place, page_bytes, buffer))
        };
        match read(buffer) {
            // The snapshot was one of a database that a commit has failed in meanwhile.
            Err(error) if error.kind == PagerErrorKind::Io && self.db.has_failed() => read(buffer),
            answer => answer,
        }
    }

    fn commit(&self, batch: &Batch) -> Result<()> {
        let mut unsure = self.unsure.lock().unwrap_or_else(PoisonError::into_inner);
        self.settle(&mut unsure)?;
        let Err(error) = self.db.write(|transaction| tables::write(transaction, batch)) else {
            return Ok(());
        };
        match self.db.look() {
            Ok(found) => {
                self.db.trust();
                if took_place(&found, batch) {
                    Ok(())
                } else {
                    Err(error)
                }
            }
            Err(_) => {
                self.db.distrust();
                *unsure = Some(Batch {
                    pages: Pages::new(),
                    ..batch.clone()
                });
                Err(error)
            }
        }
    }
}
