//! Images that fail behind records that are durable.

use vmsync_core::{
    PagerErrorKind,
    pager::{Pager, SynchronizeFlags},
};
use vmsync_pager_conformance::Client;
use vmsync_pager_file::{
    disk::memory::{Failure, Fault, MemoryDisk},
    verify_on,
};

use crate::common::{PAGE, PAGES, client, contents, open};

/// An image that cannot be written when its record is durable: the commit stands, the page is supplied from memory,
/// and is written later.
#[test]
fn an_image_that_fails_after_the_record_is_caught_up() {
    let disk = MemoryDisk::new();
    let store = open(&disk).unwrap();
    let object = client(&store, "object", PAGES).unwrap();
    object.commit_full(0, 1);
    disk.inject(Fault {
        after: disk.operations() + 2,
        count: 2,
        failure: Failure::Io,
    });
    object.commit_full(0, 2);
    object.assert_full(0, 2);
    assert_eq!(disk.content("object-1").unwrap()[0], 1, "the image is behind");
    assert!(store.settle_image(object.object, object.range(0, 1)).is_err());
    object.assert_full(0, 2);
    store.settle_image(object.object, object.range(0, 1)).unwrap();
    assert_eq!(disk.content("object-1").unwrap()[0], 2);
}

/// It is the only place that has the page when the power goes: a checkpoint that cannot write it frees no record, though the
/// image's sync would work.
#[test]
fn a_page_that_its_image_refuses_stays_in_the_journal() {
    let disk = MemoryDisk::new();
    let store = open(&disk).unwrap();
    let object = client(&store, "object", PAGES).unwrap();
    // Behind the bytes of the checksums' file.
    disk.refuse(&[("object-1", PAGE as u64)]);
    object.commit_full(1, 7);
    assert_eq!(store.checkpoint().unwrap_err().kind, PagerErrorKind::Io);
    disk.refuse(&[]);
    let cut = disk.after_power_cut(&mut |_, _| false);
    assert_eq!(verify_on(&cut).unwrap().problems, []);
    let found = contents(&open(&cut).unwrap()).unwrap();
    assert_eq!(found["object"][PAGE], 7);
}

/// After a failed sync of an image at a checkpoint the next one writes the pages again.
#[test]
fn a_failed_checkpoint_writes_pages_again() {
    for after in 0..12 {
        let disk = MemoryDisk::new();
        let store = open(&disk).unwrap();
        let object = client(&store, "object", PAGES).unwrap();
        object.commit_full(0, 1);
        object.commit_full(2, 3);
        disk.inject(Fault {
            after: disk.operations() + after,
            count: 1,
            failure: Failure::Io,
        });
        let first = store.checkpoint();
        object.commit_full(1, 2);
        store
            .checkpoint()
            .unwrap_or_else(|error| panic!("after {after}, {first:?}: {error}"));
        let cut = disk.after_power_cut(&mut |_, _| false);
        assert_eq!(verify_on(&cut).unwrap().problems, []);
        let found = contents(&open(&cut).unwrap()).unwrap();
        let firsts: Vec<u8> = found["object"].chunks(PAGE).map(|page| page[0]).collect();
        assert_eq!(firsts, [1, 2, 3, 0], "fault after {after}");
    }
}

/// A page that the kernel could not write, counted as clean and gave back: what a call changed in it is not lost in silence
/// when a later call began with what was left.
#[test]
fn a_page_that_was_lost_from_the_cache_is_not_passed_as_whole() {
    for after in 0..12 {
        let disk = MemoryDisk::new();
        let store = open(&disk).unwrap();
        let object = client(&store, "object", PAGES).unwrap();
        object.commit_full(0, 1);
        store.checkpoint().unwrap();
        let commit = |at: usize| {
            // Two pages in a row are compared with the image, not by sums of what was there before.
            let mut pages = object.read(0, 2);
            pages[at] = 2;
            let call = Client::call();
            object.give(call, 0, &pages).unwrap();
            object.sync(call, 0, 2).unwrap();
        };
        commit(0);
        disk.tamper("object-1", |content| content[0] = 1);
        commit(100);
        disk.inject(Fault {
            after: disk.operations() + after,
            count: 1,
            failure: Failure::Io,
        });
        let failed = store.checkpoint().is_err();
        let image = || disk.content("object-1").unwrap();
        // Where the image's own sync failed its pages are written again.
        if failed && store.checkpoint().is_err() {
            return;
        }
        assert_eq!((image()[0], image()[100]), (1, 2), "after {after}: nobody looked");
    }
    panic!("the checkpoint behind a failed sync of the image took a page for whole that was not");
}

/// What is queued and cannot be written is left in the guest's memory only, which is about to be dropped.
#[test]
fn an_image_is_not_settled_where_what_is_queued_is_lost() {
    let disk = MemoryDisk::new();
    let store = open(&disk).unwrap();
    let object = client(&store, "object", 1).unwrap();
    let call = Client::call();
    object.give_full(call, 0, 7);
    let flags = SynchronizeFlags::ASYNCHRONOUS;
    object.synchronize(call, (0, 1), flags).unwrap();
    disk.inject(Fault {
        after: disk.operations(),
        count: 2,
        failure: Failure::NoSpace,
    });
    let settled = store.settle_image(object.object, object.range(0, 1));
    assert_eq!(settled.unwrap_err().kind, PagerErrorKind::NoSpace);
    disk.heal();
    store.settle_image(object.object, object.range(0, 1)).unwrap();
    object.assert_full(0, 0);
}
