//! [`Grant`]: what the host lets a guest open. A guest names a grant, never a file, bucket or table.

use std::sync::Arc;

use vmsync_core::{
    abi::OpenFlags,
    limits::OBJECT_BYTES_MAX,
    pager::{ObjectName, Pager},
};

/// The right to open one object under a name of the host's choice.
#[derive(Clone)]
pub struct Grant {
    pub(crate) pager: Arc<dyn Pager>,
    pub(crate) object: ObjectName,
    pub(crate) rights: OpenFlags,
    pub(crate) size_max: u64,
}

impl Grant {
    /// All rights on `object` of `pager`: load, store, create, and grow up to the limit of the format.
    pub fn new(pager: Arc<dyn Pager>, object: ObjectName) -> Self {
        Self {
            pager,
            object,
            rights: OpenFlags::KNOWN,
            size_max: OBJECT_BYTES_MAX,
        }
    }

    /// The same right on another object of the pager.
    #[must_use]
    pub fn object(mut self, object: ObjectName) -> Self {
        self.object = object;
        self
    }

    /// Loads only: the object must exist, and stores trap.
    #[must_use]
    pub fn read_only(mut self) -> Self {
        self.rights = OpenFlags::READ;
        self
    }

    /// The object must exist already.
    #[must_use]
    pub fn existing(mut self) -> Self {
        self.rights = self.rights.without(OpenFlags::CREATE);
        self
    }

    /// The guest may make the object at most this large, in bytes.
    #[must_use]
    pub fn size_max(mut self, bytes: u64) -> Self {
        self.size_max = bytes;
        self
    }
}
