//! `PAGEMAP_SCAN` on `/proc/self/pagemap` (Linux ≥ 6.7): the state of pages, and re-arming them in the same pass. See
//! the kernel's `Documentation/admin-guide/mm/pagemap.rst`.
//!
//! Invariants: a [`Pagemap`] shows the address space of the process that opened it, and it is not used after a fork.

use core::ops::Range;
use std::os::fd::OwnedFd;

use linux_raw_sys::general as raw;
use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
    ioctl::{Ioctl, IoctlOutput, Opcode, ioctl, opcode},
};

/// A run of pages that a scan found.
pub(crate) type Region = raw::page_region;

/// Not write-protected.
pub(crate) const WRITTEN: u64 = raw::PAGE_IS_WRITTEN as u64;
/// A page of the page cache.
pub(crate) const FILE: u64 = raw::PAGE_IS_FILE as u64;
/// In memory.
pub(crate) const PRESENT: u64 = raw::PAGE_IS_PRESENT as u64;
/// Swapped out, migrating, or a marker.
pub(crate) const SWAPPED: u64 = raw::PAGE_IS_SWAPPED as u64;
/// The shared page of zeros.
pub(crate) const ZERO: u64 = raw::PAGE_IS_PFNZERO as u64;

/// Which pages a scan looks for and what it does with them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Query {
    /// Categories that a page must have, after those in `inverted` were flipped.
    pub all_of: u64,
    /// Categories of which a page must have one; 0 asks for none.
    pub any_of: u64,
    /// Categories that count as present where they are absent.
    pub inverted: u64,
    /// Categories that the answer tells of.
    pub returned: u64,
    /// Whether the pages that were found are armed.
    pub arm: Arm,
    /// After how many pages to stop; 0 for never.
    pub pages_max: u64,
}

/// What a scan does with a page that it found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arm {
    /// Nothing.
    No,
    /// Write-protects it, in the same critical section in which it was looked at.
    Yes,
}

/// What a scan came back with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answer {
    /// How many regions were filled in.
    pub regions: usize,
    /// How far it got: everything before this address was looked at.
    pub walk_end: usize,
}

/// This process's page map.
#[derive(Debug)]
pub(crate) struct Pagemap {
    descriptor: OwnedFd,
}

impl Pagemap {
    /// Opens it.
    pub fn open() -> Result<Self, Errno> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        rustix::fs::open("/proc/self/pagemap", flags, Mode::empty()).map(|descriptor| Self { descriptor })
    }

    /// Looks at `addresses` and fills `regions`; stops early where they are full. Unmapped parts are skipped.
    ///
    /// # Errors
    /// EPERM where a mapping in the range is not registered for asynchronous write protection; ENOTTY or EINVAL where
    /// the kernel has no `PAGEMAP_SCAN`.
    pub fn scan(
        &self,
        addresses: Range<usize>,
        query: &Query,
        regions: &mut [Region],
    ) -> Result<Answer, Errno> {
        assert!(addresses.start < addresses.end && !regions.is_empty());
        let arm = match query.arm {
            Arm::No => 0,
            Arm::Yes => u64::from(raw::PM_SCAN_WP_MATCHING),
        };
        let mut argument = raw::pm_scan_arg {
            size: size_of::<raw::pm_scan_arg>() as u64,
            flags: arm | u64::from(raw::PM_SCAN_CHECK_WPASYNC),
            start: addresses.start as u64,
            end: addresses.end as u64,
            walk_end: 0,
            vec: regions.as_mut_ptr().addr() as u64,
            vec_len: regions.len() as u64,
            max_pages: query.pages_max,
            category_inverted: query.inverted,
            category_mask: query.all_of,
            category_anyof_mask: query.any_of,
            return_mask: query.returned,
        };
        // The kernel writes through an address in the argument, which the compiler must see as handed out.
        regions.as_mut_ptr().expose_provenance();
        // SAFETY: `argument` names a buffer of `regions.len()` regions, borrowed mutably for the call.
        let found = unsafe { ioctl(&self.descriptor, Scan(&mut argument)) }?;
        let walk_end = argument.walk_end as usize;
        assert!(found <= regions.len());
        assert!(
            addresses.start < walk_end && walk_end <= addresses.end,
            "a scan makes progress"
        );
        Ok(Answer {
            regions: found,
            walk_end,
        })
    }
}

struct Scan<'a>(&'a mut raw::pm_scan_arg);

// SAFETY: PAGEMAP_SCAN takes a `pm_scan_arg`, writes its `walk_end` and the regions it names, and returns their number.
unsafe impl Ioctl for Scan<'_> {
    type Output = usize;

    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        PAGEMAP_SCAN
    }

    fn as_ptr(&mut self) -> *mut core::ffi::c_void {
        core::ptr::from_mut(self.0).cast()
    }

    unsafe fn output_from_ptr(output: IoctlOutput, _: *mut core::ffi::c_void) -> rustix::io::Result<usize> {
        usize::try_from(output).map_err(|_| Errno::PROTO)
    }
}

/// `_IOWR('f', 16, struct pm_scan_arg)`.
const PAGEMAP_SCAN: Opcode = opcode::read_write::<raw::pm_scan_arg>(b'f', 16);

const _: () = {
    assert!(size_of::<raw::pm_scan_arg>() == 96);
    assert!(size_of::<Region>() == 24);
};
