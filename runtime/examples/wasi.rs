//! A host with a store of its own: `vmsync1` beside WASI. The guest keeps a log in a memory object and prints it.
//!
//! ```text
//!   Store<State { vm, wasi }> <-- Linker: vmsync::add_to_linker, wasmtime_wasi::p1::add_to_linker_sync
//! ```
//!
//! `cargo run --example wasi [FOLDER]`

use std::path::Path;

use vmsync::{Grant, Host, ObjectName, Vm, add_to_linker, prepare};
use vmsync_pager_file::{FileStore, Options};
use wasmtime::{Config, Engine, Linker, Module, Store};
use wasmtime_wasi::{
    WasiCtxBuilder,
    p1::{self, WasiP1Ctx},
};

/// The first word of the object counts the runs; each run appends a star behind it, makes both durable and prints the
/// stars.
const GUEST: &str = r#"(module
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "vmsync1" "memory_object_open" (func $open (param i32 i32 i64 i32 i32) (result i32)))
  (import "vmsync1" "vm_map" (func $map (param i32 i32 i32 i32 i32 i32 i64 i32 i32 i32 i32) (result i32)))
  (import "vmsync1" "vm_msync" (func $msync (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 2)
  (data (i32.const 0) "log")
  (func $check (param $result i32)
    (if (local.get $result) (then unreachable)))
  (func (export "_start")
    (local $runs i32)
    (call $check (call $open (i32.const 0) (i32.const 3) (i64.const 4096) (i32.const 7) (i32.const 16)))
    (i32.store (i32.const 20) (i32.const 65536))
    (call $check (call $map (i32.const 1) (i32.const 20) (i32.const 4096) (i32.const 0) (i32.const 0)
      (i32.load (i32.const 16)) (i64.const 0) (i32.const 0) (i32.const 3) (i32.const 3) (i32.const 1)))
    (local.set $runs (i32.add (i32.load (i32.const 65536)) (i32.const 1)))
    (i32.store (i32.const 65536) (local.get $runs))
    (i32.store16 (i32.add (i32.const 65539) (local.get $runs)) (i32.const 0x0a2a))
    (call $check (call $msync (i32.const 1) (i32.const 65536) (i32.const 4096) (i32.const 2)))
    (i32.store (i32.const 24) (i32.const 65540))
    (i32.store (i32.const 28) (i32.add (local.get $runs) (i32.const 1)))
    (call $check (call $write (i32.const 1) (i32.const 24) (i32.const 1) (i32.const 32)))))"#;

/// The data of the host's store.
struct State {
    vm: Vm,
    wasi: WasiP1Ctx,
}

/// Runs the guest once over the store at `folder`.
pub fn run(folder: &Path, wasi: WasiP1Ctx) -> anyhow::Result<()> {
    // Before the engine, so that the host is safe from addresses that a guest has given up.
    let host = Host::default();
    let mut config = Config::new();
    let engine = Engine::new(host.configure(&mut config))?;
    let prepared = prepare(&host, GUEST.as_bytes())?;
    let module = Module::new(&engine, &prepared.wasm)?;

    let mut linker = Linker::new(&engine);
    add_to_linker(&mut linker, |state: &mut State| &mut state.vm)?;
    p1::add_to_linker_sync(&mut linker, |state: &mut State| &mut state.wasi)?;

    let objects = FileStore::open(folder, &Options::default())?;
    let vm = Vm::builder(&host)
        .marks(prepared.marks)
        .grant("log", Grant::new(objects, ObjectName::new("log")?))
        .build()?;
    let mut store = Store::new(&engine, State { vm, wasi });
    let instance = linker.instantiate(&mut store, &module)?;
    instance
        .get_typed_func::<(), ()>(&mut store, "_start")?
        .call(&mut store, ())?;
    Ok(())
}

fn main() -> anyhow::Result<()> {
    let folder = std::env::args_os().nth(1).unwrap_or("log-state".into());
    run(folder.as_ref(), WasiCtxBuilder::new().inherit_stdout().build_p1())
}
