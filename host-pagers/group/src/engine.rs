//! [`Engine`]: what keeps the pages, and the words in which it is asked.

use std::{collections::BTreeMap, sync::Arc};

use vmsync_core::{
    PageSize,
    pager::{Attributes, ObjectName},
};

use crate::{Result, limits};

/// An object's id in the store, and a page of it. Ids are not used again in a store.
pub type Place = (u64, u64);

/// Whole pages by their place.
pub type Pages = BTreeMap<Place, Arc<[u8]>>;

/// An object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its number in the store.
    pub id: u64,
    /// In bytes, a multiple of the page size.
    pub size: u64,
    /// Number of the last committed call that changed it; 0: never.
    pub version: u64,
    /// Where it was mapped last.
    pub address: Option<u64>,
}

impl Entry {
    /// The same in the pager protocol's words.
    pub fn attributes(&self) -> Attributes {
        Attributes {
            size: self.size,
            version: self.version,
            precious: false,
            address: self.address,
        }
    }
}

/// All objects by name.
pub type Catalog = BTreeMap<ObjectName, Entry>;

/// What a store holds beside its pages.
#[derive(Clone, Debug, Default)]
pub struct Contents {
    /// Calls that were committed.
    pub calls: u64,
    /// The id of the next new object.
    pub object_next: u64,
    /// The objects.
    pub catalog: Catalog,
}

/// Puts `pages`, by their distance from the first one that was asked for, into `buffer`, and zeroes where there is none:
/// what [`Engine::read`] does. Answers whether there are any.
pub fn fill(buffer: &mut [u8], page_size: PageSize, pages: Vec<(u64, Vec<u8>)>) -> bool {
    if pages.is_empty() {
        return false;
    }
    buffer.fill(0);
    let length = page_size.bytes() as usize;
    for (index, page) in pages {
        let start = index as usize * length;
        buffer[start..start + length].copy_from_slice(&page);
    }
    true
}

/// What becomes durable together.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// Pages, each as it was returned last.
    pub pages: Pages,
    /// The objects that change or are new, as they are to be.
    pub objects: Catalog,
    /// Objects to remove with all of their pages.
    pub removed: Vec<(ObjectName, u64)>,
    /// The counter of calls behind the batch.
    pub calls: u64,
    /// The id of the next new object behind it.
    pub object_next: u64,
}

/// What keeps objects for one writer, and lets no stale one write.
///
/// Every method may be called from any thread, also inside an asynchronous runtime. One that asks somebody else waits at
/// most about [`limits::ENGINE_WAIT_MAX`].
pub trait Engine: Send + Sync + 'static {
    /// The most that one call may return, in bytes.
    const CALL_BYTES_MAX: usize = limits::CALL_BYTES_MAX;

    /// Objects in a store.
    const OBJECTS_MAX: usize = limits::OBJECTS_MAX;

    /// The page size of the store.
    fn page_size(&self) -> PageSize;

    /// What the store is called in messages; never with a password.
    fn name(&self) -> &str;

    /// What it holds beside its pages, now.
    ///
    /// # Errors
    /// The engine's.
    fn load(&self) -> Result<Contents>;

    /// Fills `buffer` with pages of object `id` from page `first` on as they were committed last, zeroes where there
    /// are none; answers whether there are any, and leaves the buffer alone where there are not.
    ///
    /// # Errors
    /// The engine's.
    fn read(&self, place: Place, buffer: &mut [u8]) -> Result<bool>;

    /// The same for a store that is only read, and may have a writer elsewhere: refuses to show the object with another
    /// version than `version`, so that what is mapped in several requests is one moment's. An engine that keeps showing
    /// a reader one moment need not.
    ///
    /// # Errors
    /// [`vmsync_core::PagerErrorKind::Unavailable`]: it has changed. And the engine's.
    fn read_version(&self, place: Place, _version: u64, buffer: &mut [u8]) -> Result<bool> {
        self.read(place, buffer)
    }

    /// Commits `batch` as a whole: durable when it returns. Never called twice at a time.
    ///
    /// # Errors
    /// [`vmsync_core::PagerErrorKind::Gone`]: another writer has the store, or a batch that was reported as failed has
    /// taken place all the same; nothing was committed, and nothing will be. Any other: nothing of the batch is shown
    /// by [`Engine::read`] from now on; it may be tried again.
    fn commit(&self, batch: &Batch) -> Result<()>;
}
