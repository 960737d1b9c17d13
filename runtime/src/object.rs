//! [`SharedObject`]: a memory object as the threads of a host share it, and the pager's way back to it.
//!
//! Invariants:
//! - no lock is held while a pager is called;
//! - whoever waits looks at [`MemoryObject::events`] under the lock, so that no completion slips by;
//! - each that waits is told, whatever becomes of the others;
//! - when the last task lets go, the pager is told (`last_unmap`, `terminate`), once.

use std::{
    mem,
    sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak},
    task::Waker,
    time::Instant,
};

use vmsync_core::{
    ByteRange, KernReturn, PagerError,
    object::{MemoryObject, ObjectHandle, PagerId},
    pager::{Attributes, InitRequest, LockRequest, MemoryObjectControl, ObjectId, ObjectName, Pager},
};

use crate::{host::Slot, wake::wake_all};

/// One memory object of a host.
pub(crate) struct SharedObject {
    pager: Arc<dyn Pager>,
    cell: Arc<Cell>,
    pub write: bool,
    /// Last: given back when the pager has let go of the object.
    slot: Slot,
}

/// What threads and the pager share of it.
struct Cell {
    id: ObjectId,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    object: MemoryObject,
    /// Threads that wait for an event: without any, telling of one takes no system call.
    waiting: usize,
    /// Tasks that do.
    wakers: Vec<Waker>,
}

/// A task's handle of a [`SharedObject`]; equality is identity.
#[derive(Clone)]
pub(crate) struct Object(pub Arc<SharedObject>);

/// What a pager holds of an object: a weak handle, so that a pager never keeps an object alive; and not of all of it, so
/// that a thread of the pager which answers just then is never the one that lets go of the pager.
struct Control(OnceLock<Weak<Cell>>);

impl SharedObject {
    /// Asks `pager` for the object.
    pub fn open(
        id: ObjectId,
        slot: Slot,
        pager: Arc<dyn Pager>,
        name: &ObjectName,
        request: InitRequest,
    ) -> Result<Arc<Self>, PagerError> {
        let control = Arc::new(Control(OnceLock::new()));
        let attributes = pager.init(id, name, request, control.clone())?;
        if let Err(error) = attributes.check(request.page_size) {
            pager.terminate(id);
            return Err(error);
        }
        let cell = Arc::new(Cell {
            id,
            state: Mutex::new(State {
                object: MemoryObject::new(attributes, request.page_size),
                waiting: 0,
                wakers: Vec::new(),
            }),
            changed: Condvar::new(),
        });
        // The control is new: nobody else can have set it.
        let _ = control.0.set(Arc::downgrade(&cell));
        Ok(Arc::new(Self {
            pager,
            cell,
            write: request.write,
            slot,
        }))
    }

    /// Waits until something happened since `events`; `false` when `deadline` comes first.
    pub fn wait(&self, events: u64, deadline: Instant) -> bool {
        self.cell.wait(events, deadline)
    }

    /// Has `waker` woken by the next event; `false` where there was one since `events`.
    pub fn wake_after(&self, events: u64, waker: &Waker) -> bool {
        self.cell.wake_after(events, waker)
    }

    /// Makes the object at least `size` bytes large.
    pub fn grow(&self, size: u64) -> Result<(), PagerError> {
        let attributes = self.pager.grow(self.cell.id, size)?;
        self.cell.with(|object| object.change_attributes(attributes));
        Ok(())
    }

    /// The attributes as the pager has them now.
    pub fn refresh_attributes(&self) -> Result<Attributes, PagerError> {
        let attributes = self.pager.attributes(self.cell.id)?;
        self.cell.with(|object| object.change_attributes(attributes));
        Ok(attributes)
    }
}

impl Cell {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<R>(&self, access: impl FnOnce(&mut MemoryObject) -> R) -> R {
        let mut state = self.lock();
        let before = state.object.events();
        let result = access(&mut state.object);
        if state.object.events() == before {
            return result;
        }
        let (waiting, wakers) = (state.waiting, mem::take(&mut state.wakers));
        drop(state);
        if waiting > 0 {
            self.changed.notify_all();
        }
        wake_all(wakers);
        result
    }

    fn wake_after(&self, events: u64, waker: &Waker) -> bool {
        let mut state = self.lock();
        let waits = state.object.events() == events;
        if waits && !state.wakers.iter().any(|known| known.will_wake(waker)) {
            state.wakers.push(waker.clone());
        }
        waits
    }

    fn wait(&self, events: u64, deadline: Instant) -> bool {
        let mut state = self.lock();
        state.waiting += 1;
        while state.object.events() == events {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = self
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        state.waiting -= 1;
        state.object.events() != events
    }
}

impl Drop for SharedObject {
    fn drop(&mut self) {
        self.pager.last_unmap(self.cell.id);
        self.pager.terminate(self.cell.id);
    }
}

impl PartialEq for Object {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl std::fmt::Debug for Object {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Object({})", self.0.cell.id.0)
    }
}

impl ObjectHandle for Object {
    fn id(&self) -> ObjectId {
        self.0.cell.id
    }

    fn pager_id(&self) -> PagerId {
        self.0.slot.pager_id()
    }

    fn pager(&self) -> &dyn Pager {
        &*self.0.pager
    }

    fn with<R>(&self, access: impl FnOnce(&mut MemoryObject) -> R) -> R {
        self.0.cell.with(access)
    }
}

impl Control {
    fn cell(&self) -> Option<Arc<Cell>> {
        self.0.get().and_then(Weak::upgrade)
    }
}

impl MemoryObjectControl for Control {
    fn synchronize_completed(
        &self,
        range: ByteRange,
        result: Result<(), PagerError>,
    ) -> Result<(), KernReturn> {
        let cell = self.cell().ok_or(KernReturn::InvalidArgument)?;
        cell.with(|object| object.synchronize_completed(range, result))
    }

    fn write_behind_failed(&self, range: ByteRange, error: PagerError) {
        if let Some(cell) = self.cell() {
            tracing::warn!(object = cell.id.0, %range, %error, "write-back failed");
            cell.with(|object| object.write_behind_failed(range, &error));
        }
    }

    fn lock_request(&self, request: LockRequest) -> Result<(), KernReturn> {
        let cell = self.cell().ok_or(KernReturn::InvalidArgument)?;
        cell.with(|object| object.lock_request(request))
    }

    fn change_attributes(&self, attributes: Attributes) {
        if let Some(cell) = self.cell() {
            cell.with(|object| object.change_attributes(attributes));
        }
    }

    fn destroy(&self, reason: PagerError) {
        if let Some(cell) = self.cell() {
            tracing::warn!(object = cell.id.0, error = %reason, "memory object destroyed");
            cell.with(|object| object.destroy(reason));
        }
    }
}
