//! Every limit of the instrumenter, each with its reason.
//!
//! Invariants:
//! - going over a limit of an analysis costs marks, never soundness: the store is marked the plain way.

/// Smallest VM page, 4 KiB: below the page of every host, and the card table grows with the inverse.
pub const PAGE_SIZE_SHIFT_MIN: u32 = 12;

/// Largest VM page, 64 KiB: a Wasm page, and the largest host page.
pub const PAGE_SIZE_SHIFT_MAX: u32 = 16;

/// Default for how many bytes of the page after a marked one can have changed without a mark of their own: a store of 16
/// bytes that begins on the last byte of a page ends on byte 14 of the next.
pub const SUSPECT_BYTES_DEFAULT: u32 = 16;

/// Largest promise that the collector may make for the head of a page. Half a page keeps the head within its page for
/// every page size.
pub const SUSPECT_BYTES_MAX: u32 = 2048;

/// Bytes of a Wasm page, also of the card memory's.
pub const WASM_PAGE_BYTES: u64 = 1 << WASM_PAGE_LOG2;

/// The same, as the format names sizes of pages.
pub const WASM_PAGE_LOG2: u32 = 16;

/// Bytes that a 32-bit memory can have, and so what its card table covers.
pub const MEMORY32_BYTES: u64 = 1 << 32;

/// Default for the largest 64-bit memory: 16 GiB, a table of 4 MiB for 4 KiB pages.
pub const MEMORY64_BYTES_DEFAULT: u64 = 1 << 34;

/// Largest 64-bit memory that can be asked for: 4 TiB, whose table of 1 GiB for 4 KiB pages is a 32-bit memory still.
pub const MEMORY64_BYTES_MAX: u64 = 1 << 42;

/// Terms of a linear form. Compilers emit base + index * scale + constant; more is rare and costs time to compare.
pub const TERMS_MAX: usize = 4;

/// Work that value tracking spends per function on joins, in locals touched. Above it, all locals are forgotten at a
/// join instead, so that a hostile nest of blocks costs linear time.
pub const JOIN_WORK_MAX: usize = 1 << 22;

/// Largest distance below the stack pointer that counts as a frame, 1 MiB: LLVM's default stack.
pub const FRAME_BYTES_MAX: i64 = 1 << 20;

/// Marks that are remembered at once: a search through them is linear.
pub const FACTS_MAX: usize = 32;

/// Largest stride or step of a hoisted store, 1 MiB: keeps products with the number of iterations within 64 bits.
pub const STRIDE_BYTES_MAX: i64 = 1 << 20;

/// Largest stride in bytes of stores whose pages are marked without a call: with a bound that bounds nothing, as many times all cards
/// are set before the loop traps, some tens of milliseconds.
pub const WALKED_STRIDE_MAX: i64 = 64;

/// Locals that are searched for one that holds a wanted value when a loop is entered.
pub const HOLDERS_MAX: usize = 1 << 10;

/// Stores of one loop that are looked at: all pairs are compared.
pub const HOISTED_MAX: usize = 1 << 8;

/// Buffers of one list that are marked one by one after a call of WASI: POSIX's IOV_MAX on Linux. Above it, the whole memory is
/// marked.
pub const BUFFERS_MAX: i32 = 1 << 10;

/// Ranges that are marked ahead of one loop: each is some 50 bytes of code.
pub const SPANS_MAX: usize = 8;
