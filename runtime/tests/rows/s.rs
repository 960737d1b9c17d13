//! Rows S: waiting for the pager.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use vmsync::{ByteRange, KernReturn, PagerErrorKind};
use vmsync_pager_conformance::ScriptedPager;

use crate::{
    flags::{ASYNC, CONTIGUOUS, SYNC},
    harness::{
        BASE, P, each, each_with,
        guest::Window,
        rig::{IMPATIENT, PATIENT, error},
    },
};

/// Waits until `pager` holds `count` completions back.
fn wait_until_held(pager: &ScriptedPager, count: usize) {
    wait_until(|| pager.held() >= count);
}

fn wait_until(mut asked: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !asked() {
        assert!(Instant::now() < deadline, "the pager was never asked");
        thread::sleep(Duration::from_millis(1));
    }
}

/// Releases what `pager` is asked for by another thread, after `meanwhile`.
fn answer_later(
    pager: &Arc<ScriptedPager>,
    count: usize,
    meanwhile: impl FnOnce() + Send + 'static,
) -> thread::JoinHandle<()> {
    pager.hold_completions();
    let pager = pager.clone();
    thread::spawn(move || {
        wait_until_held(&pager, count);
        meanwhile();
        for answer in pager.release() {
            assert_eq!(answer, Ok(()));
        }
    })
}

#[test]
fn s1_a_completion_from_inside_synchronize() {
    each(|rig| {
        let mut guest = rig.region(4);
        guest.touch([1], 7);
        // The memory pager answers from inside.
        assert_eq!(guest.msync(BASE, 4 * P, SYNC), KernReturn::Success);
    });
}

#[test]
fn s2_the_guest_waits_for_a_completion_from_another_thread() {
    each(|rig| {
        let mut guest = rig.region(4);
        guest.touch([1], 7);
        let pause = Duration::from_millis(20);
        let answer = answer_later(&rig.pager, 1, move || thread::sleep(pause));
        let start = Instant::now();
        assert_eq!(guest.msync(BASE, 4 * P, SYNC), KernReturn::Success);
        assert!(start.elapsed() >= pause);
        answer.join().expect("the pager's thread");
    });
}

#[test]
fn s2_a_host_may_be_willing_to_wait_for_ever() {
    each_with(PATIENT, |rig| {
        let mut guest = rig.region(4);
        guest.touch([1], 7);
        let answer = answer_later(&rig.pager, 1, || thread::sleep(Duration::from_millis(5)));
        assert_eq!(guest.msync(BASE, 4 * P, SYNC), KernReturn::Success);
        answer.join().expect("the pager's thread");
    });
}

#[test]
fn s3_a_completion_that_was_not_asked_for_is_refused() {
    each(|rig| {
        let mut guest = rig.region(4);
        guest.touch([1], 7);
        let control = rig.control("a");
        let asked = ByteRange::new(0, 4 * P);
        let wrong = [
            ByteRange::new(0, 3 * P),
            ByteRange::new(P, 4 * P),
            ByteRange::new(0, 5 * P),
            ByteRange::new(P, 2 * P),
        ];
        let refused = Err(KernReturn::InvalidArgument);
        assert_eq!(
            control.synchronize_completed(asked, Ok(())),
            refused,
            "none outstanding"
        );
        let late = control.clone();
        let answer = answer_later(&rig.pager, 1, move || {
            for range in wrong {
                assert_eq!(late.synchronize_completed(range, Ok(())), refused);
            }
        });
        assert_eq!(guest.msync(BASE, 4 * P, SYNC), KernReturn::Success);
        answer.join().expect("the pager's thread");
        assert_eq!(control.synchronize_completed(asked, Ok(())), refused, "twice");
    });
}

#[test]
fn s4_a_range_whose_answer_is_owed_is_not_asked_for_again() {
    each_with(IMPATIENT, |rig| {
        let mut guest = rig.region(4);
        guest.touch([1], 7);
        rig.pager.hold_completions();
        assert_eq!(guest.msync(BASE, 2 * P, SYNC), KernReturn::Aborted);
        rig.log();
        assert_eq!(
            guest.msync(BASE + P, 2 * P, SYNC),
            KernReturn::Aborted,
            "it overlaps"
        );
        assert!(rig.log().iter().all(|line| line == "abort"));
        assert_eq!(rig.pager.release(), [Ok(())]);
        assert_eq!(guest.msync(BASE + P, 2 * P, SYNC), KernReturn::Success);
        rig.assert_log(&guest, &["a return 1..2 dirty kept", "a sync 1..3 now"]);
    });
}

