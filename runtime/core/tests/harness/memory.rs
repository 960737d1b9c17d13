//! [`TestMemory`]: linear memory as a byte array, with exact marks on the guest's stores.
//!
//! Invariants:
//! - ranges are checked as strictly as the trait allows an implementation to;
//! - a page out of use holds [`POISON`], so that bytes that should not survive are noticed;
//! - an image is copied when it is mapped or discarded to, as the page cache would show it at that moment.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

use vmsync_core::{
    ByteRange, PageRange, PageSet,
    abi::VmProt,
    memory::{MemoryError, TaskMemory},
    pager::Image,
};

use super::{P, PAGE};

/// What holes hold.
pub const POISON: u8 = 0xdd;

/// The files that images are mapped from, by descriptor.
pub type Images = Arc<Mutex<BTreeMap<i32, Vec<u8>>>>;

/// A linear memory.
pub struct TestMemory {
    bytes: Vec<u8>,
    protection: Vec<VmProt>,
    tracked: BTreeSet<u64>,
    marks: BTreeSet<u64>,
    imaged: BTreeMap<u64, Image>,
    images: Images,
    /// Pages that `deactivate` was told of.
    pub deactivated: PageSet,
    /// Pages that `will_need` was told of.
    pub needed: PageSet,
    /// How many changes still succeed; then each fails. `None`: all succeed.
    pub changes_left: Option<u64>,
    /// The next `collect` fails, after it has taken marks.
    pub collect_fails: bool,
}

impl TestMemory {
    /// `pages` zero pages; images come from `images`.
    pub fn new(pages: u64, images: Images) -> Self {
        Self {
            bytes: vec![0; to_usize(pages * P)],
            protection: vec![VmProt::READ_WRITE; to_usize(pages)],
            tracked: BTreeSet::new(),
            marks: BTreeSet::new(),
            imaged: BTreeMap::new(),
            images,
            deactivated: PageSet::new(),
            needed: PageSet::new(),
            changes_left: None,
            collect_fails: false,
        }
    }

    /// The guest grows its memory.
    pub fn grow(&mut self, pages: u64) {
        self.bytes.resize(to_usize(pages * P), 0);
        self.protection.resize(to_usize(pages), VmProt::READ_WRITE);
    }

    /// The guest stores; `false` where the store traps.
    pub fn store(&mut self, address: u64, bytes: &[u8]) -> bool {
        let Some(range) = ByteRange::at(address, bytes.len() as u64).filter(|range| range.end <= self.size())
        else {
            return false;
        };
        let pages = PAGE.widen(range).expect("inside the memory");
        if !(pages.start..pages.end).all(|page| self.allows(page, VmProt::WRITE)) {
            return false;
        }
        self.slice(range).copy_from_slice(bytes);
        self.marks
            .extend((pages.start..pages.end).filter(|page| self.tracked.contains(page)));
        true
    }

    /// Whether a page can be accessed so.
    pub fn allows(&self, page: u64, access: VmProt) -> bool {
        self.protection
            .get(to_usize(page))
            .is_some_and(|protection| protection.contains(access))
    }

    /// The bytes of a page, whether the guest may load them or not.
    pub fn page(&self, page: u64) -> &[u8] {
        let range = PAGE.byte_range(PageRange::new(page, page + 1));
        &self.bytes[to_usize(range.start)..to_usize(range.end)]
    }

    /// Pages stored to since they were last collected.
    pub fn marks(&self) -> &BTreeSet<u64> {
        &self.marks
    }

    fn slice(&mut self, range: ByteRange) -> &mut [u8] {
        &mut self.bytes[to_usize(range.start)..to_usize(range.end)]
    }

    /// Checks `range` and counts a change of the memory.
    fn change(&mut self, range: ByteRange) -> Result<PageRange, MemoryError> {
        assert!(
            range.end <= self.size(),
            "{range} is outside of {:#x}",
            self.size()
        );
        assert!(PAGE.is_aligned(range.start) && PAGE.is_aligned(range.end));
        match &mut self.changes_left {
            Some(0) => Err(MemoryError {
                message: "scripted".into(),
            }),
            Some(left) => {
                *left -= 1;
                Ok(PAGE.shrink(range))
            }
            None => Ok(PAGE.shrink(range)),
        }
    }

