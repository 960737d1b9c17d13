//! [`VmMap`]: what each page of a task's address space is.
//!
//! Linear memory as the engine made it is anonymous memory (`region: false`); `vm_allocate` and `vm_map` lay regions
//! over it, `vm_deallocate` leaves holes.
//!
//! Invariants:
//! - entries are sorted by address, non-empty and disjoint; pages without an entry are holes;
//! - no entry reaches beyond [`VmMap::end`], the end of linear memory.

use indexmap::IndexMap;
use rustc_hash::FxBuildHasher;

use crate::{
    KernReturn,
    abi::{Behavior, Inherit, VmProt},
    limits::MAP_ENTRIES_MAX,
    page::PageRange,
};
use alloc::vec::Vec;

/// What lies behind an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryBacking<O> {
    /// Zero-filled memory without a pager.
    Anonymous {
        /// Made by `vm_allocate` or `vm_map`; else it is the engine's linear memory, which FIXED may map over.
        region: bool,
    },
    /// Pages of a memory object.
    Object {
        /// The object.
        object: O,
        /// The object's page that the entry's first page shows.
        first_page: u64,
        /// How stores relate to the object.
        sharing: Sharing,
        /// The pages are the pager's file image, mapped; else they were copied in.
        image: bool,
    },
}

/// How the stores of an entry relate to its object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// The one entry whose stores belong to these pages of the object.
    Writer,
    /// No store is allowed, now or later.
    Reader,
    /// Stores stay private (copy-on-write); nothing is ever returned.
    Copy,
}

/// A run of pages with the same properties.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmMapEntry<O> {
    /// Its pages in linear memory.
    pub pages: PageRange,
    /// What lies behind it.
    pub backing: EntryBacking<O>,
    /// The accesses allowed now.
    pub protection: VmProt,
    /// The most that may be allowed.
    pub max_protection: VmProt,
    /// Kept for `vm_region`.
    pub inherit: Inherit,
    /// The last advice.
    pub behavior: Behavior,
    /// How often it is wired: wired pages are never dropped.
    pub wired: u32,
}

impl<O: Clone + PartialEq> VmMapEntry<O> {
    /// Anonymous memory, readable and writable.
    pub fn anonymous(pages: PageRange, region: bool) -> Self {
        Self {
            pages,
            backing: EntryBacking::Anonymous { region },
            protection: VmProt::READ_WRITE,
            max_protection: VmProt::READ_WRITE,
            inherit: Inherit::default(),
            behavior: Behavior::Default,
            wired: 0,
        }
    }

    /// Whether it was made by a call, and so may not be mapped over without OVERWRITE.
    pub fn is_region(&self) -> bool {
        !matches!(self.backing, EntryBacking::Anonymous { region: false })
    }

    /// The part inside `range`, which must overlap it.
    #[must_use]
    pub fn clip(&self, range: PageRange) -> Self {
        let pages = self.pages.intersect(range);
        assert!(!pages.is_empty());
        let mut part = self.clone();
        part.pages = pages;
        if let EntryBacking::Object { first_page, .. } = &mut part.backing {
            *first_page += pages.start - self.pages.start;
        }
        part
    }

    /// Whether `next` continues this entry with the same properties.
    fn continues_into(&self, next: &Self) -> bool {
        if self.pages.end != next.pages.start {
            return false;
        }
        let mut moved = next.clone();
        moved.pages = self.pages;
        if let (
            EntryBacking::Object { first_page: mine, .. },
            EntryBacking::Object {
                first_page: theirs, ..
            },
        ) = (&self.backing, &mut moved.backing)
        {
            if *theirs != *mine + self.pages.len() {
                return false;
            }
            *theirs = *mine;
        }
        moved == *self
    }
}

/// A task's address space.
#[derive(Clone, Debug)]
pub struct VmMap<O> {
    entries: IndexMap<u64, VmMapEntry<O>, FxBuildHasher>,
    end: u64,
}

impl<O: Clone + PartialEq> VmMap<O> {
    /// An address space without memory.
    pub fn new() -> Self {
        Self {
            entries: IndexMap::with_hasher(FxBuildHasher),
            end: 0,
        }
    }

