//! Makes a module's hidden state reachable: what a host needs to keep a whole instance over restarts.
//!
//! The state of a Wasm instance is its memory, its globals and its tables, and which passive segments it has dropped.
//! Most of it has no name outside the module. [`expose`] exports it under reserved names and takes the beginning out
//! of the instantiation, so that the host can choose between a new instance and one whose state it puts back:
//!
//! ```text
//!   new:      instantiate, call BEGIN                       (active data segments, start function)
//!   restored: instantiate, put the state back, call RESUME  (segments that were dropped are dropped again)
//! ```
//!
//! ```text
//!   bytes --> [survey] what the module has, what it may change --> [write] the module with more exports --> bytes
//!                |
//!             [refusal] what cannot be kept, and why
//! ```
//!
//! What the exposed module computes and traps on is what the plain one does.
//!
//! ```
//! use vmsync_instrument::expose::{BEGIN, expose};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let wasm = wat::parse_str(
//!     r#"(module (memory 1) (data (i32.const 0) "hello") (global $count (mut i32) (i32.const 0))
//!          (func (export "next") (global.set $count (i32.add (global.get $count) (i32.const 1)))))"#,
//! )?;
//! let exposed = expose(&wasm)?;
//! assert_eq!(exposed.globals[0].export, "vmsync1:global:0");
//! assert_eq!(exposed.memory.bytes, 65536);
//! # Ok(())
//! # }
//! ```
//!
//! Invariants:
//! - input and output both validate, or the call is an error; no input makes this module panic;
//! - indices of the input stay what they were;
//! - what [`Exposed`] does not list is the same in every instance of the module.

mod refusal;
mod survey;
mod write;

use alloc::string::String;
use alloc::vec::Vec;

pub use refusal::{ExposeError, Refusal};

/// What every reserved export begins with.
pub const EXPORT_PREFIX: &str = "vmsync1:";

/// Export of the function that begins a new instance's life.
pub const BEGIN: &str = "vmsync1:begin";

/// Export of the function that a restored instance needs to be called before it goes on.
pub const RESUME: &str = "vmsync1:resume";

/// Export of the memory.
pub const MEMORY: &str = "vmsync1:memory";

/// A module whose state can be reached.
#[derive(Clone, Debug)]
pub struct Exposed {
    /// The rewritten module, valid.
    pub wasm: Vec<u8>,
    /// XXH3-128 over the input's sections except custom ones: names and debug information may change.
    pub identity: u128,
    /// The memory. A module without one got one that it does not use.
    pub memory: ExposedMemory,
    /// Globals that may change.
    pub globals: Vec<Exported>,
    /// Tables that may change.
    pub tables: Vec<Exported>,
    /// Every function that can be in such a global or table.
    pub functions: Vec<Exported>,
    /// The module imports functions that may store to its memory unseen: any but those of WASI, whose stores
    /// [`crate::instrument`] marks.
    pub calls_host: bool,
}

/// A part of an instance, by its index in the module and the name of its export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exported {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub export: String,
}

/// How large the memory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExposedMemory {
    /// At first, in bytes.
    pub bytes: u64,
    /// At most, in bytes.
    pub bytes_max: u64,
}

/// Rewrites `wasm` so that its state can be reached.
///
/// # Errors
/// [`ExposeError`]: the input does not validate, or has state that cannot be kept.
pub fn expose(wasm: &[u8]) -> Result<Exposed, ExposeError> {
    let survey = survey::survey(wasm)?;
    let out = write::write(&survey)?;
    let named = |kind: &str, indices: Vec<u32>| {
        let export = |index| Exported {
            index,
            export: export_name(kind, index),
        };
        indices.into_iter().map(export).collect()
    };
    Ok(Exposed {
        wasm: out,
        identity: survey.identity(),
        memory: survey.memory_size(),
        globals: named("global", survey.saved_globals()),
        tables: named("table", survey.saved_tables()),
        functions: named("function", survey.functions_to_name()),
        calls_host: survey.calls_host(),
    })
}

fn export_name(kind: &str, index: u32) -> String {
    alloc::format!("{EXPORT_PREFIX}{kind}:{index}")
}
