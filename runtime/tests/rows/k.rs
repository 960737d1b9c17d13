//! Rows K: KILLPAGES.

use vmsync::KernReturn;

use crate::{
    flags::{ASYNC, INVALIDATE, KILLPAGES, SYNC},
    harness::{BASE, P, each, guest::Window},
};

#[test]
fn k1_anonymous_pages_read_as_zero() {
    each(|rig| {
        let mut guest = rig.guest();
        assert_eq!(guest.allocate(BASE, 4 * P, 0).0, KernReturn::Success);
        guest.touch(0..6, 7);
        assert_eq!(guest.msync(BASE, 4 * P, KILLPAGES), KernReturn::Success);
        // Ordinary linear memory is anonymous too; a destructive range shrinks inward.
        assert_eq!(guest.msync(BASE + 4 * P, P + 200, KILLPAGES), KernReturn::Success);
        let found: Vec<_> = (0..6).map(|page| guest.touched(page)).collect();
        assert_eq!(found, [0, 0, 0, 0, 0, 7]);
        assert!(rig.log().is_empty());
        guest.touch([0], 8);
        assert_eq!(guest.touched(0), 8);
    });
}

#[test]
fn k1_a_part_of_a_page_is_untouched() {
    each(|rig| {
        let mut guest = rig.guest();
        guest.touch(0..2, 7);
        for (address, size) in [
            (BASE, P - 1),
            (BASE + 1, P),
            (BASE + 1, P - 1),
            (BASE + 50, P + 100),
        ] {
            assert_eq!(guest.msync(address, size, KILLPAGES), KernReturn::Success);
        }
        assert_eq!((guest.touched(0), guest.touched(1)), (7, 7));
    });
}

#[test]
fn k2_pager_backed_pages_are_untouched() {
    each(|rig| {
        let mut guest = rig.region(4);
        guest.touch([1], 7);
        for more in [0, SYNC, ASYNC, INVALIDATE, SYNC | INVALIDATE] {
            assert_eq!(guest.msync(BASE, 4 * P, KILLPAGES | more), KernReturn::Success);
            rig.assert_log(&guest, &[]);
            assert_eq!(guest.touched(1), 7);
        }
        assert_eq!(guest.msync(BASE, 4 * P, SYNC), KernReturn::Success);
        rig.assert_log(&guest, &["a return 1..2 dirty kept", "a sync 0..4 now"]);
    });
}

#[test]
fn k3_copies_and_readers_are_skipped() {
    each(|rig| {
        let mut guest = rig.region(2);
        guest.touch(0..2, 7);
        assert_eq!(guest.msync(BASE, 2 * P, SYNC), KernReturn::Success);
        let (result, port) = guest.try_open(b"a", 0, 1);
        assert_eq!(result, KernReturn::Success);
        let copy = Window {
            page: BASE / P + 2,
            copy: true,
            ..Window::new(port, 2)
        };
        let reader = Window {
            page: BASE / P + 4,
            protection: (1, 1),
            ..Window::new(port, 2)
        };
        guest.map(copy);
        guest.map(reader);
        guest.touch([2], 9);
        rig.log();
        assert_eq!(guest.msync(BASE + 2 * P, 4 * P, KILLPAGES), KernReturn::Success);
        let found: Vec<_> = (2..6).map(|page| guest.touched(page)).collect();
        assert_eq!(found, [9, 7, 7, 7]);
        // Stores to a private copy never reach the pager, and no sync drops them.
        assert_eq!(
            guest.msync(BASE + 2 * P, 2 * P, SYNC | INVALIDATE),
            KernReturn::Success
        );
        assert!(rig.log().is_empty());
        assert_eq!((guest.touched(2), rig.committed("a", 0)), (9, 7));
    });
}
