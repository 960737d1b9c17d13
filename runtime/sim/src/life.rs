//! [`Life`]: what several tasks did to a store between two power cuts, recorded.
//!
//! ```text
//!   seed --> World { disk, store, tasks, model } --turns--> Life { image before, trace of the disk, history }
//! ```
//!
//! Invariants:
//! - all that is random comes from the seed, in one order;
//! - after every turn that can change something the store supplies what the model says, whatever failed;
//! - the model has two states: what is supplied, and what is left of it if all that is queued fails.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use vmsync_core::{
    ByteRange, PageSize, PagerError, PagerErrorKind,
    abi::VmProt,
    pager::{CallId, InitRequest, ObjectId, ObjectName, Pager, ReturnFlags, Run, SynchronizeFlags},
};
use vmsync_pager_file::{Background, FileStore, Options};

use crate::{
    canary::Canary,
    disk::{Failure, Fault, KILLED, Place, SimDisk},
    history::{Breach, Contents, Entry, History, Object, Print, Step, print},
    limits::{
        ADDRESSES, AGAIN_ONCE_IN, AT_ONCE_ONCE_IN, ATTEMPTS, FAULT_OPERATIONS_MAX, FAULTS_MAX, KILL_ONCE_IN,
        KILL_OPERATIONS_MAX, LASTING_ONCE_IN, LASTING_OPERATIONS, NEIGHBOURS_MAX, OPERATIONS_OF_LIFE,
        OPERATIONS_OF_OPENING, READS_OF_LIFE, READS_OF_OPENING, REMAP_ONCE_IN, SUMS_IN_SECTOR, TASKS, TURNS,
    },
    platter::{Change, Image},
    random::Random,
    shape::Shape,
    task::{Call, Ear, Open, Resident, Task},
};

/// What went wrong, and how.
pub type Broken = (Breach, String);

/// A recorded life of a store.
#[derive(Clone, Debug)]
pub struct Life {
    /// The page size of the store.
    pub page_size: PageSize,
    /// The disk before.
    pub base: Image,
    /// What was done to it.
    pub trace: Vec<Change>,
    /// What was promised when.
    pub history: History,
    /// How many operations failed on demand.
    pub faults: u64,
}

/// The smallest segments, so that a short life meets roll-overs and checkpoints.
pub fn options(page_size: PageSize) -> Options {
    Options {
        page_size,
        segment_bytes: 16 << 10,
        checkpoint_bytes: 16 << 10,
        background: Background::Caller,
        ..Options::default()
    }
}

/// Reads every object of `store`, through handles with numbers from `first` on.
///
/// # Errors
/// The store's.
pub fn contents(store: &FileStore, first: u64) -> Result<Contents, PagerError> {
    let mut found = Contents::new();
    for ((name, attributes), number) in store.list().into_iter().zip(first..) {
        let object = ObjectId(number);
        let request = InitRequest {
            page_size: store.page_size(),
            size_min: 0,
            create: false,
            write: false,
        };
        store.init(object, &name, request, Arc::new(Ear::default()))?;
        let mut bytes = vec![0; usize::try_from(attributes.size).expect("a small object")];
        let answer = store.data_request(object, 0, VmProt::READ, &mut bytes);
        store.terminate(object);
        answer?;
        let entry = Entry {
            address: Some(attributes.address),
            version: Some(attributes.version),
        };
        found.insert(name.as_str().into(), Object { bytes, entry });
    }
    Ok(found)
}

struct World {
    shape: Shape,
    disk: SimDisk,
    store: Option<Arc<FileStore>>,
    tasks: Vec<Task>,
    supplied: Contents,
    firm: Contents,
    history: History,
    random: Random,
    numbers: u64,
    faulty: bool,
}

impl Life {
    /// Runs tasks on a store on the disk `base`, which holds `state`; with a `bug` where one is given.
    ///
    /// # Errors
    /// What the store did wrong while it ran.
    pub fn record(
        shape: &Shape,
        base: &Image,
        state: Option<Print>,
        seed: u64,
        faulty: bool,
        bug: Option<Canary>,
    ) -> Result<Self, Broken> {
        let disk = SimDisk::traced(base, seed);
        disk.spoil(bug);
        let mut world = World {
            shape: shape.clone(),
            disk,
            store: None,
            tasks: (0..TASKS).map(|_| Task::default()).collect(),
            supplied: Contents::new(),
            firm: Contents::new(),
            history: History::from(state),
            random: Random::new(seed),
            numbers: 1 << 32,
            faulty,
        };
        world.begin()?;
        for turn in 0..TURNS {
            world
                .turn(turn)
                .map_err(|(breach, why)| (breach, format!("in turn {turn}: {why}")))?;
        }
        world.end();
        let faults = world.disk.failed();
        Ok(Self {
            page_size: shape.page_size,
            base: base.clone(),
            trace: world.disk.take_trace(),
            history: world.history,
            faults,
        })
    }

