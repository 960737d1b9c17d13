//! [`Object`]: the shared handle of a memory object, and what its pager may tell it.

use std::{
    sync::{
        Arc, Condvar, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use vmsync_core::{
    ByteRange, KernReturn, PageSet, PagerError, PagerErrorKind,
    object::{MemoryObject, ObjectHandle, PagerId},
    pager::{Attributes, InitRequest, LockRequest, MemoryObjectControl, ObjectId, ObjectName, Pager},
};

use super::{P, PAGE, TestPager};

static PAGERS: AtomicU64 = AtomicU64::new(1);

/// A shared memory object.
#[derive(Clone)]
pub struct Object(Arc<Shared>);

struct Shared {
    id: ObjectId,
    pager_id: PagerId,
    pager: Arc<TestPager>,
    state: Mutex<MemoryObject>,
    changed: Condvar,
    accesses: AtomicU64,
}

impl Object {
    /// An object of `pages` pages of `pager`, named `name` (one letter) in the log.
    pub fn new(pager: &Arc<TestPager>, name: char, pages: u64) -> Self {
        let attributes = Attributes {
            size: pages * P,
            version: 0,
            precious: false,
            address: None,
        };
        let shared = Arc::new(Shared {
            id: ObjectId(u64::from(u32::from(name))),
            pager_id: pager.id(),
            pager: pager.clone(),
            state: Mutex::new(MemoryObject::new(attributes, PAGE)),
            changed: Condvar::new(),
            accesses: AtomicU64::new(0),
        });
        let request = InitRequest {
            page_size: PAGE,
            size_min: pages * P,
            create: true,
            write: true,
        };
        let name = ObjectName::new(&name.to_string()).expect("a letter");
        pager
            .init(shared.id, &name, request, Arc::new(Control(shared.clone())))
            .expect("the test pager opens everything");
        Self(shared)
    }

    fn lock(&self) -> MutexGuard<'_, MemoryObject> {
        self.0.state.lock().expect("no panic while it is held")
    }

    /// What its pager answers with.
    pub fn control(&self) -> Control {
        Control(self.0.clone())
    }

    /// The pager answers for `pages`.
    pub fn complete(
        &self,
        pages: std::ops::Range<u64>,
        result: Result<(), PagerErrorKind>,
    ) -> Result<(), KernReturn> {
        let range = ByteRange::new(pages.start * P, pages.end * P);
        self.control().synchronize_completed(range, result.map_err(error))
    }

    /// How often its shared state was looked at or changed.
    pub fn accesses(&self) -> u64 {
        self.0.accesses.load(Ordering::Relaxed)
    }

    /// Pages that are known to be dirty.
    pub fn dirty(&self) -> PageSet {
        self.lock().dirty.clone()
    }

    /// Waits until something has happened since `events`; `false` when `deadline` comes first.
    pub fn wait(&self, events: u64, deadline: Instant) -> bool {
        let mut state = self.lock();
        while state.events() == events {
            let left = deadline.saturating_duration_since(Instant::now());
            if left == Duration::ZERO {
                return false;
            }
            let waited = self.0.changed.wait_timeout(state, left);
            state = waited.expect("no panic while it is held").0;
        }
        true
    }
}

/// A fresh number for a pager.
pub fn pager_id() -> PagerId {
    PagerId(PAGERS.fetch_add(1, Ordering::Relaxed) as u32)
}

/// An error of `kind`.
pub fn error(kind: PagerErrorKind) -> PagerError {
    PagerError::new(kind, "scripted")
}

impl PartialEq for Object {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl std::fmt::Debug for Object {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "object {}", self.0.id.0)
    }
}

impl ObjectHandle for Object {
    fn id(&self) -> ObjectId {
        self.0.id
    }

    fn pager_id(&self) -> PagerId {
        self.0.pager_id
    }

    fn pager(&self) -> &dyn Pager {
        &*self.0.pager
    }

    fn with<R>(&self, access: impl FnOnce(&mut MemoryObject) -> R) -> R {
        self.0.accesses.fetch_add(1, Ordering::Relaxed);
        let mut state = self.lock();
        let before = state.events();
        let result = access(&mut state);
        if state.events() != before {
            self.0.changed.notify_all();
        }
        result
    }
}

/// The runtime's side of the protocol.
pub struct Control(Arc<Shared>);

impl Control {
    fn change<R>(&self, change: impl FnOnce(&mut MemoryObject) -> R) -> R {
        Object(self.0.clone()).with(change)
    }
}

impl MemoryObjectControl for Control {
    fn synchronize_completed(
        &self,
        range: ByteRange,
        result: Result<(), PagerError>,
    ) -> Result<(), KernReturn> {
        self.change(|object| object.synchronize_completed(range, result))
    }

    fn write_behind_failed(&self, range: ByteRange, error: PagerError) {
        self.change(|object| object.write_behind_failed(range, &error));
    }

    fn lock_request(&self, request: LockRequest) -> Result<(), KernReturn> {
        self.change(|object| object.lock_request(request))
    }

    fn change_attributes(&self, attributes: Attributes) {
        self.change(|object| object.attributes = attributes);
    }

    fn destroy(&self, reason: PagerError) {
        self.change(|object| object.destroy(reason));
    }
}
