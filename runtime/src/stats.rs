//! What a guest's calls have done.

/// Counts since the [`Vm`](crate::Vm) was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Calls of `vm_msync` that did something or tried to.
    pub msyncs: u64,
    /// Of these, those that did not succeed.
    pub msyncs_failed: u64,
    /// Pages handed to pagers.
    pub pages_returned: u64,
    /// Pages dropped from memory.
    pub pages_flushed: u64,
}

impl std::ops::AddAssign for Stats {
    fn add_assign(&mut self, other: Self) {
        self.msyncs += other.msyncs;
        self.msyncs_failed += other.msyncs_failed;
        self.pages_returned += other.pages_returned;
        self.pages_flushed += other.pages_flushed;
    }
}
