//! [`Object`]: an object's image file while anything refers to it.
//!
//! Invariants:
//! - the file has at least as many bytes as the catalog says;
//! - bytes in it change only after the record that changes them is durable.

use std::sync::atomic::{AtomicU64, Ordering};

use vmsync_core::{PageSize, pager::ObjectName};

use crate::{
    disk::{DiskFile, Result},
    layout::image_name,
    lines::Lines,
};

/// An object and its open image.
pub(crate) struct Object {
    pub(crate) id: u64,
    pub(crate) name: ObjectName,
    pub(crate) image: Box<dyn DiskFile>,
    pub(crate) lines: Lines,
    /// The catalog's size of it, readable without the queue's lock.
    size: AtomicU64,
}

impl Object {
    pub(crate) fn new(
        id: u64,
        name: &ObjectName,
        image: Box<dyn DiskFile>,
        size: u64,
        page_size: PageSize,
    ) -> Self {
        Self {
            id,
            name: name.clone(),
            image,
            lines: Lines::new(page_size),
            size: AtomicU64::new(size),
        }
    }

    /// The size in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }

    /// The object grew, durably.
    pub(crate) fn set_size(&self, size: u64) {
        self.size.fetch_max(size, Ordering::Release);
    }

    /// Reads committed bytes; behind the end of the file they are zero.
    pub(crate) fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let count = self.image.read_at(offset, buffer)?;
        buffer[count..].fill(0);
        Ok(())
    }
}

/// The name for messages.
impl std::fmt::Display for Object {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "\"{}\" ({})", self.name, image_name(self.id))
    }
}
