//! A pager that keeps objects in an object store: S3 and what speaks its language, Google Cloud Storage, Azure, a
//! folder. One writer at a time, fenced by the next one.
//!
//! ```no_run
//! use vmsync_pager_object::{Location, Options, open};
//!
//! // The keys come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.
//! let store = open(Location::new("s3://bucket/state")?, &Options::default())?;
//! for (name, attributes) in store.list() {
//!     println!("{name}: {} bytes, version {}", attributes.size, attributes.version);
//! }
//! # Ok::<(), vmsync_core::PagerError>(())
//! ```
//!
//! ```text
//!   runtime --> ObjectStorage = Store<ObjectEngine> --group--> segments, then one create      (vmsync-pager-group)
//!                                     |                              of manifest n + 1: the commit
//!                                     '-- reads: manifest, directories, blocks of segments
//! ```
//!
//! Invariants:
//! - the whole of a group of calls becomes durable with one create of one key, which succeeds for one writer only;
//! - small groups lie in the manifest itself: one request;
//! - opening for writing creates the next manifest, so that the writer before can commit nothing more;
//! - a create without an answer is read back, never assumed.
//!
//! `format.md` has the bytes and why they are safe. It rests on a store that creates a key only where there is none,
//! atomically, and lists what was created: S3 (since 2024), Google Cloud Storage, Azure, Ceph RGW, local folders.
//!
//! Non-goals: several writers of one store, moving single objects between stores, stores without a conditional create.
#![forbid(unsafe_code)]

mod blocks;
mod bucket;
mod claim;
mod commit;
mod engine;
mod fold;
mod garbage;
mod layout;
pub mod limits;
mod location;
mod merge;
mod pages;
mod tree;

use std::{sync::Arc, time::Duration};

use vmsync_core::PageSize;
use vmsync_pager_group::{Result, Store};

pub use bucket::Requests;
pub use engine::ObjectEngine;
pub use location::Location;

/// A store of objects in an object store.
pub type ObjectStorage = Store<ObjectEngine>;

/// How a store is opened.
#[derive(Clone, Debug)]
pub struct Options {
    /// Make the store where there is none; the bucket has to be there.
    pub create: bool,
    /// Change nothing, and leave the writer alone. An object is read as it was when it was opened. One that has changed since
    /// is [`Unavailable`](vmsync_core::PagerErrorKind::Unavailable) until it is opened again, as soon as another object is
    /// opened here, which moves the store on, or what it was is removed: the writer's [`garbage_delay`](Self::garbage_delay)
    /// later.
    pub read_only: bool,
    /// The page size of the store and of every object in it.
    pub page_size: PageSize,
    /// How long an asynchronous call may stay queued, and its neighbours with it.
    pub write_behind_delay: Duration,
    /// How long what is superseded stays for readers that are behind: map what you open within it.
    pub garbage_delay: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            create: true,
            read_only: false,
            page_size: PageSize::KIB_4,
            write_behind_delay: limits::WRITE_BEHIND_DELAY_DEFAULT,
            garbage_delay: limits::GARBAGE_DELAY_DEFAULT,
        }
    }
}

/// Opens the store at `location`. Opening for writing fences the writer before: its next call fails.
///
/// # Errors
/// Of kind
/// - [`Invalid`](vmsync_core::PagerErrorKind::Invalid): another page size;
/// - [`NotFound`](vmsync_core::PagerErrorKind::NotFound): no such bucket, or no store and none to be created;
/// - [`Denied`](vmsync_core::PagerErrorKind::Denied): the credentials or their rights;
/// - [`Damaged`](vmsync_core::PagerErrorKind::Damaged), [`Version`](vmsync_core::PagerErrorKind::Version): its bytes;
/// - [`Gone`](vmsync_core::PagerErrorKind::Gone): another host has opened it at the same time, and later;
/// - [`Unsupported`](vmsync_core::PagerErrorKind::Unsupported): no conditional create there;
/// - [`Io`](vmsync_core::PagerErrorKind::Io), [`TimedOut`](vmsync_core::PagerErrorKind::TimedOut): it cannot be reached.
pub fn open(location: Location, options: &Options) -> Result<Arc<ObjectStorage>> {
    let engine = ObjectEngine::open(location, options)?;
    Store::start(
        engine,
        vmsync_pager_group::Options {
            read_only: options.read_only,
            write_behind_delay: options.write_behind_delay,
            group_bytes_max: limits::GROUP_BYTES_MAX,
        },
    )
}
