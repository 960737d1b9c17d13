//! Threads that create, grow, map, commit, queue, flush and remove objects of one store, while operations of its disk fail now and
//! then, and while it is cut off at random moments. Each knows of its own object what was reported as durable. A call sets every page
//! that there is to its number, so that a mix shows.

mod common;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use common::{PAGE, State, client, contents, name, tiny};
use vmsync_core::{PagerError, PagerErrorKind, abi::VmProt, pager::SynchronizeFlags};
use vmsync_pager_conformance::{Client, random::Random};
use vmsync_pager_file::{
    Background, FileStore, Options,
    disk::memory::{Failure, Fault, MemoryDisk},
    verify_on,
};

const THREADS: u64 = 4;
/// Rounds of the test, each with a power cut, at least.
const ROUNDS: u64 = 60;
/// Objects that are removed and calls that fail before it ends.
const ENOUGH: u64 = 20;
/// Pages that an object grows to.
const PAGES_MAX: u64 = 6;

/// What a thread knows of its objects, of which it has one at a time.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    /// The number of its object; those before were reported as removed.
    object: u64,
    /// Whether it is certainly there: reported as created, and not being removed.
    there: bool,
    /// The last call that was reported as durable.
    durable: u64,
    /// The last call that began.
    begun: u64,
    removed: u64,
    failed: u64,
}

/// A thread's own.
struct Worker<'a> {
    index: u64,
    store: &'a Arc<FileStore>,
    known: &'a Mutex<Known>,
    random: Random,
    pages: u64,
}

fn object_name(thread: u64, object: u64) -> String {
    format!("{thread}-{object}")
}

/// The number that all pages of `bytes` have; those that the object grew by since have none.
fn number_of(bytes: &[u8]) -> u64 {
    let number = |page: &[u8]| u64::from_le_bytes(page[..8].try_into().unwrap());
    let pages: Vec<u64> = bytes.chunks(PAGE).map(number).collect();
    let first = pages[0];
    let grown = pages
        .iter()
        .position(|page| *page != first)
        .unwrap_or(pages.len());
    assert!(pages[grown..].iter().all(|page| *page == 0), "a mix: {pages:?}");
    for page in bytes[..grown * PAGE].chunks(8) {
        assert_eq!(page, first.to_le_bytes(), "a torn page of call {first}");
    }
    first
}

impl Worker<'_> {
    fn know(&self, change: impl FnOnce(&mut Known)) {
        change(&mut self.known.lock().unwrap());
    }

    /// Tries until it works: faults pass.
    fn insist<T>(&self, work: impl Fn() -> Result<T, PagerError>) -> T {
        loop {
            match work() {
                Ok(done) => return done,
                Err(error) => self.expected(&error),
            }
        }
    }

    fn expected(&self, error: &PagerError) {
        let kinds = [PagerErrorKind::Io, PagerErrorKind::NoSpace];
        assert!(kinds.contains(&error.kind), "thread {}: {error}", self.index);
    }

    fn create(&mut self) -> Client {
        self.pages = 1 + self.random.below(3);
        let number = self.known.lock().unwrap().object;
        let name = object_name(self.index, number);
        let object = self.insist(|| client(self.store, &name, self.pages));
        assert_eq!(number_of(&object.read(0, self.pages)), 0, "a new object is empty");
        self.know(|known| known.there = true);
        object
    }

    fn remove(&self, object: Client) {
        let number = self.known.lock().unwrap().object;
        self.know(|known| known.there = false);
        object.close();
        let name = name(&object_name(self.index, number));
        let mut tried = false;
        loop {
            match self.store.remove_object(&name) {
                Ok(()) => break,
                Err(error) if tried && error.kind == PagerErrorKind::NotFound => break,
                Err(error) => self.expected(&error),
            }
            tried = true;
        }
        self.know(|known| {
            *known = Known {
                object: number + 1,
                removed: known.removed + 1,
                failed: known.failed,
                ..Known::default()
            };
        });
    }

    /// A call that sets all pages. Queued, it is durable when a later one is.
    fn call(&mut self, object: &Client, synchronous: bool) -> Result<(), PagerError> {
        let call = Client::call();
        let number = self.known.lock().unwrap().begun + 1;
        self.know(|known| known.begun = number);
        let bytes = number.to_le_bytes().repeat(self.pages as usize * PAGE / 8);
        if let Err(error) = object.give(call, 0, &bytes) {
            object.pager().abort(call);
            return Err(error);
        }
        let flags = SynchronizeFlags {
            synchronous,
            more: false,
            nowait: self.random.once_in(2),
        };
        object.synchronize(call, (0, self.pages), flags)?;
        object.recorder.wait(object.range(0, self.pages))?;
        if synchronous {
            self.know(|known| known.durable = number);
        }
        Ok(())
    }

    fn step(&mut self, object: &Client) {
        let outcome = match self.random.below(12) {
            0..5 => self.call(object, true),
            5..8 => self.call(object, false),
            8 => {
                let pages = (self.pages + 1).min(PAGES_MAX);
                let grown = object.pager().grow(object.object, pages * PAGE as u64);
                grown.map(|attributes| self.pages = attributes.size / PAGE as u64)
            }
            9 => self.store.flush(),
            10 => {
                object.pager().map(object.object, 1 << 20, VmProt::READ_WRITE);
                let range = object.range(0, self.pages);
                object.pager().settle_image(object.object, range)
            }
            _ => self.store.checkpoint(),
        };
        if let Err(error) = outcome {
            self.expected(&error);
            self.know(|known| known.failed += 1);
        }
        let found = number_of(&object.read(0, self.pages));
        let known = *self.known.lock().unwrap();
        assert!(
            (known.durable..=known.begun).contains(&found),
            "thread {}: {found} is supplied, {known:?}",
            self.index
        );
    }

    /// Lives until it is stopped; its object.
    fn run(&mut self, stop: &AtomicBool) -> Client {
        let mut object = self.create();
        while !stop.load(Ordering::Relaxed) {
            self.step(&object);
            if self.random.once_in(12) {
                self.remove(object);
                object = self.create();
            }
        }
        object
    }
}

