//! The store in a folder of the operating system: the same functions as on any disk, by path.
//!
//! Invariant: nothing happens here but the choice of the disk.

use std::{path::Path, sync::Arc};

use crate::{
    FileStore, Options, Report, Summary,
    disk::{
        Result,
        native::{Folder, NativeDisk},
    },
    inspect_on, verify_on,
};

impl FileStore {
    /// Opens the store in the folder `path`.
    ///
    /// # Errors
    /// As [`FileStore::open_on`].
    pub fn open(path: &Path, options: &Options) -> Result<Arc<Self>> {
        let creates = options.create && !options.read_only;
        let folder = if creates {
            Folder::Created
        } else {
            Folder::Existing
        };
        Self::open_on(Arc::new(NativeDisk::new(path, folder)?), options)
    }
}

/// Checks the store in the folder `path`.
///
/// # Errors
/// As [`verify_on`].
pub fn verify(path: &Path) -> Result<Report> {
    verify_on(&NativeDisk::new(path, Folder::Existing)?)
}

/// Summarizes the store in the folder `path`.
///
/// # Errors
/// As [`inspect_on`].
pub fn inspect(path: &Path) -> Result<Summary> {
    inspect_on(&NativeDisk::new(path, Folder::Existing)?)
}
