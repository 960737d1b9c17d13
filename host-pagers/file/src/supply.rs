//! What the store supplies for pages: the newest bytes that were queued, else those that wait for the image, else the
//! image's.
//!
//! Invariant: the image is read while no lock is held; what it shows counts only if no page has changed meanwhile.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

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
    fn read_once(&self, object: &Object, offset: u64, buffer: &mut [u8]) -> Result<u64> {
        let (epoch, newer) = self.newer(object, offset, buffer.len());
        self.compose(object, offset, buffer, newer)?;
        Ok(epoch)
    }

    /// Reads what `new` is to be compared with, as [`Shared::read_once`] does. As long as there is an `allowance`, in
    /// bytes, the drive is not waited for: a page that is not in memory becomes one that differs from the new one in
    /// every byte.
    pub(crate) fn read_base(
        &self,
        object: &Object,
        offset: u64,
        (new, buffer): (&[u8], &mut [u8]),
        allowance: &AtomicUsize,
    ) -> Result<u64> {
        let (epoch, newer) = self.newer(object, offset, buffer.len());
        let length = self.page_size.bytes() as usize;
        let is_newer = |index: usize| newer.binary_search_by_key(&index, |(newer, _)| *newer).is_ok();
        if newer.len() * length == buffer.len() || object.image.read_cached(offset, buffer)? {
            self.put(buffer, newer);
            return Ok(epoch);
        }
        let pages = new.chunks_exact(length).zip(buffer.chunks_exact_mut(length));
        for (index, (new, base)) in pages.enumerate().filter(|(index, _)| !is_newer(*index)) {
            let offset = offset + (index * length) as u64;
            if object.image.read_cached(offset, base)? {
                continue;
            }
            let left = allowance.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(length));
            if left.is_ok() {
                base.iter_mut().zip(new).for_each(|(old, new)| *old = !new);
            } else {
                object.read(offset, base)?;
            }
        }
        self.put(buffer, newer);
        Ok(epoch)
    }

    /// The epoch, and the pages in `length` bytes from `offset` on that are newer than the image, ascending.
    fn newer(&self, object: &Object, offset: u64, length: usize) -> (u64, Vec<(usize, PageBytes)>) {
        let first = self.page_size.page_of(offset);
        let count = self.page_size.page_of(length as u64);
        let queue = lock(&self.queue);
        (queue.epoch(), queue.not_in_image(object.id, first, count))
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
        self.put(buffer, newer);
        Ok(())
    }

    /// Puts pages into `buffer`.
    fn put(&self, buffer: &mut [u8], pages: Vec<(usize, PageBytes)>) {
        let length = self.page_size.bytes() as usize;
        for (index, bytes) in pages {
            buffer[index * length..(index + 1) * length].copy_from_slice(bytes.get(self.page_size));
        }
    }
}
