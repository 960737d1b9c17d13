//! vmsync as its users meet it: a guest of a `Sandbox` stores into a region and calls `vm_msync`; the file store.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Result, bail};
use vmsync::{Grant, Guest, ObjectName, Sandbox};
use vmsync_core::{pager::InitRequest, tracker::TrackerKind};
use vmsync_pager_conformance::Client;
use vmsync_pager_file::{FileStore, Options};

use crate::{
    contender::{Contender, Spent, rate_of, timed},
    workload::{Change, PAGE, REGION, Workload},
};

const GUEST: &str = include_str!("guest.wat");

/// The size of the object that is opened, in bytes.
const LARGE: u64 = 10 << 30;

/// Bytes that are written at a time beforehand.
const CHUNK: u64 = 16 << 20;

/// See the head of the file.
pub struct Ours {
    name: &'static str,
    tracker: Option<TrackerKind>,
    guest: Guest,
    store: Arc<FileStore>,
    folder: PathBuf,
}

impl Ours {
    /// A region of 1 GiB that was written in full.
    ///
    /// # Errors
    /// Whatever goes wrong.
    pub fn new(folder: &Path) -> Result<Self> {
        Self::with(folder, "vm_msync", None)
    }

    /// The same with a guest that was left as it is: the kernel tells what was stored to.
    ///
    /// # Errors
    /// Whatever goes wrong.
    pub fn unmodified(folder: &Path) -> Result<Self> {
        Self::with(
            &folder.join("unmodified"),
            "vm_msync, module unmodified",
            Some(vmsync::best()),
        )
    }

    fn with(folder: &Path, name: &'static str, tracker: Option<TrackerKind>) -> Result<Self> {
        let store = FileStore::open(&folder.join("store"), &Options::default())?;
        let mut guest = mapped(&store, tracker, "fill", REGION)?;
        for start in (0..REGION).step_by(CHUNK as usize) {
            guest.call::<(i32, i32, i32), ()>("fill", (start as i32, CHUNK as i32, 1))?;
            sync(&mut guest, (start, CHUNK))?;
        }
        store.checkpoint()?;
        Ok(Self {
            name,
            tracker,
            guest,
            store,
            folder: folder.into(),
        })
    }

    /// Bytes that commits have put into the journal so far.
    pub fn bytes_journaled(&self) -> u64 {
        self.store.stats().bytes_journaled
    }
}

/// A guest with a region of `size` bytes of the object `name`.
fn mapped(store: &Arc<FileStore>, tracker: Option<TrackerKind>, name: &str, size: u64) -> Result<Guest> {
    let grant = Grant::new(store.clone(), ObjectName::new(name)?);
    let mut sandbox = Sandbox::builder().grant("fill", grant);
    if let Some(tracker) = tracker {
        sandbox = sandbox.tracker(tracker);
    }
    let sandbox = sandbox.build()?;
    let mut guest = sandbox.instantiate(GUEST.as_bytes())?;
    if guest.call::<i32, i32>("map", size as i32)? != 0 {
        bail!("the guest could not map its region: {:?}", guest.last_error());
    }
    Ok(guest)
}

fn sync(guest: &mut Guest, range: (u64, u64)) -> Result<()> {
    let result = guest.call::<(i32, i32), i32>("sync", (range.0 as i32, range.1 as i32))?;
    if result != 0 {
        bail!("vm_msync answered {result}: {:?}", guest.last_error());
    }
    Ok(())
}

impl Contender for Ours {
    fn name(&self) -> &'static str {
        self.name
    }

    fn commit(&mut self, workload: Workload, change: &Change) -> Result<Spent> {
        let guest = &mut self.guest;
        let ((), change_seconds) = timed(|| match change {
            Change::Stores {
                state: Some(state),
                stores,
            } => {
                let name = if let Workload::Packed(_) = workload {
                    "pack"
                } else {
                    "scatter"
                };
                Ok(guest.call::<(i64, i32), ()>(name, (*state as i64, stores.len() as i32))?)
            }
            Change::Stores { state: None, stores } => stores.iter().try_for_each(|(offset, value)| {
                Ok(guest.call::<(i32, i64), ()>("store", (*offset as i32, *value as i64))?)
            }),
            Change::Fill { start, length, value } => Ok(guest
                .call::<(i32, i32, i32), ()>("fill", (*start as i32, *length as i32, i32::from(*value)))?),
        })?;
        let ((), commit) = timed(|| sync(guest, workload.range(change)))?;
        Ok(Spent {
            change: change_seconds,
            commit,
        })
    }

    fn settle(&mut self) -> Result<()> {
        Ok(self.store.checkpoint()?)
    }

    /// Each thread runs a guest of its own with an object of its own; all of them in one store.
    fn rate(&mut self, threads: usize, time: Duration) -> Result<Option<f64>> {
        let store = FileStore::open(&self.folder.join("committers"), &Options::default())?;
        let guests: Result<Vec<Guest>> = (0..threads)
            .map(|index| mapped(&store, self.tracker, &format!("counter-{index}"), PAGE))
            .collect();
        let committers = guests?.into_iter().map(|mut guest| {
            move |count: usize| {
                guest.call::<(i32, i64), ()>("store", (0, count as i64 + 1))?;
                sync(&mut guest, (0, PAGE))
            }
        });
        Ok(Some(rate_of(committers.collect(), time)?))
    }

    /// A store with a sparse object of 10 GiB, closed before: opened for writing, and its first page read.
    fn open(&mut self) -> Result<Option<f64>> {
        let folder = self.folder.join("large");
        let request = InitRequest {
            page_size: Options::default().page_size,
            size_min: LARGE,
            create: true,
            write: true,
        };
        let open = || -> Result<(Client, Vec<u8>)> {
            let store = FileStore::open(&folder, &Options::default())?;
            let client = Client::open_with(store, "large", request)?;
            let page = client.read(0, 1);
            Ok((client, page))
        };
        if !folder.exists() {
            open()?;
        }
        // Closing is not part of it.
        let (kept, seconds) = timed(open)?;
        drop(kept);
        Ok(Some(seconds))
    }
}
