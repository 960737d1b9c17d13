//! Rows S: synchronization with the pager.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use vmsync_core::{
    KernReturn, PagerErrorKind,
    abi::{OpenFlags, VmProt, VmSync},
    object::ObjectHandle,
    pager::MemoryObjectControl,
};

use crate::harness::{Guest, Object, P, TestPager, guest::request, object::error};

const ASYNC: VmSync = VmSync::ASYNCHRONOUS;
const SYNC: VmSync = VmSync::SYNCHRONOUS;
/// Long enough for any machine; a test that needs it has failed.
const FOREVER: Duration = Duration::from_secs(20);
/// The time-out of a pager that is never going to answer.
const SHORT: Duration = Duration::from_millis(20);

/// Object `a` of 4 dirty pages at page 8; its pager holds completions if `hold`.
fn region(hold: bool) -> (Arc<TestPager>, Object, Guest) {
    let pager = TestPager::new();
    let object = Object::new(&pager, 'a', 4);
    let mut guest = Guest::new(32);
    guest.map(&object, 8);
    guest.store(8..12, 1);
    pager.script(|script| script.hold = hold);
    pager.take_log();
    (pager, object, guest)
}

#[test]
fn s1_a_completion_from_inside_synchronize() {
    let (pager, object, mut guest) = region(false);
    assert_eq!(guest.msync(8..12, SYNC), KernReturn::Success);
    assert_eq!(pager.durable(object.id(), 3)[0], 1);
}

#[test]
fn s2_a_completion_from_another_thread() {
    let (pager, object, mut guest) = region(true);
    let begun = Instant::now();
    let mut call = guest.start(8..12, SYNC).expect("good arguments");
    let completer = thread::spawn({
        let pager = pager.clone();
        move || {
            while pager.held() == 0 {
                thread::yield_now();
            }
            pager.release()
        }
    });
    assert_eq!(guest.finish_blocking(&mut call, FOREVER), KernReturn::Success);
    assert!(begun.elapsed() < FOREVER, "the completion woke the client");
    assert_eq!(completer.join().expect("no panic"), [Ok(())]);
    assert_eq!(pager.durable(object.id(), 3)[0], 1);
}

#[test]
fn s2_the_client_waits_until_then() {
    let (pager, object, mut guest) = region(true);
    let mut call = guest.start(8..12, SYNC).expect("good arguments");
    for _ in 0..3 {
        assert!(guest.blocks(&mut call));
    }
    assert_eq!(object.dirty().len(), 4, "not durable yet");
    pager.release();
    assert_eq!(guest.finish(&mut call), KernReturn::Success);
    assert_eq!(pager.take_log(), ["a return 0..4 dirty kept", "a sync 0..4 now"]);
}

#[test]
fn s3_a_completion_that_was_not_asked_for() {
    let (pager, object, mut guest) = region(true);
    let refused = Err(KernReturn::InvalidArgument);
    assert_eq!(object.complete(0..4, Ok(())), refused, "none outstanding");
    let mut call = guest.start(8..12, SYNC).expect("good arguments");
    assert_eq!(object.complete(0..4, Ok(())), refused, "not sent yet");
    assert!(guest.blocks(&mut call));
    for wrong in [1..4, 0..3, 0..5, 1..1, 0..0] {
        assert_eq!(object.complete(wrong.clone(), Ok(())), refused, "{wrong:?}");
        assert_eq!(object.complete(wrong, Err(PagerErrorKind::Io)), refused);
        assert!(guest.blocks(&mut call), "the client keeps waiting");
    }
    assert_eq!(pager.release(), [Ok(())]);
    assert_eq!(object.complete(0..4, Err(PagerErrorKind::Io)), refused, "twice");
    assert_eq!(guest.finish(&mut call), KernReturn::Success);
    assert_eq!(object.complete(0..4, Ok(())), refused, "over");
}

#[test]
fn s4_overlapping_calls_take_turns() {
    let (pager, _, mut guest) = region(true);
    let mut first = guest.start(8..11, SYNC).expect("good arguments");
    let mut second = guest.start(10..12, SYNC).expect("good arguments");
    assert!(guest.blocks(&mut first));
    assert!(guest.blocks(&mut second));
    guest.store([10], 2);
    assert!(guest.blocks(&mut second));
    assert_eq!(pager.take_log(), ["a return 0..3 dirty kept", "a sync 0..3 now"]);
    pager.release();
    assert_eq!(guest.finish(&mut first), KernReturn::Success);
    assert_eq!(guest.finish(&mut second), KernReturn::Success);
    assert_eq!(pager.take_log(), ["a return 2..4 dirty kept", "a sync 2..4 now"]);
}

