//! Many threads and one store, cut off at random moments: what was reported to any of them is there, calls over two
//! objects are whole, and what is read is never undone by calls that fail beside it.

mod common;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use common::{PAGE, client, contents, tiny};
use vmsync_core::{
    ByteRange, KernReturn, PageSize, PagerError,
    pager::{
        Attributes, InitRequest, LockRequest, MemoryObjectControl, ObjectId, ObjectName, Pager, ReturnFlags,
        SynchronizeFlags,
    },
};
use vmsync_pager_conformance::{Client, random::Random};
use vmsync_pager_file::{
    Background, FileStore, Options,
    disk::memory::{Failure, Fault, MemoryDisk},
    verify_on,
};

const THREADS: usize = 6;

/// What a thread was told, and the last that it tried.
#[derive(Default)]
struct Progress {
    reported: AtomicU64,
}

/// Writes a rising number to its own object and to its page of the shared one, in one call; whatever fails is tried
/// again with the next number. Without `faults` nothing does.
fn work(index: u64, (own, shared): (&Client, &Client), progress: &Progress, faults: bool, stop: &AtomicBool) {
    let mut last = 0;
    for number in 1u64.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let (call, mut page) = (Client::call(), vec![0; PAGE]);
        page[..8].copy_from_slice(&number.to_le_bytes());
        let given = own
            .give(call, number % 3, &page)
            .and_then(|()| shared.give(call, index, &page));
        assert!(given.is_ok());
        let flags = |more| SynchronizeFlags {
            synchronous: true,
            more,
            nowait: index % 2 == 1,
        };
        own.synchronize(call, (0, 4), flags(true)).unwrap();
        shared.synchronize(call, (index, 1), flags(false)).unwrap();
        let outcomes = (
            own.recorder.wait(own.range(0, 4)),
            shared.recorder.wait(shared.range(index, 1)),
        );
        assert_eq!(outcomes.0.is_ok(), outcomes.1.is_ok(), "one call, one outcome");
        if let Err(error) = &outcomes.0 {
            assert!(faults, "thread {index} at {number}: {error}");
        }
        if outcomes.0.is_ok() {
            progress.reported.store(number, Ordering::SeqCst);
            last = number;
        }
        let supplied = shared.read(index, 1);
        assert!(supplied[..8] == last.to_le_bytes(), "thread {index} at {number}");
    }
}

/// Opens what a power cut leaves, and compares it with what was reported before.
fn examine(disk: &MemoryDisk, reported: &[u64]) {
    disk.heal();
    assert_eq!(verify_on(disk).unwrap().problems, []);
    let store = FileStore::open_on(Arc::new(disk.clone()), &tiny()).unwrap();
    let found = contents(&store).unwrap();
    let number = |bytes: &[u8]| u64::from_le_bytes(bytes[..8].try_into().unwrap());
    for (index, least) in reported.iter().enumerate() {
        let shared = number(&found["shared"][index * PAGE..]);
        let own = found[&format!("own-{index}")]
            .chunks(PAGE)
            .map(number)
            .max()
            .unwrap();
        assert_eq!(shared, own, "thread {index}: a call over two objects is whole");
        assert!(
            shared >= *least,
            "thread {index}: {shared} is there, {least} was reported"
        );
    }
}

fn cut_off(faults: bool) {
    let mut random = Random::from_environment("threads");
    let disk = MemoryDisk::new();
    let options = Options {
        segment_bytes: 64 << 10,
        background: Background::Thread,
        ..tiny()
    };
    let store = FileStore::open_on(Arc::new(disk.clone()), &options).unwrap();
    let shared = client(&store, "shared", THREADS as u64).unwrap();
    let own: Vec<Client> = (0..THREADS)
        .map(|index| client(&store, &format!("own-{index}"), 4).unwrap())
        .collect();
    let progress: Vec<Progress> = (0..THREADS).map(|_| Progress::default()).collect();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for (index, own) in own.iter().enumerate() {
            let (shared, progress, stop) = (&shared, &progress[index], &stop);
            scope.spawn(move || work(index as u64, (own, shared), progress, faults, stop));
        }
        // More where few calls come in that time.
        let enough = || {
            let stats = store.stats();
            stats.calls > 100 && stats.checkpoints > 0
        };
        for round in 0..20_000 {
            if round >= 60 && enough() {
                break;
            }
            thread::sleep(Duration::from_millis(random.below(4)));
            if faults && random.once_in(2) {
                disk.heal();
                let failures = [Failure::Io, Failure::NoSpace, Failure::FalseAlarm, Failure::Short];
                let failure = failures[random.below(4) as usize];
                disk.inject(Fault {
                    after: disk.operations() + random.below(20),
                    count: 2,
                    failure,
                });
            }
            let reported: Vec<u64> = progress
                .iter()
                .map(|progress| progress.reported.load(Ordering::SeqCst))
                .collect();
            let salt = random.number();
            let mut draw = Random::new(salt);
            let part = 1 + random.below(4);
            examine(&disk.after_power_cut(&mut |_, _| draw.once_in(part)), &reported);
        }
        stop.store(true, Ordering::Relaxed);
    });
    let stats = store.stats();
    println!("{stats:?}");
    assert!(stats.calls > 100 && stats.checkpoints > 0);
    // Whatever failed before: on a disk that works calls do.
    disk.heal();
    own.iter().for_each(|client| client.commit_full(0, 1));
    own.iter().for_each(|client| client.recorder.assert_exact());
}

