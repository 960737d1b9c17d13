//! The facade over the file store, whose images are mapped where the rung can watch private file mappings.

mod harness;

use std::{
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
};

use harness::{BASE, Guest, P, Width, guest::Window, rig::name, rungs};
use vmsync::{Grant, KernReturn, Pager, PagerErrorKind, Sandbox, TrackerKind};
use vmsync_pager_file::{FileStore, Options};

const SYNC: u32 = 2;
const ASYNC: u32 = 1;
const INVALIDATE: u32 = 4;

/// Names the folder for [`a_guest_that_is_killed`].
const FOLDER: &str = "VMSYNC_TEST_FOLDER";

fn open(folder: &Path) -> Arc<FileStore> {
    FileStore::open(folder, &Options::default()).expect("the store opens")
}

fn sandbox(store: Arc<dyn Pager>, kind: TrackerKind) -> Sandbox {
    let grant = Grant::new(store, name("a"));
    let sandbox = Sandbox::builder().tracker(kind).grant("a", grant).build();
    sandbox.expect("an engine")
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder for the test")
}

/// A guest over the store in `folder` with 4 pages of `a` mapped.
fn guest(folder: &Path, kind: TrackerKind) -> Guest {
    let mut guest = Guest::new(&sandbox(open(folder), kind), Width::Bits32);
    guest.map_region("a", 4);
    guest
}

fn touched(guest: &mut Guest) -> [u64; 4] {
    [0, 1, 2, 3].map(|page| guest.touched(page))
}

#[test]
fn state_survives_a_restart() {
    for kind in rungs() {
        println!("{kind}");
        let folder = folder();
        for round in 1..4 {
            let mut guest = guest(folder.path(), *kind);
            assert_eq!(touched(&mut guest), [round - 1, 0, round - 1, 0]);
            guest.touch([0, 2], round);
            assert_eq!(guest.msync(BASE, 4 * P, SYNC), KernReturn::Success);
            // Never synced, so never there again.
            guest.touch([0, 1, 3], 100);
        }
    }
}

#[test]
fn invalidate_shows_the_last_commit() {
    for kind in rungs() {
        println!("{kind}");
        let folder = folder();
        let mut guest = guest(folder.path(), *kind);
        guest.touch([0, 1], 7);
        assert_eq!(guest.msync(BASE, 4 * P, SYNC), KernReturn::Success);
        guest.touch([1, 2], 8);
        assert_eq!(guest.msync(BASE, 4 * P, INVALIDATE), KernReturn::Success);
        assert_eq!(touched(&mut guest), [7, 7, 0, 0]);
        guest.touch([1], 9);
        assert_eq!(guest.msync(BASE, 4 * P, SYNC | INVALIDATE), KernReturn::Success);
        assert_eq!(touched(&mut guest), [7, 9, 0, 0]);
        guest.touch([3], 5);
        let before = guest.inner.stats().pages_returned;
        assert_eq!(guest.msync(BASE, 4 * P, SYNC), KernReturn::Success);
        let returned = guest.inner.stats().pages_returned - before;
        assert!(
            returned == 1 || guest.inner.vm().reports_superset(),
            "{returned} pages"
        );
        drop(guest);
        let mut guest = self::guest(folder.path(), *kind);
        assert_eq!(touched(&mut guest), [7, 9, 0, 5]);
    }
}

#[test]
fn a_reader_sees_commits_after_invalidate() {
    for kind in rungs() {
        println!("{kind}");
        let folder = folder();
        let sandbox = sandbox(open(folder.path()), *kind);
        let mut writer = Guest::new(&sandbox, Width::Bits32);
        writer.map_region("a", 4);
        let mut reader = Guest::new(&sandbox, Width::Bits64);
        reader.map_for_loads("a", 4);
        writer.touch([1], 7);
        assert_eq!(writer.msync(BASE, 4 * P, SYNC), KernReturn::Success);
        assert_eq!(reader.msync(BASE, 4 * P, INVALIDATE), KernReturn::Success);
        assert_eq!(reader.touched(1), 7);
        // A private copy keeps what it stored.
        let (result, port) = reader.try_open(b"a", 0, 1);
        assert_eq!(result, KernReturn::Success);
        reader.map(Window {
            page: BASE / P + 8,
            copy: true,
            ..Window::new(port, 4)
        });
        reader.touch([8], 3);
        assert_eq!(reader.msync(BASE + 8 * P, 4 * P, SYNC), KernReturn::Success);
        assert_eq!(
            (reader.touched(8), reader.touched(9), writer.touched(0)),
            (3, 7, 0)
        );
    }
}

