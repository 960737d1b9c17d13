//! [`FileStore`]: a folder of crash-safe objects.
//!
//! ```text
//!   FileStore (the pager; stops everything when dropped)
//!     '-- Shared --- handles, calls      what the runtime has open, and what it has returned   [pager.rs]
//!           |------- queue               calls on their way, catalog                           [queue.rs]
//!           |          '-- ahead         pages that have what their images do not have         [ahead.rs]
//!           |------- journal             records, one sync for a group                         [commit.rs]
//!           |------- images              durable pages on their way into them                  [apply.rs]
//!           |------- checkpointer        one checkpoint at a time                              [checkpoint.rs]
//!           |------- store file          superblock: which part of the journal is needed       [store_file.rs]
//!           '------- threads             late flushes; applying and checkpoints                [background.rs]
//!   helpers, of the process, stay: they have a share of comparing what a large call returned     [helpers.rs]
//! ```
//!
//! Invariants:
//! - locks are taken in the order: opening, checkpointer, journal, images or store file, queue; the others alone or last;
//! - answers are given while no lock is held, but for `opening` where its holder flushes: an answer must not wait for an object to be
//!   opened;
//! - an image changes only after the record is durable.

use std::{
    collections::HashMap,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, Weak, atomic::AtomicBool},
    thread::{self, JoinHandle},
    time::Duration,
};

use rustc_hash::FxHashMap;
use vmsync_core::{
    PageSize, PagerError, PagerErrorKind,
    pager::{Attributes, CallId, MemoryObjectControl, ObjectId, ObjectName},
};

use crate::{
    background,
    call::{Answer, Call, Prepared},
    disk::{Disk, DiskLock, Result},
    error::invalid,
    journal::Journal,
    layout::{Seed, catalog::CatalogEntry, entry::CatalogChange, image_name, sums_name},
    limits::{
        CHECKPOINT_BYTES_DEFAULT, NUMBER_MAX, SEGMENT_BYTES_DEFAULT, SEGMENT_BYTES_MIN,
        WRITE_BEHIND_DELAY_DEFAULT,
    },
    object::Object,
    queue::Queue,
    recovery,
    stats::{Counters, Stats},
    store_file::StoreFile,
    waiter::Waiter,
};

/// Who does what can wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Background {
    /// Two threads of the store; what one that cannot be made would do is done as with [`Background::Caller`]. Threads of the process help with large calls.
    #[default]
    Thread,
    /// Whoever calls: asynchronous calls stay queued until the next synchronous one, [`FileStore::flush`] or closing.
    Caller,
    /// The host, which has one thread and idle time: it calls [`FileStore::tidy`] when nothing waits.
    Host,
}

/// How a store is opened.
#[derive(Clone, Debug)]
pub struct Options {
    /// Make the store, and its folder, where there is none.
    pub create: bool,
    /// Change nothing; other readers may have it open as well.
    pub read_only: bool,
    /// The page size of the store and of every object in it.
    pub page_size: PageSize,
    /// The size of a journal segment in bytes; used when the store is created.
    pub segment_bytes: u64,
    /// Journal behind the active segment, in bytes, that starts a checkpoint.
    pub checkpoint_bytes: u64,
    /// How long an asynchronous call may stay queued.
    pub write_behind_delay: Duration,
    /// Who does what can wait.
    pub background: Background,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            create: true,
            read_only: false,
            page_size: PageSize::KIB_4,
            segment_bytes: SEGMENT_BYTES_DEFAULT,
            checkpoint_bytes: CHECKPOINT_BYTES_DEFAULT,
            write_behind_delay: WRITE_BEHIND_DELAY_DEFAULT,
            background: Background::Thread,
        }
    }
}

