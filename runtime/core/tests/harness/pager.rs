//! [`TestPager`]: a pager that fails, hangs, queues or answers late where a test says so, and logs what it was asked.
//!
//! Invariants:
//! - a call shows in `accepted` when its last `synchronize` was answered, and in `durable` when that was synchronous;
//! - of a page that it supplied as precious it has no copy: asked again, it supplies [`LOST`];
//! - its image is as stale as the protocol allows: only `settle_image` brings it up to date;
//! - it answers while it holds no lock.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard},
};

use vmsync_core::{
    ByteRange, KernReturn, PagerError, PagerErrorKind,
    abi::VmProt,
    object::PagerId,
    pager::{
        Attributes, CallId, DataSupply, Image, InitRequest, MemoryObjectControl, ObjectId, ObjectName, Pager,
        ReturnFlags, SynchronizeFlags,
    },
};

use super::{
    P, PAGE,
    memory::Images,
    object::{error, pager_id},
};

pub use vmsync_core::model::LOST;

/// What goes wrong, until the test says otherwise.
#[derive(Default)]
pub struct Script {
    /// Runs that hold one of these pages are refused.
    pub returns_fail: BTreeMap<(ObjectId, u64), PagerErrorKind>,
    /// Requests for one of these pages are refused.
    pub supplies_fail: BTreeMap<(ObjectId, u64), PagerErrorKind>,
    /// The pager panics when it is asked for one of these pages.
    pub supplies_panic: BTreeSet<(ObjectId, u64)>,
    /// The last `synchronize` of a call is refused at once.
    pub synchronize_fails: Option<PagerErrorKind>,
    /// Completions carry the error.
    pub completion_fails: Option<PagerErrorKind>,
    /// The pager panics when it is handed one of these pages.
    pub returns_panic: BTreeSet<(ObjectId, u64)>,
    /// It panics when it is asked for the last time in a call.
    pub synchronize_panics: bool,
    /// Completions wait for [`TestPager::release`].
    pub hold: bool,
    /// What is queued is lost, and told so, when the image is next settled.
    pub settling_loses: Option<PagerErrorKind>,
    /// The same when pages are next returned.
    pub returning_loses: Option<PagerErrorKind>,
    /// The same when pages were next supplied, those that are lost among them.
    pub supplying_loses: Option<PagerErrorKind>,
    /// The object is destroyed in the midst of a `data_return`; from then on nothing is answered.
    pub destroy_in_return: bool,
    /// Pages are supplied to writers as precious.
    pub moves: BTreeSet<ObjectId>,
}

/// A pager for tests.
pub struct TestPager {
    id: PagerId,
    images: Option<Images>,
    log: Log,
    state: Mutex<State>,
}

/// What pagers were asked, in order.
pub type Log = Arc<Mutex<Vec<String>>>;

#[derive(Default)]
struct State {
    stores: BTreeMap<ObjectId, Store>,
    calls: BTreeMap<CallId, Call>,
    held: Vec<Call>,
    script: Script,
    returned: Vec<(ObjectId, u64, bool)>,
}

struct Store {
    name: String,
    control: Arc<dyn MemoryObjectControl>,
    accepted: Vec<u8>,
    durable: Vec<u8>,
    gone: BTreeSet<u64>,
}

#[derive(Default)]
struct Call {
    returns: Vec<(ObjectId, u64, Vec<u8>)>,
    asked: Vec<(ObjectId, ByteRange)>,
    synchronous: bool,
}

impl TestPager {
    /// A pager that copies its pages into memory.
    pub fn new() -> Arc<Self> {
        Self::with_images(None)
    }

    /// A pager that logs to the log of `other`.
    pub fn beside(other: &Arc<Self>) -> Arc<Self> {
        Arc::new(Self {
            id: pager_id(),
            images: None,
            log: other.log.clone(),
            state: Mutex::default(),
        })
    }

    /// A pager with images to map.
    pub fn with_images(images: Option<Images>) -> Arc<Self> {
        Arc::new(Self {
            id: pager_id(),
            images,
            log: Log::default(),
            state: Mutex::default(),
        })
    }

