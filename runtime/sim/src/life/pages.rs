//! What tasks do to pages in their memory: read them in, store to them, drop them.

use std::ops::Range;

use vmsync_core::{abi::VmProt, pager::Pager};
use vmsync_pager_file::limits::GROUP_BYTES_MAX;

use super::{Broken, World, mixed};
use crate::{
    limits::{NEIGHBOURS_MAX, SUMS_IN_SECTOR},
    random::Random,
    task::Resident,
};

impl World {
    /// Drops resident pages without returning them, as KILLPAGES does.
    pub(super) fn discard(&mut self, task: usize) {
        for open in self.tasks[task].open.values_mut() {
            open.resident.clear();
        }
    }

    /// Stores into some pages, which are read in where they are not resident.
    pub(super) fn change_pages(&mut self, task: usize) -> Result<(), Broken> {
        for _ in 0..=self.random.below(4) {
            let names: Vec<String> = self.tasks[task].open.keys().cloned().collect();
            let name = &names[self.random.below(names.len())];
            let bytes = self.supplied[name].bytes.len();
            if bytes > GROUP_BYTES_MAX && self.random.once_in(2) {
                self.rewrite(task, name)?;
                continue;
            }
            for page in some_pages(&mut self.random, bytes / self.shape.page()) {
                self.change_page(task, name, page)?;
            }
        }
        Ok(())
    }

    /// Stores to all bytes of an object.
    fn rewrite(&mut self, task: usize, name: &str) -> Result<(), Broken> {
        for page in 0..self.supplied[name].bytes.len() / self.shape.page() {
            self.change_page(task, name, page)?;
            let resident = self.tasks[task].open.get_mut(name).expect("one of its names");
            if let Some(resident) = resident.resident.get_mut(&page) {
                self.random.fill(&mut resident.bytes);
            }
        }
        Ok(())
    }

    fn change_page(&mut self, task: usize, name: &str, page: usize) -> Result<(), Broken> {
        let (store, page_bytes) = (self.store(), self.shape.page());
        let open = self.tasks[task].open.get_mut(name).expect("one of its names");
        if !open.resident.contains_key(&page) {
            let start = page * page_bytes;
            let mut bytes = vec![0; page_bytes];
            let access = VmProt::READ | VmProt::WRITE;
            let failed = self.disk.failed();
            if let Err(error) = store.data_request(open.object, start as u64, access, &mut bytes) {
                return self.read_refused(failed, &error, &format!("reading page {page} of {name}"));
            }
            if bytes != self.supplied[name].bytes[start..start + page_bytes] {
                return Err(mixed(format!("page {page} of {name} is supplied wrongly")));
            }
            open.resident.insert(page, Resident { bytes, dirty: false });
        }
        let resident = open.resident.get_mut(&page).expect("made so above");
        resident.dirty = true;
        scribble(&mut self.random, &mut resident.bytes);
        Ok(())
    }
}

/// One of so many pages; where their checksums lie in several sectors, mostly neighbours with checksums in two of them.
fn some_pages(random: &mut Random, pages: usize) -> Range<usize> {
    if pages <= SUMS_IN_SECTOR || random.once_in(4) {
        let page = random.below(pages);
        return page..page + 1;
    }
    let middle = SUMS_IN_SECTOR * (1 + random.below((pages - 1) / SUMS_IN_SECTOR));
    let before = 1 + random.below(NEIGHBOURS_MAX);
    let behind = 1 + random.below(NEIGHBOURS_MAX);
    middle - before..pages.min(middle + behind)
}

/// Changes some bytes of a page, or all, or none.
pub(super) fn scribble(random: &mut Random, page: &mut [u8]) {
    match random.below(6) {
        0 => random.fill(page),
        1 => page.fill(random.number() as u8),
        2 => {}
        _ => {
            for _ in 0..=random.below(4) {
                let start = random.below(page.len());
                let end = (start + 1 + random.below(16)).min(page.len());
                random.fill(&mut page[start..end]);
            }
        }
    }
}
