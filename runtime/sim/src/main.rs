//! `vmsync-sim`: runs seeds until enough power cuts were made, and says what was found.
#![forbid(unsafe_code)]

use std::{
    io::IsTerminal,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use vmsync_sim::{
    canary::Canary,
    history::Breach,
    run::{Outcome, run},
};

/// Cuts the power of the file store at every step of random runs, and compares what is left with what was promised.
#[derive(Parser)]
#[command(name = "vmsync-sim")]
struct Cli {
    /// The first seed; the following ones come next.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many cuts to make at least. With 1, the first seed is run and no other.
    #[arg(long, default_value_t = 100_000)]
    cuts: u64,
    /// Stop at the first violation.
    #[arg(long)]
    fail_fast: bool,
    /// Break the store on purpose, in a way that has to be found.
    #[arg(long, value_parser = clap::builder::PossibleValuesParser::new(Canary::ALL.map(|(name, _)| name)))]
    canary: Option<String>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Failing seeds after which there is nothing to learn from more of them.
const FAILURES_MAX: u64 = 20;

/// The sum over all seeds.
#[derive(Default)]
struct Total {
    seeds: u64,
    cuts: u64,
    survivors: u64,
    images: u64,
    faults: u64,
    damaged: u64,
    detected: u64,
    harmless: u64,
    torn: u64,
    mixed: u64,
    lost: u64,
    undetected: u64,
    first_failing_seed: Option<u64>,
    trace_sum: u64,
}

impl Total {
    fn add(&mut self, seed: u64, outcome: &Outcome) {
        self.seeds += 1;
        self.cuts += outcome.counts.cuts;
        self.survivors += outcome.counts.survivors;
        self.images += outcome.counts.images;
        self.faults += outcome.faults;
        self.damaged += outcome.seen.damaged;
        self.detected += outcome.seen.detected;
        self.harmless += outcome.seen.harmless;
        self.torn += outcome.seen.torn;
        self.trace_sum = self.trace_sum.rotate_left(1) ^ outcome.trace_sum;
        let Some((breach, _)) = &outcome.violation else {
            return;
        };
        self.first_failing_seed.get_or_insert(seed);
        match breach {
            Breach::Mixed => self.mixed += 1,
            Breach::Lost => self.lost += 1,
            Breach::Undetected => self.undetected += 1,
        }
    }

    fn failures(&self) -> u64 {
        self.mixed + self.lost + self.undetected
    }

    fn json(&self, seconds: f64) -> serde_json::Value {
        json!({
            "cuts": self.cuts,
            "survivors": self.survivors,
            "images": self.images,
            "mixed": self.mixed,
            "lost": self.lost,
            "undetected": self.undetected,
            "first_failing_seed": self.first_failing_seed,
            "seconds": seconds,
            "seeds": self.seeds,
            "faults": self.faults,
            "damaged": self.damaged,
            "detected": self.detected,
            "harmless": self.harmless,
            "torn": self.torn,
            "trace": format!("{:016x}", self.trace_sum),
        })
    }

    fn table(&self, seconds: f64) {
        let rows = [
            ("seeds", self.seeds, ""),
            ("cuts", self.cuts, "moments at which the power was cut"),
            ("survivors", self.survivors, "disks that the cuts left"),
            ("images", self.images, "different ones, verified, opened and read"),
            ("faults", self.faults, "operations that failed on demand"),
            ("damaged", self.damaged, "disks that were damaged"),
            ("detected", self.detected, "of them told by open or verify"),
            ("harmless", self.harmless, "of them with no live byte hit"),
            ("torn", self.torn, "of them like a torn end of the journal"),
            ("mixed", self.mixed, "seeds with a state that no step left"),
            (
                "lost",
                self.lost,
                "seeds with a state older than promised, or none",
            ),
            (
                "undetected",
                self.undetected,
                "seeds with damage that nobody told",
            ),
        ];
        for (name, count, what) in rows {
            println!("{name:<12} {count:>12}  {what}");
        }
        println!("{:<12} {seconds:>12.1}", "seconds");
        println!("{:<12} {:016x}", "trace", self.trace_sum);
    }
}

fn main() -> ExitCode {
    match simulate(&Cli::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("vmsync-sim: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Whether nothing was violated.
fn simulate(cli: &Cli) -> Result<bool> {
    let canary = cli.canary.as_deref().map(canary).transpose()?;
    let (start, mut total) = (Instant::now(), Total::default());
    let bar = progress(cli.cuts);
    for seed in cli.seed.. {
        let outcome = run(seed, canary);
        total.add(seed, &outcome);
        bar.set_position(total.cuts.min(cli.cuts));
        if let Some((breach, why)) = &outcome.violation {
            let flags = cli
                .canary
                .as_ref()
                .map_or(String::new(), |name| format!(" --canary {name}"));
            bar.suspend(|| {
                eprintln!("{breach:?}: seed {seed}: {why}");
                eprintln!("  again: cargo run --release -p vmsync-sim -- --seed {seed} --cuts 1{flags}");
            });
            if cli.fail_fast || total.failures() >= FAILURES_MAX {
                break;
            }
        }
        if total.cuts >= cli.cuts {
            break;
        }
    }
    bar.finish_and_clear();
    let seconds = start.elapsed().as_secs_f64();
    if cli.json {
        println!("{}", total.json(seconds));
    } else {
        total.table(seconds);
    }
    Ok(total.first_failing_seed.is_none())
}

fn canary(name: &str) -> Result<Canary> {
    let found = Canary::ALL.iter().find(|(known, _)| *known == name);
    found
        .map(|(_, canary)| *canary)
        .with_context(|| format!("no canary \"{name}\""))
}

fn progress(cuts: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} cuts, {eta} left");
    let bar = ProgressBar::new(cuts).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.enable_steady_tick(Duration::from_millis(500));
    bar
}
