//! Merging small segments, in the background: what is still of use in them is written to new ones.
//!
//! Invariants:
//! - a merged segment takes the place of the newest that it replaces, so that whoever replays the directories finds
//!   each page where it was written last;
//! - commits go on meanwhile: a page that one of them has replaced stays where that put it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use vmsync_pager_group::{Place, Result};

use crate::{
    engine::{Inner, Wanted},
    layout::{
        manifest::{SegmentEntry, SegmentName},
        segment::Run,
    },
    limits::{MERGE_WAIT_MAX, SEGMENT_BYTES_SMALL, SEGMENTS_SMALL_MAX},
    pages::Location,
};

impl Inner {
    pub(crate) fn merge_if_due(self: Arc<Self>) {
        if self.small_segments().len() < SEGMENTS_SMALL_MAX || self.merging.swap(true, Ordering::AcqRel) {
            return;
        }
        self.background.clone().spawn(async move {
            // Where it fails, a later commit tries again.
            let _ = self.merge(Instant::now() + MERGE_WAIT_MAX).await;
            self.merging.store(false, Ordering::Release);
        });
    }

    /// Segments with little that is of use, in their order.
    fn small_segments(&self) -> Vec<SegmentEntry> {
        let tree = self.tree();
        // Counting what is of use takes a walk over the whole map.
        if tree.body.segments.len() < SEGMENTS_SMALL_MAX {
            return Vec::new();
        }
        let Some(live) = tree.pages.as_ref().map(|pages| pages.live()) else {
            return Vec::new();
        };
        let bytes =
            |segment: &SegmentEntry| live.get(&segment.name).copied().unwrap_or(0) * self.page_size.bytes();
        let segments = tree.body.segments.iter();
        segments
            .filter(|segment| bytes(segment) < SEGMENT_BYTES_SMALL)
            .copied()
            .collect()
    }

    pub(crate) async fn merge(self: &Arc<Self>, deadline: Instant) -> Result<()> {
        let small = self.small_segments();
        let old: BTreeSet<SegmentName> = small.iter().map(|segment| segment.name).collect();
        let before: BTreeMap<Place, Location> = {
            let tree = self.tree();
            let of_segment = |entry: &SegmentEntry| {
                let pages = tree.pages.as_ref();
                pages
                    .map(|pages| pages.of_segment(entry.name, self.page_size))
                    .unwrap_or_default()
            };
            small.iter().flat_map(of_segment).collect()
        };
        let Some(pages) = self.read_located(&before, &small, deadline).await? else {
            return Ok(());
        };
        let made = self.upload_pages(&pages, deadline).await?;
        let mut writer = self.writer.lock().await;
        let mut draft = self.tree().same();
        let segments = &mut draft.segments;
        let newest = segments.iter().rposition(|segment| old.contains(&segment.name));
        let behind = newest.map_or(0, |newest| newest + 1);
        segments.splice(behind..behind, made.iter().map(|(entry, _)| *entry));
        segments.retain(|segment| !old.contains(&segment.name));
        for (entry, runs) in made {
            draft.runs.push((entry.name, self.still_there(runs, &before)));
        }
        let header = self.write(&mut writer, &draft, deadline).await?;
        self.tree().apply(header, draft, &[]);
        writer.garbage.drop_segments(old);
        Ok(())
    }

    /// The pages at `located`.
    async fn read_located(
        &self,
        located: &BTreeMap<Place, Location>,
        entries: &[SegmentEntry],
        deadline: Instant,
    ) -> Result<Option<Vec<(Place, Arc<[u8]>)>>> {
        let zeroes: Arc<[u8]> = vec![0; self.page_size.bytes() as usize].into();
        let mut pages: Vec<(Place, Arc<[u8]>)> =
            located.keys().map(|place| (*place, zeroes.clone())).collect();
        let stored = (0..)
            .zip(located)
            .filter(|(_, (_, location))| location.offset.is_some());
        let mut wanted: Vec<Wanted> = stored
            .map(|(index, (place, location))| Wanted {
                index,
                place: *place,
                location: *location,
            })
            .collect();
        // Each segment from its beginning to its end, so that it is read in few requests.
        wanted.sort_by_key(|wanted| (wanted.location.segment, wanted.location.offset));
        let entry = |wanted: &Wanted| {
            entries
                .iter()
                .find(|entry| entry.name == wanted.location.segment)
                .copied()
        };
        let of_wanted: Vec<SegmentEntry> = wanted.iter().filter_map(entry).collect();
        let Ok(read) = self.read_wanted(&wanted, &of_wanted, true, deadline).await? else {
            return Ok(None);
        };
        for (index, page) in read {
            pages[index as usize].1 = page.into();
        }
        Ok(Some(pages))
    }

    /// The parts of `runs` whose pages are still where they were.
    fn still_there(&self, runs: Vec<Run>, before: &BTreeMap<Place, Location>) -> Vec<Run> {
        let tree = self.tree();
        let Some(pages) = &tree.pages else {
            return Vec::new();
        };
        let mut parts: Vec<Run> = Vec::new();
        for run in runs {
            let (object, first) = run.place;
            let mut open = false;
            let now: BTreeMap<u64, Location> = pages
                .locate(run.place, run.sums.len() as u64, self.page_size)
                .into_iter()
                .collect();
            for (index, sum) in (0..).zip(&run.sums) {
                let place = (object, first + index);
                if now.get(&place.1) != before.get(&place) {
                    open = false;
                    continue;
                }
                match parts.last_mut().filter(|_| open) {
                    Some(part) => part.sums.push(*sum),
                    None => parts.push(Run {
                        place,
                        offset: run.offset.map(|offset| offset + index * self.page_size.bytes()),
                        sums: vec![*sum],
                    }),
                }
                open = true;
            }
        }
        parts
    }
}