    /// Opens the disk `base`, which holds `state`, and closes it.
    ///
    /// # Errors
    /// That it does not open.
    pub fn recovery(base: &Image, state: &Print, page_size: PageSize, seed: u64) -> Result<Self, Broken> {
        let disk = SimDisk::traced(base, seed);
        let store = FileStore::open_on(Arc::new(disk.clone()), &options(page_size));
        drop(store.map_err(|error| lost(format!("the store does not open: {error}")))?);
        Ok(Self {
            page_size,
            base: base.clone(),
            trace: disk.take_trace(),
            history: History::from(Some(state.clone())),
            faults: 0,
        })
    }
}

fn mixed(what: impl Into<String>) -> Broken {
    (Breach::Mixed, what.into())
}

fn lost(what: impl Into<String>) -> Broken {
    (Breach::Lost, what.into())
}

/// Stores, and what becomes of them.
impl World {
    fn store(&self) -> Arc<FileStore> {
        self.store.clone().expect("a store is open between turns")
    }

    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    fn step(&mut self, start: usize, promised: bool, state: Print, what: impl Into<String>) {
        self.history.steps.push(Step {
            start,
            end: self.disk.position(),
            promised,
            state: Some(state),
            what: what.into(),
        });
    }

    fn begin(&mut self) -> Result<(), Broken> {
        if self.faulty && self.random.once_in(2) {
            self.inject_faults(OPERATIONS_OF_OPENING, READS_OF_OPENING);
        }
        self.open_store("open")?;
        if self.faulty {
            self.inject_faults(OPERATIONS_OF_LIFE, READS_OF_LIFE);
        }
        Ok(())
    }

    /// Some of the next so many operations and reads will fail.
    fn inject_faults(&mut self, operations: usize, reads: usize) {
        const FAILURES: [Failure; 4] = [Failure::Io, Failure::NoSpace, Failure::Short, Failure::FalseAlarm];
        for _ in 0..=self.random.below(FAULTS_MAX) {
            let failure = FAILURES[self.random.below(FAILURES.len())];
            self.inject_fault(failure, self.disk.operations(), operations);
        }
        for _ in 0..self.random.below(FAULTS_MAX + 1) {
            self.inject_fault(Failure::Read, self.disk.reads(), reads);
        }
    }

    /// A few in a row fail, the first of them `among` so many from `from` on; or for long, what is done to one place.
    fn inject_fault(&mut self, failure: Failure, from: u64, among: usize) {
        const PLACES: [Place; 5] = [
            Place::Files("STORE", ""),
            Place::Files("journal-", ""),
            Place::Files("object-", ""),
            Place::Files("object-", ".sums"),
            Place::Room,
        ];
        let first = from + self.random.below(among) as u64;
        let lasts = self.random.once_in(LASTING_ONCE_IN);
        let (place, count) = match lasts {
            // A read needs no room.
            true => {
                let count = PLACES.len() - usize::from(failure == Failure::Read);
                (PLACES[self.random.below(count)], LASTING_OPERATIONS)
            }
            false => (Place::Anywhere, 1 + self.random.below(FAULT_OPERATIONS_MAX)),
        };
        let failure = if place == Place::Room {
            Failure::NoSpace
        } else {
            failure
        };
        self.disk.inject(Fault {
            operations: first..first + count as u64,
            place,
            failure,
        });
    }

