//! The crash-safe file store of vmsync: a journal and an image per object, in one folder.
//!
//! ```no_run
//! use vmsync_pager_file::{FileStore, Options};
//!
//! let store = FileStore::open("state".as_ref(), &Options::default())?;
//! for (name, attributes) in store.list() {
//!     println!("{name}: {} bytes, version {}", attributes.size, attributes.version);
//! }
//! # Ok::<(), vmsync_core::PagerError>(())
//! ```
//!
//! ```text
//!   runtime --> FileStore: Pager --> Queue --group--> Journal --sync--> memory, a while --> images (page cache)
//!                  |                                     |                 |
//!                  '--- data_request, image() <----------|-----------------'
//!                                                        v
//!               checkpoint: images, sums and superblock are synced, segments are free again
//!   all of it on a Disk: native folder, memory (tests), OPFS (elsewhere)
//! ```
//!
//! Invariants, each of which a test that cuts power at every step holds on to:
//! - a call is durable when its completion says so, and then stays;
//! - after any crash every object reads as after one and the same call: the last reported one or a later one;
//! - an image never shows what is not durable;
//! - bytes that contradict themselves are refused, with their place.
//!
//! `format.md` draws the bytes, argues why replay is right, and lists what is survived and what is only detected.
//!
//! Non-goals: several writers of one store, compression, encryption, shrinking objects.
#![deny(unsafe_code)]

mod ahead;
mod apply;
mod background;
mod call;
mod checkpoint;
mod commit;
mod compare;
mod delta;
mod difference;
pub mod disk;
mod error;
mod helpers;
mod inspect;
mod journal;
mod journal_file;
mod layout;
pub mod limits;
mod lines;
#[cfg(unix)]
mod native;
mod object;
mod pager;
mod patch;
mod problem;
mod queue;
mod recovery;
mod replay;
mod scan;
mod stats;
mod store;
mod store_file;
mod sums;
mod supply;
mod tail;
mod verify;
mod waiter;

pub use inspect::{JournalSummary, Summary, inspect_on};
pub use layout::STORE_NAME;
#[cfg(unix)]
pub use native::{inspect, verify};
pub use problem::Problem;
pub use stats::Stats;
pub use store::{Background, FileStore, Options};
pub use verify::{Report, verify_on};
