//! [`SimDisk`]: the disk that a store runs on here. It keeps a trace of every change, and fails on demand.
//!
//! Invariants:
//! - a read sees every write before it, as a page cache does, also what a failed sync lost;
//! - only changes are traced; they and reads are counted, each on their own, and failed;
//! - the clock and the operating system are never asked.

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use vmsync_core::{PagerError, PagerErrorKind};
use vmsync_pager_file::disk::{Access, Disk, DiskFile, DiskLock, Result, Sharing};

use crate::{
    canary::Canary,
    platter::{Change, FileNumber, Image, Tear, sectors, write},
};

/// How an operation fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// `EIO`: some sectors are written; of a sync: pending writes are lost, torn or not, and count as clean.
    Io,
    /// `ENOSPC`, the same way.
    NoSpace,
    /// A write stops in the middle.
    Short,
    /// An error although everything was done.
    FalseAlarm,
    /// `EIO` of a read, a length, a list or the opening of a file that is there.
    Read,
}

/// What every operation of a killed process says.
pub const KILLED: &str = "the process was killed:";

/// Operations that fail: those of some numbers that are done to some place.
#[derive(Clone, Debug)]
pub struct Fault {
    /// Which: changes, or reads where these fail.
    pub operations: Range<u64>,
    /// Where.
    pub place: Place,
    /// Of changes, which of those done there.
    pub deeds: Deeds,
    /// How.
    pub failure: Failure,
}

/// What a fault hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Everything.
    Anywhere,
    /// Files whose names begin and end so.
    Files(&'static str, &'static str),
    /// What makes a file longer: there is room for nothing more.
    Room,
}

/// What of all that is done to a place a fault hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deeds {
    /// All.
    All,
    /// Writes and lengths, while syncs succeed.
    Writes,
    /// Syncs, while writes succeed.
    Syncs,
}

/// A disk in memory.
#[derive(Clone, Default)]
pub struct SimDisk(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    names: BTreeMap<String, FileNumber>,
    files: BTreeMap<FileNumber, Arc<Vec<u8>>>,
    file_next: FileNumber,
    trace: Option<Vec<Change>>,
    faults: Vec<Fault>,
    /// Failures that are not told, and what a process forgets.
    bug: Option<Canary>,
    /// What a segment was before its last write, where that is forgotten.
    segment_before: Option<(FileNumber, Arc<Vec<u8>>)>,
    failed: u64,
    operations: u64,
    reads: u64,
    /// Reads that were asked not to wait.
    cached_reads: u64,
    nonces: u64,
    /// The operation from which on nothing has an effect.
    frozen_from: Option<u64>,
    writer: bool,
    readers: usize,
}

impl SimDisk {
    /// A disk that holds `image`. `nonces` makes the stores on it differ from those on others.
    pub fn new(image: &Image, nonces: u64) -> Self {
        let mut state = State {
            nonces,
            ..State::default()
        };
        for (name, bytes) in image {
            state.names.insert(name.clone(), state.file_next);
            state.files.insert(state.file_next, bytes.clone());
            state.file_next += 1;
        }
        Self(Arc::new(Mutex::new(state)))
    }

