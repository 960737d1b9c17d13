//! Rows O: which object, which offsets.

use vmsync_core::{KernReturn, abi::VmSync, object::ObjectHandle};

use crate::harness::{Guest, Object, P, TestPager, guest::request, memory::Images};

const SYNC: VmSync = VmSync::SYNCHRONOUS;

#[test]
fn o1_anonymous_memory_keeps_its_contents() {
    let mut guest = Guest::new(32);
    guest.allocate(8..12);
    guest.store(0..16, 7);
    for flags in [SYNC, SYNC | VmSync::INVALIDATE, VmSync::INVALIDATE] {
        assert_eq!(guest.msync(0..16, flags), KernReturn::Success);
        assert!((0..16).all(|page| guest.read(page) == 7), "{flags:?}");
    }
}

#[test]
fn o2_a_region_never_touched_returns_nothing() {
    for images in [None, Some(Images::default())] {
        let pager = TestPager::with_images(images.clone());
        let object = Object::new(&pager, 'a', 4);
        let mut guest = Guest::with_images(32, images.unwrap_or_default());
        guest.map(&object, 8);
        pager.take_log();
        assert_eq!(guest.msync(8..12, SYNC), KernReturn::Success);
        assert_eq!(pager.take_log(), ["a sync 0..4 now"]);
    }
}

#[test]
fn o3_a_range_over_two_pagers() {
    let (first, second) = (TestPager::new(), TestPager::new());
    // The object with the lower address has the higher number: returns go by address all the same.
    let (upper, lower) = (Object::new(&first, 'a', 2), Object::new(&second, 'b', 4));
    let mut guest = Guest::new(32);
    guest.map(&lower, 8);
    guest.map(&upper, 12);
    guest.store([9, 10, 13], 1);
    first.take_log();
    second.take_log();
    assert_eq!(guest.msync(8..14, SYNC), KernReturn::Success);
    assert_eq!(second.take_log(), ["b return 1..3 dirty kept", "b sync 0..4 now"]);
    assert_eq!(first.take_log(), ["a return 1..2 dirty kept", "a sync 0..2 now"]);
}

#[test]
fn o3_two_objects_of_one_pager_go_in_address_order() {
    let pager = TestPager::new();
    let (upper, lower) = (Object::new(&pager, 'a', 2), Object::new(&pager, 'b', 4));
    let mut guest = Guest::new(32);
    guest.map(&lower, 8);
    guest.map(&upper, 12);
    guest.store([8, 11, 12], 1);
    pager.take_log();
    assert_eq!(guest.msync(8..14, SYNC), KernReturn::Success);
    assert_eq!(
        pager.take_log(),
        [
            "b return 0..1 dirty kept",
            "b return 3..4 dirty kept",
            "a return 0..1 dirty kept",
            "b sync 0..4 now more",
            "a sync 0..2 now",
        ]
    );
}

#[test]
fn o4_the_pager_sees_object_offsets() {
    for images in [None, Some(Images::default())] {
        let pager = TestPager::with_images(images.clone());
        let object = Object::new(&pager, 'a', 8);
        pager.overwrite(object.id(), 5, 9);
        let mut guest = Guest::with_images(32, images.unwrap_or_default());
        let port = guest.open(&object);
        let mut window = request(port, 20, 4);
        window.offset = 3 * P;
        guest.map_with(&window).expect("inside the object");
        assert_eq!(guest.read(22), 9);
        guest.store([21], 1);
        pager.take_log();
        assert_eq!(guest.msync(20..24, SYNC), KernReturn::Success);
        assert_eq!(pager.take_log(), ["a return 4..5 dirty kept", "a sync 3..7 now"]);
        assert_eq!(pager.durable(object.id(), 4)[0], 1);
    }
}
