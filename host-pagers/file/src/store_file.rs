//! [`StoreFile`]: the superblock of an open store, and who writes it.
//!
//! Invariants:
//! - a superblock goes over the older slot, and counts from when it is durable;
//! - one whose writing failed is written again with the same number.

use vmsync_core::{PagerError, PagerErrorKind};

use crate::{
    disk::{DiskFile, Result},
    journal::Seal,
    layout::superblock::Superblock,
};

/// See the head of the file.
pub(crate) struct StoreFile {
    superblock: Superblock,
    /// Only where the store can be written.
    file: Option<Box<dyn DiskFile>>,
}

impl StoreFile {
    pub(crate) fn new(superblock: Superblock, file: Option<Box<dyn DiskFile>>) -> Self {
        Self { superblock, file }
    }

    pub(crate) fn superblock(&self) -> Superblock {
        self.superblock
    }

    /// Makes `seal` the place where replay begins.
    pub(crate) fn advance(&mut self, seal: Seal) -> Result<()> {
        assert!(seal.generation > self.superblock.generation);
        assert!(seal.sequence >= self.superblock.sequence);
        self.write(Superblock {
            generation: seal.generation,
            sequence: seal.sequence,
            closed: false,
            ..self.superblock
        })
    }

    /// Notes that the segment of `generation` may have calls.
    pub(crate) fn extend(&mut self, generation: u64) -> Result<()> {
        assert!(generation > self.superblock.newest);
        self.write(Superblock {
            newest: generation,
            ..self.superblock
        })
    }

    /// Notes that the journal is empty and everything durable; whoever opens the store next needs no sync and reads no
    /// journal.
    pub(crate) fn close(&mut self) -> Result<()> {
        self.write(Superblock {
            closed: true,
            ..self.superblock
        })
    }

    /// Writes `next` over the older slot.
    fn write(&mut self, next: Superblock) -> Result<()> {
        let Some(file) = &self.file else {
            let message = "the store is open read-only";
            return Err(PagerError::new(PagerErrorKind::Denied, message));
        };
        let next = Superblock {
            number: self.superblock.number + 1,
            ..next
        };
        file.write_at(next.slot_offset(), &next.encode())?;
        file.sync()?;
        self.superblock = next;
        Ok(())
    }
}
