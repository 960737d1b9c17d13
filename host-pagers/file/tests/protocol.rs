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
