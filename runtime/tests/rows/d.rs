//! Rows D: what is dirty.

use vmsync::KernReturn;

use crate::{
    flags::SYNC,
    harness::{BASE, P, RigOptions, each},
};

#[test]
fn d1_runs_are_contiguous_and_ascending() {
    each(|rig| {
        let mut guest = rig.region(5);
        guest.touch([4, 1, 2], 7);
        assert_eq!(guest.msync(BASE, 5 * P, SYNC), KernReturn::Success);
        let expected = [
            "a return 1..3 dirty kept",
            "a return 4..5 dirty kept",
            "a sync 0..5 now",
        ];
        rig.assert_log(&guest, &expected);
    });
}

#[test]
fn d2_a_run_over_the_cap_is_split() {
    each(|rig| {
        let mut guest = rig.region(258);
        guest.touch(0..258, 7);
        assert_eq!(guest.msync(BASE, 258 * P, SYNC), KernReturn::Success);
        let expected = [
            "a return 0..256 dirty kept",
            "a return 256..258 dirty kept",
            "a sync 0..258 now",
        ];
        rig.assert_log(&guest, &expected);
        assert_eq!((rig.committed("a", 0), rig.committed("a", 257)), (7, 7));
    });
}

#[test]
fn d3_nothing_is_returned_twice() {
    each(|rig| {
        let mut guest = rig.region(4);
        guest.touch([1], 7);
        assert_eq!(guest.msync(BASE, 4 * P, SYNC), KernReturn::Success);
        rig.log();
        assert_eq!(guest.msync(BASE, 4 * P, SYNC), KernReturn::Success);
        rig.assert_log(&guest, &["a sync 0..4 now"]);
    });
}

#[test]
fn d4_a_store_outside_the_range_stays_dirty() {
    each(|rig| {
        let mut guest = rig.region(4);
        guest.touch([0, 3], 7);
        assert_eq!(guest.msync(BASE, 2 * P, SYNC), KernReturn::Success);
        rig.assert_log(&guest, &["a return 0..1 dirty kept", "a sync 0..2 now"]);
        assert_eq!(rig.committed("a", 3), 0);
        assert_eq!(guest.msync(BASE + 2 * P, 2 * P, SYNC), KernReturn::Success);
        rig.assert_log(&guest, &["a return 3..4 dirty kept", "a sync 2..4 now"]);
    });
}

#[test]
fn d5_two_syncs_of_two_pages_survive_a_crash() {
    each(|rig| {
        let mut guest = rig.region(4);
        guest.touch([0, 3], 7);
        assert_eq!(guest.msync(BASE, P, SYNC), KernReturn::Success);
        assert_eq!(guest.msync(BASE + 3 * P, P, SYNC), KernReturn::Success);
        guest.touch([1], 9);
        drop(guest);
        let rig = rig.restarted(RigOptions::default());
        let mut guest = rig.region(4);
        let found: Vec<_> = (0..4).map(|page| guest.touched(page)).collect();
        assert_eq!(found, [7, 0, 0, 7]);
    });
}

#[test]
fn d6_pages_since_made_read_only_are_returned() {
    each(|rig| {
        let mut guest = rig.region(4);
        guest.touch([1], 7);
        assert_eq!(guest.protect(BASE, 4 * P, false, 1), KernReturn::Success);
        let store = guest.try_call::<(i64, i64), ()>("store8", ((BASE + P) as i64, 1));
        assert!(store.is_err(), "a store to a read-only page traps");
        assert_eq!(guest.msync(BASE, 4 * P, SYNC), KernReturn::Success);
        rig.assert_log(&guest, &["a return 1..2 dirty kept", "a sync 0..4 now"]);
        // Watched again once it is writable again.
        assert_eq!(guest.protect(BASE, 4 * P, false, 3), KernReturn::Success);
        assert_eq!(guest.msync(BASE, 4 * P, SYNC), KernReturn::Success);
        rig.assert_log(&guest, &["a sync 0..4 now"]);
        guest.touch([2], 8);
        assert_eq!(guest.msync(BASE, 4 * P, SYNC), KernReturn::Success);
        rig.assert_log(&guest, &["a return 2..3 dirty kept", "a sync 0..4 now"]);
    });
}
