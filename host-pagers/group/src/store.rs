//! [`Store`]: an engine's objects, served as a pager.
//!
//! ```text
//!   Store (the pager; commits and stops everything when dropped)
//!     '-- Shared --- engine    what keeps the pages                            [engine.rs]
//!           |------- state     what is open, returned, queued                  [state.rs]
//!           '------- thread    late commits of asynchronous calls              [commit.rs]
//! ```
//!
//! Invariants:
//! - locks are taken in the order: opening, the lead, state;
//! - answers are given while no lock is held.

use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, Builder, JoinHandle},
    time::Duration,
};

use vmsync_core::{
    PageSize, PagerError, PagerErrorKind,
    pager::{Attributes, ObjectName},
};

use crate::{Engine, Result, commit::write_behind, state::State};

/// How calls are grouped.
#[derive(Clone, Debug)]
pub struct Options {
    /// Refuse every change.
    pub read_only: bool,
    /// How long an asynchronous call may stay queued.
    pub write_behind_delay: Duration,
    /// A group is closed at so many bytes.
    pub group_bytes_max: usize,
}

/// The objects of an engine.
///
/// Dropping it commits what is queued, as far as that works; a crash instead loses nothing that was reported as
/// durable.
pub struct Store<E: Engine> {
    pub(crate) shared: Arc<Shared<E>>,
    thread: Option<JoinHandle<()>>,
}

/// What all parts of a store share.
pub(crate) struct Shared<E> {
    pub(crate) engine: E,
    pub(crate) options: Options,
    /// Held while an object is opened, created or removed.
    pub(crate) opening: Mutex<()>,
    state: Mutex<State>,
    /// A leader stopped leading.
    pub(crate) progress: Condvar,
    /// The thread has something to do.
    pub(crate) work: Condvar,
}

impl<E: Engine> Shared<E> {
    /// Locks; a thread that panicked left nothing half done that the next one could not see, for every change of
    /// several steps is made without a panic between.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn require_writable(&self) -> Result<()> {
        if !self.options.read_only {
            return Ok(());
        }
        let message = format!("{} was opened read-only: open it for writing", self.engine.name());
        Err(PagerError::new(PagerErrorKind::Denied, message))
    }
}

impl<E: Engine> Store<E> {
    /// Serves what `engine` has.
    ///
    /// # Errors
    /// The engine's, and [`PagerErrorKind::Io`] where no thread can be started.
    pub fn start(engine: E, options: Options) -> Result<Arc<Self>> {
        let mut state = State::default();
        state.contents = engine.load()?;
        let shared = Arc::new(Shared {
            engine,
            options,
            opening: Mutex::default(),
            state: Mutex::new(state),
            progress: Condvar::new(),
            work: Condvar::new(),
        });
        let mut store = Self { shared, thread: None };
        if !store.shared.options.read_only {
            let own = store.shared.clone();
            let thread = Builder::new()
                .name("vmsync-behind".into())
                .spawn(move || write_behind(&own));
            let failed =
                |error| PagerError::new(PagerErrorKind::Io, format!("cannot start a thread: {error}"));
            store.thread = Some(thread.map_err(failed)?);
            store.shared.lock().has_thread = true;
        }
        Ok(Arc::new(store))
    }

    /// The engine behind it.
    pub fn engine(&self) -> &E {
        &self.shared.engine
    }

    /// Commits everything that is queued, and waits until it is durable.
    ///
    /// # Errors
    /// The engine's, where something that was queued is lost; the calls were told as well.
    pub fn flush(&self) -> Result<()> {
        self.shared.flush()
    }

    /// The page size of the store.
    pub fn page_size(&self) -> PageSize {
        self.shared.engine.page_size()
    }

    /// The objects of the store, by name.
    pub fn list(&self) -> Vec<(ObjectName, Attributes)> {
        let state = self.shared.lock();
        let objects = state.contents.catalog.iter();
        objects
            .map(|(name, entry)| (name.clone(), entry.attributes()))
            .collect()
    }

    /// Removes an object that nobody has open.
    ///
    /// # Errors
    /// [`PagerErrorKind::NotFound`], [`PagerErrorKind::Busy`], [`PagerErrorKind::Denied`], and the engine's.
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
}

impl<E: Engine> Drop for Store<E> {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            self.shared.lock().stop = true;
            self.shared.work.notify_all();
            if thread.thread().id() == thread::current().id() {
                // Whoever was just answered let go of the store. This thread commits what is queued, and ends.
                return;
            }
            // A panic of the thread was printed already.
            let _ = thread.join();
        }
        // Where it has no thread, or that is dead.
        let queued = self.shared.lock().has_queued();
        if queued {
            // What fails here is told to the calls that were queued.
            let _ = self.shared.flush();
        }
    }
}
