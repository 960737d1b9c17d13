//! The maps: [`Mmap`] for loads, [`MmapMut`] for stores too, [`MmapRaw`] for pointers.

use std::fmt;
use std::io::Result;
use std::ops::{Deref, DerefMut};

use crate::advice::{Advice, UncheckedAdvice};
use crate::mapping::Mapping;
use crate::options::{MmapAsRawDesc, MmapOptions};
use crate::sys::{MS_ASYNC, MS_SYNC, PROT_EXEC, PROT_READ, PROT_WRITE};

/// A map for loads; a `&[u8]`.
pub struct Mmap(Mapping);

/// A map for loads and stores; a `&mut [u8]`.
pub struct MmapMut(Mapping);

/// A map by its address and length.
pub struct MmapRaw(Mapping);

/// What every kind of map can do.
macro_rules! common {
    ($($map:ident),*) => {$(
        impl $map {
            pub(crate) fn from_mapping(mapping: Mapping) -> Self {
                Self(mapping)
            }

            /// Says how the map will be used.
            ///
            /// # Errors
            /// Those of `madvise`.
            pub fn advise(&self, advice: Advice) -> Result<()> {
                self.advise_range(advice, 0, self.0.len())
            }

            /// Says how a part of the map will be used.
            ///
            /// # Errors
            /// Those of `madvise`, and `InvalidInput` where the range leaves the map.
            pub fn advise_range(&self, advice: Advice, offset: usize, len: usize) -> Result<()> {
                // SAFETY: these hints lose nothing.
                unsafe { self.0.advise(offset, len, advice.code()) }
            }

            /// Says that the contents may be dropped.
            ///
            /// # Safety
            /// Nobody relies on them, and there is no reference to them.
            ///
            /// # Errors
            /// Those of `madvise`.
            pub unsafe fn unchecked_advise(&self, advice: UncheckedAdvice) -> Result<()> {
                // SAFETY: the caller vouches for it.
                unsafe { self.unchecked_advise_range(advice, 0, self.0.len()) }
            }

            /// As [`Self::unchecked_advise`], for a part of the map.
            ///
            /// # Safety
            /// As there.
            ///
            /// # Errors
            /// Those of `madvise`, and `InvalidInput` where the range leaves the map.
            pub unsafe fn unchecked_advise_range(
                &self,
                advice: UncheckedAdvice,
                offset: usize,
                len: usize,
            ) -> Result<()> {
                // SAFETY: the caller vouches for it.
                unsafe { self.0.advise(offset, len, advice.code()) }
            }

            /// Keeps the map in memory.
            ///
            /// # Errors
            /// Those of `mlock`.
            pub fn lock(&self) -> Result<()> {
                self.0.lock(true)
            }

            /// Ends what [`Self::lock`] began.
            ///
            /// # Errors
            /// Those of `munlock`.
            pub fn unlock(&self) -> Result<()> {
                self.0.lock(false)
            }
        }

        impl fmt::Debug for $map {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let (ptr, len) = (self.0.pointer(), self.0.len());
                f.debug_struct(stringify!($map)).field("ptr", &ptr).field("len", &len).finish()
            }
        }
    )*};
}

common!(Mmap, MmapMut, MmapRaw);

/// What makes stores durable.
macro_rules! flushing {
    ($($map:ident),*) => {$(
        impl $map {
            /// Makes every change durable, all or nothing, and waits for it.
            ///
            /// # Errors
            /// Those of `msync`; nothing is durable then, and another call tries again.
            pub fn flush(&self) -> Result<()> {
                self.flush_range(0, self.0.len())
            }

            /// Hands every change over and does not wait.
            ///
            /// # Errors
            /// Those of `msync`.
            pub fn flush_async(&self) -> Result<()> {
                self.flush_async_range(0, self.0.len())
            }

            /// [`Self::flush`] of the pages that hold the range.
            ///
            /// # Errors
            /// Those of `msync`, and `InvalidInput` where the range leaves the map.
            pub fn flush_range(&self, offset: usize, len: usize) -> Result<()> {
                self.0.sync(offset, len, MS_SYNC)
            }

            /// [`Self::flush_async`] of the pages that hold the range.
            ///
            /// # Errors
            /// Those of `msync`, and `InvalidInput` where the range leaves the map.
            pub fn flush_async_range(&self, offset: usize, len: usize) -> Result<()> {
                self.0.sync(offset, len, MS_ASYNC)
            }
        }
    )*};
}

