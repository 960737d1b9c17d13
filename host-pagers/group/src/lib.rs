//! What pagers over engines share: calls are collected, committed in groups, and shown before they are durable.
//!
//! An engine ([`Engine`]) keeps pages by number and commits a [`Batch`] as a whole; [`Store`] makes a
//! [`vmsync_core::pager::Pager`] of it. `host-pagers/kv`, `host-pagers/sql` and `host-pagers/object` are engines. Remote
//! ones use the feature `bridge`, for clients that are asynchronous.
//!
//! ```text
//!   runtime --> Store: Pager --> queue --group--> Batch --> Engine::commit      (redb, PostgreSQL, an object store)
//!                  |               |                          |
//!                  '-- data_request: what is queued, over Engine::read
//! ```
//!
//! Invariants:
//! - a call is durable when its completion says so;
//! - a group is one batch, and a batch is committed as a whole or not at all;
//! - after a failure nothing of the call is supplied, and what was queued or returned behind it has failed with it;
//! - while a group is on its way others queue up, so calls of many tasks share a request, or a sync of the disk;
//! - a store that cannot go on ([`PagerErrorKind::Gone`](vmsync_core::PagerErrorKind::Gone)) refuses everything from then
//!   on and tells each object that is open.
//!
//! Non-goals: images to map, several writers of one store, shrinking objects.
#![forbid(unsafe_code)]

#[cfg(feature = "bridge")]
mod bridge;
mod call;
mod commit;
mod engine;
pub mod limits;
mod pager;
mod state;
mod store;

#[cfg(feature = "bridge")]
pub use bridge::{Background, Bridge, nonce};
pub use engine::{Batch, Catalog, Contents, Engine, Entry, Pages, Place, fill};
pub use store::{Options, Store};

/// What the methods of a store answer.
pub type Result<T> = std::result::Result<T, vmsync_core::PagerError>;

pub(crate) fn invalid(message: impl Into<String>) -> vmsync_core::PagerError {
    vmsync_core::PagerError::new(vmsync_core::PagerErrorKind::Invalid, message)
}
