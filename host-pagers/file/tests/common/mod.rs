//! What the tests of this crate share: a model of a store, random calls on a store and its model, and the disks that
//! a power cut may leave.
#![allow(dead_code)]

use std::{collections::BTreeMap, fs, path::Path, sync::Arc};

use vmsync_core::{
    PageSize, PagerError,
    abi::VmProt,
    pager::{InitRequest, ObjectName, Pager, SynchronizeFlags},
};
use vmsync_pager_conformance::{Client, random::Random};
use vmsync_pager_file::{
    Background, FileStore, Options,
    disk::memory::{Change, MemoryDisk},
    verify,
};

pub const PAGE: usize = 4096;
pub const PAGES: u64 = 4;
pub const NAMES: [&str; 3] = ["alpha", "beta", "gamma"];

/// What every object holds.
pub type State = BTreeMap<String, Vec<u8>>;

/// Small segments, so that a short run meets roll-overs and checkpoints; no thread, so that a seed decides all.
pub fn tiny() -> Options {
    Options {
        segment_bytes: 16 << 10,
        checkpoint_bytes: 16 << 10,
        background: Background::Caller,
        ..Options::default()
    }
}

pub fn open(disk: &MemoryDisk) -> Result<Arc<FileStore>, PagerError> {
    FileStore::open_on(Arc::new(disk.clone()), &tiny())
}

/// Opens `name` in `store`, for writing.
pub fn client(store: &Arc<FileStore>, name: &str, pages: u64) -> Result<Client, PagerError> {
    let size_min = pages * PAGE as u64;
    let request = InitRequest {
        page_size: PageSize::KIB_4,
        size_min,
        create: true,
        write: true,
    };
    Client::open_with(store.clone(), name, request)
}

/// Everything that `store` supplies.
pub fn contents(store: &Arc<FileStore>) -> Result<State, PagerError> {
    let mut state = State::new();
    for (name, attributes) in store.list() {
        let request = InitRequest {
            page_size: PageSize::KIB_4,
            size_min: 0,
            create: false,
            write: false,
        };
        let client = Client::open_with(store.clone(), name.as_str(), request)?;
        let mut bytes = vec![0; attributes.size as usize];
        store.data_request(client.object, 0, VmProt::READ, &mut bytes)?;
        client.close();
        state.insert(name.as_str().into(), bytes);
    }
    Ok(state)
}

/// Changes some bytes of a page, or all, or none.
pub fn scribble(random: &mut Random, page: &mut [u8]) {
    match random.below(6) {
        0 => random.fill(page),
        1 => page.fill(random.number() as u8),
        2 => {}
        _ => {
            for _ in 0..=random.below(4) {
                let start = random.below(PAGE as u64) as usize;
                let end = (start + 1 + random.below(16) as usize).min(PAGE);
                random.fill(&mut page[start..end]);
            }
        }
    }
}

/// One call on open objects: the pages that it sets, by object and page.
pub struct Edit {
    pub pages: BTreeMap<(usize, u64), Vec<u8>>,
    pub synchronous: bool,
}

impl Edit {
    /// A random call on top of `state`.
    pub fn random(random: &mut Random, state: &State) -> Self {
        let mut pages: BTreeMap<(usize, u64), Vec<u8>> = BTreeMap::new();
        for _ in 0..=random.below(4) {
            let (object, page) = (random.below(NAMES.len() as u64) as usize, random.below(PAGES));
            let Some(bytes) = state.get(NAMES[object]) else {
                continue;
            };
            let start = page as usize * PAGE;
            let Some(bytes) = bytes.get(start..start + PAGE) else {
                continue;
            };
            let mut bytes = bytes.to_vec();
            scribble(random, &mut bytes);
            pages.insert((object, page), bytes);
        }
        Self {
            pages,
            synchronous: !random.once_in(4),
        }
    }

    /// A random synchronous call that changes something of `state`.
    pub fn of_something(random: &mut Random, state: &State) -> Self {
        loop {
            let mut edit = Self::random(random, state);
            edit.synchronous = true;
            if edit.applied(state) != *state {
                return edit;
            }
        }
    }

    /// `state` after the call.
    pub fn applied(&self, state: &State) -> State {
        let mut after = state.clone();
        for ((object, page), bytes) in &self.pages {
            let start = *page as usize * PAGE;
            after.get_mut(NAMES[*object]).unwrap()[start..start + PAGE].copy_from_slice(bytes);
        }
        after
    }