    /// The same, with a trace of all changes.
    pub fn traced(image: &Image, nonces: u64) -> Self {
        let disk = Self::new(image, nonces);
        disk.state().trace = Some(Vec::new());
        disk
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many changes were traced.
    pub fn position(&self) -> usize {
        self.state().trace.as_ref().map_or(0, Vec::len)
    }

    /// Takes the trace.
    pub fn take_trace(&self) -> Vec<Change> {
        self.state().trace.take().unwrap_or_default()
    }

    /// How many changing operations were asked for.
    pub fn operations(&self) -> u64 {
        self.state().operations
    }

    /// How many reads were asked for.
    pub fn reads(&self) -> u64 {
        self.state().reads
    }

    /// How many failed on demand.
    pub fn failed(&self) -> u64 {
        self.state().failed
    }

    /// Keeps failures from the store that `bug` ignores, and from processes what it forgets.
    pub fn spoil(&self, bug: Option<Canary>) {
        self.state().bug = bug;
    }

    /// Adds a fault.
    pub fn inject(&self, fault: Fault) {
        self.state().faults.push(fault);
    }

    /// Removes all faults.
    pub fn heal(&self) {
        self.state().faults.clear();
    }

    /// The process is killed: from now on nothing it does has an effect.
    pub fn freeze(&self) {
        self.kill_after(0);
    }

    /// The process is killed when it has done so many more operations.
    pub fn kill_after(&self, operations: u64) {
        let mut state = self.state();
        state.frozen_from = Some(state.operations + operations);
    }

    /// Whether it was.
    pub fn is_frozen(&self) -> bool {
        self.state().is_frozen()
    }

    /// A new process: no locks are left of the one before.
    pub fn thaw(&self) {
        let mut state = self.state();
        if let Some((file, content)) = state.segment_before.take() {
            state.apply(Change::Write(file, 0, content.as_slice().into()));
            state.segment_before = None;
        }
        (state.frozen_from, state.writer, state.readers) = (None, false, 0);
    }

    /// Everything as reads see it.
    pub fn image(&self) -> Image {
        let state = self.state();
        let entry = |(name, file): (&String, &FileNumber)| (name.clone(), state.files[file].clone());
        state.names.iter().map(entry).collect()
    }
}

fn error(kind: PagerErrorKind, what: &str, name: &str) -> PagerError {
    PagerError::new(kind, format!("{what} {name}"))
}

/// A seed from a small number.
fn scatter(number: u64) -> u64 {
    number.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl Place {
    fn has(self, name: &str, lengthens: impl FnOnce() -> bool) -> bool {
        match self {
            Self::Anywhere => true,
            Self::Files(front, back) => name.starts_with(front) && name.ends_with(back),
            Self::Room => lengthens(),
        }
    }
}

impl Deeds {
    fn has(self, change: &Change) -> bool {
        match self {
            Self::All => true,
            Self::Writes => matches!(change, Change::Write(..) | Change::SetLength(..)),
            Self::Syncs => matches!(change, Change::Sync(_) | Change::SyncNames),
        }
    }
}

impl State {
    fn is_frozen(&self) -> bool {
        self.frozen_from.is_some_and(|from| self.operations >= from)
    }

    fn attempt(&mut self, name: &str, change: Change) -> Result<()> {
        if self.is_frozen() {
            return Err(error(PagerErrorKind::Io, KILLED, name));
        }
        let number = self.operations;
        self.operations += 1;
        let hits = |fault: &&Fault| {
            let counts = fault.failure != Failure::Read && fault.operations.contains(&number);
            counts && fault.deeds.has(&change) && fault.place.has(name, || self.lengthens(&change))
        };
        let hit = self.faults.iter().find(hits);
        let Some(failure) = hit.map(|fault| fault.failure) else {
            self.apply(change);
            return Ok(());
        };
        self.failed += 1;
        let sync = matches!(change, Change::Sync(_) | Change::SyncNames);
        // Without a file nobody can go on.
        let create = matches!(change, Change::Create(..));
        match (failure, change) {
            (Failure::FalseAlarm, change) => self.apply(change),
            (_, Change::Sync(file)) => self.apply(Change::Lose(file, scatter(number))),
            (Failure::Short, Change::Write(file, offset, bytes)) => {
                self.apply(Change::Write(file, offset, bytes[..bytes.len() / 2].into()));
            }
            (Failure::Io | Failure::NoSpace, Change::Write(file, offset, bytes)) => {
                let tear = Tear::Some(scatter(number));
                for (_, start, part) in sectors(offset, &bytes).filter(|(sector, ..)| tear.keeps(*sector)) {
                    self.apply(Change::Write(file, start, part.into()));
                }
            }
            _ => {}
        }
        if !create && self.bug.is_some_and(|bug| bug.ignores(failure, sync)) {
            return Ok(());
        }
        let kind = match failure {
            Failure::NoSpace => PagerErrorKind::NoSpace,
            _ => PagerErrorKind::Io,
        };
        Err(error(kind, "an injected error on", name))
    }

    /// Whether the next read works; `false`: it fails, and the store is not told.
    fn attempt_read(&mut self, name: &str) -> Result<bool> {
        let number = self.reads;
        self.reads += 1;
        let hits = |fault: &Fault| {
            let counts = fault.failure == Failure::Read && fault.operations.contains(&number);
            counts && fault.place.has(name, || false)
        };
        if !self.faults.iter().any(hits) {
            return Ok(true);
        }
        self.failed += 1;
        match self.bug.is_some_and(|bug| bug.ignores(Failure::Read, false)) {
            true => Ok(false),
            false => Err(error(PagerErrorKind::Io, "an injected error reading", name)),
        }
    }

    fn lengthens(&self, change: &Change) -> bool {
        match change {
            Change::Write(file, offset, bytes) => offset + bytes.len() > self.files[file].len(),
            Change::SetLength(file, length) => *length > self.files[file].len(),
            _ => false,
        }
    }

    fn apply(&mut self, change: Change) {
        match &change {
            Change::Create(name, file) => {
                self.names.insert(name.clone(), *file);
                self.files.insert(*file, Arc::default());
                self.file_next = self.file_next.max(file + 1);
            }
            Change::Remove(name) => drop(self.names.remove(name)),
            Change::Write(file, offset, bytes) => {
                if self.bug == Some(Canary::SegmentOld) && self.is_segment(*file) {
                    self.segment_before = Some((*file, self.files[file].clone()));
                }
                write(self.content(*file), *offset, bytes);
            }
            Change::SetLength(file, length) => self.content(*file).resize(*length, 0),
            Change::SyncNames | Change::Sync(_) | Change::Lose(..) => {}
        }
        if let Some(trace) = &mut self.trace {
            trace.push(change);
        }
    }

    fn is_segment(&self, file: FileNumber) -> bool {
        let mut names = self.names.iter();
        names.any(|(name, number)| *number == file && name.starts_with("journal-"))
    }

    fn content(&mut self, file: FileNumber) -> &mut Vec<u8> {
        Arc::make_mut(self.files.get_mut(&file).expect("files stay as long as the disk"))
    }
}

struct SimFile {
    disk: SimDisk,
    name: String,
    file: FileNumber,
    writes: bool,
}

impl SimFile {
    fn attempt(&self, change: Change) -> Result<()> {
        if !self.writes {
            return Err(error(PagerErrorKind::Denied, "opened for reading:", &self.name));
        }
        self.disk.state().attempt(&self.name, change)
    }
}

impl DiskFile for SimFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let mut state = self.disk.state();
        if !state.attempt_read(&self.name)? {
            return Ok(0);
        }
        let content = &state.files[&self.file];
        let start = usize::try_from(offset).map_or(content.len(), |start| start.min(content.len()));
        let count = buffer.len().min(content.len() - start);
        buffer[..count].copy_from_slice(&content[start..start + count]);
        Ok(count)
    }