    /// Its number.
    pub fn id(&self) -> PagerId {
        self.id
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic while it is held")
    }

    /// Changes what goes wrong.
    pub fn script(&self, change: impl FnOnce(&mut Script)) {
        change(&mut self.lock().script);
    }

    /// What was asked since the last look.
    pub fn take_log(&self) -> Vec<String> {
        std::mem::take(&mut self.log.lock().expect("no panic while it is held"))
    }

    fn log(&self, state: &State, object: ObjectId, text: &str) {
        let line = format!("{} {text}", state.stores[&object].name);
        self.log.lock().expect("no panic while it is held").push(line);
    }

    /// A page as a crash would leave it.
    pub fn durable(&self, object: ObjectId, page: u64) -> Vec<u8> {
        self.lock().stores[&object].durable[bytes_of(page)].to_vec()
    }

    /// A page as `data_request` would supply it.
    pub fn accepted(&self, object: ObjectId, page: u64) -> Vec<u8> {
        self.lock().stores[&object].accepted[bytes_of(page)].to_vec()
    }

    /// The pages that were returned since the last look, accepted or not: object, page, whether as dirty.
    pub fn take_returned(&self) -> Vec<(ObjectId, u64, bool)> {
        std::mem::take(&mut self.lock().returned)
    }

    /// The contents change behind everybody's back.
    pub fn overwrite(&self, object: ObjectId, page: u64, byte: u8) {
        let mut state = self.lock();
        let store = state.stores.get_mut(&object).expect("an open object");
        store.accepted[bytes_of(page)].fill(byte);
        store.durable[bytes_of(page)].fill(byte);
    }

    /// Sends the completions that were held, on the caller's thread; returns what the runtime answered to each.
    pub fn release(&self) -> Vec<Result<(), KernReturn>> {
        let calls = {
            let mut state = self.lock();
            state.script.hold = false;
            std::mem::take(&mut state.held)
        };
        calls.into_iter().flat_map(|call| self.answer(call)).collect()
    }

    /// How many calls are held.
    pub fn held(&self) -> usize {
        self.lock().held.len()
    }

    /// How many calls have returned pages and were not asked to be committed.
    pub fn begun(&self) -> usize {
        self.lock().calls.len()
    }

    /// What is queued becomes durable.
    pub fn flush_queue(&self) {
        for store in self.lock().stores.values_mut() {
            store.durable.clone_from(&store.accepted);
        }
    }

    /// What is queued of `object` is lost: nothing of it shows any more, and the runtime is told.
    pub fn fail_queue(&self, object: ObjectId, kind: PagerErrorKind) {
        let (control, lost) = {
            let mut state = self.lock();
            let store = state.stores.get_mut(&object).expect("an open object");
            let pages = store.accepted.len() as u64 / P;
            let lost: Vec<u64> = (0..pages)
                .filter(|page| store.accepted[bytes_of(*page)] != store.durable[bytes_of(*page)])
                .collect();
            store.accepted.clone_from(&store.durable);
            (store.control.clone(), lost)
        };
        for page in lost {
            control.write_behind_failed(ByteRange::new(page * P, (page + 1) * P), error(kind));
        }
    }

    /// The machine stops and starts again: what is not durable is gone.
    pub fn crash(&self) {
        let mut state = self.lock();
        state.script = Script {
            moves: std::mem::take(&mut state.script.moves),
            ..Script::default()
        };
        state.calls.clear();
        state.held.clear();
        for store in state.stores.values_mut() {
            store.accepted.clone_from(&store.durable);
            store.gone.clear();
        }
    }

