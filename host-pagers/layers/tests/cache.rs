//! A local store in front of a remote one: it spares requests, and never shows anything but what the remote one has.

use std::{
    fs,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use vmsync_core::{
    ByteRange, PageSize, PagerError, PagerErrorKind,
    abi::VmProt,
    pager::{
        Attributes, CallId, DataSupply, InitRequest, MemoryObjectControl, ObjectId, ObjectName, Pager,
        ReturnFlags, SynchronizeFlags,
    },
};
use vmsync_pager_conformance::{Client, Fault, ScriptedPager, random::Random};
use vmsync_pager_file::{FileStore, Options};
use vmsync_pager_layers::{Cache, Counted};
use vmsync_pager_memory::MemoryPager;

const PAGES: u64 = 20;
const LARGE_PAGES: u64 = 2000;

fn store(folder: &Path) -> Arc<dyn Pager> {
    FileStore::open(folder, &Default::default()).unwrap()
}

fn open(pager: Arc<dyn Pager>) -> Client {
    open_with(pager, "object", PAGES)
}

/// An object whose pages are in several groups of the copy.
fn open_large(pager: Arc<dyn Pager>) -> Client {
    open_with(pager, "object", LARGE_PAGES)
}

fn open_with(pager: Arc<dyn Pager>, name: &str, pages: u64) -> Client {
    let request = InitRequest {
        page_size: PageSize::KIB_4,
        size_min: pages * 4096,
        create: true,
        write: true,
    };
    Client::open_with(pager, name, request).unwrap()
}

fn open_to_read(pager: Arc<dyn Pager>) -> Client {
    let request = InitRequest {
        page_size: PageSize::KIB_4,
        size_min: PAGES * 4096,
        create: false,
        write: false,
    };
    Client::open_with(pager, "object", request).unwrap()
}

/// A remote and a local store.
struct Places {
    remote: tempfile::TempDir,
    local: tempfile::TempDir,
}

impl Places {
    fn new() -> Self {
        let [remote, local] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        Self { remote, local }
    }

    /// The object through the cache, and what counts the calls that reach the remote store.
    fn open(&self) -> (Client, Arc<Counted>) {
        let counted = Arc::new(Counted::over(store(self.remote.path())));
        let cache = Cache::over(counted.clone(), store(self.local.path()), "here");
        (open(Arc::new(cache)), counted)
    }

    /// Another host changes a page.
    fn change_elsewhere(&self, page: u64, byte: u8) {
        let client = open(store(self.remote.path()));
        client.commit_full(page, byte);
        client.close();
    }
}

#[test]
fn pages_that_were_used_once_ask_the_remote_store_no_more() {
    let places = Places::new();
    places.change_elsewhere(7, 70);
    let (client, counted) = places.open();
    client.commit_full(0, 1);
    client.commit_full(1, 2);
    client.assert_full(7, 70);
    assert_eq!(counted.counts().requests, 1);
    client.assert_full(7, 70);
    client.assert_full(0, 1);
    assert_eq!(counted.counts().requests, 1);
    client.close();
    drop(counted);
    let (client, counted) = places.open();
    client.assert_full(0, 1);
    client.assert_full(1, 2);
    client.assert_full(7, 70);
    assert_eq!(counted.counts().requests, 0, "also after a restart");
    client.close();
}

#[test]
fn a_local_store_may_have_nothing_of_pages_that_were_never_written() {
    let places = Places::new();
    let local = Arc::new(MemoryPager::default());
    for requests in [1, 0] {
        let counted = Arc::new(Counted::over(store(places.remote.path())));
        let client = open_large(Arc::new(Cache::over(counted.clone(), local.clone(), "here")));
        client.assert_full(LARGE_PAGES - 1, 0);
        assert_eq!(counted.counts().requests, requests);
        client.close();
    }
}

#[test]
fn what_another_host_has_changed_is_seen() {
    let places = Places::new();
    let (client, counted) = places.open();
    client.commit_full(0, 1);
    client.commit_full(1, 1);
    client.close();
    drop(counted);
    places.change_elsewhere(1, 2);
    let (client, counted) = places.open();
    client.assert_full(0, 1);
    client.assert_full(1, 2);
    client.close();
    drop(counted);
}

#[test]
fn the_copy_of_another_store_is_not_used() {
    let places = Places::new();
    let (client, counted) = places.open();
    client.commit_full(0, 1);
    client.close();
    drop(counted);
    // The same version of an object of the same name.
    let other = tempfile::tempdir().unwrap();
    let client = open(store(other.path()));
    client.commit_full(0, 2);
    client.close();
    let cache = Cache::over(store(other.path()), store(places.local.path()), "there");
    let client = open(Arc::new(cache));
    client.assert_full(0, 2);
    client.close();
}

fn failure() -> PagerError {
    PagerError::new(PagerErrorKind::Io, "scripted")
}

#[test]
fn a_call_that_fails_shows_nothing() {
    let places = Places::new();
    let scripted = Arc::new(ScriptedPager::new(store(places.remote.path())));
    let cache = Cache::over(scripted.clone(), store(places.local.path()), "here");
    let client = open(Arc::new(cache));
    client.commit_full(0, 1);
    for fault in [
        Fault::Return(Some(failure())),
        Fault::Synchronize(Some(failure())),
    ] {
        scripted.inject(fault);
        let call = Client::call();
        let given = client.give(call, 0, &[2; 4096]);
        let committed = given.and_then(|()| client.sync(call, 0, PAGES));
        assert_eq!(committed.unwrap_err(), failure());
        client.pager().abort(call);
        client.assert_full(0, 1);
        client.commit_full(1, 3);
        client.assert_full(0, 1);
    }
    client.close();
}

/// Whichever request of a call over two objects is refused, the copies of both move on with the next calls.
#[test]
fn a_request_that_is_refused_is_not_waited_for() {
    let places = Places::new();
    let counted = Arc::new(Counted::over(store(places.remote.path())));
    let cache = Arc::new(Cache::over(counted.clone(), store(places.local.path()), "here"));
    let clients = ["first", "second"].map(|name| open_with(cache.clone(), name, PAGES));
    let last = SynchronizeFlags {
        synchronous: true,
        ..SynchronizeFlags::ASYNCHRONOUS
    };
    let flags = [SynchronizeFlags { more: true, ..last }, last];
    for refused in 0..2 {
        let call = Client::call();
        for (index, client) in clients.iter().enumerate() {
            client.give_full(call, 0, 1);
            let first = if index == refused { PAGES } else { 0 };
            let asked = client.synchronize(call, (first, 1), flags[index]);
            assert_eq!(asked.is_err(), index == refused);
            if index == refused {
                break;
            }
        }
        cache.abort(call);
        for client in &clients {
            client.recorder.forget(client.range(0, 1));
            // What the page is, after two calls have touched it, only the remote store knows.
            client.commit_full(0, 2);
            client.commit_full(0, 3);
            client.assert_full(0, 3);
        }
        assert_eq!(counted.counts().requests, 0);
    }
    clients.into_iter().for_each(Client::close);
}

#[test]
fn a_local_store_that_fails_is_done_without() {
    let places = Places::new();
    let scripted = Arc::new(ScriptedPager::new(store(places.local.path())));
    let cache = Cache::over(store(places.remote.path()), scripted.clone(), "here");
    let client = open(Arc::new(cache));
    client.commit_full(0, 1);
    scripted.inject(Fault::Return(Some(failure())));
    client.commit_full(0, 2);
    client.assert_full(0, 2);
    client.commit_full(0, 3);
    client.assert_full(0, 3);
    client.close();
    drop(scripted);
    let (client, counted) = places.open();
    client.assert_full(0, 3);
    assert_eq!(counted.counts().requests, 1, "the copy says that it is of no use");
    client.close();
}

/// The next write to the copy is lost, which is told too late.
fn lose_a_write(local: &ScriptedPager) {
    local.hold_completions();
    local.inject(Fault::Completion(Some(failure())));
}

#[test]
fn a_write_to_the_copy_that_was_lost_is_not_brought_back_by_the_next_one() {
    let places = Places::new();
    places.change_elsewhere(7, 70);
    places.change_elsewhere(8, 80);
    let local = Arc::new(ScriptedPager::new(store(places.local.path())));
    let cache = Cache::over(store(places.remote.path()), local.clone(), "here");
    let client = open(Arc::new(cache));
    lose_a_write(&local);
    client.assert_full(7, 70);
    client.assert_full(8, 80);
    client.close();
    drop(local);
    let (client, counted) = places.open();
    client.assert_full(7, 70);
    client.assert_full(8, 80);
    client.close();
    drop(counted);
}

#[test]
fn a_version_of_the_copy_that_was_lost_is_not_passed_over_by_the_next_one() {
    for next in [1, LARGE_PAGES - 1] {
        let places = Places::new();
        let local = Arc::new(ScriptedPager::new(store(places.local.path())));
        let cache = Cache::over(store(places.remote.path()), local.clone(), "here");
        let client = open_large(Arc::new(cache));
        client.commit_full(0, 1);
        lose_a_write(&local);
        client.commit_full(0, 2);
        client.commit_full(next, 3);
        client.close();
        drop(local);
        let cache = Cache::over(store(places.remote.path()), store(places.local.path()), "here");
        let client = open_large(Arc::new(cache));
        client.assert_full(0, 2);
        client.assert_full(next, 3);
        client.close();
    }
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// A store that leaves asynchronous calls queued.
fn late_store(folder: &Path) -> Arc<dyn Pager> {
    let options = Options {
        write_behind_delay: Duration::from_secs(3600),
        ..Options::default()
    };
    FileStore::open(folder, &options).unwrap()
}

/// Pages 0 and 1 are durable as 1 and queued as 2 when the object is closed.
fn close_with_a_queued_call(client: Client) {
    client.commit_full(0, 1);
    client.commit_full(1, 1);
    let call = Client::call();
    client.give_full(call, 0, 2);
    client.give_full(call, 1, 2);
    client
        .synchronize(call, (0, PAGES), SynchronizeFlags::ASYNCHRONOUS)
        .unwrap();
    client.recorder.wait(client.range(0, PAGES)).unwrap();
    client.close();
}

#[test]
fn what_was_queued_when_the_object_was_closed_is_seen() {
    let places = Places::new();
    let remote = late_store(places.remote.path());
    let cache = Arc::new(Cache::over(remote, store(places.local.path()), "here"));
    close_with_a_queued_call(open(cache.clone()));
    let client = open(cache);
    client.assert_full(0, 2);
    client.assert_full(1, 2);
    client.commit_full(2, 3);
    client.assert_full(0, 2);
    client.close();
}

#[test]
fn what_was_queued_when_the_object_was_closed_is_not_kept_before_it_is_durable() {
    let mut places = Places::new();
    let cache = Arc::new(Cache::over(
        late_store(places.remote.path()),
        store(places.local.path()),
        "here",
    ));
    close_with_a_queued_call(open(cache.clone()));
    let client = open(cache.clone());
    client.assert_full(0, 2);
    client.close();
    // The remote store's host loses power before it has written what is queued.
    let lost = tempfile::tempdir().unwrap();
    copy(places.remote.path(), lost.path());
    drop(cache);
    places.remote = lost;
    let (client, counted) = places.open();
    client.assert_full(0, 1);
    client.close();
    drop(counted);
}

#[test]
fn a_call_that_is_answered_after_the_object_was_closed_and_opened_again() {
    let places = Places::new();
    let scripted = Arc::new(ScriptedPager::new(store(places.remote.path())));
    let cache = Arc::new(Cache::over(scripted.clone(), store(places.local.path()), "here"));
    let client = open(cache.clone());
    client.commit_full(0, 1);
    scripted.hold_completions();
    let call = Client::call();
    client.give_full(call, 0, 2);
    let synchronous = SynchronizeFlags {
        synchronous: true,
        ..SynchronizeFlags::ASYNCHRONOUS
    };
    client.synchronize(call, (0, 1), synchronous).unwrap();
    // The guest gets ABORTED, and ends.
    cache.terminate(client.object);
    let again = open(cache.clone());
    again.assert_full(0, 2);
    assert_eq!(scripted.release(), [Ok(())]);
    again.commit_full(1, 3);
    again.assert_full(0, 2);
    again.close();
    drop((client, cache, scripted));
    let (client, counted) = places.open();
    client.assert_full(0, 2);
    client.assert_full(1, 3);
    client.close();
    drop(counted);
}

/// A remote store whose next answer to a read comes late: something is done in between.
struct Late {
    store: Arc<dyn Pager>,
    behind_read: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl Late {
    fn over(store: Arc<dyn Pager>) -> Arc<Self> {
        let behind_read = Mutex::default();
        Arc::new(Self { store, behind_read })
    }

    fn behind_read(&self, work: impl FnOnce() + Send + 'static) {
        *self.behind_read.lock().unwrap() = Some(Box::new(work));
    }
}

impl Pager for Late {
    fn init(
        &self,
        object: ObjectId,
        name: &ObjectName,
        request: InitRequest,
        control: Arc<dyn MemoryObjectControl>,
    ) -> Result<Attributes, PagerError> {
        self.store.init(object, name, request, control)
    }

    fn data_request(
        &self,
        object: ObjectId,
        offset: u64,
        access: VmProt,
        pages: &mut [u8],
    ) -> Result<DataSupply, PagerError> {
        let supply = self.store.data_request(object, offset, access, pages);
        let work = self.behind_read.lock().unwrap().take();
        if let Some(work) = work {
            work();
        }
        supply
    }

    fn data_return(
        &self,
        call: CallId,
        object: ObjectId,
        offset: u64,
        pages: &[u8],
        flags: ReturnFlags,
    ) -> Result<(), PagerError> {
        self.store.data_return(call, object, offset, pages, flags)
    }

    fn synchronize(
        &self,
        call: CallId,
        object: ObjectId,
        range: ByteRange,
        flags: SynchronizeFlags,
    ) -> Result<(), PagerError> {
        self.store.synchronize(call, object, range, flags)
    }

    fn abort(&self, call: CallId) {
        self.store.abort(call);
    }

    fn terminate(&self, object: ObjectId) {
        self.store.terminate(object);
    }

    fn attributes(&self, object: ObjectId) -> Result<Attributes, PagerError> {
        self.store.attributes(object)
    }
}

#[test]
fn what_was_read_before_a_commit_is_not_kept_behind_it() {
    let places = Places::new();
    let remote = Late::over(store(places.remote.path()));
    let cache = Cache::over(remote.clone(), store(places.local.path()), "here");
    let client = Arc::new(open(Arc::new(cache)));
    client.commit_full(0, 1);
    let call = Client::call();
    client.give_full(call, 0, 2);
    let own = client.clone();
    remote.behind_read(move || own.sync(call, 0, 1).unwrap());
    client.assert_full(0, 1);
    client.assert_full(0, 2);
}

#[test]
fn what_was_read_before_an_opening_told_of_a_newer_version_is_not_kept_as_of_that() {
    let places = Places::new();
    places.change_elsewhere(0, 1);
    let there = store(places.remote.path());
    let remote = Late::over(there.clone());
    let cache = Arc::new(Cache::over(remote.clone(), store(places.local.path()), "here"));
    let client = open_to_read(cache.clone());
    remote.behind_read(move || {
        open(there).commit_full(0, 2);
        open_to_read(cache);
    });
    client.assert_full(0, 1);
    client.assert_full(0, 2);
}

/// What the first one has mapped is of the version that it was opened with, and the remote store shows it no other.
#[test]
fn who_opened_the_object_before_another_version_gets_nothing_of_that() {
    let places = Places::new();
    places.change_elsewhere(0, 1);
    let there = store(places.remote.path());
    let scripted = Arc::new(ScriptedPager::new(there.clone()));
    let counted = Arc::new(Counted::over(scripted.clone()));
    let cache = Arc::new(Cache::over(counted.clone(), store(places.local.path()), "here"));
    let first = open_to_read(cache.clone());
    first.assert_full(0, 1);
    let writer = open(there);
    writer.commit_full(0, 2);
    writer.commit_full(1, 2);
    let second = open_to_read(cache.clone());
    second.assert_full(0, 2);
    second.assert_full(0, 2);
    assert_eq!(counted.counts().requests, 2);
    scripted.inject(Fault::Supply(Some(failure())));
    let answer = cache.data_request(first.object, 0, VmProt::READ, &mut [0; 4096]);
    assert_eq!(answer, Err(failure()));
    // Nor is what the remote store shows it of use to anybody else.
    first.read(1, 1);
    second.assert_full(1, 2);
    assert_eq!(counted.counts().requests, 5);
    first.close();
    second.close();
}

/// Whatever calls do, and however old the copy is, through the cache the object reads as without it.
#[test]
fn random_calls_and_copies_of_any_age_read_as_the_remote_store() {
    let mut random = Random::from_environment("cache");
    for _ in 0..3 {
        let mut places = Places::new();
        for _ in 0..6 {
            let remote = match random.once_in(2) {
                true => late_store(places.remote.path()),
                false => store(places.remote.path()),
            };
            let local = Arc::new(ScriptedPager::new(store(places.local.path())));
            let cache = Arc::new(Cache::over(remote.clone(), local.clone(), "here"));
            let mut client = open(cache.clone());
            let mut open_calls = Vec::new();
            for _ in 0..40 {
                if random.once_in(20) {
                    lose_a_write(&local);
                }
                let call = Client::call();
                match random.below(7) {
                    0..3 => {
                        for _ in 0..=random.below(3) {
                            client.give_full(call, random.below(PAGES), random.below(255) as u8);
                        }
                        match random.below(5) {
                            0 => client.pager().abort(call),
                            1 => open_calls.push(call),
                            2 => {
                                client
                                    .synchronize(call, (0, PAGES), SynchronizeFlags::ASYNCHRONOUS)
                                    .unwrap();
                                client.recorder.wait(client.range(0, PAGES)).unwrap();
                            }
                            _ => client.sync(call, 0, PAGES).unwrap(),
                        }
                    }
                    3 => {
                        for call in open_calls.drain(..) {
                            client.sync(call, 0, PAGES).unwrap();
                        }
                    }
                    4 => {
                        for call in open_calls.drain(..) {
                            client.pager().abort(call);
                        }
                        client.close();
                        client = open(cache.clone());
                    }
                    _ => {
                        let first = random.below(PAGES);
                        let through = client.read(first, 1 + random.below(PAGES - first));
                        let mut there = vec![0; through.len()];
                        remote
                            .data_request(client.object, first * 4096, VmProt::READ, &mut there)
                            .unwrap();
                        assert!(there == through);
                    }
                }
            }
            for call in open_calls {
                client.pager().abort(call);
            }
            client.close();
            drop((cache, remote, local));
            // An old copy may come back.
            let local = tempfile::tempdir().unwrap();
            copy(places.local.path(), local.path());
            let (client, counted) = places.open();
            let through = client.read(0, PAGES);
            client.close();
            drop(counted);
            let client = open(store(places.remote.path()));
            assert!(client.read(0, PAGES) == through);
            client.close();
            if random.once_in(2) {
                places.local = local;
            }
        }
    }
}
