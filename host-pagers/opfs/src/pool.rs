//! [`OpfsDisk`]: a folder of the origin private file system whose files are opened ahead and named on demand.
//!
//! Invariants:
//! - a file is named by its header only, and no two files by one name;
//! - a file whose name was removed is used again after the removal was synced, and until then no file is given a name: one
//!   that comes back after a power cut comes back with its bytes, and no other file has it. Whoever opens the pool does not
//!   know whether the worker before had synced, so it syncs;
//! - file 0 is opened first, and whoever has it has the pool;
//! - an imported store is written beside the one that is there, and takes its place with one header, which is written when
//!   all else is durable. What is not of the store that counts goes then, or with the next opening.

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use js_sys::{Array, Promise, Reflect};
use vmsync_core::{PagerError, PagerErrorKind};
use vmsync_pager_file::{
    STORE_NAME,
    disk::{Access, Disk, DiskFile, DiskLock, Result, Sharing},
    limits::SECTOR_BYTES,
};
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;
use web_sys::{
    FileSystemDirectoryHandle, FileSystemFileHandle, FileSystemGetDirectoryOptions, FileSystemGetFileOptions,
    FileSystemRemoveOptions, FileSystemSyncAccessHandle,
};

use crate::{
    handle::{Handle, HandleFile, failed},
    header::Header,
    limits::{FILES_DEFAULT, FILES_MAX, HEADER_BYTES, LOCK_TRIES, LOCK_WAIT_MS},
};

/// A folder of pooled files.
pub struct OpfsDisk {
    folder: String,
    files: Mutex<Files>,
    locked: Arc<AtomicBool>,
}

#[derive(Default)]
struct Files {
    /// Every open file of the pool, by number.
    all: Vec<Handle>,
    named: BTreeMap<String, usize>,
    /// Without a name, durably.
    free: Vec<usize>,
    /// Renamed since the last sync of names, as far as is known, and those of them that lost their name.
    unsynced: Vec<usize>,
    removed: Vec<usize>,
    /// Named in a store that does not count: an older one, or an import that did not come to its end.
    others: Vec<usize>,
    /// Which store this is, and whether it is one that is being imported.
    generation: u64,
    import: bool,
}

struct PoolLock(Arc<AtomicBool>);

impl DiskLock for PoolLock {}

impl Drop for PoolLock {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl OpfsDisk {
    /// Opens the pool in the folder `folder` of this origin; makes it where there is none.
    ///
    /// # Errors
    /// [`PagerErrorKind::Busy`]: another tab or worker has it; [`PagerErrorKind::Denied`]: this page has no such file
    /// system (an old browser, a private window, a sandboxed frame); [`PagerErrorKind::NoSpace`]; [`PagerErrorKind::Io`].
    pub async fn open(folder: &str) -> Result<Self> {
        let directory = directory(folder).await?;
        let mut handles = vec![open_file(&directory, folder, 0).await?];
        handles.extend(open_files(&directory, folder, 1..FILES_DEFAULT).await?);
        while handles.len() < FILES_MAX && file(&directory, handles.len(), false).await?.is_some() {
            handles.push(open_file(&directory, folder, handles.len()).await?);
        }
        Ok(Self {
            folder: folder.into(),
            files: Mutex::new(Files::of(handles, folder)?),
            locked: Arc::default(),
        })
    }

    /// Opens the pool for a store that is to be imported: an empty disk beside the store that is there. That one stays
    /// until [`OpfsDisk::finish_import`].
    ///
    /// # Errors
    /// As [`OpfsDisk::open`].
    pub async fn open_import(folder: &str) -> Result<Self> {
        let disk = Self::open(folder).await?;
        disk.files().begin_import(folder)?;
        Ok(disk)
    }

    /// Puts the imported store, whose files are synced, in the place of the one that was there, at once.
    ///
    /// # Errors
    /// The browser's; then the store that was there is there.
    pub fn finish_import(&self) -> Result<()> {
        self.files().finish_import()
    }

    /// Makes sure that `count` files can be made without waiting.
    ///
    /// # Errors
    /// As [`OpfsDisk::open`].
    pub async fn reserve(&self, count: usize) -> Result<()> {
        let directory = directory(&self.folder).await?;
        loop {
            let index = {
                let files = self.files();
                if files.free.len() + files.removed.len() >= count || files.all.len() >= FILES_MAX {
                    return Ok(());
                }
                files.all.len()
            };
            let opened = open_file(&directory, &self.folder, index).await?;
            let header = read_header(&opened, &self.folder)?;
            self.files().add(opened, header, &self.folder)?;
        }
    }

