//! Opening a store: what it costs after a clean end, and that what an opening relies on is there after a power cut even
//! where a killed process left it in the cache only.

mod common;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use common::{PAGE, client, contents, open, power_cuts, replayed, tiny};
use vmsync_core::PagerError;
use vmsync_pager_conformance::{Client, random::Random};
use vmsync_pager_file::{
    FileStore, Options,
    disk::{
        Access, Disk, DiskFile, DiskLock, Sharing,
        memory::{Change, Failure, Fault, MemoryDisk},
        native::{Folder, NativeDisk},
    },
    inspect_on, verify, verify_on,
};

/// What an opening has done to a disk.
#[derive(Default)]
struct Costs {
    bytes_read: AtomicU64,
    writes: AtomicU64,
    syncs: AtomicU64,
}

/// A disk that counts.
struct CountingDisk<D> {
    inner: D,
    costs: Arc<Costs>,
}

struct CountingFile {
    inner: Box<dyn DiskFile>,
    costs: Arc<Costs>,
}

type Result<T> = std::result::Result<T, PagerError>;

impl<D: Disk> Disk for CountingDisk<D> {
    fn open(&self, name: &str, access: Access) -> Result<Box<dyn DiskFile>> {
        Ok(Box::new(CountingFile {
            inner: self.inner.open(name, access)?,
            costs: self.costs.clone(),
        }))
    }

    fn remove(&self, name: &str) -> Result<()> {
        self.inner.remove(name)
    }

    fn list(&self) -> Result<Vec<String>> {
        self.inner.list()
    }

    fn sync_names(&self) -> Result<()> {
        self.costs.syncs.fetch_add(1, Ordering::Relaxed);
        self.inner.sync_names()
    }

    fn lock(&self, sharing: Sharing) -> Result<Box<dyn DiskLock>> {
        self.inner.lock(sharing)
    }

    fn nonce(&self) -> u128 {
        self.inner.nonce()
    }

    fn place(&self) -> String {
        self.inner.place()
    }
}

impl DiskFile for CountingFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let count = self.inner.read_at(offset, buffer)?;
        self.costs.bytes_read.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.costs.writes.fetch_add(1, Ordering::Relaxed);
        self.inner.write_at(offset, bytes)
    }

    fn sync(&self) -> Result<()> {
        self.costs.syncs.fetch_add(1, Ordering::Relaxed);
        self.inner.sync()
    }

    fn length(&self) -> Result<u64> {
        self.inner.length()
    }

    fn set_len(&self, length: u64) -> Result<()> {
        self.inner.set_len(length)
    }

    fn preallocate(&self, length: u64) -> Result<()> {
        self.inner.preallocate(length)
    }

    fn next_data(&self, offset: u64) -> Result<Option<u64>> {
        self.inner.next_data(offset)
    }
}

/// Bytes read, writes, syncs of opening the store on `inner` and reading the first page of `object`.
fn cost_of_opening(inner: impl Disk + 'static, options: &Options, pages: u64) -> (u64, u64, u64) {
    let costs = Arc::new(Costs::default());
    let disk = CountingDisk {
        inner,
        costs: costs.clone(),
    };
    let store = FileStore::open_on(Arc::new(disk), options).unwrap();
    let object = client(&store, "object", pages).unwrap();
    assert_eq!(object.read(0, 1)[..8], [7; 8]);
    let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
    (read(&costs.bytes_read), read(&costs.writes), read(&costs.syncs))
}

