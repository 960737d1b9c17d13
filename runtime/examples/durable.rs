//! A whole instance that survives, of a module that knows nothing of it and calls a function of the host's.
//!
//! `cargo run --example durable [FOLDER]`, again and again; kill it, run it again.

use vmsync::{DurableInstance, DurableModule, Grant, Host, ObjectName};
use vmsync_pager_file::{FileStore, Options};
use wasmtime::{Caller, Config, Engine, Linker, Store};

/// Keeps the last sixteen numbers that it was told, and says their sum.
const GUEST: &str = r#"(module
  (import "host" "say" (func $say (param i32)))
  (memory 1)
  (global $next (mut i32) (i32.const 0))
  (func (export "tell") (param $number i32)
    (local $at i32) (local $sum i32)
    (i32.store (i32.shl (global.get $next) (i32.const 2)) (local.get $number))
    (global.set $next (i32.and (i32.add (global.get $next) (i32.const 1)) (i32.const 15)))
    (loop $add
      (local.set $sum (i32.add (local.get $sum) (i32.load (local.get $at))))
      (local.set $at (i32.add (local.get $at) (i32.const 4)))
      (br_if $add (i32.lt_u (local.get $at) (i32.const 64))))
    (call $say (local.get $sum))))"#;

/// What the guest has said in this process.
pub type Said = Vec<i32>;

/// Tells the instance in the store at `folder` some numbers, as one step; what it said.
pub fn tell(folder: &std::path::Path, numbers: &[i32]) -> anyhow::Result<Said> {
    let host = Host::default();
    let mut config = Config::new();
    let engine = Engine::new(host.configure(config.consume_fuel(true)))?;
    let mut linker = Linker::new(&engine);
    linker.func_wrap("host", "say", |mut caller: Caller<'_, Said>, sum: i32| {
        caller.data_mut().push(sum)
    })?;

    let module = DurableModule::new(&host, &engine, GUEST.as_bytes())?;
    let store = FileStore::open(folder, &Options::default())?;
    let grant = Grant::new(store, ObjectName::new("sum")?).size_max(1 << 20);
    let make_store = |engine: &Engine| {
        let mut store = Store::new(engine, Said::new());
        store.set_fuel(1_000_000)?;
        Ok(store)
    };
    let mut instance = DurableInstance::open(&module, &linker, grant, make_store)?;
    // Durable together, or, if a call traps or runs out of fuel, as if none had been made.
    Ok(instance.step(|calls| {
        for number in numbers {
            calls.call::<_, ()>("tell", *number)?;
        }
        Ok(std::mem::take(calls.store().data_mut()))
    })?)
}

fn main() -> anyhow::Result<()> {
    let folder = std::env::args_os().nth(1).unwrap_or("durable-state".into());
    println!("{:?}", tell(folder.as_ref(), &[1, 2, 3])?);
    Ok(())
}