    /// Opens the store; what it then holds must be allowed by the history.
    fn open_store(&mut self, what: &str) -> Result<(), Broken> {
        let start = self.disk.position();
        let options = Options {
            background: self.shape.background,
            ..options(self.shape.page_size)
        };
        let open = || FileStore::open_on(Arc::new(self.disk.clone()), &options);
        let mut attempts = 0;
        let store = loop {
            let failed = self.disk.failed();
            let error = match open() {
                Ok(store) => break store,
                Err(error) => error,
            };
            if attempts == ATTEMPTS {
                return Err(lost(format!("{what}: the store does not open: {error}")));
            }
            self.refused(failed, &error, what)?;
            // Another process tries.
            self.disk.thaw();
            attempts += 1;
            if attempts == ATTEMPTS {
                self.disk.heal();
            }
        };
        self.store = Some(store);
        let found = self.read()?;
        let state = print(&found);
        if self.history.steps.iter().any(|step| step.state.is_some()) {
            self.history.judge(usize::MAX, Some(&state))?;
        }
        (self.supplied, self.firm) = (found.clone(), found);
        // A fresh store is durable when it is open; what a recovery found may still be on its way, also of a store whose
        // making failed.
        let fresh = self.history.steps[0].state.is_none() && self.history.steps.len() == 1;
        let promised = fresh && attempts == 0;
        self.step(start, promised, state, what);
        Ok(())
    }

    /// Ends the process, cleanly or not, and starts another.
    fn reopen(&mut self, clean: bool) -> Result<(), Broken> {
        let (start, failed) = (self.disk.position(), self.disk.failed());
        self.tasks.iter_mut().for_each(|task| *task = Task::default());
        if !clean {
            self.disk.freeze();
        }
        self.store = None;
        let whole = clean && self.disk.failed() == failed && !self.disk.is_frozen();
        self.disk.thaw();
        if clean {
            let state = print(&self.supplied);
            self.step(start, whole, state, "close");
        }
        if self.random.once_in(3) {
            self.set_kill();
        }
        self.open_store(if clean { "open again" } else { "open after a kill" })
    }

    fn end(&mut self) {
        let (start, failed) = (self.disk.position(), self.disk.failed());
        self.tasks.clear();
        self.store = None;
        let whole = self.disk.failed() == failed && !self.disk.is_frozen();
        let state = print(&self.supplied);
        self.step(start, whole, state, "close");
    }

    /// The process will be killed in the middle of something.
    fn set_kill(&mut self) {
        let operations = self.random.below(KILL_OPERATIONS_MAX);
        self.disk.kill_after(operations as u64);
    }
}

/// Turns.
impl World {
    fn turn(&mut self, turn: usize) -> Result<(), Broken> {
        if self.disk.is_frozen() {
            return self.reopen(false);
        }
        if self.random.once_in(KILL_ONCE_IN) {
            self.set_kill();
        }
        let task = self.random.below(TASKS);
        if self.tasks[task].call.is_some() {
            return self.go_on(task);
        }
        match self.random.below(40) {
            0 => return self.checkpoint(),
            1 => return self.flush(),
            2 => return self.remove(),
            3 if turn > 20 => return self.reopen(true),
            4 if turn > 20 => return self.reopen(false),
            5 => return self.close(task),
            6..10 => return self.open(task),
            10 => self.discard(task),
            13 => return self.grow(task),
            11 | 12 if self.shape.background == Background::Host => return self.tidy(),
            _ => {}
        }
        if self.tasks[task].open.is_empty() {
            return self.open(task);
        }
        if self.random.once_in(REMAP_ONCE_IN) {
            self.map(task)?;
        }
        self.change_pages(task)?;
        self.start_call(task);
        // Nobody else has a turn in between.
        if self.random.once_in(AT_ONCE_ONCE_IN) {
            while self.tasks[task].call.is_some() && !self.disk.is_frozen() {
                self.go_on(task)?;
            }
        }
        Ok(())
    }

    /// The state after a change of the catalog, or of nothing but durability, that worked: all before is durable.
    fn promised(&mut self, start: usize, what: &str) -> Result<(), Broken> {
        let found = self.read()?;
        self.learn(&found, what)?;
        self.firm = self.supplied.clone();
        let state = print(&self.supplied);
        self.step(start, true, state, what);
        Ok(())
    }

    /// Everything is durable, and `found`: what is not known of the catalog is so now.
    fn learn(&mut self, found: &Contents, what: &str) -> Result<(), Broken> {
        self.compare_bytes(found, what)?;
        for (name, object) in &mut self.supplied {
            let (said, firm) = (found[name].entry, self.firm.get(name).map(|firm| firm.entry));
            let rises = firm.is_none_or(|firm| said.version >= firm.version);
            if !object.entry.allows(&said) || !rises {
                let known = object.entry;
                return Err(mixed(format!(
                    "after {what} the catalog says {said:?} of {name}, not {known:?}"
                )));
            }
            object.entry = said;
        }
        Ok(())
    }

