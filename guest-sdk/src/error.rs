//! What can go wrong, and what to do then.
//!
//! Invariant: a variant says what the caller does next; [`Error::advice`] says it in words.

use core::fmt;

use vmsync_abi::KernReturn;

/// `Result` with [`Error`].
pub type Result<T> = core::result::Result<T, Error>;

/// Why a call of this crate failed. After any error the region's memory is what it was before the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// The host refused the call.
    Host {
        /// The import that was called.
        call: &'static str,
        /// Its result.
        result: KernReturn,
    },
    /// The host answered a number that this version does not know.
    UnknownResult {
        /// The import that was called.
        call: &'static str,
        /// Its result.
        code: i32,
    },
    /// The object is mapped by this program already: two mappings would be two `&mut` to the same bytes.
    AlreadyMapped,
    /// The program has mapped [`REGIONS_MAX`](crate::limits::REGIONS_MAX) regions already.
    TooManyRegions,
    /// The size does not fit the address space, or it is 0 for an object that has none yet.
    BadSize {
        /// The size, in bytes.
        size: u64,
    },
    /// The address where the region must lie is taken, or outside the window.
    Collision {
        /// The wanted address, in bytes from the start of linear memory.
        address: usize,
        /// The region's size, in bytes.
        size: usize,
    },
    /// The window has no free range of this size.
    WindowFull {
        /// The region's size, in bytes.
        size: usize,
        /// The size of the whole window, in bytes; 0: the program was linked without one.
        window: usize,
    },
    /// The region is mapped without the right to store.
    ReadOnly,
    /// A typed view or a range does not lie within the region, or is not aligned.
    OutOfRange {
        /// Offset in the region, in bytes.
        offset: usize,
        /// Size of the view or range, in bytes.
        size: usize,
        /// The region's size, in bytes.
        len: usize,
    },
    /// The region holds something that is no heap.
    NotAHeap,
    /// The heap is of another format version or pointer width.
    HeapVersion {
        /// The version found.
        found: u32,
        /// The version of this crate.
        expected: u32,
    },
    /// The heap's root is of another type than the program's.
    HeapSchema {
        /// The fingerprint found.
        found: u64,
        /// The fingerprint of the program's root type.
        expected: u64,
    },
    /// The heap was made at another address, so that the pointers in it lead nowhere.
    HeapMoved {
        /// Where it was made, in bytes from the start of linear memory.
        from: u64,
        /// Where it is mapped.
        to: usize,
    },
    /// The heap's header contradicts itself.
    HeapDamaged {
        /// What is wrong.
        what: &'static str,
    },
    /// The region has no room for an allocation.
    HeapFull {
        /// Size of the allocation, in bytes.
        wanted: usize,
    },
}

impl Error {
    /// The error for a result of the host other than `KERN_SUCCESS`.
    #[cfg_attr(
        not(target_family = "wasm"),
        allow(dead_code, reason = "only the host's answers need it")
    )]
    pub(crate) fn from_code(call: &'static str, code: i32) -> Self {
        match KernReturn::from_code(code) {
            Some(result) => Self::Host { call, result },
            None => Self::UnknownResult { call, code },
        }
    }

    /// The host's result, where the error came from the host.
    pub const fn kern_return(self) -> Option<KernReturn> {
        match self {
            Self::Host { result, .. } => Some(result),
            _ => None,
        }
    }

    /// Whether the same call may succeed later without a change to the program.
    pub const fn is_transient(self) -> bool {
        matches!(
            self.kern_return(),
            Some(
                KernReturn::Failure
                    | KernReturn::ResourceShortage
                    | KernReturn::MemoryError
                    | KernReturn::Aborted
            )
        )
    }

    /// What to do next, as one sentence.
    pub fn advice(self) -> &'static str {
        match self {
            Self::Host {
                call: "memory_object_open",
                result: KernReturn::InvalidArgument,
            } => "give a name of 1 to 255 of the characters A-Z a-z 0-9 . _ -, without a dot in front",
            Self::Host {
                call: "vm_map",
                result: KernReturn::NoAccess,
            } => {
                "let the other program, which has the object mapped for stores, give it up, or map it read-only"
            }
            Self::Host { result, .. } => host_advice(result),
            Self::UnknownResult { .. } => "use an SDK as new as the host",
            Self::AlreadyMapped => "drop the other region of this object first",
            Self::TooManyRegions => {
                "drop a region that is no longer needed, or put more state into one object"
            }
            Self::BadSize { .. } => "give a size above 0 that fits the address space",
            Self::Collision { .. } => {
                "map this region before the others, choose its address with `at`, or allow it to move with `relocatable`"
            }
            Self::WindowFull { window: 0, .. } => {
                "link the program with `--stack-first --global-base=N`, N above the sum of the regions"
            }
            Self::WindowFull { .. } => "link the program with a larger `--global-base`",
            Self::ReadOnly => "map the region without `read_only`",
            Self::OutOfRange { .. } => "map a larger region, or give an aligned range within it",
            Self::NotAHeap => "choose another object, or delete this one on the host",
            Self::HeapVersion { .. } => "open it with the program version that wrote it",
            Self::HeapSchema { .. } => {
                "open it with the program version that wrote it, or with `Heap::migrate` from the former root type"
            }
            Self::HeapMoved { .. } => {
                "map the region at its first address: link with the same `--global-base`"
            }
            Self::HeapDamaged { .. } => {
                "restore the store from a copy; `vmsync verify` names what is damaged"
            }
            Self::HeapFull { .. } => "map the region with a larger size: the object grows, its contents stay",
        }
    }
}

