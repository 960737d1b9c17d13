//! The `vmsync` command: run guests with durable memory, look into stores, check and carry them.
//!
//! One file per subcommand; each is a `clap` struct with a `run` that returns what the process exits with.
//!
//! Exit codes: 0 success, 1 failure (for `verify` also: damage found), 2 wrong usage, 134 the guest trapped, or the
//! guest's own code where it called `exit` (with `--durable` 1 in place of 0: such a call has not happened), 128 and the
//! signal's number where Ctrl-C or SIGTERM stopped an export or import.

mod archive;
mod durable;
mod export;
mod files;
mod import;
mod inspect;
mod instrument;
mod interrupt;
mod map;
mod output;
mod run;
mod sparse;
mod store_name;
mod stores;
mod trackers;
mod verify;
mod whole_file;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// mmap and msync for WebAssembly: durable linear memory for guests.
#[derive(Parser)]
#[command(name = "vmsync", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// What each does is said where it is: a comment here would take the place of that.
#[derive(Subcommand)]
enum Command {
    Run(run::Run),
    Instrument(instrument::Instrument),
    Inspect(inspect::Inspect),
    Verify(verify::Verify),
    Export(export::Export),
    Import(import::Import),
    Trackers(trackers::Trackers),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Run(command) => command.run(),
        Command::Instrument(command) => command.run(),
        Command::Inspect(command) => command.run(),
        Command::Verify(command) => command.run(),
        Command::Export(command) => command.run(),
        Command::Import(command) => command.run(),
        Command::Trackers(command) => command.run(),
    };
    result.unwrap_or_else(|error| {
        output::warn(&format!("{error:#}"));
        interrupt::exit_code().unwrap_or(ExitCode::FAILURE)
    })
}