    /// All that was queued is written. Where nothing was, nothing new is promised: a call that failed since the last
    /// promise may still have arrived.
    fn written(&mut self, start: usize, what: &str) -> Result<(), Broken> {
        match start == self.disk.position() && same_bytes(&self.firm, &self.supplied) {
            true => self.compare(what),
            false => self.promised(start, what),
        }
    }

    /// What is read includes what is queued, what the catalog says does not.
    fn compare(&mut self, what: &str) -> Result<(), Broken> {
        let found = self.read()?;
        self.compare_bytes(&found, what)?;
        self.compare_catalog(&found, what)
    }

    fn compare_bytes(&self, found: &Contents, what: &str) -> Result<(), Broken> {
        match same_bytes(found, &self.supplied) {
            true => Ok(()),
            false => Err(mixed(format!("after {what} the store supplies something else"))),
        }
    }

    fn compare_catalog(&self, found: &Contents, what: &str) -> Result<(), Broken> {
        let allows = |(name, object): (&String, &Object)| {
            let firm = self.firm.get(name);
            firm.is_some_and(|firm| firm.entry.allows(&object.entry))
        };
        match found.iter().find(|entry| !allows(*entry)) {
            None => Ok(()),
            Some((name, object)) => Err(mixed(format!(
                "after {what} the catalog says {:?} of {name}, not {:?}",
                object.entry,
                self.firm.get(name).map(|firm| firm.entry)
            ))),
        }
    }

    fn read(&mut self) -> Result<Contents, Broken> {
        loop {
            let (failed, first) = (self.disk.failed(), self.numbers + 1);
            self.numbers += self.shape.names.len() as u64;
            match contents(&self.store(), first) {
                Ok(found) => return Ok(found),
                // The disk's reads work again after a few.
                Err(error) => self.read_refused(failed, &error, "reading")?,
            }
        }
    }

    /// Something failed that would have given `would`. What is supplied is as before, with what is queued or without.
    fn failed(&mut self, start: usize, would: &Contents, what: &str) -> Result<(), Broken> {
        let what = format!("{what}, which failed");
        self.step(start, false, print(would), what.clone());
        let found = self.read()?;
        let late: usize = self
            .tasks
            .iter()
            .flat_map(|task| task.open.values())
            .map(|open| open.ear.take_late())
            .sum();
        self.compare_catalog(&found, &what)?;
        if same_bytes(&found, &self.supplied) {
            if same_bytes(&self.firm, &self.supplied) {
                // What was queued may be gone.
                for (name, object) in &mut self.supplied {
                    object.entry.forget_unless(&self.firm[name].entry);
                }
            }
        } else {
            if !same_bytes(&found, &self.firm) {
                return Err(mixed(format!("after {what}, the store supplies something else")));
            }
            if late == 0 && self.tasks.iter().any(|task| !task.open.is_empty()) {
                // The objects of the queued calls may be closed, and then nobody is there to be told.
                let open: Vec<_> = self.tasks.iter().flat_map(|task| task.open.keys()).collect();
                let bytes = |contents: &Contents, name: &String| {
                    contents.get(name).map(|object| object.bytes.clone())
                };
                let gone = |name: &&&String| bytes(&self.firm, name) != bytes(&self.supplied, name);
                if let Some(name) = open.iter().find(gone) {
                    return Err(lost(format!(
                        "after {what}, queued pages of {name} are gone untold"
                    )));
                }
            }
            self.supplied = self.firm.clone();
            for open in self.tasks.iter_mut().flat_map(|task| task.open.values_mut()) {
                open.resident.values_mut().for_each(|page| page.dirty = true);
            }
        }
        let state = print(&self.supplied);
        self.step(start, false, state, what);
        Ok(())
    }

    fn checkpoint(&mut self) -> Result<(), Broken> {
        // Flushing is a step of its own: it may work where the rest does not.
        self.flush()?;
        let (start, failed) = (self.disk.position(), self.disk.failed());
        match self.store().checkpoint() {
            Ok(()) => self.written(start, "checkpoint"),
            Err(error) => self
                .refused(failed, &error, "checkpoint")
                .and_then(|()| self.failed(start, &self.supplied.clone(), "checkpoint")),
        }
    }

