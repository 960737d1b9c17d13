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

use crate::{delta::Changed, limits::WAITING_PAGE_BYTES, object::Object, patch::Patch};

/// The object's id and the page's number.
pub(crate) type Key = (u64, u64);

/// See the head of the file.
#[derive(Default)]
pub(crate) struct Ahead {
    pages: BTreeMap<Key, Page>,
    /// Of pages with something durable: how many there are, and what their patches take.
    durable: usize,
    durable_bytes: usize,
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

    /// Bytes of memory that they take, roughly.
    pub(crate) fn durable_bytes(&self) -> usize {
        self.durable_bytes + self.durable * WAITING_PAGE_BYTES
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
        let (before, now) = match &mut page.durable {
            Some(durable) => {
                let before = durable.bytes();
                durable.absorb(&changed.patch);
                (Some(before), durable.bytes())
            }
            None => (None, page.durable.insert(changed.patch.clone()).bytes()),
        };
        self.count(before, Some(now));
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
        let bytes = patch.bytes();
        let before = self.page(key, object).durable.replace(patch);
        self.count(before.map(|before| before.bytes()), Some(bytes));
    }

    /// Keeps all of `page`, which is what is supplied: it is changed again and again, and so needs no reading. Where it has
    /// changed since `newer`, or some of it is only queued, nothing happens.
    pub(crate) fn keep_whole(&mut self, key: Key, newer: &Newer, page: &[u8]) {
        let waiting = self.pages.get_mut(&key).and_then(|page| page.durable.as_mut());
        if let (Some(patch), None, Some(waiting)) = (&newer.durable, &newer.queued, waiting)
            && waiting.is(patch)
        {
            let whole = Patch::of_page(page, &[(0, page.len())]);
            let (before, now) = (waiting.bytes(), whole.bytes());
            *waiting = whole;
            self.count(Some(before), Some(now));
        }
    }

    /// The image of a page has `patch`; whether that is all that is supplied for it.
    pub(crate) fn applied(&mut self, key: Key, patch: &Patch) -> bool {
        let Some(page) = self.pages.get_mut(&key) else {
            return false;
        };
        let applied = page.durable.take_if(|durable| durable.is(patch));
        let all = applied.is_some() && page.queued.is_none();
        if all {
            self.pages.remove(&key);
        }
        self.count(applied.map(|applied| applied.bytes()), None);
        all
    }

    /// The object was removed.
    pub(crate) fn forget(&mut self, object: u64) {
        self.pages.retain(|(id, _), _| *id != object);
        self.durable = self.durable_in(..).count();
        self.durable_bytes = self.durable_in(..).map(|(_, _, patch)| patch.bytes()).sum();
    }

