//! The interface of the [memmap2] crate for programs in the sandbox: a file below a `--files` folder is a memory object,
//! and its map is that object's own bytes. `flush` makes what changed durable, all of it or, after a crash, none.
//!
//! Programs and libraries that are written against memmap2 use it by a patch in `Cargo.toml`, unchanged:
//!
//! ```toml
//! [patch.crates-io]
//! memmap2 = { path = "guest-sdk/memmap2" }
//! ```
//!
//! and are linked with the POSIX library (`guest-sdk/c`), which has `mmap` and its kin, and lends `std::fs` the same files.
//! `demos/guests/records` is an example with its `build.rs`. The standard library has to open files through the C library,
//! as Rust's does for WASI since 1.96; the crate itself takes Rust 1.95.
//!
//! ```text
//!  MmapOptions ──> Mmap, MmapMut, MmapRaw     as in memmap2
//!                    └── Mapping               one range, unmapped when it is dropped
//!                          └── sys             mmap, msync, munmap, mprotect, madvise, mlock of the POSIX library
//! ```
//!
//! Differences: several maps of one file show the same bytes at the same addresses; executable maps are refused; huge pages,
//! populating and remapping are hints that have no effect, or are not there.
//!
//! On Linux the crate works too, over the system's own calls: that is how its tests run.
//!
//! [memmap2]: https://docs.rs/memmap2

mod advice;
mod map;
mod mapping;
mod options;
mod sys;

pub use advice::{Advice, UncheckedAdvice};
pub use map::{Mmap, MmapMut, MmapRaw};
pub use options::{MmapAsRawDesc, MmapOptions, MmapRawDescriptor};
