//! Rows D: dirty pages.

use std::sync::Arc;

use vmsync_core::{
    KernReturn,
    abi::{Behavior, VmProt, VmSync},
    limits::RETURN_BYTES_MAX,
    object::ObjectHandle,
};

use crate::harness::{Guest, Object, P, PAGE, TestPager};

const SYNC: VmSync = VmSync::SYNCHRONOUS;

/// Object `a` of `pages` pages at page 8.
fn region(pages: u64) -> (Arc<TestPager>, Object, Guest) {
    let pager = TestPager::new();
    let object = Object::new(&pager, 'a', pages);
    let mut guest = Guest::new(pages + 16);
    guest.map(&object, 8);
    pager.take_log();
    (pager, object, guest)
}

#[test]
fn d1_runs_are_contiguous_and_ascending() {
    let (pager, _, mut guest) = region(5);
    guest.store([12, 10, 9], 1);
    assert_eq!(guest.msync(8..13, SYNC), KernReturn::Success);
    assert_eq!(
        pager.take_log(),
        [
            "a return 1..3 dirty kept",
            "a return 4..5 dirty kept",
            "a sync 0..5 now"
        ]
    );
}

#[test]
fn d2_a_run_over_the_cap_is_split() {
    let cap = PAGE.page_of(RETURN_BYTES_MAX);
    let (pager, _, mut guest) = region(2 * cap + 1);
    guest.store(8..8 + 2 * cap + 1, 1);
    assert_eq!(guest.msync(8..8 + 2 * cap + 1, SYNC), KernReturn::Success);
    let (end, last) = (2 * cap, 2 * cap + 1);
    assert_eq!(
        pager.take_log(),
        [
            format!("a return 0..{cap} dirty kept"),
            format!("a return {cap}..{end} dirty kept"),
            format!("a return {end}..{last} dirty kept"),
            format!("a sync 0..{last} now"),
        ]
    );
}

#[test]
fn d3_nothing_is_returned_twice() {
    let (pager, _, mut guest) = region(4);
    guest.store([9], 1);
    assert_eq!(guest.msync(8..12, SYNC), KernReturn::Success);
    pager.take_log();
    assert_eq!(guest.msync(8..12, SYNC), KernReturn::Success);
    assert_eq!(pager.take_log(), ["a sync 0..4 now"]);
}

#[test]
fn d4_a_store_outside_of_the_range_stays_dirty() {
    let (pager, _, mut guest) = region(4);
    guest.store([9, 11], 1);
    assert_eq!(guest.msync(8..11, SYNC), KernReturn::Success);
    assert_eq!(pager.take_log(), ["a return 1..2 dirty kept", "a sync 0..3 now"]);
    assert_eq!(guest.msync(8..12, SYNC), KernReturn::Success);
    assert_eq!(pager.take_log(), ["a return 3..4 dirty kept", "a sync 0..4 now"]);
}

#[test]
fn d5_two_syncs_of_two_pages_survive_a_crash() {
    let (pager, object, mut guest) = region(4);
    guest.store(8..12, 1);
    assert_eq!(guest.msync(8..9, SYNC), KernReturn::Success);
    assert_eq!(guest.msync(11..12, SYNC), KernReturn::Success);
    pager.crash();
    let recovered: Vec<u8> = (0..4).map(|page| pager.durable(object.id(), page)[0]).collect();
    assert_eq!(recovered, [1, 0, 0, 1]);
}

#[test]
fn d6_pages_since_made_read_only_are_returned() {
    let (pager, _, mut guest) = region(4);
    guest.store([9, 11], 1);
    guest.protect(9..10, VmProt::READ).expect("below the maximum");
    guest.protect(11..12, VmProt::NONE).expect("below the maximum");
    assert_eq!(guest.msync(8..12, SYNC), KernReturn::Success);
    assert_eq!(
        pager.take_log(),
        [
            "a return 1..2 dirty kept",
            "a return 3..4 dirty kept",
            "a sync 0..4 now"
        ]
    );
}

