//! Rows E: errors of a pager.

use std::sync::Arc;

use vmsync_core::{
    KernReturn, PagerErrorKind,
    abi::{OpenFlags, VmProt, VmSync},
    object::ObjectHandle,
    pager::MemoryObjectControl,
};

use crate::harness::{Guest, Object, P, TestPager, guest::request, object::error};

const ASYNC: VmSync = VmSync::ASYNCHRONOUS;
const SYNC: VmSync = VmSync::SYNCHRONOUS;

/// Object `a` of 6 pages at page 8.
fn region() -> (Arc<TestPager>, Object, Guest) {
    let pager = TestPager::new();
    let object = Object::new(&pager, 'a', 6);
    let mut guest = Guest::new(32);
    guest.map(&object, 8);
    pager.take_log();
    (pager, object, guest)
}

/// A guest that has `object` mapped for loads.
fn reader(object: &Object) -> Guest {
    let mut guest = Guest::new(32);
    let port = guest
        .task
        .open_object(object.clone(), OpenFlags::READ)
        .expect("a port is free");
    let mut window = request(port, 8, 6);
    (window.protection, window.max_protection) = (VmProt::READ, VmProt::READ);
    guest.map_with(&window).expect("readable");
    guest
}

/// A guest that writes the second half of `object` of 6 pages; the first half is someone else's.
fn split(object: &Object) -> (Guest, Guest) {
    let mut guests = [(); 2].map(|()| Guest::new(32));
    for (index, guest) in guests.iter_mut().enumerate() {
        let port = guest.open(object);
        let mut window = request(port, 8, 3);
        window.offset = index as u64 * 3 * P;
        guest.map_with(&window).expect("nobody else writes this half");
    }
    guests.into()
}

#[test]
fn e1_a_failed_return_fails_the_call_and_later_runs_are_tried() {
    let kinds = [
        (PagerErrorKind::Io, KernReturn::Failure),
        (PagerErrorKind::NoSpace, KernReturn::ResourceShortage),
        (PagerErrorKind::Gone, KernReturn::MemoryFailure),
        (PagerErrorKind::TimedOut, KernReturn::Aborted),
    ];
    for (kind, expected) in kinds {
        let (pager, object, mut guest) = region();
        guest.store([8, 10, 12], 1);
        pager.script(|script| _ = script.returns_fail.insert((object.id(), 2), kind));
        assert_eq!(guest.msync(8..14, SYNC), expected);
        assert_eq!(
            pager.take_log(),
            [
                "a return 0..1 dirty kept",
                "a return 2..3 dirty kept",
                "a return 4..5 dirty kept",
                "abort"
            ]
        );
        assert_eq!(object.dirty().pages().collect::<Vec<_>>(), [0, 2, 4]);
        assert_eq!(pager.durable(object.id(), 0)[0], 0, "all or nothing");
    }
}

#[test]
fn e1_another_pager_is_not_affected() {
    let (bad, good) = (TestPager::new(), TestPager::new());
    let (a, b) = (Object::new(&bad, 'a', 2), Object::new(&good, 'b', 2));
    let mut guest = Guest::new(32);
    guest.map(&a, 8);
    guest.map(&b, 10);
    guest.store([8, 10], 1);
    bad.script(|script| script.synchronize_fails = Some(PagerErrorKind::Io));
    bad.take_log();
    assert_eq!(guest.msync(8..12, SYNC), KernReturn::Failure);
    assert_eq!(
        bad.take_log(),
        ["a return 0..1 dirty kept", "a sync 0..2 now", "abort"]
    );
    assert_eq!((a.dirty().len(), b.dirty().len()), (1, 0));
    assert_eq!(good.durable(b.id(), 0)[0], 1);
}

#[test]
fn e1_a_pager_is_told_to_forget_a_call_once() {
    let (first, second) = (TestPager::new(), TestPager::new());
    let (a, b) = (Object::new(&first, 'a', 2), Object::new(&second, 'b', 2));
    let mut guest = Guest::new(32);
    guest.map(&a, 8);
    guest.map(&b, 10);
    guest.store([8, 10], 1);
    first.script(|script| _ = script.returns_fail.insert((a.id(), 0), PagerErrorKind::Io));
    second.script(|script| script.synchronize_fails = Some(PagerErrorKind::NoSpace));
    first.take_log();
    second.take_log();
    assert_eq!(guest.msync(8..12, SYNC), KernReturn::Failure, "the first error");
    assert_eq!(first.take_log(), ["a return 0..1 dirty kept", "abort"]);
    assert_eq!(
        second.take_log(),
        ["b return 0..1 dirty kept", "b sync 0..2 now", "abort"]
    );
}

