//! Kills a guest at random moments, again and again, and checks after each kill what it finds.
//!
//! The guest is `demos/guests/codesearch`: an index over source files, in a memory object that it syncs every few files.
//!
//! ```text
//!   [args] --> [input] files and their list
//!                 |
//!              [campaign] --[moment]--> [life] one run of `vmsync run`, killed or not --[child]--> process
//!                 |  after each: `vmsync verify`, the guest's `check`  ----------------[child]--> process
//!                 v
//!              [verdict] allowed, or a violation       [report] the table, or JSON
//! ```
//!
//! What must hold after every kill:
//! - the store is sound: every checksum, before anything has opened it;
//! - the index equals a recount of exactly the files that it names, the first ones of the list;
//! - they are no fewer than the guest's last `synced` line said, and no more than one sync further;
//! - the next run goes on from there.
//!
//! Exit codes: 0 all of it held, 1 it did not (the store is kept), 2 wrong usage, or it could not be tried, 130 interrupted.
//! `vmsync run` and the guest say with 2 as well that they cannot do what they are asked for; that is tried beforehand.
//!
//! Not here: power cuts. SIGKILL leaves what the kernel has in its cache; the tests of the file store cut power.

mod args;
mod campaign;
mod child;
mod codesearch;
mod input;
mod interrupt;
mod life;
mod moment;
mod random;
mod report;
mod verdict;

use std::process::ExitCode;

use clap::Parser;

use crate::{
    args::Args,
    campaign::{Campaign, Workplace},
    interrupt::Interrupted,
    verdict::Violation,
};

const EXIT_VIOLATION: u8 = 1;
const EXIT_TROUBLE: u8 = 2;
/// 128 + SIGINT, as a shell shows it.
const EXIT_INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    let args = Args::parse();
    interrupt::listen();
    let (outcome, workplace) = match Workplace::new(args.store.as_deref()) {
        Ok(workplace) => (run(&args, &workplace), Some(workplace)),
        Err(error) => (Err(error), None),
    };
    let Err(error) = outcome else {
        return ExitCode::SUCCESS;
    };
    if error.is::<Interrupted>() {
        eprintln!("vmsync-crash: interrupted");
        return ExitCode::from(EXIT_INTERRUPTED);
    }
    if error.is::<Violation>() {
        eprintln!("vmsync-crash: VIOLATION: {error:#}");
        if let Some(workplace) = workplace {
            eprintln!(
                "vmsync-crash: the store and the list of files are kept in {}: look with `vmsync inspect` and `vmsync verify`",
                workplace.keep().display()
            );
        }
        return ExitCode::from(EXIT_VIOLATION);
    }
    eprintln!("vmsync-crash: {error:#}");
    ExitCode::from(EXIT_TROUBLE)
}

fn run(args: &Args, workplace: &Workplace) -> anyhow::Result<()> {
    args.check()?;
    let report = Campaign::new(args, workplace)?.run()?;
    if args.json {
        report.print_json()
    } else {
        report.print_table()
    }
}