    /// What the host does when nothing waits.
    fn tidy(&mut self) -> Result<(), Broken> {
        self.flush()?;
        let (start, failed) = (self.disk.position(), self.disk.failed());
        match self.store().tidy() {
            // It may have written images only: nothing new is promised.
            Ok(()) => self.compare("tidy"),
            Err(error) => self
                .refused(failed, &error, "tidy")
                .and_then(|()| self.failed(start, &self.supplied.clone(), "tidy")),
        }
    }

    fn flush(&mut self) -> Result<(), Broken> {
        let (start, failed) = (self.disk.position(), self.disk.failed());
        match self.store().flush() {
            Ok(()) => self.written(start, "flush"),
            Err(error) => self
                .refused(failed, &error, "flush")
                .and_then(|()| self.failed(start, &self.supplied.clone(), "flush")),
        }
    }

    fn is_open(&self, name: &str) -> bool {
        self.tasks.iter().any(|task| task.open.contains_key(name))
    }

    fn remove(&mut self) -> Result<(), Broken> {
        let name = &self.shape.names[self.random.below(self.shape.names.len())].clone();
        let (start, failed) = (self.disk.position(), self.disk.failed());
        let outcome = self.store().remove_object(&object_name(name));
        let what = format!("remove {name}");
        let mut would = self.supplied.clone();
        would.remove(name);
        match outcome {
            Ok(()) if self.is_open(name) => Err(lost(format!("{what}: it was open"))),
            Ok(()) => {
                if !self.supplied.contains_key(name) {
                    return Err(mixed(format!("{what}: there was none")));
                }
                self.supplied = would;
                self.promised(start, &what)
            }
            Err(error) if error.kind == PagerErrorKind::Busy && self.is_open(name) => Ok(()),
            Err(error) if error.kind == PagerErrorKind::NotFound && !self.supplied.contains_key(name) => {
                Ok(())
            }
            Err(error) => self
                .refused(failed, &error, &what)
                .and_then(|()| self.failed(start, &would, &what)),
        }
    }

    /// An error must have a reason: since so many operations had failed, another one did, or the process was killed. An earlier
    /// failure is none, for what it left in doubt the store settles by itself.
    fn refused(&self, failed: u64, error: &PagerError, what: &str) -> Result<(), Broken> {
        let killed = self.disk.is_frozen() && error.message.contains(KILLED);
        self.explained(killed || self.disk.failed() > failed, error, what)
    }

    /// The same for what only reads, which a killed process does as well.
    fn read_refused(&self, failed: u64, error: &PagerError, what: &str) -> Result<(), Broken> {
        self.explained(self.disk.failed() > failed, error, what)
    }

    fn explained(&self, has_reason: bool, error: &PagerError, what: &str) -> Result<(), Broken> {
        match has_reason && matches!(error.kind, PagerErrorKind::Io | PagerErrorKind::NoSpace) {
            true => Ok(()),
            false => Err(lost(format!("{what}: {error}"))),
        }
    }

    /// Opens an object that no task has open: makes it, grows it or takes it as it is.
    fn open(&mut self, task: usize) -> Result<(), Broken> {
        let names = self.shape.names.iter();
        let free: Vec<_> = names.filter(|name| !self.is_open(name)).cloned().collect();
        if free.is_empty() || self.tasks[task].open.len() >= 2 {
            return self.close(task);
        }
        let name = &free[self.random.below(free.len())];
        let page_bytes = self.shape.page();
        let before = self
            .supplied
            .get(name)
            .map_or(0, |object| object.bytes.len() / page_bytes);
        let (first, most) = self.shape.pages(name);
        let pages = match before {
            0 => first.start + self.random.below(first.len()),
            _ => (before + self.random.below(2)).min(most),
        };
        let (object, ear) = (ObjectId(self.number()), Arc::new(Ear::default()));
        let request = InitRequest {
            page_size: self.shape.page_size,
            size_min: (pages * page_bytes) as u64,
            create: true,
            write: true,
        };
        let mut would = self.supplied.clone();
        let grown = would.entry(name.clone()).or_insert_with(|| Object {
            entry: Entry {
                address: Some(None),
                version: Some(0),
            },
            ..Object::default()
        });
        grown.bytes.resize(pages * page_bytes, 0);
        let (start, failed) = (self.disk.position(), self.disk.failed());
        let what = format!("open {name} with {pages} pages instead of {before}");
        match self
            .store()
            .init(object, &object_name(name), request, ear.clone())
        {
            Ok(_) => {
                let resident = BTreeMap::new();
                let open = Open {
                    object,
                    ear,
                    address: None,
                    resident,
                };
                self.tasks[task].open.insert(name.clone(), open);
                if would == self.supplied {
                    return Ok(());
                }
                self.supplied = would;
                self.promised(start, &what)
            }
            Err(error) => self
                .refused(failed, &error, &what)
                .and_then(|()| self.failed(start, &would, &what)),
        }
    }

