//! A record whose write or sync fails, and what a panic leaves.

use vmsync_core::PagerErrorKind;
use vmsync_pager_conformance::Client;
use vmsync_pager_file::disk::memory::{Failure, Fault, MemoryDisk};

use crate::common::{PAGE, PAGES, client, contents, open};

/// A call that sets the first page to 2: the write of its record works, its sync is a false alarm.
fn fail_behind_the_record(disk: &MemoryDisk, object: &Client) {
    disk.inject(Fault {
        after: disk.operations() + 1,
        count: 1,
        failure: Failure::FalseAlarm,
    });
    let error = object.try_commit_full(0, 2).unwrap_err();
    assert_eq!(error.kind, PagerErrorKind::Io, "{error}");
}

/// The trap that gave "fsyncgate" its name: a sync fails, the record has arrived all the same, a later call works.
/// The failed call must not come back.
#[test]
fn a_failed_call_that_arrived_is_void_after_a_later_one() {
    let disk = MemoryDisk::new();
    let store = open(&disk).unwrap();
    let object = client(&store, "object", PAGES).unwrap();
    object.commit_full(0, 1);
    fail_behind_the_record(&disk, &object);
    object.assert_full(0, 1);
    let resurrected = contents(&open(&disk.after_kill()).unwrap()).unwrap();
    assert_eq!(resurrected["object"][0], 2, "the record did arrive");
    object.commit_full(1, 3);
    let found = contents(&open(&disk.after_kill()).unwrap()).unwrap();
    assert_eq!((found["object"][0], found["object"][PAGE]), (1, 3));
    assert_eq!(
        object.attributes().version,
        3,
        "creation, call 2, call 3 in the place of the failed one"
    );
}

/// The same where the later call changes nothing, and so has no record of its own.
#[test]
fn a_failed_call_that_arrived_is_void_after_one_without_changes() {
    let disk = MemoryDisk::new();
    let store = open(&disk).unwrap();
    let object = client(&store, "object", PAGES).unwrap();
    object.commit_full(0, 1);
    fail_behind_the_record(&disk, &object);
    object.sync(Client::call(), 0, PAGES).expect("an empty call");
    for all in [false, true] {
        let left = disk.after_power_cut(&mut |_, _| all);
        let found = contents(&open(&left).unwrap()).unwrap();
        assert_eq!(found["object"][0], 1, "{all}");
    }
}

/// A call fails though its record arrived, and the process dies before what makes the record void is synced. A later call
/// without changes succeeds, so the failed one is history: no power cut may bring it back.
#[test]
fn a_failed_call_stays_void_through_a_kill_and_a_power_cut() {
    for second in 0..12 {
        let disk = MemoryDisk::new();
        let store = open(&disk).unwrap();
        let object = client(&store, "object", PAGES).unwrap();
        object.commit_full(0, 1);
        // An opening that has nothing to replay writes nothing.
        store.checkpoint().unwrap();
        fail_behind_the_record(&disk, &object);
        disk.inject(Fault {
            after: disk.operations() + second,
            count: 1,
            failure: Failure::Io,
        });
        let _ = object.try_commit_full(1, 3);
        let killed = disk.after_kill_unsynced();
        let store = open(&killed).unwrap();
        let object = client(&store, "object", PAGES).unwrap();
        let supplied = object.read(0, 2);
        object.sync(Client::call(), 0, PAGES).expect("an empty call");
        for all in [false, true] {
            let left = killed.after_power_cut(&mut |_, _| all);
            let left = contents(&open(&left).unwrap()).unwrap();
            let same = left["object"][..2 * PAGE] == supplied;
            assert!(same, "operation {second} of the next call failed, {all}");
        }
        std::mem::forget((object, store));
    }
}

/// A bug in a disk, or in the store: whoever calls is told, waits for nobody, and what was committed is there.
#[test]
fn after_a_panic_nothing_is_committed_until_the_store_is_opened_again() {
    // Parts of a roll-over, the write of a record, its sync, the write of an image.
    for after in 0..12 {
        let disk = MemoryDisk::new();
        let store = open(&disk).unwrap();
        let object = client(&store, "object", PAGES).unwrap();
        object.commit_full(0, 1);
        object.commit_full(1, 1);
        disk.inject(Fault {
            after: disk.operations() + after,
            count: 1,
            failure: Failure::Panic,
        });
        let commit = |byte: &u8| {
            let call = Client::call();
            object.give(call, 0, &[*byte; PAGE]).unwrap();
            object.sync(call, 0, 1)
        };
        let kept = (2..10)
            .take_while(|byte| commit(byte).is_ok())
            .last()
            .unwrap_or(1);
        let error = commit(&10).unwrap_err();
        assert_eq!(error.kind, PagerErrorKind::Io);
        assert!(error.message.contains("open it again"), "{error}");
        object.assert_full(0, kept);
        assert!(store.checkpoint().is_err());
        object.close();
        drop(store);
        let found = contents(&open(&disk).unwrap()).unwrap();
        // The first that failed may have arrived.
        assert!((kept..=kept + 1).contains(&found["object"][0]) && found["object"][PAGE] == 1);
    }
}
