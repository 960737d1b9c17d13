//! The stores that a run works on, each opened once.

use std::sync::Arc;

use vmsync::{Grant, ObjectName, Pager};
use vmsync_pager_file::FileStore;

use crate::store_name::{OpenStore, StoreName};

/// Opens stores, all of them for reading only or none.
pub struct Stores {
    read_only: bool,
    open: Vec<(StoreName, OpenStore)>,
}

impl Stores {
    pub fn new(read_only: bool) -> Self {
        Self {
            read_only,
            open: Vec::new(),
        }
    }

    /// The store of this name.
    pub fn open(&mut self, name: &StoreName) -> anyhow::Result<Arc<dyn Pager>> {
        if let Some((_, store)) = self.open.iter().find(|(known, _)| known == name) {
            return Ok(store.pager.clone());
        }
        let store = name.open(self.read_only)?;
        let pager = store.pager.clone();
        self.open.push((name.clone(), store));
        Ok(pager)
    }

    /// The right to open `object` of `store`.
    pub fn grant(&self, store: &Arc<dyn Pager>, object: ObjectName) -> Grant {
        let grant = Grant::new(store.clone(), object);
        if self.read_only { grant.read_only() } else { grant }
    }

    /// The file stores among them.
    pub fn into_file_stores(self) -> Vec<Arc<FileStore>> {
        self.open
            .into_iter()
            .filter_map(|(_, store)| store.file)
            .collect()
    }
}
