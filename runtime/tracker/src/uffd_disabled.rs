//! The userfaultfd rungs on systems without userfaultfd: absent.

use vmsync_core::tracker::{Tracker, TrackerError, TrackerKind};

use crate::{error::failed, memory::Memory};

/// Says that `kind` is absent.
///
/// # Safety
/// None is needed; the signature is that of `uffd.rs`.
pub(crate) unsafe fn new(kind: TrackerKind, _: Memory) -> Result<Box<dyn Tracker>, TrackerError> {
    Err(failed(kind, "new", "only Linux has userfaultfd"))
}