    /// Lets an object grow that `task` has open, perhaps with pages of it on their way.
    fn grow(&mut self, task: usize) -> Result<(), Broken> {
        let Some((name, object)) = self.some_open(task) else {
            return Ok(());
        };
        let page_bytes = self.shape.page();
        let before = self.supplied[&name].bytes.len() / page_bytes;
        if before >= self.shape.pages(&name).1 {
            return Ok(());
        }
        let size = (before + 1) * page_bytes;
        let mut would = self.supplied.clone();
        would
            .get_mut(&name)
            .expect("open objects stay")
            .bytes
            .resize(size, 0);
        let (start, failed) = (self.disk.position(), self.disk.failed());
        let what = format!("grow {name} from {before} pages");
        match self.store().grow(object, size as u64) {
            Ok(attributes) if attributes.size != size as u64 => {
                Err(lost(format!("{what}: it has {} bytes", attributes.size)))
            }
            Ok(_) => {
                self.supplied = would;
                self.promised(start, &what)
            }
            Err(error) => self
                .refused(failed, &error, &what)
                .and_then(|()| self.failed(start, &would, &what)),
        }
    }

    /// Maps an object that `task` has open, mostly where it was before.
    fn map(&mut self, task: usize) -> Result<(), Broken> {
        let address = (1 + self.random.below(ADDRESSES) as u64) << 20;
        if let Some((name, object)) = self.some_open(task) {
            self.store().map(object, address, VmProt::READ | VmProt::WRITE);
            let open = self.tasks[task].open.get_mut(&name).expect("one of its names");
            open.address = Some(address);
        }
        Ok(())
    }

    fn some_open(&mut self, task: usize) -> Option<(String, ObjectId)> {
        let open = &self.tasks[task].open;
        let number = self.random.below(open.len().max(1));
        let (name, open) = open.iter().nth(number)?;
        Some((name.clone(), open.object))
    }

    fn close(&mut self, task: usize) -> Result<(), Broken> {
        if let Some((_, open)) = self.tasks[task].open.pop_first() {
            self.store().terminate(open.object);
            let heard = open.ear.take();
            if !heard.completed.is_empty() {
                return Err(mixed("a completion that nobody asked for"));
            }
        }
        Ok(())
    }
}

/// Calls.
impl World {
    /// Drops resident pages without returning them, as KILLPAGES does.
    fn discard(&mut self, task: usize) {
        for open in self.tasks[task].open.values_mut() {
            open.resident.clear();
        }
    }

    /// Stores into some pages, which are read in where they are not resident.
    fn change_pages(&mut self, task: usize) -> Result<(), Broken> {
        for _ in 0..=self.random.below(4) {
            let names: Vec<String> = self.tasks[task].open.keys().cloned().collect();
            let name = &names[self.random.below(names.len())];
            for page in some_pages(
                &mut self.random,
                self.supplied[name].bytes.len() / self.shape.page(),
            ) {
                self.change_page(task, name, page)?;
            }
        }
        Ok(())
    }

    fn change_page(&mut self, task: usize, name: &str, page: usize) -> Result<(), Broken> {
        let (store, page_bytes) = (self.store(), self.shape.page());
        let open = self.tasks[task].open.get_mut(name).expect("one of its names");
        if !open.resident.contains_key(&page) {
            let start = page * page_bytes;
            let mut bytes = vec![0; page_bytes];
            let access = VmProt::READ | VmProt::WRITE;
            let failed = self.disk.failed();
            if let Err(error) = store.data_request(open.object, start as u64, access, &mut bytes) {
                return self.read_refused(failed, &error, &format!("reading page {page} of {name}"));
            }
            if bytes != self.supplied[name].bytes[start..start + page_bytes] {
                return Err(mixed(format!("page {page} of {name} is supplied wrongly")));
            }
            open.resident.insert(page, Resident { bytes, dirty: false });
        }
        let resident = open.resident.get_mut(&page).expect("made so above");
        resident.dirty = true;
        scribble(&mut self.random, &mut resident.bytes);
        Ok(())
    }

