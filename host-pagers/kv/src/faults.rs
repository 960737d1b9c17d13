//! Tests with a disk that fails.

use std::{
    io,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use redb::{StorageBackend, backends::InMemoryBackend};
use vmsync_core::{
    PageSize, PagerError, PagerErrorKind,
    pager::{InitRequest, Pager, SynchronizeFlags},
};
use vmsync_pager_conformance::Client;

use crate::{
    Check, KvStore, Options, Redb,
    database::Db,
    error::{Step, guarded},
    serve,
};

/// A disk in memory that outlives its openings, and fails on demand.
#[derive(Clone, Debug, Default)]
struct Disk {
    bytes: Arc<InMemoryBackend>,
    plan: Arc<Mutex<Plan>>,
    /// Operations that still work; negative: all do.
    left: Arc<AtomicI64>,
}

/// What fails when no operation is left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Plan {
    #[default]
    Nothing,
    /// Writes, once; later ones work.
    OneWrite,
    /// Syncs, after the bytes were written.
    Sync,
    /// Growing and shrinking, once.
    OneLength,
    /// The same, and everything behind it.
    LengthThenAll,
    /// Everything.
    All,
}

impl Disk {
    fn fail(&self, plan: Plan, after: i64) {
        self.left.store(after, Ordering::Relaxed);
        *self.plan.lock().unwrap_or_else(PoisonError::into_inner) = plan;
    }