#[test]
fn ten_gibibytes_open_without_a_sync_and_little_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let pages = (10 << 30) / PAGE as u64;
    {
        let store = FileStore::open(folder.path(), &Options::default()).unwrap();
        client(&store, "object", pages).unwrap().commit_full(0, 7);
    }
    let disk = || NativeDisk::new(folder.path(), Folder::Existing).unwrap();
    // Twice: also an opening that changed nothing leaves the store closed.
    for _ in 0..2 {
        let (bytes_read, writes, syncs) = cost_of_opening(disk(), &Options::default(), pages);
        assert_eq!((writes, syncs), (0, 0));
        assert!(bytes_read <= 64 << 10, "{bytes_read} bytes read");
    }
    // Verifying reads what is there, not what might be.
    let report = verify(folder.path()).unwrap();
    assert_eq!((report.problems.len(), report.pages), (0, pages));
}

#[test]
fn recovery_reads_the_journal_and_the_pages_that_it_names() {
    let options = Options {
        segment_bytes: 1 << 20,
        checkpoint_bytes: 64 << 20,
        ..tiny()
    };
    for calls in [100, 1000] {
        let disk = MemoryDisk::new();
        let store = FileStore::open_on(Arc::new(disk.clone()), &options).unwrap();
        let object = client(&store, "object", 4096).unwrap();
        // What a checkpoint has covered is not read again.
        (0..1024).for_each(|page| object.commit_full(page, 1));
        store.checkpoint().unwrap();
        object.commit_full(0, 7);
        (1..calls).for_each(|page| object.commit_full(page, 3));
        std::mem::forget(store);
        let killed = disk.after_kill();
        let journal = inspect_on(&killed).unwrap().journal.bytes_in_use;
        let (bytes_read, ..) = cost_of_opening(killed, &options, 4096);
        // Records, written again and read for that; the rest of the last segment; each named page once.
        let bound = 2 * journal + options.segment_bytes + (calls + 8) * PAGE as u64;
        assert!(bytes_read <= bound, "{calls} calls: {bytes_read} of {bound}");
        assert!(journal < calls * (PAGE as u64 + 200), "{journal}");
    }
}

/// The trace of a store that commits, grows and creates objects, and rolls over.
fn life() -> Vec<Change> {
    let disk = MemoryDisk::new();
    let store = open(&disk).unwrap();
    let object = client(&store, "object", 1).unwrap();
    let commit = |object: &Client, byte: u8| {
        let page: Vec<u8> = (0..PAGE).map(|at| (at as u8).wrapping_mul(byte)).collect();
        let call = Client::call();
        object.give(call, 0, &page).unwrap();
        object.sync(call, 0, 1).unwrap();
    };
    (1..4).for_each(|byte| commit(&object, byte));
    object.pager().terminate(object.object);
    let object = client(&store, "object", 2).unwrap();
    let other = client(&store, "other", 3).unwrap();
    (4..9).for_each(|byte| commit(&object, byte));
    commit(&other, 9);
    drop((object, other));
    drop(store);
    disk.trace()
}

/// A process is killed at any change: its writes stay in the cache, unsynced. The next one opens what the cache shows,
/// commits or only closes, and then the power goes: what is left must be as the second process left it.
#[test]
fn a_kill_and_then_a_power_cut_lose_nothing() {
    let trace = life();
    let mut random = Random::new(1);
    let first = trace
        .iter()
        .rposition(|change| matches!(change, Change::Create(name) if name == "object-1"))
        .unwrap();
    for killed in first..=trace.len() {
        for commits in [false, true] {
            let disk = replayed(&MemoryDisk::new(), &trace[..killed]);
            let store = open(&disk).unwrap();
            if commits {
                // A new object: in a record behind those that only the cache may have.
                client(&store, "third", 1).unwrap().commit_full(0, 0x77);
            }
            let expected = contents(&store).unwrap();
            // The power goes while it is open,
            let mut moments = power_cuts(&disk, &mut random);
            // or after it was closed.
            drop(store);
            moments.extend(power_cuts(&disk, &mut random));
            for left in moments {
                assert_eq!(verify_on(&left).unwrap().problems, [], "killed at {killed}");
                let found = contents(&open(&left).unwrap()).unwrap();
                assert!(
                    found == expected,
                    "killed at {killed}: {:?} instead of {:?}",
                    found.keys(),
                    expected.keys()
                );
            }
        }
    }
}

