//! What the store supplies for pages: the newest bytes that were queued, else those that wait for the image, else the
//! image's.
//!
//! Invariant: the image is read while no lock is held; what it shows counts only if no page has changed meanwhile.

use crate::{
    disk::Result,
    limits::DIFFERENCE_TRIES,
    object::{Object, PageBytes},
    store::{Shared, lock},
};

impl Shared {
    /// Reads what is supplied for whole pages.
    pub(crate) fn read_supplied(&self, object: &Object, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let first = self.page_size.page_of(offset);
        let count = self.page_size.page_of(buffer.len() as u64);
        for _ in 0..DIFFERENCE_TRIES {
            let epoch = self.read_once(object, offset, buffer)?;
            if !lock(&self.queue).changed_since(object.id, (first, first + count), epoch) {
                return Ok(());
            }
        }
        let queue = lock(&self.queue);
        let newer = queue.not_in_image(object.id, first, count);
        self.compose(object, offset, buffer, newer)
    }

    /// Reads what is supplied for whole pages, if none of them has changed since the epoch that is answered.
    pub(crate) fn read_once(&self, object: &Object, offset: u64, buffer: &mut [u8]) -> Result<u64> {
        let first = self.page_size.page_of(offset);
        let count = self.page_size.page_of(buffer.len() as u64);
        let (epoch, newer) = {
            let queue = lock(&self.queue);
            (queue.epoch(), queue.not_in_image(object.id, first, count))
        };
        self.compose(object, offset, buffer, newer)?;
        Ok(epoch)
    }

    /// The image's bytes with `newer` pages over them.
    fn compose(
        &self,
        object: &Object,
        offset: u64,
        buffer: &mut [u8],
        newer: Vec<(usize, PageBytes)>,
    ) -> Result<()> {
        let length = self.page_size.bytes() as usize;
        if newer.len() * length < buffer.len() {
            object.read(offset, buffer)?;
        }
        for (index, bytes) in newer {
            buffer[index * length..(index + 1) * length].copy_from_slice(bytes.get(self.page_size));
        }
        Ok(())
    }
}