    /// How many files can be made without waiting.
    pub fn free(&self) -> usize {
        let files = self.files();
        files.free.len() + files.removed.len()
    }

    /// Removes the folder `folder` with everything in it.
    ///
    /// # Errors
    /// [`PagerErrorKind::Busy`] while it is open; the browser's others.
    pub async fn destroy(folder: &str) -> Result<()> {
        let options = FileSystemRemoveOptions::new();
        options.set_recursive(true);
        let removal = root().await?.remove_entry_with_options(folder, &options);
        match JsFuture::from(removal).await {
            Ok(_) => Ok(()),
            Err(error) => match failed(&format!("cannot remove the store \"{folder}\""), &error) {
                error if error.kind == PagerErrorKind::NotFound => Ok(()),
                error => Err(error),
            },
        }
    }

    fn files(&self) -> MutexGuard<'_, Files> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Files {
    /// The store that counts of those that the headers name.
    fn of(handles: Vec<Handle>, folder: &str) -> Result<Self> {
        let mut headers = Vec::new();
        for handle in &handles {
            headers.push(read_header(handle, folder)?);
        }
        let counting = headers.iter().flatten().filter(|header| !header.import);
        let mut files = Self {
            generation: counting.map(|header| header.generation).max().unwrap_or(0),
            ..Self::default()
        };
        for (handle, header) in handles.into_iter().zip(headers) {
            files.add(handle, header, folder)?;
        }
        files.forget_others()?;
        Ok(files)
    }

    /// Takes an open file in, under the name in its header.
    fn add(&mut self, handle: Handle, header: Option<Header>, folder: &str) -> Result<()> {
        let index = self.all.len();
        self.all.push(handle);
        match header {
            None => self.free.push(index),
            Some(header) if header.name.is_empty() => {
                self.unsynced.push(index);
                self.removed.push(index);
            }
            Some(header) if header.generation != self.generation => self.others.push(index),
            Some(Header { name, .. }) => {
                let message = format!("the store \"{folder}\" has two files called {name}");
                if self.named.insert(name, index).is_some() {
                    return Err(PagerError::new(PagerErrorKind::Damaged, message));
                }
            }
        }
        Ok(())
    }

    fn begin_import(&mut self, folder: &str) -> Result<()> {
        self.generation = self.generation.checked_add(1).ok_or_else(|| {
            let message = format!("the store \"{folder}\" claims to be the last import that can be");
            PagerError::new(PagerErrorKind::Damaged, message)
        })?;
        self.import = true;
        self.others.extend(std::mem::take(&mut self.named).into_values());
        Ok(())
    }

    fn finish_import(&mut self) -> Result<()> {
        let Some(store) = self.named.get(STORE_NAME).copied() else {
            let message = format!("no file {STORE_NAME} was imported");
            return Err(PagerError::new(PagerErrorKind::Invalid, message));
        };
        self.sync()?;
        self.import = false;
        self.rename(store, STORE_NAME)?;
        self.sync()?;
        // The import is there. What this leaves behind goes with the next opening.
        let _ = self.forget_others();
        Ok(())
    }

    /// Frees the files of stores that do not count.
    fn forget_others(&mut self) -> Result<()> {
        let others = std::mem::take(&mut self.others);
        let cannot = |error| failed("cannot remove what an import has replaced", &error);
        if let (Some(store), false) = (self.named.get(STORE_NAME), others.is_empty()) {
            // The header that makes the newer store count is durable before anything of an older one goes.
            self.all[*store].flush().map_err(cannot)?;
        }
        for index in others {
            self.all[index].truncate(HEADER_BYTES as u64).map_err(cannot)?;
            self.rename(index, "")?;
            self.removed.push(index);
        }
        Ok(())
    }

    fn rename(&mut self, index: usize, name: &str) -> Result<()> {
        let header = Header {
            name: name.into(),
            generation: self.generation,
            import: self.import,
        };
        let header = header.encode().ok_or_else(|| {
            PagerError::new(
                PagerErrorKind::Invalid,
                format!("the file name {name} is too long"),
            )
        })?;
        let written = self.all[index].write(0, &header);
        let cannot = |error| failed(&format!("cannot name the file {name}"), &error);
        if written.map_err(cannot)? != header.len() {
            let message = format!("no room to name the file {name}: free some space for this site");
            return Err(PagerError::new(PagerErrorKind::NoSpace, message));
        }
        self.unsynced.push(index);
        Ok(())
    }

