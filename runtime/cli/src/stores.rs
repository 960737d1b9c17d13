//! The stores that a run works on, each opened once.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context;
use vmsync::{Grant, ObjectName};
use vmsync_pager_file::{FileStore, Options};

/// Opens stores, all of them for reading only or none.
pub struct Stores {
    read_only: bool,
    open: Vec<(PathBuf, Arc<FileStore>)>,
}

impl Stores {
    pub fn new(read_only: bool) -> Self {
        Self {
            read_only,
            open: Vec::new(),
        }
    }

    /// The store in the folder `path`.
    pub fn open(&mut self, path: &Path) -> anyhow::Result<Arc<FileStore>> {
        if let Some((_, store)) = self.open.iter().find(|(known, _)| known == path) {
            return Ok(store.clone());
        }
        let options = Options {
            read_only: self.read_only,
            create: !self.read_only,
            ..Options::default()
        };
        let store = FileStore::open(path, &options)
            .with_context(|| format!("cannot open the store {}", path.display()))?;
        self.open.push((path.into(), store.clone()));
        Ok(store)
    }

    /// The right to open `object` of `store`.
    pub fn grant(&self, store: &Arc<FileStore>, object: ObjectName) -> Grant {
        let grant = Grant::new(store.clone(), object);
        if self.read_only { grant.read_only() } else { grant }
    }

    /// All of them.
    pub fn into_stores(self) -> Vec<Arc<FileStore>> {
        self.open.into_iter().map(|(_, store)| store).collect()
    }
}
