//! The userfaultfd rungs, where the system has userfaultfd. See `uffd_disabled.rs` for where it does not.

use vmsync_core::tracker::{Tracker, TrackerError, TrackerKind};

use crate::{memory::Memory, uffd_async::UffdAsync, uffd_sync::UffdSync};

/// The rung `kind`, one of the two.
///
/// # Safety
/// See [`crate::new_tracker`].
pub(crate) unsafe fn new(kind: TrackerKind, memory: Memory) -> Result<Box<dyn Tracker>, TrackerError> {
    // SAFETY: by the contract of this function.
    unsafe {
        match kind {
            TrackerKind::UffdAsync => Ok(Box::new(UffdAsync::new(memory)?)),
            TrackerKind::UffdSync => Ok(Box::new(UffdSync::new(memory)?)),
            _ => unreachable!("{kind} is no userfaultfd rung"),
        }
    }
}
