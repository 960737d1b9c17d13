//! Stores of every format so far, kept as files: each opens with the content that it was made with, and making the one of
//! the current format again gives the same bytes. `BLESS=1` rewrites the files of the current format, which is right only
//! together with a new format version: what was released stays as it is.

mod common;

use std::{collections::BTreeMap, path::PathBuf};

use common::{PAGE, client, contents, name, open};
use vmsync_core::abi::VmProt;
use vmsync_pager_conformance::Client;
use vmsync_pager_file::{
    disk::{Access, Disk, memory::MemoryDisk},
    inspect_on, verify_on,
};

/// The format that stores are made in.
const CURRENT: u32 = 3;

fn folder(version: u32) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/format-{version}"))
}

/// Every kind of entry: created, grown, removed, mapped, a small change, a whole page; a checkpoint in the middle, and
/// calls in the journal at the end.
fn make() -> MemoryDisk {
    let disk = MemoryDisk::new();
    let store = open(&disk).unwrap();
    let first = client(&store, "first", 1).unwrap();
    first.pager().map(first.object, 0x10_0000, VmProt::READ);
    first.commit_full(0, 0x11);
    let gone = client(&store, "gone", 1).unwrap();
    gone.commit_full(0, 0x22);
    gone.close();
    store.checkpoint().unwrap();
    store.remove_object(&name("gone")).unwrap();
    first.close();
    let first = client(&store, "first", 2).unwrap();
    let second = client(&store, "second.with-a_name", 1).unwrap();
    let call = Client::call();
    let mut page = vec![0x11; PAGE];
    page[100..108].copy_from_slice(b"changed!");
    first.give(call, 0, &page).unwrap();
    first.sync(call, 0, 1).unwrap();
    second.commit_full(0, 0x33);
    std::mem::forget(store);
    disk.after_kill()
}

fn files(disk: &MemoryDisk) -> BTreeMap<String, Vec<u8>> {
    let names = disk.list().unwrap();
    names
        .into_iter()
        .map(|name| (name.clone(), disk.content(&name).unwrap()))
        .collect()
}

fn load(version: u32) -> MemoryDisk {
    let disk = MemoryDisk::new();
    for entry in std::fs::read_dir(folder(version)).unwrap() {
        let entry = entry.unwrap();
        let file = disk
            .open(entry.file_name().to_str().unwrap(), Access::Create)
            .unwrap();
        file.write_at(0, &std::fs::read(entry.path()).unwrap()).unwrap();
    }
    disk.after_kill()
}

#[test]
fn a_store_of_every_format_opens() {
    for version in 1..=CURRENT {
        let kept = load(version);
        assert_eq!(verify_on(&kept).unwrap().problems, []);
        let summary = inspect_on(&kept).unwrap();
        assert_eq!((summary.format_version, summary.journal.calls), (version, 5));
        assert_eq!(summary.objects.len(), 2);
        assert_eq!(summary.objects[0].1.address, Some(0x10_0000));
        let disk = kept.after_kill();
        let store = open(&disk).unwrap();
        let found = contents(&store).unwrap();
        assert!(found["first"][100..108] == *b"changed!" && found["first"].len() == 2 * PAGE);
        assert!(found["first"][..100].iter().all(|byte| *byte == 0x11));
        assert!(found["second.with-a_name"].iter().all(|byte| *byte == 0x33));
        assert_eq!(
            store.list()[1].1.version,
            9,
            "the ninth call: creations, growth and removal count as well"
        );
        // It goes on in the current format, with all that it had.
        client(&store, "first", 2).unwrap().commit_full(1, 0x44);
        drop(store);
        assert_eq!(verify_on(&disk).unwrap().problems, []);
        assert_eq!(inspect_on(&disk).unwrap().format_version, CURRENT);
        let found = contents(&open(&disk).unwrap()).unwrap();
        assert!(found["first"][100..108] == *b"changed!" && found["first"][PAGE] == 0x44);
    }
}

#[test]
fn the_current_format_is_made_as_it_is_kept() {
    let made = files(&make());
    if std::env::var_os("BLESS").is_some() {
        let _ = std::fs::remove_dir_all(folder(CURRENT));
        std::fs::create_dir_all(folder(CURRENT)).unwrap();
        for (name, content) in &made {
            std::fs::write(folder(CURRENT).join(name), content).unwrap();
        }
    }
    let kept = files(&load(CURRENT));
    assert!(
        made.keys().eq(kept.keys()),
        "{:?} and {:?}",
        made.keys(),
        kept.keys()
    );
    for (name, content) in made {
        assert!(
            content == kept[&name],
            "{name} differs: a new format needs a new version and BLESS=1"
        );
    }
}
