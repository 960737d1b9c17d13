//! Rows E: errors of a pager.

use vmsync::{ByteRange, KernReturn, PagerErrorKind};
use vmsync_pager_conformance::Fault;

use crate::{
    flags::{ASYNC, INVALIDATE, SYNC},
    harness::{BASE, P, each, guest::Window, rig::error},
};

/// One fault of each place where a call can fail.
fn faults(kind: PagerErrorKind) -> [Fault; 3] {
    [
        Fault::Return(Some(error(kind))),
        Fault::Synchronize(Some(error(kind))),
        Fault::Completion(Some(error(kind))),
    ]
}

#[test]
fn e1_a_failed_return_fails_the_call_and_later_runs_are_tried() {
    each(|rig| {
        let mut guest = rig.region(5);
        for (value, (kind, expected)) in (1..).zip([
            (PagerErrorKind::Io, KernReturn::Failure),
            (PagerErrorKind::NoSpace, KernReturn::ResourceShortage),
            (PagerErrorKind::Gone, KernReturn::MemoryFailure),
            (PagerErrorKind::TimedOut, KernReturn::Aborted),
        ]) {
            guest.touch([0, 2, 4], value);
            // Where more pages than these count as dirty they are one run.
            if !guest.inner.vm().reports_superset() {
                rig.pager.inject(Fault::Return(None));
            }
            rig.pager.inject(Fault::Return(Some(error(kind))));
            assert_eq!(guest.msync(BASE, 5 * P, SYNC), expected);
            let expected = [
                "a return 0..1 dirty kept",
                "a return 2..3 dirty kept",
                "a return 4..5 dirty kept",
                "abort",
            ];
            rig.assert_log(&guest, &expected);
            let committed: Vec<_> = (0..5).map(|page| rig.committed("a", page)).collect();
            assert_eq!(committed, [0; 5], "all or nothing");
            let words = guest.inner.last_error().map(|error| error.kind);
            assert_eq!(words, Some(kind));
        }
    });
}

#[test]
fn e1_another_pager_is_not_affected() {
    each(|rig| {
        let mut guest = rig.region(2);
        let port = guest.open("c", 2);
        guest.map(Window {
            page: BASE / P + 2,
            ..Window::new(port, 2)
        });
        guest.touch([0, 2], 7);
        rig.log_of(&rig.other);
        rig.pager
            .inject(Fault::Synchronize(Some(error(PagerErrorKind::Io))));
        assert_eq!(guest.msync(BASE, 4 * P, SYNC), KernReturn::Failure);
        let second = ["c return 0..1 dirty kept", "c sync 0..2 now"];
        rig.assert_log_of(&rig.other, &guest, &second);
        rig.log();
        assert_eq!(guest.msync(BASE, 4 * P, SYNC), KernReturn::Success);
        rig.assert_log(&guest, &["a return 0..1 dirty kept", "a sync 0..2 now"]);
        rig.assert_log_of(&rig.other, &guest, &["c sync 0..2 now"]);
    });
}

#[test]
fn e2_a_retry_returns_the_page_again() {
    each(|rig| {
        for (value, fault) in (1..).zip(faults(PagerErrorKind::Io)) {
            let mut guest = rig.region(4);
            guest.touch([0, 2], value);
            rig.pager.inject(fault);
            assert_eq!(guest.msync(BASE, 4 * P, SYNC), KernReturn::Failure);
            assert_eq!(rig.committed("a", 0), value - 1);
            rig.log();
            // Newer bytes of one of them.
            guest.touch([2], value + 10);
            assert_eq!(guest.msync(BASE, 4 * P, SYNC), KernReturn::Success);
            let expected = [
                "a return 0..1 dirty kept",
                "a return 2..3 dirty kept",
                "a sync 0..4 now",
            ];
            rig.assert_log(&guest, &expected);
            assert_eq!(
                (rig.committed("a", 0), rig.committed("a", 2)),
                (value, value + 10)
            );
        }
    });
}

