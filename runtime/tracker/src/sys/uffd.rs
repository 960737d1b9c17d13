//! userfaultfd: open, register, write-protect, read faults. See userfaultfd(2) and ioctl_userfaultfd(2).
//!
//! Invariants: a [`Uffd`] belongs to the address space of the process that opened it, and a child that inherits it must
//! not use it: its calls would act on the parent.

use core::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use linux_raw_sys::{general as raw, ioctl as codes};
use rustix::{
    io::Errno,
    ioctl::{Opcode, Updater, ioctl},
    mm::UserfaultfdFlags,
};

/// Write faults are answered by the kernel itself (Linux ≥ 6.7).
pub(crate) const WP_ASYNC: u64 = raw::UFFD_FEATURE_WP_ASYNC as u64;
/// Pages that were never touched can be write-protected too (Linux ≥ 6.4).
pub(crate) const WP_UNPOPULATED: u64 = raw::UFFD_FEATURE_WP_UNPOPULATED as u64;
/// Write protection of private anonymous memory (Linux ≥ 5.7).
pub(crate) const WP: u64 = raw::UFFD_FEATURE_PAGEFAULT_FLAG_WP as u64;

/// Whose faults a [`Uffd`] answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Faults {
    /// Of user code only: allowed to everyone. With [`WP_ASYNC`] the kernel's own writes are recorded all the same.
    UserMode,
    /// The kernel's writes too: needs CAP_SYS_PTRACE or the sysctl `vm.unprivileged_userfaultfd`.
    All,
}

/// What a write-protect call does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protect {
    /// The next store faults.
    Arm,
    /// Stores go through, and threads that wait are woken.
    Release,
}

/// Why opening failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OpenError {
    /// The system call itself.
    Call(Errno),
    /// The handshake: a feature is missing.
    Features(Errno),
}

/// An open userfaultfd.
#[derive(Debug)]
pub(crate) struct Uffd {
    descriptor: OwnedFd,
}

impl Uffd {
    /// Opens one with `features`, closed on exec, non-blocking.
    pub fn open(features: u64, faults: Faults) -> Result<Self, OpenError> {
        let user_mode = match faults {
            Faults::UserMode => UserfaultfdFlags::from_bits_retain(raw::UFFD_USER_MODE_ONLY),
            Faults::All => UserfaultfdFlags::empty(),
        };
        let flags = UserfaultfdFlags::CLOEXEC | UserfaultfdFlags::NONBLOCK | user_mode;
        // SAFETY: nothing is registered yet; registering is where a caller answers for the memory.
        let descriptor = unsafe { rustix::mm::userfaultfd(flags) }.map_err(OpenError::Call)?;
        let uffd = Self { descriptor };
        let mut api = raw::uffdio_api {
            api: u64::from(raw::UFFD_API),
            features,
            ioctls: 0,
        };
        // SAFETY: UFFDIO_API takes and fills a `uffdio_api`.
        unsafe { uffd.update::<{ codes::UFFDIO_API }, _>(&mut api) }.map_err(OpenError::Features)?;
        Ok(uffd)
    }

    /// Registers the mapped parts of `addresses` for write protection.
    pub fn register(&self, addresses: Range<usize>) -> Result<(), Errno> {
        let mut argument = raw::uffdio_register {
            range: range(addresses),
            mode: u64::from(raw::UFFDIO_REGISTER_MODE_WP),
            ioctls: 0,
        };
        // SAFETY: UFFDIO_REGISTER takes and fills a `uffdio_register`. Write protection changes no contents.
        unsafe { self.update::<{ codes::UFFDIO_REGISTER }, _>(&mut argument) }
    }

    /// Undoes [`Uffd::register`]; every page becomes writable.
    pub fn unregister(&self, addresses: Range<usize>) -> Result<(), Errno> {
        let mut argument = range(addresses);
        // SAFETY: UFFDIO_UNREGISTER takes a `uffdio_range`.
        unsafe { self.update::<{ codes::UFFDIO_UNREGISTER }, _>(&mut argument) }
    }

    /// Arms or releases the pages of `addresses`, which are registered. Repeats while the address space is changing.
    pub fn write_protect(&self, addresses: Range<usize>, protect: Protect) -> Result<(), Errno> {
        let mode = match protect {
            Protect::Arm => MODE_WP,
            Protect::Release => 0,
        };
        loop {
            let mut argument = raw::uffdio_writeprotect {
                range: range(addresses.clone()),
                mode,
            };
            // SAFETY: UFFDIO_WRITEPROTECT takes a `uffdio_writeprotect`. It changes no contents.
            match unsafe { self.update::<{ codes::UFFDIO_WRITEPROTECT }, _>(&mut argument) } {
                Err(Errno::AGAIN | Errno::INTR) => continue,
                result => return result,
            }
        }
    }

    /// Wakes the threads that wait for `addresses`, so that they try again.
    pub fn wake(&self, addresses: Range<usize>) -> Result<(), Errno> {
        let mut argument = range(addresses);
        // SAFETY: UFFDIO_WAKE takes a `uffdio_range`.
        unsafe { self.update::<{ codes::UFFDIO_WAKE }, _>(&mut argument) }
    }

    /// The address of the next fault that waits, or `None` where none does.
    pub fn next_fault(&self) -> Result<Option<usize>, Errno> {
        let mut message = [0u8; MESSAGE_BYTES];
        loop {
            match rustix::io::read(&self.descriptor, &mut message) {
                Ok(MESSAGE_BYTES) if u32::from(message[0]) == raw::UFFD_EVENT_PAGEFAULT => {
                    let address = message[ADDRESS_AT..ADDRESS_AT + 8]
                        .try_into()
                        .expect("eight bytes");
                    return Ok(Some(u64::from_ne_bytes(address) as usize));
                }
                Ok(_) => return Err(Errno::PROTO),
                Err(Errno::AGAIN) => return Ok(None),
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error),
            }
        }
    }

    /// # Safety
    /// `OPCODE` takes a pointer to a `T` and touches nothing else of this process's memory but page protections.
    unsafe fn update<const OPCODE: Opcode, T>(&self, value: &mut T) -> Result<(), Errno> {
        // SAFETY: by the contract of this function.
        unsafe { ioctl(&self.descriptor, Updater::<OPCODE, T>::new(value)) }
    }
}

impl AsFd for Uffd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// `struct uffd_msg`: an event byte, seven reserved ones, then for a page fault eight bytes of flags and its address.
const MESSAGE_BYTES: usize = size_of::<raw::uffd_msg>();
const ADDRESS_AT: usize = 16;

/// `UFFDIO_WRITEPROTECT_MODE_WP` of linux/userfaultfd.h, which is an expression there and so not in the bindings.
const MODE_WP: u64 = 1 << 0;

const _: () = {
    assert!(MESSAGE_BYTES == 32);
    assert!(size_of::<raw::uffdio_api>() == 24);
    assert!(size_of::<raw::uffdio_register>() == 32);
    assert!(size_of::<raw::uffdio_writeprotect>() == 24);
};

fn range(addresses: Range<usize>) -> raw::uffdio_range {
    assert!(addresses.start < addresses.end);
    raw::uffdio_range {
        start: addresses.start as u64,
        len: addresses.len() as u64,
    }
}