#[test]
fn e1_a_failed_completion_keeps_all_pages_of_its_pager_dirty() {
    let pager = TestPager::new();
    let (a, b) = (Object::new(&pager, 'a', 2), Object::new(&pager, 'b', 2));
    let mut guest = Guest::new(32);
    guest.map(&a, 8);
    guest.map(&b, 10);
    guest.store([8, 10], 1);
    pager.script(|script| script.hold = true);
    let mut call = guest.start(8..12, SYNC).expect("good arguments");
    assert!(guest.blocks(&mut call));
    assert_eq!(a.complete(0..2, Ok(())), Ok(()));
    assert_eq!(b.complete(0..2, Err(PagerErrorKind::Io)), Ok(()));
    assert_eq!(guest.finish(&mut call), KernReturn::Failure);
    assert_eq!((a.dirty().len(), b.dirty().len()), (1, 1));
}

#[test]
fn e2_a_retry_returns_the_page_again() {
    let (pager, object, mut guest) = region();
    guest.store([8, 10], 1);
    pager.script(|script| _ = script.returns_fail.insert((object.id(), 2), PagerErrorKind::Io));
    assert_eq!(guest.msync(8..14, SYNC), KernReturn::Failure);
    pager.script(|script| script.returns_fail.clear());
    pager.take_log();
    assert_eq!(guest.msync(8..14, SYNC), KernReturn::Success);
    assert_eq!(
        pager.take_log(),
        [
            "a return 0..1 dirty kept",
            "a return 2..3 dirty kept",
            "a sync 0..6 now"
        ]
    );
    pager.crash();
    assert_eq!(pager.durable(object.id(), 2)[0], 1);
    assert!(object.dirty().is_empty());
}

#[test]
fn e2_a_page_stored_to_after_the_failure_is_returned_with_its_new_bytes() {
    let (pager, object, mut guest) = region();
    guest.store([8], 1);
    pager.script(|script| script.completion_fails = Some(PagerErrorKind::NoSpace));
    assert_eq!(guest.msync(8..14, SYNC), KernReturn::ResourceShortage);
    guest.store([8], 2);
    pager.script(|script| script.completion_fails = None);
    assert_eq!(guest.msync(8..14, SYNC), KernReturn::Success);
    assert_eq!(pager.durable(object.id(), 0)[0], 2);
}

#[test]
fn e3_a_lost_asynchronous_write_is_reported_once_and_retried() {
    let (pager, object, mut guest) = region();
    guest.store([9], 1);
    assert_eq!(guest.msync(8..14, ASYNC), KernReturn::Success);
    assert!(object.dirty().is_empty());
    pager.fail_queue(object.id(), PagerErrorKind::Io);
    assert_eq!(object.dirty().pages().collect::<Vec<_>>(), [1]);
    pager.take_log();
    assert_eq!(guest.msync(8..14, SYNC), KernReturn::Failure, "the error is told");
    assert_eq!(pager.take_log(), ["a return 1..2 dirty kept", "a sync 0..6 now"]);
    assert_eq!(pager.durable(object.id(), 1)[0], 1);
    assert_eq!(guest.msync(8..14, SYNC), KernReturn::Success, "once");
}

#[test]
fn e3_an_asynchronous_call_that_fails_at_once_is_reported_to_everyone_once() {
    let (pager, object, mut guest) = region();
    let mut other = reader(&object);
    guest.store([9], 1);
    pager.script(|script| {
        _ = script
            .returns_fail
            .insert((object.id(), 1), PagerErrorKind::NoSpace)
    });
    assert_eq!(guest.msync(8..14, ASYNC), KernReturn::ResourceShortage);
    pager.script(|script| script.returns_fail.clear());
    assert_eq!(other.msync(8..14, SYNC), KernReturn::ResourceShortage);
    assert_eq!(other.msync(8..14, SYNC), KernReturn::Success);
    assert_eq!(guest.msync(8..14, SYNC), KernReturn::Success, "it has been told");
}

#[test]
fn e3_a_failing_sync_reports_the_earlier_error_with_its_own() {
    let (pager, object, mut guest) = region();
    guest.store([9], 1);
    assert_eq!(guest.msync(8..14, ASYNC), KernReturn::Success);
    pager.fail_queue(object.id(), PagerErrorKind::Io);
    pager.script(|script| script.completion_fails = Some(PagerErrorKind::NoSpace));
    assert_eq!(guest.msync(8..14, SYNC), KernReturn::ResourceShortage);
    pager.script(|script| script.completion_fails = None);
    assert_eq!(guest.msync(8..14, SYNC), KernReturn::Success);
    assert_eq!(pager.durable(object.id(), 1)[0], 1, "nothing is lost by that");
}

