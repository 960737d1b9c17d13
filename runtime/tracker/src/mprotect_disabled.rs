//! The `mprotect` rung on systems that are not Unix: absent.

use vmsync_core::tracker::{Tracker, TrackerError, TrackerKind};

use crate::{error::failed, memory::Memory};

const KIND: TrackerKind = TrackerKind::Mprotect;

/// Says that the rung is absent.
///
/// # Errors
/// Always.
pub fn ensure_installed() -> Result<(), TrackerError> {
    Err(failed(
        KIND,
        "installing the fault handler",
        "only Unix has mprotect and SIGSEGV",
    ))
}

/// Says that the rung is absent.
///
/// # Safety
/// None is needed; the signature is that of `mprotect.rs`.
pub(crate) unsafe fn new(_: Memory) -> Result<Box<dyn Tracker>, TrackerError> {
    Err(failed(KIND, "new", "only Unix has mprotect and SIGSEGV"))
}
