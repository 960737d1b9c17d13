//! What the store supplies for pages: the image's bytes, over them those that wait for the image, over these those that
//! are queued.
//!
//! Invariant: the image is read while no lock is held; what it shows counts only if no page has changed meanwhile.

use std::sync::atomic::{AtomicUsize, Ordering};

use vmsync_core::PageRange;

use crate::{
    ahead::Newer,
    disk::Result,
    limits::READ_TRIES,
    object::Object,
    queue::Queue,
    store::{Shared, lock},
};

impl Shared {
    /// Reads what is supplied for whole pages.
    pub(crate) fn read_supplied(&self, object: &Object, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let pages = self.pages(offset, buffer.len());
        for _ in 0..READ_TRIES {
            let epoch = self.read_once(object, offset, buffer)?;
            if !lock(&self.queue).changed_since(object.id, pages, epoch) {
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
        let newer = queue.ahead.newer(object.id, self.pages(offset, buffer.len()));
        self.compose(object, offset, buffer, &newer)
    }

    /// Reads what is supplied for whole pages, if none of them has changed since the epoch that is answered.
    fn read_once(&self, object: &Object, offset: u64, buffer: &mut [u8]) -> Result<u64> {
        let (epoch, newer) = self.newer(object, self.pages(offset, buffer.len()));
        self.compose(object, offset, buffer, &newer)?;
        Ok(epoch)
    }

    /// Reads what `new` is to be compared with: the image, and `newer` over it. As long as bytes are left of `unread`, the drive
    /// is not waited for: a page that is not in memory becomes one that differs from the new one in every byte, and the answer
    /// `false`.
    pub(crate) fn read_base(
        &self,
        object: &Object,
        offset: u64,
        (new, buffer): (&[u8], &mut [u8]),
        unread: &AtomicUsize,
        newer: &[Newer],
    ) -> Result<bool> {
        let length = self.page_size.bytes() as usize;
        let mut all_read = true;
        if !self.hide_image(newer, buffer) && !object.image.read_cached(offset, buffer)? {
            let pages = new.chunks_exact(length).zip(buffer.chunks_exact_mut(length));
            for (index, (new, base)) in pages.enumerate() {
                let offset = offset + (index * length) as u64;
                if object.image.read_cached(offset, base)? {
                    continue;
                }
                let take = |left: usize| left.checked_sub(length);
                if unread
                    .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
                    .is_ok()
                {
                    all_read = false;
                    base.iter_mut().zip(new).for_each(|(old, new)| *old = !new);
                } else {
                    object.read(offset, base)?;
                }
            }
        }
        self.put(buffer, newer);
        Ok(all_read)
    }

    /// Keeps all of the pages of `base`, from `first` on, that wait for their image: they change again and again, and so need no
    /// reading from now on.
    pub(crate) fn keep_whole(&self, object: &Object, first: u64, newer: &[Newer], base: &[u8]) {
        let mut newer = newer
            .iter()
            .filter(|newer| newer.durable_page(self.page_size).is_none())
            .peekable();
        if newer.peek().is_none() {
            return;
        }
        let length = self.page_size.bytes() as usize;
        let mut queue = lock(&self.queue);
        for newer in newer {
            let page = &base[newer.index * length..][..length];
            queue
                .ahead
                .keep_whole((object.id, first + newer.index as u64), newer, page);
        }
    }

    /// The pages that `length` bytes from `offset` on are.
    pub(crate) fn pages(&self, offset: u64, length: usize) -> PageRange {
        let first = self.page_size.page_of(offset);
        PageRange::new(first, first + self.page_size.page_of(length as u64))
    }

    /// The epoch, and those of `pages` that are newer than the image, ascending.
    pub(crate) fn newer(&self, object: &Object, pages: PageRange) -> (u64, Vec<Newer>) {
        let queue = lock(&self.queue);
        (queue.epoch(), queue.ahead.newer(object.id, pages))
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
