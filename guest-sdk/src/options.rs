//! How a region is mapped: rights, place, sharing.
//!
//! [`RegionOptions::map`] is the one way to a [`Region`]. It opens the object, chooses the address, maps it there,
//! and undoes what it did where a later step fails.
//!
//! The address, in this order: the one given with [`RegionOptions::at`]; where the object was last mapped; the
//! lowest free range of the window; without a window, the end of linear memory, which grows. What others have mapped
//! in the window (files of the POSIX library, say) is known to the host alone: the search goes on behind it.

use vmsync_abi::{KernReturn, OpenFlags, PORT_NULL, VmFlags, VmProt};

use crate::error::{Error, Result};
use crate::limits::REGION_ALIGN;
use crate::region::{Parts, Region};
use crate::{raw, window};

/// Options of a region; made by [`Region::options`].
#[derive(Clone, Copy, Debug, Default)]
#[must_use = "nothing is mapped until `map` or `anonymous` is called"]
pub struct RegionOptions {
    rights: Rights,
    existing: bool,
    private: bool,
    relocatable: bool,
    address: Option<usize>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Rights {
    Read,
    #[default]
    ReadWrite,
}

/// Closes the object unless the mapping took it over.
struct OpenObject(u32);

impl Drop for OpenObject {
    fn drop(&mut self) {
        if self.0 != PORT_NULL {
            // The error that led here is the one to report.
            let _ = raw::close(self.0);
        }
    }
}

impl RegionOptions {
    /// Loads only: a store traps, and [`Region::as_mut_slice`] panics.
    pub const fn read_only(mut self) -> Self {
        self.rights = Rights::Read;
        self
    }

    /// The object must exist; its size may be given as 0.
    pub const fn existing(mut self) -> Self {
        self.existing = true;
        self
    }

    /// Copy-on-write: stores stay in this program and are never made durable.
    pub const fn private(mut self) -> Self {
        self.private = true;
        self
    }

    /// The region may lie elsewhere than in the last run. For state without pointers into itself.
    pub const fn relocatable(mut self) -> Self {
        self.relocatable = true;
        self
    }

    /// Maps at `address`, in bytes from the start of linear memory: a multiple of
    /// [`REGION_ALIGN`](crate::limits::REGION_ALIGN) in the window.
    pub const fn at(mut self, address: usize) -> Self {
        self.address = Some(address);
        self
    }

    /// Maps all of the object `name`, which the host grants, and which has at least `size` bytes afterwards.
    ///
    /// A new object reads as zero. A larger one than asked for is mapped in full.
    ///
    /// # Errors
    /// [`Error::Host`] with `KERN_NO_ACCESS` where the host does not grant the object or the right;
    /// [`Error::Collision`] and [`Error::WindowFull`] where there is no place; [`Error::AlreadyMapped`].
    pub fn map(self, name: &str, size: usize) -> Result<Region> {
        let hash = window::name_hash(name);
        window::check_name(hash)?;
        let mut object = OpenObject(raw::open(name, size as u64, self.open_flags())?);
        let info = raw::info(object.0)?;
        let len = usize::try_from(info.size).ok().filter(|len| *len > 0);
        let len = len.ok_or(Error::BadSize { size: info.size })?;
        let last = usize::try_from(info.address).ok().filter(|address| *address != 0);

        let protection = self.protection();
        let address = self.place(len, last, |address, flags| {
            // SAFETY: with FIXED, `place` gives a free range of the window, where the linker put nothing.
            unsafe { raw::map(address, len, flags, object.0, self.private, protection) }
        })?;
        window::take(address, len, hash);
        let port = core::mem::replace(&mut object.0, PORT_NULL);
        // SAFETY: `len` bytes at `address` were just mapped and belong to nobody else.
        Ok(unsafe {
            Region::from_parts(Parts {
                address,
                len,
                port,
                writable: self.is_writable(),
                shared: !self.private,
            })
        })
    }

    /// Maps `size` bytes of zero-filled memory that belongs to no object and ends with the program.
    ///
    /// # Errors
    /// [`Error::Collision`], [`Error::WindowFull`], [`Error::BadSize`].
    pub fn anonymous(self, size: usize) -> Result<Region> {
        window::check_name(window::ANONYMOUS)?;
        let len = size.checked_next_multiple_of(REGION_ALIGN).filter(|len| *len > 0);
        let len = len.ok_or(Error::BadSize { size: size as u64 })?;
        let protection = self.protection();
        let address = self.place(len, None, |address, flags| {
            // SAFETY: as in `map`.
            unsafe { raw::map(address, len, flags, PORT_NULL, false, protection) }
        })?;
        window::take(address, len, window::ANONYMOUS);
        // SAFETY: `len` bytes at `address` were just mapped and belong to nobody else.
        Ok(unsafe {
            Region::from_parts(Parts {
                address,
                len,
                port: PORT_NULL,
                writable: self.is_writable(),
                shared: false,
            })
        })
    }

    fn is_writable(self) -> bool {
        self.rights == Rights::ReadWrite
    }

    fn protection(self) -> VmProt {
        if self.is_writable() {
            VmProt::READ_WRITE
        } else {
            VmProt::READ
        }
    }

    fn open_flags(self) -> OpenFlags {
        let mut flags = OpenFlags::READ;
        if self.is_writable() && !self.private {
            flags = flags | OpenFlags::WRITE;
        }
        if !self.existing && flags.contains(OpenFlags::WRITE) {
            flags = flags | OpenFlags::CREATE;
        }
        flags
    }

    /// Chooses the address and maps there.
    fn place(
        self,
        len: usize,
        last: Option<usize>,
        map: impl Fn(usize, VmFlags) -> Result<usize>,
    ) -> Result<usize> {
        let (low, high) = window::bounds();
        if let Some(address) = self.address.or(last.filter(|_| low < high)) {
            if address % REGION_ALIGN == 0 && window::is_free(address, len) {
                let mapped = map(address, VmFlags::NONE);
                if !is_taken(&mapped) {
                    return mapped;
                }
            }
            if self.address.is_some() || !self.relocatable {
                return Err(Error::Collision { address, size: len });
            }
        }
        if low < high {
            return place_in_window(len, map);
        }
        let address = map(0, VmFlags::ANYWHERE)?;
        match last {
            Some(last) if last != address && !self.relocatable => {
                // SAFETY: the range was mapped above and nothing refers to it.
                unsafe { raw::unmap(address, len)? };
                Err(Error::Collision {
                    address: last,
                    size: len,
                })
            }
            _ => Ok(address),
        }
    }
}

/// Maps at the lowest free range of the window.
fn place_in_window(len: usize, map: impl Fn(usize, VmFlags) -> Result<usize>) -> Result<usize> {
    let (low, high) = window::bounds();
    let mut from = low;
    loop {
        let address = window::find(from, len).ok_or(Error::WindowFull {
            size: len,
            window: high - low,
        })?;
        let mapped = map(address, VmFlags::NONE);
        if !is_taken(&mapped) {
            return mapped;
        }
        let (start, size, _) = raw::region(address)?;
        from = start.saturating_add(size);
    }
}

/// Whether something that this crate did not map is in the way.
fn is_taken(mapped: &Result<usize>) -> bool {
    mapped.is_err_and(|error| error.kern_return() == Some(KernReturn::NoSpace))
}
