//! The other calls, one test or more for each.

use vmsync::KernReturn;

use crate::{
    flags::SYNC,
    harness::{BASE, Guest, P, Width, each, each_width, guest::Window},
};

#[test]
fn vm_allocate_places_zeroed_memory() {
    each_width(|rig, width| {
        let mut guest = Guest::new(&rig.sandbox, width);
        guest.touch([0], 7);
        assert_eq!(guest.allocate(BASE, P, 0), (KernReturn::Success, BASE));
        assert_eq!(guest.touched(0), 0, "FIXED replaces what was in linear memory");
        assert_eq!(
            guest.allocate(BASE, P, 0).0,
            KernReturn::NoSpace,
            "but not a region"
        );
        assert_eq!(guest.allocate(BASE, P, 0x4000).0, KernReturn::Success);
        assert_eq!(guest.allocate(BASE + 1, P, 0).0, KernReturn::InvalidArgument);
        assert_eq!(guest.allocate(BASE, 0, 0).0, KernReturn::InvalidArgument);
        assert_eq!(guest.allocate(64 << 16, P, 0).0, KernReturn::InvalidAddress);
        assert_eq!(guest.allocate(BASE, P, 2).0, KernReturn::NotSupported);
        assert_eq!(guest.allocate(BASE, P, 0x100).0, KernReturn::InvalidArgument);
        // ANYWHERE grows the memory, or fills a hole.
        let (result, behind) = guest.allocate(0, 3 * P, 1);
        assert_eq!((result, behind), (KernReturn::Success, 64 << 16));
        guest.store8(behind + 3 * P - 1, 1);
        assert_eq!(guest.deallocate(BASE + 8 * P, 2 * P), KernReturn::Success);
        assert_eq!(guest.allocate(0, 2 * P, 1), (KernReturn::Success, BASE + 8 * P));
    });
}

#[test]
fn vm_region_tells_a_size_of_memory_that_ends_where_addresses_do() {
    each(|rig| {
        let text = Width::Bits32.wat().replace(" 64)", " 65536)");
        let mut guest = Guest::from(rig.sandbox.instantiate(text.as_bytes()).expect("4 GiB"));
        let (address, size, ..) = guest.region(0).expect("memory");
        assert_eq!(
            (address, size),
            (0, (1 << 32) - P),
            "as many pages as a word can say"
        );
        assert_eq!(guest.deallocate(0xffff_f000, P), KernReturn::Success);
        let (address, size, ..) = guest.region(0).expect("memory");
        assert_eq!((address, size), (0, (1 << 32) - P));
    });
}

#[test]
fn a_hole_traps_and_can_be_filled_again() {
    each_width(|rig, width| {
        let mut guest = rig.region_of(width, 2);
        assert_eq!(guest.deallocate(BASE, 2 * P), KernReturn::Success);
        let load = guest.try_call::<i64, i64>("load8", BASE as i64);
        assert!(load.is_err(), "a load from a hole traps");
        let store = guest.try_call::<(i64, i64), ()>("store8", (BASE as i64, 1));
        assert!(store.is_err(), "a store to a hole traps");
        guest.map_region("a", 2);
        guest.touch([1], 7);
        rig.log();
        assert_eq!(guest.msync(BASE, 2 * P, SYNC), KernReturn::Success);
        rig.assert_log(&guest, &["a return 1..2 dirty kept", "a sync 0..2 now"]);
    });
}

#[test]
fn vm_map_checks_rights_and_bounds() {
    each_width(|rig, width| {
        let mut guest = Guest::new(&rig.sandbox, width);
        let port = guest.open("a", 4);
        let good = Window::new(port, 4);
        let bad = [
            (Window { pages: 5, ..good }, KernReturn::InvalidArgument),
            (
                Window {
                    first_page: 1,
                    ..good
                },
                KernReturn::InvalidArgument,
            ),
            (
                Window {
                    first_page: 1 << 51,
                    ..good
                },
                KernReturn::InvalidArgument,
            ),
            (Window { port: 0x7fff, ..good }, KernReturn::InvalidObject),
            (Window { port: 1, ..good }, KernReturn::InvalidObject),
            (
                Window {
                    protection: (3, 1),
                    ..good
                },
                KernReturn::InvalidArgument,
            ),
            (
                Window {
                    protection: (7, 7),
                    ..good
                },
                KernReturn::InvalidArgument,
            ),
            (
                Window {
                    page: 1 << 19,
                    ..good
                },
                KernReturn::InvalidAddress,
            ),
        ];
        for (window, expected) in bad {
            assert_eq!(guest.try_map(window), expected, "{window:?}");
        }
        let (result, reader) = guest.try_open(b"a", 0, 1);
        assert_eq!(result, KernReturn::Success);
        let window = Window { port: reader, ..good };
        assert_eq!(guest.try_map(window), KernReturn::ProtectionFailure);
        guest.map(good);
        assert_eq!(guest.try_map(good), KernReturn::NoSpace);
    });
}