#[test]
fn s5_disjoint_calls_run_side_by_side() {
    each(|rig| {
        let mut guests = [(); 2].map(|()| rig.guest());
        for (half, guest) in guests.iter_mut().enumerate() {
            let port = guest.open("a", 4);
            guest.map(Window {
                first_page: 2 * half as u64,
                ..Window::new(port, 2)
            });
            guest.touch([0], 7);
        }
        // Answers come only once both calls wait.
        let answer = answer_later(&rig.pager, 2, || ());
        thread::scope(|scope| {
            for guest in &mut guests {
                scope.spawn(|| assert_eq!(guest.msync(BASE, 2 * P, SYNC), KernReturn::Success));
            }
        });
        answer.join().expect("the pager's thread");
        assert_eq!((rig.committed("a", 0), rig.committed("a", 2)), (7, 7));
    });
}

#[test]
fn s6_returns_before_synchronizes_before_waits() {
    each(|rig| {
        let mut guest = rig.region(2);
        for (index, name) in ["b", "c"].into_iter().enumerate() {
            let port = guest.open(name, 2);
            guest.map(Window {
                page: BASE / P + 2 * (index as u64 + 1),
                ..Window::new(port, 2)
            });
        }
        guest.touch([0, 2, 4], 7);
        rig.log();
        rig.log_of(&rig.other);
        // The second pager is asked before the first is waited for, which answers only then.
        let other = rig.other.clone();
        let answer = answer_later(&rig.pager, 2, move || {
            let mut asked = Vec::new();
            wait_until(|| {
                asked.extend(other.take_log());
                asked.len() >= 2
            });
            assert_eq!(asked.len(), 2, "{asked:?}");
        });
        assert_eq!(guest.msync(BASE, 6 * P, SYNC), KernReturn::Success);
        answer.join().expect("the pager's thread");
        let expected = [
            "a return 0..1 dirty kept",
            "b return 0..1 dirty kept",
            "a sync 0..2 now more",
            "b sync 0..2 now",
        ];
        rig.assert_log(&guest, &expected);
    });
}

#[test]
fn s7_a_pager_that_never_answers_is_aborted_in_time() {
    each_with(IMPATIENT, |rig| {
        let mut guest = rig.region(4);
        guest.touch([1], 7);
        rig.pager.hold_completions();
        let start = Instant::now();
        assert_eq!(guest.msync(BASE, 4 * P, SYNC), KernReturn::Aborted);
        assert!(start.elapsed() < Duration::from_secs(10));
        assert_eq!(guest.touched(1), 7);
        assert!(guest.inner.last_error().is_some(), "in words for the host");
        // The late answer is for the call that was given up: the page is still dirty.
        rig.pager.release();
        rig.log();
        assert_eq!(guest.msync(BASE, 4 * P, SYNC), KernReturn::Success);
        rig.assert_log(&guest, &["a return 1..2 dirty kept", "a sync 0..4 now"]);
    });
}

#[test]
fn s7_a_destroyed_object_is_memory_failure() {
    each(|rig| {
        let mut guest = rig.region(4);
        guest.touch([1], 7);
        let control = rig.control("a");
        let late = control.clone();
        rig.pager.hold_completions();
        let pager = rig.pager.clone();
        let destroyer = thread::spawn(move || {
            wait_until_held(&pager, 1);
            late.destroy(error(PagerErrorKind::Gone));
        });
        assert_eq!(
            guest.msync(BASE, 4 * P, SYNC),
            KernReturn::MemoryFailure,
            "while it waits"
        );
        destroyer.join().expect("the pager's thread");
        rig.log();
        assert_eq!(
            guest.msync(BASE, 4 * P, SYNC),
            KernReturn::MemoryFailure,
            "afterwards"
        );
        assert_eq!(guest.touched(1), 7, "what is mapped stays readable");
        let port = guest.open("b", 1);
        guest.map(Window {
            page: BASE / P + 8,
            ..Window::new(port, 1)
        });
        rig.pager.release();
        assert_eq!(
            guest.msync(BASE + 8 * P, P, SYNC),
            KernReturn::Success,
            "another object"
        );
        assert_eq!(guest.deallocate(BASE, 4 * P), KernReturn::Success);
    });
}

#[test]
fn s8_async_may_complete_when_queued() {
    each(|rig| {
        let mut guest = rig.region(4);
        guest.touch([1], 7);
        assert_eq!(guest.msync(BASE, 4 * P, ASYNC), KernReturn::Success);
        rig.assert_log(&guest, &["a return 1..2 dirty kept", "a sync 0..4 later"]);
        assert_eq!(guest.msync(BASE, 4 * P, SYNC), KernReturn::Success);
        rig.assert_log(&guest, &["a sync 0..4 now"]);
    });
}

#[test]
fn s9_contiguous_never_reaches_a_pager() {
    each(|rig| {
        let mut guest = rig.region(4);
        guest.touch([1], 7);
        assert_eq!(guest.msync(BASE, 4 * P, CONTIGUOUS), KernReturn::Success);
        rig.assert_log(&guest, &[]);
        assert_eq!(guest.msync(BASE, 4 * P, CONTIGUOUS | SYNC), KernReturn::Success);
        rig.assert_log(&guest, &["a return 1..2 dirty kept", "a sync 0..4 now"]);
    });
}
