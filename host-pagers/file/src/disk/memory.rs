//! [`MemoryDisk`]: a disk in memory that knows what a power cut may take, and fails on demand.
//!
//! ```text
//!   MemoryDisk -- Mutex --> Platter { names, files: now | durable + unsynced changes }
//!       |                      '-- trace: every change, for a simulator that replays prefixes of it
//!       '-- Faults: the nth operation fails, or everything does
//! ```
//!
//! Invariants:
//! - what `sync` covered is in `durable`; everything else is in `unsynced`, in order, cut at sectors;
//! - what a failed `sync` covered is read back, and no later `sync` makes it durable, as on Linux;
//! - the clock and the operating system are never asked: the same operations give the same disk.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use vmsync_core::{PagerError, PagerErrorKind};

use crate::{
    disk::{Access, Disk, DiskFile, DiskLock, Result, Sharing},
    limits::SECTOR_BYTES,
};

/// One change to the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A name appeared with an empty file.
    Create(String),
    /// A name went.
    Remove(String),
    /// Names became durable.
    SyncNames,
    /// Bytes were written.
    Write(String, u64, Vec<u8>),
    /// The length was set.
    SetLength(String, u64),
    /// A file became durable.
    Sync(String),
    /// A sync failed: what was written is still read, and no later sync will make it durable.
    Lose(String),
}

/// How an operation fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// `EIO`; nothing is changed.
    Io,
    /// `ENOSPC`; nothing is changed.
    NoSpace,
    /// A write stops in the middle, and the rest is an error.
    Short,
    /// A `sync` that reports an error although everything was written, or a write that arrives although it failed.
    FalseAlarm,
    /// The disk's own code panics.
    Panic,
}

/// When an operation fails.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// How many changing operations succeed before.
    pub after: u64,
    /// How many fail from then on.
    pub count: u64,
    /// How.
    pub failure: Failure,
}

/// Which unsynced change survives a power cut; the argument names its file and the number of the change in it.
pub type Survives<'a> = &'a mut dyn FnMut(&str, usize) -> bool;

/// Files in memory.
#[derive(Clone, Default)]
pub struct MemoryDisk {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    platter: Mutex<Platter>,
    readers: AtomicU64,
    cold: AtomicBool,
    held: Mutex<Held>,
    released: Condvar,
}

/// Changes of a file wait; see [`MemoryDisk::hold`].
pub struct Hold(MemoryDisk);

/// A file whose changes wait, how many do, and writes that fail.
#[derive(Default)]
struct Held {
    name: Option<String>,
    waiting: usize,
    refused: Vec<(String, u64)>,
    full: Option<String>,
}

/// What the disk holds.
#[derive(Clone, Default)]
struct Platter {
    files: BTreeMap<String, File>,
    durable_names: BTreeMap<String, File>,
    trace: Vec<Change>,
    faults: Vec<Fault>,
    operations: u64,
    nonces: u64,
    writer: bool,
}

type File = Arc<Mutex<Content>>;

#[derive(Clone, Default)]
struct Content {
    now: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<Unsynced>,
}

/// A change of a file that a power cut may take.
#[derive(Clone)]
enum Unsynced {
    Bytes(usize, Vec<u8>),
    Length(usize),
}

struct MemoryFile {
    disk: MemoryDisk,
    name: String,
    file: File,
    access: Access,
}

struct MemoryLock {
    disk: MemoryDisk,
    sharing: Sharing,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn error(kind: PagerErrorKind, what: &str, name: &str) -> PagerError {
    PagerError::new(kind, format!("{what} {name}"))
}

impl MemoryDisk {
    /// An empty disk.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a fault.
    pub fn inject(&self, fault: Fault) {
        lock(&self.shared.platter).faults.push(fault);
    }

    /// Removes all faults.
    pub fn heal(&self) {
        lock(&self.shared.platter).faults.clear();
    }

    /// Whether the drive would have to be waited for, from now on, to read anything.
    pub fn set_cold(&self, cold: bool) {
        self.shared.cold.store(cold, Ordering::Relaxed);
    }

    /// Has writes from an offset on to files whose names begin so fail, until it is others or none.
    pub fn refuse(&self, writes: &[(&str, u64)]) {
        let owned = |(front, offset): &(&str, u64)| ((*front).to_owned(), *offset);
        lock(&self.shared.held).refused = writes.iter().map(owned).collect();
    }

    /// Has the disk be full for writes to files whose names begin so, until it is others or none.
    pub fn fill_up(&self, front: Option<&str>) {
        lock(&self.shared.held).full = front.map(str::to_owned);
    }

    /// Has changes of the file `name` wait while the answer lives.
    pub fn hold(&self, name: &str) -> Hold {
        lock(&self.shared.held).name = Some(name.into());
        Hold(self.clone())
    }

