//! [`Disk`]: the small part of an operating system that the store needs.
//!
//! ```text
//!   store --> Disk (named files of one folder) --> DiskFile (bytes at offsets, sync)
//!              '-- DiskLock (who has the store open)
//!   native: a folder    memory: for tests, remembers what was not synced    others: OPFS handles
//! ```
//!
//! What an implementation guarantees, and nothing more is relied on:
//! - a successful [`DiskFile::sync`] puts everything written to that file before it, and its length, on stable storage;
//! - a successful [`DiskFile::write_durably`] puts at least its own bytes there;
//! - a successful [`Disk::sync_names`] does the same for which names exist;
//! - until then any part of what was written may or may not be there after a power cut, in any order, torn at
//!   sectors of [`crate::limits::SECTOR_BYTES`];
//! - a read sees the writes before it;
//! - names are flat: letters, digits, `-` and `.`. Nothing is ever renamed.

#[cfg(unix)]
mod direct;
pub mod memory;
#[cfg(unix)]
pub mod native;
#[cfg(target_os = "linux")]
mod view;

use std::sync::atomic::AtomicU64;

use vmsync_core::{ByteRange, PagerError};

use crate::limits::FILL_BYTES;

/// What disk operations fail with: `NotFound`, `NoSpace`, `Denied`, `Busy` or `Io`, with the file's
/// name in the message.
pub type Result<T> = std::result::Result<T, PagerError>;

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// It exists, and is only read.
    Read,
    /// It exists, and is read and written.
    Write,
    /// It is read and written, and made empty where it does not exist.
    Create,
}

/// Who else may have the store open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// Others that only read.
    Shared,
    /// Nobody.
    Exclusive,
}

/// A flat folder of files.
pub trait Disk: Send + Sync {
    /// Opens a file.
    fn open(&self, name: &str, access: Access) -> Result<Box<dyn DiskFile>>;
    /// Removes a file's name.
    fn remove(&self, name: &str) -> Result<()>;
    /// All names, in any order.
    fn list(&self) -> Result<Vec<String>>;
    /// Makes creations and removals durable.
    fn sync_names(&self) -> Result<()>;
    /// Claims the store for as long as the answer lives; `Busy` where another has it, in this
    /// process or another.
    fn lock(&self, sharing: Sharing) -> Result<Box<dyn DiskLock>>;
    /// A number that no other store has.
    fn nonce(&self) -> u128;
    /// Where this is, for messages.
    fn place(&self) -> String;
}

/// One file.
pub trait DiskFile: Send + Sync {
    /// Reads from `offset` on until `buffer` is full or the file ends; how many bytes were read.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize>;
    /// The same, with zeroes behind the end, where the bytes are in memory; `false` where the drive would have to be waited for, and no answer is as
    /// good. Then what is in `buffer` means nothing.
    fn read_cached(&self, offset: u64, buffer: &mut [u8]) -> Result<bool> {
        let count = self.read_at(offset, buffer)?;
        buffer[count..].fill(0);
        Ok(true)
    }
    /// Shows the bytes of each of `ranges` to `look`, or `None` where they are not in memory or cannot be looked at as they
    /// are. The ranges ascend and are aligned to [`crate::limits::BLOCK_BYTES`]. A write meanwhile changes what is seen.
    fn show_cached(&self, ranges: &[ByteRange], look: &mut dyn FnMut(Option<&[AtomicU64]>)) {
        ranges.iter().for_each(|_| look(None));
    }
    /// So many bytes from `offset` on will be read soon: a disk may begin with it.
    fn will_read(&self, _offset: u64, _length: u64) {}
    /// Writes all of `bytes`. After an error any part of it may be written.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()>;
    /// Makes what was written durable.
    fn sync(&self) -> Result<()>;
    /// Writes all of `bytes` and makes them durable, in one step where the system has one. It may ask for whole blocks of
    /// [`crate::limits::BLOCK_BYTES`], in the file and in memory; other bytes take two steps.
    fn write_durably(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.write_at(offset, bytes)?;
        self.sync()
    }
    /// The length in bytes.
    fn length(&self) -> Result<u64>;
    /// Cuts, or extends with zeroes.
    fn set_len(&self, length: u64) -> Result<()>;
    /// Makes the file `length` bytes of zeroes in such a way that later writes inside change no metadata and need no
    /// space, so that their sync waits for nothing but the bytes.
    fn preallocate(&self, length: u64) -> Result<()> {
        self.set_len(0)?;
        fill_with_zeroes(self, length)
    }
    /// Where the next bytes at or behind `offset` are that may not be zero; `None` where there are none. Holes of sparse
    /// files are skipped where the disk knows them.
    fn next_data(&self, offset: u64) -> Result<Option<u64>> {
        Ok((offset < self.length()?).then_some(offset))
    }
    /// A file descriptor that can be mapped, where there are such things.
    fn descriptor(&self) -> Option<i32> {
        None
    }
}

/// A claim on a store, given up when dropped.
pub trait DiskLock: Send + Sync {}

/// Writes and syncs `length` zero bytes.
pub(crate) fn fill_with_zeroes(file: &(impl DiskFile + ?Sized), length: u64) -> Result<()> {
    let zeroes = vec![0; FILL_BYTES.min(usize::try_from(length).unwrap_or(FILL_BYTES))];
    let mut offset = 0;
    while offset < length {
        let count = (length - offset).min(zeroes.len() as u64);
        file.write_at(offset, &zeroes[..usize::try_from(count).unwrap_or(zeroes.len())])?;
        offset += count;
    }
    file.sync()
}
