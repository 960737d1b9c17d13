//! Calls that fail when their callers were told that they are queued: everybody who has to know is told.

use vmsync_core::{
    PageSize, PagerErrorKind,
    abi::VmProt,
    pager::{InitRequest, Pager, SynchronizeFlags},
};
use vmsync_pager_conformance::Client;
use vmsync_pager_file::disk::memory::{Failure, Fault, MemoryDisk};

use crate::common::{PAGE, PAGES, client, open};

/// Who reads an object was supplied with what is queued, perhaps as the base of a change of its own.
#[test]
fn a_call_that_fails_is_told_to_everybody_who_may_have_read_it() {
    let disk = MemoryDisk::new();
    let store = open(&disk).unwrap();
    let writer = client(&store, "object", 2).unwrap();
    writer.commit_full(0, 1);
    let request = InitRequest {
        page_size: PageSize::KIB_4,
        size_min: 0,
        create: false,
        write: false,
    };
    let reader = Client::open_with(store.clone(), "object", request).unwrap();
    let other = client(&store, "other", 1).unwrap();
    disk.inject(Fault {
        after: disk.operations(),
        count: u64::MAX / 2,
        failure: Failure::NoSpace,
    });
    assert!(writer.try_commit_full(1, 2).is_err());
    let told = reader.recorder.take_write_behind_failures();
    assert_eq!(told.len(), 1);
    assert_eq!(
        (told[0].0, told[0].1.kind),
        (reader.range(1, 1), PagerErrorKind::NoSpace)
    );
    for unconcerned in [&writer, &other] {
        assert!(unconcerned.recorder.take_write_behind_failures().is_empty());
    }
}

/// It is committed with the pages, whose pointers are those of the region there.
#[test]
fn the_address_of_the_last_mapping_is_that_of_the_last_call() {
    let disk = MemoryDisk::new();
    let store = open(&disk).unwrap();
    let object = client(&store, "object", PAGES).unwrap();
    let mapped = |address| store.map(object.object, address, VmProt::READ_WRITE);
    let address = || {
        let store = open(&disk.after_kill()).unwrap();
        client(&store, "object", PAGES).unwrap().attributes().address
    };
    let queue = |byte| {
        let (call, flags) = (Client::call(), SynchronizeFlags::ASYNCHRONOUS);
        object.give_full(call, 0, byte);
        object.synchronize(call, (0, 1), flags).unwrap();
        object.recorder.wait(object.range(0, 1)).unwrap();
    };
    mapped(0x1_0000);
    object.commit_full(0, 1);
    mapped(0x2_0000);
    queue(2);
    mapped(0x1_0000);
    object.commit_full(0, 3);
    assert_eq!(address(), Some(0x1_0000));
    // What is lost gives no address.
    mapped(0x2_0000);
    queue(4);
    disk.inject(Fault {
        after: disk.operations(),
        count: 1,
        failure: Failure::Io,
    });
    store.flush().unwrap_err();
    object.commit_full(0, 5);
    assert_eq!(address(), Some(0x2_0000));
}

/// Calls that are queued behind the record that failed fail with it: they may be differences to what is not there.
#[test]
fn what_is_queued_behind_a_record_that_fails_fails_too() {
    // Two of them are too much for one record.
    const MANY: u64 = 1280;
    let disk = MemoryDisk::new();
    let store = open(&disk).unwrap();
    let object = client(&store, "object", 2 * MANY).unwrap();
    for (first, byte) in [(0, 1), (MANY, 2)] {
        let call = Client::call();
        object
            .give(call, first, &vec![byte; PAGE * MANY as usize])
            .unwrap();
        let flags = SynchronizeFlags::ASYNCHRONOUS;
        object.synchronize(call, (first, MANY), flags).unwrap();
        object.recorder.wait(object.range(first, MANY)).unwrap();
    }
    disk.inject(Fault {
        after: disk.operations(),
        count: 1,
        failure: Failure::Io,
    });
    assert_eq!(store.flush().unwrap_err().kind, PagerErrorKind::Io);
    assert_eq!(object.recorder.take_write_behind_failures().len(), 2);
    for _ in 0..2 {
        object.assert_full(0, 0);
        object.assert_full(MANY, 0);
        store.flush().unwrap();
    }
}

