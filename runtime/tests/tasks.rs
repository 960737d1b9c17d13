//! Guests that are called asynchronously, on one thread: what a sync that is under way leaves to the others, and how it ends.

mod harness;

use std::{
    future::Future,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use harness::{
    BASE, Guest, P, Rig, RigOptions, each_with, guest::kern, rig::IMPATIENT, rungs, task::with_tasks,
};
use vmsync::{
    ByteRange, Error, KernReturn, VmSync,
    pager::{LockRequest, ReturnPages},
};

const SYNC: i64 = 2;

/// A guest's `vm_msync` of four pages at [`BASE`], not begun.
async fn msync(guest: &mut Guest) -> KernReturn {
    let words = (1_i64, BASE as i64, (4 * P) as i64, SYNC);
    let code = guest.inner.call_async::<_, i64>("vm_msync", words).await;
    kern(code.expect("no trap"))
}

/// Polls once.
fn poll<T>(future: std::pin::Pin<&mut impl Future<Output = T>>) -> Poll<T> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// Runs `body` with asynchronous guests under every rung.
fn each(body: impl Fn(&Rig)) {
    for kind in rungs() {
        println!("{kind}");
        with_tasks(|| body(&Rig::new(*kind, RigOptions::default())));
    }
}

#[test]
fn a_sync_leaves_its_thread_to_other_guests() {
    each(|rig| {
        let (mut first, mut second) = (rig.region(4), rig.guest());
        second.map_region("c", 4);
        first.touch([1], 7);
        second.touch([2], 8);
        rig.pager.hold_completions();
        let mut waits = pin!(msync(&mut first));
        assert!(poll(waits.as_mut()).is_pending());
        // Another guest, another pager, the same thread.
        let other = poll(pin!(msync(&mut second)));
        assert_eq!(other, Poll::Ready(KernReturn::Success));
        assert!(poll(waits.as_mut()).is_pending());
        rig.pager.release();
        assert_eq!(poll(waits), Poll::Ready(KernReturn::Success));
        assert_eq!(rig.committed("a", 1), 7);
    });
}

#[test]
fn a_sync_of_the_hosts_leaves_its_thread_too() {
    each(|rig| {
        let mut guest = rig.region(4);
        guest.touch([2], 6);
        rig.pager.hold_completions();
        let range = ByteRange::new(BASE, BASE + 4 * P);
        let mut waits = pin!(guest.inner.msync_async(range, VmSync::SYNCHRONOUS));
        assert!(poll(waits.as_mut()).is_pending());
        rig.pager.release();
        assert!(matches!(poll(waits), Poll::Ready(Ok(()))));
        assert_eq!(rig.committed("a", 2), 6);
    });
}

/// Runtimes with several threads move tasks between them.
#[test]
fn tasks_can_be_sent_to_other_threads() {
    fn sent<T: Send>(future: T) -> T {
        future
    }
    each(|rig| {
        let mut guest = rig.region(4);
        guest.touch([1], 4);
        assert_eq!(
            harness::task::block_on(sent(msync(&mut guest))),
            KernReturn::Success
        );
        let range = ByteRange::new(BASE, BASE + 4 * P);
        let synced = harness::task::block_on(sent(guest.inner.msync_async(range, VmSync::SYNCHRONOUS)));
        assert!(synced.is_ok());
        drop(sent(rig.sandbox.instantiate_async(b"")));
    });
}

#[test]
fn whoever_waits_is_woken() {
    each(|rig| {
        let mut guest = rig.region(4);
        guest.touch([0], 5);
        rig.pager.hold_completions();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while rig.pager.held() == 0 {
                    std::thread::yield_now();
                }
                rig.pager.release();
            });
            assert_eq!(harness::task::block_on(msync(&mut guest)), KernReturn::Success);
        });
        assert_eq!(rig.committed("a", 0), 5);
    });
}

#[test]
fn a_waker_that_panics_leaves_the_others_theirs() {
    struct Panics;
    impl Wake for Panics {
        fn wake(self: Arc<Self>) {
            panic!("as the test says");
        }
    }
    struct Woken(AtomicBool);
    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    each(|rig| {
        let (mut first, mut second) = (rig.region(4), rig.guest());
        second.map_for_loads("a", 4);
        first.touch([1], 7);
        rig.pager.hold_completions();
        let panics = Waker::from(Arc::new(Panics));
        let woken = Arc::new(Woken(AtomicBool::new(false)));
        let wakes = Waker::from(woken.clone());
        let (mut first, mut second) = (pin!(msync(&mut first)), pin!(msync(&mut second)));
        assert!(
            first
                .as_mut()
                .poll(&mut Context::from_waker(&panics))
                .is_pending()
        );
        assert!(
            second
                .as_mut()
                .poll(&mut Context::from_waker(&wakes))
                .is_pending()
        );
        rig.pager.release();
        assert!(woken.0.load(Ordering::Relaxed), "it is told");
        assert_eq!(poll(first), Poll::Ready(KernReturn::Success));
        assert_eq!(poll(second), Poll::Ready(KernReturn::Success));
    });
}

#[test]
fn a_pager_that_hangs_is_given_up() {
    each_with(IMPATIENT, |rig| {
        let mut guest = rig.region(4);
        guest.touch([3], 9);
        rig.pager.hold_completions();
        assert_eq!(guest.msync(BASE, 4 * P, SYNC as u32), KernReturn::Aborted);
        rig.pager.release();
        // The page stayed dirty.
        assert_eq!(guest.msync(BASE, 4 * P, SYNC as u32), KernReturn::Success);
        assert_eq!(rig.committed("a", 3), 9);
    });
}

#[test]
fn a_sync_that_is_dropped_leaves_its_pages_dirty_and_its_range_free() {
    each(|rig| {
        let mut guest = rig.region(4);
        guest.touch([0, 3], 3);
        rig.pager.hold_completions();
        {
            let mut dropped = pin!(msync(&mut guest));
            assert!(poll(dropped.as_mut()).is_pending());
        }
        rig.pager.release();
        rig.log();
        assert_eq!(harness::task::block_on(msync(&mut guest)), KernReturn::Success);
        rig.assert_log(
            &guest,
            &[
                "a return 0..1 dirty kept",
                "a return 3..4 dirty kept",
                "a sync 0..4 now",
            ],
        );
        assert_eq!((rig.committed("a", 0), rig.committed("a", 3)), (3, 3));
    });
}

#[test]
fn a_request_of_a_pager_that_is_dropped_is_served_by_the_next_call() {
    each(|rig| {
        let mut guest = rig.region(4);
        guest.touch([1], 7);
        let request = LockRequest {
            range: ByteRange::new(0, 2 * P),
            should_return: ReturnPages::Dirty,
            flush: false,
            prohibit: None,
        };
        assert_eq!(rig.control("a").lock_request(request), Ok(()));
        rig.pager.hold_completions();
        {
            let mut dropped = pin!(msync(&mut guest));
            assert!(poll(dropped.as_mut()).is_pending());
        }
        rig.pager.release();
        rig.log();
        assert_eq!(guest.msync(BASE, 4 * P, 0), KernReturn::Success);
        rig.assert_log(&guest, &["a return 1..2 dirty kept", "a sync 0..2 now"]);
    });
}

#[test]
fn a_thread_cannot_call_a_guest_of_tasks() {
    each(|rig| {
        let mut guest = rig.region(4);
        let words = (1_i64, BASE as i64, P as i64, SYNC);
        let refused: Result<i64, Error> = guest.inner.call("vm_msync", words);
        assert!(refused.is_err());
    });
}
