//! [`Ahead`]: the pages that are ahead of their images.
//!
//! ```text
//!   image's bytes <-- durable (journaled, not in the image yet) <-- queued (not journaled yet) <-- what is supplied
//! ```
//!
//! Invariants:
//! - a page is here while it has something that its image does not have, and no longer;
//! - what is queued includes all calls that are; the number of the newest tells when nothing is left of it.

use std::{
    collections::BTreeMap,
    ops::{Bound, RangeBounds},
    sync::Arc,
};

use vmsync_core::{PageRange, PageSize};

use crate::{delta::Changed, object::Object, patch::Patch};

/// The object's id and the page's number.
pub(crate) type Key = (u64, u64);

/// See the head of the file.
#[derive(Default)]
pub(crate) struct Ahead {
    pages: BTreeMap<Key, Page>,
    durable: usize,
}

struct Page {
    object: Arc<Object>,
    durable: Option<Patch>,
    /// With the number of the newest call that changes the page.
    queued: Option<(u64, Patch)>,
}

/// What a page has that its image does not have.
pub(crate) struct Newer {
    /// The page, counted from the first that was asked for.
    pub(crate) index: usize,
    durable: Option<Patch>,
    queued: Option<Patch>,
}

impl Ahead {
    /// How many pages have something durable that is not in their images.
    pub(crate) fn durable(&self) -> usize {
        self.durable
    }

    /// Those pages of `range`, ascending.
    pub(crate) fn durable_in(
        &self,
        range: impl RangeBounds<Key>,
    ) -> impl Iterator<Item = (Key, &Arc<Object>, &Patch)> {
        let pages = self.pages.range(range);
        pages.filter_map(|(key, page)| Some((*key, &page.object, page.durable.as_ref()?)))
    }

    /// Those of `pages` that are here, ascending.
    pub(crate) fn newer(&self, object: u64, pages: PageRange) -> Vec<Newer> {
        let newer = self
            .pages
            .range(keys(object, pages))
            .map(|((_, number), page)| Newer {
                index: (number - pages.start) as usize,
                durable: page.durable.clone(),
                queued: page.queued.as_ref().map(|(_, patch)| patch.clone()),
            });
        newer.collect()
    }

    /// Whether the image has all that is supplied for `pages`.
    pub(crate) fn is_in_image(&self, object: u64, pages: PageRange) -> bool {
        self.pages.range(keys(object, pages)).next().is_none()
    }

    /// Whether a queued call changes a page of `pages`.
    pub(crate) fn is_queued(&self, object: u64, pages: PageRange) -> bool {
        let mut pages = self.pages.range(keys(object, pages));
        pages.any(|(_, page)| page.queued.is_some())
    }

    /// A page of the call `number`, the newest, is queued.
    pub(crate) fn queue(&mut self, changed: &Changed, number: u64) {
        let page = self.page(changed.key(), &changed.object);
        let older = page.queued.take();
        let patch = older.map_or_else(|| changed.patch.clone(), |(_, older)| changed.patch.over(&older));
        page.queued = Some((number, patch));
    }

    /// A page of the call `number` is durable, and so are all calls before it.
    pub(crate) fn settle(&mut self, changed: &Changed, number: u64) {
        let page = self.page(changed.key(), &changed.object);
        page.queued.take_if(|(newest, _)| *newest == number);
        match &mut page.durable {
            Some(durable) => durable.absorb(&changed.patch),
            None => {
                page.durable = Some(changed.patch.clone());
                self.durable += 1;
            }
        }
    }

    /// Nothing that is queued of a page will be durable.
    pub(crate) fn discard(&mut self, key: Key) {
        if let Some(page) = self.pages.get_mut(&key) {
            page.queued = None;
            if page.durable.is_none() {
                self.pages.remove(&key);
            }
        }
    }

    /// A page has `patch`, which is durable.
    pub(crate) fn insert(&mut self, key: Key, object: &Arc<Object>, patch: Patch) {
        let page = self.page(key, object);
        let added = page.durable.replace(patch).is_none();
        self.durable += usize::from(added);
    }

    /// Keeps all of `page`, which is what is supplied: it is changed again and again, and so needs no reading. Where it has
    /// changed since `newer`, or some of it is only queued, nothing happens.
    pub(crate) fn keep_whole(&mut self, key: Key, newer: &Newer, page: &[u8]) {
        let waiting = self.pages.get_mut(&key).and_then(|page| page.durable.as_mut());
        if let (Some(patch), None, Some(waiting)) = (&newer.durable, &newer.queued, waiting)
            && waiting.is(patch)
        {
            *waiting = Patch::of_page(page, &[(0, page.len())]);
        }
    }

    /// The image of a page has `patch`; whether that is all that is supplied for it.
    pub(crate) fn applied(&mut self, key: Key, patch: &Patch) -> bool {
        let Some(page) = self.pages.get_mut(&key) else {
            return false;
        };
        let newest = page.durable.take_if(|durable| durable.is(patch)).is_some();
        self.durable -= usize::from(newest);
        let all = newest && page.queued.is_none();
        if all {
            self.pages.remove(&key);
        }
        all
    }

    /// The object was removed.
    pub(crate) fn forget(&mut self, object: u64) {
        self.pages.retain(|(id, _), _| *id != object);
        self.durable = self.durable_in(..).count();
    }

    fn page(&mut self, key: Key, object: &Arc<Object>) -> &mut Page {
        self.pages.entry(key).or_insert_with(|| Page {
            object: object.clone(),
            durable: None,
            queued: None,
        })
    }
}

fn keys(object: u64, pages: PageRange) -> (Bound<Key>, Bound<Key>) {
    let end = pages.end.max(pages.start);
    (
        Bound::Included((object, pages.start)),
        Bound::Excluded((object, end)),
    )
}

impl Newer {
    /// Puts what is newer into `page`.
    pub(crate) fn put(&self, page: &mut [u8]) {
        let patches = [&self.durable, &self.queued];
        patches.into_iter().flatten().for_each(|patch| patch.apply(page));
    }

    /// Whether some of it is not durable yet.
    pub(crate) fn is_queued(&self) -> bool {
        self.queued.is_some()
    }

    /// The page, where it is durable and kept as a whole.
    pub(crate) fn durable_page(&self, page_size: PageSize) -> Option<&[u8]> {
        match (&self.durable, &self.queued) {
            (Some(durable), None) => durable.whole(page_size),
            _ => None,
        }
    }

    /// Whether nothing of the image is left to be seen.
    pub(crate) fn hides_image(&self, page_size: PageSize) -> bool {
        let whole = |patch: &Patch| patch.whole(page_size).is_some();
        [&self.durable, &self.queued].into_iter().flatten().any(whole)
    }
}