    fn create(&mut self, name: &str) -> Result<usize> {
        if !self.removed.is_empty() {
            self.sync()?;
        }
        let Some(index) = self.free.pop() else {
            let message = "the files that were opened ahead are used up: call `reserve` and try again";
            return Err(PagerError::new(PagerErrorKind::NoSpace, message));
        };
        // The name of an import's last file is what makes it count.
        let is_last = self.import && name == STORE_NAME;
        let named = self.all[index]
            .truncate(HEADER_BYTES as u64)
            .map_err(|error| failed(&format!("cannot make the file {name}"), &error))
            .and_then(|()| if is_last { Ok(()) } else { self.rename(index, name) });
        if let Err(error) = named {
            self.free.push(index);
            return Err(error);
        }
        self.named.insert(name.into(), index);
        Ok(index)
    }

    fn sync(&mut self) -> Result<()> {
        for index in &self.unsynced {
            self.all[*index]
                .flush()
                .map_err(|error| failed("cannot sync the names of files", &error))?;
        }
        self.unsynced.clear();
        self.free.append(&mut self.removed);
        Ok(())
    }
}

impl Disk for OpfsDisk {
    fn open(&self, name: &str, access: Access) -> Result<Box<dyn DiskFile>> {
        let mut files = self.files();
        let index = match (files.named.get(name), access) {
            (Some(index), _) => *index,
            (None, Access::Create) => files.create(name)?,
            (None, Access::Read | Access::Write) => {
                let message = format!("no file {name} in the store \"{}\"", self.folder);
                return Err(PagerError::new(PagerErrorKind::NotFound, message));
            }
        };
        let handle = files.all[index].clone();
        Ok(Box::new(HandleFile::new(handle, HEADER_BYTES as u64, name)))
    }

    fn remove(&self, name: &str) -> Result<()> {
        let mut files = self.files();
        let Some(index) = files.named.get(name).copied() else {
            let message = format!("no file {name} in the store \"{}\"", self.folder);
            return Err(PagerError::new(PagerErrorKind::NotFound, message));
        };
        files.rename(index, "")?;
        files.named.remove(name);
        files.removed.push(index);
        Ok(())
    }

    fn list(&self) -> Result<Vec<String>> {
        Ok(self.files().named.keys().cloned().collect())
    }

    fn sync_names(&self) -> Result<()> {
        self.files().sync()
    }

    /// The handles themselves keep other workers out; this keeps out a second store of this one.
    fn lock(&self, _: Sharing) -> Result<Box<dyn DiskLock>> {
        if self.locked.swap(true, Ordering::AcqRel) {
            return Err(busy(&self.folder, "this page"));
        }
        Ok(Box::new(PoolLock(self.locked.clone())))
    }

    fn nonce(&self) -> u128 {
        let word = || (js_sys::Math::random() * f64::from(u32::MAX)) as u32;
        (0..4).fold(0, |nonce, _| nonce << 32 | u128::from(word()))
    }

