//! A process that has no mappings left: calls fail, and what guests store afterwards is still committed.
//!
//! A program of its own: other tests could not go on meanwhile.

mod harness;

use std::cell::Cell;

use harness::{BASE, P, each};
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};
use vmsync::KernReturn;
use vmsync_core::abi::{VmProt, VmSync};

fn mappings_max() -> usize {
    let limit = std::fs::read_to_string("/proc/sys/vm/max_map_count").expect("Linux tells");
    limit.trim().parse().expect("a number")
}

/// Every other page of it has another protection, until there are no more mappings.
struct Filler {
    base: *mut std::ffi::c_void,
    bytes: usize,
}

impl Filler {
    fn new() -> Self {
        let pages = 2 + mappings_max();
        let page = rustix::param::page_size();
        let bytes = pages * page;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: a new mapping at an address that the kernel chooses.
        let base = unsafe { mmap_anonymous(std::ptr::null_mut(), bytes, ProtFlags::empty(), flags) };
        let base = base.expect("address space");
        let mut odd = (1..pages).step_by(2);
        // SAFETY: a page of the mapping, which nobody uses.
        let change = |index| unsafe { mprotect(base.byte_add(index * page), page, MprotectFlags::READ) };
        assert!(
            odd.any(|index| change(index).is_err()),
            "a mapping more than the limit"
        );
        Self { base, bytes }
    }
}

impl Drop for Filler {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own.
        let _ = unsafe { munmap(self.base, self.bytes) };
    }
}

#[test]
fn what_is_stored_after_a_protection_that_failed_is_committed() {
    let mappings = mappings_max();
    if mappings > 200_000 {
        eprintln!("SKIPPED: vm.max_map_count is {mappings}, too many to use up in a test");
        return;
    }
    let failures = Cell::new(0);
    each(|rig| {
        let mut guest = rig.region(8);
        guest.touch(0..8, 1);
        assert_eq!(
            guest.msync(BASE, 8 * P, VmSync::SYNCHRONOUS.0),
            KernReturn::Success
        );
        let filler = Filler::new();
        let read = VmProt::READ.0.into();
        let refused = guest.protect(BASE + 3 * P, P, false, read);
        drop(filler);
        // A tracker that has protected the pages itself may need no mapping more.
        assert!(matches!(
            refused,
            KernReturn::ResourceShortage | KernReturn::Success
        ));
        failures.set(failures.get() + u32::from(refused != KernReturn::Success));
        let both = VmProt::READ_WRITE.0.into();
        assert_eq!(guest.protect(BASE + 3 * P, P, false, both), KernReturn::Success);
        guest.touch([3], 2);
        assert_eq!(
            guest.msync(BASE, 8 * P, VmSync::SYNCHRONOUS.0),
            KernReturn::Success
        );
        assert_eq!(rig.committed("a", 3), 2);
        // A page can be protected now, and given back.
        assert_eq!(guest.protect(BASE + 3 * P, P, false, read), KernReturn::Success);
        assert_eq!(guest.protect(BASE + 3 * P, P, false, both), KernReturn::Success);
        guest.touch([3], 3);
        assert_eq!(
            guest.msync(BASE, 8 * P, VmSync::SYNCHRONOUS.0),
            KernReturn::Success
        );
        assert_eq!(rig.committed("a", 3), 3);
    });
    assert!(failures.get() > 0);
}
