//! [`Host`]: what the guests of one process share: their memories, their objects, and the settings for waiting and
//! tracking.
//!
//! Invariants:
//! - an object has one [`SharedObject`] per host, however many guests have it open;
//! - a pager is asked for an object by one guest at a time, and only when it has let go of it before;
//! - no lock is held while a pager is called: one that is slow keeps nobody from the objects of others.

use std::{
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use indexmap::IndexMap;
use vmsync_core::{
    PagerError, PagerErrorKind,
    object::PagerId,
    page::PageSize,
    pager::{CallId, InitRequest, ObjectId, ObjectName, Pager},
    tracker::TrackerKind,
};

use crate::{
    clock::Clock,
    limits::{PAGER_TIME_OUT, PAGER_TIME_OUT_MAX},
    memory::Reservations,
    object::{Object, SharedObject},
};

/// How guests are tracked and how long they wait.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct HostOptions {
    /// The rung of the ladder; `None`: the best that [`crate::probe`] finds.
    pub tracker: Option<TrackerKind>,
    /// How long a call waits for a pager before it answers `ABORTED`.
    pub pager_time_out: Duration,
    /// The VM's page: 4 KiB, or the host's page where that is larger (16 KiB on Apple's processors), as the rungs that
    /// use the MMU need a multiple of it. A store keeps the one it was made with.
    pub page_size: PageSize,
}

impl Default for HostOptions {
    fn default() -> Self {
        Self {
            tracker: None,
            pager_time_out: PAGER_TIME_OUT,
            page_size: PageSize::new(rustix::param::page_size() as u64).unwrap_or(PageSize::KIB_4),
        }
    }
}

/// The shared part of all guests of a process. Cheap to clone.
///
/// Make it before the first Wasmtime `Engine` of the process, so that accesses of the *host* to memory that a guest
/// has given up or protected (a WASI call with such an address) find vmsync's signal handler behind Wasmtime's.
#[derive(Clone)]
pub struct Host {
    shared: Arc<Shared>,
}

struct Shared {
    options: HostOptions,
    tracker: TrackerKind,
    reservations: Arc<Reservations>,
    objects: Arc<Objects>,
    clock: Clock,
}

/// The numbers of objects and calls, counted for the process: hosts may share a pager, which tells them apart by
/// these.
static OBJECTS: AtomicU64 = AtomicU64::new(0);
static CALLS: AtomicU64 = AtomicU64::new(0);

type Key = (PagerId, ObjectName);

#[derive(Default)]
struct Objects {
    known: Mutex<Known>,
    /// An object is open, or closed.
    changed: Condvar,
}

#[derive(Default)]
struct Known {
    /// Those that are still there: a host keeps no store open.
    pagers: Vec<(PagerId, Weak<dyn Pager>)>,
    pager_next: u32,
    /// One that a pager is just opening or closing has its slot, too, and nobody in it.
    slots: IndexMap<Key, Weak<SharedObject>>,
}

/// An object's place among those of its host: held by whoever opens it, then by the object, until its pager has let go of
/// it.
pub(crate) struct Slot {
    objects: Arc<Objects>,
    key: Key,
}

impl Default for Host {
    fn default() -> Self {
        Self::new(HostOptions::default())
    }
}

impl Host {
    /// A host with `options`.
    pub fn new(options: HostOptions) -> Self {
        vmsync_tracker::guard_host_accesses();
        let tracker = options.tracker.unwrap_or_else(vmsync_tracker::best);
        let shared = Shared {
            clock: Clock::new(options.pager_time_out),
            options,
            tracker,
            reservations: Arc::default(),
            objects: Arc::default(),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Lets `config`'s engine take its linear memories from this host.
    pub fn configure<'a>(&self, config: &'a mut wasmtime::Config) -> &'a mut wasmtime::Config {
        config
            .with_host_memory(self.shared.reservations.clone())
            // A creator of its own and copy-on-write data segments exclude each other in Wasmtime.
            .memory_init_cow(false)
            // A Mach port would see a store to a watched page before the `mprotect` rung's signal handler does, and
            // make a trap of it. No effect on other systems.
            .macos_use_mach_ports(false)
            .wasm_multi_memory(true)
            .wasm_memory64(true)
            .wasm_branch_hinting(true)
    }