#[test]
fn what_was_queued_is_written_by_a_clean_end() {
    for kind in rungs() {
        println!("{kind}");
        let folder = folder();
        let mut first = guest(folder.path(), *kind);
        first.touch([1], 7);
        assert_eq!(first.msync(BASE, 4 * P, ASYNC), KernReturn::Success);
        drop(first);
        assert_eq!(touched(&mut guest(folder.path(), *kind)), [0, 7, 0, 0]);
    }
}

#[test]
fn objects_grow() {
    for kind in rungs() {
        println!("{kind}");
        let folder = folder();
        let mut small = guest(folder.path(), *kind);
        small.touch([3], 7);
        assert_eq!(small.msync(BASE, 4 * P, SYNC), KernReturn::Success);
        drop(small);
        let mut large = Guest::new(&sandbox(open(folder.path()), *kind), Width::Bits32);
        large.map_region("a", 300);
        assert_eq!((large.touched(3), large.touched(299)), (7, 0));
        large.touch([299], 8);
        assert_eq!(large.msync(BASE, 300 * P, SYNC), KernReturn::Success);
        drop(large);
        let mut guest = Guest::new(&sandbox(open(folder.path()), *kind), Width::Bits32);
        let port = guest.open("a", 0);
        assert_eq!(guest.info(port).map(|info| info.0), Ok(300 * P));
        guest.map(Window::new(port, 300));
        assert_eq!((guest.touched(3), guest.touched(299)), (7, 8));
    }
}

#[test]
fn a_second_opener_is_told_who_is_in_the_way() {
    let folder = folder();
    let _store = open(folder.path());
    let Err(error) = FileStore::open(folder.path(), &Options::default()) else {
        panic!("two processes would write one store");
    };
    assert_eq!(error.kind, PagerErrorKind::Busy, "{error}");
}

#[test]
fn two_hosts_of_a_process_share_a_store() {
    let folder = folder();
    let store = open(folder.path());
    let kind = rungs()[0];
    let sandboxes = ["a", "b"].map(|object| {
        let sandbox = Sandbox::builder()
            .tracker(kind)
            .grant("own", Grant::new(store.clone(), name(object)))
            .grant("a", Grant::new(store.clone(), name("a")));
        sandbox.build().expect("an engine")
    });
    let mut guests = sandboxes
        .each_ref()
        .map(|sandbox| Guest::new(sandbox, Width::Bits32));
    for guest in &mut guests {
        guest.map_region("own", 4);
    }
    // Side by side, so that calls of both are under way at a time.
    std::thread::scope(|scope| {
        for (first, guest) in guests.iter_mut().enumerate() {
            scope.spawn(move || {
                for value in 1..50 {
                    guest.touch(0..4, value + first as u64);
                    assert_eq!(guest.msync(BASE, 4 * P, SYNC), KernReturn::Success);
                }
            });
        }
    });
    // An object has one writer, in whichever host.
    assert_eq!(guests[1].try_open(b"a", P, 7).0, KernReturn::NoAccess);
    let words = guests[1].inner.last_error().map(ToString::to_string);
    assert!(
        words.is_some_and(|words| words.contains('a')),
        "in words for the host"
    );
    drop(guests);
    for (sandbox, last) in sandboxes.iter().zip([49, 50]) {
        let mut guest = Guest::new(sandbox, Width::Bits32);
        guest.map_region("own", 4);
        assert_eq!(touched(&mut guest), [last; 4]);
    }
}

