//! Opening a store: from whatever a crash left to the state after the last durable call.
//!
//! ```text
//!   lock -> superblock -> scan the journal -> catalog -> remove strays -> images: extend, replay, check
//! ```
//!
//! Invariants:
//! - nothing is changed before the whole journal has been read and found sound;
//! - what was read is durable before an image is made or changes, a file goes, or a segment follows it; a store that was closed is,
//!   and one whose journal is empty waits for its first commit, so that both open without a sync;
//! - every page that the journal names has its checksum after replay, or the store does not open; it is checked before it is
//!   written;
//! - a read-only opening changes nothing: replayed pages stay in memory.

use std::{collections::BTreeMap, sync::Arc};

use vmsync_core::{PageSize, PagerError, PagerErrorKind};

use crate::{
    ahead::Ahead,
    disk::{Access, Disk, DiskFile, DiskLock, Result, Sharing},
    journal::{Found, Journal},
    layout::{
        FORMAT_VERSION, FileKind, STORE_NAME, Seed, VERSIONS_READ,
        catalog::Catalog,
        entry::PageEntry,
        file_kind, image_name,
        superblock::{Slot, Superblock},
    },
    limits::{REPLAY_PAGES, SLOT_BYTES},
    object::Object,
    patch::Patch,
    problem::{Problem, Trouble},
    queue::{Touched, touch},
    replay::{Replayed, for_each_page, replay_catalog},
    scan::{Log, Record, newest, read_slots, scan},
    store::Options,
};

/// An open store, before anything runs on it.
pub(crate) struct Recovered {
    pub(crate) lock: Box<dyn DiskLock>,
    /// The file of the superblock; only where the store can be written.
    pub(crate) store_file: Option<Box<dyn DiskFile>>,
    pub(crate) superblock: Superblock,
    pub(crate) journal: Journal,
    pub(crate) catalog: Catalog,
    /// What the journal holds records of.
    pub(crate) touched: Touched,
    /// Replayed pages that are not in the images: of a read-only store, or where there is no room for them.
    pub(crate) ahead: Ahead,
}

/// Opens or creates the store on `disk`.
pub(crate) fn open(disk: &Arc<dyn Disk>, options: &Options) -> Result<Recovered> {
    let sharing = if options.read_only {
        Sharing::Shared
    } else {
        Sharing::Exclusive
    };
    let lock = disk.lock(sharing)?;
    let opened = match existing(disk.as_ref())? {
        Some(superblock) => recover(disk, options, lock, superblock),
        None if options.create && !options.read_only => create(disk, options, lock),
        None => Err(PagerError::new(
            PagerErrorKind::NotFound,
            "there is no store here: open it with `create`, or choose another folder",
        )),
    };
    opened.map_err(|error| error.within(disk.place()))
}

/// The superblock of the store on `disk`, `None` where no store was ever completed.
pub(crate) fn existing(disk: &dyn Disk) -> Result<Option<Superblock>> {
    let names = disk.list()?;
    let slots = if names.iter().any(|name| name == STORE_NAME) {
        read_slots(disk)?
    } else {
        [Slot::Blank; 2]
    };
    // Also where the other slot is one of ours: a newer program may have written calls that this one does not see.
    let other = slots.iter().find_map(|slot| match slot {
        Slot::Version(version) => Some(version),
        _ => None,
    });
    if let Some(version) = other {
        return Err(PagerError::new(
            PagerErrorKind::Version,
            format!(
                "the store has format version {version}, this program knows {} to {}: use one that matches",
                VERSIONS_READ.start(),
                VERSIONS_READ.end()
            ),
        ));
    }
    if let Some(superblock) = newest(&slots) {
        return Ok(Some(superblock));
    }
    for (slot, offset) in slots.iter().zip([0, SLOT_BYTES as u64]) {
        match slot {
            Slot::Foreign => {
                let what = "this is not a vmsync store: expected the bytes \"vmsync-S\"";
                return Err(Trouble::from(Problem::new(STORE_NAME, offset, what)).into());
            }
            Slot::Damaged => {
                let what = "no slot of the superblock has a right checksum";
                return Err(Trouble::from(Problem::new(STORE_NAME, offset, what)).into());
            }
            Slot::Blank | Slot::Valid(_) | Slot::Version(_) => {}
        }
    }
    if let Some(object) = names
        .iter()
        .find(|name| matches!(file_kind(name), Some(FileKind::Image(_))))
    {
        let what = format!("it is missing or empty, but there are objects ({object})");
        return Err(Trouble::from(Problem::new(STORE_NAME, 0, what)).into());
    }
    Ok(None)
}