const DIRTY: ReturnFlags = ReturnFlags {
    dirty: true,
    kernel_copy: true,
};

/// Tells which thread answers.
struct WhoAnswers {
    answers: Mutex<mpsc::Sender<Option<String>>>,
    /// What the thread does before the next answer is told.
    first: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl WhoAnswers {
    fn new() -> (Arc<Self>, mpsc::Receiver<Option<String>>) {
        let (sender, answers) = mpsc::channel();
        let control = Self {
            answers: Mutex::new(sender),
            first: Mutex::default(),
        };
        (Arc::new(control), answers)
    }
}

impl MemoryObjectControl for WhoAnswers {
    fn synchronize_completed(
        &self,
        _: ByteRange,
        result: std::result::Result<(), PagerError>,
    ) -> std::result::Result<(), KernReturn> {
        result.expect("the disk works");
        let first = self.first.lock().unwrap().take();
        if let Some(first) = first {
            first();
        }
        let name = thread::current().name().map(str::to_owned);
        self.answers.lock().unwrap().send(name).unwrap();
        Ok(())
    }

    fn write_behind_failed(&self, _: ByteRange, error: PagerError) {
        panic!("{error}");
    }

    fn lock_request(&self, _: LockRequest) -> std::result::Result<(), KernReturn> {
        Ok(())
    }

    fn change_attributes(&self, _: Attributes) {}

