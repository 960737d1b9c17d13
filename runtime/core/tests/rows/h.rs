//! Rows H: holes.

use vmsync_core::{KernReturn, abi::VmSync};

use crate::harness::{Guest, Object, P, TestPager};

const SYNC: VmSync = VmSync::SYNCHRONOUS;

/// Object `a` at pages 8..12, of which 9..11 were taken away; the rest is dirty.
fn with_hole() -> (std::sync::Arc<TestPager>, Guest) {
    let pager = TestPager::new();
    let object = Object::new(&pager, 'a', 4);
    let mut guest = Guest::new(32);
    guest.map(&object, 8);
    assert_eq!(guest.deallocate(9..11), KernReturn::Success);
    guest.store([8, 11], 1);
    pager.take_log();
    (pager, guest)
}

const BOTH_SIDES: [&str; 4] = [
    "a return 0..1 dirty kept",
    "a return 3..4 dirty kept",
    "a sync 0..1 now more",
    "a sync 3..4 now",
];

#[test]
fn h1_both_sides_of_a_hole_are_synced() {
    let (pager, mut guest) = with_hole();
    assert_eq!(guest.msync(8..12, SYNC), KernReturn::Success);
    assert_eq!(pager.take_log(), BOTH_SIDES);
}

#[test]
fn h2_contiguous_tells_of_the_hole_after_both_sides_are_synced() {
    let (pager, mut guest) = with_hole();
    assert_eq!(
        guest.msync(8..12, SYNC | VmSync::CONTIGUOUS),
        KernReturn::InvalidAddress
    );
    assert_eq!(pager.take_log(), BOTH_SIDES);
    assert!(guest.memory.marks().is_empty());
}

#[test]
fn h3_a_hole_at_the_start_or_end() {
    for range in [10..12, 8..10] {
        let (pager, mut guest) = with_hole();
        assert_eq!(guest.msync(range.clone(), SYNC), KernReturn::Success);
        assert_eq!(pager.take_log().len(), 2);
        guest.store([8, 11], 2);
        assert_eq!(
            guest.msync(range, SYNC | VmSync::CONTIGUOUS),
            KernReturn::InvalidAddress
        );
        assert_eq!(pager.take_log().len(), 2, "the rest is synced all the same");
    }
}

#[test]
fn h3_outside_of_all_allocated_memory() {
    let (pager, mut guest) = with_hole();
    for flags in [0x00, 0x01, 0x02, 0x04, 0x06, 0x08, 0x10, 0x20, 0x22, 0x40] {
        for range in [9..11, 10..11, 32..33, 1 << 40..(1 << 40) + 1] {
            assert_eq!(
                guest.msync(range.clone(), VmSync(flags)),
                KernReturn::InvalidAddress,
                "{range:?} flags {flags:#x}"
            );
        }
    }
    // Memory behind the end is a hole too.
    assert_eq!(guest.msync_bytes(31 * P, 4 * P, SYNC), KernReturn::Success);
    assert_eq!(
        guest.msync_bytes(31 * P, 4 * P, SYNC | VmSync::CONTIGUOUS),
        KernReturn::InvalidAddress
    );
    assert!(pager.take_log().is_empty());
}

#[test]
fn h4_kill_pages_stops_at_the_hole() {
    let mut guest = Guest::new(32);
    guest.allocate(8..12);
    assert_eq!(guest.deallocate(9..11), KernReturn::Success);
    guest.store([8, 11], 1);
    assert_eq!(guest.msync(8..12, VmSync::KILLPAGES), KernReturn::Success);
    assert_eq!((guest.read(8), guest.read(11)), (0, 1));
    guest.store([8], 2);
    assert_eq!(
        guest.msync(8..12, VmSync::KILLPAGES | VmSync::CONTIGUOUS),
        KernReturn::InvalidAddress
    );
    assert_eq!((guest.read(8), guest.read(11)), (0, 1));
}
