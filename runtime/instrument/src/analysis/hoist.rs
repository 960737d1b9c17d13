//! Marks ahead of counted loops.
//!
//! Invariants:
//! - to come.