#[test]
fn e3_an_earlier_error_is_not_lost_behind_one_of_what_no_pager_is_asked_for() {
    let (pager, object, mut guest) = region();
    let shown = Object::new(&pager, 'b', 2);
    let port = guest
        .task
        .open_object(shown.clone(), OpenFlags::READ)
        .expect("a port is free");
    let mut window = request(port, 14, 2);
    (window.protection, window.max_protection) = (VmProt::READ, VmProt::READ);
    guest.map_with(&window).expect("readable");
    guest.store([9], 1);
    assert_eq!(guest.msync(8..16, ASYNC), KernReturn::Success);
    pager.fail_queue(object.id(), PagerErrorKind::Io);
    shown.control().destroy(error(PagerErrorKind::Gone));
    assert_eq!(
        guest.msync(8..16, ASYNC),
        KernReturn::Failure,
        "the earlier error"
    );
    assert_eq!(guest.msync(8..16, ASYNC), KernReturn::MemoryFailure);
}

#[test]
fn e3_neither_invalidate_nor_a_probe_takes_the_error_away() {
    let (pager, object, mut guest) = region();
    guest.store([9], 1);
    assert_eq!(guest.msync(8..14, ASYNC), KernReturn::Success);
    pager.fail_queue(object.id(), PagerErrorKind::Io);
    for flags in [
        VmSync::NONE,
        VmSync::CONTIGUOUS,
        VmSync::INVALIDATE,
        VmSync::DEACTIVATE,
    ] {
        assert_eq!(guest.msync(8..14, flags), KernReturn::Success);
    }
    assert_eq!(guest.msync(0..8, SYNC), KernReturn::Success, "another range");
    assert_eq!(guest.msync(8..14, SYNC), KernReturn::Failure);
}

#[test]
fn e3_a_port_that_was_closed_is_told_for_its_mapping() {
    let pager = TestPager::new();
    let object = Object::new(&pager, 'a', 6);
    let mut guest = Guest::new(32);
    let port = guest.map(&object, 8);
    guest.task.close_object(port).expect("open");
    assert_eq!(guest.task.close_object(port), Err(KernReturn::InvalidObject));
    guest.store([9], 1);
    assert_eq!(guest.msync(8..14, ASYNC), KernReturn::Success);
    pager.fail_queue(object.id(), PagerErrorKind::Io);
    assert_eq!(guest.msync(8..14, SYNC), KernReturn::Failure);
    assert_eq!(guest.msync(8..14, SYNC), KernReturn::Success);
}

#[test]
fn e4_a_failed_page_is_not_dropped() {
    for fail in 0..3 {
        let (pager, object, mut guest) = region();
        guest.store([9], 1);
        pager.script(|script| match fail {
            0 => _ = script.returns_fail.insert((object.id(), 1), PagerErrorKind::Io),
            1 => script.synchronize_fails = Some(PagerErrorKind::Io),
            _ => script.completion_fails = Some(PagerErrorKind::Io),
        });
        assert_eq!(guest.msync(8..14, SYNC | VmSync::INVALIDATE), KernReturn::Failure);
        assert_eq!(guest.read(9), 1);
        pager.script(|script| *script = Default::default());
        assert_eq!(guest.msync(8..14, SYNC), KernReturn::Success);
        assert_eq!(pager.durable(object.id(), 1)[0], 1);
    }
}

#[test]
fn e5_two_tasks_see_one_error_once_each() {
    let pager = TestPager::new();
    let object = Object::new(&pager, 'a', 6);
    let (mut first, mut second) = split(&object);
    first.store([8], 1);
    assert_eq!(first.msync(8..11, ASYNC), KernReturn::Success);
    pager.fail_queue(object.id(), PagerErrorKind::Io);

    let mut before = reader(&object);
    assert_eq!(first.msync(8..11, SYNC), KernReturn::Failure);
    let mut after = reader(&object);
    assert_eq!(second.msync(8..11, SYNC), KernReturn::Failure);
    assert_eq!(
        before.msync(8..14, SYNC),
        KernReturn::Failure,
        "nobody had seen it"
    );
    assert_eq!(after.msync(8..14, SYNC), KernReturn::Success, "it had been seen");
    for guest in [&mut first, &mut second] {
        assert_eq!(guest.msync(8..11, SYNC), KernReturn::Success);
    }
}

#[test]
fn e5_a_second_error_is_seen_again() {
    let (pager, object, mut guest) = region();
    for round in 1..4 {
        guest.store([9], round);
        assert_eq!(guest.msync(8..14, ASYNC), KernReturn::Success);
        pager.fail_queue(object.id(), PagerErrorKind::Io);
        assert_eq!(guest.msync(8..14, SYNC), KernReturn::Failure);
        assert_eq!(guest.msync(8..14, SYNC), KernReturn::Success);
    }
}