const fn host_advice(result: KernReturn) -> &'static str {
    match result {
        KernReturn::NoAccess | KernReturn::InvalidRight => {
            "let the host grant this object (`vmsync run --map NAME=STORE`), with the right to write if it is needed"
        }
        KernReturn::ResourceShortage => {
            "free storage or raise the quota, then call again: what was dirty stays dirty"
        }
        KernReturn::Failure => "call again: what was dirty stays dirty and is returned again",
        KernReturn::Aborted | KernReturn::MemoryError => "the pager did not answer in time: call again",
        KernReturn::MemoryFailure | KernReturn::Terminated => "the object is gone: unmap the region",
        KernReturn::NoSpace => "the range is mapped already or exceeds the memory: choose another",
        KernReturn::NotSupported => "run the program under a host that offers this call",
        _ => "check the arguments",
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Host { call, result } => write!(f, "{call}: {result}")?,
            Self::UnknownResult { call, code } => write!(f, "{call}: unknown result {code}")?,
            Self::AlreadyMapped => write!(f, "the object is mapped already")?,
            Self::TooManyRegions => write!(f, "too many regions")?,
            Self::BadSize { size } => write!(f, "a region cannot have {size} bytes")?,
            Self::Collision { address, size } => {
                write!(f, "{size} bytes at {address:#x} are not free for the region")?;
            }
            Self::WindowFull { size, window } => {
                write!(f, "no {size} free bytes in the window of {window} bytes")?;
            }
            Self::ReadOnly => write!(f, "the region is read-only")?,
            Self::OutOfRange { offset, size, len } => {
                write!(
                    f,
                    "{size} bytes at offset {offset} do not fit a region of {len} bytes"
                )?;
            }
            Self::NotAHeap => write!(f, "the region holds no heap")?,
            Self::HeapVersion { found, expected } => {
                write!(f, "the heap has format {found:#x}, not {expected:#x}")?;
            }
            Self::HeapSchema { found, expected } => {
                write!(
                    f,
                    "the heap's root has schema {found:016x}, the program's {expected:016x}"
                )?;
            }
            Self::HeapMoved { from, to } => {
                write!(f, "the heap was made at {from:#x} and is mapped at {to:#x}")?
            }
            Self::HeapDamaged { what } => write!(f, "the heap's header is damaged: {what}")?,
            Self::HeapFull { wanted } => write!(f, "the heap has no room for {wanted} bytes")?,
        }
        write!(f, "; {}", self.advice())
    }
}

impl core::error::Error for Error {}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::format;

    use super::Error;
    use vmsync_abi::KernReturn;

    #[test]
    fn the_host_s_results_are_named_and_explained() {
        for result in KernReturn::ALL.into_iter().skip(1) {
            let error = Error::from_code("vm_msync", result.code());
            assert_eq!(error.kern_return(), Some(result));
            let text = format!("{error}");
            assert!(text.starts_with(&format!("vm_msync: {result}; ")), "{text}");
        }
        let unknown = Error::from_code("vm_msync", 7);
        assert_eq!((unknown.kern_return(), unknown.is_transient()), (None, false));
        assert!(Error::from_code("vm_msync", KernReturn::Failure.code()).is_transient());
    }

    #[test]
    fn one_result_is_explained_by_the_call() {
        let of = |call| Error::from_code(call, KernReturn::NoAccess.code()).advice();
        assert!(of("memory_object_open").contains("--map"));
        assert!(of("vm_map").contains("other program"));
    }
}
