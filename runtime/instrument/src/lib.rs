//! Store barriers: rewrites a Wasm module so that every store to its memory marks a card table.
//!
//! One card is one byte and stands for one VM page: the card of address `a` is byte `a >> page_size_shift` of the table.
//! A host that finds a non-zero card knows that the page may have been written since it cleared the card.
//!
//! ```text
//!   bytes --> [verify] --> [plan] which memory, where the cards go, what the stack pointer is
//!                             |
//!             per function: [trace] operands as linear forms, stores, loops
//!                             |
//!             [analysis] shadow_stack --> hoist --> coalesce --> scatter     which stores need which marks
//!                             |
//!                         [function] places them --- [marks], [ahead] what a mark is made of, [wasi] marks for the host
//!                             |
//!                         [rewrite] the module around the functions, [custom] sections --> [verify] --> bytes
//! ```
//!
//! The contract with whoever reads the cards (the *collector*):
//! - **Marked pages.** When the guest has called the host, returned, or trapped, the card of every page on which a store
//!   *began* since the card was last cleared is not zero, or the page is suspect. Cards may also be set for pages that were not
//!   written, and for pages beyond the end of the memory.
//! - **Suspect pages.** A store may run on into the page after the one it began on, and stores close behind it may begin there.
//!   Such a page needs no mark of its own, and only its first [`Options::suspect_bytes`] can have changed: compare those.
//! - **When to collect.** Cards are read and cleared while the guest is inside a call to the host, or is not running. Not at
//!   an epoch or fuel interruption after which it goes on: marks may have been set for stores that are yet to come. One that
//!   ends the call is a trap.
//! - **Not tracked.** Active data segments (they are written before anything can be mapped), and what the host itself writes,
//!   functions of `wasi_snapshot_preview1` excepted: each gets one around it that marks what it may have written.
//! - **The shadow stack.** Stores to LLVM's shadow stack are skipped, if [`Report::shadow_stack`] is set: then nothing is
//!   ever mapped over it. A guest that moves its stack pointer to a stack of its own making (coroutines) loses the frames
//!   there, should they lie in mapped memory: leave [`Analyses::shadow_stack`] out for it.
//!
//! What the rewritten module computes, traps on, and leaves in its memory is what the plain one does. It consumes more
//! fuel, has one more memory, export and custom section; a 64-bit memory may have a lower maximum (see
//! [`Options::memory64_bytes_max`]).
//!
//! ```
//! use vmsync_instrument::{Options, instrument};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let wasm = wat::parse_str(
//!     r#"(module (memory (export "memory") 1)
//!          (func (export "set") (param i32 i32) (i32.store (local.get 0) (local.get 1))))"#,
//! )?;
//! let done = instrument(&wasm, &Options::default())?;
//! assert_eq!(done.report.stores, 1);
//! assert_eq!(done.cards.card_of(0x1234), 1);
//! # Ok(())
//! # }
//! ```
//!
//! Not here:
//! - Marks only for addresses that are mapped. A mark is a shift and a byte store; the test of a window would add a
//!   subtraction, a comparison and a branch to each, and the collector ignores what is not mapped anyway.
//! - Cards for less than a page. With 256 bytes a card the table of a 4 GiB memory has 16 MiB in place of 1 MiB, as has what
//!   an idle scan reads, and marks ahead of loops set 16 times as many. What it would save is the comparison of a dirty page
//!   with its image, which reads 8 KiB.
//! - Instrumented loads, legacy exceptions, stack switching, components.
//!
//! Invariants:
//! - input and output both validate, or the call is an error; no input makes this crate panic;
//! - bytes of a function that needs no mark are copied, not re-encoded, but for indices of WASI's functions; all other indices
//!   of the input stay what they were;
//! - the same input and options give the same output.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod ahead;
mod analysis;
mod custom;
mod error;
pub mod expose;
mod function;
pub mod limits;
mod marks;
mod options;
mod plan;
mod redirect;
mod report;
mod rewrite;
mod section;
mod store;
mod trace;
mod verify;
mod wasi;

pub use error::{InstrumentError, InstrumentErrorKind};
pub use options::{Analyses, Cards, MemoryChoice, Options};
pub use report::{CARDS_EXPORT, CardsLocation, Instrumented, Report, ShadowStack, Stamp};
#[doc(hidden)]
pub use store::StoreKind;

/// Rewrites `wasm` so that its stores to the chosen memory mark cards.
///
/// # Errors
/// [`InstrumentError`]: the input does not validate, the options do not fit it, it is instrumented already, or it uses what
/// is refused.
pub fn instrument(wasm: &[u8], options: &Options) -> Result<Instrumented, InstrumentError> {
    rewrite::instrument(wasm, options, None)
}

/// Checks that `wasm` was not instrumented before.
///
/// # Errors
/// [`InstrumentError::AlreadyInstrumented`], with what the module says of its cards; what is wrong with it.
pub fn check_uninstrumented(wasm: &[u8]) -> Result<(), InstrumentError> {
    plan::check_uninstrumented(wasm)
}

/// [`instrument`], with the marks of one kind of store left out: a check on the tests that look for missing marks.
///
/// # Errors
/// As [`instrument`].
#[doc(hidden)]
pub fn instrument_without(
    wasm: &[u8],
    options: &Options,
    kind: StoreKind,
) -> Result<Instrumented, InstrumentError> {
    rewrite::instrument(wasm, options, Some(kind))
}