#[test]
fn a_host_keeps_no_store_open_that_nobody_uses() {
    let folder = folder();
    let sandbox = sandbox(open(folder.path()), rungs()[0]);
    let host = sandbox.host().clone();
    let mut guest = Guest::new(&sandbox, Width::Bits32);
    guest.map_region("a", 4);
    drop((guest, sandbox));
    drop(FileStore::open(folder.path(), &Options::default()).expect("nobody has it open"));
    drop(host);
}

/// A guest may go the moment its call is answered, while the store's thread is still returning from that answer: the store
/// is closed all the same when the last guest is gone, and can be opened at once.
#[test]
fn a_store_is_closed_when_its_last_guest_goes() {
    let folder = folder();
    for round in 1..=10 {
        let store = open(folder.path());
        let guests = ["a", "b", "c", "d"].map(|object| {
            let grant = Grant::new(store.clone(), name(object));
            let sandbox = Sandbox::builder().grant("a", grant).build().expect("an engine");
            let mut guest = Guest::new(&sandbox, Width::Bits32);
            guest.map_region("a", 4);
            guest
        });
        drop(store);
        let threads = guests.map(|mut guest| {
            std::thread::spawn(move || {
                for step in 0..20 {
                    guest.touch([1], round * 100 + step);
                    assert_eq!(guest.msync(BASE, 4 * P, SYNC), KernReturn::Success);
                }
            })
        });
        for thread in threads {
            thread.join().expect("a guest");
        }
    }
}

#[test]
fn a_read_only_store_is_for_loads() {
    for kind in rungs() {
        println!("{kind}");
        let folder = folder();
        let mut writer = guest(folder.path(), *kind);
        writer.touch([1], 7);
        assert_eq!(writer.msync(BASE, 4 * P, SYNC), KernReturn::Success);
        drop(writer);
        let options = Options {
            read_only: true,
            ..Options::default()
        };
        let store = FileStore::open(folder.path(), &options).expect("it is there");
        let grants = [
            Grant::new(store.clone(), name("a")),
            Grant::new(store, name("a")).read_only(),
        ];
        let [full, loads] = grants.map(|grant| {
            let sandbox = Sandbox::builder().tracker(*kind).grant("a", grant).build();
            Guest::new(&sandbox.expect("an engine"), Width::Bits32)
        });
        let (mut full, mut loads) = (full, loads);
        assert_eq!(full.try_open(b"a", P, 7).0, KernReturn::NoAccess);
        assert_eq!(loads.try_open(b"a", P, 3).0, KernReturn::NoAccess, "not granted");
        loads.map_for_loads("a", 4);
        assert_eq!(loads.touched(1), 7);
        assert!(loads.try_call::<_, ()>("store8", (BASE as i64, 1_i64)).is_err());
    }
}

// --- kill -9 ---------------------------------------------------------------------------------------------------

/// Not a test of its own: what [`state_survives_kill`] runs in a process of its own, and kills.
#[test]
fn a_guest_that_is_killed() {
    let Some(folder) = std::env::var_os(FOLDER) else {
        return;
    };
    let mut guest = guest(Path::new(&folder), vmsync::best());
    let mut value = guest.touched(0);
    println!("start {value}");
    loop {
        value = (value + 1) % 250;
        guest.touch(0..4, value);
        assert_eq!(guest.msync(BASE, 4 * P, SYNC), KernReturn::Success);
        println!("synced {value}");
        // Stores that no call covers.
        guest.touch([1, 3], 255);
    }
}

