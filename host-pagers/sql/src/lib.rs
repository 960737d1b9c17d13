//! A pager that keeps objects in PostgreSQL: pages in rows, a transaction for each group of calls, one writer.
//!
//! ```no_run
//! use vmsync_pager_sql::{Options, SqlStore, open};
//!
//! // The password comes from PGPASSWORD.
//! let store = open("postgres://app@db.example/state", &Options::default())?;
//! for (name, attributes) in store.list() {
//!     println!("{name}: {} bytes, version {}", attributes.size, attributes.version);
//! }
//! # Ok::<(), vmsync_core::PagerError>(())
//! ```
//!
//! ```text
//!   runtime --> SqlStore = Store<Postgres> --group--> one statement = one transaction      (vmsync-pager-group)
//!                              |                        fence: epoch and number of commits
//!                              '-- sessions: lost ones are ended by the server, then replaced
//! ```
//!
//! Invariants:
//! - a call is durable when its completion says so, as far as the server's own `fsync` and replication make it so;
//! - a call is applied once, also where the answer to it was lost;
//! - opening for writing takes the epoch: from then on an earlier writer commits nothing.
//!
//! `README.md` says what the tables are. Non-goals: many writers of one store, other databases.
#![forbid(unsafe_code)]

mod engine;
mod error;
pub mod limits;
mod parameters;
mod schema;
mod session;

use std::{sync::Arc, time::Duration};

use vmsync_core::PageSize;
use vmsync_pager_group::{Result, Store};

pub use engine::Postgres;

/// A store of objects in a database.
pub type SqlStore = Store<Postgres>;

/// How a store is opened.
#[derive(Clone, Debug)]
pub struct Options {
    /// Make the store where there is none; the database has to be there.
    pub create: bool,
    /// Change nothing, and leave the writer alone.
    pub read_only: bool,
    /// The page size of the store and of every object in it.
    pub page_size: PageSize,
    /// How long an asynchronous call may stay queued.
    pub write_behind_delay: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            create: true,
            read_only: false,
            page_size: PageSize::KIB_4,
            write_behind_delay: limits::WRITE_BEHIND_DELAY_DEFAULT,
        }
    }
}

/// Opens the store in the database that `url` names (`postgres://USER@HOST/DATABASE`; another schema than `public`
/// with `?options=-csearch_path%3DSCHEMA`). What the URL leaves out comes from PGUSER, PGPASSWORD and PGHOST.
///
/// Opening for writing fences the writer before: its next call fails.
///
/// # Errors
/// Of kind
/// - [`Invalid`](vmsync_core::PagerErrorKind::Invalid): the URL, or another page size;
/// - [`NotFound`](vmsync_core::PagerErrorKind::NotFound): no such database, or no store and none to be created;
/// - [`Denied`](vmsync_core::PagerErrorKind::Denied): the user, the password, a right, a server that is read-only;
/// - [`Version`](vmsync_core::PagerErrorKind::Version): another format version;
/// - [`Io`](vmsync_core::PagerErrorKind::Io), [`TimedOut`](vmsync_core::PagerErrorKind::TimedOut): the server cannot be
///   reached.
pub fn open(url: &str, options: &Options) -> Result<Arc<SqlStore>> {
    let engine = Postgres::open(url, options)?;
    Store::start(
        engine,
        vmsync_pager_group::Options {
            read_only: options.read_only,
            write_behind_delay: options.write_behind_delay,
            group_bytes_max: limits::GROUP_BYTES_MAX,
        },
    )
}
