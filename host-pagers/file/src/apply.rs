//! Applying: durable pages go into their images.
//!
//! ```text
//!   commit --> Queue::unapplied --(a while later, many at once)--> images (page cache) --checkpoint--> disk
//! ```
//!
//! A page that is changed again and again is so written once, and no commit waits for an image.
//!
//! Invariants:
//! - images change only here and in `checkpoint.rs`, while [`Shared::images`] is locked, and only to what is durable;
//! - a page leaves `unapplied` after its image has it; one that cannot be written stays there, where the store finds
//!   it, and is tried again later.

use std::{ops::RangeBounds, sync::Arc};

use vmsync_core::PageSize;

use crate::{
    disk::Result,
    limits::IMAGE_WRITE_BYTES,
    object::{Object, PageBytes},
    store::{Shared, lock},
};

/// A page on its way to its image.
struct Waiting {
    object: Arc<Object>,
    page: u64,
    bytes: PageBytes,
}

impl Shared {
    /// Writes up to `pages_max` of the pages that wait and that are in `range`, by object and number.
    ///
    /// # Errors
    /// The first of the disk's.
    pub(crate) fn apply_waiting(&self, range: impl RangeBounds<(u64, u64)>, pages_max: usize) -> Result<()> {
        let _images = lock(&self.images);
        let waiting: Vec<Waiting> = {
            let queue = lock(&self.queue);
            let chosen = queue.unapplied.range(range).take(pages_max);
            let waiting = chosen.map(|((_, page), (object, bytes))| Waiting {
                object: object.clone(),
                page: *page,
                bytes: bytes.clone(),
            });
            waiting.collect()
        };
        let mut outcome = Ok(());
        let mut written = Vec::with_capacity(waiting.len());
        let pages_at_once = (IMAGE_WRITE_BYTES / self.page_size.bytes() as usize).max(1);
        let runs = waiting.chunk_by(|last, next| follows(last, next, self.page_size));
        for run in runs.flat_map(|run| run.chunks(pages_at_once)) {
            let first = &run[0];
            let bytes = first.bytes.run(run.len(), self.page_size);
            match first
                .object
                .image
                .write_at(first.page * self.page_size.bytes(), bytes)
            {
                Ok(()) => written.extend(run),
                Err(error) => outcome = outcome.and(Err(error)),
            }
        }
        let mut queue = lock(&self.queue);
        for waiting in written {
            queue.applied(waiting.object.id, waiting.page, &waiting.bytes);
        }
        outcome
    }
}

/// Whether `next` goes on where `last` ends, in the image and in memory.
fn follows(last: &Waiting, next: &Waiting, page_size: PageSize) -> bool {
    Arc::ptr_eq(&last.object, &next.object)
        && next.page == last.page + 1
        && last.bytes.precedes(&next.bytes, page_size)
}
