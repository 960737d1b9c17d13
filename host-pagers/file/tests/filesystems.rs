//! Real file systems that fail: a full one, and one that turns read-only under an open store. They take mounts, so the tests
//! need root; without, they say so and pass.

mod common;

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use common::{PAGE, client, contents};
use vmsync_core::{PagerError, PagerErrorKind};
use vmsync_pager_conformance::Client;
use vmsync_pager_file::{Background, FileStore, Options, inspect, verify};

/// Pages of the object that the tests fill.
const PAGES: u64 = 2048;

fn options() -> Options {
    Options {
        segment_bytes: 256 << 10,
        checkpoint_bytes: 256 << 10,
        background: Background::Caller,
        ..Options::default()
    }
}

/// One test at a time: a child that another starts holds copies of our files, locks included, until it runs its program.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A mounted file system.
struct Mount {
    folder: PathBuf,
}

impl Mount {
    /// Mounts `what` at a new folder in `place`; `None` where that is not permitted.
    fn new(place: &Path, name: &str, options: &[&str], what: &str) -> Option<Self> {
        let folder = place.join(name);
        fs::create_dir_all(&folder).unwrap();
        let mut mount = Command::new("mount");
        mount.args(options).arg(what).arg(&folder);
        run(&mut mount).then_some(Self { folder })
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        run(Command::new("umount").arg(&self.folder));
    }
}

/// Whether `command` worked; says why not.
fn run(command: &mut Command) -> bool {
    let outcome = command.output();
    let worked = outcome.as_ref().is_ok_and(|output| output.status.success());
    if !worked {
        let why = outcome.map_or_else(
            |error| error.to_string(),
            |output| String::from_utf8_lossy(&output.stderr).into(),
        );
        println!("{command:?} failed: {why}");
    }
    worked
}

fn skip(what: &str) {
    println!("SKIPPED: {what} takes root and a kernel that has it");
}

/// An ext4 file system of `mib` MiB in the file `image`.
fn make_ext4(image: &Path, mib: u64) -> bool {
    fs::File::create(image).unwrap().set_len(mib << 20).unwrap();
    run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(image))
}

fn write_page(object: &Client, page: u64, byte: u8) -> Result<(), PagerError> {
    let call = Client::call();
    object.give(call, page, &[byte; PAGE])?;
    object.sync(call, page, 1)
}

/// Writes pages until a call fails; how many are durable, and why it ended.
fn write_until_it_fails(object: &Client) -> (u64, PagerError) {
    for page in 0..PAGES {
        if let Err(error) = write_page(object, page, 1 + (page % 250) as u8) {
            return (page, error);
        }
    }
    panic!("{PAGES} pages fit");
}

#[track_caller]
fn assert_pages(store: &Arc<FileStore>, durable: u64) {
    let found = contents(store).unwrap();
    for page in 0..durable {
        let bytes = &found["object"][page as usize * PAGE..][..PAGE];
        let expected = 1 + (page % 250) as u8;
        assert!(
            bytes.iter().all(|byte| *byte == expected),
            "page {page} of {durable}"
        );
    }
}

#[test]
fn a_full_file_system_loses_nothing() {
    let _alone = alone();
    let place = tempfile::tempdir().unwrap();
    let Some(mount) = Mount::new(place.path(), "full", &["-t", "tmpfs", "-o", "size=4m"], "tmpfs") else {
        return skip("a tmpfs");
    };
    let (folder, ballast) = (mount.folder.join("store"), mount.folder.join("ballast"));
    fs::write(&ballast, vec![1; 1 << 20]).unwrap();
    let store = FileStore::open(&folder, &options()).unwrap();
    let object = client(&store, "object", PAGES).unwrap();
    let (durable, error) = write_until_it_fails(&object);
    assert_eq!(error.kind, PagerErrorKind::NoSpace, "{error}");
    assert!(error.message.contains("free some space"), "{error}");
    assert!(durable > 100, "{durable}");
    assert_pages(&store, durable);
    // As a killed process leaves it: copied while it is open.
    let copy = tempfile::tempdir().unwrap();
    assert!(run(Command::new("cp").arg("-a").arg(&folder).arg(copy.path())));
    let copied = copy.path().join("store");
    assert_eq!(verify(&copied).unwrap().problems, []);
    assert_pages(&FileStore::open(&copied, &options()).unwrap(), durable);
}