/// A store that was closed is opened without a sync, also where a process was killed since while it made a journal file: a
/// call that goes there is durable, and so is the file's name.
#[test]
fn a_call_in_a_journal_file_that_a_killed_process_made_is_not_lost() {
    let commit = |store: &Arc<FileStore>, byte: u8| {
        let object = client(store, "large", 8).unwrap();
        let call = Client::call();
        // No file that is there has room for it.
        object.give(call, 0, &[byte; 8 * PAGE]).unwrap();
        object.sync(call, 0, 8).unwrap();
    };
    let disk = MemoryDisk::new();
    let store = open(&disk).unwrap();
    client(&store, "large", 8).unwrap().close();
    drop(store);
    let closed = disk.trace().len();
    let store = open(&disk).unwrap();
    commit(&store, 1);
    let trace = disk.trace();
    for killed in closed..=trace.len() {
        let disk = replayed(&MemoryDisk::new(), &trace[..killed]);
        let store = open(&disk).unwrap();
        commit(&store, 2);
        let left = disk.after_power_cut(&mut |_, _| false);
        let found = contents(&open(&left).unwrap()).unwrap();
        assert_eq!(found["large"], [2; 8 * PAGE], "killed at {killed}");
    }
}

/// A process is killed while it makes a store: what it wrote, and the names, stay in the cache. The next one opens that and
/// makes an object, and the power goes meanwhile. An image without a superblock would be refused as damage.
#[test]
fn a_kill_while_a_store_is_made_and_then_a_power_cut_leave_what_opens() {
    let trace = life();
    let mut random = Random::new(3);
    let made = trace
        .iter()
        .rposition(|change| matches!(change, Change::Create(name) if name == "object-1"))
        .unwrap();
    for killed in 0..=made {
        let disk = replayed(&MemoryDisk::new(), &trace[..killed]);
        let store = open(&disk).unwrap();
        let object = client(&store, "object", 1).unwrap();
        let changes = [&trace[..killed], &disk.trace()].concat();
        drop((object, store));
        for cut in killed..=changes.len() {
            let disk = replayed(&MemoryDisk::new(), &changes[..cut]);
            for left in power_cuts(&disk, &mut random) {
                if let Err(error) = open(&left) {
                    panic!("killed at {killed}, cut at {cut}: {error}");
                }
            }
        }
    }
}

/// A sync fails, whose pages the kernel then counts as clean, and the process is killed before it can write them again:
/// the cache shows what no later sync will make durable. Lengths are part of that.
#[test]
fn a_failed_sync_then_a_kill_and_then_a_power_cut_lose_nothing() {
    let mut random = Random::new(2);
    for after in 0..12 {
        let disk = MemoryDisk::new();
        let store = open(&disk).unwrap();
        let object = client(&store, "object", 1).unwrap();
        object.commit_full(0, 1);
        store.checkpoint().unwrap();
        object.close();
        let object = client(&store, "object", 5).unwrap();
        // No page at the new end: nothing else makes the file as long as it has to be.
        object.commit_full(0, 2);
        disk.inject(Fault {
            after: disk.operations() + after,
            count: 1,
            failure: Failure::Io,
        });
        let failed = store.checkpoint().is_err();
        std::mem::forget((store, object));
        let killed = replayed(&MemoryDisk::new(), &disk.trace());
        let store = open(&killed).unwrap();
        let expected = contents(&store).unwrap();
        assert_eq!(expected["object"].len(), 5 * PAGE);
        drop(store);
        for left in power_cuts(&killed, &mut random) {
            assert_eq!(
                verify_on(&left).unwrap().problems,
                [],
                "operation {after} failed: {failed}"
            );
            assert!(contents(&open(&left).unwrap()).unwrap() == expected);
        }
    }
}
