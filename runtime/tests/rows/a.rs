//! Rows A: arguments.

use vmsync::KernReturn;

use crate::{
    flags::{ASYNC, CONTIGUOUS, INVALIDATE, KILLPAGES, REUSABLEPAGES, SYNC},
    harness::{BASE, P, each_width},
};

#[test]
fn a1_synchronous_over_a_region() {
    each_width(|rig, width| {
        let mut guest = rig.region_of(width, 4);
        guest.touch([1], 7);
        assert_eq!(guest.msync(BASE, 4 * P, SYNC), KernReturn::Success);
        rig.assert_log(&guest, &["a return 1..2 dirty kept", "a sync 0..4 now"]);
        assert_eq!(rig.committed("a", 1), 7);
        guest.touch([2], 8);
        assert_eq!(guest.mach_msync(BASE, 4 * P, SYNC), KernReturn::Success);
        rig.assert_log(&guest, &["a return 2..3 dirty kept", "a sync 0..4 now"]);
    });
}

#[test]
fn a2_async_and_sync_is_invalid_argument() {
    each_width(|rig, width| {
        let mut guest = rig.region_of(width, 4);
        guest.touch([1], 7);
        for more in [0, INVALIDATE, KILLPAGES, CONTIGUOUS] {
            let flags = ASYNC | SYNC | more;
            assert_eq!(guest.msync(BASE, 4 * P, flags), KernReturn::InvalidArgument);
            assert_eq!(guest.mach_msync(BASE, 4 * P, flags), KernReturn::InvalidArgument);
        }
        rig.assert_log(&guest, &[]);
        assert_eq!(guest.touched(1), 7);
    });
}

#[test]
fn a3_flags_are_checked_before_size_zero() {
    each_width(|rig, width| {
        let mut guest = rig.region_of(width, 4);
        assert_eq!(guest.msync(BASE, 0, ASYNC | SYNC), KernReturn::InvalidArgument);
        assert_eq!(guest.msync(BASE, 0, 0x80), KernReturn::InvalidArgument);
    });
}

#[test]
fn a4_null_or_foreign_task_is_invalid_task() {
    each_width(|rig, width| {
        let mut guest = rig.region_of(width, 4);
        let me = guest.call::<(), i64>("mach_task_self", ());
        assert_eq!(me, 1);
        guest.touch([1], 7);
        for task in [0, 2, 0x100, -1] {
            assert_eq!(guest.msync_of(task, BASE, 4 * P, SYNC), KernReturn::InvalidTask);
            let first = guest.msync_of(task, BASE, 0, ASYNC | SYNC);
            assert_eq!(first, KernReturn::InvalidTask, "checked before flags and size");
        }
        rig.assert_log(&guest, &[]);
        assert_eq!(guest.msync_of(me, BASE, 4 * P, SYNC), KernReturn::Success);
    });
}

#[test]
fn a5_size_zero_is_success_anywhere() {
    each_width(|rig, width| {
        let mut guest = rig.region_of(width, 4);
        guest.touch([0], 7);
        assert_eq!(guest.deallocate(BASE + 8 * P, P), KernReturn::Success);
        let last = width.address_max();
        for address in [0, BASE, BASE + 1, BASE + 8 * P, 1 << 31, last - 1, last] {
            for flags in [
                0,
                SYNC,
                ASYNC,
                INVALIDATE,
                SYNC | INVALIDATE | CONTIGUOUS,
                KILLPAGES,
            ] {
                assert_eq!(
                    guest.msync(address, 0, flags),
                    KernReturn::Success,
                    "{address:#x}"
                );
                assert_eq!(guest.mach_msync(address, 0, flags), KernReturn::Success);
            }
        }
        rig.assert_log(&guest, &[]);
        assert_eq!(guest.touched(0), 7);
    });
}

