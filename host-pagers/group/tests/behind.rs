//! What comes behind a call that is lost: an engine that stops in a commit, and then refuses it.
//!
//! The task that made the call believes its pages to be safe, so what it returns behind it goes on from there.

use std::{
    mem,
    sync::{Arc, Mutex, mpsc},
    time::Duration,
};

use vmsync_core::{
    PageSize, PagerError, PagerErrorKind,
    pager::{InitRequest, SynchronizeFlags},
};
use vmsync_pager_conformance::Client;
use vmsync_pager_group::{Batch, Contents, Engine, Options, Pages, Place, Result, Store};

const WAIT: Duration = Duration::from_secs(30);

/// The store's thread commits it.
const BY_THREAD: SynchronizeFlags = SynchronizeFlags {
    nowait: true,
    ..SynchronizeFlags::SYNCHRONOUS
};

/// Pages in memory, and what the next commit waits for before it fails.
#[derive(Default)]
struct Failing {
    pages: Mutex<Pages>,
    fails: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl Engine for Failing {
    fn page_size(&self) -> PageSize {
        PageSize::KIB_4
    }

    fn name(&self) -> &str {
        "one that fails"
    }

    fn load(&self) -> Result<Contents> {
        Ok(Contents::default())
    }

    fn read(&self, (id, first): Place, buffer: &mut [u8]) -> Result<bool> {
        let pages = self.pages.lock().unwrap();
        for (page, target) in (first..).zip(buffer.chunks_exact_mut(4096)) {
            target.fill(pages.get(&(id, page)).map_or(0, |bytes| bytes[0]));
        }
        Ok(true)
    }

    fn commit(&self, batch: &Batch) -> Result<()> {
        let fails = mem::take(&mut *self.fails.lock().unwrap());
        if let Some(wait) = fails {
            wait();
            return Err(PagerError::new(PagerErrorKind::NoSpace, "it is full"));
        }
        self.pages.lock().unwrap().extend(batch.pages.clone());
        Ok(())
    }
}

/// A store that commits asynchronous calls after `delay`, and an object of two pages.
fn start(write_behind_delay: Duration) -> (Arc<Store<Failing>>, Client) {
    let options = Options {
        read_only: false,
        write_behind_delay,
        // Each call of several pages is a group of its own.
        group_bytes_max: 4096,
    };
    let store = Store::start(Failing::default(), options).unwrap();
    let request = InitRequest {
        page_size: PageSize::KIB_4,
        size_min: 2 * 4096,
        create: true,
        write: true,
    };
    let client = Client::open_with(store.clone(), "object", request).unwrap();
    (store, client)
}

/// A call of both pages, of which the client is told that it is queued.
fn queue(client: &Client, byte: u8) {
    let call = Client::call();
    client.give_full(call, 0, byte);
    client.give_full(call, 1, byte);
    client
        .synchronize(call, (0, 2), SynchronizeFlags::ASYNCHRONOUS)
        .unwrap();
    client.recorder.wait(client.range(0, 2)).unwrap();
}

/// Has the next commit fail: the first channel tells that it is under way, and it is until the second one is told.
fn fail_next(store: &Store<Failing>) -> (mpsc::Receiver<()>, mpsc::Sender<()>) {
    let (stopped, stops) = mpsc::channel();
    let (go_on, goes_on) = mpsc::channel::<()>();
    let wait = move || {
        stopped.send(()).unwrap();
        goes_on.recv_timeout(WAIT).unwrap();
    };
    *store.engine().fails.lock().unwrap() = Some(Box::new(wait));
    (stops, go_on)
}

/// The failure of [`queue`] was told, and neither that call nor one behind it shows.
#[track_caller]
fn assert_lost(client: &Client) {
    let told = client.recorder.take_write_behind_failures();
    let told: Vec<_> = told
        .into_iter()
        .map(|(range, error)| (range, error.kind))
        .collect();
    assert_eq!(told, [(client.range(0, 2), PagerErrorKind::NoSpace)]);
    client.assert_full(0, 1);
    client.assert_full(1, 1);
}

fn is_full(answer: Result<()>) -> bool {
    answer.is_err_and(|error| error.kind == PagerErrorKind::NoSpace)
}

#[test]
fn what_is_queued_behind_a_call_that_is_lost_fails_with_it() {
    let (store, client) = start(Duration::ZERO);
    queue(&client, 1);
    store.flush().unwrap();
    let (stops, go_on) = fail_next(&store);
    queue(&client, 2);
    stops.recv_timeout(WAIT).unwrap();
    // It has the first page only, for the second one is in the call before.
    let call = Client::call();
    client.give_full(call, 0, 3);
    client.synchronize(call, (0, 2), BY_THREAD).unwrap();
    go_on.send(()).unwrap();
    assert!(is_full(client.recorder.wait(client.range(0, 2))));
    assert_lost(&client);
    queue(&client, 4);
    store.flush().unwrap();
    client.assert_full(1, 4);
    client.close();
}

#[test]
fn what_was_returned_before_a_loss_was_told_fails_too() {
    let (store, client) = start(Duration::ZERO);
    queue(&client, 1);
    store.flush().unwrap();
    let (stops, go_on) = fail_next(&store);
    queue(&client, 2);
    stops.recv_timeout(WAIT).unwrap();
    let call = Client::call();
    client.give_full(call, 0, 3);
    go_on.send(()).unwrap();
    // Behind the loss or with it: it is over.
    let _ = store.flush();
    assert!(is_full(client.sync(call, 0, 2)));
    assert_lost(&client);
    client.commit_full(0, 4);
    client.close();
}

#[test]
fn a_flush_fails_where_something_is_lost_before_it() {
    let (store, client) = start(WAIT);
    queue(&client, 1);
    store.flush().unwrap();
    let (_stops, go_on) = fail_next(&store);
    go_on.send(()).unwrap();
    queue(&client, 2);
    assert!(is_full(store.flush()));
    assert_lost(&client);
    store.flush().unwrap();
    client.close();
}
