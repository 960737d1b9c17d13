//! The file store against the conformance suite, on each disk and with each kind of background.

use std::sync::Arc;

use vmsync_core::PageSize;
use vmsync_pager_conformance::{Fixture, run};
use vmsync_pager_file::{Background, FileStore, Options, disk::memory::MemoryDisk};

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
