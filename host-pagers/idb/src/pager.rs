//! [`IdbPager`]: the protocol over the mirror and the database.
//!
//! Invariants:
//! - what a call returned stays with its call until its last `synchronize`;
//! - answers are sent while no lock is held;
//! - one transaction is under way at a time, of all calls that came during the one before it; where it fails, every call behind it
//!   fails: a call does not return again what its guest took for safe. That an object was made or has grown is no guest's call:
//!   the next transaction has it again;
//! - one opener at a time writes an object.

use std::{
    cell::RefCell,
    collections::{BTreeSet, HashMap},
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use js_sys::{Function, Promise};
use vmsync_core::{
    ByteRange, PagerError, PagerErrorKind,
    abi::VmProt,
    pager::{
        Attributes, CallId, DataSupply, InitRequest, MemoryObjectControl, ObjectId, ObjectName, Pager,
        ReturnFlags, SynchronizeFlags,
    },
};
use wasm_bindgen::JsValue;

use crate::{
    database::{Database, Writes},
    limits::QUEUE_BYTES_MAX,
    mirror::{Mirror, PAGE_SIZE, Page, Stored},
};

thread_local! {
    /// Who waits for the next completion.
    static WAITING: RefCell<Vec<Function>> = const { RefCell::new(Vec::new()) };
}

/// A pager that keeps objects in IndexedDB.
pub struct IdbPager {
    shared: Arc<Shared>,
}

struct Shared {
    database: Database,
    state: Mutex<State>,
}

struct State {
    mirror: Mirror,
    opened: HashMap<ObjectId, Opened>,
    calls: HashMap<CallId, Call>,
    version: u64,
    /// Calls that wait for the transaction under way, in order.
    queue: Vec<Begun>,
    /// Bytes of their pages, and of those under way.
    queued_bytes: usize,
    /// Objects that were made or have grown since the last transaction.
    resized: BTreeSet<ObjectName>,
    /// There is one.
    writing: bool,
    /// Why an asynchronous call was lost, until [`IdbPager::take_failure`].
    failure: Option<PagerError>,
}

struct Opened {
    name: ObjectName,
    write: bool,
    control: Arc<dyn MemoryObjectControl>,
    address: Option<u64>,
}

#[derive(Default)]
struct Call {
    returns: Vec<(ObjectId, u64, Page)>,
    answers: Vec<Answer>,
    /// Why something was lost since it began.
    lost: Option<PagerError>,
}

/// What one transaction writes for.
struct Group {
    calls: Vec<Begun>,
    resized: BTreeSet<ObjectName>,
    /// Bytes of its pages.
    bytes: usize,
}

/// A call on its way to the database.
struct Begun {
    call: CallId,
    writes: Writes,
    answers: Vec<Answer>,
    synchronous: bool,
}

struct Answer {
    control: Arc<dyn MemoryObjectControl>,
    range: ByteRange,
}

fn refuse<T>(kind: PagerErrorKind, message: String) -> Result<T, PagerError> {
    Err(PagerError::new(kind, message))
}

/// Wakes everybody who waits for a completion.
fn wake() {
    for resolve in WAITING.take() {
        // A promise's own function does not throw.
        let _ = resolve.call0(&JsValue::UNDEFINED);
    }
}

impl IdbPager {
    /// Opens the store called `name` and reads it; makes it where there is none.
    ///
    /// # Errors
    /// [`PagerErrorKind::Denied`]: this page may not store data; [`PagerErrorKind::Damaged`]: the database holds something
    /// else; [`PagerErrorKind::Io`].
    pub async fn open(name: &str) -> Result<Self, PagerError> {
        let database = Database::open(name).await?;
        let mirror = database.read().await?;
        let version = mirror
            .objects
            .values()
            .map(|stored| stored.version)
            .max()
            .unwrap_or(0);
        let state = State {
            mirror,
            opened: HashMap::new(),
            calls: HashMap::new(),
            version,
            queue: Vec::new(),
            queued_bytes: 0,
            resized: BTreeSet::new(),
            writing: false,
            failure: None,
        };
        let shared = Arc::new(Shared {
            database,
            state: Mutex::new(state),
        });
        Ok(Self { shared })
    }

    /// Resolves when a completion has arrived, of whichever call.
    pub fn changed() -> Promise {
        Promise::new(&mut |resolve, _| WAITING.with_borrow_mut(|waiting| waiting.push(resolve)))
    }

    /// Whether calls are on their way to the database.
    pub fn is_busy(&self) -> bool {
        self.shared.lock().writing
    }

    /// Why an asynchronous call was lost since the last time that this was asked, if one was. Its clients were told.
    pub fn take_failure(&self) -> Option<PagerError> {
        self.shared.lock().failure.take()
    }

    /// The objects of the store, by name.
    pub fn list(&self) -> Vec<(ObjectName, Attributes)> {
        let state = self.shared.lock();
        let objects = state.mirror.objects.iter();
        let mut objects: Vec<_> = objects
            .map(|(name, stored)| (name.clone(), stored.attributes()))
            .collect();
        objects.sort_by(|left, right| left.0.cmp(&right.0));
        objects
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a call whose pages are in the mirror written, behind those that came before it.
    fn start(self: &Arc<Self>, begun: Begun) {
        {
            let mut state = self.lock();
            state.queued_bytes += begun.writes.bytes();
            state.queue.push(begun);
        }
        self.write_queued();
    }

    /// Starts the transaction of all that waits, unless one is under way.
    fn write_queued(self: &Arc<Self>) {
        let (group, writes) = {
            let mut state = self.lock();
            if state.writing || (state.queue.is_empty() && state.resized.is_empty()) {
                return;
            }
            state.writing = true;
            let mut calls = mem::take(&mut state.queue);
            let mut writes = Writes::default();
            for begun in &mut calls {
                writes.objects.append(&mut begun.writes.objects);
                writes.pages.append(&mut begun.writes.pages);
            }
            let resized = mem::take(&mut state.resized);
            // Behind the calls, of which all are in it: so the mirror has what is to count.
            let objects = &state.mirror.objects;
            let entries = resized
                .iter()
                .filter_map(|name| Some((name.clone(), objects.get(name)?.without_pages())));
            writes.objects.extend(entries);
            let bytes = writes.bytes();
            (
                Group {
                    calls,
                    resized,
                    bytes,
                },
                writes,
            )
        };
        // Both ways out need it, and only one is taken.
        let group = Arc::new(Mutex::new(Some(group)));
        let (shared, taken) = (self.clone(), group.clone());
        let ended = move |result: Result<(), PagerError>| {
            let taken = taken.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(group) = taken {
                shared.end(group, result);
            }
        };
        if let Err(error) = self.database.write(&writes, Box::new(ended)) {
            let taken = group.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(group) = taken {
                self.end(group, Err(error));
            }
        }
    }

    /// The transaction of `group` has ended. What is lost is told to whoever took it for queued first, then to who waits.
    fn end(self: &Arc<Self>, group: Group, result: Result<(), PagerError>) {
        let Group {
            mut calls,
            resized,
            bytes,
        } = group;
        let readers = {
            let mut state = self.lock();
            state.writing = false;
            match &result {
                Ok(()) => {
                    state.queued_bytes -= bytes;
                    calls.iter().for_each(|begun| state.mirror.keep(begun.call));
                    Vec::new()
                }
                Err(error) => {
                    state.queued_bytes = 0;
                    state.resized.extend(resized);
                    calls.append(&mut state.queue);
                    state.lose(&calls, error)
                }
            }
        };
        if let Err(error) = &result {
            for Answer { control, range } in readers {
                control.write_behind_failed(range, error.clone());
            }
        }
        let (waiting, queued): (Vec<_>, Vec<_>) = calls.into_iter().partition(|begun| begun.synchronous);
        for Answer { control, range } in queued.into_iter().flat_map(|begun| begun.answers) {
            if let Err(error) = &result {
                control.write_behind_failed(range, error.clone());
            }
        }
        for Answer { control, range } in waiting.into_iter().flat_map(|begun| begun.answers) {
            // A refusal means that the runtime gave the request up (a time-out); the commit stands.
            let _ = control.synchronize_completed(range, result.clone());
        }
        // What failed alone would fail again, and so on without end: it waits for the next call.
        if result.is_ok() {
            self.write_queued();
        }
        wake();
    }
}

impl State {
    fn opened(&self, object: ObjectId) -> Result<&Opened, PagerError> {
        self.opened.get(&object).ok_or_else(|| {
            PagerError::new(
                PagerErrorKind::Invalid,
                format!("object {} is not open here", object.0),
            )
        })
    }

    /// The stored object behind an open one, if `offset` and `length` are whole pages of it.
    fn checked(&self, object: ObjectId, offset: u64, length: u64) -> Result<(&Opened, &Stored), PagerError> {
        let opened = self.opened(object)?;
        let stored = self
            .mirror
            .objects
            .get(&opened.name)
            .expect("an open object is stored");
        let aligned = PAGE_SIZE.is_aligned(offset) && PAGE_SIZE.is_aligned(length);
        if aligned && offset.checked_add(length).is_some_and(|end| end <= stored.size) {
            return Ok((opened, stored));
        }
        refuse(
            PagerErrorKind::Invalid,
            format!(
                "{length} bytes at {offset} are not whole pages of {} bytes inside \"{}\" of {} bytes",
                PAGE_SIZE.bytes(),
                opened.name,
                stored.size
            ),
        )
    }

    fn check_request(
        &self,
        object: ObjectId,
        name: &ObjectName,
        request: InitRequest,
    ) -> Result<(), PagerError> {
        if self.opened.contains_key(&object) {
            return refuse(
                PagerErrorKind::Invalid,
                format!("object {} is open already", object.0),
            );
        }
        if request.page_size != PAGE_SIZE || !PAGE_SIZE.is_aligned(request.size_min) {
            let message = format!(
                "the store has pages of {} bytes: pages of {} bytes and a size of {} do not fit",
                PAGE_SIZE.bytes(),
                request.page_size.bytes(),
                request.size_min
            );
            return refuse(PagerErrorKind::Invalid, message);
        }
        let mut others = self.opened.values();
        if request.write && others.any(|opened| opened.write && opened.name == *name) {
            return refuse(
                PagerErrorKind::Busy,
                format!("\"{name}\" has a writer: close it there"),
            );
        }
        let stored = self.mirror.objects.get(name);
        if stored.is_none() && !request.create {
            let message = format!("no object \"{name}\" in this store: ask for it to be created");
            return refuse(PagerErrorKind::NotFound, message);
        }
        if !request.write && stored.is_some_and(|stored| stored.size < request.size_min) {
            let message = format!("\"{name}\" is smaller, and was not opened for writing");
            return refuse(PagerErrorKind::Denied, message);
        }
        Ok(())
    }

    /// Takes out what `calls` returned, and has calls fail that began before; who has to be told beside those that made the calls.
    fn lose(&mut self, calls: &[Begun], error: &PagerError) -> Vec<Answer> {
        for call in self.calls.values_mut() {
            call.lost.get_or_insert_with(|| error.clone());
        }
        if calls.iter().any(|begun| !begun.synchronous) {
            self.failure = Some(error.clone());
        }
        let newest_first = calls.iter().rev();
        newest_first
            .flat_map(|begun| self.take_out(begun.call, &begun.answers))
            .collect()
    }

    /// Takes out what `call` returned; who else has an object of it open, and may have read what was queued: whoever made the
    /// call may have closed it since.
    fn take_out(&mut self, call: CallId, answers: &[Answer]) -> Vec<Answer> {
        let lost = self.mirror.undo(call);
        let readers = self.opened.values().filter_map(|Opened { name, control, .. }| {
            let range = PAGE_SIZE.byte_range(*lost.get(name)?);
            let control = control.clone();
            Some(Answer { control, range })
        });
        let is_answered = |reader: &Answer| {
            let mut answers = answers.iter();
            answers.any(|answer| Arc::ptr_eq(&answer.control, &reader.control))
        };
        readers.filter(|reader| !is_answered(reader)).collect()
    }

    /// Moves what `call` returned into the mirror; what the database has to be told.
    fn accept(&mut self, id: CallId, returns: Vec<(ObjectId, u64, Page)>) -> Writes {
        let mut writes = Writes::default();
        if returns.is_empty() {
            return writes;
        }
        self.version += 1;
        for (object, page, bytes) in returns {
            let Some(Opened { name, address, .. }) = self.opened.get(&object) else {
                continue;
            };
            self.mirror.put(id, name, page, bytes.clone());
            writes.pages.push((name.clone(), page, bytes));
            if !writes.objects.iter().any(|(other, _)| other == name) {
                let entry = self.mirror.stamp(id, name, self.version, *address);
                writes.objects.push((name.clone(), entry));
            }
        }
        writes
    }
}

impl Pager for IdbPager {
    fn init(
        &self,
        object: ObjectId,
        name: &ObjectName,
        request: InitRequest,
        control: Arc<dyn MemoryObjectControl>,
    ) -> Result<Attributes, PagerError> {
        let mut state = self.shared.lock();
        state.check_request(object, name, request)?;
        let is_new = !state.mirror.objects.contains_key(name);
        let stored = state.mirror.objects.entry(name.clone()).or_default();
        let grows = stored.size < request.size_min;
        stored.size = stored.size.max(request.size_min);
        let attributes = stored.attributes();
        let opened = Opened {
            name: name.clone(),
            write: request.write,
            control,
            address: None,
        };
        state.opened.insert(object, opened);
        if is_new || grows {
            state.resized.insert(name.clone());
        }
        drop(state);
        // Nobody waits for it: whatever is durable behind it has the size, too.
        self.shared.write_queued();
        Ok(attributes)
    }

    fn data_request(
        &self,
        object: ObjectId,
        offset: u64,
        _: VmProt,
        pages: &mut [u8],
    ) -> Result<DataSupply, PagerError> {
        let state = self.shared.lock();
        let (_, stored) = state.checked(object, offset, pages.len() as u64)?;
        if stored.read(offset, pages) {
            Ok(DataSupply::Supplied { precious: false })
        } else {
            Ok(DataSupply::Unavailable)
        }
    }

    fn data_return(
        &self,
        call: CallId,
        object: ObjectId,
        offset: u64,
        pages: &[u8],
        _: ReturnFlags,
    ) -> Result<(), PagerError> {
        let mut state = self.shared.lock();
        let (opened, _) = state.checked(object, offset, pages.len() as u64)?;
        if !opened.write {
            let message = format!("\"{}\" was opened for reading: open it for writing", opened.name);
            return refuse(PagerErrorKind::Denied, message);
        }
        let returns = &mut state.calls.entry(call).or_default().returns;
        let first = PAGE_SIZE.page_of(offset);
        for (page, bytes) in (first..).zip(pages.chunks_exact(PAGE_SIZE.bytes() as usize)) {
            returns.push((object, page, bytes.into()));
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
        let (writes, answers, synchronous) = {
            let mut state = self.shared.lock();
            let control = state.checked(object, range.start, range.len())?.0.control.clone();
            let entry = state.calls.entry(call).or_default();
            entry.answers.push(Answer { control, range });
            if flags.more {
                return Ok(());
            }
            let entry = state.calls.remove(&call).unwrap_or_default();
            if let Some(error) = entry.lost.filter(|_| !entry.returns.is_empty()) {
                return Err(error.behind());
            }
            // Rather than wait for room, an asynchronous call is answered when it is durable.
            let synchronous = flags.synchronous || state.queued_bytes > QUEUE_BYTES_MAX;
            (state.accept(call, entry.returns), entry.answers, synchronous)
        };
        if !synchronous {
            for Answer { control, range } in &answers {
                // As above.
                let _ = control.synchronize_completed(*range, Ok(()));
            }
        }
        // Also without pages: a synchronous call is durable when everything before it is.
        self.shared.start(Begun {
            call,
            writes,
            answers,
            synchronous,
        });
        Ok(())
    }

    fn abort(&self, call: CallId) {
        self.shared.lock().calls.remove(&call);
    }

    fn map(&self, object: ObjectId, address: u64, _: VmProt) {
        if let Some(opened) = self.shared.lock().opened.get_mut(&object) {
            opened.address = Some(address);
        }
    }

    fn terminate(&self, object: ObjectId) {
        self.shared.lock().opened.remove(&object);
    }

    fn attributes(&self, object: ObjectId) -> Result<Attributes, PagerError> {
        Ok(self.shared.lock().checked(object, 0, 0)?.1.attributes())
    }
}