#[test]
fn s4_a_pagers_own_request_takes_its_turn() {
    let (pager, object, mut guest) = region(true);
    let mut first = guest.start(8..12, SYNC).expect("good arguments");
    assert!(guest.blocks(&mut first));
    let request = vmsync_core::pager::LockRequest {
        range: vmsync_core::ByteRange::new(0, 4096),
        should_return: vmsync_core::pager::ReturnPages::All,
        flush: true,
        prohibit: None,
    };
    let number = crate::harness::guest::call();
    let mut second = guest
        .task
        .lock_request(&object, &request, number, &mut guest.memory)
        .expect("inside the object");
    assert!(guest.blocks(&mut second));
    pager.release();
    assert_eq!(guest.finish(&mut first), KernReturn::Success);
    pager.take_log();
    assert_eq!(guest.finish(&mut second), KernReturn::Success);
    assert_eq!(pager.take_log(), ["a request 0..1"], "it is clean by now");
}

#[test]
fn s5_disjoint_calls_run_side_by_side() {
    let (pager, _, mut guest) = region(true);
    let mut first = guest.start(8..10, SYNC).expect("good arguments");
    let mut second = guest.start(10..12, SYNC).expect("good arguments");
    assert!(guest.blocks(&mut first));
    assert!(guest.blocks(&mut second));
    assert_eq!(
        pager.take_log(),
        [
            "a return 0..2 dirty kept",
            "a sync 0..2 now",
            "a return 2..4 dirty kept",
            "a sync 2..4 now",
        ]
    );
    assert_eq!(pager.held(), 2);
    assert_eq!(pager.release(), [Ok(()), Ok(())]);
    assert_eq!(guest.finish(&mut second), KernReturn::Success);
    assert_eq!(guest.finish(&mut first), KernReturn::Success);
}

#[test]
fn s5_calls_over_the_same_objects_in_opposite_order_both_end() {
    let pager = TestPager::new();
    let (a, b) = (Object::new(&pager, 'a', 4), Object::new(&pager, 'b', 4));
    let mut guests = [(); 2].map(|()| Guest::new(32));
    for (index, guest) in guests.iter_mut().enumerate() {
        let addresses = if index == 0 {
            [(&a, 8), (&b, 10)]
        } else {
            [(&b, 8), (&a, 10)]
        };
        for (object, at) in addresses {
            let port = guest.open(object);
            let mut window = request(port, at, 2);
            window.offset = index as u64 * 2 * crate::harness::P;
            guest.map_with(&window).expect("nobody else writes this half");
        }
    }
    thread::scope(|scope| {
        for guest in &mut guests {
            scope.spawn(move || {
                for round in 0..50 {
                    guest.store(8..12, round);
                    let mut call = guest.start(8..12, SYNC).expect("good arguments");
                    assert_eq!(guest.finish_blocking(&mut call, FOREVER), KernReturn::Success);
                }
            });
        }
    });
}

#[test]
fn s6_returns_before_synchronizes_before_waits() {
    let first = TestPager::new();
    let second = TestPager::beside(&first);
    let (a, b) = (Object::new(&first, 'a', 2), Object::new(&second, 'b', 2));
    let c = Object::new(&first, 'c', 2);
    let mut guest = Guest::new(32);
    for (object, at) in [(&a, 8), (&b, 10), (&c, 12)] {
        guest.map(object, at);
    }
    guest.store([8, 10, 11, 13], 1);
    for pager in [&first, &second] {
        pager.script(|script| script.hold = true);
    }
    first.take_log();
    let mut call = guest.start(8..14, SYNC).expect("good arguments");
    assert!(guest.blocks(&mut call));
    assert_eq!(
        first.take_log(),
        [
            "a return 0..1 dirty kept",
            "b return 0..2 dirty kept",
            "c return 1..2 dirty kept",
            "a sync 0..2 now more",
            "b sync 0..2 now",
            "c sync 0..2 now",
        ]
    );
    first.release();
    assert!(guest.blocks(&mut call));
    second.release();
    assert_eq!(guest.finish(&mut call), KernReturn::Success);
}

