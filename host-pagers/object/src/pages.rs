//! [`PageMap`]: where each page of the store lies in its segments.
//!
//! Invariants:
//! - runs of an object do not overlap;
//! - a page that is in no run reads as zero.

use std::{collections::BTreeMap, sync::Arc};

use vmsync_core::PageSize;
use vmsync_pager_group::Place;

use crate::layout::{manifest::SegmentName, segment::Run};

/// Where a page lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Location {
    pub(crate) segment: SegmentName,
    /// `None`: it is a page of zeroes.
    pub(crate) offset: Option<u64>,
    pub(crate) sum: u64,
}

/// Pages that follow each other in an object and in a segment.
#[derive(Clone, Debug)]
struct Stretch {
    count: u64,
    segment: SegmentName,
    offset: Option<u64>,
    /// Sums of the run that it is a part of, and where in them it begins.
    sums: Arc<[u64]>,
    skip: usize,
}

/// See the head of this file.
#[derive(Clone, Debug, Default)]
pub(crate) struct PageMap {
    stretches: BTreeMap<Place, Stretch>,
}

impl Stretch {
    /// The part of it from page `from` on, counted from its first.
    fn tail(&self, from: u64, page_size: PageSize) -> Self {
        Self {
            count: self.count - from,
            segment: self.segment,
            offset: self.offset.map(|offset| offset + from * page_size.bytes()),
            sums: self.sums.clone(),
            skip: self.skip + from as usize,
        }
    }
}

impl PageMap {
    /// Puts the run of a later segment over what is there.
    pub(crate) fn insert(&mut self, segment: SegmentName, run: Run, page_size: PageSize) {
        let count = run.sums.len() as u64;
        self.cut(run.place, count, page_size);
        let stretch = Stretch {
            count,
            segment,
            offset: run.offset,
            sums: run.sums.into(),
            skip: 0,
        };
        if count > 0 {
            self.stretches.insert(run.place, stretch);
        }
    }

    /// Forgets pages.
    fn cut(&mut self, (object, first): Place, count: u64, page_size: PageSize) {
        let end = first.saturating_add(count);
        // One that begins before may reach into the range.
        if let Some((place, stretch)) = self.stretches.range_mut((object, 0)..(object, first)).next_back() {
            let behind = place.1 + stretch.count;
            if behind > first {
                let tail = (behind > end).then(|| stretch.tail(end - place.1, page_size));
                stretch.count = first - place.1;
                if let Some(tail) = tail {
                    self.stretches.insert((object, end), tail);
                }
            }
        }
        let inside: Vec<Place> = self
            .stretches
            .range((object, first)..(object, end))
            .map(|(place, _)| *place)
            .collect();
        for place in inside {
            let stretch = self.stretches.remove(&place).expect("listed above");
            if place.1 + stretch.count > end {
                self.stretches
                    .insert((object, end), stretch.tail(end - place.1, page_size));
            }
        }
    }

    /// Forgets an object.
    pub(crate) fn remove_object(&mut self, object: u64) {
        let mut kept = self.stretches.split_off(&(object, 0));
        if let Some(behind) = object.checked_add(1) {
            self.stretches.append(&mut kept.split_off(&(behind, 0)));
        }
    }

    /// The pages of `count` from `first` on that are stored, and where.
    pub(crate) fn locate(
        &self,
        (object, first): Place,
        count: u64,
        page_size: PageSize,
    ) -> Vec<(u64, Location)> {
        let end = first.saturating_add(count);
        let before = self.stretches.range((object, 0)..(object, first)).next_back();
        let inside = self.stretches.range((object, first)..(object, end));
        let mut found = Vec::new();
        for (place, stretch) in before.into_iter().chain(inside) {
            let start = place.1.max(first);
            for page in start..(place.1 + stretch.count).min(end) {
                found.push((page, stretch.location(page - place.1, page_size)));
            }
        }
        found
    }

    /// Every page of `segment` that is still of use, in rising order.
    pub(crate) fn of_segment(&self, segment: SegmentName, page_size: PageSize) -> Vec<(Place, Location)> {
        let stretches = self
            .stretches
            .iter()
            .filter(|(_, stretch)| stretch.segment == segment);
        stretches
            .flat_map(|((object, first), stretch)| {
                (0..stretch.count)
                    .map(move |index| ((*object, first + index), stretch.location(index, page_size)))
            })
            .collect()
    }

    /// Pages of each segment that are still of use.
    pub(crate) fn live(&self) -> BTreeMap<SegmentName, u64> {
        let mut live = BTreeMap::new();
        for stretch in self.stretches.values() {
            *live.entry(stretch.segment).or_default() += stretch.count;
        }
        live
    }
}

impl Stretch {
    fn location(&self, index: u64, page_size: PageSize) -> Location {
        Location {
            segment: self.segment,
            offset: self.offset.map(|offset| offset + index * page_size.bytes()),
            sum: self.sums[self.skip + index as usize],
        }
    }
}

#[cfg(test)]
mod tests {
    use vmsync_pager_conformance::random::Random;

    use super::*;

    #[test]
    fn runs_cover_each_other_as_single_pages_would() {
        let mut random = Random::from_environment("page map");
        let (mut map, mut model) = (PageMap::default(), BTreeMap::new());
        let page_size = PageSize::KIB_4;
        for number in 0..300 {
            let segment = SegmentName {
                epoch: 1,
                writer: 2,
                number,
            };
            let (object, first, count) = (random.below(2), random.below(40), 1 + random.below(12));
            let run = Run {
                place: (object, first),
                offset: (!random.once_in(5)).then_some(64),
                sums: (0..count).map(|index| number * 100 + index).collect(),
            };
            for index in 0..count {
                let location = Location {
                    segment,
                    offset: run.offset.map(|offset| offset + index * 4096),
                    sum: number * 100 + index,
                };
                model.insert((object, first + index), location);
            }
            map.insert(segment, run, page_size);
            if random.once_in(60) {
                map.remove_object(1);
                model.retain(|(object, _), _| *object != 1);
            }
            let (object, first, count) = (random.below(2), random.below(40), random.below(30));
            let expected: Vec<_> = model
                .range((object, first)..(object, first + count))
                .map(|((_, page), location)| (*page, *location))
                .collect();
            assert_eq!(map.locate((object, first), count, page_size), expected);
            let live: u64 = map.live().values().sum();
            assert_eq!(live, model.len() as u64);
        }
    }
}
