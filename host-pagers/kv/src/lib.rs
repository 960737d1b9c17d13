//! A pager that keeps objects in an embedded key-value database: one file, a transaction for each group of calls.
//!
//! ```no_run
//! use vmsync_pager_kv::{Options, open};
//!
//! let store = open("state.redb".as_ref(), &Options::default())?;
//! for (name, attributes) in store.list() {
//!     println!("{name}: {} bytes, version {}", attributes.size, attributes.version);
//! }
//! # Ok::<(), vmsync_core::PagerError>(())
//! ```
//!
//! ```text
//!   runtime --> KvStore = Store<Redb> --group--> one transaction, one sync      (vmsync-pager-group)
//!                            |                     pages, objects, meta         (redb, one file)
//!                            '-- database: opened again after a failure
//! ```
//!
//! Invariants:
//! - a call is durable when its completion says so, and then stays;
//! - after any crash every object reads as after one and the same call: the last reported one or a later one;
//! - after a failure nothing of the call is supplied: where the failed commit took place on the disk all the same, that
//!   is found out and told as a success, or it stops the store;
//! - bytes that contradict themselves are refused, and a panic of the database ends here.
//!
//! `README.md` says when to choose it before the file store.
//!
//! Non-goals: images to map (pages lie in a tree), several writers of one store, shrinking objects or the file,
//! compression, encryption.
#![forbid(unsafe_code)]

mod backend;
mod database;
mod engine;
mod error;
#[cfg(test)]
mod faults;
pub mod limits;
mod tables;

use std::{path::Path, sync::Arc, time::Duration};

use vmsync_core::PageSize;
use vmsync_pager_group::{Result, Store};

use database::Db;
pub use engine::Redb;

/// A store of objects in one database file. Removing an object does not shorten the file; its room is used again.
pub type KvStore = Store<Redb>;

/// When the whole file is checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Check {
    /// At each opening. Damage is then reported before anything is supplied; it takes a read of the whole file.
    #[default]
    OnOpen,
    /// At an opening after a crash, which reads the whole file anyway. A page that was damaged otherwise is still
    /// found when it is read.
    AfterCrash,
}

/// How a store is opened.
#[derive(Clone, Debug)]
pub struct Options {
    /// Make the store where there is none; its folder has to be there.
    pub create: bool,
    /// Change nothing; other readers may have it open as well, and no writer. A store that was not closed cleanly is
    /// refused: it is repaired when it is opened for writing.
    pub read_only: bool,
    /// The page size of the store and of every object in it.
    pub page_size: PageSize,
    /// Memory for the database's cache, in bytes.
    pub cache_bytes: usize,
    /// How long an asynchronous call may stay queued.
    pub write_behind_delay: Duration,
    /// When the whole file is checked.
    pub check: Check,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            create: true,
            read_only: false,
            page_size: PageSize::KIB_4,
            cache_bytes: limits::CACHE_BYTES_DEFAULT,
            write_behind_delay: limits::WRITE_BEHIND_DELAY_DEFAULT,
            check: Check::OnOpen,
        }
    }
}

/// Opens the store in the file `path`.
///
/// # Errors
/// Of kind
/// - [`Busy`](vmsync_core::PagerErrorKind::Busy): it is open elsewhere, in this process or another;
/// - [`NotFound`](vmsync_core::PagerErrorKind::NotFound): there is none, and it was not to be created;
/// - [`Damaged`](vmsync_core::PagerErrorKind::Damaged): its bytes contradict themselves, or are no database;
/// - [`Version`](vmsync_core::PagerErrorKind::Version): another format version;
/// - [`Invalid`](vmsync_core::PagerErrorKind::Invalid): another page size, or a database of another program;
/// - [`Denied`](vmsync_core::PagerErrorKind::Denied): the right is missing, or a store that was not closed cleanly is to
///   be read only;
/// - [`NoSpace`](vmsync_core::PagerErrorKind::NoSpace), [`Io`](vmsync_core::PagerErrorKind::Io): the disk's.
pub fn open(path: &Path, options: &Options) -> Result<Arc<KvStore>> {
    let options = Options {
        create: options.create && !options.read_only,
        ..options.clone()
    };
    let engine = Redb::new(Db::open(path, &options)?);
    // The database checks only what it may repair.
    if options.read_only && options.check == Check::OnOpen {
        engine.verify()?;
    }
    serve(engine, &options)
}

/// Serves what `engine` has.
fn serve(engine: Redb, options: &Options) -> Result<Arc<KvStore>> {
    Store::start(
        engine,
        vmsync_pager_group::Options {
            read_only: options.read_only,
            write_behind_delay: options.write_behind_delay,
            group_bytes_max: limits::GROUP_BYTES_MAX,
        },
    )
}