#[test]
fn s7_a_destroyed_object_is_memory_failure() {
    let (_, object, mut guest) = region(true);
    let mut waiting = guest.start(8..10, SYNC).expect("good arguments");
    let mut behind = guest.start(9..12, SYNC).expect("good arguments");
    assert!(guest.blocks(&mut waiting));
    assert!(guest.blocks(&mut behind));
    object.control().destroy(error(PagerErrorKind::Io));
    assert_eq!(guest.finish(&mut waiting), KernReturn::MemoryFailure);
    assert_eq!(guest.finish(&mut behind), KernReturn::MemoryFailure);
    assert_eq!(guest.msync(8..12, SYNC), KernReturn::MemoryFailure);
    assert_eq!(guest.msync(8..12, VmSync::INVALIDATE), KernReturn::MemoryFailure);
    assert_eq!(guest.read(8), 1, "memory keeps its contents");
}

#[test]
fn s7_an_object_destroyed_in_the_midst_of_a_call() {
    let (pager, _, mut guest) = region(false);
    pager.script(|script| script.destroy_in_return = true);
    assert_eq!(guest.msync(8..12, SYNC), KernReturn::MemoryFailure);
}

#[test]
fn s7_an_object_destroyed_while_the_call_waits_for_another() {
    let pager = TestPager::new();
    let (a, b) = (Object::new(&pager, 'a', 2), Object::new(&pager, 'b', 2));
    let mut guest = Guest::new(32);
    guest.map(&a, 8);
    guest.map(&b, 10);
    guest.store([8, 10], 1);
    pager.script(|script| script.hold = true);
    let mut first = guest.start(10..12, SYNC).expect("good arguments");
    assert!(guest.blocks(&mut first));
    let mut second = guest.start(8..12, SYNC).expect("good arguments");
    assert!(guest.blocks(&mut second), "a is taken, b is not to be had");
    a.control().destroy(error(PagerErrorKind::Gone));
    pager.release();
    assert_eq!(guest.finish(&mut first), KernReturn::Success);
    assert_eq!(guest.finish(&mut second), KernReturn::MemoryFailure);
}

#[test]
fn s7_a_pager_that_never_answers_is_aborted_in_time() {
    let (_, object, mut guest) = region(true);
    let begun = Instant::now();
    let mut call = guest
        .start(8..12, SYNC | VmSync::INVALIDATE)
        .expect("good arguments");
    assert_eq!(guest.finish_blocking(&mut call, SHORT), KernReturn::Aborted);
    assert!(begun.elapsed() < FOREVER);
    assert_eq!(guest.read(8), 1);
    assert_eq!(object.dirty().len(), 4);
    let mut behind = guest.start(8..9, SYNC).expect("good arguments");
    assert_eq!(guest.finish_blocking(&mut behind, SHORT), KernReturn::Aborted);
}

#[test]
fn s7_a_late_completion_never_satisfies_a_newer_request() {
    let (pager, object, mut guest) = region(true);
    let mut first = guest.start(8..12, SYNC).expect("good arguments");
    assert!(guest.blocks(&mut first));
    assert_eq!(guest.time_out(&mut first), KernReturn::Aborted);
    guest.store([8], 2);
    let mut second = guest.start(8..12, SYNC).expect("good arguments");
    assert!(guest.blocks(&mut second), "the pager still owes the first answer");
    pager.take_log();
    assert_eq!(pager.release(), [Ok(())]);
    pager.script(|script| script.hold = true);
    assert!(guest.blocks(&mut second), "it has its own request now");
    assert_eq!(pager.take_log(), ["a return 0..4 dirty kept", "a sync 0..4 now"]);
    assert_eq!(pager.durable(object.id(), 0)[0], 1);
    pager.release();
    assert_eq!(guest.finish(&mut second), KernReturn::Success);
    assert_eq!(pager.durable(object.id(), 0)[0], 2);
}

#[test]
fn s7_a_time_out_after_the_end_changes_nothing() {
    let (_, object, mut guest) = region(false);
    let mut call = guest.start(8..12, SYNC).expect("good arguments");
    assert_eq!(guest.finish(&mut call), KernReturn::Success);
    assert_eq!(guest.time_out(&mut call), KernReturn::Success);
    assert!(object.dirty().is_empty());
}

#[test]
fn s7_an_answer_that_is_there_beats_the_time_out() {
    let (pager, object, mut guest) = region(true);
    let mut call = guest.start(8..12, SYNC).expect("good arguments");
    assert!(guest.blocks(&mut call));
    pager.release();
    assert_eq!(guest.time_out(&mut call), KernReturn::Success);
    assert!(object.dirty().is_empty());
}

