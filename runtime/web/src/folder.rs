//! [`FolderDisk`]: a folder of Node as a disk: the same files as the native host writes.
//!
//! JavaScript brings an object with the methods below (`js/node-folder.js`); its files have those of a
//! `FileSystemSyncAccessHandle`.
//!
//! Invariant: the folder object stays in a table of its thread, as the handles do.

use std::{
    cell::RefCell,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use vmsync_core::PagerError;
use vmsync_pager_file::disk::{Access, Disk, DiskFile, DiskLock, Result, Sharing};
use vmsync_pager_opfs::handle::{Handle, HandleFile, failed};
use wasm_bindgen::{JsValue, prelude::wasm_bindgen};
use web_sys::FileSystemSyncAccessHandle;

#[wasm_bindgen]
extern "C" {
    /// A folder, as JavaScript implements it.
    pub type Folder;
    #[wasm_bindgen(method, getter)]
    fn place(this: &Folder) -> String;
    #[wasm_bindgen(method, catch)]
    fn open(
        this: &Folder,
        name: &str,
        write: bool,
        create: bool,
    ) -> std::result::Result<FileSystemSyncAccessHandle, JsValue>;
    #[wasm_bindgen(method, catch)]
    fn remove(this: &Folder, name: &str) -> std::result::Result<(), JsValue>;
    #[wasm_bindgen(method, catch)]
    fn list(this: &Folder) -> std::result::Result<Vec<String>, JsValue>;
    #[wasm_bindgen(method, catch, js_name = syncNames)]
    fn sync_names(this: &Folder) -> std::result::Result<(), JsValue>;
    #[wasm_bindgen(method, catch)]
    fn lock(this: &Folder) -> std::result::Result<(), JsValue>;
    #[wasm_bindgen(method)]
    fn unlock(this: &Folder);
}

thread_local! {
    static FOLDERS: RefCell<Vec<Option<Folder>>> = const { RefCell::new(Vec::new()) };
}

static FOLDER_NEXT: AtomicUsize = AtomicUsize::new(0);

/// See the head of the file.
pub struct FolderDisk {
    place: Arc<Place>,
    path: String,
}

/// A place in the table, free again when the disk and its lock are gone.
struct Place(usize);

impl Drop for Place {
    fn drop(&mut self) {
        let gone = FOLDERS.with_borrow_mut(|folders| folders.get_mut(self.0).and_then(Option::take));
        drop(gone);
    }
}

struct FolderLock(Arc<Place>);

fn with<T>(
    index: usize,
    access: impl FnOnce(&Folder) -> std::result::Result<T, JsValue>,
) -> std::result::Result<T, JsValue> {
    FOLDERS.with_borrow(|folders| match folders.get(index) {
        Some(Some(folder)) => access(folder),
        _ => Err("the folder belongs to another thread".into()),
    })
}

impl FolderDisk {
    /// The folder that `folder` stands for.
    pub fn new(folder: Folder) -> Self {
        let path = folder.place();
        let index = FOLDER_NEXT.fetch_add(1, Ordering::Relaxed);
        FOLDERS.with_borrow_mut(|folders| {
            folders.resize_with(index + 1, || None);
            folders[index] = Some(folder);
        });
        let place = Arc::new(Place(index));
        Self { place, path }
    }

    fn call<T>(
        &self,
        what: &str,
        access: impl FnOnce(&Folder) -> std::result::Result<T, JsValue>,
    ) -> Result<T> {
        let cannot =
            |error: JsValue| -> PagerError { failed(&format!("cannot {what} in {}", self.path), &error) };
        with(self.place.0, access).map_err(cannot)
    }
}

impl Disk for FolderDisk {
    fn open(&self, name: &str, access: Access) -> Result<Box<dyn DiskFile>> {
        let (write, create) = (access != Access::Read, access == Access::Create);
        let handle = self.call(&format!("open {name}"), |folder| folder.open(name, write, create))?;
        Ok(Box::new(HandleFile::new(Handle::new(handle), 0, name)))
    }

    fn remove(&self, name: &str) -> Result<()> {
        self.call(&format!("remove {name}"), |folder| folder.remove(name))
    }

    fn list(&self) -> Result<Vec<String>> {
        self.call("list files", Folder::list)
    }

    fn sync_names(&self) -> Result<()> {
        self.call("sync names", Folder::sync_names)
    }

    fn lock(&self, _: Sharing) -> Result<Box<dyn DiskLock>> {
        self.call("lock the store", Folder::lock)?;
        Ok(Box::new(FolderLock(self.place.clone())))
    }

    fn nonce(&self) -> u128 {
        let word = || (js_sys::Math::random() * f64::from(u32::MAX)) as u32;
        (0..4).fold(0, |nonce, _| nonce << 32 | u128::from(word()))
    }

    fn place(&self) -> String {
        self.path.clone()
    }
}

impl DiskLock for FolderLock {}

impl Drop for FolderLock {
    fn drop(&mut self) {
        // The folder is gone only when its thread is.
        let _ = with(self.0.0, |folder| {
            folder.unlock();
            Ok(())
        });
    }
}
