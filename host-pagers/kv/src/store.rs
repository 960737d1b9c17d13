//! [`KvStore`]: a file of objects.
//!
//! ```text
//!   KvStore (the pager; commits and stops everything when dropped)
//!     '-- Shared --- state     what is open, returned, queued                  [state.rs]
//!           |------- db        the database, opened again after a failure      [database.rs, tables.rs]
//!           '------- thread    late commits of asynchronous calls              [commit.rs]
//! ```
//!
//! Invariants:
//! - locks are taken in the order: opening, the lead, state, the database's slot;
//! - answers are given while no lock is held.

use std::{
    path::Path,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{Builder, JoinHandle},
    time::Duration,
};

use vmsync_core::{
    PageSize, PagerError, PagerErrorKind,
    pager::{Attributes, ObjectName},
};

use crate::{
    commit::write_behind,
    database::Db,
    error::{Result, input_output},
    limits::{CACHE_BYTES_DEFAULT, WRITE_BEHIND_DELAY_DEFAULT},
    state::State,
    tables::{self, Contents},
};

/// When the whole file is checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Check {
    /// At each opening. Damage is then reported before anything is supplied; it takes a read of the whole file.
    #[default]
    OnOpen,
    /// At an opening after a crash, which reads the whole file anyway. A page that was damaged otherwise is still
    /// found when it is read.
    AfterCrash,
}

/// How a store is opened.
#[derive(Clone, Debug)]
pub struct Options {
    /// Make the store where there is none; its folder has to be there.
    pub create: bool,
    /// Change nothing; other readers may have it open as well, and no writer. A store that was not closed cleanly is
    /// refused: it is repaired when it is opened for writing.
    pub read_only: bool,
    /// The page size of the store and of every object in it.
    pub page_size: PageSize,
    /// Memory for the database's cache, in bytes.
    pub cache_bytes: usize,
    /// How long an asynchronous call may stay queued.
    pub write_behind_delay: Duration,
    /// When the whole file is checked.
    pub check: Check,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            create: true,
            read_only: false,
            page_size: PageSize::KIB_4,
            cache_bytes: CACHE_BYTES_DEFAULT,
            write_behind_delay: WRITE_BEHIND_DELAY_DEFAULT,
            check: Check::OnOpen,
        }
    }
}

/// A store of objects in one database file.
///
/// Dropping it commits what is queued, as far as that works; a crash instead loses nothing that was reported as
/// durable.
pub struct KvStore {
    pub(crate) shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// What all parts of a store share.
pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) db: Db,
    /// Held while an object is opened, created or removed.
    pub(crate) opening: Mutex<()>,
    state: Mutex<State>,
    /// A leader stopped leading.
    pub(crate) progress: Condvar,
    /// The thread has something to do.
    pub(crate) work: Condvar,
}

impl Shared {
    /// Locks; a thread that panicked left nothing half done that the next one could not see, for every change of
    /// several steps is made without a panic between.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn require_writable(&self) -> Result<()> {
        if !self.options.read_only {
            return Ok(());
        }
        let message = format!(
            "{} was opened read-only: open it for writing",
            self.db.path.display()
        );
        Err(PagerError::new(PagerErrorKind::Denied, message))
    }
}

impl KvStore {
    /// Opens the store in the file `path`.
    ///
    /// # Errors
    /// - [`PagerErrorKind::Busy`]: it is open elsewhere, in this process or another;
    /// - [`PagerErrorKind::NotFound`]: there is none, and it was not to be created;
    /// - [`PagerErrorKind::Damaged`]: its bytes contradict themselves, or are no database;
    /// - [`PagerErrorKind::Version`]: another format version;
    /// - [`PagerErrorKind::Invalid`]: another page size, or a database of another program;
    /// - [`PagerErrorKind::Denied`]: the right is missing, or a store that was not closed cleanly is to be read only;
    /// - [`PagerErrorKind::NoSpace`], [`PagerErrorKind::Io`]: the disk's.
    pub fn open(path: &Path, options: &Options) -> Result<Arc<Self>> {
        let options = Options {
            create: options.create && !options.read_only,
            ..options.clone()
        };
        Self::start(options.clone(), Db::open(path, &options)?)
    }

    /// Serves what `db` has.
    pub(crate) fn start(options: Options, (db, contents): (Db, Contents)) -> Result<Arc<Self>> {
        let shared = Arc::new(Shared {
            options,
            db,
            opening: Mutex::default(),
            state: Mutex::new(State::new(contents)),
            progress: Condvar::new(),
            work: Condvar::new(),
        });
        let mut store = Self { shared, thread: None };
        if store.shared.options.read_only {
            // The database checks only what it may repair.
            if store.shared.options.check == Check::OnOpen {
                store.verify()?;
            }
        } else {
            let own = store.shared.clone();
            let thread = Builder::new()
                .name("vmsync-kv".into())
                .spawn(move || write_behind(&own));
            let failed = |error| input_output(&store.shared.db.path, &error);
            store.thread = Some(thread.map_err(failed)?);
        }
        Ok(Arc::new(store))
    }

    /// Commits everything that is queued, and waits until it is durable.
    ///
    /// # Errors
    /// The database's; the calls were told as well.
    pub fn flush(&self) -> Result<()> {
        self.shared.flush()
    }

    /// The page size of the store.
    pub fn page_size(&self) -> PageSize {
        self.shared.options.page_size
    }

    /// The objects of the store, by name.
    pub fn list(&self) -> Vec<(ObjectName, Attributes)> {
        let state = self.shared.lock();
        let objects = state.catalog.iter();
        objects
            .map(|(name, entry)| (name.clone(), entry.attributes()))
            .collect()
    }

    /// Removes an object that nobody has open. The file keeps its length; its room is used again.
    ///
    /// # Errors
    /// [`PagerErrorKind::NotFound`], [`PagerErrorKind::Busy`], [`PagerErrorKind::Denied`], and the database's.
    pub fn remove_object(&self, name: &ObjectName) -> Result<()> {
        self.shared.require_writable()?;
        let opening = self.shared.opening.lock().unwrap_or_else(PoisonError::into_inner);
        let used = {
            let state = self.shared.lock();
            state.opened.values().any(|opened| opened.name == *name)
                || state.calls.values().any(|call| call.objects.contains_key(name))
        };
        if used {
            let message = format!("\"{name}\" is in use: close it first");
            return Err(PagerError::new(PagerErrorKind::Busy, message));
        }
        let removed = self.shared.take_object(name);
        drop(opening);
        removed
    }

    /// Reads every committed page and checks it against its sum; answers how many there are. Others may go on
    /// meanwhile.
    ///
    /// # Errors
    /// [`PagerErrorKind::Damaged`] with the first page that is, and the database's.
    pub fn verify(&self) -> Result<u64> {
        let (db, page_size) = (&self.shared.db, self.page_size());
        let snapshot = db.snapshot()?;
        db.read(|| tables::check_snapshot(&snapshot, page_size))
    }
}

impl Drop for KvStore {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            self.shared.lock().stop = true;
            self.shared.work.notify_all();
            // A panic of the thread was printed already.
            let _ = thread.join();
        }
        if !self.shared.options.read_only {
            // What fails here is told to the calls that were queued.
            let _ = self.shared.flush();
        }
    }
}