    fn forget(&mut self, pages: PageRange) {
        for page in pages.start..pages.end {
            self.marks.remove(&page);
            self.tracked.remove(&page);
            self.imaged.remove(&page);
        }
    }

    fn show_image(&mut self, page: u64) {
        let image = self.imaged[&page];
        let range = PAGE.byte_range(PageRange::new(page, page + 1));
        let images = self.images.clone();
        let images = images.lock().expect("no panic");
        let file = &images[&image.descriptor];
        let from = to_usize(image.offset);
        self.slice(range).copy_from_slice(&file[from..from + to_usize(P)]);
    }
}

impl TaskMemory for TestMemory {
    fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn is_addressable(&self) -> bool {
        true
    }

    fn pages(&mut self, range: ByteRange) -> &[u8] {
        &self.bytes[to_usize(range.start)..to_usize(range.end)]
    }

    fn map_image(&mut self, range: ByteRange, image: Image, track: bool) -> Result<bool, MemoryError> {
        let pages = self.change(range)?;
        self.forget(pages);
        for page in pages.start..pages.end {
            let offset = image.offset + (page - pages.start) * P;
            self.imaged.insert(page, Image { offset, ..image });
            self.show_image(page);
            self.protection[to_usize(page)] = VmProt::READ_WRITE;
            if track {
                self.tracked.insert(page);
            }
        }
        Ok(true)
    }

    fn map_zero(&mut self, range: ByteRange, track: bool) -> Result<(), MemoryError> {
        let pages = self.change(range)?;
        self.forget(pages);
        self.slice(range).fill(0);
        for page in pages.start..pages.end {
            self.protection[to_usize(page)] = VmProt::READ_WRITE;
            if track {
                self.tracked.insert(page);
            }
        }
        Ok(())
    }

    fn unmap(&mut self, range: ByteRange) -> Result<(), MemoryError> {
        let pages = self.change(range)?;
        self.forget(pages);
        self.slice(range).fill(POISON);
        for page in pages.start..pages.end {
            self.protection[to_usize(page)] = VmProt::NONE;
        }
        Ok(())
    }

    fn fill(&mut self, offset: u64, bytes: &[u8]) -> Result<(), MemoryError> {
        let range = ByteRange::at(offset, bytes.len() as u64).expect("inside the memory");
        let pages = self.change(range)?;
        self.slice(range).copy_from_slice(bytes);
        for page in pages.start..pages.end {
            self.marks.remove(&page);
        }
        Ok(())
    }

    fn discard(&mut self, range: ByteRange) -> Result<(), MemoryError> {
        let pages = self.change(range)?;
        for page in pages.start..pages.end {
            self.marks.remove(&page);
            self.show_image(page);
        }
        Ok(())
    }

    fn protect(&mut self, range: ByteRange, protection: VmProt) -> Result<(), MemoryError> {
        let pages = self.change(range)?;
        for page in pages.start..pages.end {
            self.protection[to_usize(page)] = protection;
        }
        Ok(())
    }

    fn deactivate(&mut self, range: ByteRange) {
        self.deactivated.insert(PAGE.shrink(range));
    }

    fn will_need(&mut self, range: ByteRange) {
        self.needed.insert(PAGE.shrink(range));
    }

    fn collect(&mut self, range: ByteRange, dirty: &mut PageSet) -> Result<(), MemoryError> {
        assert!(range.end <= self.size() && PAGE.is_aligned(range.start) && PAGE.is_aligned(range.end));
        let pages = PAGE.shrink(range);
        for page in pages.start..pages.end {
            if self.marks.remove(&page) {
                dirty.insert(PageRange::new(page, page + 1));
            }
        }
        if std::mem::take(&mut self.collect_fails) {
            return Err(MemoryError {
                message: "scripted".into(),
            });
        }
        Ok(())
    }
}

/// Sizes here are those of a test's memory.
fn to_usize(number: u64) -> usize {
    usize::try_from(number).expect("a test's memory")
}
