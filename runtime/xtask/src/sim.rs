//! `cargo xtask sim`: the simulator of the file store, built for speed.

use anyhow::Result;
use clap::Args;

use crate::steps::{Workspace, run};

/// Cut the power of the file store at every step of random runs.
#[derive(Args)]
pub struct Sim {
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many cuts to make at least.
    #[arg(long, default_value_t = 100_000)]
    cuts: u64,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

impl Sim {
    pub fn run(&self, workspace: &Workspace) -> Result<()> {
        let mut command = workspace.cargo(["run", "--release", "--quiet", "--package", "vmsync-sim", "--"]);
        command.arg("--seed").arg(self.seed.to_string());
        command.arg("--cuts").arg(self.cuts.to_string());
        if self.json {
            command.arg("--json");
        }
        run("simulate", &mut command)
    }
}
