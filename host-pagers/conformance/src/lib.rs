//! One suite that every pager passes, and the tools to write more tests of pagers and of their callers.
//!
//! ```no_run
//! # use std::sync::Arc;
//! # fn open_the_store() -> Arc<dyn vmsync_core::pager::Pager> { unimplemented!() }
//! use vmsync_pager_conformance::{Fixture, run};
//!
//! run("my pager", || Fixture::durable(|| open_the_store()));
//! ```
//!
//! ```text
//!   run -- for each check --> Fixture -- open --> Arc<dyn Pager>
//!              |                                      ^
//!              v                                      | the protocol
//!           Client (one object of one task) ----------'
//!              '-- Recorder: MemoryObjectControl, remembers every answer, refuses what was not asked
//!
//!   ScriptedPager: a pager in front of another that fails, hangs or answers late on demand, and keeps a log
//!   Proxy: a network that is slow, loses replies or is cut on demand, in front of a pager's server
//!   commit_over_restart: that server is killed, and started again
//!   fence_stale_writer: another one opens the store
//! ```
//!
//! Invariants:
//! - a check makes its own fixture, so checks do not see each other;
//! - every wait has a bound ([`limits`]), so that a pager which never answers fails a check and does not hang it;
//! - random checks print their seed and take `SEED=`.
#![forbid(unsafe_code)]

mod checks;
mod client;
mod fencing;
mod fixture;
pub mod limits;
mod proxy;
pub mod random;
mod recorder;
mod restart;
mod scripted;

pub use client::Client;
pub use fencing::fence_stale_writer;
pub use fixture::Fixture;
pub use proxy::{Network, Proxy};
pub use recorder::{Recorder, set_pause};
pub use restart::commit_over_restart;
pub use scripted::{Event, Fault, ScriptedPager};

/// Runs every check against fixtures of `make`; each fixture must be a store of its own.
///
/// # Panics
/// Where the pager breaks the protocol; what was printed last names the check.
pub fn run(name: &str, make: impl Fn() -> Fixture) {
    run_telling(make, |check| println!("{name}: {check}"));
}

/// [`run`], with the name of each check handed to `tell` before it begins.
///
/// # Panics
/// As [`run`].
pub fn run_telling(make: impl Fn() -> Fixture, tell: impl Fn(&str)) {
    for (check, body) in checks::ALL {
        tell(check);
        body(&mut make());
    }
}