    /// Every third would have to wait.
    fn read_cached(&self, offset: u64, buffer: &mut [u8]) -> Result<bool> {
        let number = {
            let mut state = self.disk.state();
            state.cached_reads += 1;
            state.cached_reads
        };
        let count = self.read_at(offset, buffer)?;
        buffer[count..].fill(0);
        Ok(!number.is_multiple_of(3))
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.attempt(Change::Write(self.file, to_usize(offset), bytes.into()))
    }

    fn sync(&self) -> Result<()> {
        self.attempt(Change::Sync(self.file))
    }

    fn length(&self) -> Result<u64> {
        let mut state = self.disk.state();
        let works = state.attempt_read(&self.name)?;
        Ok(if works {
            state.files[&self.file].len() as u64
        } else {
            0
        })
    }

    fn set_len(&self, length: u64) -> Result<()> {
        self.attempt(Change::SetLength(self.file, to_usize(length)))
    }
}

struct SimLock {
    disk: SimDisk,
    sharing: Sharing,
}

impl DiskLock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut state = self.disk.state();
        match self.sharing {
            Sharing::Exclusive => state.writer = false,
            Sharing::Shared => state.readers = state.readers.saturating_sub(1),
        }
    }
}

impl Disk for SimDisk {
    fn open(&self, name: &str, access: Access) -> Result<Box<dyn DiskFile>> {
        let mut state = self.state();
        let file = match state.names.get(name).copied() {
            Some(file) => {
                // Without a file nobody can go on: this is told even where failures are ignored.
                if !state.attempt_read(name)? {
                    return Err(error(PagerErrorKind::Io, "an injected error on", name));
                }
                file
            }
            None if access == Access::Create => {
                let file = state.file_next;
                state.attempt(name, Change::Create(name.into(), file))?;
                file
            }
            None => return Err(error(PagerErrorKind::NotFound, "no file", name)),
        };
        Ok(Box::new(SimFile {
            disk: self.clone(),
            name: name.into(),
            file,
            writes: access != Access::Read,
        }))
    }

