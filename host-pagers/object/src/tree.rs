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

use std::{collections::BTreeMap, sync::Arc};

use vmsync_core::PageSize;
use vmsync_pager_group::{Batch, Place};

use crate::{
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
    pub(crate) body: Body,
    pub(crate) images: BTreeMap<Place, Images>,
    /// Pages that have to go to segments.
    pub(crate) spilled: Vec<(Place, Arc<[u8]>)>,
    /// Their segments' runs.
    pub(crate) runs: Vec<(SegmentName, Vec<Run>)>,
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

    /// What `batch` makes of it. `base` answers with the segments' page where that is at hand.
    pub(crate) fn draft(&self, batch: &Batch, base: impl Fn(Place, Location) -> Option<Arc<[u8]>>) -> Draft {
        let mut draft = Draft {
            body: self.body.clone(),
            images: BTreeMap::new(),
            spilled: Vec::new(),
            runs: Vec::new(),
        };
        let contents = &mut draft.body.contents;
        contents.calls = batch.calls;
        contents.object_next = batch.object_next;
        contents
            .catalog
            .extend(batch.objects.iter().map(|(name, entry)| (name.clone(), *entry)));
        for (name, id) in &batch.removed {
            contents.catalog.remove(name);
            draft.body.changes.retain(|(object, _), _| object != id);
        }
        let changes = &mut draft.body.changes;
        let mut bytes = 0;
        for (place, page) in &batch.pages {
            let zeroes = || Arc::from(vec![0; page.len()]);
            let known = self.images.get(place).and_then(|images| images.base.clone());
            let (on_zeroes, base) = match (known, self.location(*place)) {
                (Some(base), location) => (
                    location.is_none_or(|location| location.offset.is_none()),
                    Some(base),
                ),
                (None, None | Some(Location { offset: None, .. })) => (true, Some(zeroes())),
                (None, Some(location)) => {
                    let base = base(*place, location);
                    (base.is_none(), base)
                }
            };
            let patch = match &base {
                Some(base) => patch::encode(base, page),
                None => patch::encode(&zeroes(), page),
            };
            bytes += patch.len();
            if bytes > INLINE_BYTES_MAX {
                break;
            }
            let patch = patch.into();
            changes.insert(*place, Change { on_zeroes, patch });
            let page = page.clone();
            draft.images.insert(*place, Images { base, page });
        }
        let inline: usize = changes.values().map(|change| change.patch.len() + 20).sum();
        if bytes > INLINE_BYTES_MAX || inline > INLINE_BYTES_MAX || changes.len() > INLINE_PAGES_MAX {
            self.spill(&mut draft, batch);
        }
        draft
    }

    /// Moves every change to segments. All full pages have to be known.
    fn spill(&self, draft: &mut Draft, batch: &Batch) {
        let gone = |place: &Place| batch.removed.iter().any(|(_, id)| *id == place.0);
        let carried = self.images.iter().filter(|(place, _)| !gone(place));
        let mut pages: BTreeMap<Place, Arc<[u8]>> = carried
            .map(|(place, images)| (*place, images.page.clone()))
            .collect();
        pages.extend(batch.pages.iter().map(|(place, page)| (*place, page.clone())));
        draft.spilled = pages.into_iter().collect();
        draft.body.changes.clear();
        draft.images.clear();
    }

    /// Takes over what has been committed.
    pub(crate) fn apply(&mut self, header: Header, draft: Draft, removed: &[u64]) {
        let page_size = self.page_size();
        self.header = header;
        self.body = draft.body;
        self.images.extend(draft.images);
        self.images
            .retain(|place, _| self.body.changes.contains_key(place));
        if let Some(pages) = &mut self.pages {
            removed.iter().for_each(|object| pages.remove_object(*object));
            for (segment, runs) in draft.runs {
                runs.into_iter()
                    .for_each(|run| pages.insert(segment, run, page_size));
            }
        }
    }
}