#[test]
fn a_full_file_system_works_again_when_there_is_room() {
    let _alone = alone();
    let place = tempfile::tempdir().unwrap();
    let Some(mount) = Mount::new(place.path(), "room", &["-t", "tmpfs", "-o", "size=4m"], "tmpfs") else {
        return skip("a tmpfs");
    };
    let (folder, ballast) = (mount.folder.join("store"), mount.folder.join("ballast"));
    fs::write(&ballast, vec![1; 1 << 20]).unwrap();
    let store = FileStore::open(&folder, &options()).unwrap();
    let object = client(&store, "object", PAGES).unwrap();
    let (durable, _) = write_until_it_fails(&object);
    fs::remove_file(&ballast).unwrap();
    for page in durable..durable + 20 {
        write_page(&object, page, 1 + (page % 250) as u8).unwrap();
    }
    assert_pages(&store, durable + 20);
    drop((object, store));
    assert_eq!(verify(&folder).unwrap().problems, []);
    assert_pages(&FileStore::open(&folder, &options()).unwrap(), durable + 20);
}

/// Takes all the room that there is.
fn fill(ballast: &Path) {
    let mut file = fs::File::create(ballast).unwrap();
    // The first is refused when less is left than that.
    for piece in [1 << 16, 1] {
        while file.write_all(&vec![1; piece]).is_ok() {}
    }
    let _ = file.sync_all();
}

/// Copies the store in `folder` as a power cut may leave it: what calls wrote into images was never synced.
fn cut_off(folder: &Path, copy: &Path) {
    fs::create_dir(copy).unwrap();
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let copied = copy.join(entry.file_name());
        if entry.file_name().to_str().unwrap().starts_with("object-") {
            let length = entry.metadata().unwrap().len();
            fs::File::create(copied).unwrap().set_len(length).unwrap();
        } else {
            fs::copy(entry.path(), copied).unwrap();
        }
    }
}

/// The next process finds no room at all: the store opens, tells no call that it was written, and goes on when there is some.
fn recover_without_room(mount: &Mount) {
    let options = Options {
        checkpoint_bytes: 64 << 20,
        ..options()
    };
    let (folder, ballast) = (mount.folder.join("store"), mount.folder.join("ballast"));
    {
        let first = mount.folder.join("first");
        let store = FileStore::open(&first, &options).unwrap();
        let object = client(&store, "object", PAGES).unwrap();
        for page in 0..20 {
            write_page(&object, page, 1 + page as u8).unwrap();
        }
        cut_off(&first, &folder);
        drop((object, store));
        fs::remove_dir_all(first).unwrap();
    }
    assert!(
        inspect(&folder).unwrap().journal.calls > 20,
        "the creation, and each page"
    );
    fill(&ballast);
    let mut durable = 20;
    for _ in 0..3 {
        let store = FileStore::open(&folder, &options).unwrap();
        assert_pages(&store, durable);
        let object = client(&store, "object", PAGES).unwrap();
        let (refused, error) = write_until_it_fails_from(&object, durable);
        assert_eq!(error.kind, PagerErrorKind::NoSpace, "{error}");
        durable = refused;
        assert_pages(&store, durable);
        drop((object, store));
        assert_eq!(verify(&folder).unwrap().problems, []);
    }
    let store = FileStore::open(&folder, &options).unwrap();
    let object = client(&store, "object", PAGES).unwrap();
    fs::remove_file(&ballast).unwrap();
    for page in durable..durable + 20 {
        write_page(&object, page, 1 + page as u8).unwrap();
    }
    drop((object, store));
    assert_eq!(verify(&folder).unwrap().problems, []);
    assert_pages(&FileStore::open(&folder, &options).unwrap(), durable + 20);
}