#[test]
fn s7_a_call_that_is_dropped_gives_its_ranges_back() {
    let (pager, _, mut guest) = region(true);
    let mut waiting = guest.start(8..10, SYNC).expect("good arguments");
    assert!(guest.blocks(&mut waiting));
    let mut reserving = guest.start(9..12, SYNC).expect("good arguments");
    assert!(guest.blocks(&mut reserving));
    drop(reserving);
    drop(waiting);
    let mut other = guest.start(8..10, SYNC).expect("good arguments");
    assert!(guest.blocks(&mut other), "the pager still owes an answer");
    pager.release();
    assert_eq!(guest.finish(&mut other), KernReturn::Success);
    assert_eq!(guest.msync(10..12, SYNC), KernReturn::Success);
}

/// Objects `a` and `b` of one pager at page 8, 2 pages each, and `c` of another one in front of them or behind, all dirty.
fn two_pagers(c_at: u64) -> ([Arc<TestPager>; 2], [Object; 3], Guest) {
    let pager = TestPager::new();
    let other = TestPager::beside(&pager);
    let objects =
        [(&pager, 'a'), (&pager, 'b'), (&other, 'c')].map(|(pager, name)| Object::new(pager, name, 2));
    let mut guest = Guest::new(32);
    for (object, at) in objects.iter().zip([8, 10, c_at]) {
        guest.map(object, at);
        guest.store(at..at + 2, 1);
    }
    pager.take_log();
    ([pager, other], objects, guest)
}

/// A sync of everything, in which a pager panics; the host goes on.
fn panics(guest: &mut Guest) {
    let sync = std::panic::AssertUnwindSafe(|| guest.msync(0..32, SYNC));
    assert!(std::panic::catch_unwind(sync).is_err());
}

#[test]
fn s7_pages_returned_before_a_pager_panics_are_forgotten() {
    for c_at in [6, 12] {
        let ([pager, other], objects, mut guest) = two_pagers(c_at);
        pager.script(|script| _ = script.returns_panic.insert((objects[1].id(), 0)));
        panics(&mut guest);
        assert_eq!([pager.begun(), other.begun()], [0, 0], "c at {c_at}");
        pager.script(|script| script.returns_panic.clear());
        assert!(objects.iter().all(|object| object.dirty().len() == 2));
        assert_eq!(guest.msync(0..32, SYNC), KernReturn::Success);
        assert_eq!(pager.durable(objects[0].id(), 0)[0], 1);
    }
}

#[test]
fn s7_ranges_that_a_pager_was_asked_for_before_it_panics_are_free() {
    for c_at in [6, 12] {
        let ([pager, other], [a, _, c], mut guest) = two_pagers(c_at);
        other.script(|script| script.hold = true);
        pager.script(|script| script.synchronize_panics = true);
        panics(&mut guest);
        assert_eq!([pager.begun(), other.begun()], [0, 0], "c at {c_at}");
        pager.script(|script| script.synchronize_panics = false);
        assert_eq!(guest.msync(8..12, SYNC), KernReturn::Success);
        assert_eq!(pager.durable(a.id(), 0)[0], 1);
        // The other pager has taken its part where it was asked first: that is not undone, and its answer is its own.
        let was_asked = c_at < 8;
        assert_eq!(other.held(), usize::from(was_asked));
        let mut again = guest.start(c_at..c_at + 2, SYNC).expect("good arguments");
        assert!(guest.blocks(&mut again));
        assert_eq!(other.release(), [Ok(())]);
        assert_eq!(guest.finish(&mut again), KernReturn::Success);
        assert_eq!(other.durable(c.id(), 1)[0], 1);
    }
}

#[test]
fn s7_a_pager_that_panics_with_nothing_returned_is_asked_again() {
    let ([pager, _], _, mut guest) = two_pagers(12);
    assert_eq!(guest.msync(0..32, SYNC), KernReturn::Success);
    pager.script(|script| script.synchronize_panics = true);
    panics(&mut guest);
    assert_eq!(pager.begun(), 0);
    pager.script(|script| script.synchronize_panics = false);
    assert_eq!(guest.msync(0..32, SYNC), KernReturn::Success);
}

