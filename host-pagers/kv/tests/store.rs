//! Opening, refusing, removing, damage, and a process that is killed while it commits.

use std::{
    env,
    io::{BufRead, BufReader, Read, Write},
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use redb::{Database, TableDefinition};
use vmsync_core::{
    PageSize, PagerError, PagerErrorKind,
    pager::{InitRequest, ObjectName, Pager, SynchronizeFlags},
};
use vmsync_pager_conformance::{Client, random::Random};
use vmsync_pager_kv::{self as kv, Check, KvStore, Options};

const PAGE: u64 = 4096;

fn request(pages: u64, write: bool) -> InitRequest {
    InitRequest {
        page_size: PageSize::KIB_4,
        size_min: pages * PAGE,
        create: write,
        write,
    }
}

fn client(store: &Arc<KvStore>, name: &str, pages: u64) -> Client {
    Client::open_with(store.clone(), name, request(pages, true)).unwrap()
}

fn kind<T>(answer: Result<T, PagerError>) -> Option<PagerErrorKind> {
    answer.err().map(|error| error.kind)
}

fn open(path: &Path) -> Arc<KvStore> {
    kv::open(path, &Options::default()).unwrap()
}

/// A closed store with two pages of 1 and 2.
fn closed(path: &Path) {
    let store = open(path);
    let client = client(&store, "object", 8);
    client.commit_full(0, 1);
    client.commit_full(5, 2);
    client.close();
}

#[test]
fn a_second_opener_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let store = open(&path);
    let error = kv::open(&path, &Options::default()).err().unwrap();
    assert_eq!(error.kind, PagerErrorKind::Busy);
    assert!(error.message.contains("close it there"), "{error}");
    let readers = Options {
        read_only: true,
        ..Options::default()
    };
    assert_eq!(kind(kv::open(&path, &readers)), Some(PagerErrorKind::Busy));
    drop(store);
    let first = kv::open(&path, &readers).unwrap();
    let second = kv::open(&path, &readers).unwrap();
    assert_eq!(
        kind(kv::open(&path, &Options::default())),
        Some(PagerErrorKind::Busy)
    );
    drop((first, second));
    open(&path);
}

#[test]
fn what_cannot_be_opened_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let existing = Options {
        create: false,
        ..Options::default()
    };
    assert_eq!(kind(kv::open(&path, &existing)), Some(PagerErrorKind::NotFound));
    assert!(!path.exists());
    closed(&path);
    let large = Options {
        page_size: PageSize::KIB_16,
        ..Options::default()
    };
    let error = kv::open(&path, &large).err().unwrap();
    assert_eq!(error.kind, PagerErrorKind::Invalid);
    assert!(
        error.message.contains("4096") && error.message.contains("16384"),
        "{error}"
    );
    set_format(&path, 7);
    let error = kv::open(&path, &Options::default()).err().unwrap();
    assert_eq!(error.kind, PagerErrorKind::Version);
    assert!(error.message.contains('7'), "{error}");

    let foreign = folder.path().join("foreign");
    set_number(&foreign, "other", 1);
    assert_eq!(
        kind(kv::open(&foreign, &Options::default())),
        Some(PagerErrorKind::Invalid)
    );
    let text = folder.path().join("text");
    std::fs::write(&text, "not a database at all").unwrap();
    assert_eq!(
        kind(kv::open(&text, &Options::default())),
        Some(PagerErrorKind::Damaged)
    );
}

fn set_format(path: &Path, version: u64) {
    set_number(path, "meta", version);
}

fn set_number(path: &Path, table: &str, number: u64) {
    let database = Database::create(path).unwrap();
    let transaction = database.begin_write().unwrap();
    let definition = TableDefinition::<&str, u64>::new(table);
    transaction
        .open_table(definition)
        .unwrap()
        .insert("format", number)
        .unwrap();
    transaction.commit().unwrap();
}

#[test]
fn a_new_store_is_whole_or_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    drop(open(&path));
    let names: Vec<_> = folder
        .path()
        .read_dir()
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names, ["store"]);
    let empty = folder.path().join("empty");
    std::fs::write(&empty, "").unwrap();
    drop(open(&empty));
    let missing = folder.path().join("no-folder").join("store");
    assert_eq!(
        kind(kv::open(&missing, &Options::default())),
        Some(PagerErrorKind::NotFound)
    );
}

#[test]
fn a_reader_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    closed(&path);
    let bytes = std::fs::read(&path).unwrap();
    let readers = Options {
        read_only: true,
        ..Options::default()
    };
    let store = kv::open(&path, &readers).unwrap();
    let reader = Client::open_with(store.clone(), "object", request(0, false)).unwrap();
    reader.assert_full(0, 1);
    reader.assert_full(5, 2);
    reader.assert_full(7, 0);
    for (name, pages, write) in [("object", 0, true), ("new", 1, true), ("object", 9, false)] {
        let refused = Client::open_with(store.clone(), name, request(pages, write));
        assert_eq!(kind(refused), Some(PagerErrorKind::Denied), "{name}");
    }
    let name = ObjectName::new("object").unwrap();
    assert_eq!(kind(store.remove_object(&name)), Some(PagerErrorKind::Denied));
    reader.close();
    drop(store);
    assert!(std::fs::read(&path).unwrap() == bytes, "the file is the same");
}

