//! `cargo xtask demo`: sets up what is missing, builds, and runs the main job on real input.

use std::{path::PathBuf, process::Command};

use anyhow::Result;
use clap::Args;

use crate::steps::{Workspace, run};

/// The main job on real input: an index in durable memory, killed ten times, never wrong.
#[derive(Args)]
pub struct Demo {
    /// Index this folder instead of the sources of the workspace's dependencies (repeatable).
    #[arg(long)]
    input: Vec<PathBuf>,
    /// How often the guest is killed.
    #[arg(long, default_value_t = 10)]
    kills: u32,
    /// Repeats a run: the moments of the kills are drawn from it.
    #[arg(long)]
    seed: Option<u64>,
    /// How stores are recorded [default: the best that works].
    #[arg(long)]
    tracker: Option<String>,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

impl Demo {
    pub fn run(&self, workspace: &Workspace) -> Result<()> {
        workspace.guests()?;
        let build = ["build", "--release", "--workspace", "--bins"];
        run(
            "build the command (a few minutes the first time)",
            &mut workspace.cargo(build),
        )?;
        let binaries = workspace.target.join("release");
        let mut crash = Command::new(binaries.join("vmsync-crash"));
        crash.arg("--vmsync").arg(binaries.join("vmsync"));
        crash
            .arg("--guest")
            .arg(workspace.guests_folder().join("codesearch.wasm"));
        crash.arg("--kills").arg(self.kills.to_string());
        for folder in &self.input {
            crash.arg("--input").arg(folder);
        }
        if let Some(seed) = self.seed {
            crash.arg("--seed").arg(seed.to_string());
        }
        if let Some(tracker) = &self.tracker {
            crash.arg("--tracker").arg(tracker);
        }
        if self.json {
            crash.arg("--json");
        }
        run("demo", &mut crash)
    }
}
