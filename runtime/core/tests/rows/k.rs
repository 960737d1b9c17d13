//! Rows K: KILLPAGES.

use vmsync_core::{
    KernReturn,
    abi::{Behavior, OpenFlags, VmProt, VmSync},
    object::ObjectHandle,
};

use crate::harness::{Guest, Object, P, TestPager, guest::request};

const KILL: VmSync = VmSync::KILLPAGES;
const SYNC: VmSync = VmSync::SYNCHRONOUS;

#[test]
fn k1_anonymous_pages_read_as_zero() {
    for flags in [KILL, KILL | SYNC, KILL | VmSync::INVALIDATE] {
        let mut guest = Guest::new(32);
        guest.allocate(8..12);
        guest.store(0..32, 1);
        guest.protect(10..11, VmProt::READ).expect("below the maximum");
        assert_eq!(guest.msync(9..12, flags), KernReturn::Success);
        let left: Vec<u64> = (0..32).filter(|page| guest.read(*page) != 0).collect();
        assert_eq!(left.len(), 29);
        assert!(!guest.memory.allows(10, VmProt::WRITE), "the protection stays");
        assert!(guest.memory.allows(11, VmProt::WRITE));
    }
}

#[test]
fn k1_a_destructive_range_shrinks_to_whole_pages() {
    let mut guest = Guest::new(32);
    guest.store(0..32, 1);
    assert_eq!(guest.msync_bytes(8 * P + 1, 2 * P, KILL), KernReturn::Success);
    assert_eq!([8, 9, 10].map(|page| guest.read(page)), [1, 0, 1]);
    assert_eq!(guest.msync_bytes(12 * P + 1, P - 1, KILL), KernReturn::Success);
    assert_eq!(guest.read(12), 1);
}

#[test]
fn k1_wired_pages_are_untouched() {
    let mut guest = Guest::new(32);
    guest.store(8..12, 1);
    guest.wire(9..10, true).expect("allocated");
    assert_eq!(guest.msync(8..12, KILL), KernReturn::Success);
    assert_eq!([8, 9, 10, 11].map(|page| guest.read(page)), [0, 1, 0, 0]);
}

#[test]
fn k2_pager_backed_pages_are_untouched() {
    for flags in [KILL, KILL | SYNC, KILL | VmSync::INVALIDATE] {
        let pager = TestPager::new();
        let object = Object::new(&pager, 'a', 4);
        let mut guest = Guest::new(32);
        guest.map(&object, 8);
        guest.store([9], 1);
        pager.take_log();
        assert_eq!(guest.msync(8..12, flags), KernReturn::Success);
        assert!(pager.take_log().is_empty());
        assert_eq!(guest.read(9), 1);
        assert_eq!(guest.msync(8..12, SYNC), KernReturn::Success);
        assert_eq!(pager.durable(object.id(), 1)[0], 1);
    }
}

#[test]
fn k3_shared_and_copied_objects_are_skipped() {
    let pager = TestPager::new();
    let object = Object::new(&pager, 'a', 2);
    pager.overwrite(object.id(), 0, 5);
    let mut guest = Guest::new(32);
    let port = guest
        .task
        .open_object(object.clone(), OpenFlags::READ)
        .expect("a port is free");
    let mut shared = request(port, 8, 2);
    (shared.protection, shared.max_protection) = (VmProt::READ, VmProt::READ);
    guest.map_with(&shared).expect("readable");
    let mut copied = request(port, 10, 2);
    copied.copy = true;
    guest.map_with(&copied).expect("readable");
    guest.store([11], 6);
    guest.store([12], 7);
    pager.take_log();
    assert_eq!(guest.msync(8..13, KILL), KernReturn::Success);
    assert_eq!([8, 10, 11, 12].map(|page| guest.read(page)), [5, 5, 6, 0]);
    // A private copy is never returned either, nor dropped.
    for flags in [SYNC, SYNC | VmSync::INVALIDATE, VmSync::INVALIDATE] {
        assert_eq!(guest.msync(10..12, flags), KernReturn::Success);
        assert_eq!([10, 11].map(|page| guest.read(page)), [5, 6]);
    }
    assert!(pager.take_log().is_empty());
}

#[test]
fn k1_zeroed_anonymous_pages_keep_their_protection() {
    let mut guest = Guest::new(32);
    guest.store(8..12, 1);
    guest.protect(10..11, VmProt::WRITE).expect("below the maximum");
    guest.behave(9..12, Behavior::Zero).expect("writable memory");
    assert_eq!([8, 9, 10, 11].map(|page| guest.read(page)), [1, 0, 0, 0]);
    assert!(!guest.memory.allows(10, VmProt::READ), "the protection stays");
    assert!(guest.memory.allows(11, VmProt::READ));
}
