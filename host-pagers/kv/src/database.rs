//! [`Db`]: the database of a store, opened for reading or for writing, and opened again after a failure.
//!
//! Invariants:
//! - a store has the format and the page size that it was opened for, or it does not open;
//! - after a commit's sync failed the database is not used again (see `backend.rs`);
//! - a file that is opened for writing is read as it is on the disk, where the system can be told so;
//! - nobody waits for another lock while holding `slot` for writing.

use std::{
    fs::{self, File, OpenOptions},
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use redb::{
    Builder, Database, ReadOnlyDatabase, ReadTransaction, ReadableDatabase, WriteTransaction,
    backends::FileBackend,
};
use vmsync_core::{PageSize, PagerError, PagerErrorKind};
use vmsync_pager_group::{Contents, Result};

use crate::{
    Check, Options,
    backend::{Backend, MakeBackend},
    error::{Step, guarded, input_output},
    tables::{self, FORMAT_VERSION, Found},
};

/// The database of a store.
pub(crate) struct Db {
    pub(crate) path: PathBuf,
    options: Options,
    make: Box<MakeBackend>,
    slot: RwLock<Option<Opened>>,
    sync_failed: Arc<AtomicBool>,
    /// An operation failed: the database has to be opened again.
    failed: AtomicBool,
}

enum Opened {
    Write(Database),
    Read(ReadOnlyDatabase),
}

impl Db {
    /// Opens the database in `path`.
    pub(crate) fn open(path: &Path, options: &Options) -> Result<Self> {
        let exists = path
            .metadata()
            .map(|metadata| metadata.len() > 0)
            .or_else(|error| {
                if error.kind() == io::ErrorKind::NotFound {
                    Ok(false)
                } else {
                    Err(error)
                }
            })
            .map_err(|error| input_output(path, &error))?;
        if !exists && !options.create {
            let message = format!("there is no store in {}: create it", path.display());
            return Err(PagerError::new(PagerErrorKind::NotFound, message));
        }
        if !exists {
            create_whole(path, options)?;
        }
        Self::open_on(
            path,
            options,
            make_file(path, OpenOptions::new().read(true).write(true)),
        )
    }

    /// Opens the database that lies on the backends of `make`, and is called `path` in messages.
    pub(crate) fn open_on(path: &Path, options: &Options, make: Box<MakeBackend>) -> Result<Self> {
        let db = Self {
            path: path.to_owned(),
            options: options.clone(),
            make,
            slot: RwLock::new(None),
            sync_failed: Arc::default(),
            failed: AtomicBool::default(),
        };
        db.reopen(options.check)?;
        Ok(db)
    }

    /// What it holds beside its pages; where it failed it is opened again for that.
    pub(crate) fn look(&self) -> Result<Contents> {
        if self.has_failed() {
            return self.reopen(Check::AfterCrash);
        }
        self.check(self.read(tables::load)?)
    }

    /// Closes the database, if it is open, and opens it.
    fn reopen(&self, check: Check) -> Result<Contents> {
        if self.sync_failed.load(Ordering::Acquire) {
            let message = format!(
                "{}: the disk could not sync, so what is on it is unknown: check the disk, then open the store again",
                self.path.display()
            );
            return Err(PagerError::new(PagerErrorKind::Io, message));
        }
        let mut slot = self.slot.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(old) = slot.take() {
            // Its failure was told when it happened.
            let _ = guarded(&self.path, || {
                drop(old);
                Ok(())
            });
        }
        let opened = self.open_slot(check)?;
        let contents = self.check(self.found(&opened)?)?;
        *slot = Some(opened);
        Ok(contents)
    }

    fn open_slot(&self, check: Check) -> Result<Opened> {
        let mut builder = Builder::new();
        builder.set_cache_size(self.options.cache_bytes);
        if self.options.read_only {
            return guarded(&self.path, || {
                Ok(Opened::Read(builder.open_read_only(&self.path)?))
            });
        }
        builder.set_check_integrity_on_open(check == Check::OnOpen);
        let inner = (self.make)().map_err(|error| input_output(&self.path, &error))?;
        let backend = Backend {
            inner,
            sync_failed: self.sync_failed.clone(),
        };
        guarded(&self.path, || {
            Ok(Opened::Write(builder.create_with_backend(backend)?))
        })
    }

    /// What `opened` is, now that an empty one may have become a store.
    fn found(&self, opened: &Opened) -> Result<Found> {
        let load = || guarded(&self.path, || tables::load(&opened.begin_read()?));
        let found = load()?;
        if let (Found::Fresh, Opened::Write(database), true) = (&found, opened, self.options.create) {
            guarded(&self.path, || {
                tables::create(database.begin_write()?, self.options.page_size)
            })?;
            return load();
        }
        Ok(found)
    }

    /// Refuses what is not the store that was asked for.
    fn check(&self, found: Found) -> Result<Contents> {
        let (path, asked) = (self.path.display(), self.options.page_size.bytes());
        let (kind, message) = match found {
            Found::Store { page_size, contents } if page_size == asked => return Ok(contents),
            Found::Store { page_size, .. } => (
                PagerErrorKind::Invalid,
                format!("{path} has pages of {page_size} bytes, not {asked}: open it with its own page size"),
            ),
            Found::Version(format) => (
                PagerErrorKind::Version,
                format!(
                    "{path} has format version {format}, and this program knows {FORMAT_VERSION}: use the program \
                     that wrote it"
                ),
            ),
            Found::Fresh => (
                PagerErrorKind::NotFound,
                format!("{path} is empty: create a store in it"),
            ),
            Found::Foreign => (
                PagerErrorKind::Invalid,
                format!("{path} is a database of another program: choose another file"),
            ),
        };
        Err(PagerError::new(kind, message))
    }

    /// Whether it has to be opened again before it is of use.
    pub(crate) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    /// It was opened again, and holds what it should.
    pub(crate) fn trust(&self) {
        self.failed.store(false, Ordering::Release);
    }

    /// It has to be opened again.
    pub(crate) fn distrust(&self) {
        self.failed.store(true, Ordering::Release);
    }

    /// Runs `work` with a snapshot of what is committed now.
    pub(crate) fn read<T>(&self, work: impl FnOnce(&ReadTransaction) -> Step<T>) -> Result<T> {
        let snapshot = self.with(|opened| Ok(opened.begin_read()?))?;
        self.watched(|| work(&snapshot))
    }

    /// Runs `work` in a transaction that it commits.
    pub(crate) fn write<T>(&self, work: impl FnOnce(WriteTransaction) -> Step<T>) -> Result<T> {
        self.with(|opened| match opened {
            Opened::Write(database) => work(database.begin_write()?),
            Opened::Read(_) => Err(redb::Error::Io(io::ErrorKind::PermissionDenied.into())),
        })
    }

    fn with<T>(&self, work: impl FnOnce(&Opened) -> Step<T>) -> Result<T> {
        let slot = self.slot.read().unwrap_or_else(PoisonError::into_inner);
        self.watched(|| match &*slot {
            Some(opened) => work(opened),
            None => Err(redb::Error::PreviousIo),
        })
    }

    fn watched<T>(&self, work: impl FnOnce() -> Step<T>) -> Result<T> {
        let done = guarded(&self.path, work);
        // What is damaged is so after another opening as well.
        if done
            .as_ref()
            .is_err_and(|error| error.kind != PagerErrorKind::Damaged)
        {
            self.distrust();
        }
        done
    }

    /// The page size of the store.
    pub(crate) fn page_size(&self) -> PageSize {
        self.options.page_size
    }
}

impl Drop for Db {
    fn drop(&mut self) {
        let slot = self.slot.get_mut().unwrap_or_else(PoisonError::into_inner);
        let opened = slot.take();
        // What is committed is on the disk; a file that was not closed cleanly is repaired when it is opened.
        let _ = guarded(&self.path, || {
            drop(opened);
            Ok(())
        });
    }
}

impl Opened {
    fn begin_read(&self) -> std::result::Result<ReadTransaction, redb::TransactionError> {
        match self {
            Self::Write(database) => database.begin_read(),
            Self::Read(database) => database.begin_read(),
        }
    }
}

/// Makes backends for the file `path`.
fn make_file(path: &Path, how: &OpenOptions) -> Box<MakeBackend> {
    let (own, how) = (path.to_owned(), how.clone());
    Box::new(move || {
        let file = how.open(&own)?;
        file.sync_data()?;
        forget_cached(&file);
        Ok(Box::new(FileBackend::new(file).map_err(io::Error::other)?))
    })
}

/// Has the kernel read `file`, which is synced, from the disk: behind a sync that failed, here or in a process before, it
/// goes on showing what it could not write, and would never write that again.
#[cfg(target_os = "linux")]
fn forget_cached(file: &File) {
    // Where the advice is not taken, sums are all there is.
    let _ = rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed);
}

