//! Rows P: precious pages, of which the pager keeps no copy, and requests of the pager.

use vmsync::{
    ByteRange, KernReturn, PagerErrorKind,
    pager::{LockRequest, ReturnPages},
};

use crate::{
    flags::SYNC,
    harness::{
        BASE, Guest, P, Rig, each, each_with,
        guest::Window,
        rig::{PRECIOUS, error},
    },
};
use vmsync_pager_conformance::Fault;

/// A guest whose 2 pages of `a` are the only copies: both read 7, both are clean.
fn precious(rig: &Rig) -> Guest {
    let mut guest = rig.region(2);
    guest.touch(0..2, 7);
    assert_eq!(guest.msync(BASE, 2 * P, SYNC), KernReturn::Success);
    drop(guest);
    let guest = rig.region(2);
    assert_eq!(rig.committed("a", 0), 0, "the pager keeps no copy");
    guest
}

#[test]
fn p1_precious_pages_are_returned_before_the_last_unmap() {
    each_with(PRECIOUS, |rig| {
        let mut guest = precious(rig);
        assert_eq!(guest.touched(0), 7);
        assert_eq!(guest.deallocate(BASE, 2 * P), KernReturn::Success);
        rig.assert_log(&guest, &["a return 0..2 clean dropped", "a sync 0..2 now"]);
        assert_eq!((rig.committed("a", 0), rig.committed("a", 1)), (7, 7));
    });
}

#[test]
fn p1_precious_pages_are_returned_before_another_mapping_takes_their_place() {
    each_with(PRECIOUS, |rig| {
        let mut guest = precious(rig);
        assert_eq!(guest.allocate(BASE, 2 * P, 0x4000), (KernReturn::Success, BASE));
        assert_eq!((rig.committed("a", 0), rig.committed("a", 1)), (7, 7));
        // The same for the object's own next mapping.
        let port = guest.open("a", 2);
        guest.map(Window {
            flags: 0x4000,
            ..Window::new(port, 2)
        });
        guest.map(Window {
            flags: 0x4000,
            ..Window::new(port, 2)
        });
        assert_eq!((guest.touched(0), guest.touched(1)), (7, 7));
    });
}

#[test]
fn p1_what_holds_pages_that_were_not_returned_is_kept() {
    each_with(PRECIOUS, |rig| {
        let mut guest = precious(rig);
        let port = guest.open("a", 2);
        for kind in [PagerErrorKind::NoSpace, PagerErrorKind::Io] {
            let fail = || rig.pager.inject(Fault::Completion(Some(error(kind))));
            fail();
            assert_eq!(guest.deallocate(BASE, 2 * P), kind.write_back());
            fail();
            assert_eq!(guest.allocate(BASE, 2 * P, 0x4000).0, kind.write_back());
            fail();
            let over = Window {
                flags: 0x4000,
                ..Window::new(port, 2)
            };
            assert_eq!(guest.try_map(over), kind.write_back());
            assert_eq!((guest.touched(0), guest.touched(1)), (7, 7));
        }
        guest.touch([1], 8);
        assert_eq!(guest.deallocate(BASE, 2 * P), KernReturn::Success);
        assert_eq!((rig.committed("a", 0), rig.committed("a", 1)), (7, 8));
    });
}

#[test]
fn p1_what_holds_pages_of_an_object_that_is_gone_is_given_up() {
    each_with(PRECIOUS, |rig| {
        let mut guest = precious(rig);
        rig.control("a").destroy(error(PagerErrorKind::Gone));
        assert_eq!(guest.deallocate(BASE, 2 * P), KernReturn::Success);
        assert!(guest.try_call::<_, i64>("load8", BASE as i64).is_err(), "a hole");
    });
}

#[test]
fn p1_a_mapping_that_is_refused_returns_nothing() {
    each_with(PRECIOUS, |rig| {
        let mut guest = precious(rig);
        guest.touch([0], 8);
        rig.log();
        let port = guest.open("a", 2);
        let over = Window {
            flags: 0x4000,
            ..Window::new(port, 2)
        };
        let bad = [
            (
                Window {
                    port: port + 9,
                    ..over
                },
                KernReturn::InvalidObject,
            ),
            (
                Window {
                    first_page: 1,
                    ..over
                },
                KernReturn::InvalidArgument,
            ),
            (
                Window {
                    protection: (3, 1),
                    ..over
                },
                KernReturn::InvalidArgument,
            ),
            (
                Window {
                    protection: (3, 8),
                    ..over
                },
                KernReturn::InvalidArgument,
            ),
        ];
        for (window, expected) in bad {
            assert_eq!(guest.try_map(window), expected, "{window:?}");
        }
        assert!(rig.log().is_empty(), "uncommitted pages least of all");
        assert_eq!((guest.touched(0), guest.touched(1)), (8, 7));
        assert_eq!(guest.deallocate(BASE, 2 * P), KernReturn::Success);
        assert_eq!(
            (rig.committed("a", 0), rig.committed("a", 1)),
            (8, 7),
            "still precious"
        );
    });
}

#[test]
fn p1_precious_pages_are_returned_when_the_guest_ends() {
    each_with(PRECIOUS, |rig| {
        let guest = precious(rig);
        drop(guest);
        let lines = rig.log();
        assert!(lines[0].starts_with("a return 0..2 clean"), "{lines:?}");
        assert_eq!(lines[1..], ["a sync 0..2 now", "a unmap", "a terminate"]);
        assert_eq!((rig.committed("a", 0), rig.committed("a", 1)), (7, 7));
    });
}

#[test]
fn p1_dirty_pages_are_not_committed_by_an_unmap() {
    each(|rig| {
        let mut guest = rig.region(4);
        guest.touch([1], 7);
        assert_eq!(guest.deallocate(BASE, 4 * P), KernReturn::Success);
        drop(guest);
        assert_eq!(rig.committed("a", 1), 0);
        assert_eq!(rig.log(), ["a unmap", "a terminate"]);
    });
}

#[test]
fn p2_a_precious_page_is_returned_by_each_sync_and_stays_precious() {
    each_with(PRECIOUS, |rig| {
        let mut guest = precious(rig);
        for _ in 0..2 {
            assert_eq!(guest.msync(BASE, 2 * P, SYNC), KernReturn::Success);
            rig.assert_log(&guest, &["a return 0..2 clean kept", "a sync 0..2 now"]);
        }
    });
}

#[test]
fn p5_a_request_of_the_pager_is_served_at_the_next_call() {
    each(|rig| {
        let mut guest = rig.region(4);
        guest.touch([1, 3], 7);
        let request = |should_return, flush| LockRequest {
            range: ByteRange::new(0, 2 * P),
            should_return,
            flush,
            prohibit: None,
        };
        let control = rig.control("a");
        assert_eq!(control.lock_request(request(ReturnPages::Dirty, false)), Ok(()));
        assert_eq!(guest.msync(BASE, 4 * P, 0), KernReturn::Success);
        rig.assert_log(&guest, &["a return 1..2 dirty kept", "a sync 0..2 now"]);
        guest.touch([1], 8);
        assert_eq!(control.lock_request(request(ReturnPages::None, true)), Ok(()));
        assert_eq!(guest.msync(BASE, 4 * P, SYNC), KernReturn::Success);
        let expected = ["a request 0..2", "a return 3..4 dirty kept", "a sync 0..4 now"];
        rig.assert_log(&guest, &expected);
        assert_eq!(guest.touched(1), 7, "flushed");
    });
}
