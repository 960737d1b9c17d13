//! A file that is made as a whole: what had its name stays until the new one is complete and durable.

use std::{
    fs::{self, File, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};

use crate::interrupt;

/// Where a file is to be made.
pub struct Target {
    /// Behind symbolic links.
    path: PathBuf,
    is_special: bool,
}

impl Target {
    /// The place that `path` names.
    pub fn new(path: &Path) -> Self {
        let path = path.canonicalize().unwrap_or_else(|_| path.into());
        // A device, a pipe: to be written to perhaps, never to be replaced.
        let is_special = fs::metadata(&path).is_ok_and(|found| !found.is_file());
        Self { path, is_special }
    }

    /// Whether something other than a file has the name.
    pub fn is_special(&self) -> bool {
        self.is_special
    }

    /// Its name, where it lies in `folder` itself.
    pub fn name_in(&self, folder: &Path) -> Option<&str> {
        let canonical = |path: &Path| path.canonicalize().ok();
        let lies_in = canonical(parent(&self.path))? == canonical(folder)?;
        self.path.file_name()?.to_str().filter(|_| lies_in)
    }

    /// Makes the file, of what `write` writes.
    pub fn write(&self, write: impl FnOnce(&File) -> anyhow::Result<()>) -> anyhow::Result<()> {
        let cannot = || format!("cannot write {}", self.path.display());
        if self.is_special {
            bail!("{} is no file", self.path.display());
        }
        let folder = parent(&self.path);
        let temporary = tempfile::Builder::new()
            .prefix(".vmsync-")
            .permissions(Permissions::from_mode(0o666))
            .tempfile_in(folder)
            .with_context(cannot)?;
        write(temporary.as_file()).with_context(cannot)?;
        temporary.as_file().sync_all().with_context(cannot)?;
        interrupt::check()?;
        temporary
            .persist(&self.path)
            .map_err(|refused| refused.error)
            .with_context(cannot)?;
        sync_folder(folder)
    }
}

/// The folder that `path` is in.
pub fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Makes a name in `folder` durable.
pub fn sync_folder(folder: &Path) -> anyhow::Result<()> {
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .with_context(|| format!("cannot sync the folder {}", folder.display()))
}