/// An asynchronous call that fails later is told, once, for each of its ranges, and leaves nothing.
#[test]
fn a_failed_queued_call_is_told() {
    let disk = MemoryDisk::new();
    let store = open(&disk).unwrap();
    let (left, right) = (
        client(&store, "left", PAGES).unwrap(),
        client(&store, "right", PAGES).unwrap(),
    );
    let call = Client::call();
    left.give_full(call, 0, 1);
    right.give_full(call, 1, 1);
    left.synchronize(
        call,
        (0, 2),
        SynchronizeFlags {
            more: true,
            ..SynchronizeFlags::ASYNCHRONOUS
        },
    )
    .unwrap();
    right
        .synchronize(call, (1, 1), SynchronizeFlags::ASYNCHRONOUS)
        .unwrap();
    left.recorder.wait(left.range(0, 2)).unwrap();
    right.recorder.wait(right.range(1, 1)).unwrap();
    left.assert_full(0, 1);
    disk.inject(Fault {
        after: disk.operations(),
        count: 1,
        failure: Failure::Io,
    });
    assert_eq!(store.flush().unwrap_err().kind, PagerErrorKind::Io);
    for (client, range) in [(&left, left.range(0, 2)), (&right, right.range(1, 1))] {
        let told = client.recorder.take_write_behind_failures();
        assert_eq!(told.len(), 1);
        assert_eq!((told[0].0, told[0].1.kind), (range, PagerErrorKind::Io));
        client.assert_full(0, 0);
        client.assert_full(1, 0);
    }
    store.flush().unwrap();
    assert!(left.recorder.take_write_behind_failures().is_empty());
    left.commit_full(0, 5);
    left.assert_full(0, 5);
}

/// What a call was compared with may fail before it is queued itself, and so may pages that it has not returned, as they were
/// taken for safe.
#[test]
fn a_call_that_was_begun_before_a_queued_one_failed_fails_with_it() {
    let mut changed = vec![2; PAGE];
    changed[9] = 3;
    for page in [changed, vec![2; PAGE]] {
        let disk = MemoryDisk::new();
        let store = open(&disk).unwrap();
        let object = client(&store, "object", PAGES).unwrap();
        object.commit_full(0, 1);
        let queued = Client::call();
        object.give_full(queued, 0, 2);
        object.give_full(queued, 1, 2);
        let flags = SynchronizeFlags::ASYNCHRONOUS;
        object.synchronize(queued, (0, 2), flags).unwrap();
        object.recorder.wait(object.range(0, 2)).unwrap();
        let behind = Client::call();
        object.give(behind, 0, &page).unwrap();
        disk.inject(Fault {
            after: disk.operations(),
            count: 1,
            failure: Failure::Io,
        });
        assert_eq!(store.flush().unwrap_err().kind, PagerErrorKind::Io);
        let told = object.sync(behind, 0, 1).unwrap_err();
        assert_eq!(told.kind, PagerErrorKind::Io);
        assert!(told.message.contains("a call before it is lost"), "{told}");
        object.assert_full(0, 1);
        object.assert_full(1, 0);
        let again = Client::call();
        object.give(again, 0, &page).unwrap();
        object.give_full(again, 1, 2);
        object.sync(again, 0, 2).unwrap();
        assert!(object.read(0, 1) == page);
        drop((object, store));
        let store = open(&disk).unwrap();
        assert!(client(&store, "object", PAGES).unwrap().read(0, 1) == page);
    }
}

/// Who queued a call may close the object before it fails. Whoever opened it meanwhile, and read what was queued, is told.
#[test]
fn a_failed_queued_call_of_somebody_who_left_is_told_to_who_has_the_object_open() {
    let disk = MemoryDisk::new();
    let store = open(&disk).unwrap();
    let first = client(&store, "object", 2).unwrap();
    let call = Client::call();
    first.give_full(call, 1, 7);
    let queued = SynchronizeFlags::ASYNCHRONOUS;
    first.synchronize(call, (0, 2), queued).unwrap();
    first.recorder.wait(first.range(0, 2)).unwrap();
    first.close();
    let second = client(&store, "object", 2).unwrap();
    second.assert_full(1, 7);
    disk.inject(Fault {
        after: disk.operations(),
        count: 1,
        failure: Failure::Io,
    });
    assert!(store.flush().is_err());
    second.assert_full(1, 0);
    let told = second.recorder.take_write_behind_failures();
    assert_eq!(told.len(), 1);
    assert_eq!(
        (told[0].0, told[0].1.kind),
        (second.range(1, 1), PagerErrorKind::Io)
    );
}