#[test]
fn a6_overflow_is_invalid_address_and_touches_nothing() {
    each_width(|rig, width| {
        let mut guest = rig.region_of(width, 4);
        guest.touch([1], 7);
        let last = width.address_max();
        let ranges = [
            (BASE, last),
            (BASE, last - BASE + 1),
            // Only the rounded end overflows.
            (BASE, last - BASE),
            (BASE, last - BASE - P + 2),
            (last, 1),
            (last, last),
            (1, last),
        ];
        for (address, size) in ranges {
            for flags in [SYNC, ASYNC, SYNC | INVALIDATE, INVALIDATE, KILLPAGES] {
                let result = guest.msync(address, size, flags);
                assert_eq!(result, KernReturn::InvalidAddress, "{address:#x} + {size:#x}");
            }
        }
        for (address, size) in [(BASE, u64::MAX), (BASE, u64::MAX - BASE), (u64::MAX, 1)] {
            assert_eq!(guest.mach_msync(address, size, SYNC), KernReturn::InvalidAddress);
        }
        rig.assert_log(&guest, &[]);
        assert_eq!(guest.touched(1), 7);
        assert_eq!(guest.msync(BASE, 4 * P, SYNC), KernReturn::Success);
        rig.assert_log(&guest, &["a return 1..2 dirty kept", "a sync 0..4 now"]);
    });
}

#[test]
fn a7_a_byte_widens_to_its_page() {
    each_width(|rig, width| {
        let mut guest = rig.region_of(width, 4);
        guest.touch([0, 1], 7);
        assert_eq!(guest.msync(BASE + 1, 1, SYNC), KernReturn::Success);
        rig.assert_log(&guest, &["a return 0..1 dirty kept", "a sync 0..1 now"]);
    });
}

#[test]
fn a8_two_bytes_over_a_boundary_are_two_pages() {
    each_width(|rig, width| {
        let mut guest = rig.region_of(width, 4);
        guest.touch([0, 1, 2], 7);
        assert_eq!(guest.msync(BASE + P - 1, 2, SYNC), KernReturn::Success);
        rig.assert_log(&guest, &["a return 0..2 dirty kept", "a sync 0..2 now"]);
    });
}

#[test]
fn a9_no_flags_and_contiguous_alone_touch_nothing() {
    each_width(|rig, width| {
        let mut guest = rig.region_of(width, 4);
        guest.touch([1], 7);
        assert_eq!(guest.msync(BASE, 4 * P, 0), KernReturn::Success);
        assert_eq!(guest.msync(BASE, 4 * P, CONTIGUOUS), KernReturn::Success);
        assert_eq!(guest.deallocate(BASE + 2 * P, P), KernReturn::Success);
        assert_eq!(guest.msync(BASE, 4 * P, 0), KernReturn::Success);
        assert_eq!(guest.msync(BASE, 4 * P, CONTIGUOUS), KernReturn::InvalidAddress);
        rig.assert_log(&guest, &[]);
        assert_eq!((guest.touched(1), rig.committed("a", 1)), (7, 0));
    });
}

#[test]
fn a10_unknown_bits_are_invalid_argument() {
    each_width(|rig, width| {
        let mut guest = rig.region_of(width, 4);
        guest.touch([1], 7);
        for bit in 7..32 {
            for flags in [1 << bit, 1 << bit | SYNC] {
                assert_eq!(
                    guest.msync(BASE, 4 * P, flags),
                    KernReturn::InvalidArgument,
                    "{flags:#x}"
                );
                assert_eq!(guest.mach_msync(BASE, 4 * P, flags), KernReturn::InvalidArgument);
            }
        }
        rig.assert_log(&guest, &[]);
    });
}

#[test]
fn a11_reusable_pages_has_no_effect() {
    each_width(|rig, width| {
        let mut guest = rig.region_of(width, 4);
        guest.touch([1], 7);
        assert_eq!(guest.msync(BASE, 4 * P, REUSABLEPAGES), KernReturn::Success);
        rig.assert_log(&guest, &[]);
        assert_eq!(guest.touched(1), 7);
    });
}
