//! [`Platter`]: what is on stable storage, and what is on its way there.
//!
//! ```text
//!   trace of Changes --apply--> Platter { durable files and names, pending changes in order }
//!                                  '-- Choice (which pending ones survive, one of them torn) --> Image
//! ```
//!
//! Invariants:
//! - a pending change becomes durable by the sync of its file, or of the names, and in no other way;
//! - a file is a number; names lead to it, so that a name that comes back after a cut leads to the right bytes;
//! - the same changes and the same choice give the same image.

use std::{collections::BTreeMap, sync::Arc};

use twox_hash::XxHash3_64;
use vmsync_pager_file::limits::SECTOR_BYTES;

use crate::random::Random;

/// A file, whatever its name; numbers are not used again.
pub type FileNumber = u64;

/// One change to a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A name appeared with an empty file.
    Create(String, FileNumber),
    /// A name went.
    Remove(String),
    /// Names became durable.
    SyncNames,
    /// Bytes were written.
    Write(FileNumber, usize, Arc<[u8]>),
    /// The length was set.
    SetLength(FileNumber, usize),
    /// A file became durable.
    Sync(FileNumber),
    /// A sync failed: of the pending writes some arrived, of others some sectors, as the number decides; the rest never will.
    Lose(FileNumber, u64),
}

/// A disk at rest: its files by name.
pub type Image = BTreeMap<String, Arc<Vec<u8>>>;

/// A change that a power cut may take.
#[derive(Clone, Debug)]
enum Pending {
    Create(String, FileNumber),
    Remove(String),
    Bytes(FileNumber, usize, Arc<[u8]>),
    Length(FileNumber, usize),
}

/// Which sectors of a torn write arrive.
#[derive(Clone, Copy, Debug)]
pub enum Tear {
    /// The first so many.
    Head(usize),
    /// All but the first so many.
    Tail(usize),
    /// Those that the number decides.
    Some(u64),
}

impl Tear {
    /// Whether the sector with this number in the write arrives.
    pub fn keeps(self, sector: usize) -> bool {
        match self {
            Self::Head(count) => sector < count,
            Self::Tail(count) => sector >= count,
            Self::Some(salt) => Random::new(salt ^ sector as u64).once_in(2),
        }
    }
}

/// What survives a power cut.
#[derive(Clone, Debug, Default)]
pub struct Choice {
    /// For each pending change whether it does.
    pub kept: Vec<bool>,
    /// One of the kept that is torn.
    pub torn: Option<(usize, Tear)>,
}

/// Stable storage with a cache in front.
#[derive(Clone, Debug, Default)]
pub struct Platter {
    names: BTreeMap<String, FileNumber>,
    files: BTreeMap<FileNumber, Arc<Vec<u8>>>,
    pending: Vec<Pending>,
}

impl Platter {
    /// A disk that holds `image` durably; its files are numbered in the order of their names.
    pub fn new(image: &Image) -> Self {
        let mut platter = Self::default();
        for (number, (name, bytes)) in (0..).zip(image) {
            platter.names.insert(name.clone(), number);
            platter.files.insert(number, bytes.clone());
        }
        platter
    }

    /// How many pending changes there are.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// How many sectors each pending change covers; 0 for what has none.
    pub fn sectors(&self) -> Vec<usize> {
        let count = |pending: &Pending| match pending {
            Pending::Bytes(_, offset, bytes) => {
                (offset + bytes.len()).div_ceil(SECTOR_BYTES) - offset / SECTOR_BYTES
            }
            _ => 0,
        };
        self.pending.iter().map(count).collect()
    }

    /// Does `change`.
    pub fn apply(&mut self, change: &Change) {
        match change {
            Change::Create(name, file) => self.pending.push(Pending::Create(name.clone(), *file)),
            Change::Remove(name) => self.pending.push(Pending::Remove(name.clone())),
            Change::Write(_, _, bytes) if bytes.is_empty() => {}
            Change::Write(file, offset, bytes) => {
                self.pending.push(Pending::Bytes(*file, *offset, bytes.clone()));
            }
            Change::SetLength(file, length) => self.pending.push(Pending::Length(*file, *length)),
            Change::SyncNames => self.settle(Pending::is_name, |_, _| true),
            Change::Sync(file) => self.settle(|pending| pending.file() == Some(*file), |_, _| true),
            Change::Lose(file, salt) => {
                // Half arrive, a quarter is torn, a quarter gone.
                let arrives = |number: usize, sector: usize| {
                    let mut random = Random::new(salt ^ number as u64);
                    random.once_in(2) || (random.once_in(2) && Tear::Some(random.number()).keeps(sector))
                };
                self.settle(|pending| pending.file() == Some(*file), arrives);
            }
        }
    }

