//! Dirty trackers: who was stored to since the last look. Every rung of the ladder behind one trait,
//! [`vmsync_core::tracker::Tracker`].
//!
//! ```text
//!   probe() ----> which rungs work here, and why others do not
//!   new_tracker(kind, memory, page size) ----> Box<dyn Tracker>
//!
//!   uffd_async   Linux >= 6.7   the kernel records first stores; one scan reads and re-arms   sys/{uffd,pagemap}
//!   uffd_sync    Linux >= 5.7   a thread answers first stores                                 sys/uffd
//!   mprotect     Unix           a signal handler answers first stores (watch, bitmap)         sys/signal
//!   barrier      everywhere     instrumented stores mark cards; see [`Barrier::new`]
//!   compare      everywhere     a shadow; the oracle
//!
//!   adaptive     around those that take faults: where all is stored to anyway, it stops watching for a while
//! ```
//!
//! | what writes | uffd-async | uffd-sync | mprotect | barrier | compare |
//! |---|---|---|---|---|---|
//! | a store | yes | yes | yes | if instrumented | if it changes a byte |
//! | `read(2)`, `process_vm_writev(2)` | yes | yes, or EFAULT without the right | EFAULT | host marks | yes |
//! | another mapping of the same file | no | no | no | no | once it shows |
//!
//! This crate is the unsafe wall: it is where addresses, page tables and signals are. Invariants of all rungs are those
//! of the trait; each file says what it adds. It does not do: soft-dirty bits (process-wide), huge pages in watched
//! ranges, memory that several processes share, devices that write to a page while it is collected (asynchronous direct
//! I/O: wait for it first).
#![cfg_attr(
    not(target_os = "linux"),
    allow(dead_code, reason = "some of it serves the userfaultfd rungs alone")
)]

mod adaptive;
mod attached;
mod barrier;
mod compare;
mod error;
#[cfg(unix)]
mod guard;
#[cfg(not(unix))]
#[path = "guard_disabled.rs"]
mod guard;
mod limits;
mod memory;
mod probe;
mod sys;

// Elsewhere only the barrier needs it, and not all of it.
#[cfg_attr(not(unix), allow(dead_code))]
mod bitmap;
#[cfg(unix)]
mod mprotect;
#[cfg(not(unix))]
#[path = "mprotect_disabled.rs"]
mod mprotect;
#[cfg(unix)]
mod trial;
#[cfg(not(unix))]
#[path = "trial_disabled.rs"]
mod trial;
#[cfg(target_os = "linux")]
mod uffd;
#[cfg(not(target_os = "linux"))]
#[path = "uffd_disabled.rs"]
mod uffd;
#[cfg(target_os = "linux")]
mod uffd_async;
#[cfg(target_os = "linux")]
mod uffd_sync;
#[cfg(target_os = "linux")]
mod walk;
#[cfg(unix)]
mod watch;

pub use barrier::{Barrier, CardTable};
pub use guard::{HostAccessGuard, guard_host_accesses};
pub use limits::SUSPECT_BYTES;
pub use memory::LinearRange;
pub use mprotect::ensure_installed;
pub use probe::{Rung, best, probe};
use vmsync_core::{
    PageSize,
    tracker::{Tracker, TrackerError, TrackerKind},
};

use crate::{adaptive::Adaptive, compare::Compare, error::failed, memory::Memory};

/// A tracker of rung `kind` for `memory`, in pages of `page_size`. Nothing is watched until it is attached.
///
/// # Errors
/// Where the rung does not work here ([`probe`] tells beforehand), or the page size is no multiple of the host's page
/// for a rung that uses the MMU. [`TrackerKind::Barrier`] always fails: it needs a card table, see [`Barrier::new`].
///
/// # Safety
/// Until the tracker is dropped:
/// - the reservation belongs to this memory: nothing else is mapped there;
/// - a range is mapped, private and readable while it is attached, and writable where it may be stored to;
/// - nobody else registers attached ranges with a userfaultfd or changes their protection.
pub unsafe fn new_tracker(
    kind: TrackerKind,
    memory: LinearRange,
    page_size: PageSize,
) -> Result<Box<dyn Tracker>, TrackerError> {
    let memory = Memory::new(memory, page_size);
    // SAFETY: by the contract of this function.
    unsafe {
        match kind {
            TrackerKind::UffdAsync | TrackerKind::UffdSync => {
                Ok(Box::new(Adaptive::new(uffd::new(kind, memory)?, memory)))
            }
            TrackerKind::Mprotect => Ok(Box::new(Adaptive::new(mprotect::new(memory)?, memory))),
            TrackerKind::Compare => Ok(Box::new(Compare::new(memory)?)),
            TrackerKind::Barrier => Err(failed(kind, "new", "it needs a card table: use Barrier::new")),
        }
    }
}
