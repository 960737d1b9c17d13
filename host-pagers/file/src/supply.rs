//! What the store supplies for pages: the image's bytes, over them those that wait for the image, over these those that
//! are queued.
//!
//! Invariant: the image is read while no lock is held; what it shows counts only if no page has changed meanwhile.

use crate::{
    disk::Result,
    limits::READ_TRIES,
    object::Object,
    queue::{Newer, Queue},
    store::{Shared, lock},
};

impl Shared {
    /// Reads what is supplied for whole pages.
    pub(crate) fn read_supplied(&self, object: &Object, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let first = self.page_size.page_of(offset);
        let count = self.page_size.page_of(buffer.len() as u64);
        for _ in 0..READ_TRIES {
            let epoch = self.read_once(object, offset, buffer)?;
            if !lock(&self.queue).changed_since(object.id, (first, first + count), epoch) {
                return Ok(());
            }
        }
        self.read_locked(&lock(&self.queue), object, offset, buffer)
    }

    /// The same while the queue is locked.
    pub(crate) fn read_locked(
        &self,
        queue: &Queue,
        object: &Object,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<()> {
        let first = self.page_size.page_of(offset);
        let count = self.page_size.page_of(buffer.len() as u64);
        let newer = queue.not_in_image(object.id, first, count);
        self.compose(object, offset, buffer, &newer)
    }

    /// Reads what is supplied for whole pages, if none of them has changed since the epoch that is answered.
    fn read_once(&self, object: &Object, offset: u64, buffer: &mut [u8]) -> Result<u64> {
        let (epoch, newer) = self.newer(object, offset, buffer.len());
        self.compose(object, offset, buffer, &newer)?;
        Ok(epoch)
    }

    /// Reads what `new` is to be compared with, as [`Shared::read_once`] does. As long as bytes are left of `unread`, the
    /// drive is not waited for: a page that is not in memory becomes one that differs from the new one in every byte. With
    /// `keep`, pages that wait for their image are from now on kept whole. Answers with the pages of which something is only
    /// queued as well, ascending.
    pub(crate) fn read_base(
        &self,
        object: &Object,
        offset: u64,
        (new, buffer): (&[u8], &mut [u8]),
        unread: &mut usize,
        keep: bool,
    ) -> Result<(u64, Vec<u64>)> {
        let (epoch, newer) = self.newer(object, offset, buffer.len());
        let first = self.page_size.page_of(offset);
        let queued = newer.iter().filter(|newer| newer.is_queued());
        let queued: Vec<u64> = queued.map(|newer| first + newer.index as u64).collect();
        let length = self.page_size.bytes() as usize;
        if self.hide_image(&newer, buffer) {
            self.put(buffer, &newer);
            return Ok((epoch, queued));
        }
        if object.image.read_cached(offset, buffer)? {
            self.put(buffer, &newer);
            if keep && !newer.is_empty() {
                let mut queue = lock(&self.queue);
                for newer in newer {
                    let page = &buffer[newer.index * length..][..length];
                    queue.keep_whole((object.id, first + newer.index as u64), &newer, page);
                }
            }
            return Ok((epoch, queued));
        }
        let pages = new.chunks_exact(length).zip(buffer.chunks_exact_mut(length));
        for (index, (new, base)) in pages.enumerate() {
            let offset = offset + (index * length) as u64;
            if object.image.read_cached(offset, base)? {
                continue;
            }
            if *unread >= length {
                *unread -= length;
                base.iter_mut().zip(new).for_each(|(old, new)| *old = !new);
            } else {
                object.read(offset, base)?;
            }
        }
        self.put(buffer, &newer);
        Ok((epoch, queued))
    }

    /// The epoch, and the pages in `length` bytes from `offset` on that are newer than the image, ascending.
    fn newer(&self, object: &Object, offset: u64, length: usize) -> (u64, Vec<Newer>) {
        let first = self.page_size.page_of(offset);
        let count = self.page_size.page_of(length as u64);
        let queue = lock(&self.queue);
        (queue.epoch(), queue.not_in_image(object.id, first, count))
    }

    /// The image's bytes with `newer` ones over them.
    fn compose(&self, object: &Object, offset: u64, buffer: &mut [u8], newer: &[Newer]) -> Result<()> {
        if !self.hide_image(newer, buffer) {
            object.read(offset, buffer)?;
        }
        self.put(buffer, newer);
        Ok(())
    }

    /// Whether `newer` leaves nothing of the image to be seen in `buffer`.
    fn hide_image(&self, newer: &[Newer], buffer: &[u8]) -> bool {
        newer.len() as u64 * self.page_size.bytes() == buffer.len() as u64
            && newer.iter().all(|newer| newer.hides_image(self.page_size))
    }

    /// Puts what is newer into `buffer`.
    fn put(&self, buffer: &mut [u8], newer: &[Newer]) {
        let length = self.page_size.bytes() as usize;
        for newer in newer {
            newer.put(&mut buffer[newer.index * length..(newer.index + 1) * length]);
        }
    }
}