    /// The first page behind linear memory.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Linear memory has grown: the new pages are anonymous memory.
    pub fn extend(&mut self, end: u64) {
        if end > self.end {
            let grown = PageRange::new(self.end, end);
            self.end = end;
            self.insert(VmMapEntry::anonymous(grown, false));
        }
    }

    /// Its entries, ascending.
    pub fn entries(&self) -> impl DoubleEndedIterator<Item = &VmMapEntry<O>> {
        self.entries.values()
    }

    /// The first entry that reaches to or beyond `page`.
    pub fn first_at_or_above(&self, page: u64) -> Option<&VmMapEntry<O>> {
        let index = self.entries.partition_point(|_, entry| entry.pages.end <= page);
        self.entries.get_index(index).map(|(_, entry)| entry)
    }

    /// The entries that reach into `range`, with the pages of it that are theirs.
    pub fn overlapping(&self, range: PageRange) -> impl Iterator<Item = (&VmMapEntry<O>, PageRange)> {
        let first = self
            .entries
            .partition_point(|_, entry| entry.pages.end <= range.start);
        self.entries
            .values()
            .skip(first)
            .take_while(move |entry| entry.pages.start < range.end && !range.is_empty())
            .map(move |entry| (entry, entry.pages.intersect(range)))
    }

    /// The entries inside `range`, clipped to it.
    pub fn entries_in(&self, range: PageRange) -> impl Iterator<Item = VmMapEntry<O>> + '_ {
        self.overlapping(range).map(move |(entry, _)| entry.clip(range))
    }

    /// `range` with all of the entries that reach into it.
    pub fn whole_entries(&self, range: PageRange) -> PageRange {
        self.overlapping(range).fold(range, |all, (entry, _)| {
            PageRange::new(all.start.min(entry.pages.start), all.end.max(entry.pages.end))
        })
    }

    /// Whether every page of `range` has an entry.
    pub fn covers(&self, range: PageRange) -> bool {
        self.covered(range) == range.len()
    }

    /// How many pages of `range` have an entry.
    pub fn covered(&self, range: PageRange) -> u64 {
        self.overlapping(range).map(|(_, pages)| pages.len()).sum()
    }

    /// How many entries it has.
    pub fn entry_count(&self) -> usize {
        self.entries.len()
    }

    /// Whether the map has room for one more region.
    pub fn has_room(&self) -> Result<(), KernReturn> {
        if self.entries.len() + 2 > MAP_ENTRIES_MAX {
            Err(KernReturn::ResourceShortage)
        } else {
            Ok(())
        }
    }

    /// Replaces whatever is in the entry's pages by `entry`.
    pub fn enter(&mut self, entry: VmMapEntry<O>) {
        self.remove(entry.pages);
        self.insert(entry);
    }

    /// Whether a hole at `range` has two ends in one entry, and so needs room. Taking away whole entries never does.
    pub fn splits(&self, range: PageRange) -> bool {
        self.first_at_or_above(range.start)
            .is_some_and(|entry| entry.pages.start < range.start && range.end < entry.pages.end)
    }

    /// Makes `range` a hole and hands back what was there.
    pub fn remove(&mut self, range: PageRange) -> Vec<VmMapEntry<O>> {
        if range.is_empty() {
            return Vec::new();
        }
        self.clip_at(range.start);
        self.clip_at(range.end);
        let first = self
            .entries
            .partition_point(|_, entry| entry.pages.start < range.start);
        let behind = self
            .entries
            .partition_point(|_, entry| entry.pages.start < range.end);
        if first >= behind {
            return Vec::new();
        }
        self.entries
            .drain(first..behind)
            .map(|(_, entry)| entry)
            .collect()
    }

    /// Changes every entry inside `range`, splitting those that cross its ends.
    pub fn update(&mut self, range: PageRange, mut change: impl FnMut(&mut VmMapEntry<O>)) {
        for mut entry in self.remove(range) {
            change(&mut entry);
            self.insert(entry);
        }
    }

    /// The lowest hole of `pages` pages, none of them below `lowest`, whose first page is a multiple of `align` pages.
    pub fn find_hole(&self, pages: u64, align: u64, lowest: u64) -> Option<PageRange> {
        let mut start = 0;
        let ends = self
            .entries
            .values()
            .map(|entry| (entry.pages.start, entry.pages.end));
        for (hole_end, next) in ends.chain([(self.end, self.end)]) {
            let from = u64::max(start, lowest).checked_next_multiple_of(align)?;
            if let Some(range) = PageRange::at(from, pages)
                && range.end <= hole_end
            {
                return Some(range);
            }
            start = next;
        }
        None
    }

    fn insert(&mut self, entry: VmMapEntry<O>) {
        assert!(!entry.pages.is_empty() && entry.pages.end <= self.end);
        let mut entry = entry;
        let index = self
            .entries
            .partition_point(|start, _| *start < entry.pages.start);
        if let Some((_, next)) = self.entries.get_index(index)
            && entry.continues_into(next)
        {
            entry.pages.end = next.pages.end;
            self.entries.shift_remove_index(index);
        }
        if let Some((_, previous)) = index
            .checked_sub(1)
            .and_then(|before| self.entries.get_index_mut(before))
            && previous.continues_into(&entry)
        {
            previous.pages.end = entry.pages.end;
            return;
        }
        self.entries.shift_insert(index, entry.pages.start, entry);
    }

    /// Splits the entry that crosses `page` in two.
    fn clip_at(&mut self, page: u64) {
        let index = self.entries.partition_point(|_, entry| entry.pages.end <= page);
        let Some((_, entry)) = self.entries.get_index_mut(index) else {
            return;
        };
        if entry.pages.start < page {
            let right = entry.clip(PageRange::new(page, entry.pages.end));
            entry.pages.end = page;
            self.entries.shift_insert(index + 1, page, right);
        }
    }
}

