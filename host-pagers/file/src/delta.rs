//! [`Delta`]: what returned pages change, and how it is found.
//!
//! A page is compared while the runtime shows it, and only what differs is kept: most pages change little, and memory that
//! nobody touched lately is what comparing them waits for.
//!
//! Invariant: a delta is computed while no other lock is held than its call's, and queued only if no page of it changed
//! meanwhile.

use std::{
    collections::BTreeMap,
    mem,
    ops::Range,
    sync::{Arc, MutexGuard},
};

use vmsync_core::{PageRange, PagerError, PagerErrorKind};

use crate::{
    ahead::Key,
    disk::Result,
    layout::entry::encode_page,
    limits::PART_BYTES,
    lines::Learner,
    object::Object,
    patch::Patch,
    queue::Queue,
    store::{Shared, lock},
};

/// What differs from the base.
pub(crate) struct Delta {
    /// No page changed between this epoch and the reading of its base.
    epoch: u64,
    pub(crate) learner: Learner,
    /// Entries of the journal.
    parts: Vec<Arc<Vec<u8>>>,
    pub(crate) changed: Vec<Changed>,
    last: Part,
    /// Where pages do not come back in ascending order, one may come again: what the call changes in each page.
    total: Option<Total>,
}

/// By object and page: all that a call changes in it, and its sum.
type Total = BTreeMap<(u64, u64), (Patch, u64)>;

/// A page that differs.
pub(crate) struct Changed {
    pub(crate) object: Arc<Object>,
    pub(crate) page: u64,
    pub(crate) sum: u64,
    pub(crate) patch: Patch,
    /// Who keeps the sums of the lines of the page as it came back.
    pub(crate) learner: Option<Learner>,
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
    learner: Option<Learner>,
}

impl Default for Delta {
    fn default() -> Self {
        Self {
            epoch: u64::MAX,
            learner: Learner::next(),
            parts: Vec::new(),
            changed: Vec::new(),
            last: Part::default(),
            total: None,
        }
    }
}

/// What is not queued is not supplied.
impl Drop for Delta {
    fn drop(&mut self) {
        self.close_part();
        self.changed.iter().for_each(Changed::give_up);
    }
}

impl Changed {
    pub(crate) fn key(&self) -> Key {
        (self.object.id, self.page)
    }

    /// The page did not become what came back.
    pub(crate) fn give_up(&self) {
        if let Some(learner) = self.learner {
            self.object.lines.give_up(self.page, learner);
        }
    }
}

impl Delta {
    /// Finishes the part that is being written.
    pub(crate) fn close_part(&mut self) {
        if self.last.pages.is_empty() {
            return;
        }
        let entries = Arc::new(mem::take(&mut self.last.entries));
        for page in self.last.pages.drain(..) {
            let changed = Changed {
                object: page.object,
                page: page.number,
                sum: page.sum,
                patch: Patch::new(&entries, page.runs),
                learner: page.learner,
            };
            if let Some(total) = &mut self.total {
                add(total, &changed);
            }
            self.changed.push(changed);
        }
        self.parts.push(entries);
    }

    /// Its entries and the pages that they change, to be queued.
    pub(crate) fn take(&mut self) -> (Vec<Arc<Vec<u8>>>, Vec<Changed>) {
        self.close_part();
        (mem::take(&mut self.parts), mem::take(&mut self.changed))
    }

    /// What is added next was compared with what was supplied at `epoch`.
    pub(crate) fn seen_at(&mut self, epoch: u64) {
        self.epoch = self.epoch.min(epoch);
    }

    /// Adds what another thread found, in pages that did not come back before.
    pub(crate) fn append(&mut self, mut found: Self) {
        self.close_part();
        found.close_part();
        self.seen_at(found.epoch);
        if let Some(total) = &mut self.total {
            found.changed.iter().for_each(|changed| add(total, changed));
        }
        self.parts.append(&mut found.parts);
        self.changed.append(&mut found.changed);
    }

    /// Puts into `base`, pages of `object` from `first` on, what came back of them before.
    pub(crate) fn rebase(&mut self, object: u64, first: u64, base: &mut [u8], page_bytes: usize) {
        let end = first + (base.len() / page_bytes) as u64;
        self.close_part();
        let changed = &self.changed;
        let total = self.total.get_or_insert_with(|| {
            let mut total = Total::new();
            changed.iter().for_each(|changed| add(&mut total, changed));
            total
        });
        for ((_, page), (patch, _)) in total.range((object, first)..(object, end)) {
            let start = (page - first) as usize * page_bytes;
            patch.apply(&mut base[start..start + page_bytes]);
        }
    }

    /// Adds a page that came back as `new`, and what differs in it; `learned`: [`Delta::learner`] has kept the sums of its lines.
    pub(crate) fn add(
        &mut self,
        object: &Arc<Object>,
        (number, sum): (u64, u64),
        new: &[u8],
        ranges: &[(usize, usize)],
        learned: bool,
    ) {
        let page = Page {
            object: object.clone(),
            number,
            sum,
            runs: encode_page(&mut self.last.entries, (object.id, number, sum), new, ranges),
            learner: learned.then_some(self.learner),
        };
        self.last.pages.push(page);
        if self.last.entries.len() >= PART_BYTES {
            self.close_part();
        }
    }

    /// What the call changes in the page of `changed`, and the page's sum then.
    fn total<'a>(&'a self, changed: &'a Changed) -> (&'a Patch, u64) {
        let total = self.total.as_ref();
        match total.and_then(|total| total.get(&(changed.object.id, changed.page))) {
            Some((patch, sum)) => (patch, *sum),
            None => (&changed.patch, changed.sum),
        }
    }
}

fn add(total: &mut Total, changed: &Changed) {
    let place = total.entry((changed.object.id, changed.page));
    let (patch, sum) = place.or_insert_with(|| (changed.patch.clone(), changed.sum));
    (*patch, *sum) = (changed.patch.over(patch), changed.sum);
}

impl Shared {
    /// Locks the queue, and sees to it that `delta` makes of what is supplied what came back.
    ///
    /// # Errors
    /// The store has panicked; something was lost since pages of it came back; another call changed one of them, which the
    /// runtime's order of calls excludes; the disk's, looking.
    pub(crate) fn lock_if_fresh(&self, delta: &mut Delta) -> Result<MutexGuard<'_, Queue>> {
        delta.close_part();
        let queue = lock(&self.queue);
        if let Some(error) = &queue.broken {
            return Err(error.clone());
        }
        if let Some(error) = queue.lost_since(delta.epoch) {
            return Err(error.clone().behind());
        }
        let is_stale = |id, number, epoch| queue.changed_since(id, PageRange::new(number, number + 1), epoch);
        let mut page = Vec::new();
        for changed in &delta.changed {
            let (id, number) = (changed.object.id, changed.page);
            // Pages share their stamps. One that did change has another sum.
            if is_stale(id, number, delta.epoch) {
                let offset = number * self.page_size.bytes();
                page.resize(self.page_size.bytes() as usize, 0);
                self.read_locked(&queue, &changed.object, offset, &mut page)?;
                let (patch, sum) = delta.total(changed);
                patch.apply(&mut page);
                if self.seed.page_sum(id, number, &page) != sum {
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
