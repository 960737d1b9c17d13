//! Rows A: arguments.

use vmsync_core::{
    KernReturn,
    abi::{PORT_NULL, TASK_SELF, VmSync},
};

use crate::harness::{Guest, Object, P, TestPager, guest::call};

/// Object `a` of 4 pages at page 8 of a guest with 32 pages.
fn region() -> (std::sync::Arc<TestPager>, Object, Guest) {
    let pager = TestPager::new();
    let object = Object::new(&pager, 'a', 4);
    let mut guest = Guest::new(32);
    guest.map(&object, 8);
    pager.take_log();
    (pager, object, guest)
}

#[test]
fn a1_synchronous_over_a_region() {
    let (pager, _, mut guest) = region();
    assert_eq!(guest.msync(8..12, VmSync::SYNCHRONOUS), KernReturn::Success);
    assert_eq!(pager.take_log(), ["a sync 0..4 now"]);
}

#[test]
fn a2_async_and_sync_is_invalid_argument() {
    let (pager, _, mut guest) = region();
    let flags = VmSync::ASYNCHRONOUS | VmSync::SYNCHRONOUS;
    assert_eq!(guest.msync(8..12, flags), KernReturn::InvalidArgument);
    assert_eq!(
        guest.msync(8..12, flags | VmSync::INVALIDATE),
        KernReturn::InvalidArgument
    );
    assert!(pager.take_log().is_empty());
}

#[test]
fn a3_flags_are_checked_before_size_zero() {
    let (_, _, mut guest) = region();
    let flags = VmSync::ASYNCHRONOUS | VmSync::SYNCHRONOUS;
    assert_eq!(guest.msync(8..8, flags), KernReturn::InvalidArgument);
}

#[test]
fn a4_null_or_dead_task_is_invalid_task() {
    let (_, _, mut guest) = region();
    assert_eq!(guest.task.check_task(TASK_SELF), Ok(()));
    assert_eq!(guest.task.check_task(PORT_NULL), Err(KernReturn::InvalidTask));
    for port in [TASK_SELF + 1, 0x100, u32::MAX] {
        assert_eq!(guest.task.check_task(port), Err(KernReturn::InvalidTask));
    }
    guest.task.terminate();
    assert_eq!(guest.task.check_task(TASK_SELF), Err(KernReturn::InvalidTask));
}

#[test]
fn a5_size_zero_is_success_anywhere() {
    let (pager, _, mut guest) = region();
    guest.store(8..9, 1);
    for address in [0, 8 * P, 8 * P + 1, 100 * P, u64::MAX] {
        for flags in [0x00, 0x01, 0x02, 0x04, 0x06, 0x08, 0x10, 0x20, 0x22, 0x40] {
            let result = guest.msync_bytes(address, 0, VmSync(flags));
            assert_eq!(result, KernReturn::Success, "{address:#x} flags {flags:#x}");
        }
    }
    assert!(pager.take_log().is_empty());
    assert_eq!(guest.read(8), 1);
}

#[test]
fn a6_overflow_is_invalid_address_and_touches_nothing() {
    let (pager, _, mut guest) = region();
    guest.store(8..9, 1);
    let ranges = [
        (8 * P, u64::MAX),
        (u64::MAX, 1),
        (u64::MAX, u64::MAX),
        (8 * P, u64::MAX - 8 * P),     // the end is 2^64 - 1, its page's end 2^64
        (8 * P, u64::MAX - 9 * P + 2), // the end is one byte into the last page
    ];
    for (address, size) in ranges {
        for flags in [0x00, 0x02, 0x04, 0x06, 0x08, 0x10] {
            let result = guest.msync_bytes(address, size, VmSync(flags));
            assert_eq!(result, KernReturn::InvalidAddress, "{address:#x}+{size:#x}");
        }
    }
    assert!(pager.take_log().is_empty());
    assert_eq!(guest.read(8), 1);
    assert!(guest.memory.marks().contains(&8));
}

#[test]
fn a6_words_of_32_bits_overflow_at_2_to_the_32() {
    const END: u64 = 1 << 32;
    let (_, _, mut guest) = region();
    let narrow = |guest: &mut Guest, address, size| {
        guest
            .task
            .msync(address, size, VmSync::SYNCHRONOUS, END, call(), &mut guest.memory)
            .map(|_| ())
    };
    assert_eq!(narrow(&mut guest, 8 * P, END - 9 * P), Ok(()));
    for (address, size) in [(8 * P, END - 8 * P), (8 * P, END - 8 * P - 1), (8 * P, END - 1)] {
        assert_eq!(
            narrow(&mut guest, address, size),
            Err(KernReturn::InvalidAddress),
            "{address:#x}+{size:#x}"
        );
    }
}

#[test]
fn a7_a_byte_widens_to_its_page() {
    let (pager, object, mut guest) = region();
    guest.store(8..12, 1);
    let result = guest.msync_bytes(9 * P + 1, 1, VmSync::SYNCHRONOUS);
    assert_eq!(result, KernReturn::Success);
    assert_eq!(pager.take_log(), ["a return 1..2 dirty kept", "a sync 1..2 now"]);
    assert!(object.dirty().is_empty());
    assert_eq!(guest.memory.marks().len(), 3);
}

#[test]
fn a8_two_bytes_over_a_boundary_are_two_pages() {
    let (pager, _, mut guest) = region();
    guest.store(8..12, 1);
    let result = guest.msync_bytes(9 * P - 1, 2, VmSync::SYNCHRONOUS);
    assert_eq!(result, KernReturn::Success);
    assert_eq!(pager.take_log(), ["a return 0..2 dirty kept", "a sync 0..2 now"]);
}

#[test]
fn a9_no_flags_and_contiguous_alone_touch_nothing() {
    let (pager, _, mut guest) = region();
    guest.store(8..12, 1);
    for flags in [VmSync::NONE, VmSync::CONTIGUOUS] {
        assert_eq!(guest.msync(8..12, flags), KernReturn::Success);
        assert_eq!(guest.read(8), 1);
        assert_eq!(guest.memory.marks().len(), 4);
    }
    assert_eq!(guest.deallocate(20..21), KernReturn::Success);
    assert_eq!(guest.msync(8..24, VmSync::NONE), KernReturn::Success);
    assert_eq!(guest.msync(8..24, VmSync::CONTIGUOUS), KernReturn::InvalidAddress);
    assert!(pager.take_log().is_empty());
}

#[test]
fn a10_unknown_bits_are_invalid_argument() {
    let (pager, _, mut guest) = region();
    guest.store(8..12, 1);
    for bit in 7..32 {
        for flags in [1 << bit, 1 << bit | VmSync::SYNCHRONOUS.0] {
            assert_eq!(guest.msync(8..12, VmSync(flags)), KernReturn::InvalidArgument);
            assert_eq!(guest.msync(8..8, VmSync(flags)), KernReturn::InvalidArgument);
        }
    }
    assert!(pager.take_log().is_empty());
}

#[test]
fn a11_reusable_pages_has_no_effect() {
    let (pager, _, mut guest) = region();
    guest.store(8..12, 1);
    guest.store(0..1, 2);
    assert_eq!(guest.msync(0..12, VmSync::REUSABLEPAGES), KernReturn::Success);
    assert!(pager.take_log().is_empty());
    assert_eq!((guest.read(0), guest.read(8)), (2, 1));
    assert_eq!(guest.memory.marks().len(), 4);
}