    fn start_call(&mut self, task: usize) {
        let random = &mut self.random;
        let all = random.once_in(2);
        let pages = self.tasks[task].capture(|| all || !random.once_in(4));
        let mut objects: Vec<String> = pages.iter().map(|(name, ..)| name.clone()).collect();
        objects.dedup();
        if objects.is_empty() {
            objects.extend(self.tasks[task].open.keys().next().cloned());
        }
        let id = CallId(self.number());
        self.tasks[task].call = Some(Call {
            id,
            synchronous: !self.random.once_in(4),
            invalidate: self.random.once_in(4),
            pages,
            returned: 0,
            failed: self.disk.failed(),
            addresses: BTreeMap::new(),
            objects,
            synchronized: 0,
        });
    }

    /// Sends the next message of the call that `task` is in.
    fn go_on(&mut self, task: usize) -> Result<(), Broken> {
        let mut call = self.tasks[task].call.take().expect("only then it goes on");
        let store = self.store();
        if self.random.once_in(40) {
            return self.abort(task, &call);
        }
        if call.synchronized == 0 && self.random.once_in(AGAIN_ONCE_IN) {
            self.tasks[task].call = Some(call);
            return self.grow(task);
        }
        if call.synchronized == 0 && call.returned > 0 && self.random.once_in(AGAIN_ONCE_IN) {
            return self.return_again(task, call);
        }
        if let Some((name, ..)) = call.pages.get(call.returned) {
            let flags = ReturnFlags {
                dirty: true,
                kernel_copy: !call.invalidate,
            };
            let object = self.tasks[task].open[name].object;
            // One page, or all of this object at once.
            let rest = call.pages[call.returned..].iter();
            let of_object = rest.take_while(|(other, ..)| other == name).count();
            let count = if self.random.once_in(2) { of_object } else { 1 };
            let pages = &call.pages[call.returned..][..count];
            let joined: Vec<(usize, Vec<u8>)> = pages
                .chunk_by(|last, next| last.1 + 1 == next.1)
                .map(|run| {
                    (
                        run[0].1,
                        run.iter().flat_map(|(.., bytes)| bytes).copied().collect(),
                    )
                })
                .collect();
            let page_bytes = self.shape.page();
            let runs: Vec<Run<'_>> = joined
                .iter()
                .map(|(page, bytes)| Run {
                    offset: (page * page_bytes) as u64,
                    pages: bytes,
                    flags,
                })
                .collect();
            let failed = self.disk.failed();
            if let Err(error) = store.data_return_runs(call.id, object, &runs) {
                self.read_refused(failed, &error, &format!("returning {count} pages of {name}"))?;
                return self.abort(task, &call);
            }
            let name = name.clone();
            self.tasks[task].note_address(&mut call, &name);
            call.returned += count;
            self.tasks[task].call = Some(call);
            return Ok(());
        }
        let name = &call.objects[call.synchronized];
        call.synchronized += 1;
        let more = call.synchronized < call.objects.len();
        let flags = SynchronizeFlags {
            synchronous: call.synchronous,
            more,
            nowait: false,
        };
        let (object, range) = (self.tasks[task].open[name].object, self.range(name));
        let start = self.disk.position();
        let answer = store.synchronize(call.id, object, range, flags);
        if more {
            answer.map_err(|error| lost(format!("a synchronize with more to come: {error}")))?;
            self.tasks[task].call = Some(call);
            return Ok(());
        }
        self.conclude(task, &call, start, answer)
    }

    /// Returns a page once more, which the task has stored to meanwhile.
    fn return_again(&mut self, task: usize, mut call: Call) -> Result<(), Broken> {
        let (name, page, bytes) = &mut call.pages[self.random.below(call.returned)];
        scribble(&mut self.random, bytes);
        let flags = ReturnFlags {
            dirty: true,
            kernel_copy: !call.invalidate,
        };
        let (name, offset) = (name.clone(), (*page * bytes.len()) as u64);
        let open = self.tasks[task].open.get_mut(&name).expect("open objects stay");
        if let Some(resident) = open.resident.get_mut(page).filter(|resident| !resident.dirty) {
            resident.bytes.clone_from(bytes);
        }
        let (object, failed) = (open.object, self.disk.failed());
        if let Err(error) = self.store().data_return(call.id, object, offset, bytes, flags) {
            self.read_refused(failed, &error, &format!("returning page {page} of {name} again"))?;
            return self.abort(task, &call);
        }
        self.tasks[task].note_address(&mut call, &name);
        self.tasks[task].call = Some(call);
        Ok(())
    }

