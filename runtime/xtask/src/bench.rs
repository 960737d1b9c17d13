//! `cargo xtask bench NAME`: a benchmark with its peers in the same run. Timings never decide a test.

use anyhow::Result;
use clap::{Args, ValueEnum};

use crate::steps::{Workspace, run};

/// Compare with what others do, on this machine.
#[derive(Args)]
pub struct Bench {
    /// Which one.
    name: Name,
    /// Print one JSON object instead of a table and a plot (target/bench/NAME.svg).
    #[arg(long)]
    json: bool,
    /// Arguments for the benchmark itself, see its --help.
    #[arg(last = true)]
    arguments: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Name {
    /// A guest's SYNC against msync(2) and against the disk's floor.
    Msync,
}

impl Bench {
    pub fn run(&self, workspace: &Workspace) -> Result<()> {
        let Name::Msync = self.name;
        let mut cargo = workspace.cargo(["bench", "--workspace", "--bench", "msync", "--"]);
        if self.json {
            cargo.arg("--json");
        } else {
            let folder = workspace.target.join("bench");
            std::fs::create_dir_all(&folder)?;
            cargo.arg("--plot").arg(folder.join("msync.svg"));
        }
        run("bench msync", cargo.args(&self.arguments))
    }
}
