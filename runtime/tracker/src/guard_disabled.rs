//! Where there are no POSIX signals, accesses of host code to protected guest memory are not guarded.

/// Does nothing here.
pub fn guard_host_accesses() {}

/// Guards nothing here.
#[derive(Debug)]
pub struct HostAccessGuard;

impl HostAccessGuard {
    /// Guards nothing.
    pub fn new(_base: *mut u8, _bytes_reserved: usize) -> Option<Self> {
        Some(Self)
    }

    /// Does nothing.
    pub fn close(&self, _bytes: core::ops::Range<usize>) {}

    /// Does nothing.
    pub fn open(&self, _bytes: core::ops::Range<usize>) {}

    /// Does nothing.
    pub fn set_size(&self, _bytes: usize) {}
}
