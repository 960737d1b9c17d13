//! [`Cache`]: a local store in front of a remote one. Pages that were read or written once come from the local one,
//! also after a restart.
//!
//! ```text
//!   runtime --> Cache --calls, pages that are not here--> remote: what is durable, and when, is what it says
//!                 '-- Cached, for each object
//!                       |-- Ledger   pages that calls on their way have touched       [cache/ledger.rs]
//!                       '-- Shelf    the copy, in an object of the local store        [cache/shelf.rs]
//! ```
//!
//! Write-through: a call completes when the remote store has completed it, and costs what it costs there. The local store
//! is written behind that and may be lost, damaged or removed at any time.
//!
//! Invariants:
//! - the copy carries the version of the object that it is of. Where the remote store has another one, another host has
//!   changed the object, or this one ended between the two stores: then nothing of the copy is used;
//! - who reads the object and opened it before such a change has pages of the version before: it leaves the copy alone;
//! - a page that a call on its way has touched comes from the remote store, also where the object was closed and opened
//!   again meanwhile;
//! - the copy moves to a new version in one call of the local store, with every page that calls have touched since, and
//!   says what was written before, so that a call that is lost there is noticed;
//! - a local failure fails no call: the object goes on without its copy.
//!
//! Non-goals: write-back (a call that only one machine has is lost with it), a limit of size: the copy grows to the
//! size of what is used of its object.

mod ledger;
mod shelf;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak},
};

use vmsync_core::{
    ByteRange, KernReturn, PageSize, PagerError,
    abi::VmProt,
    pager::{
        Attributes, CallId, DataSupply, InitRequest, LockRequest, MemoryObjectControl, ObjectId, ObjectName,
        Pager, ReturnFlags, SynchronizeFlags,
    },
};

use ledger::Ledger;
use shelf::Shelf;

/// See the head of this file.
pub struct Cache {
    remote: Arc<dyn Pager>,
    local: Arc<dyn Pager>,
    source: String,
    objects: Mutex<Objects>,
}

#[derive(Default)]
struct Objects {
    opened: HashMap<ObjectId, Opened>,
    /// Those that are open, and those that calls have touched of which nobody knows what became.
    named: HashMap<ObjectName, Arc<Cached>>,
}

impl Objects {
    fn is_open(&self, cached: &Arc<Cached>) -> bool {
        self.opened
            .values()
            .any(|opened| Arc::ptr_eq(&opened.cached, cached))
    }
}

/// An opening of an object.
#[derive(Clone)]
struct Opened {
    cached: Arc<Cached>,
    /// The copy's at that moment. Whoever writes has the newest of everything.
    edition: Option<u64>,
}

impl Opened {
    fn may_use(&self, state: &State) -> bool {
        self.edition.is_none_or(|edition| edition == state.edition)
    }
}

/// One object, however often it is open.
struct Cached {
    name: ObjectName,
    page_size: PageSize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    ledger: Ledger,
    /// While the object is open.
    shelf: Option<Shelf>,
    /// How often the copy was begun anew, for another version than it was of.
    edition: u64,
}

impl Cached {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Where something panicked between two changes, the copy's version is still the old one.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first of whole pages, and how many.
    fn pages(&self, offset: u64, length: usize) -> Option<(u64, u64)> {
        let length = length as u64;
        let whole = self.page_size.is_aligned(offset) && self.page_size.is_aligned(length);
        whole.then(|| (self.page_size.page_of(offset), self.page_size.page_of(length)))
    }
}

impl Cache {
    /// A pager for the objects of `remote` that keeps copies in `local`, a store of its own.
    ///
    /// `source` tells `remote` from other stores, as its URL does: copies of another source are not used.
    pub fn over(remote: Arc<dyn Pager>, local: Arc<dyn Pager>, source: &str) -> Self {
        Self {
            remote,
            local,
            source: source.to_owned(),
            objects: Mutex::default(),
        }
    }

