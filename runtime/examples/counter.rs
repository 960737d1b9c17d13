//! A counter that survives: run it again and again, kill it, run it again.
//!
//! `cargo run --example counter [FOLDER]`

use vmsync::{Grant, ObjectName, Sandbox};
use vmsync_pager_file::{FileStore, Options};

/// Maps object "counter" at 64 KiB, adds one to its first word, and makes that durable.
const GUEST: &str = r#"(module
  (import "vmsync1" "memory_object_open" (func $open (param i32 i32 i64 i32 i32) (result i32)))
  (import "vmsync1" "vm_map" (func $map (param i32 i32 i32 i32 i32 i32 i64 i32 i32 i32 i32) (result i32)))
  (import "vmsync1" "vm_msync" (func $msync (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 2)
  (data (i32.const 0) "counter")
  (func (export "count") (result i32)
    (if (call $open (i32.const 0) (i32.const 7) (i64.const 4096) (i32.const 7) (i32.const 16))
      (then unreachable))
    (i32.store (i32.const 20) (i32.const 65536))
    (if (call $map (i32.const 1) (i32.const 20) (i32.const 4096) (i32.const 0) (i32.const 0)
          (i32.load (i32.const 16)) (i64.const 0) (i32.const 0) (i32.const 3) (i32.const 3) (i32.const 1))
      (then unreachable))
    (i32.store (i32.const 65536) (i32.add (i32.load (i32.const 65536)) (i32.const 1)))
    (if (call $msync (i32.const 1) (i32.const 65536) (i32.const 4096) (i32.const 2))
      (then unreachable))
    (i32.load (i32.const 65536))))"#;

/// Counts once in the store at `folder`.
pub fn count(folder: &std::path::Path) -> anyhow::Result<i32> {
    let store = FileStore::open(folder, &Options::default())?;
    let grant = Grant::new(store, ObjectName::new("counter")?);
    let sandbox = Sandbox::builder().grant("counter", grant).build()?;
    let mut guest = sandbox.instantiate(GUEST.as_bytes())?;
    Ok(guest.call("count", ())?)
}

fn main() -> anyhow::Result<()> {
    let folder = std::env::args_os().nth(1).unwrap_or("counter-state".into());
    println!("{}", count(folder.as_ref())?);
    Ok(())
}
