//! `vmsync instrument`: the barrier's rewriting as a file-to-file step.

use std::{io::Write, path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::{Args, ValueEnum};
use serde_json::json;
use vmsync::{
    HostOptions,
    instrument::{Analyses, Options, instrument},
};

use crate::{
    output::{print_json, print_line},
    whole_file::Target,
};

/// What saves marks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Analysis {
    /// No marks for stores to the shadow stack.
    ShadowStack,
    /// One mark for neighbouring stores.
    Coalesce,
    /// Marks of a loop's whole range ahead of it.
    Hoist,
    /// A look at the card before a mark, for stores all over memory.
    Scatter,
}

/// Rewrite a module so that its stores mark a card table (the `barrier` tracker).
///
/// It is for hosts with pages as large as this machine has. `vmsync run` needs no such step: it rewrites by itself.
#[derive(Args)]
pub struct Instrument {
    /// The module, binary or text.
    input: PathBuf,
    /// Where to write the instrumented module.
    #[arg(short, long)]
    output: PathBuf,
    /// Leave an analysis out that saves marks (repeatable).
    #[arg(long, value_name = "ANALYSIS")]
    without: Vec<Analysis>,
    /// Print what was done as JSON.
    #[arg(long)]
    json: bool,
}

impl Instrument {
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        let input = wat::parse_file(&self.input)
            .with_context(|| format!("cannot read the module {}", self.input.display()))?;
        let with = |analysis| !self.without.contains(&analysis);
        let options = Options {
            analyses: Analyses {
                shadow_stack: with(Analysis::ShadowStack),
                coalesce: with(Analysis::Coalesce),
                hoist: with(Analysis::Hoist),
                scatter: with(Analysis::Scatter),
            },
            page_size_shift: HostOptions::default().page_size.shift(),
            ..Options::default()
        };
        let done = instrument(&input, &options)
            .map_err(|error| anyhow::anyhow!("{error}"))
            .with_context(|| format!("cannot instrument {}", self.input.display()))?;
        self.write(&done.wasm)?;
        let report = &done.report;
        let ratio = done.wasm.len() as f64 / input.len() as f64;
        if self.json {
            print_json(&json!({
                "stores": report.stores, "marks": report.marks, "skipped_stack": report.skipped_stack,
                "coalesced": report.coalesced, "hoisted": report.hoisted, "wrapped": report.wrapped,
                "bytes_in": report.bytes_in, "bytes_out": report.bytes_out,
            }))?;
        } else {
            print_line(&format!(
                "{} stores, {} marks; {} to {} bytes ({ratio:.2} times)",
                report.stores,
                report.marks,
                input.len(),
                done.wasm.len()
            ))?;
        }
        Ok(ExitCode::SUCCESS)
    }

    /// It may be the input that is replaced.
    fn write(&self, wasm: &[u8]) -> anyhow::Result<()> {
        let target = Target::new(&self.output);
        if target.is_special() {
            return std::fs::write(&self.output, wasm)
                .with_context(|| format!("cannot write {}", self.output.display()));
        }
        target.write(|mut file| Ok(file.write_all(wasm)?))
    }
}
