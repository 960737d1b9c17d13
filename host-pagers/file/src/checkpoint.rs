//! Checkpoints: the images catch up with the journal, and the journal becomes short.
//!
//! ```text
//!   seal (fresh segment) -> sums of touched pages -> sync images and sums -> sync names
//!     -> superblock names the fresh segment, synced -> older segments are free
//! ```
//!
//! Invariants:
//! - the superblock advances only after everything before it is durable in images and sums;
//! - a failure at any step leaves the superblock, the journal and the list of touched pages as they were;
//! - after a failed sync of an image, what is cached of it is not trusted: every touched page is checked and written
//!   again before the next sync (a retried sync alone would succeed and do nothing).

use std::collections::BTreeMap;

use crate::{
    disk::{Access, Result},
    error::damaged,
    layout::{image_name, sums_name, superblock::Superblock},
    queue::{Touched, TouchedObject, merge},
    replay::replay_pages,
    scan::{Record, scan},
    stats::count,
    store::{Shared, lock},
};

/// Pages that are rebuilt from the journal at a time.
const REBUILD_PAGES: usize = 1024;

impl Shared {
    /// A checkpoint of everything that is durable now.
    pub(crate) fn checkpoint_all(&self) -> Result<()> {
        let _role = lock(&self.checkpointer);
        {
            let mut journal = lock(&self.journal);
            if journal.is_empty() && !journal.is_doubtful() && lock(&self.queue).sealed.is_empty() {
                return Ok(());
            }
            let rolled = match journal.must_roll() {
                true => self.roll(&mut journal, 0),
                false => Ok(()),
            };
            if let Err(error) = rolled {
                // There may be no room but in the segments before.
                drop(journal);
                self.checkpoint()?;
                let mut journal = lock(&self.journal);
                self.roll(&mut journal, 0).map_err(|_| error)?;
            }
        }
        self.checkpoint()
    }

    /// Writes what is queued, takes a checkpoint, and notes that the store is closed; the caller is the last who has it.
    ///
    /// # Errors
    /// The disk's; the journal keeps what it has, and the next opening replays it.
    pub(crate) fn close(&self) -> Result<()> {
        self.flush()?;
        self.checkpoint_all()?;
        let _role = lock(&self.checkpointer);
        let mut journal = lock(&self.journal);
        let mut store_file = lock(&self.store_file);
        if store_file.superblock().closed || !journal.is_empty() {
            return Ok(());
        }
        journal.make_durable()?;
        store_file.close()
    }

    /// A checkpoint of the segments before the active one.
    pub(crate) fn checkpoint_sealed(&self) -> Result<()> {
        let _role = lock(&self.checkpointer);
        self.checkpoint()
    }

    /// In the role of the checkpointer.
    fn checkpoint(&self) -> Result<()> {
        let superblock = lock(&self.store_file).superblock();
        let (seal, mut work) = {
            let journal = lock(&self.journal);
            let mut queue = lock(&self.queue);
            queue.checkpoint_wanted = false;
            if let Some(error) = &queue.broken {
                return Err(error.clone());
            }
            let Some(seal) = journal.seal() else { return Ok(()) };
            if seal.generation == superblock.generation {
                return Ok(());
            }
            (seal, std::mem::take(&mut queue.sealed))
        };
        // Commits go on meanwhile: what they add is behind the seal.
        let outcome = self
            .apply_all(..)
            .and_then(|()| self.rewrite_suspects(&superblock, &mut work))
            .and_then(|()| self.sync_work(&mut work))
            .and_then(|()| lock(&self.store_file).advance(seal));
        if let Err(error) = outcome {
            self.restore(work);
            return Err(error);
        }
        let surplus = lock(&self.journal).release(seal.generation);
        surplus
            .into_iter()
            .for_each(|segment| segment.remove(self.disk.as_ref()));
        count(&self.counters.checkpoints, 1);
        Ok(())
    }

    /// Puts the work of a failed checkpoint back, under what was sealed meanwhile.
    fn restore(&self, mut work: Touched) {
        let mut queue = lock(&self.queue);
        let newer = std::mem::take(&mut queue.sealed);
        merge(&mut work, newer);
        // A removed object needs no image.
        work.retain(|id, _| queue.catalog.get(*id).is_some());
        for (id, touched) in &work {
            if let Some(active) = queue.touched.get_mut(id) {
                active.suspect |= touched.suspect;
            }
        }
        queue.sealed = work;
    }

    /// Writes the sums of touched pages, and syncs images, sums and names.
    fn sync_work(&self, work: &mut Touched) -> Result<()> {
        for touched in work.values_mut() {
            if lock(&self.queue).catalog.get(touched.object.id).is_none() {
                continue;
            }
            self.write_sums(touched)?;
            if let Err(error) = touched.object.image.sync() {
                touched.suspect = true;
                return Err(error);
            }
            touched.suspect = false;
        }
        if work.is_empty() {
            return Ok(());
        }
        self.disk.sync_names()
    }

    fn write_sums(&self, touched: &mut TouchedObject) -> Result<()> {
        if touched.sums.is_empty() {
            return Ok(());
        }
        let file = self.disk.open(&sums_name(touched.object.id), Access::Create)?;
        let mut pages = touched.sums.sorted().iter().peekable();
        while let Some((first, sum)) = pages.next() {
            let mut bytes = sum.to_le_bytes().to_vec();
            let mut behind = first + 1;
            while let Some((_, sum)) = pages.next_if(|(page, _)| *page == behind) {
                bytes.extend_from_slice(&sum.to_le_bytes());
                behind += 1;
            }
            file.write_at(first * SUM_BYTES, &bytes)?;
        }
        file.sync()
    }

