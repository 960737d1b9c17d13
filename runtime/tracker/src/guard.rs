//! The last resort when *host* code touches guest memory that is protected: a page that the guest made read-only, or
//! a hole it left with `vm_deallocate`.
//!
//! A guest may hand any address of its memory to a host function (a WASI call, say), which reads or writes there
//! without asking the VM. A store of the guest itself to such a page is a trap; the same access from the host's code
//! would kill the process. The guard instead opens the one page for reading and writing and lets the access go on:
//! the guest harms nobody but itself. Pages opened in a hole read as zero and belong to no object; writes to a
//! read-only mapping stay in its private copy.
//!
//! A page that is opened takes mappings, of which the process has so many: behind [`OPENED_PAGES_MAX`] pages all that is
//! closed around one is opened at once, which takes none.
//!
//! ```text
//!   fault -> tracker's handler, if installed -> Wasmtime's (a fault in guest code becomes a trap) -> guard -> default
//! ```
//!
//! Invariants:
//! - the handler is async-signal-safe: atomics and one system call;
//! - only pages inside a [`HostAccessGuard`]'s accessible size are opened, never guard regions;
//! - what a slot names is freed only when it names it no more and no handler is inside;
//! - installed behind Wasmtime's handler it never sees a fault of guest code. In front of it (the host application
//!   made an engine first) it opens the page also for guest code: protection is then advisory, memory safety is not
//!   touched.

use core::{
    ffi::{c_int, c_void},
    mem::MaybeUninit,
    ops::Range,
    ptr,
    sync::atomic::{AtomicI32, AtomicPtr, AtomicUsize, Ordering},
};
use std::sync::Once;

use vmsync_core::PageRange;

use crate::{
    bitmap::AtomicBitmap,
    limits::{GUARDED_MEMORIES_MAX, OPENED_PAGES_MAX},
    sys::signal::SIGNAL,
};

struct Slot {
    start: AtomicUsize,
    end: AtomicUsize,
    /// Pages of the host that its owner has closed.
    closed: AtomicPtr<AtomicBitmap>,
    /// How many pages were opened one by one.
    opened: AtomicUsize,
    /// Handlers that are inside.
    readers: AtomicUsize,
}

static SLOTS: [Slot; GUARDED_MEMORIES_MAX] = [const {
    Slot {
        start: AtomicUsize::new(0),
        end: AtomicUsize::new(0),
        closed: AtomicPtr::new(ptr::null_mut()),
        opened: AtomicUsize::new(0),
        readers: AtomicUsize::new(0),
    }
}; GUARDED_MEMORIES_MAX];
/// How many pages of all memories were opened one by one.
static OPENED: AtomicUsize = AtomicUsize::new(0);
static HOST_PAGE_BYTES: AtomicUsize = AtomicUsize::new(0);
static PREVIOUS_ACTION: AtomicUsize = AtomicUsize::new(libc::SIG_DFL);
static PREVIOUS_FLAGS: AtomicI32 = AtomicI32::new(0);

/// Claims a slot while its memory's start is written.
const CLAIMED: usize = usize::MAX;

/// Installs the handler, once per process. To be called before the first Wasmtime engine is made.
pub fn guard_host_accesses() {
    static ONCE: Once = Once::new();
    ONCE.call_once(install);
}

fn install() {
    HOST_PAGE_BYTES.store(rustix::param::page_size(), Ordering::Relaxed);
    // SAFETY: an all-zero sigaction is a valid one; both pointers are valid.
    unsafe {
        let mut action: libc::sigaction = MaybeUninit::zeroed().assume_init();
        action.sa_sigaction = handler as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
        let mut old = MaybeUninit::<libc::sigaction>::zeroed();
        if libc::sigaction(SIGNAL, &action, old.as_mut_ptr()) == 0 {
            let old = old.assume_init();
            PREVIOUS_FLAGS.store(old.sa_flags, Ordering::Release);
            PREVIOUS_ACTION.store(old.sa_sigaction, Ordering::Release);
        }
    }
}

/// One guarded linear memory; dropped before the memory is unmapped.
#[derive(Debug)]
pub struct HostAccessGuard {
    slot: usize,
}

impl HostAccessGuard {
    /// Guards the memory at `base`, which has `bytes_reserved` bytes, and of which nothing is accessible yet. `None`: with
    /// `GUARDED_MEMORIES_MAX` others the memory would go unguarded, so its owner must not use it.
    pub fn new(base: *mut u8, bytes_reserved: usize) -> Option<Self> {
        let index = SLOTS.iter().position(|slot| {
            slot.start.load(Ordering::Relaxed) == 0
                && slot
                    .start
                    .compare_exchange(0, CLAIMED, Ordering::AcqRel, Ordering::Relaxed)
                    .is_ok()
        })?;
        let slot = &SLOTS[index];
        let pages = bytes_reserved.div_ceil(rustix::param::page_size()) as u64;
        let closed = Box::into_raw(Box::new(AtomicBitmap::new(pages)));
        slot.closed.store(closed, Ordering::SeqCst);
        slot.end.store(0, Ordering::SeqCst);
        slot.start.store(base.addr(), Ordering::SeqCst);
        Some(Self { slot: index })
    }

    /// The owner has closed `bytes`, which are whole pages: for stores, or for all accesses.
    pub fn close(&self, bytes: Range<usize>) {
        if let Some(closed) = self.closed() {
            closed.insert(pages(bytes));
        }
    }