    fn place(&self) -> String {
        format!("\"{}\" of this site", self.folder)
    }
}

fn read_header(handle: &Handle, folder: &str) -> Result<Option<Header>> {
    let mut bytes = [0; SECTOR_BYTES];
    let cannot = |error| failed(&format!("cannot read the store \"{folder}\""), &error);
    handle.read(0, &mut bytes).map_err(cannot)?;
    Ok(Header::decode(&bytes))
}

fn busy(folder: &str, owner: &str) -> PagerError {
    let message =
        format!("the store \"{folder}\" is open in {owner}: close it there, or choose another name");
    PagerError::new(PagerErrorKind::Busy, message)
}

/// The file system of this origin. Denied is what a page may not have; what fails is another matter, and may work again.
async fn root() -> Result<FileSystemDirectoryHandle> {
    let has = |value: &JsValue, name: &str| Reflect::has(value, &name.into()).unwrap_or(false);
    let global = js_sys::global();
    let storage = global
        .dyn_ref::<web_sys::WorkerGlobalScope>()
        .map(|scope| scope.navigator().storage())
        .filter(|storage| has(storage, "getDirectory") && has(&global, "FileSystemSyncAccessHandle"));
    let Some(storage) = storage else {
        let message = "this page has no origin private file system: it works in a dedicated worker of a page that was \
                       loaded over https, or from this machine";
        return Err(PagerError::new(PagerErrorKind::Denied, message));
    };
    let directory = JsFuture::from(storage.get_directory()).await;
    directory
        .map(JsCast::unchecked_into)
        .map_err(|error| failed("cannot open the origin private file system", &error))
}

async fn directory(folder: &str) -> Result<FileSystemDirectoryHandle> {
    let options = FileSystemGetDirectoryOptions::new();
    options.set_create(true);
    let directory = root().await?.get_directory_handle_with_options(folder, &options);
    let directory = JsFuture::from(directory).await;
    let cannot = |error| failed(&format!("cannot open the folder \"{folder}\""), &error);
    directory.map(JsCast::unchecked_into).map_err(cannot)
}

fn file_name(index: usize) -> String {
    format!("pool-{index}")
}

/// File `index` of the pool; `None` where it does not exist and is not to be made.
async fn file(
    directory: &FileSystemDirectoryHandle,
    index: usize,
    create: bool,
) -> Result<Option<FileSystemFileHandle>> {
    let options = FileSystemGetFileOptions::new();
    options.set_create(create);
    let file = directory.get_file_handle_with_options(&file_name(index), &options);
    match JsFuture::from(file).await {
        Ok(file) => Ok(Some(file.unchecked_into())),
        Err(error) => match failed("cannot open a file", &error) {
            error if error.kind == PagerErrorKind::NotFound && !create => Ok(None),
            error => Err(error),
        },
    }
}

/// Opens files, for this worker alone; made where they do not exist. All at once: each takes two turns of another process.
async fn open_files(
    directory: &FileSystemDirectoryHandle,
    folder: &str,
    indices: Range<usize>,
) -> Result<Vec<Handle>> {
    let cannot = |error| failed(&format!("cannot open the store \"{folder}\""), &error);
    let options = FileSystemGetFileOptions::new();
    options.set_create(true);
    let files = indices
        .clone()
        .map(|index| JsValue::from(directory.get_file_handle_with_options(&file_name(index), &options)));
    let files = JsFuture::from(Promise::all(&files.collect::<Array>()));
    let files = Array::from(&files.await.map_err(cannot)?);
    let opened = files.iter().map(|file| {
        let file: FileSystemFileHandle = file.unchecked_into();
        JsValue::from(file.create_sync_access_handle())
    });
    let opened = JsFuture::from(Promise::all_settled(&opened.collect::<Array>()));
    let opened = Array::from(&opened.await.map_err(cannot)?);
    let mut handles = Vec::new();
    for (index, outcome) in indices.zip(opened.iter()) {
        let value = Reflect::get(&outcome, &"value".into()).map_err(cannot)?;
        handles.push(if value.is_undefined() {
            // Whoever had it lets go a moment later, or the reason is told then.
            open_file(directory, folder, index).await?
        } else {
            Handle::new(value.unchecked_into())
        });
    }
    Ok(handles)
}

/// Opens file `index`, for this worker alone; made where it does not exist.
async fn open_file(directory: &FileSystemDirectoryHandle, folder: &str, index: usize) -> Result<Handle> {
    let file = file(directory, index, true).await?.expect("it was to be made");
    let mut tries = 1;
    loop {
        match JsFuture::from(file.create_sync_access_handle()).await {
            Ok(handle) => return Ok(Handle::new(handle.unchecked_into::<FileSystemSyncAccessHandle>())),
            Err(error) => {
                let error = failed(&format!("cannot open a file of the store \"{folder}\""), &error);
                if error.kind != PagerErrorKind::Busy {
                    return Err(error);
                }
                if tries == LOCK_TRIES {
                    return Err(busy(folder, "another tab"));
                }
            }
        }
        tries += 1;
        pause().await;
    }
}

/// Waits a moment.
async fn pause() {
    let promise = js_sys::Promise::new(&mut |resolve, _| {
        if let Some(scope) = js_sys::global().dyn_ref::<web_sys::WorkerGlobalScope>() {
            // Where it cannot be set, the next try follows at once.
            let _ = scope.set_timeout_with_callback_and_timeout_and_arguments_0(&resolve, LOCK_WAIT_MS);
        }
    });
    let _ = JsFuture::from(promise).await;
}
