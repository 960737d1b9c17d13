//! Every bound of these pagers and its reason.

/// Bytes of an object that has a copy: opening one reads all its groups.
pub(crate) const COPIED_BYTES_MAX: u64 = 1 << 40;

/// Bytes held for the copy; of more pages it forgets what it has, and reads them again when they are asked for.
pub(crate) const HELD_BYTES_MAX: usize = 64 << 20;