impl<O: Clone + PartialEq> Default for VmMap<O> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map() -> VmMap<u32> {
        let mut map = VmMap::new();
        map.extend(16);
        map
    }

    fn layout(map: &VmMap<u32>) -> Vec<(u64, u64, bool)> {
        map.entries()
            .map(|entry| (entry.pages.start, entry.pages.end, entry.is_region()))
            .collect()
    }

    #[test]
    fn a_region_splits_linear_memory_and_a_hole_takes_it_away() {
        let mut map = map();
        map.enter(VmMapEntry::anonymous(PageRange::new(4, 8), true));
        assert_eq!(layout(&map), [(0, 4, false), (4, 8, true), (8, 16, false)]);
        map.remove(PageRange::new(6, 10));
        assert_eq!(layout(&map), [(0, 4, false), (4, 6, true), (10, 16, false)]);
        assert!(!map.covers(PageRange::new(4, 7)));
        assert!(map.covers(PageRange::new(2, 6)));
        assert_eq!(map.find_hole(4, 1, 0), Some(PageRange::new(6, 10)));
        assert_eq!(map.find_hole(2, 8, 0), Some(PageRange::new(8, 10)));
        assert_eq!(map.find_hole(5, 1, 0), None);
        assert_eq!(map.find_hole(2, 1, 7), Some(PageRange::new(7, 9)));
        assert_eq!(map.find_hole(4, 1, 7), None);
    }

    #[test]
    fn growth_continues_linear_memory() {
        let mut map = map();
        map.extend(20);
        assert_eq!(layout(&map), [(0, 20, false)]);
        map.extend(3);
        assert_eq!(map.end(), 20);
    }

    #[test]
    fn entries_of_one_object_merge_only_where_their_pages_continue() {
        let mut map = map();
        let entry = |pages: PageRange, first_page| VmMapEntry {
            backing: EntryBacking::Object {
                object: 1,
                first_page,
                sharing: Sharing::Writer,
                image: false,
            },
            ..VmMapEntry::anonymous(pages, true)
        };
        map.enter(entry(PageRange::new(2, 4), 0));
        map.enter(entry(PageRange::new(4, 6), 2));
        assert_eq!(layout(&map), [(0, 2, false), (2, 6, true), (6, 16, false)]);
        map.enter(entry(PageRange::new(6, 8), 7));
        assert_eq!(
            layout(&map),
            [(0, 2, false), (2, 6, true), (6, 8, true), (8, 16, false)]
        );
        let clipped: Vec<_> = map.entries_in(PageRange::new(3, 5)).collect();
        assert!(matches!(
            clipped[0].backing,
            EntryBacking::Object { first_page: 1, .. }
        ));
    }
}
