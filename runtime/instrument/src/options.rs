//! What the caller chooses.
//!
//! Invariants:
//! - [`Options::default`] is sound for every engine with multi-memory and a collector that keeps the contract of the crate;
//! - every field is checked before a byte is rewritten.

use crate::error::InstrumentError;
use crate::limits;
use alloc::string::{String, ToString};

/// Which memory is tracked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemoryChoice {
    /// The memory that is exported under this name.
    Export(String),
    /// The memory with this index, imported ones first.
    Index(u32),
}

impl Default for MemoryChoice {
    /// The memory exported as `memory`, which is what every toolchain emits.
    fn default() -> Self {
        Self::Export("memory".to_string())
    }
}

/// Where the card table lies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cards {
    /// A memory of its own, defined by the module and exported as [`crate::CARDS_EXPORT`]. Needs multi-memory.
    #[default]
    Own,
    /// A range of the tracked memory that the guest does not use, for engines without multi-memory. The whole table (1 MiB
    /// for 4 KiB pages) has to lie within the memory's initial size. Needs a 32-bit memory.
    Inline {
        /// Address of the table's first byte.
        offset: u32,
    },
}

/// Which analyses remove marks, or make them cheaper. Each is sound alone and with the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Analyses {
    /// No marks for stores to LLVM's shadow stack. The host promises never to map anything over it.
    pub shadow_stack: bool,
    /// One or two marks for stores off one base in a run of code without calls.
    pub coalesce: bool,
    /// Marks for the whole range of a counted loop's stores, ahead of the loop.
    pub hoist: bool,
    /// A look at the card before a mark, for stores all over memory.
    pub scatter: bool,
}

impl Analyses {
    /// All of them.
    pub const ALL: Self = Self {
        shadow_stack: true,
        coalesce: true,
        hoist: true,
        scatter: true,
    };
    /// None: one mark after each store.
    pub const NONE: Self = Self {
        shadow_stack: false,
        coalesce: false,
        hoist: false,
        scatter: false,
    };
}

impl Default for Analyses {
    fn default() -> Self {
        Self::ALL
    }
}

/// How to instrument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The memory to track.
    pub memory: MemoryChoice,
    /// Binary logarithm of the VM page size in bytes: 12 to 16.
    pub page_size_shift: u32,
    /// Where the cards are.
    pub cards: Cards,
    /// Which marks may be left out.
    pub analyses: Analyses,
    /// How many bytes at the head of the page after a marked one the collector compares: at most 2048. From 15 on, no single
    /// store needs two marks; more saves marks where neighbouring stores share one. 0: only marked pages are looked at, and
    /// a store that may straddle two pages marks both.
    pub suspect_bytes: u32,
    /// Largest size of a tracked 64-bit memory in bytes, for which the card table is made: at most 4 TiB. A memory that the
    /// module defines with a higher maximum, or none, gets this one; an imported one is refused.
    pub memory64_bytes_max: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            memory: MemoryChoice::default(),
            page_size_shift: limits::PAGE_SIZE_SHIFT_MIN,
            cards: Cards::default(),
            analyses: Analyses::default(),
            suspect_bytes: limits::SUSPECT_BYTES_DEFAULT,
            memory64_bytes_max: limits::MEMORY64_BYTES_DEFAULT,
        }
    }
}

impl Options {
    pub(crate) fn check(&self) -> Result<(), InstrumentError> {
        let reason =
            if !(limits::PAGE_SIZE_SHIFT_MIN..=limits::PAGE_SIZE_SHIFT_MAX).contains(&self.page_size_shift) {
                "page_size_shift is not within 12..=16"
            } else if self.suspect_bytes > limits::SUSPECT_BYTES_MAX {
                "suspect_bytes is above 2048"
            } else if self.memory64_bytes_max > limits::MEMORY64_BYTES_MAX {
                "memory64_bytes_max is above 4 TiB"
            } else {
                return Ok(());
            };
        Err(InstrumentError::Options { reason })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_have_ranges() {
        assert!(Options::default().check().is_ok());
        assert!(
            Options {
                page_size_shift: 11,
                ..Options::default()
            }
            .check()
            .is_err()
        );
        assert!(
            Options {
                suspect_bytes: 2049,
                ..Options::default()
            }
            .check()
            .is_err()
        );
        assert!(
            Options {
                memory64_bytes_max: u64::MAX,
                ..Options::default()
            }
            .check()
            .is_err()
        );
    }
}