/// Makes an empty store. A crash before its superblock is durable leaves none.
fn create(disk: &Arc<dyn Disk>, options: &Options, lock: Box<dyn DiskLock>) -> Result<Recovered> {
    for name in disk.list()? {
        if matches!(file_kind(&name), Some(FileKind::Segment(_))) {
            disk.remove(&name)?;
        }
    }
    let superblock = Superblock {
        page_size: options.page_size,
        nonce: disk.nonce(),
        number: 0,
        generation: 1,
        sequence: 1,
        segment_bytes: options.segment_bytes,
        version: FORMAT_VERSION,
        closed: false,
        newest: 1,
    };
    let log = Log {
        live: Vec::new(),
        free: Vec::new(),
        records: Vec::new(),
        sequence_next: superblock.sequence,
        generation_next: superblock.generation,
        chain: 0,
    };
    let seed = Seed::of(superblock.nonce);
    let found = Found::new(log, &[], &superblock);
    let mut journal = Journal::new(disk.clone(), seed, superblock.segment_bytes, found);
    journal.activate(&Catalog::default().encode(), 0)?;
    journal.begin();
    let file = disk.open(STORE_NAME, Access::Create)?;
    let second = Superblock {
        number: 1,
        ..superblock
    };
    for slot in [&superblock, &second] {
        file.write_at(slot.slot_offset(), &slot.encode())?;
    }
    file.sync()?;
    disk.sync_names()?;
    Ok(Recovered {
        lock,
        store_file: Some(file),
        superblock: second,
        journal,
        catalog: Catalog::default(),
        touched: Touched::new(),
        ahead: Ahead::default(),
    })
}

fn recover(
    disk: &Arc<dyn Disk>,
    options: &Options,
    lock: Box<dyn DiskLock>,
    superblock: Superblock,
) -> Result<Recovered> {
    if superblock.page_size != options.page_size {
        return Err(PagerError::new(
            PagerErrorKind::Invalid,
            format!(
                "the store has pages of {} bytes, not {}: open it with its own page size",
                superblock.page_size.bytes(),
                options.page_size.bytes()
            ),
        ));
    }
    let access = if options.read_only {
        Access::Read
    } else {
        Access::Write
    };
    let mut log = scan(disk.as_ref(), access, &superblock)?;
    let records = std::mem::take(&mut log.records);
    let replayed = replay_catalog(&records, superblock.page_size)?;
    let strays = strays(disk.as_ref(), &replayed.catalog)?;
    let seed = Seed::of(superblock.nonce);
    let found = Found::new(log, &records, &superblock);
    let mut journal = Journal::new(disk.clone(), seed, superblock.segment_bytes, found);
    if access == Access::Write && (journal.has_calls() || !strays.is_empty()) {
        journal.make_durable()?;
        // Before the replay, which may need the room.
        strays.iter().try_for_each(|name| disk.remove(name))?;
    }
    let objects = open_images(disk.as_ref(), access, &replayed, superblock.page_size)?;
    let images = Images {
        page_size: superblock.page_size,
        seed,
        objects,
    };
    let mut touched = Touched::new();
    for ((object, page), sum) in &replayed.sums {
        touch(&mut touched, &images.objects[object]).sums.set(*page, *sum);
    }
    for (id, entry) in replayed.catalog.objects() {
        if replayed
            .checkpoint
            .get(id)
            .is_none_or(|before| before.size != entry.size)
        {
            touch(&mut touched, &images.objects[&id]);
        }
    }
    let ahead = images.replay(&records, &replayed, access)?;
    let store_file = (!options.read_only)
        .then(|| disk.open(STORE_NAME, Access::Write))
        .transpose()?;
    Ok(Recovered {
        lock,
        store_file,
        superblock,
        journal,
        catalog: replayed.catalog,
        touched,
        ahead,
    })
}

/// Opens the image of each object that the journal changed, and checks its length.
fn open_images(
    disk: &dyn Disk,
    access: Access,
    replayed: &Replayed,
    page_size: PageSize,
) -> std::result::Result<BTreeMap<u64, Arc<Object>>, Trouble> {
    let mut objects = BTreeMap::new();
    for (id, entry) in replayed.catalog.objects() {
        let name = image_name(id);
        let before = replayed.checkpoint.get(id);
        let resized = before.is_none_or(|before| before.size != entry.size);
        let replays = replayed.sums.range((id, 0)..=(id, u64::MAX)).next().is_some();
        if !resized && !replays {
            continue;
        }
        let image = match disk.open(&name, access) {
            Ok(image) => image,
            // Its creation is in the journal, the name need not be durable.
            Err(error) if error.kind == PagerErrorKind::NotFound && before.is_none() => {
                if access == Access::Read {
                    let advice = "open the store for writing once, so that its journal is replayed";
                    return Err(PagerError::new(
                        PagerErrorKind::Denied,
                        format!("{name} is missing: {advice}"),
                    )
                    .into());
                }
                disk.open(&name, Access::Create)?
            }
            Err(error) if error.kind == PagerErrorKind::NotFound => {
                let what = format!("the image of \"{}\" is missing", entry.name);
                return Err(Problem::new(name, 0, what).into());
            }
            Err(error) => return Err(error.into()),
        };
        let (length, durable) = (image.length()?, before.map_or(0, |before| before.size));
        if length < durable {
            let what = format!("the image of \"{}\" has {length} bytes of {durable}", entry.name);
            return Err(Problem::new(name, length, what).into());
        }
        // Also where it is long enough: a process that was killed may have left that in the cache only.
        if resized && access == Access::Write {
            image.set_len(entry.size.max(length))?;
        }
        let object = Object::new(id, &entry.name, image, entry.size, page_size);
        objects.insert(id, Arc::new(object));
    }
    Ok(objects)
}

