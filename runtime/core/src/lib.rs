//! The virtual memory of vmsync: maps, memory objects, the msync state machine, and the traits that pagers and
//! trackers implement.
//!
//! This crate knows no engine, no operating system, no clock, no thread and no I/O: a host drives it. It compiles
//! for `wasm32-unknown-unknown`, so that the browser runs the very same code.
//!
//! ```text
//!   vmsync1 imports                                    pagers (file, memory, ...)
//!        |  vm_map, vm_msync, ...                           ^  data_return, synchronize
//!        v                                                  |
//!   [task::Task] -- owns --> [map::VmMap] -> VmMapEntry -> [object::MemoryObject]
//!        |                                                  ^
//!        | starts                                           | outstanding ranges, errors, dirty pages
//!        v                                                  v
//!   [msync::Msync]  a call as a sequence of steps: reserve, capture, return, synchronize, wait, settle
//! ```
//!
//! Invariants:
//! - page arithmetic happens in [`page`] and nowhere else;
//! - nothing here blocks: what must wait says [`msync::Poll::Blocked`], and the host waits;
//! - no panic is reachable from a guest's arguments.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod error;
pub mod limits;
pub mod map;
pub mod memory;
pub mod model;
pub mod msync;
pub mod object;
pub mod page;
mod page_bitmap;
pub mod page_set;
pub mod pager;
mod supply;
pub mod task;
pub mod tracker;

pub use error::{PagerError, PagerErrorKind};
pub use page::{ByteRange, PageRange, PageSize};
pub use page_bitmap::PageBitmap;
pub use page_set::PageSet;
pub use vmsync_abi as abi;
pub use vmsync_abi::KernReturn;