/// A crash-safe store of objects in a folder.
///
/// Dropping it writes what is queued and takes a checkpoint, as far as that works; a crash instead loses nothing that
/// was reported as durable.
pub struct FileStore {
    pub(crate) shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

/// What all parts of a store share.
pub(crate) struct Shared {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) options: Options,
    pub(crate) page_size: PageSize,
    pub(crate) seed: Seed,
    pub(crate) handles: RwLock<FxHashMap<ObjectId, Handle>>,
    pub(crate) calls: Mutex<FxHashMap<CallId, Arc<Mutex<Call>>>>,
    opening: Mutex<Opening>,
    /// Held by whoever takes a checkpoint.
    pub(crate) checkpointer: Mutex<()>,
    pub(crate) store_file: Mutex<StoreFile>,
    pub(crate) journal: Mutex<Journal>,
    /// What the opening read may be in the cache only, as far as is known without the journal.
    pub(crate) undurable: AtomicBool,
    /// Held by whoever changes images: the order of writes to a page is the order of its versions.
    pub(crate) images: Mutex<()>,
    pub(crate) queue: Mutex<Queue>,
    /// There is room in the queue again.
    pub(crate) drained: Condvar,
    /// The thread that flushes has something to do.
    pub(crate) work: Condvar,
    /// The thread that applies and takes checkpoints has something to do.
    pub(crate) tidying: Condvar,
    pub(crate) counters: Counters,
    /// Given up last.
    _lock: Box<dyn DiskLock>,
}

/// Held while an object is opened, made, grown or removed.
#[derive(Default)]
pub(crate) struct Opening {
    /// Objects that something refers to.
    pub(crate) objects: HashMap<u64, Weak<Object>>,
    /// A change of the catalog that was given up and may still be made: what the next one would rest on is not known.
    unanswered: Option<Arc<Waiter>>,
}

/// An object that the runtime has open.
pub(crate) struct Handle {
    pub(crate) object: Arc<Object>,
    pub(crate) write: bool,
    pub(crate) control: Arc<dyn MemoryObjectControl>,
    pub(crate) address: Option<u64>,
}

/// Locks; a thread that panicked left nothing half done that the next one could not see, for every change of several
/// steps is made under one lock and without a panic between.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl FileStore {
    /// Opens the store on `disk`.
    ///
    /// # Errors
    /// - [`PagerErrorKind::Busy`]: it is open elsewhere, in this process or another;
    /// - [`PagerErrorKind::NotFound`]: there is none, and it was not to be created;
    /// - [`PagerErrorKind::Damaged`]: its bytes contradict themselves, with the file and the place;
    /// - [`PagerErrorKind::Version`]: another format version;
    /// - [`PagerErrorKind::Invalid`]: another page size, or options that make no sense;
    /// - [`PagerErrorKind::NoSpace`], [`PagerErrorKind::Denied`], [`PagerErrorKind::Io`]: the disk's.
    pub fn open_on(disk: Arc<dyn Disk>, options: &Options) -> Result<Arc<Self>> {
        if !(SEGMENT_BYTES_MIN..=NUMBER_MAX).contains(&options.segment_bytes) {
            return Err(invalid(format!(
                "journal segments have at least {SEGMENT_BYTES_MIN} bytes, and at most {NUMBER_MAX}"
            )));
        }
        let recovered = recovery::open(&disk, options)?;
        let seed = Seed::of(recovered.superblock.nonce);
        let objects = recovered
            .touched
            .values()
            .map(|touched| Arc::downgrade(&touched.object));
        let objects = recovered.touched.keys().copied().zip(objects).collect();
        let mut queue = Queue::new(recovered.catalog, recovered.touched);
        queue.ahead = recovered.ahead;
        queue.has_tidier = options.background == Background::Host;
        let store_file = StoreFile::new(recovered.superblock, recovered.store_file);
        let shared = Arc::new(Shared {
            disk,
            options: options.clone(),
            page_size: recovered.superblock.page_size,
            seed,
            handles: RwLock::default(),
            calls: Mutex::default(),
            opening: Mutex::new(Opening {
                objects,
                ..Opening::default()
            }),
            checkpointer: Mutex::default(),
            store_file: Mutex::new(store_file),
            undurable: AtomicBool::new(recovered.journal.is_undurable()),
            journal: Mutex::new(recovered.journal),
            images: Mutex::default(),
            queue: Mutex::new(queue),
            drained: Condvar::new(),
            work: Condvar::new(),
            tidying: Condvar::new(),
            counters: Counters::default(),
            _lock: recovered.lock,
        });
        let wanted = options.background == Background::Thread && !options.read_only;
        let threads = wanted.then(|| background::start(&shared));
        let threads = threads.unwrap_or_default();
        Ok(Arc::new(Self { shared, threads }))
    }

    /// Writes everything that is queued, and waits until it is durable.
    ///
    /// # Errors
    /// The disk's; the calls were told as well.
    pub fn flush(&self) -> Result<()> {
        self.shared.flush()
    }

    /// Does what can wait: writes what is queued, puts durable pages into their images, takes a checkpoint if one is due, makes
    /// a journal file if one will be needed.
    /// With [`Background::Host`] the host calls it a moment after each call; with the others it is never needed.
    ///
    /// # Errors
    /// The disk's; nothing is lost, the journal keeps what it has.
    pub fn tidy(&self) -> Result<()> {
        self.shared.flush()?;
        self.shared.apply_all(..)?;
        let due = lock(&self.shared.queue).checkpoint_wanted;
        if due {
            self.shared.checkpoint_sealed()?;
        }
        self.shared.make_segment();
        Ok(())
    }

    /// Takes a checkpoint now: everything durable is in the images, and the journal is empty.
    ///
    /// # Errors
    /// The disk's; nothing is lost, the journal keeps what it has.
    pub fn checkpoint(&self) -> Result<()> {
        self.shared.require_writable()?;
        self.shared.flush()?;
        self.shared.checkpoint_all()
    }

    /// What was done since the store was opened.
    pub fn stats(&self) -> Stats {
        self.shared.counters.read()
    }

    /// The page size of the store.
    pub fn page_size(&self) -> PageSize {
        self.shared.page_size
    }

    /// The objects of the store, by name.
    pub fn list(&self) -> Vec<(ObjectName, Attributes)> {
        let queue = lock(&self.shared.queue);
        let objects = queue
            .catalog
            .objects()
            .map(|(_, entry)| (entry.name.clone(), attributes(entry)));
        let mut objects: Vec<_> = objects.collect();
        objects.sort_by(|left, right| left.0.cmp(&right.0));
        objects
    }

    /// Removes an object that nobody has open.
    ///
    /// # Errors
    /// [`PagerErrorKind::NotFound`], [`PagerErrorKind::Busy`], and the disk's.
    pub fn remove_object(&self, name: &ObjectName) -> Result<()> {
        self.shared.remove_object(name)
    }
}

