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
    /// Every tracker against stock Wasmtime, the kernel's own faults and the peers' mechanisms.
    Tracking,
}

impl Bench {
    pub fn run(&self, workspace: &Workspace) -> Result<()> {
        let name = match self.name {
            Name::Msync => "msync",
            Name::Tracking => {
                workspace.guests()?;
                "tracking"
            }
        };
        let mut cargo = workspace.cargo(["bench", "--workspace", "--bench", name, "--"]);
        cargo.env("VMSYNC_GUESTS", workspace.guests_folder());
        if self.json {
            cargo.arg("--json");
        } else {
            let folder = workspace.target.join("bench");
            std::fs::create_dir_all(&folder)?;
            cargo.arg("--plot").arg(folder.join(format!("{name}.svg")));
        }
        run(&format!("bench {name}"), cargo.args(&self.arguments))
    }
}