    fn remove(&self, name: &str) -> Result<()> {
        let mut state = self.state();
        if !state.names.contains_key(name) {
            return Err(error(PagerErrorKind::NotFound, "no file", name));
        }
        state.attempt(name, Change::Remove(name.into()))
    }

    fn list(&self) -> Result<Vec<String>> {
        let mut state = self.state();
        let works = state.attempt_read("the folder")?;
        Ok(state.names.keys().filter(|_| works).cloned().collect())
    }

    fn sync_names(&self) -> Result<()> {
        self.state().attempt("the folder", Change::SyncNames)
    }

    fn lock(&self, sharing: Sharing) -> Result<Box<dyn DiskLock>> {
        let mut state = self.state();
        if state.writer || (sharing == Sharing::Exclusive && state.readers > 0) {
            return Err(error(PagerErrorKind::Busy, "it is open:", "the simulated disk"));
        }
        match sharing {
            Sharing::Exclusive => state.writer = true,
            Sharing::Shared => state.readers += 1,
        }
        drop(state);
        Ok(Box::new(SimLock {
            disk: self.clone(),
            sharing,
        }))
    }

    fn nonce(&self) -> u128 {
        let mut state = self.state();
        state.nonces += 1;
        u128::from(state.nonces).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)
    }

    fn place(&self) -> String {
        "simulated disk".into()
    }
}

/// For offsets into files that are in memory.
fn to_usize(offset: u64) -> usize {
    usize::try_from(offset).expect("a file in memory")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_to_a_file_fail_while_syncs_succeed_and_the_reverse() {
        let cases = [
            (Deeds::All, false, false),
            (Deeds::Writes, false, true),
            (Deeds::Syncs, true, false),
        ];
        for (deeds, writes, syncs) in cases {
            let disk = SimDisk::new(&Image::new(), 0);
            let bad = disk.open("journal-1", Access::Create).unwrap();
            let good = disk.open("journal-2", Access::Create).unwrap();
            disk.inject(Fault {
                operations: 0..100,
                place: Place::Files("journal-1", ""),
                deeds,
                failure: Failure::Io,
            });
            assert_eq!(bad.write_at(0, &[1]).is_ok(), writes, "{deeds:?}");
            assert_eq!(bad.set_len(1).is_ok(), writes, "{deeds:?}");
            assert_eq!(bad.sync().is_ok(), syncs, "{deeds:?}");
            good.write_at(0, &[1]).unwrap();
            good.sync().unwrap();
        }
    }
}
