//! Rows I: invalidation. Each runs with memory that copies pages in and with memory that maps the pager's image.

use std::sync::Arc;

use vmsync_core::{KernReturn, PageRange, abi::VmSync, object::ObjectHandle};

use crate::harness::{Guest, Object, TestPager, memory::Images};

const SYNC: VmSync = VmSync::SYNCHRONOUS;
const INVALIDATE: VmSync = VmSync::INVALIDATE;

struct Fixture {
    pager: Arc<TestPager>,
    object: Object,
    guest: Guest,
    /// How the log calls bringing a page back.
    refetch: &'static str,
}

/// Object `a` of 4 pages at page 8, whose page `n` holds 10 + n; copied and mapped.
fn fixtures() -> [Fixture; 2] {
    [None, Some(Images::default())].map(|images| {
        let pager = TestPager::with_images(images.clone());
        let object = Object::new(&pager, 'a', 4);
        for page in 0..4 {
            pager.overwrite(object.id(), page, 10 + page as u8);
        }
        let refetch = if images.is_some() { "settle" } else { "request" };
        let mut guest = Guest::with_images(32, images.unwrap_or_default());
        guest.map(&object, 8);
        pager.take_log();
        Fixture {
            pager,
            object,
            guest,
            refetch,
        }
    })
}

#[test]
fn i1_a_dirty_page_is_returned_dropped_and_fetched_again() {
    for mut test in fixtures() {
        test.guest.store([9], 1);
        assert_eq!(test.guest.msync(8..12, SYNC | INVALIDATE), KernReturn::Success);
        assert_eq!(
            test.pager.take_log(),
            [
                "a return 1..2 dirty dropped".to_string(),
                "a sync 0..4 now".to_string(),
                format!("a {} 0..4", test.refetch),
            ]
        );
        assert_eq!(test.guest.read(9), 1);
        assert!(test.object.dirty().is_empty());
        assert_eq!(test.guest.msync(8..12, SYNC), KernReturn::Success);
        assert_eq!(test.pager.take_log(), ["a sync 0..4 now"]);
    }
}

#[test]
fn i2_a_clean_page_shows_what_changed_behind_it() {
    for mut test in fixtures() {
        test.pager.overwrite(test.object.id(), 1, 99);
        assert_eq!(test.guest.read(9), 11);
        assert_eq!(test.guest.msync(9..10, SYNC | INVALIDATE), KernReturn::Success);
        assert_eq!(
            test.pager.take_log(),
            ["a sync 1..2 now".to_string(), format!("a {} 1..2", test.refetch)]
        );
        assert_eq!(test.guest.read(9), 99);
    }
}

#[test]
fn i3_a_dirty_page_is_dropped_and_shows_the_last_commit() {
    for mut test in fixtures() {
        test.guest.store([9, 10], 1);
        assert_eq!(test.guest.msync(9..10, SYNC), KernReturn::Success);
        test.guest.store([9, 10], 2);
        test.pager.take_log();
        assert_eq!(test.guest.msync(8..12, INVALIDATE), KernReturn::Success);
        assert_eq!(test.pager.take_log(), [format!("a {} 0..4", test.refetch)]);
        assert_eq!((test.guest.read(9), test.guest.read(10)), (1, 12));
        assert_eq!(test.guest.msync(8..12, SYNC), KernReturn::Success);
        assert_eq!(
            test.pager.take_log(),
            ["a sync 0..4 now"],
            "nothing is dirty any more"
        );
    }
}

#[test]
fn i4_precious_pages_are_returned_before_they_are_dropped() {
    for mut test in fixtures() {
        test.object
            .with(|object| object.precious.insert(PageRange::new(0, 2)));
        test.guest.store([9, 10], 1);
        assert_eq!(test.guest.msync(8..12, INVALIDATE), KernReturn::Success);
        assert_eq!(
            test.pager.take_log(),
            [
                "a return 0..1 clean dropped".to_string(),
                "a return 1..2 dirty dropped".to_string(),
                "a sync 0..4 now".to_string(),
                format!("a {} 0..4", test.refetch),
            ]
        );
        // The precious dirty page was committed; the dirty one was not.
        assert_eq!((test.guest.read(9), test.guest.read(10)), (1, 12));
        // What was fetched again is an ordinary copy.
        assert_eq!(test.guest.msync(8..12, SYNC), KernReturn::Success);
        assert_eq!(test.pager.take_log(), ["a sync 0..4 now"]);
    }
}

#[test]
fn i5_wired_pages_stay() {
    for flags in [INVALIDATE, SYNC | INVALIDATE] {
        for mut test in fixtures() {
            test.guest.store([9, 10], 1);
            test.guest.wire(9..10, true).expect("mapped");
            test.pager.overwrite(test.object.id(), 0, 50);
            test.pager.take_log();
            assert_eq!(test.guest.msync(8..12, flags), KernReturn::Success);
            let log = test.pager.take_log();
            let returned = log.iter().any(|line| line == "a return 1..2 dirty kept");
            assert_eq!(returned, flags.contains(SYNC), "{log:?}");
            let page_2 = if flags.contains(SYNC) { 1 } else { 12 };
            assert_eq!(
                (test.guest.read(8), test.guest.read(9), test.guest.read(10)),
                (50, 1, page_2)
            );
            // Alone, INVALIDATE left the wired page dirty.
            assert_eq!(test.guest.msync(9..10, SYNC), KernReturn::Success);
            let again = test.pager.take_log();
            assert_eq!(again.len(), if flags.contains(SYNC) { 1 } else { 2 }, "{again:?}");
            test.guest.wire(9..10, false).expect("mapped");
            test.pager.overwrite(test.object.id(), 1, 60);
            assert_eq!(test.guest.msync(8..12, INVALIDATE), KernReturn::Success);
            assert_eq!(test.guest.read(9), 60);
        }
    }
}
