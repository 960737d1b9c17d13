//! [`Delta`]: what returned pages change, and how it is found.
//!
//! A page is compared while the runtime shows it, and only what differs is kept: most pages change little, and memory that
//! nobody touched lately is what comparing them waits for.
//!
//! Invariant: a delta is computed while no other lock is held than its call's, and queued only if no page of it changed
//! meanwhile.

use std::{
    cell::RefCell,
    ops::Range,
    sync::{Arc, MutexGuard},
};

use vmsync_core::{PagerError, PagerErrorKind};

use crate::{
    call::Call,
    difference::difference,
    disk::Result,
    layout::entry::encode_page,
    limits::PART_BYTES,
    object::Object,
    patch::Patch,
    queue::Queue,
    store::{Shared, lock},
};

/// What differs from the base.
pub(crate) struct Delta {
    /// No page changed between this epoch and the reading of its base.
    epoch: u64,
    /// Entries of the journal.
    pub(crate) parts: Vec<Arc<Vec<u8>>>,
    pub(crate) changed: Vec<Changed>,
    last: Part,
}

/// A page that differs.
pub(crate) struct Changed {
    pub(crate) object: Arc<Object>,
    pub(crate) page: u64,
    pub(crate) sum: u64,
    pub(crate) patch: Patch,
}

/// Entries that are being written.
#[derive(Default)]
struct Part {
    entries: Vec<u8>,
    pages: Vec<Page>,
}

/// A page that differs, with the place of its runs in the part.
struct Page {
    object: Arc<Object>,
    number: u64,
    sum: u64,
    runs: Range<usize>,
}

impl Default for Delta {
    fn default() -> Self {
        Self {
            epoch: u64::MAX,
            parts: Vec::new(),
            changed: Vec::new(),
            last: Part::default(),
        }
    }
}

impl Delta {
    /// Finishes the part that is being written.
    pub(crate) fn close_part(&mut self) {
        if self.last.pages.is_empty() {
            return;
        }
        let entries = Arc::new(std::mem::take(&mut self.last.entries));
        self.changed.extend(self.last.pages.drain(..).map(|page| Changed {
            object: page.object,
            page: page.number,
            sum: page.sum,
            patch: Patch::new(&entries, page.runs),
        }));
        self.parts.push(entries);
    }

    /// Puts into `base`, pages of `object` from `first` on, what this changes in them.
    fn put(&mut self, object: u64, first: u64, base: &mut [u8], page_bytes: usize) {
        self.close_part();
        let pages = first..first + (base.len() / page_bytes) as u64;
        let own = |changed: &&Changed| changed.object.id == object && pages.contains(&changed.page);
        for changed in self.changed.iter().filter(own) {
            let start = (changed.page - first) as usize * page_bytes;
            changed.patch.apply(&mut base[start..start + page_bytes]);
        }
    }
}

thread_local! {
    /// What pages are compared with; at most as long as the longest run.
    static BASE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl Shared {
    /// Adds to `call` what `new`, pages of `object` from `first` on, change.
    ///
    /// # Errors
    /// The disk's, reading the base; `call` is as it was.
    pub(crate) fn compare(
        &self,
        call: &mut Call,
        object: &Arc<Object>,
        first: u64,
        new: &[u8],
    ) -> Result<()> {
        let page_bytes = self.page_size.bytes() as usize;
        BASE.with_borrow_mut(|base| {
            base.resize(new.len(), 0);
            let offset = first * self.page_size.bytes();
            let epoch = self.read_base(object, offset, (new, base), &mut call.unread_bytes_left)?;
            let delta = &mut call.delta;
            delta.epoch = delta.epoch.min(epoch);
            // Pages come in ascending order, as a rule each of them once.
            if call.behind > (object.id, first) {
                delta.put(object.id, first, base, page_bytes);
            }
            let mut ranges = Vec::new();
            let pages = base.chunks_exact(page_bytes).zip(new.chunks_exact(page_bytes));
            for (number, (old, new)) in (first..).zip(pages) {
                difference(old, new, &mut ranges);
                if ranges.is_empty() {
                    continue;
                }
                let sum = self.seed.page_sum(object.id, number, new);
                let place = (object.id, number, sum);
                let page = Page {
                    object: object.clone(),
                    number,
                    sum,
                    runs: encode_page(&mut delta.last.entries, place, new, &ranges),
                };
                delta.last.pages.push(page);
                if delta.last.entries.len() >= PART_BYTES {
                    delta.close_part();
                }
            }
            let behind = first + (new.len() / page_bytes) as u64;
            call.behind = call.behind.max((object.id, behind));
            Ok(())
        })
    }

    /// Locks the queue, and sees to it that `delta` still is a difference to what is supplied.
    ///
    /// # Errors
    /// Another call changed one of its pages, which the runtime's order of calls excludes, or one that it built upon
    /// failed; the disk's, looking.
    pub(crate) fn lock_if_fresh(&self, delta: &Delta) -> Result<MutexGuard<'_, Queue>> {
        let queue = lock(&self.queue);
        let mut page = vec![0; self.page_size.bytes() as usize];
        for (index, changed) in delta.changed.iter().enumerate() {
            let (id, number) = (changed.object.id, changed.page);
            // Pages share their stamps. One that did change has another sum.
            if queue.changed_since(id, (number, number + 1), delta.epoch) {
                let offset = number * self.page_size.bytes();
                self.read_locked(&queue, &changed.object, offset, &mut page)?;
                delta.changed[..=index]
                    .iter()
                    .filter(|own| (own.object.id, own.page) == (id, number))
                    .for_each(|own| own.patch.apply(&mut page));
                if self.seed.page_sum(id, number, &page) != changed.sum {
                    return Err(overtaken(changed));
                }
            }
        }
        Ok(queue)
    }
}

fn overtaken(changed: &Changed) -> PagerError {
    let message = format!(
        "page {} of \"{}\" was changed by another call: return the pages again",
        changed.page, changed.object.name
    );
    PagerError::new(PagerErrorKind::Busy, message)
}
