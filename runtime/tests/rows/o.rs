//! Rows O: what lies behind a range.

use vmsync::KernReturn;

use crate::{
    flags::{INVALIDATE, SYNC},
    harness::{BASE, Guest, P, each_width, guest::Window},
};

#[test]
fn o1_anonymous_memory_keeps_its_contents() {
    each_width(|rig, width| {
        let mut guest = Guest::new(&rig.sandbox, width);
        assert_eq!(guest.allocate(BASE, 2 * P, 0), (KernReturn::Success, BASE));
        // Two pages of a region, two of ordinary linear memory.
        guest.touch(0..4, 7);
        for flags in [SYNC, SYNC | INVALIDATE, INVALIDATE] {
            assert_eq!(guest.msync(BASE, 4 * P, flags), KernReturn::Success);
            for page in 0..4 {
                assert_eq!(guest.touched(page), 7, "page {page} flags {flags}");
            }
        }
        assert!(rig.log().is_empty());
    });
}

#[test]
fn o2_a_region_never_touched_returns_nothing() {
    each_width(|rig, width| {
        let mut guest = rig.region_of(width, 4);
        assert_eq!(guest.msync(BASE, 4 * P, SYNC), KernReturn::Success);
        rig.assert_log(&guest, &["a sync 0..4 now"]);
        assert_eq!(guest.touched(3), 0, "loads do not count");
        assert_eq!(guest.msync(BASE, 4 * P, SYNC), KernReturn::Success);
        rig.assert_log(&guest, &["a sync 0..4 now"]);
    });
}

#[test]
fn o3_a_range_over_two_pagers() {
    each_width(|rig, width| {
        let mut guest = rig.region_of(width, 2);
        let port = guest.open("c", 2);
        guest.map(Window {
            page: BASE / P + 2,
            ..Window::new(port, 2)
        });
        rig.log_of(&rig.other);
        guest.touch([0, 3], 7);
        assert_eq!(guest.msync(BASE, 4 * P, SYNC), KernReturn::Success);
        rig.assert_log(&guest, &["a return 0..1 dirty kept", "a sync 0..2 now"]);
        let second = ["c return 1..2 dirty kept", "c sync 0..2 now"];
        rig.assert_log_of(&rig.other, &guest, &second);
    });
}

#[test]
fn o3_two_objects_of_one_pager_go_in_address_order() {
    each_width(|rig, width| {
        let mut guest = Guest::new(&rig.sandbox, width);
        let (a, b) = (guest.open("a", 2), guest.open("b", 2));
        guest.map(Window::new(b, 2));
        guest.map(Window {
            page: BASE / P + 2,
            ..Window::new(a, 2)
        });
        guest.touch([0, 2, 3], 7);
        rig.log();
        assert_eq!(guest.msync(BASE, 4 * P, SYNC), KernReturn::Success);
        let expected = [
            "b return 0..1 dirty kept",
            "a return 0..2 dirty kept",
            "b sync 0..2 now more",
            "a sync 0..2 now",
        ];
        rig.assert_log(&guest, &expected);
    });
}

#[test]
fn o4_the_pager_sees_object_offsets() {
    each_width(|rig, width| {
        let mut guest = Guest::new(&rig.sandbox, width);
        let port = guest.open("a", 16);
        guest.map(Window {
            first_page: 5,
            ..Window::new(port, 4)
        });
        guest.touch([2], 7);
        rig.log();
        assert_eq!(guest.msync(BASE + 2 * P, P, SYNC), KernReturn::Success);
        rig.assert_log(&guest, &["a return 7..8 dirty kept", "a sync 7..8 now"]);
        assert_eq!(rig.committed("a", 7), 7);
    });
}
