//! [`Host`]: one store, and what guests may open of it.
//!
//! Invariant: an object has one [`SharedObject`] per host, however many guests have it open.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    rc::Rc,
    sync::{Arc, Weak},
};

use js_sys::{Array, Promise, Uint8Array};
use vmsync_core::{
    PageSize, PagerError, PagerErrorKind,
    abi::OpenFlags,
    pager::{CallId, InitRequest, ObjectId, ObjectName, Pager},
};
use vmsync_pager_file::{
    Background, FileStore, Options, STORE_NAME,
    disk::{Access, Disk},
    inspect_on, verify_on,
};
use vmsync_pager_idb::IdbPager;
use vmsync_pager_memory::MemoryPager;
use vmsync_pager_opfs::OpfsDisk;
use wasm_bindgen::{JsValue, prelude::wasm_bindgen};

use crate::{
    FolderDisk,
    error::{error, of_pager},
    folder::Folder,
    limits::{
        CHECKPOINT_BYTES, EXPORT_BYTES_MAX, FILES_RESERVED, GRANTS_MAX, SEGMENT_BYTES, WRITE_BEHIND_DELAY,
    },
    object::{Object, SharedObject},
};

/// The page size of guests here.
pub(crate) const PAGE_SIZE: PageSize = PageSize::KIB_4;

/// A store that is open, and the grants on it.
#[wasm_bindgen]
pub struct Host {
    pub(crate) shared: Rc<Shared>,
}

pub(crate) struct Shared {
    pager: Arc<dyn Pager>,
    store: Option<(Arc<FileStore>, Arc<dyn Disk>)>,
    pool: Option<Arc<OpfsDisk>>,
    idb: Option<Arc<IdbPager>>,
    grants: RefCell<HashMap<String, Grant>>,
    objects: RefCell<HashMap<ObjectName, Weak<SharedObject>>>,
    numbers: Cell<u64>,
}

/// The right to open one object under a name of the page's choice.
#[derive(Clone)]
pub(crate) struct Grant {
    object: ObjectName,
    pub rights: OpenFlags,
    pub size_max: u64,
}

fn options() -> Options {
    Options {
        page_size: PAGE_SIZE,
        segment_bytes: SEGMENT_BYTES,
        checkpoint_bytes: CHECKPOINT_BYTES,
        write_behind_delay: WRITE_BEHIND_DELAY,
        background: Background::Host,
        ..Options::default()
    }
}

#[wasm_bindgen]
impl Host {
    /// Opens the store called `name` in the origin private file system.
    ///
    /// # Errors
    /// A `VmsyncError`: `busy` where another tab has it, `denied` where there is no such file system, and the disk's.
    #[wasm_bindgen(js_name = openOpfs)]
    pub async fn open_opfs(name: String) -> Result<Host, JsValue> {
        let pool = Arc::new(OpfsDisk::open(&name).await.map_err(|error| of_pager(&error))?);
        pool.reserve(FILES_RESERVED)
            .await
            .map_err(|error| of_pager(&error))?;
        let host = Self::on_disk(pool.clone(), Some(pool))?;
        Ok(host)
    }

    /// Opens the store in a folder of Node.
    ///
    /// # Errors
    /// A `VmsyncError`.
    #[wasm_bindgen(js_name = openFolder)]
    pub fn open_folder(folder: Folder) -> Result<Host, JsValue> {
        Self::on_disk(Arc::new(FolderDisk::new(folder)), None)
    }

    /// Opens the store called `name` in IndexedDB. Whoever calls keeps other tabs out.
    ///
    /// # Errors
    /// A `VmsyncError`: `denied` where there is no such database, and the browser's.
    #[wasm_bindgen(js_name = openIdb)]
    pub async fn open_idb(name: String) -> Result<Host, JsValue> {
        let pager = Arc::new(IdbPager::open(&name).await.map_err(|error| of_pager(&error))?);
        Ok(Self::new(Shared {
            idb: Some(pager.clone()),
            ..Shared::on(pager)
        }))
    }

    /// A store that ends with the worker.
    #[wasm_bindgen(js_name = openMemory)]
    pub fn open_memory() -> Host {
        Self::new(Shared::on(Arc::new(MemoryPager::default())))
    }

    fn on_disk(disk: Arc<dyn Disk>, pool: Option<Arc<OpfsDisk>>) -> Result<Host, JsValue> {
        let store = FileStore::open_on(disk.clone(), &options()).map_err(|error| of_pager(&error))?;
        Ok(Self::new(Shared {
            store: Some((store.clone(), disk)),
            pool,
            ..Shared::on(store)
        }))
    }

    fn new(shared: Shared) -> Self {
        Self {
            shared: Rc::new(shared),
        }
    }