    /// The rung that guests of this host are tracked with.
    pub fn tracker(&self) -> TrackerKind {
        self.shared.tracker
    }

    /// The settings.
    pub fn options(&self) -> &HostOptions {
        &self.shared.options
    }

    pub(crate) fn reservations(&self) -> &Reservations {
        &self.shared.reservations
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.shared.clock
    }

    pub(crate) fn next_call(&self) -> CallId {
        CallId(CALLS.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// The object `name` of `pager`, opened if no guest has it open yet.
    pub(crate) fn open_object(
        &self,
        pager: &Arc<dyn Pager>,
        name: &ObjectName,
        request: InitRequest,
    ) -> Result<Object, PagerError> {
        let slot = match self.take_slot(pager, name)? {
            Taken::Slot(slot) => slot,
            Taken::Object(object) => return reuse(object, name, request),
        };
        let (objects, key) = (self.shared.objects.clone(), slot.key.clone());
        let id = ObjectId(OBJECTS.fetch_add(1, Ordering::Relaxed) + 1);
        let object = SharedObject::open(id, slot, pager.clone(), name, request)?;
        objects.lock().slots.insert(key, Arc::downgrade(&object));
        objects.changed.notify_all();
        Ok(Object(object))
    }

    /// The slot of `name`, or who is in it. Waits while the pager is opening or closing the object for another guest.
    fn take_slot(&self, pager: &Arc<dyn Pager>, name: &ObjectName) -> Result<Taken, PagerError> {
        let deadline = Instant::now() + self.shared.options.pager_time_out.min(PAGER_TIME_OUT_MAX);
        let objects = &self.shared.objects;
        let mut known = objects.lock();
        let key = (known.pager_id(pager), name.clone());
        while let Some(object) = known.slots.get(&key) {
            if let Some(object) = object.upgrade() {
                return Ok(Taken::Object(object));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let message =
                    format!("object \"{name}\" is still being opened or closed in this process: retry");
                return Err(PagerError::new(PagerErrorKind::TimedOut, message));
            }
            let waited = objects.changed.wait_timeout(known, left);
            known = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        known.slots.insert(key.clone(), Weak::new());
        let objects = objects.clone();
        Ok(Taken::Slot(Slot { objects, key }))
    }
}

enum Taken {
    Slot(Slot),
    Object(Arc<SharedObject>),
}

/// Whether an object that another guest opened serves `request` as well.
fn reuse(object: Arc<SharedObject>, name: &ObjectName, request: InitRequest) -> Result<Object, PagerError> {
    if request.write && !object.write {
        let message =
            format!("object \"{name}\" is open in this process for reading only: close it there first");
        return Err(PagerError::new(PagerErrorKind::Busy, message));
    }
    let attributes = object.refresh_attributes()?;
    if request.size_min > attributes.size {
        object.grow(request.size_min)?;
    }
    Ok(Object(object))
}

impl Objects {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    pub fn pager_id(&self) -> PagerId {
        self.key.0
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.objects.lock().slots.swap_remove(&self.key);
        self.objects.changed.notify_all();
    }
}

impl Known {
    fn pager_id(&mut self, pager: &Arc<dyn Pager>) -> PagerId {
        self.pagers.retain(|(_, other)| other.strong_count() > 0);
        // What is there has a place of its own.
        let is_same = |other: &Weak<dyn Pager>| Weak::as_ptr(other).addr() == Arc::as_ptr(pager).addr();
        if let Some((id, _)) = self.pagers.iter().find(|(_, other)| is_same(other)) {
            return *id;
        }
        let id = PagerId(self.pager_next);
        self.pager_next = self.pager_next.checked_add(1).expect("fewer than 2^32 pagers");
        self.pagers.push((id, Arc::downgrade(pager)));
        id
    }
}