impl Drop for FileStore {
    fn drop(&mut self) {
        lock(&self.shared.queue).stop = true;
        self.shared.work.notify_all();
        self.shared.tidying.notify_all();
        for thread in self.threads.drain(..) {
            if thread.thread().id() == thread::current().id() {
                // Whoever was just answered let go of the store. The journal keeps what this thread cannot wait for.
                return;
            }
            // A panic of the thread was printed already.
            let _ = thread.join();
        }
        if self.shared.options.read_only {
            return;
        }
        // What fails here is told to the calls that were queued; the journal keeps the rest for the next opening.
        let _ = self.shared.close();
    }
}

/// What the catalog says of an object.
pub(crate) fn attributes(entry: &CatalogEntry) -> Attributes {
    Attributes {
        size: entry.size,
        version: entry.version,
        precious: false,
        address: entry.address,
    }
}

impl Shared {
    pub(crate) fn require_writable(&self) -> Result<()> {
        if !self.options.read_only {
            return Ok(());
        }
        let message = format!("{} was opened read-only: open it for writing", self.disk.place());
        Err(PagerError::new(PagerErrorKind::Denied, message))
    }

    /// For whoever opens, makes, grows or removes an object.
    ///
    /// # Errors
    /// [`PagerErrorKind::TimedOut`] while a change that was given up has no outcome.
    pub(crate) fn opening(&self) -> Result<MutexGuard<'_, Opening>> {
        let mut opening = lock(&self.opening);
        opening.unanswered.take_if(|waiter| waiter.is_finished());
        if opening.unanswered.is_some() {
            let message =
                "the disk has not answered an earlier change of the store's objects: try again later";
            return Err(PagerError::new(PagerErrorKind::TimedOut, message));
        }
        Ok(opening)
    }

    /// Commits a change of the catalog and waits for it; `resized` is the object that it makes or grows.
    pub(crate) fn change_catalog(
        &self,
        opening: &mut Opening,
        change: CatalogChange,
        resized: Option<&Arc<Object>>,
    ) -> Result<()> {
        self.require_writable()?;
        let waiter = Arc::new(Waiter::default());
        let mut call = Prepared::of_changes(vec![change], Answer::Waiter(waiter.clone()));
        call.resized = resized.cloned();
        let ticket = lock(&self.queue).enqueue(call);
        self.lead(ticket);
        let outcome = waiter.wait();
        opening.unanswered = Some(waiter).filter(|waiter| !waiter.is_finished());
        outcome
    }

    /// Writes everything that is queued, and waits until it is durable.
    pub(crate) fn flush(&self) -> Result<()> {
        let waiter = Arc::new(Waiter::default());
        let ticket = {
            let mut queue = lock(&self.queue);
            if !queue.has_pending() && !queue.flushing {
                return Ok(());
            }
            queue.enqueue(Prepared::of_changes(Vec::new(), Answer::Waiter(waiter.clone())))
        };
        self.lead(ticket);
        waiter.wait()
    }

    fn remove_object(&self, name: &ObjectName) -> Result<()> {
        let mut opening = self.opening()?;
        let found = lock(&self.queue).catalog.find(name).map(|(id, _)| id);
        let Some(id) = found else {
            return Err(PagerError::new(
                PagerErrorKind::NotFound,
                format!("no object \"{name}\""),
            ));
        };
        let handles = self.handles.read().unwrap_or_else(PoisonError::into_inner);
        let open = handles.values().any(|handle| handle.object.id == id);
        drop(handles);
        // A call that is compared just now is locked for long: not all others while it is waited for.
        let calls: Vec<_> = lock(&self.calls).values().cloned().collect();
        let returned = calls.iter().any(|call| lock(call).objects.contains_key(&id));
        if open || returned {
            let message = format!("\"{name}\" is in use: close it first");
            return Err(PagerError::new(PagerErrorKind::Busy, message));
        }
        self.change_catalog(&mut opening, CatalogChange::Remove { object: id }, None)?;
        opening.objects.remove(&id);
        {
            let mut queue = lock(&self.queue);
            queue.touched.remove(&id);
            queue.sealed.remove(&id);
            queue.ahead.forget(id);
        }
        // Files that stay are removed at the next opening.
        let _ = self.disk.remove(&image_name(id));
        let _ = self.disk.remove(&sums_name(id));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use vmsync_core::pager::InitRequest;
    use vmsync_pager_conformance::Client;

    use super::*;
    use crate::disk::memory::MemoryDisk;

    #[test]
    fn nothing_rests_on_a_change_of_which_nobody_knows_the_outcome() {
        let disk = Arc::new(MemoryDisk::new());
        let options = Options {
            background: Background::Caller,
            ..Options::default()
        };
        let store = FileStore::open_on(disk.clone(), &options).unwrap();
        let name = ObjectName::new("object").unwrap();
        let open = |pages: u64| {
            let request = InitRequest {
                page_size: PageSize::KIB_4,
                size_min: pages * 4096,
                create: true,
                write: true,
            };
            Client::open_with(store.clone(), "object", request)
        };
        let gives_up = |result: Result<()>| {
            assert_eq!(result.unwrap_err().kind, PagerErrorKind::TimedOut);
        };
        // Somebody flushes, and the disk does not answer.
        lock(&store.shared.queue).flushing = true;
        let answer = || {
            let ticket = lock(&store.shared.queue).queued;
            store.shared.flush_until(ticket);
        };
        gives_up(open(1).map(drop));
        // Made once more, it would contradict the catalog.
        gives_up(open(1).map(drop));
        gives_up(store.remove_object(&name));
        answer();
        let object = open(1).unwrap();
        object.commit_full(0, 7);
        object.close();
        lock(&store.shared.queue).flushing = true;
        gives_up(store.remove_object(&name));
        // So it would be removed twice, and pages of it behind that.
        gives_up(store.remove_object(&name));
        gives_up(open(1).map(drop));
        answer();
        assert_eq!(
            store.remove_object(&name).unwrap_err().kind,
            PagerErrorKind::NotFound
        );
        open(2).unwrap().assert_full(0, 0);
        drop(store);
        FileStore::open_on(disk, &options).unwrap();
    }
}