    /// Lets guests open `object` as `name`, at most `size_max` bytes large; the least rights that are asked for count.
    ///
    /// # Errors
    /// A `VmsyncError` `invalid` for a name that no store takes, or too many of them.
    pub fn grant(
        &self,
        name: String,
        object: &str,
        size_max: f64,
        read_only: bool,
        existing: bool,
    ) -> Result<(), JsValue> {
        let object = ObjectName::new(object).map_err(|error| of_pager(&error))?;
        let mut grants = self.shared.grants.borrow_mut();
        if grants.len() >= GRANTS_MAX {
            return Err(error(
                "invalid",
                &format!("more than {GRANTS_MAX} objects are mapped"),
            ));
        }
        let mut rights = if read_only {
            OpenFlags::READ
        } else {
            OpenFlags::KNOWN
        };
        if existing {
            rights = rights.without(OpenFlags::CREATE);
        }
        let size_max = size_max as u64;
        grants.insert(
            name,
            Grant {
                object,
                rights,
                size_max,
            },
        );
        Ok(())
    }

    /// Whether [`Host::reserve`] is due before the next call.
    #[wasm_bindgen(getter, js_name = wantsFiles)]
    pub fn wants_files(&self) -> bool {
        self.shared
            .pool
            .as_ref()
            .is_some_and(|pool| pool.free() < FILES_RESERVED)
    }

    /// Opens files ahead for what the next calls may create.
    ///
    /// # Errors
    /// A `VmsyncError`.
    pub async fn reserve(&self) -> Result<(), JsValue> {
        match self.shared.pool.clone() {
            Some(pool) => pool
                .reserve(FILES_RESERVED)
                .await
                .map_err(|error| of_pager(&error)),
            None => Ok(()),
        }
    }

    /// Does what can wait: makes durable what asynchronous calls have queued, and keeps the journal short. To be called
    /// when no guest waits, and the store is not busy.
    ///
    /// # Errors
    /// A `VmsyncError`; the guests' next calls are told as well.
    pub fn tidy(&self) -> Result<(), JsValue> {
        let done = match (&self.shared.store, &self.shared.idb) {
            (Some((store, _)), _) => store.tidy(),
            (None, Some(pager)) => pager.take_failure().map_or(Ok(()), Err),
            (None, None) => Ok(()),
        };
        done.map_err(|error| of_pager(&error))
    }

    /// Resolves when something happened that a call with the answer `PENDING` may have waited for.
    pub fn changed(&self) -> Promise {
        match &self.shared.idb {
            Some(_) => IdbPager::changed(),
            None => Promise::resolve(&JsValue::UNDEFINED),
        }
    }

    /// Whether the store still writes: then [`Host::changed`] comes.
    #[wasm_bindgen(getter, js_name = isBusy)]
    pub fn is_busy(&self) -> bool {
        self.shared.idb.as_ref().is_some_and(|pager| pager.is_busy())
    }

    /// The objects of the store: an array of `[name, bytes, version]`.
    pub fn list(&self) -> Array {
        let objects = match (&self.shared.store, &self.shared.idb) {
            (Some((store, _)), _) => store.list(),
            (None, Some(pager)) => pager.list(),
            (None, None) => Vec::new(),
        };
        let entry = |(name, attributes): (ObjectName, vmsync_core::pager::Attributes)| {
            let entry: Array = [
                JsValue::from_str(name.as_str()),
                JsValue::from_f64(attributes.size as f64),
                JsValue::from_f64(attributes.version as f64),
            ]
            .into_iter()
            .collect();
            JsValue::from(entry)
        };
        objects.into_iter().map(entry).collect()
    }

    /// The store's files after a checkpoint: an array of `[name, Uint8Array]`.
    ///
    /// # Errors
    /// A `VmsyncError`: `unsupported` for a store that is not made of files, `no-space` for one that is too large, and the
    /// disk's.
    #[wasm_bindgen(js_name = exportFiles)]
    pub fn export_files(&self) -> Result<Array, JsValue> {
        let Some((store, disk)) = &self.shared.store else {
            return Err(error(
                "unsupported",
                "only a store of files can be exported: this one is in memory or in IndexedDB",
            ));
        };
        let read = || -> Result<Array, PagerError> {
            store.checkpoint()?;
            let mut files = Vec::new();
            for name in disk.list()? {
                let file = disk.open(&name, Access::Read)?;
                files.push((name, file.length()?, file));
            }
            let bytes: u64 = files.iter().map(|(_, length, _)| length).sum();
            if bytes > EXPORT_BYTES_MAX {
                let message = format!("the store has {bytes} bytes, and {EXPORT_BYTES_MAX} can be exported");
                return Err(PagerError::new(PagerErrorKind::NoSpace, message));
            }
            let exported = Array::new();
            for (name, length, file) in files {
                let mut bytes = vec![0; length as usize];
                let count = file.read_at(0, &mut bytes)?;
                let bytes = Uint8Array::from(&bytes[..count]);
                exported.push(&Array::of2(&name.into(), &bytes).into());
            }
            Ok(exported)
        };
        read().map_err(|error| of_pager(&error))
    }