/// Open images, to replay onto.
struct Images {
    page_size: PageSize,
    seed: Seed,
    objects: BTreeMap<u64, Arc<Object>>,
}

impl Images {
    /// Puts the journal's bytes into the images. Also where an image has them: a process that was killed may have left that in
    /// the cache only. What may not be written, or finds no room, is the answer: memory holds the bytes that changed.
    fn replay(
        &self,
        records: &[Record],
        replayed: &Replayed,
        access: Access,
    ) -> std::result::Result<Ahead, Trouble> {
        let mut ahead = Ahead::default();
        self.for_each_replayed(records, replayed, |object, page, entries, bytes| {
            if access == Access::Write {
                match object.image.write_at(page * self.page_size.bytes(), bytes) {
                    Err(error) if error.kind == PagerErrorKind::NoSpace => {}
                    written => return Ok(written?),
                }
            }
            let patches = entries.iter().filter_map(Patch::of_entry);
            if let Some(patch) = patches.reduce(|older, newer| newer.over(&older)) {
                ahead.insert((object.id, page), object, patch);
            }
            Ok(())
        })?;
        Ok(ahead)
    }

    /// Calls `body` for each page that the journal names, in order: its entries, and what it holds after them, which is checked.
    fn for_each_replayed(
        &self,
        records: &[Record],
        replayed: &Replayed,
        mut body: impl FnMut(&Arc<Object>, u64, &[PageEntry<'_>], &[u8]) -> std::result::Result<(), Trouble>,
    ) -> std::result::Result<(), Trouble> {
        let mut entries = Vec::new();
        for_each_page(records, self.page_size, u64::MAX, |entry| {
            if self.objects.contains_key(&entry.object) {
                entries.push(entry);
            }
            Ok(())
        })?;
        // Those of a page stay in the order of the journal.
        entries.sort_by_key(|entry| (entry.object, entry.page));
        let pages: Vec<_> = entries
            .chunk_by(|last, next| (last.object, last.page) == (next.object, next.page))
            .collect();
        let page_bytes = self.page_size.bytes();
        let mut bytes = vec![0; page_bytes as usize];
        for chunk in pages.chunks(REPLAY_PAGES) {
            for run in chunk
                .chunk_by(|last, next| last[0].object == next[0].object && last[0].page + 1 == next[0].page)
            {
                let (object, first) = (&self.objects[&run[0][0].object], run[0][0].page);
                object
                    .image
                    .will_read(first * page_bytes, run.len() as u64 * page_bytes);
            }
            for entries in chunk {
                let (object, page) = (&self.objects[&entries[0].object], entries[0].page);
                object.read(page * page_bytes, &mut bytes)?;
                entries.iter().for_each(|entry| entry.apply(&mut bytes));
                self.check((object.id, page), &bytes, replayed.sums[&(object.id, page)])?;
                body(object, page, entries, &bytes)?;
            }
        }
        Ok(())
    }

    fn check(&self, (object, number): (u64, u64), page: &[u8], sum: u64) -> std::result::Result<(), Trouble> {
        let found = self.seed.page_sum(object, number, page);
        if found == sum {
            return Ok(());
        }
        let what = format!(
            "page {number} of \"{}\" has checksum {found:#x} after replay, the journal says {sum:#x}",
            self.objects[&object].name
        );
        Err(Problem::new(image_name(object), number * self.page_size.bytes(), what).into())
    }
}

/// Files of objects that are not in the catalog: their creation never became durable, or their removal did.
fn strays(disk: &dyn Disk, catalog: &Catalog) -> Result<Vec<String>> {
    let is_stray = |name: &String| match file_kind(name) {
        Some(FileKind::Image(id) | FileKind::Sums(id)) => catalog.get(id).is_none(),
        Some(FileKind::Segment(_)) | None => false,
    };
    Ok(disk.list()?.into_iter().filter(is_stray).collect())
}