#[test]
fn state_survives_kill() {
    let folder = folder();
    for syncs in [1, 7, 20] {
        let program = std::env::current_exe().expect("this test");
        let mut child = Command::new(program)
            .args(["--exact", "a_guest_that_is_killed", "--nocapture"])
            .env(FOLDER, folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this test runs again");
        let mut output = BufReader::new(child.stdout.take().expect("piped"));
        let mut said = String::new();
        while said.matches("synced ").count() < syncs {
            assert!(output.read_line(&mut said).expect("text") > 0, "it syncs");
        }
        child.kill().expect("it was running");
        child.wait().expect("it ends");
        // It has gone on meanwhile. A line that the kill cut short may lack digits.
        output.read_to_string(&mut said).expect("text");
        let whole = said.rfind('\n').map_or("", |end| &said[..end]);
        let mut values = whole.lines().filter_map(|line| line.strip_prefix("synced "));
        let reported: u64 = values.next_back().expect("it synced").parse().expect("a value");
        let mut guest = guest(folder.path(), vmsync::best());
        let found = touched(&mut guest);
        println!("{syncs}: reported {reported}, found {found:?}");
        assert_eq!(found, [found[0]; 4], "one and the same call");
        assert!(
            found[0] == reported || found[0] == (reported + 1) % 250,
            "what was reported, or the call after it"
        );
    }
}

// --- a full disk -----------------------------------------------------------------------------------------------

/// A small file system in memory, for as long as it lives.
#[cfg(target_os = "linux")]
struct SmallDisk(tempfile::TempDir);

#[cfg(target_os = "linux")]
impl SmallDisk {
    fn new(options: &str) -> Option<Self> {
        let folder = folder();
        let mut command = Command::new("mount");
        command
            .args(["-t", "tmpfs", "-o", options, "vmsync-test"])
            .arg(folder.path());
        let status = command.stderr(Stdio::null()).status();
        status
            .is_ok_and(|status| status.success())
            .then_some(Self(folder))
    }
}

#[cfg(target_os = "linux")]
impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_resource_shortage_until_there_is_room() {
    const PAGES: u64 = 112;
    let Some(disk) = SmallDisk::new("size=4m") else {
        eprintln!("SKIPPED: mounting a small file system needs root");
        return;
    };
    let kind = rungs()[0];
    let path = disk.0.path().join("store");
    let options = Options {
        segment_bytes: 256 << 10,
        ..Options::default()
    };
    let store = FileStore::open(&path, &options).expect("an empty store fits");
    let mut guest = Guest::new(&sandbox(store.clone(), kind), Width::Bits32);
    guest.map_region("a", PAGES);
    let mut noise = vmsync_pager_conformance::random::Random::new(1);
    let mut store_noise = |guest: &mut Guest, first: u64, end: u64, value| {
        for at in (first * P..end * P).step_by(8) {
            guest.store64(BASE + at, noise.number());
        }
        guest.touch([first, end - 1], value);
    };
    for first in (0..PAGES).step_by(16) {
        store_noise(&mut guest, first, first + 16, 1);
        assert_eq!(guest.msync(BASE, PAGES * P, SYNC), KernReturn::Success);
    }
    // The image has its blocks before the rest of the disk goes.
    store.checkpoint().expect("there is room");
    let ballast = disk.0.path().join("ballast");
    let _ = std::fs::write(&ballast, vec![1; 4 << 20]);
    // More than a journal file takes, so no checkpoint makes room for it.
    store_noise(&mut guest, 0, PAGES, 2);
    for _ in 0..3 {
        assert_eq!(guest.msync(BASE, PAGES * P, SYNC), KernReturn::ResourceShortage);
        assert!(guest.inner.last_error().is_some(), "in words for the host");
        assert_eq!(
            (guest.touched(0), guest.touched(PAGES - 1)),
            (2, 2),
            "nothing is lost"
        );
    }
    std::fs::remove_file(&ballast).expect("it was written in part");
    assert_eq!(guest.msync(BASE, PAGES * P, SYNC), KernReturn::Success);
    drop((guest, store));
    let store = FileStore::open(&path, &options).expect("the store opens");
    let mut guest = Guest::new(&sandbox(store.clone(), kind), Width::Bits32);
    guest.map_region("a", PAGES);
    assert_eq!((guest.touched(0), guest.touched(PAGES - 1)), (2, 2));
    drop((guest, store));
}
