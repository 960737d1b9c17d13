//! A pager that keeps objects in an embedded key-value database: one file, a transaction for each group of calls.
//!
//! ```no_run
//! use vmsync_pager_kv::{KvStore, Options};
//!
//! let store = KvStore::open("state.redb".as_ref(), &Options::default())?;
//! for (name, attributes) in store.list() {
//!     println!("{name}: {} bytes, version {}", attributes.size, attributes.version);
//! }
//! # Ok::<(), vmsync_core::PagerError>(())
//! ```
//!
//! ```text
//!   runtime --> KvStore: Pager --> queue --group--> one transaction --> pages, objects, meta   (redb, one file)
//!                   |                |                                          |
//!                   '-- data_request: what is queued, over a snapshot ----------'
//! ```
//!
//! Invariants:
//! - a call is durable when its completion says so, and then stays;
//! - after any crash every object reads as after one and the same call: the last reported one or a later one;
//! - after a failure nothing of the call is supplied, also where the failed commit took place on the disk;
//! - bytes that contradict themselves are refused, and a panic of the database ends here.
//!
//! `README.md` says when to choose it before the file store.
//!
//! Non-goals: images to map (pages lie in a tree), several writers of one store, shrinking objects or the file,
//! compression, encryption.
#![forbid(unsafe_code)]

mod backend;
mod call;
mod commit;
mod database;
mod error;
#[cfg(test)]
mod faults;
pub mod limits;
mod pager;
mod state;
mod store;
mod tables;

pub use store::{Check, KvStore, Options};