    /// How many changes wait.
    pub fn waiting(&self) -> usize {
        lock(&self.shared.held).waiting
    }

    /// How many changing operations were asked for.
    pub fn operations(&self) -> u64 {
        lock(&self.shared.platter).operations
    }

    /// Every change so far.
    pub fn trace(&self) -> Vec<Change> {
        lock(&self.shared.platter).trace.clone()
    }

    /// Does `change` without faults.
    ///
    /// # Panics
    /// When the file of the change does not exist.
    pub fn replay(&self, change: &Change) {
        let mut platter = lock(&self.shared.platter);
        platter.apply(change);
    }

    /// How many unsynced changes each file has, and how many names differ from the durable ones.
    pub fn unsynced(&self) -> Vec<(String, usize)> {
        let platter = lock(&self.shared.platter);
        let count = |(name, file): (&String, &File)| (name.clone(), lock(file).unsynced.len());
        let mut counts: Vec<_> = platter
            .files
            .iter()
            .map(count)
            .filter(|(_, count)| *count > 0)
            .collect();
        let names: Vec<_> = platter.files.keys().chain(platter.durable_names.keys()).collect();
        let differs = |name: &&&String| {
            platter.files.contains_key(**name) != platter.durable_names.contains_key(**name)
        };
        let mut different: Vec<_> = names
            .iter()
            .filter(differs)
            .map(|name| (**name).clone())
            .collect();
        different.dedup();
        counts.extend(different.into_iter().map(|name| (format!("/{name}"), 1)));
        counts
    }

    /// The disk after a power cut: durable content plus the unsynced changes that `survives`. A name that is not
    /// durable is asked for as `/name`.
    #[must_use]
    pub fn after_power_cut(&self, survives: Survives<'_>) -> Self {
        let platter = lock(&self.shared.platter);
        let mut left = Platter {
            nonces: platter.nonces + 1,
            ..Platter::default()
        };
        let mut names: Vec<&String> = platter.files.keys().chain(platter.durable_names.keys()).collect();
        names.sort();
        names.dedup();
        for name in names {
            let (now, durable) = (platter.files.get(name), platter.durable_names.get(name));
            let file = match (now, durable) {
                (Some(now), Some(durable)) if Arc::ptr_eq(now, durable) => now,
                (now, durable) => {
                    let newer = survives(&format!("/{name}"), 0);
                    let Some(file) = (if newer { now } else { durable }) else {
                        continue;
                    };
                    file
                }
            };
            let content = lock(file).after_power_cut(&mut |number| survives(name, number));
            left.files.insert(name.clone(), Arc::new(Mutex::new(content)));
        }
        left.durable_names = left.files.clone();
        Self {
            shared: Arc::new(Shared {
                platter: Mutex::new(left),
                ..Shared::default()
            }),
        }
    }

    /// The disk after the process was killed: every change is there, and no lock.
    #[must_use]
    pub fn after_kill(&self) -> Self {
        self.after_power_cut(&mut |_, _| true)
    }

    /// The same, where a power cut may still take what was not synced.
    #[must_use]
    pub fn after_kill_unsynced(&self) -> Self {
        let platter = lock(&self.shared.platter);
        let mut left = Platter {
            nonces: platter.nonces + 1,
            ..Platter::default()
        };
        let copy = |file: &File| Arc::new(Mutex::new(lock(file).clone()));
        for (name, file) in &platter.files {
            left.files.insert(name.clone(), copy(file));
        }
        for (name, file) in &platter.durable_names {
            let same = platter.files.get(name).filter(|now| Arc::ptr_eq(now, file));
            let kept = same.map_or_else(|| copy(file), |_| left.files[name].clone());
            left.durable_names.insert(name.clone(), kept);
        }
        Self {
            shared: Arc::new(Shared {
                platter: Mutex::new(left),
                ..Shared::default()
            }),
        }
    }

    /// The content of a file.
    pub fn content(&self, name: &str) -> Option<Vec<u8>> {
        let platter = lock(&self.shared.platter);
        platter.files.get(name).map(|file| lock(file).now.clone())
    }

    /// Changes a file behind the store's back.
    ///
    /// # Panics
    /// When there is no such file.
    pub fn tamper(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let platter = lock(&self.shared.platter);
        let mut content = lock(platter.files.get(name).expect("the file to tamper with"));
        change(&mut content.now);
        content.durable = content.now.clone();
        content.unsynced.clear();
    }

    /// Starts a changing operation: counts it, and says how it is to fail.
    fn begin(&self) -> Option<Failure> {
        let mut platter = lock(&self.shared.platter);
        let number = platter.operations;
        platter.operations += 1;
        let hits = |fault: &&Fault| number >= fault.after && number - fault.after < fault.count;
        platter.faults.iter().find(hits).map(|fault| fault.failure)
    }

