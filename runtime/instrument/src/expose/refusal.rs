//! What cannot be kept over a restart, and why.

use alloc::string::String;
use alloc::string::ToString;

/// Why a module was not exposed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ExposeError {
    /// The input does not parse or validate.
    #[error("not a valid core module: {message} (at byte {offset:#x})")]
    Invalid {
        /// What the validator said.
        message: String,
        /// Byte offset in the input.
        offset: usize,
    },
    /// The module is valid, and has state that would be lost.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The output does not validate: most often the input was at a limit of the format.
    #[error("the rewritten module is invalid: {message} (at byte {offset:#x})")]
    Output {
        /// What the validator said.
        message: String,
        /// Byte offset in the output.
        offset: usize,
    },
}

/// State that would be lost, or shared with others that do not come back.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// A component.
    #[error("a component was given: its core modules can be kept one by one")]
    Component,
    /// A relocatable object.
    #[error("a relocatable object was given: link it first")]
    Relocatable,
    /// `_start`.
    #[error(
        "the module is a command: its `_start` runs to its end, and nothing of it is left to keep. Build a reactor \
         (Rust: a `cdylib`; clang: `-mexec-model=reactor`) and call its functions"
    )]
    Command,
    /// `vmsync1`.
    #[error(
        "the module keeps its state in memory objects of its own (it imports `vmsync1`): run it with grants for them"
    )]
    OwnRegions,
    /// An export with a reserved name.
    #[error(
        "the module exports `{export}`: names that begin with `vmsync1:` are reserved, and used by `vmsync instrument`; give the plain module"
    )]
    Reserved {
        /// The name.
        export: String,
    },
    /// A memory of the host's.
    #[error(
        "memory {index} is imported: the host or another module may change it; let the module define its memory"
    )]
    ImportedMemory {
        /// Its index.
        index: u32,
    },
    /// Threads.
    #[error(
        "memory {index} is shared between threads, whose stacks would be lost: compile the module without threads"
    )]
    SharedMemory {
        /// Its index.
        index: u32,
    },
    /// More than one memory.
    #[error("the module has {count} memories: one can be kept")]
    SeveralMemories {
        /// How many.
        count: u32,
    },
    /// A custom page size.
    #[error("memory {index} has pages of its own size: only those of 64 KiB can be kept")]
    PageSize {
        /// Its index.
        index: u32,
    },
    /// A table of the host's.
    #[error("table {index} is imported: the host or another module may change it; let the module define it")]
    ImportedTable {
        /// Its index.
        index: u32,
    },
    /// A mutable global of the host's.
    #[error(
        "global {index} is imported and mutable: the host or another module may change it; let the module define it"
    )]
    ImportedGlobal {
        /// Its index.
        index: u32,
    },
    /// A table of something else than functions.
    #[error(
        "table {index} holds references of type {ty}: what they refer to belongs to the host and ends with the process"
    )]
    TableOfReferences {
        /// Its index.
        index: u32,
        /// Its elements' type.
        ty: String,
    },
    /// A global that refers to something else than a function.
    #[error(
        "global {index} holds a reference of type {ty}: what it refers to belongs to the host and ends with the process"
    )]
    GlobalReference {
        /// Its index.
        index: u32,
        /// Its type.
        ty: String,
    },
    /// Structs and arrays of the garbage collector.
    #[error(
        "the module has garbage-collected types: their objects lie outside its memory and cannot be kept"
    )]
    GarbageCollected,
    /// Stack switching.
    #[error("the module has continuation types: their stacks lie outside its memory and cannot be kept")]
    Continuations,
}

impl From<wasmparser::Error> for ExposeError {
    fn from(error: wasmparser::Error) -> Self {
        Self::Invalid {
            message: error.message().to_string(),
            offset: error.offset(),
        }
    }
}