#[test]
fn objects_are_listed_and_removed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let store = open(&path);
    let (left, right) = (client(&store, "left", 2), client(&store, "right", 3));
    left.commit_full(0, 1);
    right.commit_full(2, 2);
    let name = |name: &str| ObjectName::new(name).unwrap();
    assert_eq!(
        kind(store.remove_object(&name("left"))),
        Some(PagerErrorKind::Busy)
    );
    assert_eq!(
        kind(store.remove_object(&name("none"))),
        Some(PagerErrorKind::NotFound)
    );
    left.close();
    store.remove_object(&name("left")).unwrap();
    let names: Vec<_> = store
        .list()
        .into_iter()
        .map(|(name, attributes)| (name.to_string(), attributes.size))
        .collect();
    assert_eq!(names, [("right".to_owned(), 3 * PAGE)]);
    assert_eq!(store.engine().verify().unwrap(), 1, "its pages went with it");
    let fresh = client(&store, "left", 2);
    fresh.assert_full(0, 0);
    assert_eq!(fresh.opened.version, 0);
    fresh.close();
    right.close();
    drop(store);
    let store = open(&path);
    assert_eq!(store.list().len(), 2);
    client(&store, "right", 3).assert_full(2, 2);
}

#[test]
fn zero_pages_take_no_room() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder.path().join("store"));
    let client = client(&store, "zero", 4);
    client.commit_full(1, 5);
    client.commit_full(2, 5);
    client.commit_full(1, 0);
    assert_eq!(store.engine().verify().unwrap(), 1);
    client.assert_full(1, 0);
    client.close();
}

#[test]
fn an_asynchronous_call_becomes_durable_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let (path, copy) = (folder.path().join("store"), folder.path().join("copy"));
    let store = open(&path);
    let client = client(&store, "object", 2);
    let call = Client::call();
    client.give_full(call, 1, 9);
    let flags = SynchronizeFlags::ASYNCHRONOUS;
    client.synchronize(call, (0, 2), flags).unwrap();
    client.recorder.wait(client.range(0, 2)).unwrap();
    client.assert_full(1, 9);
    let deadline = Instant::now() + Duration::from_secs(30);
    while client.attributes().version == 0 {
        assert!(
            Instant::now() < deadline,
            "the store's thread commits what is queued"
        );
        thread::sleep(Duration::from_millis(1));
    }
    // What is in the file now, as a crash would leave it.
    std::fs::copy(&path, &copy).unwrap();
    let crashed = open(&copy);
    let read = Client::open_with(crashed, "object", request(0, false)).unwrap();
    read.assert_full(1, 9);
    read.close();
    client.close();
}

#[test]
fn an_unclean_store_is_repaired_by_a_writer_only() {
    let folder = tempfile::tempdir().unwrap();
    let (path, copy) = (folder.path().join("store"), folder.path().join("copy"));
    let store = open(&path);
    let client = client(&store, "object", 2);
    client.commit_full(0, 3);
    std::fs::copy(&path, &copy).unwrap();
    let readers = Options {
        read_only: true,
        ..Options::default()
    };
    let error = kv::open(&copy, &readers).err().unwrap();
    assert_eq!(error.kind, PagerErrorKind::Denied, "{error}");
    assert!(error.message.contains("open it once for writing"), "{error}");
    drop(open(&copy));
    let store = kv::open(&copy, &readers).unwrap();
    let read = Client::open_with(store, "object", request(0, false)).unwrap();
    read.assert_full(0, 3);
    client.close();
}

/// Reads everything of a store that may be damaged: what is supplied has to be right.
fn probe(path: &Path, options: &Options) -> Result<(), PagerError> {
    let store = kv::open(path, options)?;
    let reader = Client::open_with(store.clone(), "object", request(0, false))?;
    let mut page = vec![0; PAGE as usize];
    for (index, byte) in [(0, 1), (1, 0), (5, 2), (7, 0)] {
        page.fill(0);
        let access = vmsync_core::abi::VmProt::READ;
        store.data_request(reader.object, index * PAGE, access, &mut page)?;
        assert!(
            page.iter().all(|found| *found == byte),
            "page {index} is wrong and was supplied"
        );
    }
    drop(reader);
    store.engine().verify().map(drop)
}

