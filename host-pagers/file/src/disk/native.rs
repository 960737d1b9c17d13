//! [`NativeDisk`]: a folder of the operating system.
//!
//! Invariants:
//! - an advisory lock (`flock(2)`) on the file `LOCK` is held while the store is open; it belongs to an open file, so
//!   that a second opener in the same process is refused as well, and a killed process leaves none behind;
//! - `sync` is `fdatasync(2)`: it skips the times of a file and nothing that is needed to read it back;
//! - `write_durably` goes past the page cache where it can (`direct.rs`), else it is a write and a sync.

use std::{
    hash::{BuildHasher, RandomState},
    io::IoSliceMut,
    os::fd::{AsRawFd, OwnedFd},
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};
#[cfg(target_os = "linux")]
use std::{
    os::fd::AsFd,
    sync::{PoisonError, RwLock, atomic::AtomicU64},
};

use rustix::{
    fs::{Advice, AtFlags, FallocateFlags, FlockOperation, Mode, OFlags, SeekFrom},
    io::{Errno, ReadWriteFlags},
};
use vmsync_core::{ByteRange, PagerError, PagerErrorKind};

#[cfg(target_os = "linux")]
use crate::disk::view::View;
use crate::{
    disk::{Access, Disk, DiskFile, DiskLock, Result, Sharing, direct::Direct, fill_with_zeroes},
    layout::STORE_NAME,
};

/// The file that openers lock.
const LOCK_NAME: &str = "LOCK";

/// A folder.
pub struct NativeDisk {
    folder: Arc<OwnedFd>,
    path: PathBuf,
}

/// Whether a missing folder is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Folder {
    /// It must exist.
    Existing,
    /// It is made, with its parents.
    Created,
}

struct NativeFile {
    descriptor: OwnedFd,
    folder: Arc<OwnedFd>,
    path: PathBuf,
    /// The file once more, for writes past the page cache; opened by the first of them.
    direct: OnceLock<Direct>,
    #[cfg(target_os = "linux")]
    view: RwLock<Viewed>,
}

/// What is mapped of a file.
#[cfg(target_os = "linux")]
#[derive(Default)]
struct Viewed {
    view: Option<View>,
    /// The length of the file at the last try.
    tried: u64,
}

struct NativeLock {
    descriptor: Option<OwnedFd>,
    owner: u32,
}

impl NativeDisk {
    /// The folder at `path`.
    ///
    /// # Errors
    /// [`PagerErrorKind::NotFound`] where it does not exist; whatever making it fails with.
    pub fn new(path: &Path, folder: Folder) -> Result<Self> {
        if folder == Folder::Created && !path.join(STORE_NAME).exists() {
            make_folder(path)?;
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let descriptor = rustix::fs::open(path, flags, Mode::empty())
            .map_err(|errno| failed("cannot open the folder", path, errno))?;
        Ok(Self {
            folder: Arc::new(descriptor),
            path: path.into(),
        })
    }
}

/// Makes the folder at `path` and those that it lies in, where they are missing, and their names durable. Also the name of a
/// folder that is there: who made it may have been killed before that was done.
fn make_folder(path: &Path) -> Result<()> {
    let missing: Vec<&Path> = path
        .ancestors()
        .take_while(|folder| !folder.as_os_str().is_empty() && !folder.is_dir())
        .collect();
    std::fs::create_dir_all(path).map_err(|error| {
        let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
        failed("cannot make the folder", path, errno)
    })?;
    if missing.is_empty() {
        // Somebody else may own the folder that it lies in.
        return match sync_parent(path) {
            Err(error) if error.kind == PagerErrorKind::Denied => Ok(()),
            synced => synced,
        };
    }
    missing.into_iter().try_for_each(sync_parent)
}

/// Makes the name of a folder durable.
fn sync_parent(path: &Path) -> Result<()> {
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(parent, flags, Mode::empty())
        .and_then(rustix::fs::fsync)
        .map_err(|errno| failed("cannot sync the folder", parent, errno))
}

/// An error of the operating system: what was tried, where, why, and what helps.
fn failed(what: &str, path: &Path, errno: Errno) -> PagerError {
    let (kind, advice) = match errno {
        Errno::NOENT => (PagerErrorKind::NotFound, ""),
        Errno::NOSPC => (PagerErrorKind::NoSpace, ": free some space on that disk"),
        Errno::DQUOT => (PagerErrorKind::NoSpace, ": raise the quota or free some space"),
        Errno::FBIG => (
            PagerErrorKind::NoSpace,
            ": raise the limit of the size of files (ulimit -f)",
        ),
        Errno::ROFS => (PagerErrorKind::Denied, ": open the store read-only"),
        Errno::ACCESS | Errno::PERM => (PagerErrorKind::Denied, ": check who may write there"),
        _ => (PagerErrorKind::Io, ""),
    };
    PagerError::new(kind, format!("{what} {}: {errno}{advice}", path.display()))
}

impl Disk for NativeDisk {
    fn open(&self, name: &str, access: Access) -> Result<Box<dyn DiskFile>> {
        let flags = match access {
            Access::Read => OFlags::RDONLY,
            Access::Write => OFlags::RDWR,
            Access::Create => OFlags::RDWR | OFlags::CREATE,
        };
        let path = self.path.join(name);
        let mode = Mode::RUSR | Mode::WUSR | Mode::RGRP | Mode::ROTH;
        let descriptor = rustix::fs::openat(
            &*self.folder,
            name,
            flags | OFlags::CLOEXEC | OFlags::NOFOLLOW,
            mode,
        )
        .map_err(|errno| failed("cannot open", &path, errno))?;
        let direct = OnceLock::new();
        if access == Access::Read {
            // It is new: nobody else can have set it.
            let _ = direct.set(Direct::default());
        }
        Ok(Box::new(NativeFile {
            descriptor,
            folder: self.folder.clone(),
            path,
            direct,
            #[cfg(target_os = "linux")]
            view: RwLock::default(),
        }))
    }

