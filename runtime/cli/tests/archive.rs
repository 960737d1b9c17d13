//! `vmsync export` and `vmsync import`: a store goes through one file and is the same; what is damaged, hostile or in the way
//! is refused, and nothing is left behind.

mod support;

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use support::{Place, text, vmsync};

/// The names in a folder.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// A tar file of entries: name, type, bytes. No name is too odd for it.
fn archive(entries: &[(&str, tar::EntryType, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, kind, bytes) in entries {
        let mut header = tar::Header::new_ustar();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(*kind);
        header.set_size(bytes.len() as u64);
        header.set_cksum();
        builder.append(&header, *bytes).unwrap();
    }
    builder.into_inner().unwrap()
}

#[test]
fn a_store_goes_through_one_file_and_goes_on_where_it_was() {
    let place = Place::new();
    let (store, file, copy) = (place.path("store"), place.path("store.tar"), place.path("copy"));
    place.add("5", &[]).ok();
    fs::write(place.path("store/notes"), "of a person").unwrap();
    let said = vmsync(&["export", "--json", &store, &file]).ok();
    let json: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert!(json["files"].as_u64().unwrap() >= 3, "{json}");
    let said = vmsync(&["import", "--json", &file, &copy]).ok();
    let json: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(
        (&json["objects"], &json["pages"]),
        (&1.into(), &1.into()),
        "{json}"
    );
    for name in names(copy.as_ref()) {
        let read = |store: &str| fs::read(Path::new(store).join(&name)).unwrap();
        if name == "LOCK" {
            // Made anew by who compared the checksums, not by who had the store open.
            assert!(read(&copy).is_empty() && !read(&store).is_empty());
        } else {
            assert!(read(&store) == read(&copy), "{name}");
        }
    }
    assert!(!names(copy.as_ref()).iter().any(|name| name == "notes"));
    let map = format!("counter={copy}");
    let module = place.path("counter.wat");
    let add = ["run", "--invoke", "add", "--map", &map, &module, "--", "2"];
    assert_eq!(vmsync(&add).ok(), "7");
    // A second export takes the place of the first.
    vmsync(&["export", &copy, &file]).ok();
    fs::remove_dir_all(&copy).unwrap();
    fs::create_dir(&copy).unwrap();
    vmsync(&["import", &file, &copy]).ok();
    assert_eq!(vmsync(&add).ok(), "9");
    assert_eq!(place.add("1", &[]).ok(), "6");
    assert_eq!(
        names(place.folder.path()),
        ["copy", "counter.wat", "store", "store.tar"]
    );
}

#[test]
fn an_export_takes_no_name_from_what_is_no_file_and_none_of_the_stores() {
    let place = Place::new();
    place.add("5", &[]).ok();
    let (store, pipe) = (place.path("store"), place.path("pipe"));
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    vmsync(&["export", &store, &pipe]).fails(1, &["pipe", "is no file"]);
    assert!(!fs::metadata(&pipe).unwrap().is_file());
    for name in ["STORE", "object-1", "journal-77"] {
        let file = format!("{store}/{name}");
        vmsync(&["export", &store, &file]).fails(1, &["of the store itself"]);
    }
    // Behind a link it is the file that is replaced.
    let (link, target) = (place.path("link.tar"), place.path("target.tar"));
    fs::write(&target, "an older one").unwrap();
    std::os::unix::fs::symlink(&target, &link).unwrap();
    vmsync(&["export", &store, &link]).ok();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    vmsync(&["import", &target, &place.path("copy")]).ok();
    assert_eq!(place.add("1", &[]).ok(), "6");
}

#[test]
fn a_folder_that_tar_has_packed_is_taken_as_well() {
    let place = Place::new();
    place.add("5", &[]).ok();
    let file = place.path("store.tar");
    let mut builder = tar::Builder::new(fs::File::create(&file).unwrap());
    builder.append_dir_all("state", place.path("store")).unwrap();
    builder.finish().unwrap();
    let said = vmsync(&["import", &file, &place.path("copy")]);
    assert!(
        said.err.contains("left out") && said.err.contains("LOCK"),
        "{}",
        said.err
    );
    said.ok();
    assert_eq!(vmsync(&["verify", &place.path("copy")]).code, Some(0));
}

#[test]
fn damaged_archives_leave_nothing() {
    let place = Place::new();
    place.add("5", &[]).ok();
    let (file, copy) = (place.path("store.tar"), place.path("copy"));
    vmsync(&["export", &place.path("store"), &file]).ok();
    let whole = fs::read(&file).unwrap();
    let refused = |bytes: &[u8], what: &str| {
        fs::write(&file, bytes).unwrap();
        let said = vmsync(&["import", &file, &copy]);
        assert_eq!(said.code, Some(1), "{what}: {}{}", said.out, said.err);
        assert!(said.err.contains("store.tar"), "{what}: {}", said.err);
        assert_eq!(
            names(place.folder.path()),
            ["counter.wat", "store", "store.tar"],
            "{what}"
        );
        said.err
    };
    // Two blocks of zeroes end an archive; STORE is the file before them.
    for length in [
        0,
        1,
        511,
        512,
        513,
        100_000,
        whole.len() / 2,
        whole.len() - 1024 - 8192,
    ] {
        let said = refused(&whole[..length], &format!("cut at {length}"));
        assert!(said.contains("cut short"), "{said}");
    }
    let mut data = Vec::new();
    for entry in tar::Archive::new(whole.as_slice()).entries().unwrap() {
        let entry = entry.unwrap();
        let name = entry.path().unwrap().display().to_string();
        data.push((
            name,
            entry.raw_header_position() as usize,
            entry.raw_file_position() as usize,
        ));
    }
    for (name, header, bytes) in data {
        let flipped = |at: usize| {
            let mut bytes = whole.clone();
            bytes[at] ^= 4;
            bytes
        };
        refused(&flipped(header), &format!("a bit in the header of {name}"));
        if name.starts_with("object") {
            let said = refused(&flipped(bytes), &format!("a bit in {name}"));
            assert!(said.contains("damaged"), "{said}");
        }
    }
    refused(&[7; 4096], "bytes of something else");
}

#[test]
fn hostile_archives_are_refused() {
    use tar::EntryType::{Regular, Symlink};
    let place = Place::new();
    let file = place.path("store.tar");
    let import = |bytes: &[u8]| {
        fs::write(&file, bytes).unwrap();
        let said = vmsync(&["import", &file, &place.path("in/copy")]);
        assert_eq!(names(place.path("in").as_ref()), [""; 0]);
        assert_eq!(names(place.folder.path()), ["counter.wat", "in", "store.tar"]);
        said
    };
    fs::create_dir(place.path("in")).unwrap();
    import(&archive(&[("../STORE", Regular, b"x")])).fails(1, &["../STORE leads out"]);
    import(&archive(&[("/tmp/STORE", Regular, b"x")])).fails(1, &["leads out"]);
    import(&archive(&[("a/../../b", Regular, b"x")])).fails(1, &["leads out"]);
    import(&archive(&[("STORE", Symlink, b"")])).fails(1, &["STORE is not a plain file"]);
    import(&archive(&[("STORE", Regular, b"x"), ("b/STORE", Regular, b"x")]))
        .fails(1, &["two files called STORE"]);
    import(&archive(&[("journal-0", Regular, b"x")])).fails(1, &["no file STORE"]);
    import(&archive(&[("STORE", Regular, &[1; 8192])])).fails(1, &["store.tar"]);
    import(&archive(&[("README", Regular, b"x")])).fails(1, &["no file STORE"]);
    import(&archive(&[])).fails(1, &["no file STORE"]);
}

#[test]
fn what_is_in_the_way_is_said() {
    let place = Place::new();
    let (store, file) = (place.path("store"), place.path("store.tar"));
    place.add("1", &[]).ok();
    vmsync(&["export", &place.path("nowhere"), &file]).fails(1, &["nowhere", "No such file"]);
    vmsync(&["export", text(place.folder.path()), &file]).fails(1, &["there is no store"]);
    vmsync(&["export", &store, &place.path("no/store.tar")]).fails(1, &["cannot write", "No such file"]);
    vmsync(&["export", &store]).fails(2, &["<FILE>"]);
    let options = vmsync_pager_file::Options::default();
    let held = vmsync_pager_file::FileStore::open(store.as_ref(), &options).unwrap();
    vmsync(&["export", &store, &file]).fails(1, &["is open in process"]);
    drop(held);
    vmsync(&["export", &store, &file]).ok();
    vmsync(&["import", &place.path("missing.tar"), &place.path("copy")])
        .fails(1, &["missing.tar", "No such file"]);
    vmsync(&["import", &file, &store]).fails(1, &["exists and is not empty", "choose another folder"]);
    vmsync(&["import", &file, &place.path("counter.wat")]).fails(1, &["counter.wat"]);
    assert_eq!(place.add("1", &[]).ok(), "2");
}

#[test]
fn a_damaged_store_is_not_exported() {
    let place = Place::new();
    let (store, file) = (place.path("store"), place.path("store.tar"));
    place.add("5", &[]).ok();
    fs::write(&file, "an older one").unwrap();
    let image = format!("{store}/object-1");
    let mut bytes = fs::read(&image).unwrap();
    bytes[1] ^= 4;
    fs::write(&image, bytes).unwrap();
    vmsync(&["export", &store, &file]).fails(1, &["damaged", "object-1", "page 0 of \"counter\"", "verify"]);
    assert_eq!(fs::read(&file).unwrap(), b"an older one");
    assert_eq!(names(place.folder.path()), ["counter.wat", "store", "store.tar"]);
}

/// Makes the counter's object `bytes` large, nearly all of it never written.
fn grow(place: &Place, bytes: &str) {
    let module = place.path("counter.wat");
    let text = fs::read_to_string(&module).unwrap();
    fs::write(
        &module,
        text.replace("i64.const 4096", &format!("i64.const {bytes}")),
    )
    .unwrap();
}

#[test]
fn what_was_never_written_takes_no_space_in_an_archive() {
    let place = Place::new();
    let (store, file, copy) = (place.path("store"), place.path("store.tar"), place.path("copy"));
    grow(&place, "0x4000000");
    place.add("5", &[]).ok();
    vmsync(&["export", &store, &file]).ok();
    let found = fs::metadata(&file).unwrap();
    let occupied = found.blocks() * 512;
    assert!(found.len() > 64 << 20 && occupied < 1 << 20, "{occupied}");
    vmsync(&["import", &file, &copy]).ok();
    let read = |store: &str| fs::read(Path::new(store).join("object-1")).unwrap();
    assert!(read(&store) == read(&copy));
}

/// Starts a command and sends a signal when it has made a temporary name; its exit code.
#[cfg(target_os = "linux")]
fn interrupted(arguments: &[&str], signal: &str, folder: &Path) -> Option<i32> {
    let has_begun = || names(folder).iter().any(|name| name.starts_with(".vmsync-"));
    // What ignores a signal goes on ignoring it, and so may whoever runs the tests.
    let command = Command::new("env")
        .args(["--default-signal=INT,TERM,HUP", env!("CARGO_BIN_EXE_vmsync")])
        .args(arguments)
        .stderr(Stdio::null())
        .spawn();
    let mut child: Child = command.unwrap();
    let begun = Instant::now();
    while !has_begun() {
        assert!(begun.elapsed() < Duration::from_secs(20), "it does not start");
        thread::sleep(Duration::from_millis(1));
    }
    let sent = Command::new("kill")
        .args([signal, &child.id().to_string()])
        .status();
    assert!(sent.unwrap().success());
    child.wait().unwrap().code()
}

#[cfg(target_os = "linux")]
#[test]
fn an_interrupt_leaves_nothing() {
    let place = Place::new();
    let (store, file) = (place.path("store"), place.path("store.tar"));
    // Holes, but enough of them that nobody is done before the signal comes.
    grow(&place, "0x1000000000");
    place.add("5", &[]).ok();
    fs::write(&file, "an older one").unwrap();
    let export = ["export", store.as_str(), &file];
    for (signal, code) in [("-INT", 130), ("-TERM", 143), ("-HUP", 129)] {
        assert_eq!(interrupted(&export, signal, place.folder.path()), Some(code));
        assert_eq!(fs::read(&file).unwrap(), b"an older one");
        assert_eq!(names(place.folder.path()), ["counter.wat", "store", "store.tar"]);
    }
    // An archive of one large file of zeroes.
    let mut header = tar::Header::new_gnu();
    header.set_path("object-1").unwrap();
    header.set_size(1 << 36);
    header.set_cksum();
    fs::write(&file, header.as_bytes()).unwrap();
    let length = fs::metadata(&file).unwrap().len() + (1 << 36);
    fs::File::options()
        .write(true)
        .open(&file)
        .unwrap()
        .set_len(length)
        .unwrap();
    let import = ["import", file.as_str(), &place.path("copy")];
    assert_eq!(interrupted(&import, "-INT", place.folder.path()), Some(130));
    assert_eq!(names(place.folder.path()), ["counter.wat", "store", "store.tar"]);
}

/// It takes a mount, so it needs root; without, it says so and passes.
#[test]
fn a_full_disk_leaves_nothing() {
    let place = Place::new();
    place.add("1", &[]).ok();
    let small = place.path("small");
    fs::create_dir(&small).unwrap();
    let mount = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=16k", "none", &small])
        .status();
    if !mount.is_ok_and(|status| status.success()) {
        return println!("SKIPPED: no file system can be mounted here");
    }
    let (store, file) = (place.path("store"), place.path("store.tar"));
    let exported = vmsync(&["export", &store, &place.path("small/store.tar")]);
    vmsync(&["export", &store, &file]).ok();
    let imported = vmsync(&["import", &file, &place.path("small/copy")]);
    let left = names(small.as_ref());
    assert!(Command::new("umount").arg(&small).status().unwrap().success());
    exported.fails(1, &["cannot write", "No space left"]);
    imported.fails(1, &["cannot write", "No space left"]);
    assert_eq!(left, [""; 0]);
}
