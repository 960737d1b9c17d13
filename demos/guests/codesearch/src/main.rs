//! A code-search index that survives a kill: from every identifier to the lines where it occurs, in the heap of a
//! region. A WASI program:
//!
//! ```text
//! vmsync run --wasi --dir DIR --map codesearch=STORE codesearch.wasm -- COMMAND
//!
//!   index LIST [--sync-every N]   reads the files that LIST names, one path a line, in order; makes the index
//!                                 durable after every N files (8), and continues where an earlier run ended
//!   check LIST                    recounts the indexed files on the ordinary heap and compares; exit 1: they differ
//!   query IDENTIFIER [--limit N]  prints up to N (20) places, one `PATH:LINE` a line, then `places COUNT`
//!   stats                         prints one `NAME VALUE` a line
//!
//!   --object NAME (codesearch) and --size MIB (1024) go with every command
//! ```
//!
//! `index` prints `resumed FILES_DONE FILES_ALL`, after every successful sync `synced FILES_DONE FILES_ALL
//! IDENTIFIERS PLACES LIVE_BYTES`, and at the end `done FILES_ALL`. `check` prints `equal FILES_DONE IDENTIFIERS
//! PLACES`, or `differs WHAT`. Exit 2: the command could not be carried out; standard error says why.

mod args;
mod check;
mod index;
mod tokens;

use std::process::ExitCode;

use args::{Command, Options};
use index::Index;
use vmsync_guest::Heap;

/// What an error is here: a sentence for standard error.
type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("codesearch: {failure}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<ExitCode, Failure> {
    let options = Options::parse(std::env::args().skip(1))?;
    let mut heap = Heap::<Index>::map(&options.object, options.size_mib << 20)?;
    match &options.command {
        Command::Index { list } => index::index(&mut heap, list, options.sync_every)?,
        Command::Check { list } => return check::check(&heap, list),
        Command::Query { identifier } => index::query(&heap, identifier, options.limit),
        Command::Stats => index::stats(&heap),
    }
    Ok(ExitCode::SUCCESS)
}
