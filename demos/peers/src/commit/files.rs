//! What the operating system offers without us: `msync(2)`, and the floor below everybody.

use std::{
    fs::{File, OpenOptions},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use rustix::{
    fs::FallocateFlags,
    mm::{MapFlags, MsyncFlags, ProtFlags},
};

use crate::{
    contender::{Contender, Spent, rate_of, timed},
    workload::{Change, PAGE, REGION, Workload},
};

/// The size of the file that is opened, in bytes.
const LARGE: u64 = 10 << 30;

/// A shared mapping of a file, and `msync(MS_SYNC)` over all of it: not atomic.
pub struct Shared {
    base: Base,
    large: PathBuf,
}

/// Where a mapping begins; it lives until the process ends.
#[derive(Clone, Copy)]
struct Base(*mut u8);

// SAFETY: an address; what is done with it says for itself why it is right.
unsafe impl Send for Base {}

impl Base {
    fn store(self, offset: u64, value: u64) {
        assert!(offset.is_multiple_of(8) && offset < REGION);
        // SAFETY: inside the mapping and aligned; threads store to pages of their own.
        unsafe { self.0.add(offset as usize).cast::<u64>().write_volatile(value) };
    }

    fn fill(self, start: u64, length: u64, value: u8) {
        assert!(start + length <= REGION);
        // SAFETY: inside the mapping, which one thread uses.
        unsafe { self.0.add(start as usize).write_bytes(value, length as usize) };
    }

    fn sync(self, start: u64, length: u64) -> Result<()> {
        assert!(start.is_multiple_of(PAGE) && start + length <= REGION);
        // SAFETY: the range is inside the mapping.
        unsafe {
            rustix::mm::msync(
                self.0.add(start as usize).cast(),
                length as usize,
                MsyncFlags::SYNC,
            )
        }?;
        Ok(())
    }
}

fn map_shared(file: &File, length: u64) -> Result<Base> {
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a new mapping, kept until the process ends; nobody truncates the file.
    let base = unsafe {
        rustix::mm::mmap(
            std::ptr::null_mut(),
            length as usize,
            protection,
            MapFlags::SHARED,
            file,
            0,
        )
    }?;
    Ok(Base(base.cast()))
}

impl Shared {
    /// A mapped file of 1 GiB that was written in full.
    ///
    /// # Errors
    /// Whatever goes wrong.
    pub fn new(folder: &Path) -> Result<Self> {
        let file = create_written(&folder.join("shared"), REGION)?;
        let large = folder.join("shared-large");
        File::create(&large)?.set_len(LARGE)?;
        Ok(Self {
            base: map_shared(&file, REGION)?,
            large,
        })
    }
}

impl Contender for Shared {
    fn name(&self) -> &'static str {
        "msync(MS_SYNC)"
    }

    fn commit(&mut self, workload: Workload, change: &Change) -> Result<Spent> {
        let ((), made) = timed(|| {
            match change {
                Change::Stores { stores, .. } => stores
                    .iter()
                    .for_each(|(offset, value)| self.base.store(*offset, *value)),
                Change::Fill { start, length, value } => self.base.fill(*start, *length, *value),
            }
            Ok(())
        })?;
        let (start, length) = workload.range(change);
        let ((), commit) = timed(|| self.base.sync(start, length))?;
        Ok(Spent { change: made, commit })
    }

    fn rate(&mut self, threads: usize, time: Duration) -> Result<Option<f64>> {
        let base = self.base;
        let committers = (0..threads as u64).map(|index| {
            move |count: usize| {
                // The whole of it goes into the closure, not its pointer.
                let base: Base = { base };
                base.store(index * PAGE, count as u64);
                base.sync(index * PAGE, PAGE)
            }
        });
        Ok(Some(rate_of(committers.collect(), time)?))
    }

    /// A sparse file of 10 GiB: opened, mapped, and its first page read.
    fn open(&mut self) -> Result<Option<f64>> {
        let ((), seconds) = timed(|| {
            let file = OpenOptions::new().read(true).write(true).open(&self.large)?;
            let base = map_shared(&file, LARGE)?;
            // SAFETY: the first byte of the mapping.
            std::hint::black_box(unsafe { base.0.read_volatile() });
            Ok(())
        })?;
        Ok(Some(seconds))
    }
}

/// One sequential write of as many bytes as our commit put into its journal, then `fdatasync`, into a preallocated and
/// already written file: the least that anything durable costs on this disk.
pub struct Floor {
    file: File,
    position: u64,
    bytes: u64,
    /// Seconds of the fastest [`Floor::rest`].
    fastest: f64,
}

impl Floor {
    const SIZE: u64 = 256 << 20;
    /// How many small writes are to be fast in a row, and how many there are at most.
    const RESTED: usize = 4;
    const RESTS_MAX: usize = 200;

    /// The file.
    ///
    /// # Errors
    /// Whatever goes wrong.
    pub fn new(folder: &Path) -> Result<Self> {
        Ok(Self {
            file: create_written(&folder.join("floor"), Self::SIZE)?,
            position: 0,
            bytes: 0,
            fastest: f64::INFINITY,
        })
    }

    /// Writes a page and syncs it, again and again, until the drive is as fast as it was: whoever comes next does not pay for what was
    /// asked of it before, and finds the processors awake.
    ///
    /// # Errors
    /// Whatever goes wrong.
    pub fn rest(&mut self) -> Result<()> {
        let mut fast = 0;
        for _ in 0..Self::RESTS_MAX {
            self.bytes = PAGE;
            let spent = self.commit()?.commit;
            self.fastest = self.fastest.min(spent);
            fast = if spent < 1.5 * self.fastest { fast + 1 } else { 0 };
            if fast == Self::RESTED {
                break;
            }
        }
        Ok(())
    }

    /// How many bytes the next commits write.
    pub fn set_bytes(&mut self, bytes: u64) {
        self.bytes = bytes;
    }

    /// Writes them.
    ///
    /// # Errors
    /// Whatever goes wrong.
    pub fn commit(&mut self) -> Result<Spent> {
        let buffer: Vec<u8> = (0..self.bytes)
            .map(|index| (index ^ self.position) as u8)
            .collect();
        if self.position + self.bytes > Self::SIZE {
            self.position = 0;
        }
        let ((), commit) = timed(|| {
            self.file.write_all_at(&buffer, self.position)?;
            Ok(self.file.sync_data()?)
        })?;
        self.position += self.bytes;
        Ok(Spent { change: 0.0, commit })
    }
}

/// A file of `size` bytes, preallocated and written, so that no sync has to wait for metadata.
fn create_written(path: &Path, size: u64) -> Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)
        .with_context(|| format!("cannot create {}", path.display()))?;
    rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, size).context("cannot preallocate")?;
    let chunk = vec![1u8; 1 << 20];
    for index in 0..size >> 20 {
        file.write_all_at(&chunk, index << 20)?;
    }
    file.sync_all()?;
    Ok(file)
}
