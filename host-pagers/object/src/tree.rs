//! [`Tree`]: the contents of a store as of one manifest.
//!
//! ```text
//!   page = change (in the manifest) over the segments' page, or over zeroes
//! ```
//!
//! Invariants:
//! - `pages` is what the directories of `body.segments` say, later ones over earlier ones;
//! - a change that is made for the segments' page goes when that page does;
//! - `images` has the full page of a change where it is known.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    sync::Arc,
};

use vmsync_core::PageSize;
use vmsync_pager_group::{Batch, Contents, Place};

use crate::{
    fold::Fold,
    layout::{
        manifest::{Body, Change, Header, SegmentEntry, SegmentName},
        patch,
        segment::Run,
    },
    limits::{INLINE_BYTES_MAX, INLINE_PAGES_MAX},
    pages::{Location, PageMap},
};

/// A page that a manifest carries a change of.
#[derive(Clone)]
pub(crate) struct Images {
    /// What the patch is for; `None`: it is not known here.
    pub(crate) base: Option<Arc<[u8]>>,
    pub(crate) page: Arc<[u8]>,
}

/// See the head of this file.
pub(crate) struct Tree {
    pub(crate) header: Header,
    pub(crate) body: Body,
    /// `None`: the directories have not been read yet.
    pub(crate) pages: Option<PageMap>,
    pub(crate) images: BTreeMap<Place, Images>,
}

/// What a commit changes, before it is known to have taken place.
pub(crate) struct Draft {
    pub(crate) contents: Contents,
    pub(crate) segments: Vec<SegmentEntry>,
    /// Changes that are new, or take the place of the tree's.
    pub(crate) changes: BTreeMap<Place, Change>,
    /// Of these.
    pub(crate) images: BTreeMap<Place, Images>,
    /// Changes of the tree that go: segments have their pages, or nobody needs them.
    pub(crate) gone: BTreeSet<Place>,
    /// Pages that have to go to segments.
    pub(crate) spilled: Vec<(Place, Arc<[u8]>)>,
    /// Runs of the segments that are new.
    pub(crate) runs: Vec<(SegmentName, Vec<Run>)>,
    /// The fold is in it.
    pub(crate) folded: bool,
}

/// How a page is stored.
pub(crate) enum Stored {
    /// A change whose full page is known.
    Image(Arc<[u8]>),
    /// A change of the segments' page, or of zeroes.
    Changed(Change, Option<Location>),
    Segment(Location),
}

impl Tree {
    pub(crate) fn new(header: Header, body: Body) -> Self {
        // A store without segments has no directories to read.
        let pages = body.segments.is_empty().then(PageMap::default);
        Self {
            header,
            body,
            pages,
            images: BTreeMap::new(),
        }
    }

    /// Goes on to what has been read, for reading, if it is newer.
    pub(crate) fn go_on(&mut self, newer: Self) {
        if newer.header.number > self.header.number {
            *self = newer;
        }
    }

    /// Whether object `id` has this version.
    pub(crate) fn shows(&self, id: u64, version: u64) -> bool {
        let mut objects = self.body.contents.catalog.values();
        objects.any(|entry| (entry.id, entry.version) == (id, version))
    }

    fn page_size(&self) -> PageSize {
        self.header.page_size
    }

    pub(crate) fn segment(&self, name: SegmentName) -> Option<SegmentEntry> {
        self.body
            .segments
            .iter()
            .find(|segment| segment.name == name)
            .copied()
    }

    /// Where one page lies in the segments.
    fn location(&self, place: Place) -> Option<Location> {
        let pages = self.pages.as_ref()?;
        pages
            .locate(place, 1, self.page_size())
            .first()
            .map(|(_, location)| *location)
    }

    /// The stored pages of `count` from `first` on, by their distance from it.
    pub(crate) fn stored(&self, (object, first): Place, count: u64) -> BTreeMap<u64, Stored> {
        let located = self
            .pages
            .iter()
            .flat_map(|pages| pages.locate((object, first), count, self.page_size()));
        let mut stored: BTreeMap<u64, Stored> = located
            .map(|(page, location)| (page - first, Stored::Segment(location)))
            .collect();
        let range = (object, first)..(object, first.saturating_add(count));
        for (place, change) in self.body.changes.range(range) {
            let known = self
                .images
                .get(place)
                .map(|images| Stored::Image(images.page.clone()));
            let page = known.unwrap_or_else(|| Stored::Changed(change.clone(), self.location(*place)));
            stored.insert(place.1 - first, page);
        }
        stored
    }

    /// Pages with a change whose full page is not known.
    pub(crate) fn unknown(&self) -> Vec<Place> {
        let changes = self.body.changes.keys();
        changes
            .filter(|place| !self.images.contains_key(place))
            .copied()
            .collect()
    }

    /// A draft that changes nothing.
    pub(crate) fn same(&self) -> Draft {
        Draft {
            contents: self.body.contents.clone(),
            segments: self.body.segments.clone(),
            changes: BTreeMap::new(),
            images: BTreeMap::new(),
            gone: BTreeSet::new(),
            spilled: Vec::new(),
            runs: Vec::new(),
            folded: false,
        }
    }

