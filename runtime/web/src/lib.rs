//! vmsync in a browser's worker and in Node: the same guests, the same store, no Wasmtime.
//!
//! ```text
//!   page --createSandbox--> worker: engine.js --> Host (stores, grants)       js/: the API that people use
//!                              |                    |
//!                              |  WebAssembly.Instance of the guest, its stores instrumented (prepare.rs)
//!                              |      imports vmsync1.* --> Vm (vm.rs, calls.rs) --> Task, Msync (core)
//!                              |      memory, cards     <-- GuestMemory (memory.rs, cards.rs)
//!                              '--------------------------> FileStore on OpfsDisk, or on a folder of Node
//! ```
//!
//! The guest has its own `WebAssembly.Memory`; this module has another. Pages are copied between the two, and the card
//! table of the instrumented guest is its second memory, or its memory's tail where an engine has one memory only.
//!
//! Invariants:
//! - one [`Vm`] serves one instance, and a guest's arguments never trap in here;
//! - nothing here blocks: a call that waits for a pager answers [`PENDING`], and JavaScript waits.
//!
//! Not here, because a page cannot do it: stores to read-only pages and accesses to holes do not trap.
#![forbid(unsafe_code)]

mod calls;
mod cards;
mod error;
mod folder;
mod host;
pub mod limits;
mod memory;
mod object;
mod prepare;
mod vm;

pub use folder::FolderDisk;
pub use host::Host;
pub use prepare::{Prepared, prepare};
pub use vm::{PENDING, Vm};

use wasm_bindgen::prelude::wasm_bindgen;

/// Runs when the module is loaded: a panic, which is a mistake in vmsync, says where it happened.
#[wasm_bindgen(start)]
pub fn start() {
    std::panic::set_hook(Box::new(|panic| {
        error::log(&format!("vmsync: internal error: {panic}"));
    }));
}
