//! What is supplied is one moment's, also while a commit is half way: an engine that stops there.

use std::{
    mem,
    panic::{self, AssertUnwindSafe},
    sync::{Arc, Mutex, mpsc},
    thread,
    time::Duration,
};

use vmsync_core::{
    PageSize, PagerErrorKind,
    pager::{InitRequest, SynchronizeFlags},
};
use vmsync_pager_conformance::Client;
use vmsync_pager_group::{Batch, Contents, Engine, Options, Pages, Place, Result, Store};

const WAIT: Duration = Duration::from_secs(30);

type Once = Mutex<Option<Box<dyn FnOnce() + Send>>>;

/// Pages in memory, and what to do once at certain points.
#[derive(Default)]
struct Slow {
    pages: Mutex<Pages>,
    before_read: Once,
    behind_commit: Once,
}

fn run(once: &Once) {
    let work = mem::take(&mut *once.lock().unwrap());
    if let Some(work) = work {
        work();
    }
}

impl Engine for Slow {
    fn page_size(&self) -> PageSize {
        PageSize::KIB_4
    }

    fn name(&self) -> &str {
        "pages in memory"
    }

    fn load(&self) -> Result<Contents> {
        Ok(Contents::default())
    }

    fn read(&self, (id, first): Place, buffer: &mut [u8]) -> Result<bool> {
        run(&self.before_read);
        let pages = self.pages.lock().unwrap();
        let end = first + (buffer.len() / 4096) as u64;
        if pages.range((id, first)..(id, end)).next().is_none() {
            return Ok(false);
        }
        for (page, target) in (first..).zip(buffer.chunks_exact_mut(4096)) {
            match pages.get(&(id, page)) {
                Some(bytes) => target.copy_from_slice(bytes),
                None => target.fill(0),
            }
        }
        Ok(true)
    }

    fn commit(&self, batch: &Batch) -> Result<()> {
        self.pages.lock().unwrap().extend(batch.pages.clone());
        run(&self.behind_commit);
        Ok(())
    }
}

/// A store with an object of `pages` pages.
fn start(pages: u64) -> (Arc<Store<Slow>>, Client) {
    let options = Options {
        read_only: false,
        write_behind_delay: WAIT,
        group_bytes_max: 1 << 20,
    };
    let store = Store::start(Slow::default(), options).unwrap();
    let request = InitRequest {
        page_size: PageSize::KIB_4,
        size_min: pages * 4096,
        create: true,
        write: true,
    };
    let client = Client::open_with(store.clone(), "object", request).unwrap();
    (store, client)
}

#[test]
fn a_caller_with_other_work_does_not_wait_for_the_engine() {
    let (store, client) = start(1);
    for byte in 1..=3 {
        let (go_on, goes_on) = mpsc::channel::<()>();
        *store.engine().behind_commit.lock().unwrap() = Some(Box::new(move || {
            goes_on.recv_timeout(WAIT).expect("the caller goes on");
        }));
        let call = Client::call();
        client.give_full(call, 0, byte);
        let flags = SynchronizeFlags {
            nowait: true,
            ..SynchronizeFlags::SYNCHRONOUS
        };
        client.synchronize(call, (0, 1), flags).unwrap();
        // The engine waits for this; were it this thread that commits, it would wait in vain.
        go_on.send(()).unwrap();
        client.recorder.wait(client.range(0, 1)).unwrap();
        client.assert_full(0, byte);
    }
    client.recorder.assert_exact();
}

#[test]
fn a_read_shows_a_call_as_a_whole_or_not_at_all() {
    let (store, client) = start(2);
    let client = Arc::new(client);
    // A call of the first page is queued.
    let call = Client::call();
    client.give_full(call, 0, 1);
    let flags = SynchronizeFlags::ASYNCHRONOUS;
    client.synchronize(call, (0, 1), flags).unwrap();
    client.recorder.wait(client.range(0, 1)).unwrap();
    // The next one, of both pages, is committed with it while both are read: the engine has them before the store knows.
    let (shown, showing) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let behind = move || {
        shown.send(()).unwrap();
        released.recv_timeout(WAIT).unwrap();
    };
    *store.engine().behind_commit.lock().unwrap() = Some(Box::new(behind));
    let (writer, own) = (Arc::new(Mutex::new(None)), client.clone());
    let started = writer.clone();
    let before = move || {
        let next = move || {
            let call = Client::call();
            own.give_full(call, 0, 2);
            own.give_full(call, 1, 2);
            own.sync(call, 0, 2).unwrap();
        };
        *started.lock().unwrap() = Some(thread::spawn(next));
        showing.recv_timeout(WAIT).unwrap();
    };
    *store.engine().before_read.lock().unwrap() = Some(Box::new(before));
    let found = client.read(0, 2);
    release.send(()).unwrap();
    writer.lock().unwrap().take().unwrap().join().unwrap();
    assert_eq!((found[0], found[4096]), (2, 2));
    client.assert_full(1, 2);
}

/// What an engine that panicked has done is not known.
#[test]
fn an_engine_that_panics_ends_the_store_and_every_call() {
    let (store, client) = start(2);
    let gone = |answer: Result<()>| answer.unwrap_err().kind == PagerErrorKind::Gone;
    *store.engine().behind_commit.lock().unwrap() = Some(Box::new(|| panic!("a test's")));
    // The store's thread commits it, as its caller does not wait.
    let call = Client::call();
    client.give_full(call, 0, 1);
    let flags = SynchronizeFlags {
        nowait: true,
        ..SynchronizeFlags::SYNCHRONOUS
    };
    client.synchronize(call, (0, 1), flags).unwrap();
    assert!(gone(client.recorder.wait(client.range(0, 1))));
    assert!(gone(client.try_commit_full(1, 2)), "nothing is built on it");
    client.recorder.assert_exact();
    // The caller commits it.
    let (store, client) = start(2);
    *store.engine().behind_commit.lock().unwrap() = Some(Box::new(|| panic!("a test's")));
    let committed = panic::catch_unwind(AssertUnwindSafe(|| client.try_commit_full(0, 1)));
    assert!(gone(committed.expect("an error instead")));
    assert!(store.flush().is_err());
}

#[test]
fn a_read_that_is_repeated_leaves_the_buffer_of_what_is_not_there() {
    let (store, client) = start(4);
    let client = Arc::new(client);
    let own = client.clone();
    // A commit of other pages of the object comes between.
    let commit = move || thread::spawn(move || own.commit_full(3, 1)).join().unwrap();
    *store.engine().before_read.lock().unwrap() = Some(Box::new(commit));
    assert!(client.read(0, 2).iter().all(|byte| *byte == 0));
}