    fn plan(&self) -> Plan {
        *self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn step(&self, kinds: &[Plan]) -> io::Result<()> {
        let mut plan = self.plan.lock().unwrap_or_else(PoisonError::into_inner);
        if !kinds.contains(&plan) || self.left.fetch_sub(1, Ordering::Relaxed) > 0 {
            return Ok(());
        }
        *plan = match *plan {
            Plan::Sync => Plan::Sync,
            Plan::LengthThenAll | Plan::All => Plan::All,
            _ => Plan::Nothing,
        };
        Err(io::ErrorKind::StorageFull.into())
    }

    fn open(&self) -> Arc<KvStore> {
        self.open_with(&Options::default())
    }

    fn open_with(&self, options: &Options) -> Arc<KvStore> {
        let own = self.clone();
        let make = move || Ok(Box::new(own.clone()) as Box<dyn StorageBackend>);
        let db = Db::open_on(Path::new("disk in memory"), options, Box::new(make)).unwrap();
        serve(Redb::new(db), options).unwrap()
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        self.step(&[Plan::All])?;
        self.bytes.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.step(&[Plan::All])?;
        self.bytes.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.step(&[Plan::OneLength, Plan::LengthThenAll, Plan::All])?;
        self.bytes.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.step(&[Plan::Sync])
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.step(&[Plan::OneWrite, Plan::All])?;
        self.bytes.write(offset, data)
    }
}

fn client(store: &Arc<KvStore>) -> Client {
    let request = InitRequest {
        page_size: PageSize::KIB_4,
        size_min: 512 * 4096,
        create: true,
        write: true,
    };
    Client::open_with(store.clone(), "object", request).unwrap()
}

fn kind<T>(answer: Result<T, PagerError>) -> Option<PagerErrorKind> {
    answer.err().map(|error| error.kind)
}

fn commit(client: &Client, pages: u64, byte: u8) -> Result<(), PagerError> {
    let call = Client::call();
    (0..pages).for_each(|page| client.give_full(call, page, byte));
    client.sync(call, 0, pages)
}

/// Fails each write of a commit in turn, also those behind the one that makes it count.
#[test]
fn a_failed_call_shows_nothing_and_can_be_repeated() {
    for plan in [Plan::OneWrite, Plan::OneLength] {
        let mut failures = 0;
        for after in 0..40 {
            let disk = Disk::default();
            let store = disk.open();
            let client = client(&store);
            commit(&client, 2, 1).unwrap();
            let version = client.attributes().version;
            disk.fail(plan, after);
            let answer = commit(&client, 20, 2);
            disk.fail(Plan::Nothing, 0);
            if let Err(error) = answer {
                failures += 1;
                assert_eq!(error.kind, PagerErrorKind::NoSpace, "{error}");
                client.assert_full(0, 1);
                client.assert_full(1, 1);
                client.assert_full(2, 0);
                assert_eq!(client.attributes().version, version);
                commit(&client, 3, 3).unwrap();
            } else {
                commit(&client, 3, 3).unwrap();
            }
            assert!(client.attributes().version > version);
            let rest = client.read(3, 17);
            client.close();
            drop(store);
            let store = disk.open();
            let again = self::client(&store);
            (0..3).for_each(|page| again.assert_full(page, 3));
            assert!(again.read(3, 17) == rest, "what was shown is what is kept");
            again.close();
        }
        assert!(
            plan != Plan::OneWrite || failures > 3,
            "{failures} commits failed"
        );
    }
}

/// Fails behind a commit: the file is made shorter when all is synced. Answers what the call was told, and its byte.
fn fail_behind(disk: &Disk, client: &Client, plan: Plan) -> (Result<(), PagerError>, u8) {
    commit(client, 512, 1).unwrap();
    commit(client, 512, 0).unwrap();
    disk.fail(plan, 0);
    for byte in 2..100 {
        let answer = commit(client, 2, byte);
        if disk.plan() != plan {
            return (answer, byte);
        }
    }
    panic!("the file never became shorter");
}

#[test]
fn a_call_that_took_place_is_a_success_whatever_fails_behind_it() {
    let disk = Disk::default();
    let store = disk.open();
    let client = client(&store);
    let (answer, byte) = fail_behind(&disk, &client, Plan::OneLength);
    answer.unwrap();
    client.assert_full(1, byte);
    assert_eq!(
        client.attributes().version,
        u64::from(byte) + 1,
        "each call counts once"
    );
    commit(&client, 1, 100).unwrap();
    client.close();
    drop(store);
    let again = self::client(&disk.open());
    again.assert_full(0, 100);
    again.assert_full(1, byte);
}

#[test]
fn a_call_that_took_place_after_it_was_told_to_have_failed_stops_the_store() {
    let disk = Disk::default();
    let store = disk.open();
    let client = client(&store);
    let (answer, byte) = fail_behind(&disk, &client, Plan::LengthThenAll);
    assert_eq!(kind(answer), Some(PagerErrorKind::NoSpace));
    // Nobody knows yet what is on the disk, so nothing is read from it.
    let mut page = vec![0; 4096];
    let access = vmsync_core::abi::VmProt::READ;
    let mut read = || kind(store.data_request(client.object, 0, access, &mut page));
    assert_eq!(read(), Some(PagerErrorKind::NoSpace));
    disk.fail(Plan::Nothing, 0);
    assert_eq!(read(), Some(PagerErrorKind::Gone));
    assert_eq!(
        client.recorder.destroyed().map(|error| error.kind),
        Some(PagerErrorKind::Gone)
    );
    assert_eq!(kind(store.flush()), Some(PagerErrorKind::Gone));
    client.close();
    drop(store);
    self::client(&disk.open()).assert_full(1, byte);
}

#[test]
fn an_asynchronous_failure_is_told() {
    let disk = Disk::default();
    // The flush commits the call, not the store's thread.
    let store = disk.open_with(&Options {
        write_behind_delay: Duration::from_secs(30),
        ..Options::default()
    });
    let client = client(&store);
    commit(&client, 2, 1).unwrap();
    disk.fail(Plan::OneWrite, 0);
    let call = Client::call();
    client.give_full(call, 0, 2);
    let flags = SynchronizeFlags::ASYNCHRONOUS;
    client.synchronize(call, (0, 2), flags).unwrap();
    client.recorder.wait(client.range(0, 2)).unwrap();
    assert_eq!(kind(store.flush()), Some(PagerErrorKind::NoSpace));
    let failures = client.recorder.take_write_behind_failures();
    assert_eq!(failures.len(), 1);
    assert_eq!(failures[0].0, client.range(0, 2));
    assert_eq!(failures[0].1.kind, PagerErrorKind::NoSpace);
    client.assert_full(0, 1);
    store.flush().unwrap();
    client.close();
}

#[test]
fn after_a_failed_sync_nothing_is_trusted() {
    let disk = Disk::default();
    let store = disk.open();
    let client = client(&store);
    commit(&client, 2, 1).unwrap();
    disk.fail(Plan::Sync, 0);
    commit(&client, 2, 2).unwrap_err();
    disk.fail(Plan::Nothing, 0);
    let error = commit(&client, 2, 3).unwrap_err();
    assert_eq!(error.kind, PagerErrorKind::Io);
    assert!(error.message.contains("check the disk"), "{error}");
    let mut page = vec![0; 4096];
    let access = vmsync_core::abi::VmProt::READ;
    // What is in memory of the last commit that worked is still good.
    if store.data_request(client.object, 0, access, &mut page).is_ok() {
        assert!(page.iter().all(|byte| *byte == 1));
    }
    client.close();
    drop(store);
    let found = self::client(&disk.open()).read(0, 2);
    let first = found[0];
    assert!((1..=2).contains(&first) && found.iter().all(|byte| *byte == first));
}

#[test]
fn a_panic_of_the_database_is_damage() {
    let answer = guarded(Path::new("file"), || -> Step<()> { panic!("page out of range") });
    let error = answer.unwrap_err();
    assert_eq!(error.kind, PagerErrorKind::Damaged);
    assert!(error.message.contains("page out of range"), "{error}");
    assert_eq!(Options::default().check, Check::OnOpen);
}
