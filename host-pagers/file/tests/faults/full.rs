//! A full disk.

use vmsync_core::PagerErrorKind;
use vmsync_pager_conformance::Client;
use vmsync_pager_file::{
    disk::{
        Disk,
        memory::{Failure, Fault, MemoryDisk},
    },
    verify_on,
};

use crate::common::{PAGES, client, open};

/// A full disk: calls fail with `NoSpace`, and work again when there is room.
#[test]
fn no_space_passes() {
    let disk = MemoryDisk::new();
    let store = open(&disk).unwrap();
    let object = client(&store, "object", PAGES).unwrap();
    object.commit_full(0, 1);
    disk.inject(Fault {
        after: disk.operations(),
        count: u64::MAX / 2,
        failure: Failure::NoSpace,
    });
    for _ in 0..3 {
        let call = Client::call();
        object.give_full(call, 0, 2);
        assert_eq!(object.sync(call, 0, 1).unwrap_err().kind, PagerErrorKind::NoSpace);
        object.assert_full(0, 1);
    }
    disk.heal();
    object.commit_full(0, 2);
    drop(store);
    object.recorder.assert_exact();
}

/// What the running store keeps in memory where an image has no room, it keeps when it is opened, too.
#[test]
fn a_store_on_a_full_disk_opens() {
    let disk = MemoryDisk::new();
    let store = open(&disk).unwrap();
    let object = client(&store, "object", PAGES).unwrap();
    disk.fill_up(Some("object-"));
    object.commit_full(1, 7);
    let disk = disk.after_kill();
    drop((object, store));
    disk.fill_up(Some("object-"));
    let store = open(&disk).unwrap();
    let object = client(&store, "object", PAGES).unwrap();
    object.assert_full(1, 7);
    object.commit_full(2, 8);
    assert_eq!(store.checkpoint().unwrap_err().kind, PagerErrorKind::NoSpace);
    disk.fill_up(None);
    store.checkpoint().unwrap();
    drop((object, store));
    assert_eq!(verify_on(&disk).unwrap().problems, []);
    let store = open(&disk).unwrap();
    let object = client(&store, "object", PAGES).unwrap();
    object.assert_full(1, 7);
    object.assert_full(2, 8);
}

/// It could be opened again, and be found to be too short.
#[test]
fn an_object_that_cannot_be_made_leaves_no_file() {
    let disk = MemoryDisk::new();
    let store = open(&disk).unwrap();
    for operation in 0..3 {
        let before = disk.list().unwrap();
        disk.inject(Fault {
            after: disk.operations() + operation,
            count: 1,
            failure: Failure::NoSpace,
        });
        assert!(client(&store, "object", PAGES).is_err(), "{operation}");
        disk.heal();
        let images = |names: Vec<String>| {
            names
                .into_iter()
                .filter(|name| name.starts_with("object-"))
                .count()
        };
        assert_eq!(images(disk.list().unwrap()), images(before), "{operation}");
    }
}