    /// Changes names, or what is in the file `of`: that goes nowhere where the name has gone, be it a moment ago.
    fn change(&self, change: Change, of: Option<&MemoryFile>) {
        let mut platter = lock(&self.shared.platter);
        if of.is_some_and(|file| !file.is_named(&platter)) {
            return;
        }
        platter.apply(&change);
        platter.trace.push(change);
    }

    /// A changing operation without a middle.
    fn attempt(&self, name: &str, change: Change, of: Option<&MemoryFile>) -> Result<()> {
        match self.begin() {
            None => self.change(change, of),
            Some(Failure::NoSpace) => return Err(error(PagerErrorKind::NoSpace, "no space for", name)),
            Some(Failure::FalseAlarm) => {
                self.change(change, of);
                return Err(error(PagerErrorKind::Io, "injected false alarm on", name));
            }
            Some(Failure::Panic) => panic!("injected panic on {name}"),
            Some(Failure::Io | Failure::Short) => {
                return Err(error(PagerErrorKind::Io, "injected I/O error on", name));
            }
        }
        Ok(())
    }
}

impl Platter {
    fn apply(&mut self, change: &Change) {
        match change {
            Change::Create(name) => {
                self.files.insert(name.clone(), File::default());
            }
            Change::Remove(name) => {
                self.files.remove(name);
            }
            Change::SyncNames => self.durable_names = self.files.clone(),
            Change::Write(name, offset, bytes) => self.content(name).write(*offset, bytes),
            Change::SetLength(name, length) => self.content(name).set_length(*length),
            Change::Sync(name) => self.content(name).sync(),
            Change::Lose(name) => self.content(name).unsynced.clear(),
        }
    }

    fn content(&self, name: &str) -> MutexGuard<'_, Content> {
        lock(self.files.get(name).expect("a change names an existing file"))
    }
}

impl Content {
    fn write(&mut self, offset: u64, bytes: &[u8]) {
        let mut start = to_usize(offset);
        let mut rest = bytes;
        while !rest.is_empty() {
            let count = rest.len().min(SECTOR_BYTES - start % SECTOR_BYTES);
            let (sector, behind) = rest.split_at(count);
            let change = Unsynced::Bytes(start, sector.to_vec());
            change.apply(&mut self.now);
            self.unsynced.push(change);
            (start, rest) = (start + count, behind);
        }
    }

    fn set_length(&mut self, length: u64) {
        let change = Unsynced::Length(to_usize(length));
        change.apply(&mut self.now);
        self.unsynced.push(change);
    }

    fn sync(&mut self) {
        for change in self.unsynced.drain(..) {
            change.apply(&mut self.durable);
        }
    }

    fn after_power_cut(&self, survives: &mut dyn FnMut(usize) -> bool) -> Self {
        let mut left = self.durable.clone();
        for (number, change) in self.unsynced.iter().enumerate() {
            if survives(number) {
                change.apply(&mut left);
            }
        }
        Self {
            now: left.clone(),
            durable: left,
            unsynced: Vec::new(),
        }
    }
}

impl Unsynced {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::Bytes(offset, bytes) => {
                let end = offset + bytes.len();
                content.resize(content.len().max(end), 0);
                content[*offset..end].copy_from_slice(bytes);
            }
            Self::Length(length) => content.resize(*length, 0),
        }
    }
}

impl Disk for MemoryDisk {
    fn open(&self, name: &str, access: Access) -> Result<Box<dyn DiskFile>> {
        let found = lock(&self.shared.platter).files.get(name).cloned();
        let file = match found {
            Some(file) => file,
            None if access == Access::Create => {
                self.attempt(name, Change::Create(name.into()), None)?;
                // Somebody else may have removed the name again.
                let created = lock(&self.shared.platter).files.get(name).cloned();
                created.unwrap_or_default()
            }
            None => return Err(error(PagerErrorKind::NotFound, "no file", name)),
        };
        Ok(Box::new(MemoryFile {
            disk: self.clone(),
            name: name.into(),
            file,
            access,
        }))
    }

    fn remove(&self, name: &str) -> Result<()> {
        if !lock(&self.shared.platter).files.contains_key(name) {
            return Err(error(PagerErrorKind::NotFound, "no file", name));
        }
        self.attempt(name, Change::Remove(name.into()), None)
    }

    fn list(&self) -> Result<Vec<String>> {
        Ok(lock(&self.shared.platter).files.keys().cloned().collect())
    }

    fn sync_names(&self) -> Result<()> {
        self.attempt("the folder", Change::SyncNames, None)
    }

