//! Durable memory for WebAssembly programs: map a named object, use it with plain loads and stores, and make
//! what changed durable with one call.
//!
//! ```no_run
//! # fn main() -> vmsync_guest::Result<()> {
//! use vmsync_guest::Region;
//!
//! let mut region = Region::map("counter", 4096)?; // the host grants the name
//! *region.view_mut::<u64>()? += 1; //                a plain store
//! region.flush()?; //                                durable now, all or nothing
//! # Ok(())
//! # }
//! ```
//!
//! # What is here
//!
//! ```text
//!  Region ── RegionOptions      a mapped object; how it is mapped
//!    │
//!    ├── views (bytemuck)       the bytes as numbers, arrays, plain structs
//!    └── Heap                   a typed root; PMap, PHashMap, PVec, PString, PRing
//!
//!  options ─> window ─> raw     the place in linear memory; the imports of module `vmsync1`
//! ```
//!
//! # The window
//!
//! Pointers into a region stay valid over restarts if the region lies at the same address in every run. For that
//! the program leaves a range of addresses free between its stack and its static data. A `build.rs` in the
//! program's own crate does it (Rust links its WebAssembly targets with `--stack-first` already):
//!
//! ```
//! // in `main` of build.rs: 256 MiB, less the stack's 1 MiB
//! println!("cargo::rustc-link-arg=--global-base=268435456");
//! ```
//!
//! The window costs addresses, not memory. A program without one still has regions; they are mapped at the end of
//! linear memory, and an object with pointers in it opens again only if it lands at the same address.
//!
//! # What it does not do
//!
//! - No threads: shared memories are not offered by the host yet.
//! - No other address for a region with pointers in it: it is refused, not relocated.
#![no_std]

mod error;
pub mod heap;
pub mod limits;
mod options;
#[cfg_attr(not(target_family = "wasm"), path = "raw_host.rs")]
mod raw;
mod region;
mod view;
mod window;

pub use bytemuck;
pub use error::{Error, Result};
pub use heap::{Alloc, Heap, PHashMap, PMap, PRing, PString, PVec};
pub use options::RegionOptions;
pub use region::Region;
pub use vmsync_abi as abi;

/// The examples of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
