//! [`Swap`]: a swap file for as long as a test needs one. Only root may add one, on a file system that can hold it.

use std::{ffi::CString, io, os::unix::fs::FileExt};

use rustix::{fs::FallocateFlags, param::page_size};
use tempfile::NamedTempFile;

/// The kernel's `union swap_header`: where its version and the number of the last page are, and the mark at its end.
const VERSION_AT: u64 = 1024;
const LAST_PAGE_AT: u64 = VERSION_AT + 4;
const MAGIC: &[u8; 10] = b"SWAPSPACE2";

/// A swap file in use.
pub struct Swap {
    file: NamedTempFile,
}

impl Swap {
    /// Adds a swap file of `bytes`; the reason where that is not possible here.
    pub fn add(bytes: u64) -> Result<Self, String> {
        let this = Self {
            file: NamedTempFile::new().map_err(|error| error.to_string())?,
        };
        this.format(bytes).map_err(|error| error.to_string())?;
        // SAFETY: a path that ends in zero.
        if unsafe { libc::swapon(this.path().as_ptr(), 0) } != 0 {
            return Err(format!("swapon: {}", io::Error::last_os_error()));
        }
        Ok(this)
    }

    fn format(&self, bytes: u64) -> io::Result<()> {
        let file = self.file.as_file();
        // Without holes, as the kernel writes to the blocks themselves.
        rustix::fs::fallocate(file, FallocateFlags::empty(), 0, bytes)?;
        let page = page_size() as u64;
        let last_page = (bytes / page - 1) as u32;
        file.write_all_at(&1_u32.to_ne_bytes(), VERSION_AT)?;
        file.write_all_at(&last_page.to_ne_bytes(), LAST_PAGE_AT)?;
        file.write_all_at(MAGIC, page - MAGIC.len() as u64)?;
        file.sync_all()
    }

    fn path(&self) -> CString {
        let path = self.file.path().to_str().expect("a name of ours");
        CString::new(path).expect("a name of ours")
    }
}

impl Drop for Swap {
    fn drop(&mut self) {
        // SAFETY: a path that ends in zero. Where it was never added, nothing happens.
        unsafe { libc::swapoff(self.path().as_ptr()) };
    }
}
