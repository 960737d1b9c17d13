//! [`Task`]: one guest's view of some objects: resident pages, and a call of `vm_msync` that it is in the middle of.
//!
//! ```text
//!   Task --- Open (an object that it writes) --- Resident pages, dirty or not
//!     '----- Call: pages captured, returned one by one, then one synchronize per object
//!   store --> Ear: completions and late failures
//! ```
//!
//! A task has no thread: the life gives it one turn after the other, and one turn sends one message.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use vmsync_core::{
    ByteRange, KernReturn, PagerError,
    pager::{Attributes, CallId, LockRequest, MemoryObjectControl, ObjectId},
};

/// What the store told about one object.
#[derive(Default)]
pub struct Ear(Mutex<Heard>);

/// What was told and not asked for yet.
#[derive(Default)]
pub struct Heard {
    /// Completions.
    pub completed: Vec<(ByteRange, Result<(), PagerError>)>,
    /// Queued calls that failed later.
    pub late: usize,
}

impl Ear {
    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what was told.
    pub fn take(&self) -> Heard {
        std::mem::take(&mut self.heard())
    }

    /// Takes the completions.
    pub fn take_completed(&self) -> Vec<(ByteRange, Result<(), PagerError>)> {
        std::mem::take(&mut self.heard().completed)
    }

    /// Takes the number of late failures.
    pub fn take_late(&self) -> usize {
        std::mem::take(&mut self.heard().late)
    }
}

impl MemoryObjectControl for Ear {
    fn synchronize_completed(
        &self,
        range: ByteRange,
        result: Result<(), PagerError>,
    ) -> Result<(), KernReturn> {
        self.heard().completed.push((range, result));
        Ok(())
    }

    fn write_behind_failed(&self, _range: ByteRange, _error: PagerError) {
        self.heard().late += 1;
    }

    fn lock_request(&self, _request: LockRequest) -> Result<(), KernReturn> {
        Ok(())
    }

    fn change_attributes(&self, _attributes: Attributes) {}

    fn destroy(&self, _reason: PagerError) {}
}

/// A page in the memory of a task.
pub struct Resident {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Whether they were changed since they were last returned.
    pub dirty: bool,
}

/// An object that a task has open for writing.
pub struct Open {
    /// Its number in the protocol.
    pub object: ObjectId,
    /// What the store told.
    pub ear: Arc<Ear>,
    /// Where it is mapped.
    pub address: Option<u64>,
    /// Pages in memory.
    pub resident: BTreeMap<usize, Resident>,
}

/// A call of `vm_msync` on its way.
pub struct Call {
    /// Its number in the protocol.
    pub id: CallId,
    /// SYNC; else ASYNC.
    pub synchronous: bool,
    /// INVALIDATE: the pages go when it is done.
    pub invalidate: bool,
    /// Object, page and bytes, as they were when the call captured them.
    pub pages: Vec<(String, usize, Vec<u8>)>,
    /// How many of them were returned.
    pub returned: usize,
    /// How many operations of the disk had failed when the call began.
    pub failed: u64,
    /// Where objects were mapped when pages of them were returned last.
    pub addresses: BTreeMap<String, u64>,
    /// The objects to synchronize, and how many were.
    pub objects: Vec<String>,
    /// How many of them were synchronized.
    pub synchronized: usize,
}

/// A guest.
#[derive(Default)]
pub struct Task {
    /// What it has open.
    pub open: BTreeMap<String, Open>,
    /// What it is in the middle of.
    pub call: Option<Call>,
}

impl Task {
    /// Captures the dirty pages of a call: they are clean from here on, and a later store marks them again.
    pub fn capture(&mut self, mut chosen: impl FnMut() -> bool) -> Vec<(String, usize, Vec<u8>)> {
        let mut pages = Vec::new();
        for (name, open) in &mut self.open {
            for (page, resident) in &mut open.resident {
                if resident.dirty && chosen() {
                    resident.dirty = false;
                    pages.push((name.clone(), *page, resident.bytes.clone()));
                }
            }
        }
        pages
    }

    /// Pages of `name` were returned: the call commits where it is mapped.
    pub fn note_address(&self, call: &mut Call, name: &str) {
        if let Some(address) = self.open.get(name).and_then(|open| open.address) {
            call.addresses.insert(name.into(), address);
        }
    }

    /// Pages of a call that came to nothing are dirty again.
    pub fn mark_dirty(&mut self, pages: &[(String, usize, Vec<u8>)]) {
        for (name, page, _) in pages {
            if let Some(resident) = self
                .open
                .get_mut(name)
                .and_then(|open| open.resident.get_mut(page))
            {
                resident.dirty = true;
            }
        }
    }

    /// What INVALIDATE does behind a call: clean pages go.
    pub fn invalidate(&mut self, pages: &[(String, usize, Vec<u8>)]) {
        for (name, page, _) in pages {
            if let Some(open) = self.open.get_mut(name)
                && open.resident.get(page).is_some_and(|resident| !resident.dirty)
            {
                open.resident.remove(page);
            }
        }
    }
}