#[test]
fn s7_a_partly_reserved_call_that_is_dropped_gives_its_ranges_back() {
    let pager = TestPager::new();
    let (a, b) = (Object::new(&pager, 'a', 2), Object::new(&pager, 'b', 2));
    let mut guest = Guest::new(32);
    guest.map(&a, 8);
    guest.map(&b, 10);
    pager.script(|script| script.hold = true);
    let mut first = guest.start(10..12, SYNC).expect("good arguments");
    assert!(guest.blocks(&mut first));
    let mut both = guest.start(8..12, SYNC).expect("good arguments");
    assert!(guest.blocks(&mut both));
    drop(both);
    pager.script(|script| script.hold = false);
    assert_eq!(guest.msync(8..10, SYNC), KernReturn::Success);
}

#[test]
fn s8_async_may_complete_when_queued() {
    let (pager, object, mut guest) = region(false);
    assert_eq!(guest.msync(8..12, ASYNC), KernReturn::Success);
    assert_eq!(
        pager.take_log(),
        ["a return 0..4 dirty kept", "a sync 0..4 later"]
    );
    assert_eq!(pager.durable(object.id(), 0)[0], 0);
    // A later SYNC is ordered behind it.
    assert_eq!(guest.msync(8..9, SYNC), KernReturn::Success);
    assert_eq!(pager.take_log(), ["a sync 0..1 now"]);
    pager.crash();
    assert_eq!(pager.durable(object.id(), 3)[0], 1);
}

#[test]
fn s8_what_is_queued_is_what_is_supplied() {
    let (pager, object, mut guest) = region(false);
    assert_eq!(
        guest.msync(8..12, ASYNC | VmSync::INVALIDATE),
        KernReturn::Success
    );
    assert_eq!(guest.read(8), 1);
    assert_eq!(pager.durable(object.id(), 0)[0], 0);
}

#[test]
fn s9_contiguous_never_reaches_a_pager() {
    let (pager, _, mut guest) = region(false);
    assert_eq!(guest.msync(8..12, VmSync::CONTIGUOUS), KernReturn::Success);
    assert!(pager.take_log().is_empty());
    assert_eq!(guest.msync(8..12, SYNC | VmSync::CONTIGUOUS), KernReturn::Success);
    let with = pager.take_log();
    guest.store(8..12, 2);
    assert_eq!(guest.msync(8..12, SYNC), KernReturn::Success);
    assert_eq!(with, pager.take_log());
}

#[test]
fn s8_what_another_task_has_queued_is_durable_when_a_readers_sync_succeeds() {
    let (pager, object, mut writer) = region(false);
    let mut reader = Guest::new(32);
    let port = reader
        .task
        .open_object(object.clone(), OpenFlags::READ)
        .expect("a port is free");
    let mut window = request(port, 8, 4);
    (window.protection, window.max_protection) = (VmProt::READ, VmProt::READ);
    reader.map_with(&window).expect("readable");
    writer.store(8..9, 7);
    assert_eq!(writer.msync(8..12, ASYNC), KernReturn::Success);
    pager.take_log();
    assert_eq!(reader.msync(8..12, ASYNC), KernReturn::Success);
    assert!(pager.take_log().is_empty(), "it has nothing to queue");
    assert_eq!(reader.msync(8..12, SYNC), KernReturn::Success);
    assert_eq!(pager.take_log(), ["a sync 0..4 now"]);
    assert_eq!(pager.durable(object.id(), 0)[0], 7);
    pager.overwrite(object.id(), 0, 9);
    assert_eq!(
        reader.msync(8..12, SYNC | VmSync::INVALIDATE),
        KernReturn::Success
    );
    assert_eq!(pager.take_log(), ["a sync 0..4 now", "a request 0..4"]);
    assert_eq!(reader.read(8), 9);
}

/// A task may show a page twice: a call asks for it once, or its own range would be in its way.
#[test]
fn s6_a_page_is_asked_for_once() {
    let (pager, object, mut guest) = region(false);
    assert_eq!(guest.msync(8..12, SYNC), KernReturn::Success);
    let port = guest
        .task
        .open_object(object, OpenFlags::READ)
        .expect("a port is free");
    for (first, offset, pages) in [(12, 2, 2), (14, 1, 2), (4, 0, 4)] {
        let mut window = request(port, first, pages);
        window.offset = offset * P;
        (window.protection, window.max_protection) = (VmProt::READ, VmProt::READ);
        guest.map_with(&window).expect("readable");
    }
    pager.take_log();
    assert_eq!(guest.msync(12..16, SYNC), KernReturn::Success);
    assert_eq!(pager.take_log(), ["a sync 2..4 now more", "a sync 1..2 now"]);
    assert_eq!(guest.msync(4..16, SYNC), KernReturn::Success);
    assert_eq!(pager.take_log(), ["a sync 0..4 now"]);
}