    fn lock(&self, sharing: Sharing) -> Result<Box<dyn DiskLock>> {
        let mut platter = lock(&self.shared.platter);
        let readers = self.shared.readers.load(Ordering::Relaxed);
        if platter.writer || (sharing == Sharing::Exclusive && readers > 0) {
            return Err(error(
                PagerErrorKind::Busy,
                "the store is open: close it there;",
                "memory disk",
            ));
        }
        match sharing {
            Sharing::Exclusive => platter.writer = true,
            Sharing::Shared => drop(self.shared.readers.fetch_add(1, Ordering::Relaxed)),
        }
        Ok(Box::new(MemoryLock {
            disk: self.clone(),
            sharing,
        }))
    }

    fn nonce(&self) -> u128 {
        let mut platter = lock(&self.shared.platter);
        platter.nonces += 1;
        u128::from(platter.nonces).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)
    }

    fn place(&self) -> String {
        "memory disk".into()
    }
}

impl DiskLock for MemoryLock {}

impl Drop for MemoryLock {
    fn drop(&mut self) {
        match self.sharing {
            Sharing::Exclusive => lock(&self.disk.shared.platter).writer = false,
            Sharing::Shared => drop(self.disk.shared.readers.fetch_sub(1, Ordering::Relaxed)),
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        lock(&self.0.shared.held).name = None;
        self.0.shared.released.notify_all();
    }
}

impl MemoryFile {
    /// Whether the name still leads to this file; changes of a removed one go nowhere.
    fn is_named(&self, platter: &Platter) -> bool {
        platter
            .files
            .get(&self.name)
            .is_some_and(|file| Arc::ptr_eq(file, &self.file))
    }

    fn wait_while_held(&self) {
        let shared = &self.disk.shared;
        let mut held = lock(&shared.held);
        held.waiting += 1;
        while held.name.as_deref() == Some(self.name.as_str()) {
            held = shared.released.wait(held).unwrap_or_else(PoisonError::into_inner);
        }
        held.waiting -= 1;
    }

    fn attempt(&self, change: Change) -> Result<()> {
        self.wait_while_held();
        if self.access == Access::Read {
            return Err(error(PagerErrorKind::Denied, "opened for reading:", &self.name));
        }
        if !self.is_named(&lock(&self.disk.shared.platter)) {
            return Ok(());
        }
        self.disk.attempt(&self.name, change, Some(self))
    }
}

impl DiskFile for MemoryFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let content = lock(&self.file);
        let start = to_usize(offset).min(content.now.len());
        let count = buffer.len().min(content.now.len() - start);
        buffer[..count].copy_from_slice(&content.now[start..start + count]);
        Ok(count)
    }

    fn read_cached(&self, offset: u64, buffer: &mut [u8]) -> Result<bool> {
        let count = self.read_at(offset, buffer)?;
        buffer[count..].fill(0);
        Ok(!self.disk.shared.cold.load(Ordering::Relaxed))
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let full = lock(&self.disk.shared.held).full.clone();
        if full.is_some_and(|front| self.name.starts_with(&front)) {
            return Err(error(PagerErrorKind::NoSpace, "no room for", &self.name));
        }
        let refused = |(front, from): &(String, u64)| self.name.starts_with(front) && offset >= *from;
        if lock(&self.disk.shared.held).refused.iter().any(refused) {
            return Err(error(PagerErrorKind::Io, "refused to write to", &self.name));
        }
        let fault = lock(&self.disk.shared.platter).next_failure();
        if fault == Some(Failure::Short) && bytes.len() > 1 {
            self.disk.begin();
            let half = bytes[..bytes.len() / 2].to_vec();
            self.disk
                .change(Change::Write(self.name.clone(), offset, half), Some(self));
            return Err(error(PagerErrorKind::Io, "injected short write to", &self.name));
        }
        self.attempt(Change::Write(self.name.clone(), offset, bytes.to_vec()))
    }

    fn sync(&self) -> Result<()> {
        let outcome = self.attempt(Change::Sync(self.name.clone()));
        // As Linux does: after a failed write-back the pages count as clean.
        if outcome.is_err() && self.access != Access::Read {
            self.disk.change(Change::Lose(self.name.clone()), Some(self));
        }
        outcome
    }

    fn length(&self) -> Result<u64> {
        Ok(lock(&self.file).now.len() as u64)
    }

    fn set_len(&self, length: u64) -> Result<()> {
        self.attempt(Change::SetLength(self.name.clone(), length))
    }
}

impl Platter {
    /// How the next operation is going to fail.
    fn next_failure(&self) -> Option<Failure> {
        let number = self.operations;
        let hits = |fault: &&Fault| number >= fault.after && number - fault.after < fault.count;
        self.faults.iter().find(hits).map(|fault| fault.failure)
    }
}

/// For offsets into files that are in memory.
fn to_usize(offset: u64) -> usize {
    usize::try_from(offset).expect("a file in memory")
}
