//! [`Life`]: what several tasks did to a store between two power cuts, recorded.
//!
//! ```text
//!   seed --> World { disk, store, tasks, model } --turns--> Life { image before, trace of the disk, history }
//!             |-- process, faults                  who has the store open, and what fails under it
//!             |-- pages, calls, objects, upkeep    what tasks do in their turns
//!             '-- judge                            what the model says of it
//! ```
//!
//! Invariants:
//! - all that is random comes from the seed, in one order;
//! - after every turn that can change something the store supplies what the model says, whatever failed;
//! - the model has two states: what is supplied, and what is left of it if all that is queued fails.

mod calls;
mod faults;
mod judge;
mod objects;
mod pages;
mod process;
mod upkeep;

use std::sync::Arc;

use vmsync_core::PageSize;
use vmsync_pager_file::{Background, FileStore};

use crate::{
    canary::Canary,
    disk::SimDisk,
    history::{Breach, Contents, History, Print},
    limits::{AT_ONCE_ONCE_IN, KILL_ONCE_IN, REMAP_ONCE_IN, TASKS},
    platter::{Change, Image},
    random::Random,
    shape::Shape,
    store::options,
    task::Task,
};

/// What went wrong, and how.
pub type Broken = (Breach, String);

/// A recorded life of a store.
#[derive(Clone, Debug)]
pub struct Life {
    /// The page size of the store.
    pub page_size: PageSize,
    /// Of the disks that cuts leave one in so many is looked at.
    pub look_once_in: usize,
    /// The disk before.
    pub base: Image,
    /// What was done to it.
    pub trace: Vec<Change>,
    /// What was promised when.
    pub history: History,
    /// How many operations failed on demand.
    pub faults: u64,
}

struct World {
    shape: Shape,
    disk: SimDisk,
    store: Option<Arc<FileStore>>,
    tasks: Vec<Task>,
    supplied: Contents,
    firm: Contents,
    history: History,
    random: Random,
    numbers: u64,
    faulty: bool,
    bug: Option<Canary>,
}

impl Life {
    /// Runs tasks on a store on the disk `base`, which holds `state`; with a `bug` where one is given.
    ///
    /// # Errors
    /// What the store did wrong while it ran.
    pub fn record(
        shape: &Shape,
        base: &Image,
        state: Option<Print>,
        seed: u64,
        faulty: bool,
        bug: Option<Canary>,
    ) -> Result<Self, Broken> {
        let disk = SimDisk::traced(base, seed);
        disk.spoil(bug);
        let mut world = World {
            shape: shape.clone(),
            disk,
            store: None,
            tasks: (0..TASKS).map(|_| Task::default()).collect(),
            supplied: Contents::new(),
            firm: Contents::new(),
            history: History::from(state),
            random: Random::new(seed),
            numbers: 1 << 32,
            faulty,
            bug,
        };
        world.begin()?;
        for turn in 0..shape.turns {
            world
                .turn(turn)
                .map_err(|(breach, why)| (breach, format!("in turn {turn}: {why}")))?;
        }
        world.end();
        let faults = world.disk.failed();
        Ok(Self {
            page_size: shape.page_size,
            look_once_in: shape.look_once_in,
            base: base.clone(),
            trace: world.disk.take_trace(),
            history: world.history,
            faults,
        })
    }

    /// Opens the disk `base`, which holds `state`, and closes it.
    ///
    /// # Errors
    /// That it does not open.
    pub fn recovery(shape: &Shape, base: &Image, state: &Print, seed: u64) -> Result<Self, Broken> {
        let disk = SimDisk::traced(base, seed);
        let store = FileStore::open_on(Arc::new(disk.clone()), &options(shape.page_size));
        drop(store.map_err(|error| lost(format!("the store does not open: {error}")))?);
        Ok(Self {
            page_size: shape.page_size,
            look_once_in: shape.look_once_in,
            base: base.clone(),
            trace: disk.take_trace(),
            history: History::from(Some(state.clone())),
            faults: 0,
        })
    }
}

fn mixed(what: impl Into<String>) -> Broken {
    (Breach::Mixed, what.into())
}

fn lost(what: impl Into<String>) -> Broken {
    (Breach::Lost, what.into())
}

impl World {
    fn store(&self) -> Arc<FileStore> {
        self.store.clone().expect("a store is open between turns")
    }

    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    fn turn(&mut self, turn: usize) -> Result<(), Broken> {
        if self.disk.is_frozen() {
            return self.reopen(false);
        }
        if self.random.once_in(KILL_ONCE_IN) {
            self.set_kill();
        }
        let task = self.random.below(TASKS);
        if self.tasks[task].call.is_some() {
            return self.go_on(task);
        }
        match self.random.below(40) {
            0 => return self.checkpoint(),
            1 => return self.flush(),
            2 => return self.remove(),
            3 if turn > 20 => return self.reopen(true),
            4 if turn > 20 => return self.reopen(false),
            5 => return self.close(task),
            6..10 => return self.open(task),
            10 => self.discard(task),
            13 => return self.grow(task),
            11 | 12 if self.shape.background == Background::Host => return self.tidy(),
            _ => {}
        }
        if self.tasks[task].open.is_empty() {
            return self.open(task);
        }
        if self.random.once_in(REMAP_ONCE_IN) {
            self.map(task)?;
        }
        self.change_pages(task)?;
        self.start_call(task);
        // Nobody else has a turn in between.
        if self.random.once_in(AT_ONCE_ONCE_IN) {
            self.send(task)?;
        }
        Ok(())
    }
}