    fn objects(&self) -> MutexGuard<'_, Objects> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn opened(&self, object: ObjectId) -> Option<Opened> {
        self.objects().opened.get(&object).cloned()
    }

    fn cached(&self, object: ObjectId) -> Option<Arc<Cached>> {
        self.opened(object).map(|opened| opened.cached)
    }

    /// The object's copy, which has to be of `attributes.version`.
    fn open(
        &self,
        object: ObjectId,
        name: &ObjectName,
        request: InitRequest,
        attributes: &Attributes,
    ) -> Arc<Cached> {
        let page_size = request.page_size;
        let mut objects = self.objects();
        let cached = objects.named.entry(name.clone()).or_insert_with(|| {
            Arc::new(Cached {
                name: name.clone(),
                page_size,
                state: Mutex::default(),
            })
        });
        let cached = cached.clone();
        let edition = {
            let State {
                ledger,
                shelf,
                edition,
            } = &mut *cached.lock();
            ledger.moved_on();
            let shelf = shelf.get_or_insert_with(|| {
                Shelf::open(self.local.clone(), object, name, page_size, &self.source)
            });
            shelf.fit(attributes.size);
            *edition += u64::from(shelf.require_version(attributes.version));
            *edition
        };
        let opened = Opened {
            cached: cached.clone(),
            edition: (!request.write).then_some(edition),
        };
        objects.opened.insert(object, opened);
        cached
    }
}

/// The runtime's side for the remote store: sees what becomes of calls.
struct Watch {
    above: Arc<dyn MemoryObjectControl>,
    object: ObjectId,
    /// It keeps this watch.
    remote: Weak<dyn Pager>,
    cached: OnceLock<Arc<Cached>>,
}

impl Watch {
    /// Moves the copy on when nothing is on its way any more.
    fn settle(&self, result: &Result<(), PagerError>) {
        let Some(cached) = self.cached.get() else { return };
        // An older version than that of the pages is safe: the copy is not used then.
        let remote = self.remote.upgrade();
        let version = remote.and_then(|remote| remote.attributes(self.object).ok());
        let mut state = cached.lock();
        let touched = state.ledger.completed(result.is_ok());
        let (Some(touched), Some(shelf)) = (touched, &mut state.shelf) else {
            return;
        };
        match version {
            Some(attributes) => shelf.settle(touched, attributes.version),
            None => shelf.give_up(),
        }
    }
}

impl MemoryObjectControl for Watch {
    fn synchronize_completed(
        &self,
        range: ByteRange,
        result: Result<(), PagerError>,
    ) -> Result<(), KernReturn> {
        self.settle(&result);
        self.above.synchronize_completed(range, result)
    }

    fn write_behind_failed(&self, range: ByteRange, error: PagerError) {
        self.above.write_behind_failed(range, error);
    }

    fn lock_request(&self, request: LockRequest) -> Result<(), KernReturn> {
        self.above.lock_request(request)
    }

    fn change_attributes(&self, attributes: Attributes) {
        self.above.change_attributes(attributes);
    }

    fn destroy(&self, reason: PagerError) {
        self.above.destroy(reason);
    }
}

impl Pager for Cache {
    fn init(
        &self,
        object: ObjectId,
        name: &ObjectName,
        request: InitRequest,
        control: Arc<dyn MemoryObjectControl>,
    ) -> Result<Attributes, PagerError> {
        let watch = Arc::new(Watch {
            above: control,
            object,
            remote: Arc::downgrade(&self.remote),
            cached: OnceLock::new(),
        });
        let attributes = self.remote.init(object, name, request, watch.clone())?;
        let cached = self.open(object, name, request, &attributes);
        let _ = watch.cached.set(cached);
        Ok(attributes)
    }

