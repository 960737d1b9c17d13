//! The command line.

use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher, Hasher},
    path::PathBuf,
};

use anyhow::{Context, ensure};
use clap::Parser;

/// Kill a guest at random moments and check what it finds.
///
/// Exits with 0 where all of it held, with 1 after a violation (the store is kept), with 2 for wrong usage or where it could
/// not be tried, and with 130 when it was interrupted.
#[derive(Parser)]
#[command(version)]
pub struct Args {
    /// The `vmsync` command.
    #[arg(long, value_name = "FILE")]
    pub vmsync: PathBuf,
    /// The guest, codesearch.wasm.
    #[arg(long, value_name = "FILE")]
    pub guest: PathBuf,
    /// Index the text files of this folder (repeatable) [default: the Rust sources of the workspace's dependencies].
    #[arg(long = "input", value_name = "FOLDER")]
    pub inputs: Vec<PathBuf>,
    /// Index no more than about so many MiB; 0: all there is.
    #[arg(long, value_name = "MIB", default_value_t = 64)]
    pub input_mib: u64,
    /// How often to kill.
    #[arg(long, value_name = "COUNT", default_value_t = 10)]
    pub kills: u64,
    /// What the moments are drawn from [default: the environment's SEED, else another each time; it is printed].
    #[arg(long)]
    pub seed: Option<u64>,
    /// Files that the guest indexes between two syncs.
    #[arg(long, value_name = "COUNT", default_value_t = 8)]
    pub sync_every: u64,
    /// Size of the memory object in MiB [default: 4 times the input and 16 more].
    #[arg(long, value_name = "MIB")]
    pub size: Option<u64>,
    /// Work in this folder, which must be empty or not there yet, and keep it [default: a temporary one].
    #[arg(long, value_name = "FOLDER")]
    pub store: Option<PathBuf>,
    /// Ask the finished index for this identifier (repeatable).
    #[arg(long = "query", value_name = "IDENTIFIER", default_values_t = ["HashMap", "unsafe", "wasmtime"].map(String::from))]
    pub queries: Vec<String>,
    /// The tracker, as for `vmsync run`.
    #[arg(long)]
    pub tracker: Option<String>,
    /// Print the result as one JSON object.
    #[arg(long)]
    pub json: bool,
}

impl Args {
    /// Says what is missing before anything is started.
    pub fn check(&self) -> anyhow::Result<()> {
        ensure!(
            self.vmsync.is_file(),
            "there is no command at {}: build it with `cargo build --package vmsync-cli`",
            self.vmsync.display()
        );
        ensure!(
            self.guest.is_file(),
            "there is no guest at {}: build it with `cargo xtask guests`",
            self.guest.display()
        );
        ensure!(
            self.sync_every > 0,
            "--sync-every 0 would never sync: give 1 or more"
        );
        Ok(())
    }

    pub fn seed(&self) -> anyhow::Result<u64> {
        if let Some(seed) = self.seed {
            return Ok(seed);
        }
        if let Ok(text) = std::env::var("SEED") {
            return text
                .parse()
                .with_context(|| format!("SEED is \"{text}\": give it a number"));
        }
        // Small, so that it is easily typed again.
        Ok(RandomState::new().build_hasher().finish() % 1_000_000)
    }
}
