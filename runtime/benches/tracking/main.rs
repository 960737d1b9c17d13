//! What dirty tracking costs, with its peers in the same run.
//!
//! ```text
//!   kernels ---> guest ----> run     kernels as guests through the facade, each tracker in turns with stock Wasmtime
//!   mapping ---> faults              a first store, beside the kernel's own minor fault and the peers' mechanisms
//!           \--> scans               a collect with its re-arming, and one that finds nothing
//!                  report            a table, a plot, or JSON with a `summary`
//! ```
//!
//! `cargo xtask bench tracking [--json] [-- ARGUMENTS]`. Medians are reported; ratios are taken within a round.

mod faults;
mod guest;
mod kernels;
mod mapping;
mod peer;
#[path = "../support/plot.rs"]
mod plot;
mod report;
mod run;
mod samples;
mod scans;
mod table;

use std::{fs::File, io::Write};

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use vmsync::TrackerKind;

use crate::{guest::How, table::Table};

const USAGE: &str = "use --json, --rounds N, --only PART-OF-A-KERNEL'S-NAME, --plot FILE.svg";

/// The rungs whose first stores and scans are measured one by one; the barrier has no faults.
fn rungs_here() -> Vec<TrackerKind> {
    let mut kinds = Vec::new();
    for rung in vmsync::probe() {
        match rung.available.and(rung.private_file) {
            Ok(()) => kinds.push(rung.kind),
            Err(why) => eprintln!("{} is left out: {why}", rung.kind),
        }
    }
    kinds
}

fn measure_memory(kinds: &[TrackerKind], rounds: usize) -> Result<Table> {
    let kinds: Vec<_> = kinds
        .iter()
        .copied()
        .filter(|kind| *kind != TrackerKind::Barrier)
        .collect();
    let faulting: Vec<_> = kinds
        .iter()
        .copied()
        .filter(|kind| *kind != TrackerKind::Compare)
        .collect();
    let file = file_of(scans::PAGES)?;
    let mut table = Table::default();
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} rounds of faults and scans")?;
    let progress = ProgressBar::new(rounds as u64).with_style(style);
    for round in 0..=rounds {
        // The first round warms up: caches, page tables, the kernel's lists of free pages.
        let mut discarded = Table::default();
        let table = if round == 0 { &mut discarded } else { &mut table };
        faults::measure(&faulting, &file, table)?;
        scans::measure(&kinds, &file, table)?;
        scans::unchanged(table)?;
        progress.inc(1);
    }
    progress.finish_and_clear();
    Ok(table)
}

/// A file of `pages` pages, none of them zero.
fn file_of(pages: usize) -> Result<File> {
    let mut file = tempfile::tempfile()?;
    let block = vec![7; 1 << 20];
    for _ in 0..(pages * mapping::PAGE).div_ceil(block.len()) {
        file.write_all(&block)?;
    }
    Ok(file)
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (mut json, mut rounds, mut only, mut plot) = (false, 9, String::new(), None);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().context("a value is missing");
        match argument.as_str() {
            "--json" => json = true,
            "--rounds" => rounds = value()?.parse::<usize>()?.max(1),
            "--only" => only = value()?,
            "--plot" => plot = Some(value()?),
            // Cargo's own word for benchmarks.
            "--bench" => {}
            other => bail!("unknown argument {other}: {USAGE}"),
        }
    }
    let kinds = rungs_here();
    let mut tracked: Vec<How> = kinds.iter().map(|kind| How::Rung(*kind)).collect();
    tracked.push(How::NaiveBarrier);
    let runs = run::measure(&tracked, rounds, &only)?;
    if runs.kernels.is_empty() {
        bail!("no kernel has {only:?} in its name");
    }
    let report = report::Report {
        runs,
        memory: measure_memory(&kinds, rounds)?,
        rounds,
    };
    if json {
        println!("{:#}", report.json());
    } else {
        report.print();
    }
    if let Some(file) = plot {
        std::fs::write(&file, report.draw()).with_context(|| format!("cannot write {file}"))?;
        eprintln!("plot: {file}");
    }
    Ok(())
}
