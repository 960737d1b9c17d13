//! A host in miniature: a byte array as linear memory, a pager that does what a test says, and a driver of calls.
//!
//! ```text
//!   Guest { Task<Object>, TestMemory } -- Msync --> Object (Arc, Mutex) --> TestPager (script, log)
//!                                                      ^--------- completions, from any thread ---'
//! ```
//!
//! Invariants:
//! - every store of a guest goes through [`memory::TestMemory::store`], so that marks are exact;
//! - what the pager was asked is in its log, in order, as text: `a return 1..3 dirty kept`;
//! - a call waits only where a test says so ([`Guest::finish_blocking`]), and never without a bound.
#![allow(dead_code, reason = "each test binary uses a part")]

pub mod guest;
pub mod memory;
pub mod object;
pub mod pager;

pub use guest::Guest;
pub use object::Object;
pub use pager::TestPager;

use vmsync_core::PageSize;

/// The page size of these tests.
pub const PAGE: PageSize = PageSize::KIB_4;
/// In bytes.
pub const P: u64 = PAGE.bytes();
