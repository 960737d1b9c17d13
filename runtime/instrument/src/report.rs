//! What came out: the module, where its cards are, and what was done to it.
//!
//! Invariants:
//! - `stores` is the sum of the stores that were marked, covered by another's mark, hoisted, or skipped.

use crate::limits;
use alloc::string::String;
use alloc::vec::Vec;

/// Name of the export that is the card memory. The number is the version of the contract in the crate's head.
pub const CARDS_EXPORT: &str = "vmsync1:cards";

/// What a host has to know of a module that was instrumented before: a custom section beside the export, of the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Binary logarithm of the bytes that a card stands for.
    pub page_size_shift: u32,
    /// Nothing may be mapped below this address: stores to the shadow stack have no marks.
    pub stack_end: u64,
    /// How many bytes at the head of the page after a marked one may have changed without a mark.
    pub suspect_bytes: u32,
    /// Index of the tracked memory.
    pub tracked: u32,
}

/// An instrumented module.
#[derive(Clone, Debug)]
pub struct Instrumented {
    /// The rewritten module, valid.
    pub wasm: Vec<u8>,
    /// Where its card table is.
    pub cards: CardsLocation,
    /// What was done.
    pub report: Report,
}

/// Where the card table of an instance is, and how addresses map to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CardsLocation {
    /// Name of the exported memory that holds the table; `None`: the table lies in the tracked memory itself.
    pub export: Option<&'static str>,
    /// Index of the memory that holds the table.
    pub memory: u32,
    /// Index of the tracked memory.
    pub tracked: u32,
    /// Address of the first card in its memory, in bytes.
    pub offset: u64,
    /// Number of cards, one byte each.
    pub len: u64,
    /// Binary logarithm of the bytes that a card stands for.
    pub page_size_shift: u32,
    /// How many bytes at the head of the page after a marked one may have changed without a mark.
    pub suspect_bytes: u32,
}

impl Report {
    /// Nothing may be mapped below this address: stores to the shadow stack have no marks.
    pub fn stack_end(&self) -> u64 {
        self.shadow_stack.as_ref().map_or(0, |stack| stack.high.into())
    }
}

impl CardsLocation {
    /// Index of the card of an address, within the table. Add [`CardsLocation::offset`] for its address.
    pub fn card_of(&self, address: u64) -> u64 {
        address >> self.page_size_shift
    }

    /// How many cards cover a memory of this many bytes.
    pub fn cards_for(&self, memory_bytes: u64) -> u64 {
        memory_bytes.div_ceil(1 << self.page_size_shift).min(self.len)
    }

    pub(crate) fn pages(&self) -> u64 {
        self.len.div_ceil(limits::WASM_PAGE_BYTES)
    }
}

/// The global that LLVM keeps the shadow stack's pointer in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShadowStack {
    /// Index of the global.
    pub global: u32,
    /// Its initial value, a constant: the stack lies below this address and grows down.
    pub high: u32,
}

/// What was done to a module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Instructions that write the tracked memory and can be reached.
    pub stores: u64,
    /// Of these, bulk ones: `memory.fill`, `memory.copy`, `memory.init`.
    pub bulk_stores: u64,
    /// Stores to the shadow stack, left without a mark.
    pub skipped_stack: u64,
    /// Stores that a mark made for another store covers.
    pub coalesced: u64,
    /// Stores that are covered by marks ahead of their loop.
    pub hoisted: u64,
    /// Marks of one card that were placed after stores.
    pub marks: u64,
    /// Stores whose marks look at the card first.
    pub scattered: u64,
    /// Loops that got marks ahead of them.
    pub loops: u64,
    /// Imported functions of WASI that got one around them, which marks what they write.
    pub wrapped: u64,
    /// Functions of the module, and those that were rewritten.
    pub functions: u64,
    /// Functions that were rewritten.
    pub functions_changed: u64,
    /// Bytes of the input.
    pub bytes_in: u64,
    /// Bytes of the output.
    pub bytes_out: u64,
    /// Set if stores to this stack were skipped: the host never maps anything over it.
    pub shadow_stack: Option<ShadowStack>,
    /// Custom sections that were dropped because they hold offsets into the code.
    pub dropped_sections: Vec<String>,
}
