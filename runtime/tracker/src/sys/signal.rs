//! The handler of protection faults, in front of every other one. See sigaction(2).
//!
//! ```text
//!   fault -> handler::<2> -> (foreign, e.g. Wasmtime's) -> handler::<1> -> (foreign) -> handler::<0> -> default
//! ```
//!
//! A foreign handler that is installed after ours sees faults first and may turn them into something else (Wasmtime
//! makes a trap of a fault in guest code). So [`ensure_installed`] puts a *new* handler of ours in front whenever a
//! foreign one is there. Each of our handlers remembers its own predecessor: the chain never turns in a circle, even
//! though a foreign handler chains to an older one of ours.
//!
//! Invariants:
//! - the handler is async-signal-safe: atomics and system calls, no allocation, no lock that sleeps;
//! - a fault that is not ours reaches the predecessor with the arguments of the kernel;
//! - a handler stays installed for the life of the process: another one may have it as its predecessor.

use core::{
    ffi::{c_int, c_void},
    mem::MaybeUninit,
    ptr,
    sync::atomic::{AtomicI32, AtomicUsize, Ordering},
};
use std::{io, sync::Mutex};

use crate::{limits::GENERATIONS_MAX, watch};

/// The signal of an access to a protected page: Apple's systems keep SIGSEGV for pages that are not mapped.
pub(crate) const SIGNAL: c_int = if cfg!(target_vendor = "apple") {
    libc::SIGBUS
} else {
    libc::SIGSEGV
};

/// `SEGV_ACCERR` of Linux: mapped, but protected. Elsewhere the code is not looked at.
const CODE_PROTECTED: c_int = 2;

type Action = extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void);

/// The predecessor of a handler.
struct Previous {
    action: AtomicUsize,
    flags: AtomicI32,
}

static PREVIOUS: [Previous; GENERATIONS_MAX] = [const {
    Previous {
        action: AtomicUsize::new(libc::SIG_DFL),
        flags: AtomicI32::new(0),
    }
}; GENERATIONS_MAX];

/// How many handlers of ours are in the chain. Held while the chain is changed.
static INSTALLED: Mutex<usize> = Mutex::new(0);

static HANDLERS: [Action; GENERATIONS_MAX] = [
    handler::<0>,
    handler::<1>,
    handler::<2>,
    handler::<3>,
    handler::<4>,
    handler::<5>,
    handler::<6>,
    handler::<7>,
    handler::<8>,
    handler::<9>,
    handler::<10>,
    handler::<11>,
    handler::<12>,
    handler::<13>,
    handler::<14>,
    handler::<15>,
];

/// Puts our handler in front, unless it is there already.
///
/// # Errors
/// Where the system call fails, or [`GENERATIONS_MAX`] foreign handlers have been put in front of ours.
pub(crate) fn ensure_installed() -> io::Result<()> {
    let mut installed = INSTALLED.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let front = exchange(None)?;
    if HANDLERS[..*installed]
        .iter()
        .any(|ours| address_of(*ours) == front.sa_sigaction)
    {
        return Ok(());
    }
    let Some(next) = HANDLERS.get(*installed) else {
        return Err(io::Error::other(format!(
            "other signal handlers went in front of ours {GENERATIONS_MAX} times"
        )));
    };
    let previous = &PREVIOUS[*installed];
    remember(previous, &front);
    // SAFETY: an all-zero sigaction is a valid one.
    let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    action.sa_sigaction = address_of(*next);
    // NODEFER as foreign handlers may leave theirs by a jump; ONSTACK as the stack itself may be what overflowed.
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
    let replaced = exchange(Some(&action))?;
    // Another thread may have installed its own between the two calls.
    remember(previous, &replaced);
    *installed += 1;
    Ok(())
}

fn remember(previous: &Previous, action: &libc::sigaction) {
    previous.flags.store(action.sa_flags, Ordering::Release);
    previous.action.store(action.sa_sigaction, Ordering::Release);
}

fn address_of(action: Action) -> usize {
    action as *const () as usize
}

/// Reads the action of [`SIGNAL`], and replaces it where `action` is given.
fn exchange(action: Option<&libc::sigaction>) -> io::Result<libc::sigaction> {
    let mut old = MaybeUninit::uninit();
    let new = action.map_or(ptr::null(), ptr::from_ref);
    // SAFETY: both pointers are null or valid; what is installed is one of our handlers or the default.
    if unsafe { libc::sigaction(SIGNAL, new, old.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded and filled it in.
    Ok(unsafe { old.assume_init() })
}

extern "C" fn handler<const GENERATION: usize>(
    signal: c_int,
    information: *mut libc::siginfo_t,
    context: *mut c_void,
) {
    // SAFETY: the kernel hands a handler with SA_SIGINFO a valid `siginfo_t`; a fault fills in its address.
    let (code, address) = unsafe { ((*information).si_code, (*information).si_addr().addr()) };
    let is_protection = if cfg!(target_os = "linux") {
        code == CODE_PROTECTED
    } else {
        code > 0
    };
    if is_protection && watch::on_fault(address) {
        return;
    }
    chain(&PREVIOUS[GENERATION], signal, information, context);
}

/// Hands the signal to `previous`.
fn chain(previous: &Previous, signal: c_int, information: *mut libc::siginfo_t, context: *mut c_void) {
    let action = previous.action.load(Ordering::Acquire);
    let flags = previous.flags.load(Ordering::Acquire);
    if action == libc::SIG_DFL || action == libc::SIG_IGN {
        return die(signal, information);
    }
    if flags & libc::SA_SIGINFO != 0 {
        // SAFETY: it was installed with SA_SIGINFO, so it is a function of three arguments.
        let action: Action = unsafe { core::mem::transmute(action) };
        action(signal, information, context);
    } else {
        // SAFETY: it was installed without SA_SIGINFO, so it is a function of one argument.
        let action: extern "C" fn(c_int) = unsafe { core::mem::transmute(action) };
        action(signal);
    }
}

/// Restores the default action. A fault happens again on return and ends the process; a sent signal is sent again.
fn die(signal: c_int, information: *mut libc::siginfo_t) {
    // SAFETY: an all-zero sigaction is the default action with no flags.
    let default: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    // SAFETY: `default` is valid, `information` comes from the kernel, and both calls are async-signal-safe.
    unsafe {
        libc::sigaction(signal, &default, ptr::null_mut());
        if (*information).si_code <= 0 {
            libc::raise(signal);
        }
    }
}