    fn remove(&self, name: &str) -> Result<()> {
        rustix::fs::unlinkat(&*self.folder, name, AtFlags::empty())
            .map_err(|errno| failed("cannot remove", &self.path.join(name), errno))
    }

    fn list(&self) -> Result<Vec<String>> {
        let cannot = |errno| failed("cannot list", &self.path, errno);
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&*self.folder).map_err(cannot)? {
            names.extend(entry.map_err(cannot)?.file_name().to_str().ok().map(String::from));
        }
        names.retain(|name| name != "." && name != "..");
        Ok(names)
    }

    fn sync_names(&self) -> Result<()> {
        rustix::fs::fsync(&*self.folder).map_err(|errno| failed("cannot sync the folder", &self.path, errno))
    }

    fn lock(&self, sharing: Sharing) -> Result<Box<dyn DiskLock>> {
        let path = self.path.join(LOCK_NAME);
        let (flags, operation) = match sharing {
            Sharing::Exclusive => (
                OFlags::RDWR | OFlags::CREATE,
                FlockOperation::NonBlockingLockExclusive,
            ),
            Sharing::Shared => (OFlags::RDONLY, FlockOperation::NonBlockingLockShared),
        };
        let mode = Mode::RUSR | Mode::WUSR | Mode::RGRP | Mode::ROTH;
        let open = |flags| rustix::fs::openat(&*self.folder, LOCK_NAME, flags | OFlags::CLOEXEC, mode);
        let opened = match open(flags) {
            // A copy of a store may have no lock file: the writer that comes next is to find one. Where none can be made
            // there is no writer either.
            Err(Errno::NOENT) if sharing == Sharing::Shared => {
                let is_store = self.path.join(STORE_NAME).exists();
                is_store
                    .then(|| open(OFlags::RDWR | OFlags::CREATE).ok())
                    .flatten()
            }
            opened => Some(opened.map_err(|errno| failed("cannot open", &path, errno))?),
        };
        let Some(descriptor) = opened else {
            return Ok(Box::new(NativeLock {
                descriptor: None,
                owner: std::process::id(),
            }));
        };
        match rustix::fs::flock(&descriptor, operation) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(self.busy(&descriptor)),
            Err(errno) => return Err(failed("cannot lock", &path, errno)),
        }
        if sharing == Sharing::Exclusive {
            // The owner's number is for the message of the next opener only.
            let owner = format!("{:<10}\n", std::process::id());
            let _ = rustix::io::pwrite(&descriptor, owner.as_bytes(), 0);
        }
        Ok(Box::new(NativeLock {
            descriptor: Some(descriptor),
            owner: std::process::id(),
        }))
    }

    fn nonce(&self) -> u128 {
        let half = |salt: u64| u128::from(RandomState::new().hash_one((salt, std::process::id())));
        half(0) << 64 | half(1)
    }

    fn place(&self) -> String {
        self.path.display().to_string()
    }
}