#[cfg(not(target_os = "linux"))]
fn forget_cached(_file: &File) {}

/// Makes an empty store beside `path` and gives it its name when it is whole: a crash leaves no half one there. Where
/// another process was faster, its store stays.
fn create_whole(path: &Path, options: &Options) -> Result<()> {
    static CREATED: AtomicU64 = AtomicU64::new(0);
    let number = CREATED.fetch_add(1, Ordering::Relaxed);
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}-{number}.new", std::process::id()));
    let fresh = PathBuf::from(name);
    let how = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .clone();
    let named = Db::open_on(&fresh, options, make_file(&fresh, &how)).and_then(|db| {
        drop(db);
        // Not every file system has links.
        let named = fs::hard_link(&fresh, path).or_else(|_| rename_new(&fresh, path));
        match named {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            named => named.map_err(|error| unnamed(path, &error)),
        }
    });
    // It went away where it was renamed; where it stays, nobody looks at it.
    let _ = fs::remove_file(&fresh);
    named?;
    sync_folder(path)
}

/// Renames a file, unless the name is taken: a plain rename would take the name from a store that is in use.
#[cfg(any(target_os = "linux", target_vendor = "apple"))]
fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    Ok(renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE)?)
}

#[cfg(not(any(target_os = "linux", target_vendor = "apple")))]
fn rename_new(_from: &Path, _to: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Why a new store has no name.
fn unnamed(path: &Path, error: &io::Error) -> PagerError {
    use io::ErrorKind::{InvalidInput, Unsupported};
    if !matches!(error.kind(), InvalidInput | Unsupported) {
        return input_output(path, error);
    }
    let message = format!(
        "{}: this file system cannot give a file a name only where there is none: create the store on another one",
        path.display()
    );
    PagerError::new(PagerErrorKind::Unsupported, message)
}

/// Makes a new file's name durable. Folders cannot be synced everywhere; where not, names are durable anyway.
fn sync_folder(path: &Path) -> Result<()> {
    if !cfg!(unix) {
        return Ok(());
    }
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(|error| input_output(folder, &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What names a new store on a file system without links.
    #[test]
    fn a_name_that_is_taken_is_not_taken_over() {
        let folder = tempfile::tempdir().unwrap();
        let (fresh, path) = (folder.path().join("fresh"), folder.path().join("store"));
        fs::write(&fresh, "fresh").unwrap();
        rename_new(&fresh, &path).unwrap();
        fs::write(&fresh, "later").unwrap();
        let error = rename_new(&fresh, &path).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"fresh");
    }
}
