//! `kern_return_t`: what every call of the interface answers.

/// The result of a call, with Mach's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(i32)]
pub enum KernReturn {
    /// The call did what it says.
    Success = 0,
    /// The address, or some part of the range, is not allocated.
    InvalidAddress = 1,
    /// The protection does not allow it.
    ProtectionFailure = 2,
    /// No room for it in the address space.
    NoSpace = 3,
    /// An argument is out of its range or the flags contradict each other.
    InvalidArgument = 4,
    /// The pager could not make the pages durable; they stay dirty, and a retry returns them again.
    Failure = 5,
    /// Storage, a quota or a limit is full; what was dirty stays dirty.
    ResourceShortage = 6,
    /// The host does not grant this right.
    NoAccess = 8,
    /// The memory object is gone for good.
    MemoryFailure = 9,
    /// The pager could not supply the page; trying again may help.
    MemoryError = 10,
    /// The pager did not answer within its time-out.
    Aborted = 14,
    /// The port names no task that the caller may act on.
    InvalidTask = 16,
    /// The port names no right of the caller.
    InvalidRight = 17,
    /// A value is malformed.
    InvalidValue = 18,
    /// The page is resident already.
    MemoryPresent = 23,
    /// The port names no memory object.
    InvalidObject = 29,
    /// The task or object has been terminated.
    Terminated = 37,
    /// This host does not offer it.
    NotSupported = 46,
}

impl KernReturn {
    /// Every value, for tables and tests.
    pub const ALL: [KernReturn; 18] = [
        Self::Success,
        Self::InvalidAddress,
        Self::ProtectionFailure,
        Self::NoSpace,
        Self::InvalidArgument,
        Self::Failure,
        Self::ResourceShortage,
        Self::NoAccess,
        Self::MemoryFailure,
        Self::MemoryError,
        Self::Aborted,
        Self::InvalidTask,
        Self::InvalidRight,
        Self::InvalidValue,
        Self::MemoryPresent,
        Self::InvalidObject,
        Self::Terminated,
        Self::NotSupported,
    ];

    /// The value on the wire.
    pub const fn code(self) -> i32 {
        self as i32
    }

    /// The result that `code` stands for; `None` for a number this version does not know.
    pub fn from_code(code: i32) -> Option<Self> {
        Self::ALL.into_iter().find(|value| value.code() == code)
    }

    /// `Ok` for [`KernReturn::Success`], else the result as the error.
    pub fn ok(self) -> Result<(), Self> {
        match self {
            Self::Success => Ok(()),
            error => Err(error),
        }
    }

    /// Mach's name of the value.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Success => "KERN_SUCCESS",
            Self::InvalidAddress => "KERN_INVALID_ADDRESS",
            Self::ProtectionFailure => "KERN_PROTECTION_FAILURE",
            Self::NoSpace => "KERN_NO_SPACE",
            Self::InvalidArgument => "KERN_INVALID_ARGUMENT",
            Self::Failure => "KERN_FAILURE",
            Self::ResourceShortage => "KERN_RESOURCE_SHORTAGE",
            Self::NoAccess => "KERN_NO_ACCESS",
            Self::MemoryFailure => "KERN_MEMORY_FAILURE",
            Self::MemoryError => "KERN_MEMORY_ERROR",
            Self::Aborted => "KERN_ABORTED",
            Self::InvalidTask => "KERN_INVALID_TASK",
            Self::InvalidRight => "KERN_INVALID_RIGHT",
            Self::InvalidValue => "KERN_INVALID_VALUE",
            Self::MemoryPresent => "KERN_MEMORY_PRESENT",
            Self::InvalidObject => "KERN_INVALID_OBJECT",
            Self::Terminated => "KERN_TERMINATED",
            Self::NotSupported => "KERN_NOT_SUPPORTED",
        }
    }
}

impl From<Result<(), KernReturn>> for KernReturn {
    fn from(result: Result<(), KernReturn>) -> Self {
        result.err().unwrap_or(Self::Success)
    }
}

impl core::fmt::Display for KernReturn {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter.write_str(self.name())
    }
}

impl core::error::Error for KernReturn {}

#[cfg(test)]
mod tests {
    use super::KernReturn;

    #[test]
    fn codes_are_distinct_and_read_back() {
        for value in KernReturn::ALL {
            assert_eq!(KernReturn::from_code(value.code()), Some(value));
        }
        assert_eq!(KernReturn::from_code(7), None);
    }
}