#[test]
fn e3_a_lost_asynchronous_write_is_reported_once_and_retried() {
    each(|rig| {
        let mut guest = rig.region(4);
        guest.touch([1], 7);
        assert_eq!(guest.msync(BASE, 4 * P, ASYNC), KernReturn::Success);
        let lost = ByteRange::new(P, 2 * P);
        rig.control("a")
            .write_behind_failed(lost, error(PagerErrorKind::NoSpace));
        // Neither a probe nor another range takes the error away.
        assert_eq!(guest.msync(BASE, 4 * P, 0), KernReturn::Success);
        assert_eq!(guest.msync(0, P, SYNC), KernReturn::Success);
        assert_eq!(guest.msync(BASE, 4 * P, SYNC), KernReturn::ResourceShortage);
        rig.assert_log(&guest, &["a return 1..2 dirty kept", "a sync 0..4 now"]);
        assert_eq!(guest.msync(BASE, 4 * P, SYNC), KernReturn::Success, "once");
        rig.assert_log(&guest, &["a sync 0..4 now"]);
    });
}

#[test]
fn e4_a_failed_page_is_not_dropped() {
    each(|rig| {
        for (value, fault) in (1..).zip(faults(PagerErrorKind::Io)) {
            let mut guest = rig.region(4);
            guest.touch([1], value);
            rig.pager.inject(fault);
            assert_eq!(guest.msync(BASE, 4 * P, SYNC | INVALIDATE), KernReturn::Failure);
            assert_eq!((guest.touched(1), rig.committed("a", 1)), (value, value - 1));
            assert_eq!(guest.msync(BASE, 4 * P, SYNC), KernReturn::Success);
            assert_eq!(rig.committed("a", 1), value);
        }
    });
}

#[test]
fn e4_a_page_that_cannot_be_supplied_again_is_memory_error() {
    each(|rig| {
        let mut guest = rig.region(4);
        guest.touch([1], 7);
        rig.pager
            .inject(Fault::Supply(Some(error(PagerErrorKind::Unavailable))));
        let result = guest.msync(BASE, 4 * P, SYNC | INVALIDATE);
        assert_eq!(result, KernReturn::MemoryError);
        assert_eq!((guest.touched(1), rig.committed("a", 1)), (7, 7));
        assert_eq!(guest.msync(BASE, 4 * P, SYNC | INVALIDATE), KernReturn::Success);
        assert_eq!(guest.touched(1), 7);
    });
}

#[test]
fn e5_two_tasks_see_one_error_once_each() {
    each(|rig| {
        let mut writer = rig.region(4);
        let mut reader = rig.guest();
        reader.map_for_loads("a", 4);
        writer.touch([1], 7);
        assert_eq!(writer.msync(BASE, 4 * P, ASYNC), KernReturn::Success);
        let lost = ByteRange::new(0, 4 * P);
        rig.control("a")
            .write_behind_failed(lost, error(PagerErrorKind::Io));
        assert_eq!(writer.msync(BASE, 4 * P, SYNC), KernReturn::Failure);
        assert_eq!(writer.msync(BASE, 4 * P, SYNC), KernReturn::Success);
        let mut after = rig.guest();
        after.map_for_loads("a", 4);
        assert_eq!(reader.msync(BASE, 4 * P, SYNC), KernReturn::Failure);
        assert_eq!(reader.msync(BASE, 4 * P, SYNC), KernReturn::Success);
        assert_eq!(
            after.msync(BASE, 4 * P, SYNC),
            KernReturn::Success,
            "it had been seen"
        );
    });
}

#[test]
fn e5_a_writer_that_ends_makes_room_for_the_next() {
    each(|rig| {
        let mut first = rig.region(4);
        let mut reader = rig.guest();
        reader.map_for_loads("a", 4);
        let mut second = rig.guest();
        let port = second.open("a", 4);
        assert_eq!(second.try_map(Window::new(port, 4)), KernReturn::NoAccess);
        first.touch([1], 7);
        drop(first);
        second.map(Window::new(port, 4));
        assert_eq!(second.touched(1), 0, "what was not committed is gone");
        rig.log();
        assert_eq!(second.msync(BASE, 4 * P, SYNC), KernReturn::Success);
        rig.assert_log(&second, &["a sync 0..4 now"]);
    });
}