impl NativeDisk {
    fn busy(&self, lock: &OwnedFd) -> PagerError {
        let mut text = [0; 10];
        let count = rustix::io::pread(lock, &mut text, 0).unwrap_or(0);
        let owner = std::str::from_utf8(&text[..count]).unwrap_or("").trim();
        let owner = match owner.parse::<u32>() {
            Ok(process) if process == std::process::id() => "this process".into(),
            Ok(process) => format!("process {process}"),
            Err(_) => "another opener".into(),
        };
        PagerError::new(
            PagerErrorKind::Busy,
            format!(
                "the store {} is open in {owner}: close it there, or choose another folder",
                self.path.display()
            ),
        )
    }
}

impl DiskLock for NativeLock {}

/// Given up before the descriptor is closed: a child that is being started may still hold a copy of it. A forked child
/// that goes on as a copy of this process does not give up what its parent holds.
impl Drop for NativeLock {
    fn drop(&mut self) {
        if let Some(descriptor) = self
            .descriptor
            .as_ref()
            .filter(|_| self.owner == std::process::id())
        {
            let _ = rustix::fs::flock(descriptor, FlockOperation::Unlock);
        }
    }
}

impl NativeFile {
    fn failed(&self, what: &str) -> impl Fn(Errno) -> PagerError {
        move |errno| failed(what, &self.path, errno)
    }
}

#[cfg(target_os = "linux")]
impl NativeFile {
    /// Maps the file as long as it is now.
    fn map_again(&self) {
        let mut viewed = self.view.write().unwrap_or_else(PoisonError::into_inner);
        let length = self.length().unwrap_or(0);
        if length > viewed.tried {
            viewed.view = View::new(self.descriptor.as_fd(), length);
            viewed.tried = length;
        }
    }
}