    /// Commits a call, or drops it, and sends its completions.
    fn answer(&self, call: Call) -> Vec<Result<(), KernReturn>> {
        let (failure, answers) = {
            let mut state = self.lock();
            let failure = state.script.completion_fails.map(error);
            if failure.is_none() {
                state.commit(&call);
            }
            let control =
                |(object, range): &(ObjectId, ByteRange)| (state.stores[object].control.clone(), *range);
            let answers: Vec<_> = call.asked.iter().map(control).collect();
            (failure, answers)
        };
        answers
            .into_iter()
            .map(|(control, range)| control.synchronize_completed(range, failure.clone().map_or(Ok(()), Err)))
            .collect()
    }
}

impl State {
    fn commit(&mut self, call: &Call) {
        for (object, page, bytes) in &call.returns {
            let store = self.stores.get_mut(object).expect("an open object");
            store.accepted[bytes_of(*page)].copy_from_slice(bytes);
            store.gone.remove(page);
        }
        if call.synchronous {
            // Stable storage for everything that was accepted before, in order.
            for (object, _) in &call.asked {
                let store = self.stores.get_mut(object).expect("an open object");
                store.durable.clone_from(&store.accepted);
            }
        }
    }
}

impl Pager for TestPager {
    fn init(
        &self,
        object: ObjectId,
        name: &ObjectName,
        request: InitRequest,
        control: Arc<dyn MemoryObjectControl>,
    ) -> Result<Attributes, PagerError> {
        let bytes = vec![0; to_usize(request.size_min)];
        if let Some(images) = &self.images {
            let mut images = images.lock().expect("no panic");
            images.entry(object.0 as i32).or_insert_with(|| bytes.clone());
        }
        let store = Store {
            name: name.to_string(),
            control: control.clone(),
            accepted: bytes.clone(),
            durable: bytes,
            gone: BTreeSet::new(),
        };
        // What was stored before a crash is still there.
        self.lock().stores.entry(object).or_insert(store).control = control;
        Ok(Attributes {
            size: request.size_min,
            version: 0,
            precious: false,
            address: None,
        })
    }

    fn data_request(
        &self,
        object: ObjectId,
        offset: u64,
        access: VmProt,
        pages: &mut [u8],
    ) -> Result<DataSupply, PagerError> {
        let mut state = self.lock();
        let range = pages_at(offset, pages);
        self.log(&state, object, &format!("request {}..{}", range.start, range.end));
        let fault = range
            .clone()
            .find_map(|page| state.script.supplies_fail.get(&(object, page)).copied());
        if let Some(kind) = fault {
            return Err(error(kind));
        }
        if range
            .clone()
            .any(|page| state.script.supplies_panic.contains(&(object, page)))
        {
            drop(state);
            panic!("as the test says");
        }
        let precious = access.contains(VmProt::WRITE) && state.script.moves.contains(&object);
        let store = state.stores.get_mut(&object).expect("an open object");
        for (page, target) in range.zip(pages.chunks_mut(to_usize(P))) {
            if store.gone.contains(&page) {
                target.fill(LOST);
            } else {
                target.copy_from_slice(&store.accepted[bytes_of(page)]);
            }
            if precious {
                store.gone.insert(page);
            }
        }
        let loses = state.script.supplying_loses.take();
        drop(state);
        if let Some(kind) = loses {
            self.fail_queue(object, kind);
        }
        Ok(DataSupply::Supplied { precious })
    }

    fn image(&self, object: ObjectId) -> Option<Image> {
        self.images.as_ref().map(|_| Image {
            descriptor: object.0 as i32,
            offset: 0,
        })
    }

    fn settle_image(&self, object: ObjectId, range: ByteRange) -> Result<(), PagerError> {
        let loses = self.lock().script.settling_loses.take();
        if let Some(kind) = loses {
            self.fail_queue(object, kind);
        }
        let state = self.lock();
        let (first, end) = (PAGE.page_of(range.start), PAGE.page_of(range.end));
        self.log(&state, object, &format!("settle {first}..{end}"));
        let fault = (first..end).find_map(|page| state.script.supplies_fail.get(&(object, page)).copied());
        if let Some(kind) = fault {
            return Err(error(kind));
        }
        let images = self
            .images
            .as_ref()
            .expect("asked for an image that it has not got");
        let mut images = images.lock().expect("no panic");
        let image = images.get_mut(&(object.0 as i32)).expect("an open object");
        for page in first..end {
            image[bytes_of(page)].copy_from_slice(&state.stores[&object].accepted[bytes_of(page)]);
        }
        Ok(())
    }