    /// Takes the pending changes that are `chosen`, and makes durable those sectors of them, by number, that `arrive`.
    fn settle(&mut self, chosen: impl Fn(&Pending) -> bool, arrives: impl Fn(usize, usize) -> bool) {
        let (taken, left) = std::mem::take(&mut self.pending).into_iter().partition(chosen);
        self.pending = left;
        for (number, pending) in Vec::into_iter(taken).enumerate() {
            pending.apply(&mut self.names, &mut self.files, |sector| arrives(number, sector));
        }
    }

    /// The disk that a power cut leaves.
    pub fn cut(&self, choice: &Choice) -> Image {
        assert_eq!(choice.kept.len(), self.pending.len());
        let (mut names, mut files) = (self.names.clone(), self.files.clone());
        for (number, (pending, kept)) in self.pending.iter().zip(&choice.kept).enumerate() {
            if !kept {
                continue;
            }
            let tear = choice.torn.filter(|(torn, _)| *torn == number);
            pending.apply(&mut names, &mut files, |sector| {
                tear.is_none_or(|(_, tear)| tear.keeps(sector))
            });
        }
        let content = |file| files.get(&file).cloned().unwrap_or_default();
        names
            .into_iter()
            .map(|(name, file)| (name, content(file)))
            .collect()
    }
}

impl Pending {
    fn is_name(&self) -> bool {
        self.file().is_none()
    }

    fn file(&self) -> Option<FileNumber> {
        match self {
            Self::Create(..) | Self::Remove(_) => None,
            Self::Bytes(file, ..) | Self::Length(file, _) => Some(*file),
        }
    }

    /// What has no sectors counts as one.
    fn apply(
        &self,
        names: &mut BTreeMap<String, FileNumber>,
        files: &mut BTreeMap<FileNumber, Arc<Vec<u8>>>,
        keeps: impl Fn(usize) -> bool,
    ) {
        match self {
            Self::Create(..) | Self::Remove(_) | Self::Length(..) if !keeps(0) => {}
            Self::Create(name, file) => drop(names.insert(name.clone(), *file)),
            Self::Remove(name) => drop(names.remove(name)),
            Self::Length(file, length) => Arc::make_mut(files.entry(*file).or_default()).resize(*length, 0),
            Self::Bytes(file, offset, bytes) => {
                let content = Arc::make_mut(files.entry(*file).or_default());
                for (sector, start, part) in sectors(*offset, bytes) {
                    if keeps(sector) {
                        write(content, start, part);
                    }
                }
            }
        }
    }
}

/// Writes `bytes` at `start`, with zeroes between the end of `content` and there.
pub fn write(content: &mut Vec<u8>, start: usize, bytes: &[u8]) {
    let end = start + bytes.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[start..end].copy_from_slice(bytes);
}

/// The parts of a write that lie in one sector each: its number in the write, its offset, its bytes.
pub fn sectors(offset: usize, bytes: &[u8]) -> impl Iterator<Item = (usize, usize, &[u8])> {
    let first = (SECTOR_BYTES - offset % SECTOR_BYTES).min(bytes.len());
    let (head, rest) = bytes.split_at(first);
    let starts = (offset + first..).step_by(SECTOR_BYTES);
    let rest = starts.zip(rest.chunks(SECTOR_BYTES));
    std::iter::once((offset, head))
        .chain(rest)
        .enumerate()
        .map(|(number, (start, part))| (number, start, part))
}

/// A checksum of everything on a disk.
pub fn image_sum(image: &Image) -> u64 {
    image.iter().fold(image.len() as u64, |sum, (name, bytes)| {
        XxHash3_64::oneshot_with_seed(XxHash3_64::oneshot_with_seed(sum, name.as_bytes()), bytes)
    })
}
