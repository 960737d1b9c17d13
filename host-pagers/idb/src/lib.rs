//! A pager in IndexedDB, for pages whose browser or window has no origin private file system.
//!
//! ```text
//!   IdbPager: Pager --> mirror (every page of the store, in memory) --data_request--> guest
//!        |  one transaction of durability "strict" for all calls that came during the one before it
//!        v
//!   database.rs: object stores `objects` (by name) and `pages` (by object and page)
//! ```
//!
//! IndexedDB answers by promises and a pager's `data_request` may not wait, so the whole store is read when it is opened,
//! and kept. Completions arrive later, from the event loop: the runtime must let it run ([`IdbPager::changed`]).
//!
//! Invariants:
//! - a call is in one transaction: all of it or nothing;
//! - the mirror shows what was accepted; a transaction that fails takes back the pages of its calls, and of those behind them, and
//!   everybody who may have read them is told;
//! - a request is answered as durable only from the transaction's `complete`, which under "strict" follows the flush.
//!
//! Non-goals: stores larger than memory, sharing a store between tabs (the host locks it).
#![forbid(unsafe_code)]

mod database;
mod limits;
mod mirror;
mod pager;

pub use pager::IdbPager;