#[test]
fn a_damaged_file_is_reported_and_never_a_panic() {
    let folder = tempfile::tempdir().unwrap();
    let (path, bad) = (folder.path().join("store"), folder.path().join("bad"));
    closed(&path);
    let good = std::fs::read(&path).unwrap();
    let mut random = Random::new(1);
    let used: Vec<usize> = (0..good.len()).filter(|at| good[*at] != 0).collect();
    let mut damaged = 0;
    for round in 0..80 {
        let mut bytes = good.clone();
        if round % 8 == 7 {
            bytes.truncate(random.below(good.len() as u64) as usize);
        } else {
            let at = used[random.below(used.len() as u64) as usize];
            bytes[at] ^= 1 << random.below(8);
        }
        for (check, read_only) in [
            (Check::OnOpen, false),
            (Check::AfterCrash, false),
            (Check::OnOpen, true),
            (Check::AfterCrash, true),
        ] {
            std::fs::write(&bad, &bytes).unwrap();
            let options = Options {
                create: false,
                read_only,
                check,
                ..Options::default()
            };
            let found = kind(probe(&bad, &options));
            damaged += usize::from(found == Some(PagerErrorKind::Damaged));
            assert!(
                found.is_some() || bytes.len() == good.len(),
                "a file that was cut is refused"
            );
        }
    }
    // Most flips meet room that is not in use, and change nothing that is supplied.
    assert!(damaged > 40, "{damaged} of 320 were reported as damage");
}

#[test]
fn a_damaged_page_is_reported_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    closed(&path);
    let mut bytes = std::fs::read(&path).unwrap();
    let start = bytes.windows(64).position(|window| window == [2; 64]).unwrap();
    bytes[start + 10] = 3;
    std::fs::write(&path, &bytes).unwrap();
    let error = kv::open(&path, &Options::default()).err().unwrap();
    assert_eq!(error.kind, PagerErrorKind::Damaged, "{error}");
    std::fs::write(&path, &bytes).unwrap();
    let trusting = Options {
        check: Check::AfterCrash,
        ..Options::default()
    };
    let store = kv::open(&path, &trusting).unwrap();
    let error = store.engine().verify().unwrap_err();
    assert_eq!(error.kind, PagerErrorKind::Damaged);
    assert!(error.message.contains("page 5"), "{error}");
    let client = client(&store, "object", 8);
    client.assert_full(0, 1);
    let mut page = vec![0; PAGE as usize];
    let access = vmsync_core::abi::VmProt::READ;
    let answer = store.data_request(client.object, 5 * PAGE, access, &mut page);
    assert_eq!(kind(answer), Some(PagerErrorKind::Damaged));
    // It can be written anew.
    client.commit_full(5, 8);
    client.assert_full(5, 8);
    client.close();
}

/// Says where a child of this test keeps its store.
const CHILD: &str = "VMSYNC_KV_CHILD";

/// Four pages as they are after `round`.
fn pages_of(round: u64) -> Vec<u8> {
    round.to_le_bytes().repeat(4 * PAGE as usize / 8)
}

/// The round at the front of an object.
fn round_of(client: &Client) -> u64 {
    u64::from_le_bytes(client.read(0, 1)[..8].try_into().unwrap())
}

/// Not a test of its own: the process that [`a_killed_process_loses_nothing_reported`] kills.
#[test]
fn child_that_commits() {
    let Some(path) = env::var_os(CHILD) else { return };
    let store = open(path.as_ref());
    let (left, right) = (client(&store, "left", 4), client(&store, "right", 4));
    for round in round_of(&left) + 1.. {
        let call = Client::call();
        left.give(call, 0, &pages_of(round)).unwrap();
        right.give(call, 0, &pages_of(round)).unwrap();
        let more = SynchronizeFlags {
            synchronous: true,
            more: true,
            nowait: false,
        };
        left.synchronize(call, (0, 4), more).unwrap();
        right.sync(call, 0, 4).unwrap();
        left.recorder.wait(left.range(0, 4)).unwrap();
        println!("\nround {round}");
        std::io::stdout().flush().unwrap();
    }
}

#[test]
fn a_killed_process_loses_nothing_reported() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let mut found = 0;
    for lines in [1, 7, 12, 5] {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "child_that_commits", "--nocapture"])
            .env(CHILD, &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut said = String::new();
        while said.matches("round ").count() < lines {
            assert!(
                output.read_line(&mut said).unwrap() > 0,
                "the child commits before it is killed"
            );
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // It has gone on meanwhile. A line that the kill cut short may lack digits.
        output.read_to_string(&mut said).unwrap();
        let whole = said.rfind('\n').map_or("", |end| &said[..end]);
        let mut rounds = whole
            .lines()
            .filter_map(|line| line.strip_prefix("round ")?.parse::<u64>().ok());
        assert_eq!(
            rounds.next(),
            Some(found + 1),
            "each child goes on where the last one was"
        );
        let last = rounds.next_back().unwrap_or(found + 1);
        let store = open(&path);
        let (left, right) = (client(&store, "left", 4), client(&store, "right", 4));
        found = round_of(&left);
        assert!(
            found == last || found == last + 1,
            "round {last} was reported, and {found} is there"
        );
        assert!(left.read(0, 4) == pages_of(found) && right.read(0, 4) == pages_of(found));
        left.close();
        right.close();
        store.engine().verify().unwrap();
    }
}