    fn data_return(
        &self,
        call: CallId,
        object: ObjectId,
        offset: u64,
        pages: &[u8],
        flags: ReturnFlags,
    ) -> Result<(), PagerError> {
        let loses = self.lock().script.returning_loses.take();
        if let Some(kind) = loses {
            self.fail_queue(object, kind);
        }
        let mut state = self.lock();
        let range = pages_at(offset, pages);
        let dirty = if flags.dirty { "dirty" } else { "clean" };
        let kept = if flags.kernel_copy { "kept" } else { "dropped" };
        self.log(
            &state,
            object,
            &format!("return {}..{} {dirty} {kept}", range.start, range.end),
        );
        state
            .returned
            .extend(range.clone().map(|page| (object, page, flags.dirty)));
        let fault = range
            .clone()
            .find_map(|page| state.script.returns_fail.get(&(object, page)).copied());
        if let Some(kind) = fault {
            return Err(error(kind));
        }
        let panics = range
            .clone()
            .any(|page| state.script.returns_panic.contains(&(object, page)));
        if panics {
            drop(state);
            panic!("as the test says");
        }
        let returns = &mut state.calls.entry(call).or_default().returns;
        for (page, bytes) in range.zip(pages.chunks(to_usize(P))) {
            returns.push((object, page, bytes.to_vec()));
        }
        if state.script.destroy_in_return {
            state.script.hold = true;
            let control = state.stores[&object].control.clone();
            drop(state);
            control.destroy(error(PagerErrorKind::Gone));
        }
        Ok(())
    }

    fn synchronize(
        &self,
        call: CallId,
        object: ObjectId,
        range: ByteRange,
        flags: SynchronizeFlags,
    ) -> Result<(), PagerError> {
        let entry = {
            let mut state = self.lock();
            let (first, end) = (PAGE.page_of(range.start), PAGE.page_of(range.end));
            let when = if flags.synchronous { "now" } else { "later" };
            let more = if flags.more { " more" } else { "" };
            self.log(&state, object, &format!("sync {first}..{end} {when}{more}"));
            let entry = state.calls.entry(call).or_default();
            entry.asked.push((object, range));
            entry.synchronous = flags.synchronous;
            if flags.more {
                return Ok(());
            }
            if state.script.synchronize_panics {
                drop(state);
                panic!("as the test says");
            }
            let entry = state.calls.remove(&call).expect("inserted above");
            if let Some(kind) = state.script.synchronize_fails {
                state.calls.insert(call, entry);
                return Err(error(kind));
            }
            if state.script.hold {
                state.held.push(entry);
                return Ok(());
            }
            entry
        };
        for answer in self.answer(entry) {
            assert_eq!(answer, Ok(()), "the runtime asked for this completion");
        }
        Ok(())
    }

    fn abort(&self, call: CallId) {
        self.log
            .lock()
            .expect("no panic while it is held")
            .push("abort".into());
        self.lock().calls.remove(&call);
    }

    fn terminate(&self, object: ObjectId) {
        self.log(&self.lock(), object, "terminate");
    }

    fn attributes(&self, _object: ObjectId) -> Result<Attributes, PagerError> {
        Err(error(PagerErrorKind::Unsupported))
    }
}

fn bytes_of(page: u64) -> std::ops::Range<usize> {
    to_usize(page * P)..to_usize((page + 1) * P)
}

fn pages_at(offset: u64, pages: &[u8]) -> std::ops::Range<u64> {
    assert!(PAGE.is_aligned(offset) && PAGE.is_aligned(pages.len() as u64));
    PAGE.page_of(offset)..PAGE.page_of(offset + pages.len() as u64)
}

fn to_usize(number: u64) -> usize {
    usize::try_from(number).expect("a test's object")
}