    fn destroy(&self, reason: PagerError) {
        panic!("{reason}");
    }
}

/// Opens the object with id 1, one page of it.
fn open_page(store: &FileStore, control: Arc<WhoAnswers>) {
    let request = InitRequest {
        page_size: PageSize::KIB_4,
        size_min: PAGE as u64,
        create: true,
        write: true,
    };
    let name = ObjectName::new("object").unwrap();
    store.init(ObjectId(1), &name, request, control).unwrap();
}

/// A call that fills the page.
fn fill_page(store: &FileStore, byte: u8, flags: SynchronizeFlags) {
    let (call, range) = (Client::call(), ByteRange::new(0, PAGE as u64));
    store
        .data_return(call, ObjectId(1), 0, &[byte; PAGE], DIRTY)
        .unwrap();
    store.synchronize(call, ObjectId(1), range, flags).unwrap();
}

/// Who answers a synchronous call that this thread makes.
fn who_commits(store: &FileStore, answers: &mpsc::Receiver<Option<String>>, nowait: bool) -> Option<String> {
    let flags = SynchronizeFlags {
        nowait,
        ..SynchronizeFlags::SYNCHRONOUS
    };
    let range = ByteRange::new(0, PAGE as u64);
    store
        .synchronize(Client::call(), ObjectId(1), range, flags)
        .unwrap();
    answers.recv_timeout(Duration::from_secs(60)).expect("an answer")
}

#[test]
fn calls_that_come_during_a_flush_share_the_next() {
    const CALLS: u64 = 10;
    let store = FileStore::open_on(
        Arc::new(MemoryDisk::new()),
        &Options {
            segment_bytes: 1 << 20,
            ..tiny()
        },
    )
    .unwrap();
    let (control, answers) = WhoAnswers::new();
    open_page(&store, control.clone());
    let before = store.stats();
    let weak = Arc::downgrade(&store);
    // Who flushes has the role until it has told the outcome.
    *control.first.lock().unwrap() = Some(Box::new(move || {
        let store = weak.upgrade().expect("a call is under way");
        (0..CALLS).for_each(|number| fill_page(&store, 100 + number as u8, SynchronizeFlags::SYNCHRONOUS));
    }));
    fill_page(&store, 1, SynchronizeFlags::SYNCHRONOUS);
    assert_eq!(answers.try_iter().count() as u64, 1 + CALLS);
    let after = store.stats();
    let (calls, syncs) = (after.calls - before.calls, after.syncs - before.syncs);
    assert_eq!((calls, syncs), (1 + CALLS, 2));
}

#[test]
fn a_caller_with_other_work_leaves_the_commit_to_the_stores_thread() {
    for background in [Background::Thread, Background::Caller] {
        // Queued a moment before its caller commits it, a call is not the thread's either.
        let options = Options {
            background,
            write_behind_delay: Duration::MAX,
            ..tiny()
        };
        let store = FileStore::open_on(Arc::new(MemoryDisk::new()), &options).unwrap();
        let (control, answers) = WhoAnswers::new();
        open_page(&store, control);
        let own = thread::current().name().map(str::to_owned);
        assert_eq!(who_commits(&store, &answers, false), own);
        if background == Background::Caller {
            assert_eq!(who_commits(&store, &answers, true), own, "it has no thread");
            continue;
        }
        let other = who_commits(&store, &answers, true);
        assert_eq!(other.as_deref(), Some("vmsync-store"));
    }
}

/// Who leaves a call to the store's thread must not take a wake-up for one that was meant for a call before.
#[test]
fn no_call_that_is_left_to_the_thread_is_forgotten() {
    let options = Options {
        background: Background::Thread,
        ..tiny()
    };
    let store = FileStore::open_on(Arc::new(MemoryDisk::new()), &options).unwrap();
    thread::scope(|scope| {
        for index in 0..8 {
            let object = client(&store, &format!("object-{index}"), 1).unwrap();
            scope.spawn(move || {
                for round in 0..3000_u32 {
                    let call = Client::call();
                    object.give_full(call, 0, round as u8);
                    let flags = SynchronizeFlags {
                        nowait: true,
                        ..SynchronizeFlags::SYNCHRONOUS
                    };
                    object.synchronize(call, (0, 1), flags).unwrap();
                    object.recorder.wait(object.range(0, 1)).unwrap();
                }
            });
        }
    });
}

/// Pages that come while the thread has nothing to do wait for others as the first ones did, for the next call may change
/// them again; put into the image at once, they took the processor and the drive from that call.
#[test]
fn pages_wait_before_they_are_put_into_the_image() {
    const PAGES: u64 = 128;
    let options = Options {
        background: Background::Thread,
        ..Options::default()
    };
    let disk = MemoryDisk::new();
    let store = FileStore::open_on(Arc::new(disk.clone()), &options).unwrap();
    let object = client(&store, "object", 2 * PAGES).unwrap();
    let waited = (1..=50_u8).any(|number| {
        let (call, before) = (Client::call(), disk.operations());
        // No two in a row: each of them is a write to the image.
        for page in 0..PAGES {
            object.give(call, 2 * page, &[number; PAGE]).unwrap();
        }
        let flags = SynchronizeFlags::SYNCHRONOUS;
        object.synchronize(call, (0, 2 * PAGES), flags).unwrap();
        object.recorder.wait(object.range(0, 2 * PAGES)).unwrap();
        thread::sleep(Duration::from_millis(20));
        let waits = disk.operations() - before < PAGES;
        for _ in 0..6000 {
            if disk.operations() - before >= PAGES {
                return number > 1 && waits;
            }
            thread::sleep(Duration::from_millis(10));
        }
        panic!("pages are not put into the image");
    });
    assert!(waited, "they are put into the image at once");
}

fn wait_for(what: &str, is_so: &dyn Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(60), "{what}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// No commit waits for the making of a journal file, which takes metadata and many bytes.
#[test]
fn a_segment_is_made_before_it_is_needed() {
    let options = Options {
        background: Background::Thread,
        segment_bytes: 64 << 10,
        ..Options::default()
    };
    let disk = MemoryDisk::new();
    let store = FileStore::open_on(Arc::new(disk.clone()), &options).unwrap();
    let object = client(&store, "object", 1).unwrap();
    let hold = disk.hold("journal-1");
    // There is room for some more.
    (1..11).for_each(|byte| object.commit_full(0, byte));
    wait_for("another segment is being made", &|| disk.waiting() > 0);
    object.commit_full(0, 11);
    drop(hold);
    wait_for("it is made", &|| {
        disk.content("journal-1")
            .is_some_and(|content| content.len() == 64 << 10)
    });
    (12..20).for_each(|byte| object.commit_full(0, byte));
    assert!(disk.content("journal-2").is_none());
}

/// A drive may take its time to write an image. Until the journal is at its bound, nobody else waits for that: neither a call that
/// is left to the store's thread, nor a queued one.
#[test]
fn a_checkpoint_that_takes_long_keeps_no_call_waiting() {
    let options = Options {
        background: Background::Thread,
        write_behind_delay: Duration::from_millis(1),
        ..tiny()
    };
    let disk = MemoryDisk::new();
    let store = FileStore::open_on(Arc::new(disk.clone()), &options).unwrap();
    let object = client(&store, "object", 1).unwrap();
    object.commit_full(0, 1);
    let hold = disk.hold("object-1");
    (2..6).for_each(|byte| object.commit_full(0, byte));
    wait_for("a checkpoint begins", &|| disk.waiting() > 0);
    // Who waits need not be the store's thread.
    let flags = SynchronizeFlags {
        nowait: true,
        ..SynchronizeFlags::SYNCHRONOUS
    };
    for (byte, flags) in [
        (6, SynchronizeFlags::SYNCHRONOUS),
        (7, flags),
        (8, SynchronizeFlags::ASYNCHRONOUS),
    ] {
        let (call, records) = (Client::call(), store.stats().records);
        object.give_full(call, 0, byte);
        object.synchronize(call, (0, 1), flags).unwrap();
        object.recorder.wait(object.range(0, 1)).unwrap();
        wait_for("it is written", &|| store.stats().records > records);
    }
    assert_eq!((disk.waiting(), store.stats().checkpoints), (1, 0));
    drop(hold);
    wait_for("the checkpoint ends", &|| store.stats().checkpoints > 0);
}

/// Who is told of a loss may panic. That is what the store tells from then on: a sync again would not help.
#[test]
fn a_panic_while_a_loss_is_told_is_told_from_then_on() {
    let disk = MemoryDisk::new();
    let store = FileStore::open_on(Arc::new(disk.clone()), &tiny()).unwrap();
    let object = client(&store, "object", 1).unwrap();
    let request = InitRequest {
        page_size: PageSize::KIB_4,
        size_min: 0,
        create: false,
        write: false,
    };
    let name = ObjectName::new("object").unwrap();
    let (reader, _answers) = WhoAnswers::new();
    store.init(ObjectId(u64::MAX), &name, request, reader).unwrap();
    disk.inject(Fault {
        after: disk.operations(),
        count: 1,
        failure: Failure::Io,
    });
    let call = Client::call();
    object.give_full(call, 0, 1);
    object
        .synchronize(call, (0, 1), SynchronizeFlags::SYNCHRONOUS)
        .unwrap();
    let error = object.try_commit_full(0, 2).unwrap_err();
    assert!(error.message.contains("open it again"), "{error}");
}

/// The delay of a queued call counts from when it was queued, whatever comes behind it.
#[test]
fn calls_that_follow_each_other_quickly_are_written_all_the_same() {
    let options = Options {
        background: Background::Thread,
        write_behind_delay: Duration::from_millis(50),
        ..Options::default()
    };
    let store = FileStore::open_on(Arc::new(MemoryDisk::new()), &options).unwrap();
    let object = client(&store, "object", 1).unwrap();
    let before = store.stats().records;
    let start = Instant::now();
    for number in 0_u64.. {
        let call = Client::call();
        object.give_full(call, 0, number as u8);
        object
            .synchronize(call, (0, 1), SynchronizeFlags::ASYNCHRONOUS)
            .unwrap();
        object.recorder.wait(object.range(0, 1)).unwrap();
        if store.stats().records > before {
            break;
        }
        assert!(start.elapsed() < Duration::from_secs(20), "{number} calls wait");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_store_that_its_own_thread_lets_go_of_writes_what_is_queued() {
    let options = Options {
        background: Background::Thread,
        write_behind_delay: Duration::MAX,
        ..Options::default()
    };
    let disk = MemoryDisk::new();
    let store = FileStore::open_on(Arc::new(disk.clone()), &options).unwrap();
    let (control, answers) = WhoAnswers::new();
    open_page(&store, control.clone());
    let (own, weak) = (store.clone(), Arc::downgrade(&store));
    *control.first.lock().unwrap() = Some(Box::new(move || {
        while Arc::strong_count(&own) > 1 {
            thread::yield_now();
        }
        // It lets go of the store as the last.
        fill_page(&own, 7, SynchronizeFlags::ASYNCHRONOUS);
    }));
    let flags = SynchronizeFlags {
        nowait: true,
        ..SynchronizeFlags::SYNCHRONOUS
    };
    fill_page(&store, 6, flags);
    drop(store);
    for _ in 0..2 {
        let answered = answers.recv_timeout(Duration::from_secs(60)).unwrap();
        assert_eq!(answered.as_deref(), Some("vmsync-store"));
    }
    // The thread ends, and gives up the disk.
    let start = Instant::now();
    let again = loop {
        match FileStore::open_on(Arc::new(disk.clone()), &options) {
            Ok(store) => break store,
            Err(error) => assert!(start.elapsed() < Duration::from_secs(20), "{error}"),
        }
        thread::sleep(Duration::from_millis(1));
    };
    assert!(weak.upgrade().is_none());
    assert_eq!(client(&again, "object", 1).unwrap().read(0, 1)[0], 7);
}

#[test]
fn power_cuts_under_load() {
    cut_off(false);
}

#[test]
fn power_cuts_and_failures_under_load() {
    cut_off(true);
}