    /// A page's durable patch took `before` bytes and takes `now`.
    fn count(&mut self, before: Option<usize>, now: Option<usize>) {
        self.durable = self.durable + usize::from(now.is_some()) - usize::from(before.is_some());
        self.durable_bytes = self.durable_bytes + now.unwrap_or(0) - before.unwrap_or(0);
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

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use vmsync_core::pager::ObjectName;
    use vmsync_pager_conformance::random::Random;

    use super::*;
    use crate::disk::{Access, Disk, memory::MemoryDisk};

    const PAGE: usize = 4096;
    const PAGES: u64 = 4;

    /// A page as it should be.
    #[derive(Clone)]
    struct Model {
        image: Vec<u8>,
        durable: Vec<u8>,
        /// Something durable is not in the image.
        waits: bool,
        queued: VecDeque<Vec<u8>>,
        /// Who applies took this patch, and what the image will be.
        applied: Option<(Patch, Vec<u8>)>,
        /// The patch is another since.
        kept: bool,
    }

    fn changed(object: &Arc<Object>, page: u64, new: &[u8], range: (usize, usize)) -> Changed {
        Changed {
            object: object.clone(),
            page,
            sum: 0,
            patch: Patch::of_page(new, &[range]),
            learner: None,
        }
    }

    #[test]
    fn what_is_supplied_is_the_image_and_what_is_ahead_of_it() {
        let mut random = Random::from_environment("ahead");
        let image = MemoryDisk::new().open("image", Access::Create).unwrap();
        let name = ObjectName::new("object").unwrap();
        let object = Arc::new(Object::new(1, &name, image, 0, PageSize::KIB_4));
        let (mut ahead, mut numbers) = (Ahead::default(), (0, 0));
        let mut calls = VecDeque::new();
        let empty = Model {
            image: vec![0; PAGE],
            durable: vec![0; PAGE],
            waits: false,
            queued: VecDeque::new(),
            applied: None,
            kept: false,
        };
        let mut pages = vec![empty; PAGES as usize];
        for _ in 0..20_000 {
            let number = random.below(PAGES);
            let page = &mut pages[number as usize];
            match random.below(8) {
                0..3 => {
                    let mut new = page.queued.back().unwrap_or(&page.durable).clone();
                    let start = random.below(PAGE as u64 - 8) as usize;
                    random.fill(&mut new[start..start + 8]);
                    let call = changed(&object, number, &new, (start, start + 8));
                    numbers.0 += 1;
                    ahead.queue(&call, numbers.0);
                    calls.push_back(call);
                    page.queued.push_back(new);
                }
                3 | 4 => {
                    if let Some(call) = calls.pop_front() {
                        numbers.1 += 1;
                        ahead.settle(&call, numbers.1);
                        let page = &mut pages[call.page as usize];
                        page.durable = page.queued.pop_front().unwrap();
                        page.waits = true;
                    }
                }
                5 if random.once_in(8) => {
                    numbers.1 = numbers.0;
                    for call in calls.drain(..) {
                        ahead.discard(call.key());
                    }
                    pages.iter_mut().for_each(|page| page.queued.clear());
                }
                5 => match page.applied.take() {
                    None => {
                        let waiting = ahead.durable_in((1, number)..=(1, number)).next();
                        page.kept = false;
                        page.applied = waiting.map(|(_, _, patch)| (patch.clone(), page.durable.clone()));
                    }
                    Some((patch, image)) => {
                        let newest = page.waits && image == page.durable && !page.kept;
                        page.image = image;
                        page.waits &= !newest;
                        let all = ahead.applied((1, number), &patch);
                        assert_eq!(all, newest && page.queued.is_empty());
                    }
                },
                6 => {
                    let whole = PageRange::new(number, number + 1);
                    for newer in ahead.newer(1, whole) {
                        page.kept |= page.queued.is_empty();
                        let supplied = page.queued.back().unwrap_or(&page.durable);
                        ahead.keep_whole((1, number), &newer, supplied);
                    }
                }
                _ => {
                    let all = PageRange::new(0, PAGES);
                    let mut supplied: Vec<Vec<u8>> = pages.iter().map(|page| page.image.clone()).collect();
                    for newer in ahead.newer(1, all) {
                        newer.put(&mut supplied[newer.index]);
                    }
                    for (number, (page, supplied)) in (0..).zip(pages.iter().zip(supplied)) {
                        assert!(supplied == *page.queued.back().unwrap_or(&page.durable));
                        let one = PageRange::new(number, number + 1);
                        assert_eq!(ahead.is_queued(1, one), !page.queued.is_empty());
                        let here = page.waits || !page.queued.is_empty();
                        assert_eq!(ahead.is_in_image(1, one), !here);
                    }
                    assert_eq!(ahead.durable(), pages.iter().filter(|page| page.waits).count());
                    let bytes = ahead.durable_in(..).map(|(_, _, patch)| patch.bytes());
                    assert_eq!(ahead.durable_bytes, bytes.sum());
                    assert!(ahead.is_in_image(2, all) && ahead.newer(2, all).is_empty());
                }
            }
        }
        ahead.forget(1);
        assert_eq!((ahead.durable(), ahead.durable_bytes()), (0, 0));
    }

    #[test]
    fn a_page_that_changed_since_is_not_kept_as_it_was() {
        let image = MemoryDisk::new().open("image", Access::Create).unwrap();
        let name = ObjectName::new("object").unwrap();
        let object = Arc::new(Object::new(1, &name, image, 0, PageSize::KIB_4));
        let mut ahead = Ahead::default();
        let (old, new) = (vec![1; PAGE], vec![2; PAGE]);
        ahead.settle(&changed(&object, 0, &old, (0, 8)), 1);
        let newer = ahead.newer(1, PageRange::new(0, 1));
        ahead.settle(&changed(&object, 0, &new, (0, 8)), 2);
        ahead.keep_whole((1, 0), &newer[0], &old);
        let mut supplied = vec![0; PAGE];
        ahead.newer(1, PageRange::new(0, 1))[0].put(&mut supplied);
        assert_eq!(supplied[..8], [2; 8]);
    }
}
