//! mmap and msync for WebAssembly: durable linear memory for Wasmtime guests.
//!
//! A guest maps named memory objects into its linear memory and works on them with plain loads and stores. A dirty
//! tracker on the host's side knows which pages were written. `vm_msync` hands just those pages to the object's pager,
//! which makes them durable, all or nothing.
//!
//! ```text
//!    guest: loads, stores, vm_msync                          host application
//!        |                                                       | grants
//!   [imports]  decode, encode                                    v
//!        |                                                  [sandbox] or your own Store
//!      [Vm] ------- vmsync_core::task::Task ------ map, objects, rules
//!        |                |
//!   [memory]         [writeback] -- vmsync_core::msync::Msync --> Pager (file, memory, ...)
//!   reservation,
//!   tracker
//! ```
//!
//! In the simple case:
//!
//! ```
//! use std::sync::Arc;
//! use vmsync::{Grant, ObjectName, Sandbox};
//! use vmsync_pager_memory::{MemoryPager, Options};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let pager = Arc::new(MemoryPager::new(Options::default()));
//! let counter = Grant::new(pager.clone(), ObjectName::new("counter")?);
//! let sandbox = Sandbox::builder().grant("counter", counter).build()?;
//! let wasm = r#"(module
//!   (import "vmsync1" "memory_object_open" (func $open (param i32 i32 i64 i32 i32) (result i32)))
//!   (import "vmsync1" "vm_map" (func $map (param i32 i32 i32 i32 i32 i32 i64 i32 i32 i32 i32) (result i32)))
//!   (import "vmsync1" "vm_msync" (func $msync (param i32 i32 i32 i32) (result i32)))
//!   (memory (export "memory") 2)
//!   (data (i32.const 0) "counter")
//!   (func (export "count") (result i32)
//!     (drop (call $open (i32.const 0) (i32.const 7) (i64.const 4096) (i32.const 7) (i32.const 16)))
//!     (i32.store (i32.const 20) (i32.const 65536))
//!     (drop (call $map (i32.const 1) (i32.const 20) (i32.const 4096) (i32.const 0) (i32.const 0x4000)
//!       (i32.load (i32.const 16)) (i64.const 0) (i32.const 0) (i32.const 3) (i32.const 3) (i32.const 1)))
//!     (i32.store (i32.const 65536) (i32.add (i32.load (i32.const 65536)) (i32.const 1)))
//!     (drop (call $msync (i32.const 1) (i32.const 65536) (i32.const 4096) (i32.const 2)))
//!     (i32.load (i32.const 65536))))"#;
//! for expected in 1..=3 {
//!     // A new instance each time: what it counted is in the object, not in the instance.
//!     let mut guest = sandbox.instantiate(wasm.as_bytes())?;
//!     assert_eq!(guest.call::<(), i32>("count", ())?, expected);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Without any change to the guest: [`Sandbox::durable`] keeps whole instances, memory, globals and tables.
//!
//! Many guests on few threads: [`Sandbox::instantiate_async`] and [`Guest::call_async`]; `examples/tasks.rs` is a whole host.
//!
//! With other imports beside it: [`add_to_linker`] follows Wasmtime's conventions; `examples/wasi.rs` is a whole host.
//!
//! Not here: shared memories (threads), memories that are imported from the host, the component model.

mod clock;
mod durable;
mod error;
mod grant;
mod host;
mod imports;
pub mod limits;
mod mappings;
mod memory;
mod object;
mod prepare;
mod sandbox;
mod stats;
mod vm;
mod wake;
mod writeback;

pub use durable::{Calls, DurableError, DurableInstance, DurableModule};
pub use error::Error;
pub use grant::Grant;
pub use host::{Host, HostOptions};
pub use imports::{add_to_linker, add_to_linker_async, add_to_linker_memory64, add_to_linker_memory64_async};
pub use prepare::{Marks, Prepared, prepare};
pub use sandbox::{Guest, Sandbox, SandboxBuilder};
pub use stats::Stats;
pub use vm::{Vm, VmBuilder};
pub use vmsync_core::{
    ByteRange, KernReturn, PageSize, PagerError, PagerErrorKind,
    abi::{self, VmSync},
    pager::{self, ObjectName, Pager},
    tracker::TrackerKind,
};
pub use vmsync_instrument as instrument;
pub use vmsync_tracker::{Rung, best, probe};