#[test]
fn d7_a_store_during_the_return_is_returned_by_the_next_sync() {
    let (pager, object, mut guest) = region(4);
    guest.store([9], 1);
    pager.script(|script| script.hold = true);
    let mut first = guest.start(8..12, SYNC).expect("good arguments");
    assert!(guest.blocks(&mut first));
    guest.store([9], 2);
    assert_eq!(pager.release(), [Ok(())]);
    assert_eq!(guest.finish(&mut first), KernReturn::Success);
    assert_eq!(pager.durable(object.id(), 1)[0], 1);
    pager.take_log();
    assert_eq!(guest.msync(8..12, SYNC), KernReturn::Success);
    assert_eq!(pager.take_log(), ["a return 1..2 dirty kept", "a sync 0..4 now"]);
    assert_eq!(pager.durable(object.id(), 1)[0], 2);
}

#[test]
fn d7_zeroes_stored_by_the_host_count_as_stores() {
    let (pager, object, mut guest) = region(4);
    guest.store([9], 1);
    pager.script(|script| script.hold = true);
    let mut first = guest.start(8..12, SYNC).expect("good arguments");
    assert!(guest.blocks(&mut first));
    guest.behave(9..10, Behavior::Zero).expect("writable");
    pager.release();
    assert_eq!(guest.finish(&mut first), KernReturn::Success);
    assert_eq!(guest.msync(8..12, SYNC), KernReturn::Success);
    assert_eq!(pager.durable(object.id(), 1)[0], 0);
}

#[test]
fn d8_a_store_during_the_return_keeps_its_page() {
    let (pager, object, mut guest) = region(4);
    guest.store([9, 10], 1);
    pager.script(|script| script.hold = true);
    let mut call = guest
        .start(8..12, SYNC | VmSync::INVALIDATE)
        .expect("good arguments");
    assert!(guest.blocks(&mut call));
    guest.store([9], 2);
    pager.release();
    // What the pager has now differs from memory wherever it is asked.
    pager.overwrite(object.id(), 1, 9);
    pager.overwrite(object.id(), 2, 9);
    assert_eq!(guest.finish(&mut call), KernReturn::Success);
    assert_eq!((guest.read(9), guest.read(10)), (2, 9));
    pager.take_log();
    assert_eq!(guest.msync(8..12, SYNC), KernReturn::Success);
    assert_eq!(pager.take_log(), ["a return 1..2 dirty kept", "a sync 0..4 now"]);
    assert_eq!(pager.durable(object.id(), 1)[0], 2);
}

#[test]
fn d8_zeroes_stored_by_the_host_keep_their_page() {
    let (pager, object, mut guest) = region(4);
    guest.store([9], 1);
    pager.script(|script| script.hold = true);
    let mut call = guest
        .start(8..12, SYNC | VmSync::INVALIDATE)
        .expect("good arguments");
    assert!(guest.blocks(&mut call));
    guest.behave(9..10, Behavior::Zero).expect("writable");
    pager.release();
    assert_eq!(guest.finish(&mut call), KernReturn::Success);
    assert_eq!(guest.read(9), 0);
    assert_eq!(guest.msync_bytes(9 * P, 1, SYNC), KernReturn::Success);
    assert_eq!(pager.durable(object.id(), 1)[0], 0);
}

#[test]
fn d8_a_store_that_was_found_before_looking_failed_is_returned_by_the_next_sync() {
    let (pager, object, mut guest) = region(4);
    guest.store([9, 10], 1);
    pager.script(|script| script.hold = true);
    let mut call = guest
        .start(8..12, SYNC | VmSync::INVALIDATE)
        .expect("good arguments");
    assert!(guest.blocks(&mut call));
    guest.store([9], 2);
    guest.memory.collect_fails = true;
    pager.release();
    assert_eq!(
        guest.finish(&mut call),
        KernReturn::MemoryError,
        "nothing is dropped"
    );
    assert_eq!(guest.read(9), 2);
    assert_eq!(guest.msync(8..12, SYNC), KernReturn::Success);
    assert_eq!(pager.durable(object.id(), 1)[0], 2);
}
