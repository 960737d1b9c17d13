//! [`MmapOptions`]: what of a file is mapped, and how.

use std::fs::File;
use std::io::{Error, ErrorKind, Result};
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, FromRawFd, RawFd};

use crate::map::{Mmap, MmapMut, MmapRaw};
use crate::mapping::Mapping;
use crate::sys::{MAP_ANONYMOUS, MAP_PRIVATE, MAP_SHARED, PROT_EXEC, PROT_READ, PROT_WRITE};

/// A file that can be mapped.
pub struct MmapRawDescriptor(RawFd);

/// What names a file that can be mapped: a reference to one that is open, or its descriptor.
pub trait MmapAsRawDesc {
    /// The descriptor.
    fn as_raw_desc(&self) -> MmapRawDescriptor;
}

impl MmapAsRawDesc for RawFd {
    fn as_raw_desc(&self) -> MmapRawDescriptor {
        MmapRawDescriptor(*self)
    }
}

impl<T: AsRawFd> MmapAsRawDesc for &T {
    fn as_raw_desc(&self) -> MmapRawDescriptor {
        MmapRawDescriptor(self.as_raw_fd())
    }
}

/// Which part of a file is mapped; by default all of it.
#[derive(Clone, Debug, Default)]
pub struct MmapOptions {
    offset: u64,
    len: Option<usize>,
}

impl MmapOptions {
    /// All of a file.
    pub fn new() -> Self {
        Self::default()
    }

    /// From `offset` bytes on; any offset will do.
    pub fn offset(&mut self, offset: u64) -> &mut Self {
        self.offset = offset;
        self
    }

    /// `len` bytes, which may reach behind the end of the file.
    pub fn len(&mut self, len: usize) -> &mut Self {
        self.len = Some(len);
        self
    }

    /// A hint without effect.
    pub fn stack(&mut self) -> &mut Self {
        self
    }

    /// A hint without effect.
    pub fn huge(&mut self, _page_bits: Option<u8>) -> &mut Self {
        self
    }

    /// A hint without effect.
    pub fn populate(&mut self) -> &mut Self {
        self
    }

    /// A hint without effect.
    pub fn no_reserve_swap(&mut self) -> &mut Self {
        self
    }

    /// For loads.
    ///
    /// # Safety
    /// Nobody stores to the file, or shortens it, while the map lives.
    ///
    /// # Errors
    /// Those of `mmap`; `InvalidInput` where the offset lies behind the file's end.
    pub unsafe fn map<T: MmapAsRawDesc>(&self, file: T) -> Result<Mmap> {
        self.mapping(file, PROT_READ, MAP_SHARED).map(Mmap::from_mapping)
    }

    /// For loads and for execution, which no sandbox allows.
    ///
    /// # Safety
    /// As [`MmapOptions::map`].
    ///
    /// # Errors
    /// As [`MmapOptions::map`].
    pub unsafe fn map_exec<T: MmapAsRawDesc>(&self, file: T) -> Result<Mmap> {
        self.mapping(file, PROT_READ | PROT_EXEC, MAP_SHARED)
            .map(Mmap::from_mapping)
    }

    /// For loads and stores, which change the file.
    ///
    /// # Safety
    /// As [`MmapOptions::map`].
    ///
    /// # Errors
    /// As [`MmapOptions::map`].
    pub unsafe fn map_mut<T: MmapAsRawDesc>(&self, file: T) -> Result<MmapMut> {
        self.mapping(file, PROT_READ | PROT_WRITE, MAP_SHARED)
            .map(MmapMut::from_mapping)
    }

    /// For loads and stores that the file does not see.
    ///
    /// # Safety
    /// As [`MmapOptions::map`].
    ///
    /// # Errors
    /// As [`MmapOptions::map`].
    pub unsafe fn map_copy<T: MmapAsRawDesc>(&self, file: T) -> Result<MmapMut> {
        self.mapping(file, PROT_READ | PROT_WRITE, MAP_PRIVATE)
            .map(MmapMut::from_mapping)
    }

    /// As [`MmapOptions::map_copy`], for loads.
    ///
    /// # Safety
    /// As [`MmapOptions::map`].
    ///
    /// # Errors
    /// As [`MmapOptions::map`].
    pub unsafe fn map_copy_read_only<T: MmapAsRawDesc>(&self, file: T) -> Result<Mmap> {
        self.mapping(file, PROT_READ, MAP_PRIVATE).map(Mmap::from_mapping)
    }

    /// As [`MmapOptions::map_mut`], for pointers only: they make no promise about who changes the bytes.
    ///
    /// # Errors
    /// As [`MmapOptions::map`].
    pub fn map_raw<T: MmapAsRawDesc>(&self, file: T) -> Result<MmapRaw> {
        self.mapping(file, PROT_READ | PROT_WRITE, MAP_SHARED)
            .map(MmapRaw::from_mapping)
    }

    /// As [`MmapOptions::map_raw`]; stores trap.
    ///
    /// # Errors
    /// As [`MmapOptions::map`].
    pub fn map_raw_read_only<T: MmapAsRawDesc>(&self, file: T) -> Result<MmapRaw> {
        self.mapping(file, PROT_READ, MAP_SHARED)
            .map(MmapRaw::from_mapping)
    }

    /// Zero-filled memory of the length that was given, which is gone when the map is.
    ///
    /// # Errors
    /// Those of `mmap`.
    pub fn map_anon(&self) -> Result<MmapMut> {
        let flags = MAP_PRIVATE | MAP_ANONYMOUS;
        let mapping = Mapping::new(self.len.unwrap_or(0), PROT_READ | PROT_WRITE, flags, -1, 0);
        mapping.map(MmapMut::from_mapping)
    }

    fn mapping<T: MmapAsRawDesc>(&self, file: T, protection: i32, flags: i32) -> Result<Mapping> {
        let MmapRawDescriptor(fd) = file.as_raw_desc();
        let len = match self.len {
            Some(len) => len,
            None => self.rest_of_file(fd)?,
        };
        Mapping::new(len, protection, flags, fd, self.offset)
    }

    /// The bytes from the offset to the end of the file.
    fn rest_of_file(&self, fd: RawFd) -> Result<usize> {
        // SAFETY: the descriptor is open for as long as the caller's reference to its file, and is not closed here.
        let file = ManuallyDrop::new(unsafe { File::from_raw_fd(fd) });
        let invalid = |why| Error::new(ErrorKind::InvalidInput, why);
        let rest = file.metadata()?.len().checked_sub(self.offset);
        let rest = rest.ok_or_else(|| invalid("memory map offset is larger than length"))?;
        usize::try_from(rest).map_err(|_| invalid("memory map length overflows usize"))
    }
}