    /// The changes that `draft` leaves and makes.
    pub(crate) fn changes<'a>(&'a self, draft: &'a Draft) -> BTreeMap<&'a Place, &'a Change> {
        let left = self.body.changes.iter();
        left.filter(|(place, _)| !draft.gone.contains(place))
            .chain(&draft.changes)
            .collect()
    }

    /// Bytes that the changes take in each manifest.
    pub(crate) fn changes_bytes(&self) -> usize {
        self.body.changes.values().map(Change::bytes).sum()
    }

    /// What `batch` makes of it. `base` answers with the segments' page where that is at hand.
    pub(crate) fn draft(
        &self,
        batch: &Batch,
        fold: Option<&Fold>,
        base: impl Fn(Place, Location) -> Option<Arc<[u8]>>,
    ) -> Draft {
        let mut draft = self.same();
        let contents = &mut draft.contents;
        contents.calls = batch.calls;
        contents.object_next = batch.object_next;
        contents
            .catalog
            .extend(batch.objects.iter().map(|(name, entry)| (name.clone(), *entry)));
        for (name, id) in &batch.removed {
            contents.catalog.remove(name);
            let changes = self.body.changes.range((*id, 0)..=(*id, u64::MAX));
            draft.gone.extend(changes.map(|(place, _)| *place));
        }
        if let Some(fold) = fold {
            self.take_fold(&mut draft, fold);
        }
        let mut bytes = 0;
        for (place, page) in &batch.pages {
            let folded = fold.and_then(|fold| fold.pages.get(place)).cloned();
            let (on_zeroes, base) = match folded {
                Some(base) => (false, Some(base)),
                None => self.base(*place, page.len(), &base),
            };
            let patch = match &base {
                Some(base) => patch::encode(base, page),
                None => patch::encode(&vec![0; page.len()], page),
            };
            bytes += patch.len();
            if bytes > INLINE_BYTES_MAX {
                break;
            }
            draft.change(*place, on_zeroes, base, patch, page.clone());
        }
        let changes = self.changes(&draft);
        let inline: usize = changes.values().map(|change| change.bytes()).sum();
        if bytes > INLINE_BYTES_MAX || inline > INLINE_BYTES_MAX || changes.len() > INLINE_PAGES_MAX {
            self.spill(&mut draft, batch);
        }
        draft
    }

    /// What a change of a page is for: whether that is zeroes, and the page itself where it is at hand.
    fn base(
        &self,
        place: Place,
        length: usize,
        base: impl Fn(Place, Location) -> Option<Arc<[u8]>>,
    ) -> (bool, Option<Arc<[u8]>>) {
        let known = self.images.get(&place).and_then(|images| images.base.clone());
        match (known, self.location(place)) {
            (Some(base), location) => (
                location.is_none_or(|location| location.offset.is_none()),
                Some(base),
            ),
            (None, None | Some(Location { offset: None, .. })) => (true, Some(vec![0; length].into())),
            (None, Some(location)) => {
                let base = base(place, location);
                (base.is_none(), base)
            }
        }
    }

    /// Whether the segments of `fold` may follow those of the tree: each page in them still has a change, which then
    /// is for theirs, or is of no object any more. A page without a change has been written to a segment meanwhile.
    pub(crate) fn carries(&self, fold: &Fold) -> bool {
        let ids = ids(&self.body.contents);
        let mut places = fold.pages.keys();
        places.all(|place| self.images.contains_key(place) || !ids.contains(&place.0))
    }

    /// Names the segments of `fold`, which the tree carries. What was changed since is a change of the pages there.
    fn take_fold(&self, draft: &mut Draft, fold: &Fold) {
        let ids = ids(&draft.contents);
        for (entry, runs) in &fold.segments {
            let used = runs.iter().filter(|run| ids.contains(&run.place.0)).cloned();
            draft.segments.push(*entry);
            draft.runs.push((entry.name, used.collect()));
        }
        for (place, base) in fold.pages.iter().filter(|(place, _)| ids.contains(&place.0)) {
            match self.images.get(place) {
                Some(Images { page, .. }) if page != base => {
                    let patch = patch::encode(base, page);
                    draft.change(*place, false, Some(base.clone()), patch, page.clone());
                }
                _ => drop(draft.gone.insert(*place)),
            }
        }
        draft.folded = true;
    }

    /// Moves every change to segments. All full pages have to be known.
    fn spill(&self, draft: &mut Draft, batch: &Batch) {
        let removed = |place: &Place| batch.removed.iter().any(|(_, id)| *id == place.0);
        let carried = self.images.iter().filter(|(place, _)| !removed(place));
        let mut pages: BTreeMap<Place, Arc<[u8]>> = carried
            .map(|(place, images)| (*place, images.page.clone()))
            .collect();
        pages.extend(batch.pages.iter().map(|(place, page)| (*place, page.clone())));
        *draft = Draft {
            contents: mem::take(&mut draft.contents),
            gone: self.body.changes.keys().copied().collect(),
            spilled: pages.into_iter().collect(),
            ..self.same()
        };
    }

    /// Takes over what has been committed.
    pub(crate) fn apply(&mut self, header: Header, draft: Draft, removed: &[u64]) {
        let page_size = self.page_size();
        self.header = header;
        self.body.contents = draft.contents;
        self.body.segments = draft.segments;
        for place in &draft.gone {
            self.body.changes.remove(place);
            self.images.remove(place);
        }
        self.body.changes.extend(draft.changes);
        self.images.extend(draft.images);
        if let Some(pages) = &mut self.pages {
            removed.iter().for_each(|object| pages.remove_object(*object));
            for (segment, runs) in draft.runs {
                runs.into_iter()
                    .for_each(|run| pages.insert(segment, run, page_size));
            }
        }
    }
}

impl Draft {
    fn change(
        &mut self,
        place: Place,
        on_zeroes: bool,
        base: Option<Arc<[u8]>>,
        patch: Vec<u8>,
        page: Arc<[u8]>,
    ) {
        let patch = patch.into();
        self.gone.remove(&place);
        self.changes.insert(place, Change { on_zeroes, patch });
        self.images.insert(place, Images { base, page });
    }
}

fn ids(contents: &Contents) -> BTreeSet<u64> {
    contents.catalog.values().map(|entry| entry.id).collect()
}