    fn data_request(
        &self,
        object: ObjectId,
        offset: u64,
        access: VmProt,
        pages: &mut [u8],
    ) -> Result<DataSupply, PagerError> {
        let opened = self.opened(object);
        let found = opened.and_then(|opened| Some((opened.cached.pages(offset, pages.len())?, opened)));
        let Some(((first, count), opened)) = found else {
            return self.remote.data_request(object, offset, access, pages);
        };
        let usable = |state: &State| opened.may_use(state) && !state.ledger.has_touched(first, count);
        let generation = {
            let mut state = opened.cached.lock();
            if usable(&state)
                && let Some(shelf) = &mut state.shelf
                && shelf.read(first, pages)
            {
                return Ok(DataSupply::Supplied { precious: false });
            }
            state.ledger.generation()
        };
        let supply = self.remote.data_request(object, offset, access, pages)?;
        let mut state = opened.cached.lock();
        if usable(&state)
            && state.ledger.generation() == generation
            && let (Some(shelf), DataSupply::Supplied { precious: false }) = (&mut state.shelf, supply)
        {
            shelf.keep(first, pages);
        }
        Ok(supply)
    }

    fn data_return(
        &self,
        call: CallId,
        object: ObjectId,
        offset: u64,
        pages: &[u8],
        flags: ReturnFlags,
    ) -> Result<(), PagerError> {
        let cached = self.cached(object);
        let found = cached.and_then(|cached| Some((cached.pages(offset, pages.len())?, cached)));
        let Some(((first, _), cached)) = found else {
            return self.remote.data_return(call, object, offset, pages, flags);
        };
        let page_bytes = cached.page_size.bytes() as usize;
        cached.lock().ledger.returned(call, first, pages, page_bytes);
        let returned = self.remote.data_return(call, object, offset, pages, flags);
        if returned.is_err() {
            cached.lock().ledger.refused(call);
        }
        returned
    }

    fn synchronize(
        &self,
        call: CallId,
        object: ObjectId,
        range: ByteRange,
        flags: SynchronizeFlags,
    ) -> Result<(), PagerError> {
        let cached = self.cached(object);
        if let Some(cached) = &cached {
            cached.lock().ledger.requested(call);
        }
        let mut handed_over = Vec::new();
        if !flags.more {
            let named: Vec<_> = self.objects().named.values().cloned().collect();
            for cached in named {
                let open = cached.lock().ledger.handed_over(call, flags.synchronous);
                handed_over.extend(open.map(|open| (cached, open)));
            }
        }
        let asked = self.remote.synchronize(call, object, range, flags);
        if asked.is_err() {
            for (cached, open) in handed_over {
                cached.lock().ledger.taken_back(call, open);
            }
            if let Some(cached) = cached {
                cached.lock().ledger.request_refused(call);
            }
        }
        asked
    }

    fn abort(&self, call: CallId) {
        self.remote.abort(call);
        for cached in self.objects().named.values() {
            cached.lock().ledger.aborted(call);
        }
    }

    fn map(&self, object: ObjectId, address: u64, access: VmProt) {
        self.remote.map(object, address, access);
    }

    fn last_unmap(&self, object: ObjectId) {
        self.remote.last_unmap(object);
    }

    fn terminate(&self, object: ObjectId) {
        self.remote.terminate(object);
        let mut objects = self.objects();
        let Some(closed) = objects.opened.remove(&object) else {
            return;
        };
        let closed = closed.cached;
        if objects.is_open(&closed) {
            return;
        }
        let mut state = closed.lock();
        let settled = state.ledger.closed();
        if let Some(mut shelf) = state.shelf.take() {
            // What becomes of pages that were touched may not be told while the copy is there.
            if !settled {
                shelf.give_up();
            }
            shelf.close();
        }
        if settled {
            objects.named.remove(&closed.name);
        }
    }

    fn grow(&self, object: ObjectId, size: u64) -> Result<Attributes, PagerError> {
        let attributes = self.remote.grow(object, size)?;
        if let Some(cached) = self.cached(object)
            && let Some(shelf) = &mut cached.lock().shelf
        {
            shelf.fit(attributes.size);
        }
        Ok(attributes)
    }

    fn attributes(&self, object: ObjectId) -> Result<Attributes, PagerError> {
        self.remote.attributes(object)
    }
}
