//! The last resort when *host* code touches guest memory that is protected: a page that the guest made read-only, or
//! a hole it left with `vm_deallocate`.
//!
//! A guest may hand any address of its memory to a host function (a WASI call, say), which reads or writes there
//! without asking the VM. A store of the guest itself to such a page is a trap; the same access from the host's code
//! would kill the process. The guard instead opens the one page for reading and writing and lets the access go on:
//! the guest harms nobody but itself. Pages opened in a hole read as zero and belong to no object; writes to a
//! read-only mapping stay in its private copy.
//!
//! ```text
//!   fault -> tracker's handler, if installed -> Wasmtime's (a fault in guest code becomes a trap) -> guard -> default
//! ```
//!
//! Invariants:
//! - the handler is async-signal-safe: atomics and one system call;
//! - only pages inside a [`HostAccessGuard`]'s accessible size are opened, never guard regions;
//! - installed behind Wasmtime's handler it never sees a fault of guest code. In front of it (the host application
//!   made an engine first) it opens the page also for guest code: protection is then advisory, memory safety is not
//!   touched.

use core::{
    ffi::{c_int, c_void},
    mem::MaybeUninit,
    sync::atomic::{AtomicI32, AtomicUsize, Ordering},
};
use std::sync::Once;

use crate::{limits::GUARDED_MEMORIES_MAX, sys::signal::SIGNAL};

struct Slot {
    start: AtomicUsize,
    end: AtomicUsize,
}

static SLOTS: [Slot; GUARDED_MEMORIES_MAX] = [const {
    Slot {
        start: AtomicUsize::new(0),
        end: AtomicUsize::new(0),
    }
}; GUARDED_MEMORIES_MAX];
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
    slot: Option<usize>,
}

impl HostAccessGuard {
    /// Guards the memory at `base`, of which nothing is accessible yet. With all slots taken the memory goes
    /// unguarded.
    pub fn new(base: *mut u8) -> Self {
        let slot = SLOTS.iter().position(|slot| {
            slot.start
                .compare_exchange(0, CLAIMED, Ordering::AcqRel, Ordering::Relaxed)
                .is_ok()
        });
        if let Some(index) = slot {
            SLOTS[index].end.store(0, Ordering::Release);
            SLOTS[index].start.store(base.addr(), Ordering::Release);
        }
        Self { slot }
    }

    /// The memory now has `bytes` accessible bytes.
    pub fn set_size(&self, bytes: usize) {
        if let Some(index) = self.slot {
            let start = SLOTS[index].start.load(Ordering::Acquire);
            SLOTS[index].end.store(start + bytes, Ordering::Release);
        }
    }
}

impl Drop for HostAccessGuard {
    fn drop(&mut self) {
        if let Some(index) = self.slot {
            SLOTS[index].end.store(0, Ordering::Release);
            SLOTS[index].start.store(0, Ordering::Release);
        }
    }
}

fn is_guarded(address: usize) -> bool {
    SLOTS.iter().any(|slot| {
        address >= slot.start.load(Ordering::Acquire) && address < slot.end.load(Ordering::Acquire)
    })
}

extern "C" fn handler(signal: c_int, information: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel hands a handler with SA_SIGINFO a valid `siginfo_t`; a fault fills in its address.
    let address = unsafe { (*information).si_addr().addr() };
    if is_guarded(address) {
        let page_bytes = HOST_PAGE_BYTES.load(Ordering::Relaxed);
        let page = address & !(page_bytes - 1);
        // SAFETY: the page lies in a linear memory of this process, which its owner keeps mapped while it is guarded.
        let opened = unsafe {
            libc::mprotect(
                page as *mut c_void,
                page_bytes,
                libc::PROT_READ | libc::PROT_WRITE,
            )
        };
        if opened == 0 {
            return;
        }
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
