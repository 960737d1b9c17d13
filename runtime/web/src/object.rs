//! [`SharedObject`]: a memory object as the guests of one host share it, and the pager's way back to it.
//!
//! Invariants:
//! - a pager may answer from inside any call to it: no lock is held while one is made;
//! - when the last task lets go, the pager is told (`last_unmap`, `terminate`), once.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use vmsync_core::{
    ByteRange, KernReturn, PagerError,
    object::{MemoryObject, ObjectHandle, PagerId},
    pager::{Attributes, InitRequest, LockRequest, MemoryObjectControl, ObjectId, ObjectName, Pager},
};

/// One memory object of a host.
pub(crate) struct SharedObject {
    id: ObjectId,
    pager: Arc<dyn Pager>,
    state: Mutex<MemoryObject>,
    pub write: bool,
}

/// A task's handle of a [`SharedObject`]; equality is identity.
#[derive(Clone)]
pub(crate) struct Object(pub Arc<SharedObject>);

/// What a pager holds of an object: a weak handle, so that a pager never keeps an object alive.
struct Control(OnceLock<Weak<SharedObject>>);

impl SharedObject {
    /// Asks `pager` for the object.
    pub fn open(
        id: ObjectId,
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
        let object = Arc::new(Self {
            id,
            pager,
            state: Mutex::new(MemoryObject::new(attributes, request.page_size)),
            write: request.write,
        });
        // The cell is new: nobody else can have set it.
        let _ = control.0.set(Arc::downgrade(&object));
        Ok(object)
    }

    fn lock(&self) -> MutexGuard<'_, MemoryObject> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The attributes as the pager has them now.
    pub fn refresh_attributes(&self) -> Result<Attributes, PagerError> {
        let attributes = self.pager.attributes(self.id)?;
        self.lock().change_attributes(attributes);
        Ok(attributes)
    }
}

impl Drop for SharedObject {
    fn drop(&mut self) {
        self.pager.last_unmap(self.id);
        self.pager.terminate(self.id);
    }
}

impl PartialEq for Object {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl ObjectHandle for Object {
    fn id(&self) -> ObjectId {
        self.0.id
    }

    fn pager_id(&self) -> PagerId {
        // A host has one store.
        PagerId(0)
    }

    fn pager(&self) -> &dyn Pager {
        &*self.0.pager
    }

    fn with<R>(&self, access: impl FnOnce(&mut MemoryObject) -> R) -> R {
        access(&mut self.0.lock())
    }
}

impl Control {
    fn with<R>(&self, access: impl FnOnce(&mut MemoryObject) -> R) -> Option<R> {
        let object = self.0.get().and_then(Weak::upgrade)?;
        Some(access(&mut object.lock()))
    }
}

impl MemoryObjectControl for Control {
    fn synchronize_completed(
        &self,
        range: ByteRange,
        result: Result<(), PagerError>,
    ) -> Result<(), KernReturn> {
        self.with(|object| object.synchronize_completed(range, result))
            .unwrap_or(Err(KernReturn::InvalidArgument))
    }

    fn write_behind_failed(&self, range: ByteRange, error: PagerError) {
        self.with(|object| object.write_behind_failed(range, &error));
    }

    fn lock_request(&self, request: LockRequest) -> Result<(), KernReturn> {
        self.with(|object| object.lock_request(request))
            .unwrap_or(Err(KernReturn::InvalidArgument))
    }

    fn change_attributes(&self, attributes: Attributes) {
        self.with(|object| object.change_attributes(attributes));
    }

    fn destroy(&self, reason: PagerError) {
        self.with(|object| object.destroy(reason));
    }
}
