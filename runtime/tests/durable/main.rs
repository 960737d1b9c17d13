//! Durable instances: what survives, what is undone, what is refused.

mod damage;
mod generated;
mod random;
mod refusals;
mod survival;

#[path = "../harness/mod.rs"]
mod harness;

use std::path::Path;

use harness::{rig::name, rungs};
use vmsync::{DurableInstance, Error, Grant, Sandbox, TrackerKind};
use vmsync_pager_file::{FileStore, Options};
use wasmtime::{WasmParams, WasmResults};

/// A module that imports nothing and has every kind of state.
const GUEST: &str = include_str!("guest.wat");

/// An instance of a module without imports.
type Instance = DurableInstance<()>;

/// The instance `a` of the store in `folder`, as a process that starts now would open it.
fn open(folder: &Path, kind: TrackerKind, wasm: &str) -> Result<Instance, Error> {
    let store = FileStore::open(folder, &Options::default()).expect("the store opens");
    let sandbox = Sandbox::builder().tracker(kind).build()?;
    sandbox.durable(wasm.as_bytes(), Grant::new(store, name("a")))
}

#[track_caller]
fn guest(folder: &Path, kind: TrackerKind) -> Instance {
    open(folder, kind, GUEST).unwrap_or_else(|error| panic!("{kind}: {error}"))
}

/// A call that succeeds.
#[track_caller]
fn run<P: WasmParams, R: WasmResults>(instance: &mut Instance, name: &str, parameters: P) -> R {
    instance
        .call(name, parameters)
        .unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Runs `body` under every rung that works here, with a folder of its own.
fn each(body: impl Fn(&Path, TrackerKind)) {
    for kind in rungs() {
        println!("{kind}");
        let folder = tempfile::tempdir().expect("a folder for the test");
        body(folder.path(), *kind);
    }
}