    /// `bytes`, which are whole pages, are open again, or others.
    pub fn open(&self, bytes: Range<usize>) {
        if let Some(closed) = self.closed() {
            closed.remove(pages(bytes));
        }
    }

    fn closed(&self) -> Option<&AtomicBitmap> {
        // SAFETY: the slot names it until this guard is dropped.
        unsafe { SLOTS[self.slot].closed.load(Ordering::SeqCst).as_ref() }
    }

    /// The memory now has `bytes` accessible bytes.
    pub fn set_size(&self, bytes: usize) {
        let slot = &SLOTS[self.slot];
        let start = slot.start.load(Ordering::Acquire);
        slot.end.store(start + bytes, Ordering::Release);
    }
}

impl Drop for HostAccessGuard {
    fn drop(&mut self) {
        let slot = &SLOTS[self.slot];
        slot.end.store(0, Ordering::SeqCst);
        let closed = slot.closed.swap(ptr::null_mut(), Ordering::SeqCst);
        while slot.readers.load(Ordering::SeqCst) != 0 {
            core::hint::spin_loop();
        }
        // SAFETY: it came from `Box::into_raw`, the slot no longer names it, and no handler is inside.
        drop(unsafe { Box::from_raw(closed) });
        OPENED.fetch_sub(slot.opened.swap(0, Ordering::SeqCst), Ordering::SeqCst);
        slot.start.store(0, Ordering::SeqCst);
    }
}

/// The host's pages that hold `bytes`.
fn pages(bytes: Range<usize>) -> PageRange {
    let page_bytes = rustix::param::page_size();
    PageRange::new(
        (bytes.start / page_bytes) as u64,
        bytes.end.div_ceil(page_bytes) as u64,
    )
}

impl Slot {
    fn has(&self, address: usize) -> bool {
        (self.start.load(Ordering::SeqCst)..self.end.load(Ordering::SeqCst)).contains(&address)
    }

    /// Opens what an access to `address` needs; false where that is not ours.
    fn on_fault(&self, address: usize) -> bool {
        if !self.has(address) {
            return false;
        }
        self.readers.fetch_add(1, Ordering::SeqCst);
        // SAFETY: it is null, or alive until we have left.
        let closed = unsafe { self.closed.load(Ordering::SeqCst).as_ref() };
        let opened = closed.is_some_and(|closed| self.has(address) && self.open(closed, address));
        self.readers.fetch_sub(1, Ordering::SeqCst);
        opened
    }

    fn open(&self, closed: &AtomicBitmap, address: usize) -> bool {
        let start = self.start.load(Ordering::SeqCst);
        let page_bytes = HOST_PAGE_BYTES.load(Ordering::Relaxed);
        let page = ((address - start) / page_bytes) as u64;
        let protect = |pages: PageRange| {
            let at = start + pages.start as usize * page_bytes;
            let bytes = pages.len() as usize * page_bytes;
            // SAFETY: the pages lie in a linear memory of this process, which its owner keeps mapped while it is guarded.
            unsafe { libc::mprotect(at as *mut c_void, bytes, libc::PROT_READ | libc::PROT_WRITE) == 0 }
        };
        if OPENED.fetch_add(1, Ordering::SeqCst) < OPENED_PAGES_MAX {
            self.opened.fetch_add(1, Ordering::SeqCst);
            if protect(PageRange::new(page, page + 1)) {
                return true;
            }
        } else {
            OPENED.fetch_sub(1, Ordering::SeqCst);
        }
        let around = if closed.contains(page) {
            closed.run_around(page)
        } else {
            PageRange::new(page, page + 1)
        };
        protect(around)
    }
}

extern "C" fn handler(signal: c_int, information: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel hands a handler with SA_SIGINFO a valid `siginfo_t`; a fault fills in its address.
    let address = unsafe { (*information).si_addr().addr() };
    if SLOTS.iter().any(|slot| slot.on_fault(address)) {
        return;
    }
    chain(signal, information, context);
}

/// Hands the signal to whoever was there before; the default action ends the process at the faulting instruction.
fn chain(signal: c_int, information: *mut libc::siginfo_t, context: *mut c_void) {
    let action = PREVIOUS_ACTION.load(Ordering::Acquire);
    let flags = PREVIOUS_FLAGS.load(Ordering::Acquire);
    if action == libc::SIG_DFL || action == libc::SIG_IGN {
        // SAFETY: signal(2) with the default action; the instruction faults again and the process dies there.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    } else if flags & libc::SA_SIGINFO != 0 {
        // SAFETY: an action with SA_SIGINFO has this signature (sigaction(2)).
        let action: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) =
            unsafe { core::mem::transmute(action) };
        action(signal, information, context);
    } else {
        // SAFETY: an action without SA_SIGINFO has this signature (sigaction(2)).
        let action: extern "C" fn(c_int) = unsafe { core::mem::transmute(action) };
        action(signal);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_memory_that_would_go_unguarded_is_refused() {
        // Nobody's fault is looked for at this address: the memory has no accessible bytes.
        let guard = || HostAccessGuard::new(ptr::without_provenance_mut(1 << 12), 1 << 12);
        for slot in &SLOTS[1..] {
            slot.start.store(CLAIMED, Ordering::SeqCst);
        }
        let last = guard().expect("one slot is free");
        assert!(guard().is_none());
        drop(last);
        assert!(guard().is_some());
        for slot in &SLOTS[1..] {
            slot.start.store(0, Ordering::SeqCst);
        }
    }
}
