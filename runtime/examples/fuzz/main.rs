//! The dirty trackers against each other on generated modules, for as long as one likes.
//!
//! ```text
//! cargo run --release -p vmsync --example fuzz -- --seconds 3600 --seed 1 --json
//!
//!   seed --> [generate] wasm-smith module and calls --> [rungs] the same calls under every rung --> compared
//! ```
//!
//! Under the `barrier` rung the module is instrumented, under the others it is as it was. Checked after each call:
//! - results, traps, and all of memory are the same under every rung;
//! - what `vm_msync` returns to the pager: the same pages under the rungs that are exact, no page less under `barrier`
//!   than under `compare`, which knows what has changed.
//!
//! It ends with code 1 at the first difference and says how to see it again; Ctrl-C loses nothing but the counts.

mod generate;
mod rungs;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use rungs::{Counts, Rungs};

/// The dirty trackers against each other on generated modules.
#[derive(Parser)]
struct Options {
    /// How long to go on.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Where the seeds begin: module N has the seed SEED + N.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print the counts as JSON, also every minute, one object a line.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let rungs = Rungs::new();
    eprintln!("rungs: {}", rungs.names());
    let begin = Instant::now();
    let mut counts = Counts::default();
    let mut said = begin;
    for seed in options.seed.. {
        if let Err(error) = rungs.run(seed, &mut counts) {
            counts.findings += 1;
            print(&counts, seed, begin, options.json);
            eprintln!("found with --seed {seed}: {error:#}");
            return ExitCode::FAILURE;
        }
        if begin.elapsed() >= Duration::from_secs(options.seconds) {
            print(&counts, seed, begin, options.json);
            break;
        }
        if said.elapsed() >= Duration::from_secs(60) {
            print(&counts, seed, begin, options.json);
            said = Instant::now();
        }
    }
    ExitCode::SUCCESS
}

fn print(counts: &Counts, seed: u64, begin: Instant, json: bool) {
    let seconds = begin.elapsed().as_secs();
    if json {
        let all = serde_json::json!({
            "seconds": seconds, "last_seed": seed, "modules": counts.modules, "calls": counts.calls,
            "stores": counts.stores, "marks": counts.marks, "hoisted": counts.hoisted,
            "pages_exact": counts.pages_exact, "pages_barrier": counts.pages_barrier,
            "pages_changed": counts.pages_changed, "findings": counts.findings,
        });
        println!("{all}");
    } else {
        println!("{seconds} s, up to seed {seed}: {counts:?}");
    }
}