    /// Writes every touched page of objects whose sync failed again, with what the journal has of it over what the cache has:
    /// a page that was lost from the cache may have been changed since, and its checksum taken over what was left. Commits
    /// wait meanwhile.
    fn rewrite_suspects(&self, superblock: &Superblock, work: &mut Touched) -> Result<()> {
        if !work.values().any(|touched| touched.suspect) {
            return Ok(());
        }
        let journal = lock(&self.journal);
        let _images = lock(&self.images);
        let log = scan(self.disk.as_ref(), Access::Read, superblock)?;
        for touched in work.values().filter(|touched| touched.suspect) {
            // Its length may be what was lost.
            let id = touched.object.id;
            let Some(size) = lock(&self.queue).catalog.get(id).map(|entry| entry.size) else {
                continue;
            };
            let length = touched.object.image.length()?.max(size);
            touched.object.image.set_len(length)?;
            let mut sums = touched.sums.clone();
            {
                // Segments may have been sealed since this work was taken.
                let queue = lock(&self.queue);
                let newer = [&queue.sealed, &queue.touched];
                for newer in newer.into_iter().filter_map(|touched| touched.get(&id)) {
                    sums.append(&mut newer.sums.clone());
                }
            }
            for chunk in sums.sorted().chunks(REBUILD_PAGES) {
                self.rewrite(&log.records, journal.sequence_next(), touched, chunk)?;
            }
        }
        Ok(())
    }

    fn rewrite(
        &self,
        records: &[Record],
        sequence_next: u64,
        touched: &TouchedObject,
        sums: &[(u64, u64)],
    ) -> Result<()> {
        let (id, page_bytes) = (touched.object.id, self.page_size.bytes());
        let mut pages = BTreeMap::new();
        for (page, _) in sums {
            let mut bytes = vec![0; page_bytes as usize];
            touched.object.read(page * page_bytes, &mut bytes)?;
            pages.insert((id, *page), bytes);
        }
        replay_pages(records, self.page_size, sequence_next, &mut pages)?;
        for (page, sum) in sums {
            let bytes = &pages[&(id, *page)];
            if self.seed.page_sum(id, *page, bytes) != *sum {
                let what = format!("page {page} lost bytes that the journal does not have");
                return Err(damaged(&image_name(id), page * page_bytes, what));
            }
            touched.object.image.write_at(page * page_bytes, bytes)?;
        }
        Ok(())
    }
}

/// Bytes of one page's checksum in an object's sums.
pub(crate) const SUM_BYTES: u64 = 8;

#[cfg(test)]
mod tests {
    use std::{mem, sync::Arc};

    use vmsync_core::{PageSize, pager::InitRequest};
    use vmsync_pager_conformance::Client;

    use super::*;
    use crate::{
        disk::memory::MemoryDisk,
        store::{Background, FileStore, Options},
        verify::verify_on,
    };

    fn open(disk: &MemoryDisk) -> Arc<FileStore> {
        let options = Options {
            background: Background::Caller,
            ..Options::default()
        };
        FileStore::open_on(Arc::new(disk.clone()), &options).unwrap()
    }

    fn client(store: &Arc<FileStore>, name: &str) -> Client {
        let request = InitRequest {
            page_size: PageSize::KIB_4,
            size_min: 2 * 4096,
            create: true,
            write: true,
        };
        Client::open_with(store.clone(), name, request).unwrap()
    }

    fn seal(store: &FileStore) {
        store.shared.roll(&mut lock(&store.shared.journal), 0).unwrap();
    }

    #[test]
    fn a_checkpoint_that_fails_forgets_nothing_that_was_sealed_meanwhile() {
        let disk = MemoryDisk::new();
        let store = open(&disk);
        let (first, second) = (client(&store, "first"), client(&store, "second"));
        first.commit_full(0, 1);
        seal(&store);
        let mut work = mem::take(&mut lock(&store.shared.queue).sealed);
        work.get_mut(&1).unwrap().suspect = true;
        first.commit_full(0, 2);
        second.commit_full(0, 3);
        seal(&store);
        first.commit_full(1, 4);
        store.shared.restore(work);
        {
            let mut queue = lock(&store.shared.queue);
            assert!(queue.sealed[&1].suspect && !queue.sealed[&2].suspect);
            // One that works clears this, and not what the active segment has.
            queue.sealed.get_mut(&1).unwrap().suspect = false;
        }
        seal(&store);
        assert!(lock(&store.shared.queue).sealed[&1].suspect);
        store.checkpoint().unwrap();
        let cut = disk.after_power_cut(&mut |_, _| false);
        assert_eq!(verify_on(&cut).unwrap().problems, []);
        let store = open(&cut);
        let (first, second) = (client(&store, "first"), client(&store, "second"));
        first.assert_full(0, 2);
        first.assert_full(1, 4);
        second.assert_full(0, 3);
    }

    #[test]
    fn the_length_of_a_suspect_image_is_set_again() {
        let disk = MemoryDisk::new();
        let store = open(&disk);
        let _object = client(&store, "object");
        seal(&store);
        lock(&store.shared.queue).sealed.get_mut(&1).unwrap().suspect = true;
        disk.tamper("object-1", |content| content.truncate(4096));
        store.shared.checkpoint_sealed().unwrap();
        assert_eq!(disk.content("object-1").unwrap().len(), 2 * 4096);
    }

    #[test]
    fn a_page_of_a_suspect_image_may_have_changed_since_it_was_sealed() {
        let store = open(&MemoryDisk::new());
        let object = client(&store, "object");
        object.commit_full(0, 1);
        seal(&store);
        lock(&store.shared.queue).sealed.get_mut(&1).unwrap().suspect = true;
        object.commit_full(0, 2);
        store.shared.checkpoint_sealed().unwrap();
        object.assert_full(0, 2);
    }
}
