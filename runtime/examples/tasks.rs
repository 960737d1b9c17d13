//! Many guests, few threads: each guest is a task, and while its sync is under way its thread runs others. Their calls share
//! flushes of the disk.
//!
//! `cargo run --release --example tasks [FOLDER]`

use std::{path::Path, sync::Arc};

use vmsync::{Grant, ObjectName, Sandbox};
use vmsync_pager_file::{FileStore, Options};

/// Counts in its memory object; each count is durable when the call returns.
const GUEST: &str = r#"(module
  (import "vmsync1" "memory_object_open" (func $open (param i32 i32 i64 i32 i32) (result i32)))
  (import "vmsync1" "vm_map" (func $map (param i32 i32 i32 i32 i32 i32 i64 i32 i32 i32 i32) (result i32)))
  (import "vmsync1" "vm_msync" (func $msync (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 2)
  (data (i32.const 0) "counter")
  (func $check (param $result i32)
    (if (local.get $result) (then unreachable)))
  (func $start
    (call $check (call $open (i32.const 0) (i32.const 7) (i64.const 4096) (i32.const 7) (i32.const 16)))
    (i32.store (i32.const 20) (i32.const 65536))
    (call $check (call $map (i32.const 1) (i32.const 20) (i32.const 4096) (i32.const 0) (i32.const 0)
      (i32.load (i32.const 16)) (i64.const 0) (i32.const 0) (i32.const 3) (i32.const 3) (i32.const 1))))
  (func (export "count") (result i32)
    (if (i32.eqz (i32.load (i32.const 20))) (then (call $start)))
    (i32.store (i32.const 65536) (i32.add (i32.load (i32.const 65536)) (i32.const 1)))
    (call $check (call $msync (i32.const 1) (i32.const 65536) (i32.const 4096) (i32.const 2)))
    (i32.load (i32.const 65536))))"#;

/// What happened.
pub struct Outcome {
    /// Where the counters stand.
    pub counts: Vec<i32>,
    /// Syncs of guests, and flushes of the disk.
    pub syncs: (u64, u64),
}

/// Has each of `guests` guests count `times` times in the store at `folder`.
pub async fn count(folder: &Path, guests: usize, times: usize) -> anyhow::Result<Outcome> {
    let store = FileStore::open(folder, &Options::default())?;
    let before = store.stats();
    let mut tasks = Vec::new();
    for index in 0..guests {
        let object = ObjectName::new(&format!("counter-{index}"))?;
        let sandbox = Sandbox::builder()
            .grant("counter", Grant::new(Arc::clone(&store) as _, object))
            .build()?;
        let mut guest = sandbox.instantiate_async(GUEST.as_bytes()).await?;
        tasks.push(tokio::spawn(async move {
            let mut count = 0;
            for _ in 0..times {
                count = guest.call_async::<(), i32>("count", ()).await?;
            }
            Ok::<_, anyhow::Error>(count)
        }));
    }
    let mut counts = Vec::new();
    for task in tasks {
        counts.push(task.await??);
    }
    let after = store.stats();
    let syncs = (after.calls - before.calls, after.syncs - before.syncs);
    Ok(Outcome { counts, syncs })
}

fn main() -> anyhow::Result<()> {
    let folder = std::env::args_os().nth(1).unwrap_or("tasks-state".into());
    let runtime = tokio::runtime::Builder::new_multi_thread().build()?;
    let Outcome { counts, syncs } = runtime.block_on(count(folder.as_ref(), 64, 100))?;
    println!("counters: {counts:?}");
    println!("{} syncs of guests, {} flushes of the disk", syncs.0, syncs.1);
    Ok(())
}
