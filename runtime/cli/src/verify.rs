//! `vmsync verify`: every checksum of a store. Exit code 1 and each bad place where something is wrong.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::Args;
use serde_json::json;

use crate::{
    output::{print_json, print_line, warn},
    store_name::folder,
};

/// Check every checksum of a store.
///
/// Exits with 1 where something is wrong, and names every such place. The store must not be open for writing.
#[derive(Args)]
pub struct Verify {
    /// The folder of the store.
    #[arg(value_parser = folder())]
    store: PathBuf,
    /// Print as JSON.
    #[arg(long)]
    json: bool,
}

impl Verify {
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        let report = vmsync_pager_file::verify(&self.store)
            .with_context(|| format!("cannot verify {}", self.store.display()))?;
        if self.json {
            let problems: Vec<_> = report
                .problems
                .iter()
                .map(
                    |problem| json!({ "file": problem.file, "offset": problem.offset, "what": problem.what }),
                )
                .collect();
            print_json(&json!({ "objects": report.objects, "pages": report.pages, "problems": problems }))?;
        } else if report.problems.is_empty() {
            print_line(&format!(
                "sound: {} objects, {} pages compared",
                report.objects, report.pages
            ))?;
        } else {
            for problem in &report.problems {
                print_line(&format!(
                    "{} at byte {}: {}",
                    problem.file, problem.offset, problem.what
                ))?;
            }
            warn(&format!(
                "the store is damaged: restore {} from a copy",
                self.store.display()
            ));
        }
        Ok(if report.problems.is_empty() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }
}
