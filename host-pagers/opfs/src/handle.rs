//! [`HandleFile`]: a [`DiskFile`] over a `FileSystemSyncAccessHandle`, or an object with its methods.
//!
//! Handles belong to their worker and cannot be sent, which a disk's files must be. So they stay in a table of the thread,
//! and a file knows its place there.
//!
//! Invariants:
//! - a handle is closed, and its place free, when the last [`Handle`] of it is dropped;
//! - a handle that is used on another thread than its own is an error, not a panic.

use std::{cell::RefCell, sync::Arc};

use js_sys::{Error as JsError, Reflect};
use vmsync_core::{PagerError, PagerErrorKind};
use vmsync_pager_file::disk::{DiskFile, Result};
use wasm_bindgen::{JsCast, JsValue};
use web_sys::{FileSystemReadWriteOptions, FileSystemSyncAccessHandle};

#[derive(Default)]
struct Table {
    handles: Vec<Option<FileSystemSyncAccessHandle>>,
    /// One for all accesses: making one for each would cost more than the call.
    options: FileSystemReadWriteOptions,
}

thread_local! {
    static TABLE: RefCell<Table> = RefCell::default();
}

/// A place in the table.
#[derive(Debug)]
struct Place(usize);

/// An open handle. Clones share it.
#[derive(Clone, Debug)]
pub struct Handle(Arc<Place>);

impl Handle {
    /// Puts `handle` into the table of this thread.
    pub fn new(handle: FileSystemSyncAccessHandle) -> Self {
        TABLE.with_borrow_mut(|table| {
            let free = table.handles.iter().position(Option::is_none);
            let index = free.unwrap_or_else(|| {
                table.handles.push(None);
                table.handles.len() - 1
            });
            table.handles[index] = Some(handle);
            Self(Arc::new(Place(index)))
        })
    }

    /// Runs `access` on the handle with the options for `offset`.
    fn with<T>(
        &self,
        offset: u64,
        access: impl FnOnce(
            &FileSystemSyncAccessHandle,
            &FileSystemReadWriteOptions,
        ) -> std::result::Result<T, JsValue>,
    ) -> std::result::Result<T, JsValue> {
        TABLE.with_borrow(|table| {
            let handle = table.handles.get(self.0.0).and_then(Option::as_ref);
            let handle = handle.ok_or_else(|| JsValue::from_str("the file is not open in this worker"))?;
            table.options.set_at(offset as f64);
            access(handle, &table.options)
        })
    }

    pub(crate) fn read(&self, offset: u64, buffer: &mut [u8]) -> std::result::Result<usize, JsValue> {
        let count = self.with(offset, |handle, options| {
            handle.read_with_u8_array_and_options(buffer, options)
        })?;
        Ok(count as usize)
    }

    pub(crate) fn write(&self, offset: u64, bytes: &[u8]) -> std::result::Result<usize, JsValue> {
        let count = self.with(offset, |handle, options| {
            handle.write_with_u8_array_and_options(bytes, options)
        })?;
        Ok(count as usize)
    }

    pub(crate) fn flush(&self) -> std::result::Result<(), JsValue> {
        self.with(0, |handle, _| handle.flush())
    }

    pub(crate) fn truncate(&self, length: u64) -> std::result::Result<(), JsValue> {
        self.with(0, |handle, _| handle.truncate_with_f64(length as f64))
    }

    pub(crate) fn length(&self) -> std::result::Result<u64, JsValue> {
        self.with(0, |handle, _| handle.get_size())
            .map(|bytes| bytes as u64)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let handle = TABLE.try_with(|table| {
            table
                .try_borrow_mut()
                .ok()
                .and_then(|mut table| table.handles.get_mut(self.0).and_then(Option::take))
        });
        if let Ok(Some(handle)) = handle {
            handle.close();
        }
    }
}

/// A part of a handle as a file: the bytes behind `start`.
pub struct HandleFile {
    handle: Handle,
    start: u64,
    name: String,
}

impl HandleFile {
    /// The bytes of `handle` from `start` on, called `name` in messages.
    pub fn new(handle: Handle, start: u64, name: impl Into<String>) -> Self {
        Self {
            handle,
            start,
            name: name.into(),
        }
    }

    fn failed(&self, what: &str) -> impl FnOnce(JsValue) -> PagerError {
        let what = format!("cannot {what} {}", self.name);
        move |error| failed(&what, &error)
    }
}

impl DiskFile for HandleFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        self.handle
            .read(self.start + offset, buffer)
            .map_err(self.failed("read"))
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let written = self
            .handle
            .write(self.start + offset, bytes)
            .map_err(self.failed("write"))?;
        if written == bytes.len() {
            return Ok(());
        }
        let message = format!(
            "{}: {written} of {} bytes written: free some space for this site",
            self.name,
            bytes.len()
        );
        Err(PagerError::new(PagerErrorKind::NoSpace, message))
    }

    fn sync(&self) -> Result<()> {
        self.handle.flush().map_err(self.failed("sync"))
    }

    fn length(&self) -> Result<u64> {
        let length = self.handle.length().map_err(self.failed("examine"))?;
        Ok(length.saturating_sub(self.start))
    }

    fn set_len(&self, length: u64) -> Result<()> {
        self.handle
            .truncate(self.start + length)
            .map_err(self.failed("resize"))
    }
}

/// An error of the browser: what was tried, why it failed, and what helps.
pub fn failed(what: &str, error: &JsValue) -> PagerError {
    let property = |name: &str| {
        Reflect::get(error, &name.into())
            .ok()
            .and_then(|value| value.as_string())
    };
    let name = property("name").unwrap_or_default();
    let code = property("code").unwrap_or_default();
    let (kind, advice) = match (name.as_str(), code.as_str()) {
        ("QuotaExceededError", _) | (_, "ENOSPC" | "EDQUOT") => {
            (PagerErrorKind::NoSpace, ": free some space for this site")
        }
        ("NotFoundError", _) | (_, "ENOENT") => (PagerErrorKind::NotFound, ""),
        ("NoModificationAllowedError", _) => (PagerErrorKind::Busy, ": close it there"),
        ("SecurityError" | "NotAllowedError", _) | (_, "EACCES" | "EPERM" | "EROFS") => {
            (PagerErrorKind::Denied, ": this page may not store files")
        }
        _ => (PagerErrorKind::Io, ""),
    };
    let words = match error.dyn_ref::<JsError>() {
        Some(error) => error.message().into(),
        None => property("message").or_else(|| error.as_string()).unwrap_or(name),
    };
    PagerError::new(kind, format!("{what}: {words}{advice}"))
}