flushing!(MmapMut, MmapRaw);

impl Mmap {
    /// All of `file`, for loads.
    ///
    /// # Safety
    /// As [`MmapOptions::map`].
    ///
    /// # Errors
    /// As [`MmapOptions::map`].
    pub unsafe fn map<T: MmapAsRawDesc>(file: T) -> Result<Self> {
        // SAFETY: the caller vouches for it.
        unsafe { MmapOptions::new().map(file) }
    }

    /// Allows stores.
    ///
    /// # Errors
    /// Those of `mprotect`.
    pub fn make_mut(mut self) -> Result<MmapMut> {
        self.0.protect(PROT_READ | PROT_WRITE)?;
        Ok(MmapMut(self.0))
    }
}

impl MmapMut {
    /// All of `file`, for loads and stores.
    ///
    /// # Safety
    /// As [`MmapOptions::map_mut`].
    ///
    /// # Errors
    /// As [`MmapOptions::map`].
    pub unsafe fn map_mut<T: MmapAsRawDesc>(file: T) -> Result<Self> {
        // SAFETY: the caller vouches for it.
        unsafe { MmapOptions::new().map_mut(file) }
    }

    /// `length` bytes of zero-filled memory.
    ///
    /// # Errors
    /// Those of `mmap`.
    pub fn map_anon(length: usize) -> Result<Self> {
        MmapOptions::new().len(length).map_anon()
    }

    /// Allows no more stores.
    ///
    /// # Errors
    /// Those of `mprotect`.
    pub fn make_read_only(mut self) -> Result<Mmap> {
        self.0.protect(PROT_READ)?;
        Ok(Mmap(self.0))
    }

    /// Allows execution and no more stores, which no sandbox does.
    ///
    /// # Errors
    /// Those of `mprotect`.
    pub fn make_exec(mut self) -> Result<Mmap> {
        self.0.protect(PROT_READ | PROT_EXEC)?;
        Ok(Mmap(self.0))
    }
}

impl MmapRaw {
    /// All of `file`, for loads and stores.
    ///
    /// # Errors
    /// As [`MmapOptions::map`].
    pub fn map_raw<T: MmapAsRawDesc>(file: T) -> Result<Self> {
        MmapOptions::new().map_raw(file)
    }

    /// Where it begins.
    pub fn as_ptr(&self) -> *const u8 {
        self.0.pointer().as_ptr()
    }

    /// Where it begins.
    pub fn as_mut_ptr(&self) -> *mut u8 {
        self.0.pointer().as_ptr()
    }

    /// Its length, in bytes.
    #[allow(clippy::len_without_is_empty, reason = "the interface is memmap2's")]
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

impl From<Mmap> for MmapRaw {
    fn from(map: Mmap) -> Self {
        Self(map.0)
    }
}

impl From<MmapMut> for MmapRaw {
    fn from(map: MmapMut) -> Self {
        Self(map.0)
    }
}

impl Deref for Mmap {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the bytes are mapped, and whoever made the map vouched that nobody changes them.
        unsafe { std::slice::from_raw_parts(self.0.pointer().as_ptr(), self.0.len()) }
    }
}

impl Deref for MmapMut {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: as for `Mmap`.
        unsafe { std::slice::from_raw_parts(self.0.pointer().as_ptr(), self.0.len()) }
    }
}

impl DerefMut for MmapMut {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as for `Mmap`; the map is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.0.pointer().as_ptr(), self.0.len()) }
    }
}

impl AsRef<[u8]> for Mmap {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl AsRef<[u8]> for MmapMut {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl AsMut<[u8]> for MmapMut {
    fn as_mut(&mut self) -> &mut [u8] {
        self
    }
}
