//! Which stores need which marks.
//!
//! Each analysis takes the trace of one function and settles some of its stores; what none settles is marked the plain way.
//!
//! Invariants:
//! - leaving an analysis out never makes the result unsound, and never makes another analysis unsound;
//! - a store is settled once.

pub(crate) mod coalesce;
pub(crate) mod hoist;
pub(crate) mod scatter;
pub(crate) mod shadow_stack;
pub(crate) mod values;

use alloc::vec::Vec;

/// What was settled for one store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Nothing yet.
    #[default]
    Open,
    /// The cards of the addresses that lie this far from the address operand are marked after the store.
    Marks(Vec<i64>),
    /// A mark for another store covers it.
    Covered,
    /// Marks ahead of its loop cover it.
    Hoisted,
    /// It writes the shadow stack.
    Stack,
}