/// What the thread `index` has in `found`, which lay between `before` and `after`.
fn examine(found: &State, index: u64, before: Known, after: Known) {
    for (name, bytes) in found {
        let (thread, object) = name.split_once('-').unwrap();
        let object: u64 = object.parse().unwrap();
        if thread != index.to_string() {
            continue;
        }
        assert!(object >= before.object, "{name} was removed: {before:?}");
        let number = number_of(bytes);
        if object == before.object {
            assert!(number >= before.durable, "{name}: {number} is there, {before:?}");
        }
        if object == after.object {
            assert!(number <= after.begun, "{name}: {number} is there, {after:?}");
        }
    }
    if before.there && after.there && before.object == after.object {
        let name = object_name(index, before.object);
        assert!(found.contains_key(&name), "{name} is gone: {before:?}");
    }
}

fn open(disk: &MemoryDisk) -> State {
    assert_eq!(verify_on(disk).unwrap().problems, []);
    contents(&FileStore::open_on(Arc::new(disk.clone()), &tiny()).unwrap()).unwrap()
}

#[test]
fn objects_come_and_go_on_a_disk_that_fails() {
    let mut random = Random::from_environment("churn");
    let disk = MemoryDisk::new();
    let options = Options {
        segment_bytes: 64 << 10,
        background: Background::Thread,
        write_behind_delay: Duration::from_micros(200),
        ..tiny()
    };
    let store = FileStore::open_on(Arc::new(disk.clone()), &options).unwrap();
    let all: Vec<Mutex<Known>> = (0..THREADS).map(|_| Mutex::default()).collect();
    let look = || -> Vec<Known> { all.iter().map(|known| *known.lock().unwrap()).collect() };
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let mut workers = Vec::new();
        for (index, known) in (0..).zip(&all) {
            let mut worker = Worker {
                index,
                store: &store,
                known,
                random: Random::new(random.number()),
                pages: 0,
            };
            let stop = &stop;
            workers.push(scope.spawn(move || {
                let object = worker.run(stop);
                (worker, object)
            }));
        }
        let enough = || {
            let known = look();
            let sum = |count: fn(&Known) -> u64| known.iter().map(count).sum::<u64>();
            sum(|known| known.removed) >= ENOUGH && sum(|known| known.failed) >= ENOUGH
        };
        for round in 0.. {
            // A thread that has panicked goes no further.
            if (round >= ROUNDS && enough()) || workers.iter().any(|worker| worker.is_finished()) {
                break;
            }
            thread::sleep(Duration::from_millis(random.below(4)));
            disk.heal();
            let failures = [Failure::Io, Failure::NoSpace, Failure::FalseAlarm, Failure::Short];
            disk.inject(Fault {
                after: disk.operations() + random.below(20),
                count: 1 + random.below(3),
                failure: failures[random.below(4) as usize],
            });
            let before = look();
            let (mut draw, part) = (Random::new(random.number()), 1 + random.below(4));
            let left = disk.after_power_cut(&mut |_, _| draw.once_in(part));
            let after = look();
            let found = open(&left);
            for (index, (before, after)) in (0..).zip(before.into_iter().zip(after)) {
                examine(&found, index, before, after);
            }
        }
        stop.store(true, Ordering::Relaxed);
        for worker in workers {
            let (mut worker, object) = worker.join().unwrap();
            // Whatever failed before: on a disk that works calls do.
            disk.heal();
            worker.call(&object, true).unwrap();
            object.close();
        }
    });
    let known = look();
    println!("{known:?} {:?}", store.stats());
    drop(store);
    let found = open(&disk.after_power_cut(&mut |_, _| false));
    assert_eq!(
        found.len() as u64,
        THREADS,
        "removed objects are gone: {:?}",
        found.keys()
    );
    for (index, known) in (0..).zip(known) {
        let last = number_of(&found[&object_name(index, known.object)]);
        assert_eq!(last, known.durable, "thread {index}");
    }
}