    fn abort(&mut self, task: usize, call: &Call) -> Result<(), Broken> {
        self.store().abort(call.id);
        self.tasks[task].mark_dirty(&call.pages);
        self.compare("abort")
    }

    fn range(&self, name: &str) -> ByteRange {
        ByteRange::new(0, self.supplied[name].bytes.len() as u64)
    }

    /// What is supplied after `call`.
    fn with(&self, call: &Call) -> Contents {
        let mut would = self.supplied.clone();
        for (name, page, bytes) in &call.pages {
            let object = would.get_mut(name).expect("open objects stay");
            object.bytes[page * bytes.len()..(page + 1) * bytes.len()].copy_from_slice(bytes);
            object.entry.version = None;
        }
        for (name, address) in &call.addresses {
            let object = would.get_mut(name).expect("open objects stay");
            let address = Some(Some(*address));
            if object.bytes != self.supplied[name].bytes {
                object.entry.address = address;
            } else if object.entry.address != address {
                // It goes with changed pages only, and pages that changed and changed back are such.
                object.entry.address = None;
            }
        }
        would
    }

    /// The call was sent: takes its completions, which all say the same, and brings the model up to date.
    fn conclude(
        &mut self,
        task: usize,
        call: &Call,
        start: usize,
        answer: Result<(), PagerError>,
    ) -> Result<(), Broken> {
        let mut outcomes = vec![];
        for name in &call.objects {
            let completed = self.tasks[task].open[name].ear.take_completed();
            if answer.is_ok() && (completed.len() != 1 || completed[0].0 != self.range(name)) {
                return Err(lost(format!(
                    "{} completions for {name} instead of one",
                    completed.len()
                )));
            }
            outcomes.extend(completed.into_iter().map(|(_, outcome)| outcome));
        }
        outcomes.push(answer.and_then(|()| outcomes.first().cloned().unwrap_or(Ok(()))));
        if outcomes.iter().any(Result::is_ok) != outcomes.iter().all(Result::is_ok) {
            return Err(mixed("one call's completions contradict each other"));
        }
        let kind = if call.synchronous { "SYNC" } else { "ASYNC" };
        let what = format!(
            "{kind} of {} pages of {}",
            call.pages.len(),
            call.objects.join(" and ")
        );
        let would = self.with(call);
        if let Some(Err(error)) = outcomes.pop() {
            // What was lost meanwhile, the call may rest on.
            self.refused(call.failed, &error, &what)?;
            self.tasks[task].mark_dirty(&call.pages);
            return self.failed(start, &would, &what);
        }
        self.supplied = would;
        if call.invalidate {
            self.tasks[task].invalidate(&call.pages);
        }
        if call.synchronous {
            return self.promised(start, &what);
        }
        let state = print(&self.supplied);
        self.step(start, false, state, what.clone());
        self.compare(&what)
    }
}

/// Whether both hold the same bytes, whatever the catalog says.
fn same_bytes(one: &Contents, other: &Contents) -> bool {
    let same =
        |(name, object): (&String, &Object)| other.get(name).is_some_and(|found| object.bytes == found.bytes);
    one.len() == other.len() && one.iter().all(same)
}

fn object_name(name: &str) -> ObjectName {
    ObjectName::new(name).expect("the names are valid")
}

/// One of so many pages; where their checksums lie in several sectors, mostly neighbours with checksums in two of them.
fn some_pages(random: &mut Random, pages: usize) -> Range<usize> {
    if pages <= SUMS_IN_SECTOR || random.once_in(4) {
        let page = random.below(pages);
        return page..page + 1;
    }
    let middle = SUMS_IN_SECTOR * (1 + random.below((pages - 1) / SUMS_IN_SECTOR));
    let before = 1 + random.below(NEIGHBOURS_MAX);
    let behind = 1 + random.below(NEIGHBOURS_MAX);
    middle - before..pages.min(middle + behind)
}

/// Changes some bytes of a page, or all, or none.
fn scribble(random: &mut Random, page: &mut [u8]) {
    match random.below(6) {
        0 => random.fill(page),
        1 => page.fill(random.number() as u8),
        2 => {}
        _ => {
            for _ in 0..=random.below(4) {
                let start = random.below(page.len());
                let end = (start + 1 + random.below(16)).min(page.len());
                random.fill(&mut page[start..end]);
            }
        }
    }
}
