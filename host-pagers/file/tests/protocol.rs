//! The file store against the conformance suite, on each disk and with each kind of background.

use std::sync::Arc;

use vmsync_core::PageSize;
use vmsync_pager_conformance::{Client, Fixture, run};
use vmsync_pager_file::{
    Background, FileStore, Options,
    disk::{Access, Disk, memory::MemoryDisk},
};

fn small() -> Options {
    Options {
        segment_bytes: 64 << 10,
        checkpoint_bytes: 64 << 10,
        ..Options::default()
    }
}

#[test]
fn conforms_on_a_native_disk() {
    run("file", || {
        let folder = tempfile::tempdir().unwrap();
        Fixture::durable(move || FileStore::open(folder.path(), &small()).unwrap())
    });
}

#[test]
fn conforms_with_large_pages() {
    run("file, 64 KiB", || {
        let folder = tempfile::tempdir().unwrap();
        let options = Options {
            page_size: PageSize::KIB_64,
            ..small()
        };
        Fixture::durable(move || FileStore::open(folder.path(), &options).unwrap())
            .with_page_size(PageSize::KIB_64)
    });
}

#[test]
fn conforms_on_a_memory_disk_without_a_thread() {
    run("memory disk", || {
        let disk = Arc::new(MemoryDisk::new());
        let options = Options {
            background: Background::Caller,
            ..small()
        };
        Fixture::durable(move || FileStore::open_on(disk.clone(), &options).unwrap())
    });
}

#[test]
fn conforms_when_the_host_tidies() {
    run("memory disk, Background::Host", || {
        let disk = Arc::new(MemoryDisk::new());
        let options = Options {
            background: Background::Host,
            ..small()
        };
        Fixture::durable(move || FileStore::open_on(disk.clone(), &options).unwrap())
    });
}

/// What is durable goes into its image when the host tidies, and is supplied before as well.
#[test]
fn a_host_tidies_when_nothing_waits() {
    let disk = Arc::new(MemoryDisk::new());
    let options = Options {
        background: Background::Host,
        ..small()
    };
    let store = FileStore::open_on(disk.clone(), &options).unwrap();
    let fixture = Fixture::ephemeral(store.clone());
    let client = Client::open(&fixture, "late", 2);
    client.commit_full(1, 7);
    client.assert_full(1, 7);
    let in_image = || {
        let mut byte = [0];
        let image = disk.open("object-1", Access::Read).unwrap();
        image.read_at(4096, &mut byte).unwrap();
        byte[0]
    };
    assert_eq!(in_image(), 0, "the commit did not wait for the image");
    store.tidy().unwrap();
    assert_eq!(in_image(), 7);
    client.assert_full(1, 7);
    client.close();
}

/// The journal file that was made for a large call is used again. It counts as what is in it: the checkpoint is left to the host.
#[test]
fn small_calls_in_a_large_journal_file_wait_for_no_checkpoint() {
    let options = Options {
        background: Background::Host,
        checkpoint_bytes: 128 << 10,
        ..small()
    };
    let disk = Arc::new(MemoryDisk::new());
    let store = FileStore::open_on(disk.clone(), &options).unwrap();
    let pages = 300;
    let client = Client::open(&Fixture::ephemeral(store.clone()), "object", pages);
    let call = Client::call();
    client.give(call, 0, &vec![1; pages as usize * 4096]).unwrap();
    client.sync(call, 0, pages).unwrap();
    client.commit_full(0, 2);
    store.tidy().unwrap();
    let checkpoints = store.stats().checkpoints;
    let file_size = |number: u64| {
        disk.content(&format!("journal-{number}"))
            .map(|content| content.len())
    };
    let made = (0..).take_while(|number| file_size(*number).is_some()).count();
    // More than two files have room for, and less than four.
    (0..56).for_each(|number| client.commit_full(number, 3));
    assert_eq!(store.stats().checkpoints, checkpoints);
    assert!(file_size(made as u64).is_some(), "the large file is not the last");
    client.close();
}
