//! [`TwoFaults`]: the mechanism of `crumbles`, as a peer: 64 KiB blocks without any right, a first fault that opens a
//! block for reading and a second that marks it dirty and opens it for writing. What `crumbles` does beside it (it
//! copies the clean block for its snapshot) is left out, in its favour.
//!
//! Invariants: one at a time in a process; while it lives, its handler is in front of every other, and any fault outside
//! its mapping ends the process.

use std::{
    ffi::{c_int, c_void},
    mem::MaybeUninit,
    ptr,
    sync::atomic::{AtomicPtr, AtomicU8, AtomicUsize, Ordering},
};

use anyhow::{Result, ensure};
use rustix::mm::MprotectFlags;

use crate::mapping::{Mapping, PAGE};

pub const BLOCK: usize = 64 << 10;

static BASE: AtomicUsize = AtomicUsize::new(0);
static BLOCKS: AtomicUsize = AtomicUsize::new(0);
static STATES: AtomicPtr<AtomicU8> = AtomicPtr::new(ptr::null_mut());

/// Faults that a block has taken since it was armed.
const LOADED: u8 = 1;
const STORED: u8 = 2;

/// The mechanism, on one mapping.
pub struct TwoFaults<'a> {
    mapping: &'a Mapping,
    states: Vec<AtomicU8>,
    previous: libc::sigaction,
}

impl<'a> TwoFaults<'a> {
    /// Watches `mapping`.
    pub fn new(mapping: &'a Mapping) -> Result<Self> {
        let blocks = mapping.pages() * PAGE / BLOCK;
        let states: Vec<_> = (0..blocks).map(|_| AtomicU8::new(0)).collect();
        let taken = BASE.swap(mapping.base().expose_provenance(), Ordering::SeqCst);
        ensure!(taken == 0, "one peer at a time");
        STATES.store(states.as_ptr().cast_mut(), Ordering::SeqCst);
        BLOCKS.store(blocks, Ordering::SeqCst);
        // SAFETY: an all-zero action is valid; both pointers are.
        let previous = unsafe {
            let mut action: libc::sigaction = MaybeUninit::zeroed().assume_init();
            action.sa_sigaction = handler as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
            let mut previous = MaybeUninit::zeroed();
            ensure!(libc::sigaction(libc::SIGSEGV, &action, previous.as_mut_ptr()) == 0);
            previous.assume_init()
        };
        let this = Self {
            mapping,
            states,
            previous,
        };
        this.arm()?;
        Ok(this)
    }

    /// Every block is clean again.
    pub fn arm(&self) -> Result<()> {
        self.states
            .iter()
            .for_each(|state| state.store(0, Ordering::SeqCst));
        self.mapping.protect(MprotectFlags::empty())
    }

    /// How many blocks were stored to.
    pub fn dirty(&self) -> usize {
        let stored = |state: &&AtomicU8| state.load(Ordering::SeqCst) == STORED;
        self.states.iter().filter(stored).count()
    }
}

impl Drop for TwoFaults<'_> {
    fn drop(&mut self) {
        // SAFETY: what was installed before, as the kernel told it.
        unsafe { libc::sigaction(libc::SIGSEGV, &self.previous, ptr::null_mut()) };
        BASE.store(0, Ordering::SeqCst);
        let _ = self.mapping.protect(MprotectFlags::READ | MprotectFlags::WRITE);
    }
}

extern "C" fn handler(_: c_int, information: *mut libc::siginfo_t, _: *mut c_void) {
    // SAFETY: the kernel hands a handler with SA_SIGINFO a valid `siginfo_t`; a fault fills in its address.
    let address = unsafe { (*information).si_addr() }.addr();
    let block = address.wrapping_sub(BASE.load(Ordering::SeqCst)) / BLOCK;
    if block >= BLOCKS.load(Ordering::SeqCst) {
        // SAFETY: the default action: the fault happens again and ends the process.
        unsafe { libc::signal(libc::SIGSEGV, libc::SIG_DFL) };
        return;
    }
    // SAFETY: there are as many states as blocks, and they live as long as this handler is installed.
    let state = unsafe { &*STATES.load(Ordering::SeqCst).add(block) };
    let rights = match state.fetch_add(1, Ordering::SeqCst) + 1 {
        LOADED => libc::PROT_READ,
        _ => libc::PROT_READ | libc::PROT_WRITE,
    };
    let start = BASE.load(Ordering::SeqCst) + block * BLOCK;
    // SAFETY: a block of the mapping. Were it refused, the fault would happen again for ever: end the process instead.
    unsafe {
        if libc::mprotect(ptr::with_exposed_provenance_mut(start), BLOCK, rights) != 0 {
            libc::abort();
        }
    }
}
