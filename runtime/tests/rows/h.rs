//! Rows H: holes.

use vmsync::KernReturn;

use crate::{
    flags::{ASYNC, CONTIGUOUS, DEACTIVATE, INVALIDATE, KILLPAGES, REUSABLEPAGES, SYNC},
    harness::{BASE, Guest, P, Rig, Width, each_width},
};

const BOTH_SIDES: [&str; 4] = [
    "a return 0..1 dirty kept",
    "a return 3..4 dirty kept",
    "a sync 0..1 now more",
    "a sync 3..4 now",
];

/// Region R without its middle pages, the others dirty.
fn with_hole(rig: &Rig, width: Width) -> Guest {
    let mut guest = rig.region_of(width, 4);
    assert_eq!(guest.deallocate(BASE + P, 2 * P), KernReturn::Success);
    guest.touch([0, 3], 7);
    assert!(rig.log().is_empty());
    guest
}

#[test]
fn h1_both_sides_of_a_hole_are_synced() {
    each_width(|rig, width| {
        let mut guest = with_hole(rig, width);
        assert_eq!(guest.msync(BASE, 4 * P, SYNC), KernReturn::Success);
        rig.assert_log(&guest, &BOTH_SIDES);
        assert_eq!((rig.committed("a", 0), rig.committed("a", 3)), (7, 7));
    });
}

#[test]
fn h2_contiguous_tells_of_the_hole_after_both_sides_are_synced() {
    each_width(|rig, width| {
        let mut guest = with_hole(rig, width);
        let result = guest.msync(BASE, 4 * P, SYNC | CONTIGUOUS);
        assert_eq!(result, KernReturn::InvalidAddress);
        rig.assert_log(&guest, &BOTH_SIDES);
    });
}

#[test]
fn h3_a_hole_at_the_start_or_end() {
    each_width(|rig, width| {
        let mut guest = with_hole(rig, width);
        for (first, side) in [(2, "a return 3..4 dirty kept"), (0, "a return 0..1 dirty kept")] {
            let sync = side.replace("return", "sync").replace("dirty kept", "now");
            let address = BASE + first * P;
            assert_eq!(guest.msync(address, 2 * P, SYNC), KernReturn::Success);
            rig.assert_log(&guest, &[side, &sync]);
            guest.touch([0, 3], first + 8);
            let result = guest.msync(address, 2 * P, SYNC | CONTIGUOUS);
            assert_eq!(result, KernReturn::InvalidAddress);
            rig.assert_log(&guest, &[side, &sync]);
        }
    });
}

#[test]
fn h3_outside_of_all_allocated_memory() {
    each_width(|rig, width| {
        let mut guest = with_hole(rig, width);
        let end = 64 << 16;
        for flags in [
            0,
            ASYNC,
            SYNC,
            INVALIDATE,
            SYNC | INVALIDATE,
            KILLPAGES,
            DEACTIVATE,
            REUSABLEPAGES,
        ] {
            for flags in [flags, flags | CONTIGUOUS] {
                for (address, size) in [(BASE + P, 2 * P), (BASE + 2 * P, P), (end, P), (1 << 31, 1)] {
                    let result = guest.msync(address, size, flags);
                    assert_eq!(result, KernReturn::InvalidAddress, "{address:#x} {flags:#x}");
                }
            }
        }
        // Behind the end is a hole too.
        assert_eq!(guest.msync(end - P, 4 * P, SYNC), KernReturn::Success);
        let result = guest.msync(end - P, 4 * P, SYNC | CONTIGUOUS);
        assert_eq!(result, KernReturn::InvalidAddress);
        rig.assert_log(&guest, &[]);
        // A guest grows its memory without asking.
        assert_eq!(guest.call::<i64, i64>("grow", 1), 64);
        assert_eq!(guest.msync(end, P, SYNC | CONTIGUOUS), KernReturn::Success);
    });
}

#[test]
fn h4_kill_pages_stops_at_the_hole() {
    each_width(|rig, width| {
        let mut guest = Guest::new(&rig.sandbox, width);
        assert_eq!(guest.allocate(BASE, 4 * P, 0), (KernReturn::Success, BASE));
        assert_eq!(guest.deallocate(BASE + P, 2 * P), KernReturn::Success);
        guest.touch([0, 3], 7);
        assert_eq!(guest.msync(BASE, 4 * P, KILLPAGES), KernReturn::Success);
        assert_eq!((guest.touched(0), guest.touched(3)), (0, 7));
        guest.touch([0], 8);
        let result = guest.msync(BASE, 4 * P, KILLPAGES | CONTIGUOUS);
        assert_eq!(result, KernReturn::InvalidAddress);
        assert_eq!((guest.touched(0), guest.touched(3)), (0, 7));
    });
}