#[test]
fn a_refused_mapping_anywhere_takes_no_room() {
    each_width(|rig, width| {
        let mut guest = Guest::new(&rig.sandbox, width);
        let refused = Window {
            flags: 1,
            ..Window::new(0x7fff, 4)
        };
        for _ in 0..40 {
            assert_eq!(guest.try_map(refused), KernReturn::InvalidObject);
        }
        let size = guest.call::<(), i64>("size", ());
        assert!(size <= 65, "{size} pages of 64 KiB");
        let good = Window {
            port: guest.open("a", 4),
            ..refused
        };
        guest.map(good);
        assert_eq!(guest.call::<(), i64>("size", ()), size);
    });
}

#[test]
fn vm_protect_bounds_what_is_allowed() {
    each_width(|rig, width| {
        let mut guest = rig.region_of(width, 2);
        assert_eq!(guest.protect(BASE, P, true, 1), KernReturn::Success);
        assert_eq!(guest.protect(BASE, P, false, 3), KernReturn::ProtectionFailure);
        assert_eq!(guest.protect(BASE, P, false, 8), KernReturn::InvalidArgument);
        let store = guest.try_call::<(i64, i64), ()>("store8", (BASE as i64, 1));
        assert!(
            store.is_err(),
            "lowering the maximum lowers the current protection"
        );
        guest.touch([1], 7);
        assert_eq!(guest.deallocate(BASE, P), KernReturn::Success);
        assert_eq!(guest.protect(BASE, 2 * P, false, 1), KernReturn::InvalidAddress);
    });
}

#[test]
fn vm_region_tells_what_is_mapped() {
    each_width(|rig, width| {
        let mut guest = rig.region_of(width, 4);
        assert_eq!(guest.deallocate(BASE + 2 * P, P), KernReturn::Success);
        let (start, size, info, port) = guest.region(BASE + 1).expect("a region");
        assert_eq!((start, size), (BASE, 2 * P));
        assert_eq!((info[0], info[4], info[12]), (3, 3, 1), "protections and shared");
        assert_ne!(port, 0);
        let (start, size, info, other) = guest.region(BASE + 2 * P).expect("the next region");
        assert_eq!((start, size, other), (BASE + 3 * P, P, port));
        assert_eq!(
            u64::from_le_bytes(info[16..24].try_into().expect("8 bytes")),
            3 * P
        );
        let (start, _, _, port) = guest.region(0).expect("linear memory");
        assert_eq!((start, port), (0, 0));
        assert_eq!(guest.region(64 << 16), Err(KernReturn::InvalidAddress));
    });
}

#[test]
fn vm_behavior_set_advises_and_zeroes() {
    each_width(|rig, width| {
        let mut guest = rig.region_of(width, 4);
        guest.touch(0..4, 7);
        assert_eq!(guest.msync(BASE, 4 * P, SYNC), KernReturn::Success);
        rig.log();
        for behavior in [0, 1, 2, 4, 5] {
            assert_eq!(guest.behave(BASE, 4 * P, behavior), KernReturn::Success);
        }
        for behavior in [-1, 3, 7, 13] {
            assert_eq!(guest.behave(BASE, 4 * P, behavior), KernReturn::InvalidArgument);
        }
        assert_eq!(guest.behave(BASE, 4 * P, 6), KernReturn::Success);
        assert_eq!(
            guest.touched(1),
            7,
            "FREE is KILLPAGES, which leaves objects alone"
        );
        assert_eq!(guest.behave(BASE + P, P, 12), KernReturn::Success);
        assert_eq!((guest.touched(0), guest.touched(1)), (7, 0));
        assert_eq!(guest.msync(BASE, 4 * P, SYNC), KernReturn::Success);
        rig.assert_log(&guest, &["a return 1..2 dirty kept", "a sync 0..4 now"]);
        assert_eq!(guest.deallocate(BASE, P), KernReturn::Success);
        for behavior in [0, 4, 5, 6, 12] {
            assert_eq!(guest.behave(BASE, 2 * P, behavior), KernReturn::InvalidAddress);
        }
    });
}

#[test]
fn objects_are_opened_described_and_closed() {
    each(|rig| {
        let mut guest = rig.guest();
        assert_eq!(
            guest.try_open(b"a", 0, 1).0,
            KernReturn::InvalidObject,
            "not created"
        );
        assert_eq!(
            guest.try_open(b"nothing", 0, 7).0,
            KernReturn::NoAccess,
            "not granted"
        );
        for flags in [0, 4, 8, 0xf] {
            assert_eq!(guest.try_open(b"a", P, flags).0, KernReturn::InvalidArgument);
        }
        let port = guest.open("a", 4);
        assert_eq!(guest.info(port), Ok((4 * P, 0, 2)));
        guest.map(Window::new(port, 4));
        guest.touch([0], 7);
        assert_eq!(guest.msync(BASE, P, SYNC), KernReturn::Success);
        assert_eq!(guest.info(port), Ok((4 * P, 1, 2)));
        assert_eq!(guest.close(port), KernReturn::Success);
        assert_eq!(guest.close(port), KernReturn::InvalidObject);
        assert_eq!(guest.info(port), Err(KernReturn::InvalidObject));
        guest.touch([1], 8);
        assert_eq!(
            guest.msync(BASE, 4 * P, SYNC),
            KernReturn::Success,
            "mappings stay"
        );
        rig.log();
        assert_eq!(guest.deallocate(BASE, 4 * P), KernReturn::Success);
        assert_eq!(rig.log(), ["a unmap", "a terminate"]);
    });
}