impl DiskFile for NativeFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let mut count = 0;
        while count < buffer.len() {
            match rustix::io::pread(&self.descriptor, &mut buffer[count..], offset + count as u64) {
                Ok(0) => break,
                Ok(read) => count += read,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(self.failed("cannot read")(errno)),
            }
        }
        Ok(count)
    }

    /// `preadv2(2)` with `RWF_NOWAIT`, which also lets the kernel begin to read what is missing.
    #[cfg(target_os = "linux")]
    fn read_cached(&self, offset: u64, buffer: &mut [u8]) -> Result<bool> {
        let mut count = 0;
        while count < buffer.len() {
            let mut rest = [IoSliceMut::new(&mut buffer[count..])];
            let at = offset + count as u64;
            match rustix::io::preadv2(&self.descriptor, &mut rest, at, ReadWriteFlags::NOWAIT) {
                Ok(read @ 1..) => count += read,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(false),
                // The end; Linux 5.9 and 5.10 say so elsewhere, too. Or this file system, or this kernel, cannot tell.
                Ok(0) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
                    count += self.read_at(at, &mut buffer[count..])?;
                    break;
                }
                Err(errno) => return Err(self.failed("cannot read")(errno)),
            }
        }
        buffer[count..].fill(0);
        Ok(true)
    }

    #[cfg(target_os = "linux")]
    fn will_read(&self, offset: u64, length: u64) {
        // Advice that is not taken costs time only.
        let length = std::num::NonZeroU64::new(length);
        let _ = rustix::fs::fadvise(&self.descriptor, offset, length, Advice::WillNeed);
    }

    #[cfg(target_os = "linux")]
    fn show_cached(&self, ranges: &[ByteRange], look: &mut dyn FnMut(Option<&[AtomicU64]>)) {
        let end = ranges.last().map_or(0, |last| last.end);
        let mut viewed = self.view.read().unwrap_or_else(PoisonError::into_inner);
        if viewed.tried < end {
            drop(viewed);
            self.map_again();
            viewed = self.view.read().unwrap_or_else(PoisonError::into_inner);
        }
        match &viewed.view {
            Some(view) => view.show(ranges, look),
            None => ranges.iter().for_each(|_| look(None)),
        }
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let mut count = 0;
        while count < bytes.len() {
            match rustix::io::pwrite(&self.descriptor, &bytes[count..], offset + count as u64) {
                Ok(0) => return Err(self.failed("cannot write")(Errno::IO)),
                Ok(written) => count += written,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(self.failed("cannot write")(errno)),
            }
        }
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        rustix::fs::fdatasync(&self.descriptor).map_err(self.failed("cannot sync"))
    }

    fn write_durably(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let name = || self.path.file_name().unwrap_or_default();
        let direct = self.direct.get_or_init(|| Direct::open(&self.folder, name()));
        if let Some(written) = direct.write(offset, bytes) {
            return written.map_err(self.failed("cannot write and sync"));
        }
        self.write_at(offset, bytes)?;
        self.sync()
    }

    fn length(&self) -> Result<u64> {
        let status = rustix::fs::fstat(&self.descriptor).map_err(self.failed("cannot examine"))?;
        Ok(u64::try_from(status.st_size).unwrap_or(0))
    }

    fn set_len(&self, length: u64) -> Result<()> {
        rustix::fs::ftruncate(&self.descriptor, length).map_err(self.failed("cannot resize"))
    }

    /// `fallocate(2)` first, for space in one piece and an early answer when there is none; then zeroes, because a
    /// write into allocated but unwritten blocks still has to change the file's extents.
    fn preallocate(&self, length: u64) -> Result<()> {
        self.set_len(0)?;
        match rustix::fs::fallocate(&self.descriptor, FallocateFlags::empty(), 0, length) {
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {}
            Err(errno) => return Err(self.failed("cannot reserve space for")(errno)),
        }
        fill_with_zeroes(self, length)
    }

    /// `lseek(2)` with `SEEK_DATA`; a file system without holes answers with the offset itself. The position of the file
    /// is not used otherwise.
    fn next_data(&self, offset: u64) -> Result<Option<u64>> {
        match rustix::fs::seek(&self.descriptor, SeekFrom::Data(offset)) {
            Ok(start) => Ok(Some(start)),
            Err(Errno::NXIO) => Ok(None),
            Err(Errno::INVAL) => Ok((offset < self.length()?).then_some(offset)),
            Err(errno) => Err(self.failed("cannot search")(errno)),
        }
    }

    fn descriptor(&self) -> Option<i32> {
        Some(self.descriptor.as_raw_fd())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::BLOCK_BYTES;

    /// What is shown of `length` bytes from `offset` on.
    #[cfg(target_os = "linux")]
    fn shown(file: &dyn DiskFile, places: &[(u64, u64)]) -> Vec<Option<Vec<u8>>> {
        let ranges: Vec<ByteRange> = places
            .iter()
            .map(|(start, length)| ByteRange::new(*start, start + length))
            .collect();
        let mut shown = Vec::new();
        file.show_cached(&ranges, &mut |words| {
            let bytes = |word: &AtomicU64| word.load(std::sync::atomic::Ordering::Relaxed).to_ne_bytes();
            shown.push(words.map(|words| words.iter().flat_map(bytes).collect()));
        });
        assert_eq!(shown.len(), places.len(), "each range is shown once");
        shown
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_is_in_memory_is_shown_and_nothing_else() {
        const BLOCK: u64 = BLOCK_BYTES as u64;
        let folder = tempfile::tempdir().unwrap();
        let disk = NativeDisk::new(folder.path(), Folder::Existing).unwrap();
        let file = disk.open("image-1", Access::Create).unwrap();
        assert_eq!(shown(&*file, &[(0, BLOCK)]), [None], "an empty file");
        file.set_len(2000 * BLOCK).unwrap();
        let written = |block: u64| vec![(block as u8).wrapping_add(1); BLOCK_BYTES];
        let blocks = [0, 1, 70, 400, 401, 402, 1000, 1999];
        for block in blocks {
            file.write_at(block * BLOCK, &written(block)).unwrap();
        }
        let all: Vec<(u64, u64)> = blocks.iter().map(|block| (block * BLOCK, BLOCK)).collect();
        // The system may have taken some of it from memory.
        let is_right =
            |shown: &Option<Vec<u8>>, bytes: &[u8]| shown.as_deref().is_none_or(|shown| shown == bytes);
        let found = shown(&*file, &all);
        for (block, found) in blocks.iter().zip(&found) {
            assert!(is_right(found, &written(*block)), "block {block}");
        }
        assert!(found.iter().any(Option::is_some), "none of it is in memory");
        // A hole is in no memory, or in a large folio of zeroes; what lies behind the end is nowhere.
        let places = [
            (0, BLOCK),
            (60 * BLOCK, 11 * BLOCK),
            (500 * BLOCK, BLOCK),
            (1000 * BLOCK, BLOCK),
            (1999 * BLOCK, 2 * BLOCK),
            (5000 * BLOCK, BLOCK),
            (2_000_000 * BLOCK, BLOCK),
            (2_000_002 * BLOCK, BLOCK),
        ];
        let found = shown(&*file, &places);
        assert!(is_right(&found[0], &written(0)) && is_right(&found[3], &written(1000)));
        assert!(
            found[1]
                .as_ref()
                .is_none_or(|shown| shown.ends_with(&written(70)))
        );
        assert!(
            found[2]
                .as_ref()
                .is_none_or(|shown| shown.iter().all(|byte| *byte == 0))
        );
        assert_eq!(found[4..], [const { None }; 4]);
        // A longer file, and a write under the eyes of who looks.
        file.write_at(1000 * BLOCK, &written(7)).unwrap();
        file.write_at(5000 * BLOCK, &written(8)).unwrap();
        let places = [(1000 * BLOCK, BLOCK), (5000 * BLOCK, BLOCK)];
        let found = shown(&*file, &places);
        assert!(is_right(&found[0], &written(7)) && is_right(&found[1], &written(8)));
        // More than the kernel is asked about at once.
        let long: Vec<u8> = (0..600).flat_map(written).collect();
        file.write_at(0, &long).unwrap();
        let parts = shown(&*file, &[(0, 300 * BLOCK), (300 * BLOCK, 300 * BLOCK)]);
        let (first, second) = long.split_at(300 * BLOCK_BYTES);
        assert!(is_right(&parts[0], first) && is_right(&parts[1], second));
        // What was looked at before, so that the kernel is asked about all of it at once, and is gone.
        file.set_len(0).unwrap();
        file.set_len(2000 * BLOCK).unwrap();
        file.write_at(3 * BLOCK, &written(9)).unwrap();
        let found = shown(
            &*file,
            &[(3 * BLOCK, BLOCK), (200 * BLOCK, BLOCK), (599 * BLOCK, BLOCK)],
        );
        assert!(is_right(&found[0], &written(9)));
        let is_gone = |shown: &Vec<u8>| shown.iter().all(|byte| *byte == 0);
        assert!(found[1..].iter().flatten().all(is_gone));
    }

    #[test]
    fn what_is_written_past_the_cache_and_through_it_is_read_in_order() {
        const LENGTH: usize = 16 * BLOCK_BYTES;
        let folder = tempfile::tempdir().unwrap();
        let disk = NativeDisk::new(folder.path(), Folder::Existing).unwrap();
        let file = disk.open("journal-0", Access::Create).unwrap();
        file.preallocate(LENGTH as u64).unwrap();
        let mut expected = vec![0; LENGTH];
        let mut room = vec![0; LENGTH + BLOCK_BYTES];
        let aligned = room.as_ptr().align_offset(BLOCK_BYTES);
        for round in 1..=200_usize {
            // Whole blocks in aligned memory, the same in other memory, parts of blocks, in turn.
            let (start, length) = match round % 3 {
                0 => (round % 16 * BLOCK_BYTES, BLOCK_BYTES),
                1 => (round % 15 * BLOCK_BYTES, 2 * BLOCK_BYTES),
                _ => (round * 317 % (LENGTH - 5000), 5000),
            };
            let from = aligned + usize::from(round % 2 == 0) * 8;
            room[from..from + length].fill(round as u8);
            expected[start..start + length].fill(round as u8);
            let bytes = &room[from..from + length];
            if round % 5 == 0 {
                file.write_at(start as u64, bytes).unwrap();
            } else {
                file.write_durably(start as u64, bytes).unwrap();
            }
            let mut read = vec![0xff; LENGTH];
            assert_eq!(file.read_at(0, &mut read).unwrap(), LENGTH);
            assert!(read == expected, "round {round}");
        }
        assert_eq!(file.length().unwrap(), LENGTH as u64);
        let unwritable = disk.open("journal-0", Access::Read).unwrap();
        let block = &room[aligned..aligned + BLOCK_BYTES];
        assert!(
            unwritable.write_durably(0, block).is_err(),
            "it was opened for reading"
        );
    }
}
