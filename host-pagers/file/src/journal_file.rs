//! [`Segment`]: a file of the journal, and [`Plan`]: one to be made.

use crate::{
    disk::{Access, Disk, DiskFile, Result},
    layout::segment_name,
    limits::BLOCK_BYTES,
};

/// See the head of the file.
pub(crate) struct Segment {
    pub(crate) slot: u64,
    pub(crate) file: Box<dyn DiskFile>,
    pub(crate) capacity: u64,
    /// Its length and name are durable: a header that is durable in a file that is too short counts as damage.
    pub(crate) durable: bool,
    /// The last try to use it failed.
    pub(crate) failed: bool,
}

/// See the head of the file.
pub(crate) struct Plan {
    pub(crate) slot: u64,
    pub(crate) capacity: u64,
}

impl Plan {
    /// A file full of zeroes whose length and name are durable.
    ///
    /// # Errors
    /// The disk's.
    pub(crate) fn make(self, disk: &dyn Disk) -> Result<Segment> {
        let Self { slot, capacity } = self;
        let name = segment_name(slot);
        let file = disk.open(&name, Access::Create)?;
        let made = file.preallocate(capacity).and_then(|()| disk.sync_names());
        if let Err(error) = made {
            // What is left of it takes space that is short perhaps.
            drop(file);
            let _ = disk.remove(&name);
            return Err(error);
        }
        Ok(Segment {
            slot,
            file,
            capacity,
            durable: true,
            failed: false,
        })
    }
}

impl Segment {
    /// Makes its length durable, which an earlier process may have left in the cache only.
    ///
    /// # Errors
    /// The disk's.
    pub(crate) fn make_length_durable(&self) -> Result<()> {
        if let Some(end) = self.file.length()?.checked_sub(1) {
            let mut byte = [0];
            self.file.read_at(end, &mut byte)?;
            self.file.write_at(end, &byte)?;
        }
        self.file.sync()
    }

    /// The same for one whose contents do not count, which a drive need not be able to read.
    ///
    /// # Errors
    /// The disk's.
    pub(crate) fn make_usable(&mut self, disk: &dyn Disk) -> Result<()> {
        if self.durable {
            return Ok(());
        }
        let end = self.capacity.saturating_sub(BLOCK_BYTES as u64);
        let made = self.file.write_at(end, &[0; BLOCK_BYTES]);
        let made = made
            .and_then(|()| self.file.sync())
            .and_then(|()| disk.sync_names());
        (self.durable, self.failed) = (made.is_ok(), made.is_err());
        made
    }

    /// Removes the file. One that stays is used again after the next opening.
    pub(crate) fn remove(self, disk: &dyn Disk) {
        let name = segment_name(self.slot);
        drop(self);
        let _ = disk.remove(&name);
    }
}
