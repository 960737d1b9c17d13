//! Rows I: INVALIDATE.

use vmsync::KernReturn;

use crate::{
    flags::{ASYNC, INVALIDATE, SYNC},
    harness::{BASE, P, each, each_with, rig::PRECIOUS, rig::name},
};

#[test]
fn i1_a_dirty_page_is_returned_dropped_and_fetched_again() {
    each(|rig| {
        for (round, when) in [(1, SYNC), (2, ASYNC)] {
            let mut guest = rig.region(4);
            guest.touch([1], round);
            assert_eq!(guest.msync(BASE, 4 * P, when | INVALIDATE), KernReturn::Success);
            let sync = if when == SYNC {
                "a sync 0..4 now"
            } else {
                "a sync 0..4 later"
            };
            rig.assert_log(&guest, &["a return 1..2 dirty dropped", sync, "a request 0..4"]);
            assert_eq!((guest.touched(1), rig.committed("a", 1)), (round, round));
            assert_eq!(guest.msync(BASE, 4 * P, SYNC), KernReturn::Success);
            rig.assert_log(&guest, &["a sync 0..4 now"]);
        }
    });
}

#[test]
fn i2_a_clean_page_shows_what_changed_behind_it() {
    each(|rig| {
        let mut guest = rig.region(4);
        guest.touch([1], 7);
        assert_eq!(guest.msync(BASE, 4 * P, SYNC), KernReturn::Success);
        rig.store.overwrite(&name("a"), P + 100, &[9]);
        assert_eq!(guest.touched(1), 7);
        rig.log();
        assert_eq!(guest.msync(BASE, 4 * P, SYNC | INVALIDATE), KernReturn::Success);
        rig.assert_log(&guest, &["a sync 0..4 now", "a request 0..4"]);
        assert_eq!(guest.touched(1), 9);
    });
}

#[test]
fn i2_a_reader_sees_what_a_writer_committed() {
    each(|rig| {
        let mut writer = rig.region(4);
        let mut reader = rig.guest();
        reader.map_for_loads("a", 4);
        writer.touch([2], 7);
        assert_eq!(reader.msync(BASE, 4 * P, INVALIDATE), KernReturn::Success);
        assert_eq!(reader.touched(2), 0, "not committed yet");
        assert_eq!(writer.msync(BASE, 4 * P, SYNC), KernReturn::Success);
        assert_eq!(reader.msync(BASE, 4 * P, SYNC | INVALIDATE), KernReturn::Success);
        assert_eq!(reader.touched(2), 7);
        let store = reader.try_call::<(i64, i64), ()>("store8", (BASE as i64, 1));
        assert!(store.is_err(), "a reader's store traps");
    });
}

#[test]
fn i3_a_dirty_page_is_dropped_and_shows_the_last_commit() {
    each(|rig| {
        let mut guest = rig.region(4);
        guest.touch([1], 7);
        assert_eq!(guest.msync(BASE, 4 * P, SYNC), KernReturn::Success);
        guest.touch([1, 2], 8);
        rig.log();
        assert_eq!(guest.msync(BASE, 4 * P, INVALIDATE), KernReturn::Success);
        rig.assert_log(&guest, &["a request 0..4"]);
        assert_eq!((guest.touched(1), guest.touched(2)), (7, 0));
        assert_eq!(guest.msync(BASE, 4 * P, SYNC), KernReturn::Success);
        rig.assert_log(&guest, &["a sync 0..4 now"]);
        // A store after it counts again.
        guest.touch([3], 9);
        assert_eq!(guest.msync(BASE, 4 * P, SYNC), KernReturn::Success);
        rig.assert_log(&guest, &["a return 3..4 dirty kept", "a sync 0..4 now"]);
    });
}

#[test]
fn i4_precious_pages_are_returned_before_they_are_dropped() {
    each_with(PRECIOUS, |rig| {
        let mut guest = rig.region(2);
        guest.touch(0..2, 7);
        assert_eq!(guest.msync(BASE, 2 * P, SYNC | INVALIDATE), KernReturn::Success);
        // Both came back as the only copies: one clean, one dirty.
        guest.touch([1], 8);
        rig.log();
        assert_eq!(guest.msync(BASE, 2 * P, INVALIDATE), KernReturn::Success);
        let expected = [
            "a return 0..1 clean dropped",
            "a return 1..2 dirty dropped",
            "a sync 0..2 now",
            "a request 0..2",
        ];
        if guest.inner.vm().reports_superset() {
            rig.log();
        } else {
            rig.assert_log(&guest, &expected);
        }
        assert_eq!((guest.touched(0), guest.touched(1)), (7, 8));
    });
}