    /// Makes the store called `name` of `files`, as [`Host::export_files`] gives them, in place of what it held: a worker
    /// that ends in the middle leaves the one or the other.
    ///
    /// # Errors
    /// A `VmsyncError`: `busy` while it is open, `damaged` where a checksum does not fit, `invalid` where its pages have another
    /// size than those of guests here; then the store is as it was.
    #[wasm_bindgen(js_name = importFiles)]
    pub async fn import_files(name: String, files: Array) -> Result<(), JsValue> {
        import(&name, &files).await.map_err(|error| of_pager(&error))
    }

    /// Removes the store called `name`.
    ///
    /// # Errors
    /// A `VmsyncError`: `busy` while it is open.
    pub async fn remove(name: String) -> Result<(), JsValue> {
        OpfsDisk::destroy(&name).await.map_err(|error| of_pager(&error))
    }
}

async fn import(name: &str, files: &Array) -> Result<(), PagerError> {
    let invalid = || {
        PagerError::new(
            PagerErrorKind::Invalid,
            "an exported store is a list of names and bytes",
        )
    };
    let mut named = Vec::new();
    for entry in files.iter() {
        let entry = Array::from(&entry);
        let file = entry.get(0).as_string().ok_or_else(invalid)?;
        named.push((file, Uint8Array::new(&entry.get(1))));
    }
    if !named.iter().any(|(file, _)| file == STORE_NAME) {
        let message = format!("no file {STORE_NAME} in it: this is not an exported store");
        return Err(PagerError::new(PagerErrorKind::Invalid, message));
    }
    // What is there goes only for what was written in full, and can be opened.
    let disk = OpfsDisk::open_import(name).await?;
    disk.reserve(named.len()).await?;
    if disk.free() < named.len() {
        let message = format!(
            "the store has room for {} files beside its own, and {} are to be imported: remove it first",
            disk.free(),
            named.len()
        );
        return Err(PagerError::new(PagerErrorKind::NoSpace, message));
    }
    for (file, bytes) in &named {
        let opened = disk.open(file, Access::Create)?;
        opened.write_at(0, &bytes.to_vec())?;
        opened.sync()?;
    }
    if let Some(problem) = verify_on(&disk)?.problems.first() {
        let message = format!("the exported store is damaged, and nothing was imported: {problem}");
        return Err(PagerError::new(PagerErrorKind::Damaged, message));
    }
    let page_size = inspect_on(&disk)?.page_size;
    if page_size != PAGE_SIZE {
        let message = format!(
            "the exported store has pages of {} bytes, and guests here have pages of {}: nothing was imported",
            page_size.bytes(),
            PAGE_SIZE.bytes()
        );
        return Err(PagerError::new(PagerErrorKind::Invalid, message));
    }
    disk.finish_import()
}

impl Shared {
    /// A host of `pager` and nothing else.
    fn on(pager: Arc<dyn Pager>) -> Self {
        Self {
            pager,
            store: None,
            pool: None,
            idb: None,
            grants: RefCell::default(),
            objects: RefCell::default(),
            numbers: Cell::new(1),
        }
    }

    pub fn grant(&self, name: &str) -> Option<Grant> {
        self.grants.borrow().get(name).cloned()
    }

    fn number(&self) -> u64 {
        let number = self.numbers.get();
        self.numbers.set(number + 1);
        number
    }

    pub fn next_call(&self) -> CallId {
        CallId(self.number())
    }

    /// The object of `grant`, opened if no guest has it open yet.
    pub fn open_object(&self, grant: &Grant, request: InitRequest) -> Result<Object, PagerError> {
        let mut objects = self.objects.borrow_mut();
        let name = &grant.object;
        if let Some(object) = objects.get(name).and_then(Weak::upgrade) {
            return reuse(object, name, request);
        }
        let object = SharedObject::open(ObjectId(self.number()), self.pager.clone(), name, request)?;
        objects.retain(|_, other| other.strong_count() > 0);
        objects.insert(name.clone(), Arc::downgrade(&object));
        Ok(Object(object))
    }
}

/// Whether an object that another guest opened serves `request` as well.
fn reuse(object: Arc<SharedObject>, name: &ObjectName, request: InitRequest) -> Result<Object, PagerError> {
    let busy = |why: &str| {
        let message = format!("object \"{name}\" is open here {why}: close it there first");
        Err(PagerError::new(PagerErrorKind::Busy, message))
    };
    if request.write && !object.write {
        return busy("for reading only");
    }
    if request.size_min > object.refresh_attributes()?.size {
        return busy("with a smaller size");
    }
    Ok(Object(object))
}