#[test]
fn a_store_recovers_on_a_full_file_system() {
    let _alone = alone();
    let place = tempfile::tempdir().unwrap();
    match Mount::new(place.path(), "small", &["-t", "tmpfs", "-o", "size=4m"], "tmpfs") {
        Some(mount) => recover_without_room(&mount),
        None => skip("a tmpfs"),
    }
    let image = place.path().join("image");
    let mounted = make_ext4(&image, 8)
        .then(|| Mount::new(place.path(), "disk", &["-o", "loop"], image.to_str().unwrap()))
        .flatten();
    match mounted {
        Some(mount) => recover_without_room(&mount),
        None => skip("a loop mount of ext4"),
    }
}

/// What the journal needs is in the journal: segments whose pages are in the images can be used again.
#[test]
fn a_full_file_system_takes_changes_of_what_is_there() {
    let _alone = alone();
    let place = tempfile::tempdir().unwrap();
    let Some(mount) = Mount::new(place.path(), "again", &["-t", "tmpfs", "-o", "size=4m"], "tmpfs") else {
        return skip("a tmpfs");
    };
    let options = Options {
        checkpoint_bytes: 64 << 20,
        ..options()
    };
    let store = FileStore::open(&mount.folder.join("store"), &options).unwrap();
    let object = client(&store, "object", 1).unwrap();
    write_page(&object, 0, 0xff).unwrap();
    store.checkpoint().unwrap();
    (0..100).for_each(|byte| write_page(&object, 0, byte).unwrap());
    // It ends when there is no room.
    fs::write(mount.folder.join("ballast"), vec![1; 4 << 20]).unwrap_err();
    for byte in (0..250).cycle().take(600) {
        write_page(&object, 0, byte).unwrap();
    }
    assert_eq!(contents(&store).unwrap()["object"][0], 99);
    assert_eq!(store.stats().failures, 0);
}

#[test]
fn a_file_system_that_turns_read_only_reports_it() {
    let _alone = alone();
    let place = tempfile::tempdir().unwrap();
    let image = place.path().join("image");
    let options_of_mount = ["-o", "loop,errors=remount-ro"];
    let mounted = make_ext4(&image, 32)
        .then(|| Mount::new(place.path(), "disk", &options_of_mount, image.to_str().unwrap()))
        .flatten();
    let Some(mount) = mounted else {
        return skip("a loop mount of ext4");
    };
    let folder = mount.folder.join("store");
    let store = FileStore::open(&folder, &options()).unwrap();
    let object = client(&store, "object", PAGES).unwrap();
    for page in 0..20 {
        write_page(&object, page, 1 + page as u8).unwrap();
    }
    if !report_error(&mount.folder) {
        return skip("an error on demand of ext4");
    }
    // A new segment, or a sync, meets the file system as it is now; writes into the cache may still work before.
    let (refused, error) = write_until_it_fails_from(&object, 20);
    assert!(
        matches!(error.kind, PagerErrorKind::Denied | PagerErrorKind::Io),
        "{error}"
    );
    assert_pages(&store, 20);
    drop((object, store));
    drop(mount);
    // It repairs what the error left, and says so with its exit code.
    let _ = Command::new("e2fsck").arg("-fp").arg(&image).output();
    let mount = Mount::new(place.path(), "disk", &options_of_mount, image.to_str().unwrap()).unwrap();
    assert_eq!(verify(&folder).unwrap().problems, []);
    let store = FileStore::open(&folder, &options()).unwrap();
    assert_pages(&store, refused);
    drop(store);
    drop(mount);
}

/// As [`write_until_it_fails`], from a page on.
fn write_until_it_fails_from(object: &Client, first: u64) -> (u64, PagerError) {
    for page in first..PAGES {
        if let Err(error) = write_page(object, page, 1 + (page % 250) as u8) {
            return (page, error);
        }
    }
    panic!("a read-only file system takes every page");
}

/// Makes the ext4 file system at `folder` meet an error.
fn report_error(folder: &Path) -> bool {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let device = mounts.lines().find_map(|line| {
        let mut words = line.split(' ');
        let device = words.next()?.strip_prefix("/dev/")?;
        (words.next()? == folder.to_str()?).then(|| device.to_owned())
    });
    let Some(device) = device else { return false };
    let trigger = format!("/sys/fs/ext4/{device}/trigger_fs_error");
    fs::write(&trigger, "1").is_ok()
}
