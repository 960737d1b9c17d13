//! vmsync as its users meet it: a guest of a `Sandbox` stores into a region and calls `vm_msync`; the file store.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
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

    /// Each thread runs a guest of its own with an object of its own; all of them in one store.
    ///
    /// # Errors
    /// Whatever goes wrong.
    pub fn rate_of_threads(&self, threads: usize, time: Duration) -> Result<f64> {
        let store = FileStore::open(&self.folder.join("threads"), &Options::default())?;
        let guests: Result<Vec<Guest>> = (0..threads)
            .map(|index| mapped(&store, self.tracker, &format!("counter-{index}"), PAGE))
            .collect();
        let committers = guests?.into_iter().map(|mut guest| {
            move |count: usize| {
                let result = guest.call::<i64, i32>("commit", count as i64 + 1)?;
                check(&guest, "vm_msync", result)
            }
        });
        rate_of(committers.collect(), time)
    }

    /// Bytes that commits have put into the journal so far.
    pub fn bytes_journaled(&self) -> u64 {
        self.store.stats().bytes_journaled
    }
}

/// A sandbox whose guests work on the object `name`.
fn sandbox(store: &Arc<FileStore>, tracker: Option<TrackerKind>, name: &str) -> Result<Sandbox> {
    let grant = Grant::new(store.clone(), ObjectName::new(name)?);
    let mut sandbox = Sandbox::builder().grant("fill", grant);
    if let Some(tracker) = tracker {
        sandbox = sandbox.tracker(tracker);
    }
    Ok(sandbox.build()?)
}

/// A guest with a region of `size` bytes of the object `name`.
fn mapped(store: &Arc<FileStore>, tracker: Option<TrackerKind>, name: &str, size: u64) -> Result<Guest> {
    let mut guest = sandbox(store, tracker, name)?.instantiate(GUEST.as_bytes())?;
    let result = guest.call::<i32, i32>("map", size as i32)?;
    check(&guest, "vm_map", result)?;
    Ok(guest)
}

fn sync(guest: &mut Guest, range: (u64, u64)) -> Result<()> {
    let result = guest.call::<(i32, i32), i32>("sync", (range.0 as i32, range.1 as i32))?;
    check(guest, "vm_msync", result)
}

fn check(guest: &Guest, call: &str, result: i32) -> Result<()> {
    if result != 0 {
        bail!("{call} answered {result}: {:?}", guest.last_error());
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

    /// Several are tasks of a runtime that has a thread for each processor, as hosts of many guests are built.
    fn rate(&mut self, committers: usize, time: Duration) -> Result<Option<f64>> {
        if committers == 1 {
            return Ok(Some(self.rate_of_threads(1, time)?));
        }
        let store = FileStore::open(&self.folder.join("tasks"), &Options::default())?;
        let runtime = tokio::runtime::Builder::new_multi_thread().build()?;
        runtime.block_on(async {
            let mut guests = Vec::new();
            for index in 0..committers {
                let sandbox = sandbox(&store, self.tracker, &format!("counter-{index}"))?;
                let mut guest = sandbox.instantiate_async(GUEST.as_bytes()).await?;
                let result = guest.call_async::<i32, i32>("map", PAGE as i32).await?;
                check(&guest, "vm_map", result)?;
                guests.push(guest);
            }
            let start = Instant::now();
            let tasks: Vec<_> = guests
                .into_iter()
                .map(|mut guest| {
                    tokio::spawn(async move {
                        let mut count = 0;
                        while start.elapsed() < time {
                            count += 1;
                            let result = guest.call_async::<i64, i32>("commit", count).await?;
                            check(&guest, "vm_msync", result)?;
                        }
                        Ok::<_, anyhow::Error>(count)
                    })
                })
                .collect();
            let mut count = 0;
            for task in tasks {
                count += task.await??;
            }
            Ok(Some(count as f64 / start.elapsed().as_secs_f64()))
        })
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
