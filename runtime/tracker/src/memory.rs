//! [`LinearRange`] and [`Memory`]: where a linear memory lies in the host's address space.
//!
//! The only place where offsets of a linear memory become addresses of the host and back.
//!
//! Invariants:
//! - the base is aligned to the host's page, and no range that leaves this module lies outside the reservation;
//! - the VM's page is a multiple of the host's page where an MMU tracker uses it.

use core::ops::Range;

use vmsync_core::{ByteRange, PageRange, PageSize};

/// A linear memory: where it begins and how much address space is reserved for it.
#[derive(Clone, Copy, Debug)]
pub struct LinearRange {
    /// Its first byte, aligned to the host's page.
    pub base: *mut u8,
    /// The address space behind `base` that belongs to it, in bytes: a range beyond it is never attached.
    pub bytes_reserved: u64,
}

/// A [`LinearRange`] with the size of its pages.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    base: *mut u8,
    bytes: u64,
    pub page: PageSize,
}

// SAFETY: the pointer is an address and a provenance; what may be done through it is settled where it is used.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    /// The memory in `range`, in pages of `page`.
    ///
    /// # Panics
    /// When the reservation wraps around the address space: a programmer's error.
    pub fn new(range: LinearRange, page: PageSize) -> Self {
        let bytes = usize::try_from(range.bytes_reserved).expect("the reservation fits the address space");
        assert!(
            range.base.addr().checked_add(bytes).is_some(),
            "the reservation wraps"
        );
        Self {
            base: range.base,
            bytes: range.bytes_reserved,
            page,
        }
    }

    /// How many pages the reservation holds.
    pub fn pages_reserved(&self) -> u64 {
        self.page.page_of(self.bytes)
    }

    /// The pages of `range`, which is page-aligned and inside the reservation.
    ///
    /// # Panics
    /// When it is not: a programmer's error.
    pub fn pages(&self, range: ByteRange) -> PageRange {
        assert!(
            self.page.is_aligned(range.start) && self.page.is_aligned(range.end),
            "{range} is not page-aligned"
        );
        assert!(
            range.start <= range.end && range.end <= self.bytes,
            "{range} leaves the linear memory"
        );
        PageRange::new(self.page.page_of(range.start), self.page.page_of(range.end))
    }

    /// The host's addresses of `pages`.
    pub fn addresses(&self, pages: PageRange) -> Range<usize> {
        let bytes = self.page.byte_range(pages);
        assert!(bytes.end <= self.bytes);
        self.base.addr() + bytes.start as usize..self.base.addr() + bytes.end as usize
    }

    /// The first byte of `pages`.
    pub fn pointer(&self, pages: PageRange) -> *mut u8 {
        self.base.with_addr(self.addresses(pages).start)
    }

    /// How many bytes `pages` hold.
    pub fn length(&self, pages: PageRange) -> usize {
        self.addresses(pages).len()
    }

    /// The pages that hold the bytes at `addresses`, which lie inside the reservation.
    pub fn pages_at(&self, addresses: Range<usize>) -> PageRange {
        let base = self.base.addr();
        assert!(base <= addresses.start && addresses.start <= addresses.end);
        let bytes = ByteRange::new((addresses.start - base) as u64, (addresses.end - base) as u64);
        let pages = self.page.widen(bytes).expect("an address range does not wrap");
        assert!(pages.end <= self.pages_reserved());
        pages
    }

    /// Why an MMU tracker cannot watch this memory, if so: `host_page_bytes` is the size of the host's page.
    pub fn check_host_page(&self, host_page_bytes: usize) -> Result<(), String> {
        if !self.base.addr().is_multiple_of(host_page_bytes) {
            return Err(format!(
                "the memory's base is not aligned to the host's page of {host_page_bytes} bytes"
            ));
        }
        if !self.page.bytes().is_multiple_of(host_page_bytes as u64) {
            return Err(format!(
                "the page size of {} bytes is not a multiple of the host's page of {host_page_bytes} bytes",
                self.page.bytes()
            ));
        }
        Ok(())
    }
}

/// Calls `body` with fresh memory of `pages` pages of the host.
#[cfg(all(test, target_os = "linux"))]
pub(crate) fn with_memory(pages: u64, body: impl FnOnce(Memory)) {
    use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

    let page = PageSize::new(rustix::param::page_size() as u64).expect("a page");
    let bytes_reserved = pages * page.bytes();
    let access = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a new mapping at an address that the kernel chooses.
    let base = unsafe {
        mmap_anonymous(
            core::ptr::null_mut(),
            bytes_reserved as usize,
            access,
            MapFlags::PRIVATE,
        )
    };
    let base = base.expect("address space");
    let range = LinearRange {
        base: base.cast(),
        bytes_reserved,
    };
    body(Memory::new(range, page));
    // SAFETY: the mapping is this function's own.
    unsafe { munmap(base, bytes_reserved as usize) }.expect("it is there");
}
