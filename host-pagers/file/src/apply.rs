//! Applying: durable pages go into their images.
//!
//! ```text
//!   commit --> Queue::ahead --(a while later, many at once)--> images (page cache) --checkpoint--> disk
//! ```
//!
//! A page that is changed again and again is so written once, and no commit waits for an image.
//!
//! Invariants:
//! - images change only here and in `checkpoint.rs`, while [`Shared::images`] is locked, and only to what is durable;
//! - a page leaves `ahead` after its image has it; one that cannot be written stays there, where the store finds it, and is tried
//!   again later.

use std::{
    ops::{Bound, RangeBounds},
    sync::Arc,
};

use crate::{
    ahead::Key,
    disk::Result,
    limits::{APPLY_PAGES_MAX, IMAGE_WRITE_BYTES},
    object::Object,
    patch::Patch,
    store::{Shared, lock},
};

/// A page on its way to its image.
struct Waiting {
    object: Arc<Object>,
    page: u64,
    patch: Patch,
}

impl Waiting {
    fn key(&self) -> Key {
        (self.object.id, self.page)
    }
}

impl Shared {
    /// Writes all pages that wait now and that are in `range`. Others have the images in between.
    ///
    /// # Errors
    /// The first of the disk's.
    pub(crate) fn apply_all(&self, range: impl RangeBounds<Key>) -> Result<()> {
        let (mut start, end) = (range.start_bound().cloned(), range.end_bound().cloned());
        let mut outcome = Ok(());
        loop {
            let (last, applied) = self.apply_waiting((start, end), APPLY_PAGES_MAX);
            outcome = outcome.and(applied);
            match last {
                Some(last) => start = Bound::Excluded(last),
                None => return outcome,
            }
        }
    }

    /// Writes up to `pages_max` of the pages that wait and that are in `range`: the last of them, if there is one, and the first
    /// error of the disk's.
    pub(crate) fn apply_waiting(
        &self,
        range: impl RangeBounds<Key>,
        pages_max: usize,
    ) -> (Option<Key>, Result<()>) {
        let _images = lock(&self.images);
        let waiting: Vec<Waiting> = {
            let queue = lock(&self.queue);
            let chosen = queue.ahead.durable_in(range).take(pages_max);
            let waiting = chosen.map(|((_, page), object, patch)| Waiting {
                object: object.clone(),
                page,
                patch: patch.clone(),
            });
            waiting.collect()
        };
        let last = waiting.last().map(Waiting::key);
        let mut outcome = Ok(());
        let mut written = Vec::with_capacity(waiting.len());
        let pages_at_once = (IMAGE_WRITE_BYTES / self.page_size.bytes() as usize).max(1);
        let mut room = Vec::with_capacity(IMAGE_WRITE_BYTES);
        let runs = waiting.chunk_by(|last, next| self.follows(last, next));
        for run in runs.flat_map(|run| run.chunks(pages_at_once)) {
            match self.put_into_image(run, &mut room) {
                Ok(()) => written.extend(run),
                Err(error) => outcome = outcome.and(Err(error)),
            }
        }
        let learned: Vec<bool> = written.iter().map(|waiting| self.learn(waiting)).collect();
        let mut queue = lock(&self.queue);
        for (waiting, learned) in written.into_iter().zip(learned) {
            let newest = queue.ahead.applied(waiting.key(), &waiting.patch);
            if learned {
                waiting.object.lines.applied(waiting.page, newest);
            }
        }
        (last, outcome)
    }

    /// Keeps the sums of a page that is there as a whole.
    fn learn(&self, waiting: &Waiting) -> bool {
        let whole = waiting.patch.whole(self.page_size);
        whole.is_some_and(|page| waiting.object.lines.learn_applied(waiting.page, page))
    }

    /// Puts `run` into the image: a page, or several whole ones in a row.
    fn put_into_image(&self, run: &[Waiting], room: &mut Vec<u8>) -> Result<()> {
        let first = &run[0];
        let (image, offset) = (&first.object.image, first.page * self.page_size.bytes());
        room.clear();
        for page in run
            .iter()
            .filter_map(|waiting| waiting.patch.whole(self.page_size))
        {
            room.extend_from_slice(page);
        }
        if room.is_empty() {
            let mut runs = first.patch.runs();
            if let (Some((start, bytes)), None) = (runs.next(), runs.next()) {
                return image.write_at(offset + start as u64, bytes);
            }
            room.resize(self.page_size.bytes() as usize, 0);
            first.object.read(offset, room)?;
            first.patch.apply(room);
        }
        image.write_at(offset, room)
    }

    /// Whether both are whole pages, and `next` is the one behind `last`.
    fn follows(&self, last: &Waiting, next: &Waiting) -> bool {
        Arc::ptr_eq(&last.object, &next.object)
            && next.page == last.page + 1
            && [last, next]
                .iter()
                .all(|page| page.patch.whole(self.page_size).is_some())
    }
}