    /// Makes the call.
    pub fn run(&self, clients: &[Client]) -> Result<(), PagerError> {
        let call = Client::call();
        let mut objects: Vec<usize> = Vec::new();
        for ((object, page), bytes) in &self.pages {
            if let Err(error) = clients[*object].give(call, *page, bytes) {
                clients[*object].pager().abort(call);
                return Err(error);
            }
            if objects.last() != Some(object) {
                objects.push(*object);
            }
        }
        for (index, object) in objects.iter().enumerate() {
            let more = index + 1 < objects.len();
            let flags = SynchronizeFlags {
                synchronous: self.synchronous,
                more,
                nowait: false,
            };
            clients[*object].synchronize(call, (0, PAGES), flags)?;
        }
        let mut outcome = Ok(());
        for object in objects {
            let client = &clients[object];
            outcome = outcome.and(client.recorder.wait(client.range(0, PAGES)));
        }
        outcome
    }
}

/// What a store keeps whose calls may fail: what must be there, and what may be instead until the next call that works.
pub struct Kept {
    pub committed: State,
    pub failed: Vec<State>,
}

impl Kept {
    /// All objects, before the first call.
    pub fn zeroes() -> Self {
        let zeroes = |name: &&str| ((*name).into(), vec![0; PAGE * PAGES as usize]);
        Self {
            committed: NAMES.iter().map(zeroes).collect(),
            failed: Vec::new(),
        }
    }

    /// Makes `edit`. What is supplied afterwards is what was committed.
    pub fn run(&mut self, store: &Arc<FileStore>, clients: &[Client], edit: &Edit) -> Result<(), PagerError> {
        let after = edit.applied(&self.committed);
        let outcome = edit.run(clients);
        match &outcome {
            Ok(()) => (self.committed, self.failed) = (after, Vec::new()),
            Err(_) => self.failed.push(after),
        }
        assert!(contents(store).unwrap() == self.committed, "what is supplied");
        outcome
    }

    pub fn may_be(&self, found: &State) -> bool {
        *found == self.committed || self.failed.contains(found)
    }

    /// Reads what a kill leaves of the store in `folder`: its files as other processes see them.
    #[track_caller]
    pub fn assert_left(&self, folder: &Path) {
        let copy = tempfile::tempdir_in(folder.parent().unwrap()).unwrap();
        copy_store(folder, copy.path());
        assert_eq!(verify(copy.path()).unwrap().problems, []);
        // A reader waits for no sync.
        let options = Options {
            read_only: true,
            ..tiny()
        };
        self.assert_opened(copy.path(), &options);
    }

    #[track_caller]
    pub fn assert_opened(&self, folder: &Path, options: &Options) {
        let found = contents(&FileStore::open(folder, options).unwrap()).unwrap();
        assert!(
            self.may_be(&found),
            "neither what was committed nor what failed since"
        );
    }
}

/// Copies the files of the store in `folder`, be it open.
pub fn copy_store(folder: &Path, copy: &Path) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
    }
}

/// Disks that a power cut on `disk` may leave: all of them where there are few, else some.
pub fn power_cuts(disk: &MemoryDisk, random: &mut Random) -> Vec<MemoryDisk> {
    let unsynced = disk.unsynced();
    let total: usize = unsynced.iter().map(|(_, count)| count).sum();
    let mut offsets = BTreeMap::new();
    let mut next = 0;
    for (name, count) in unsynced {
        offsets.insert(name, next);
        next += count;
    }
    let cut = |keep: &dyn Fn(usize) -> bool| {
        // A removed file that comes back is not counted; all of it stays.
        disk.after_power_cut(&mut |name: &str, number| {
            offsets.get(name).is_none_or(|first| keep(first + number))
        })
    };
    if total <= 5 {
        return (0..1usize << total)
            .map(|mask| cut(&|index| mask >> index & 1 == 1))
            .collect();
    }
    let mut disks = vec![cut(&|_| false), cut(&|_| true)];
    let single = random.below(total as u64) as usize;
    disks.push(cut(&|index| index == single));
    disks.push(cut(&|index| index != single));
    disks.push(cut(&|index| index < single));
    disks.push(cut(&|index| index >= single));
    for part in [2, 6] {
        let salt = random.number();
        let kept = |index: usize| Random::new(salt ^ index as u64).once_in(part);
        disks.push(cut(&kept));
        disks.push(cut(&|index| !kept(index)));
    }
    disks
}

/// A disk that holds what `base` held before `trace`, to replay onto.
pub fn replayed(base: &MemoryDisk, trace: &[Change]) -> MemoryDisk {
    let disk = base.after_kill();
    trace.iter().for_each(|change| disk.replay(change));
    disk
}

/// The name, checked.
pub fn name(name: &str) -> ObjectName {
    ObjectName::new(name).unwrap()
}
