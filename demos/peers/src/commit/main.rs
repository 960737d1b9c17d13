//! `cargo xtask bench commit`: commits of vmsync and of its peers, in the same run on the same disk.
//!
//! ```text
//!   Workload --draws--> Change --> Contender: ours | msync(2) | databases     measure.rs: who is next
//!                                                                             show.rs: table, JSON, plot
//! ```
//!
//! Ours is what a user does: a guest stores to a region and calls `vm_msync`. A database is given each change as a
//! transaction over records; `msync(2)` the same stores to a shared mapping. RocksDB takes part where it is asked for: what it
//! does behind a commit takes time of whoever is next.

mod contender;
mod databases;
mod files;
mod measure;
mod ours;
#[path = "../../../../runtime/benches/support/plot.rs"]
mod plot;
#[cfg(feature = "rocksdb")]
mod rocks;
mod show;
mod workload;

use std::path::Path;

use anyhow::{Context, Result, bail};

const USAGE: &str = "use --json, --rounds N, --seed N, --folder DIR, --plot FILE.svg, --rocksdb";

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (mut json, mut rounds, mut seed, mut folder, mut plot) = (false, 24, 1, None, None);
    let mut rocksdb = false;
    while let Some(argument) = arguments.next() {
        let mut number = || -> Result<u64> { Ok(arguments.next().context("a number is missing")?.parse()?) };
        match argument.as_str() {
            "--json" => json = true,
            "--rocksdb" => rocksdb = true,
            "--rounds" => rounds = number()?.max(1) as usize,
            "--seed" => seed = number()?,
            "--folder" => folder = arguments.next(),
            "--plot" => plot = Some(arguments.next().context("a file is missing")?),
            "--help" => {
                println!("{USAGE}");
                return Ok(());
            }
            other => bail!("unknown argument {other}: {USAGE}"),
        }
    }
    let place = tempfile::tempdir_in(folder.unwrap_or_else(|| ".".into()))?;
    remove_when_stopped(place.path())?;
    let report = measure::measure(place.path(), rounds, seed, rocksdb)?;
    if json {
        println!("{:#}", report.json());
    } else {
        report.print_table();
    }
    if let Some(file) = plot {
        std::fs::write(&file, report.draw()).with_context(|| format!("cannot write {file}"))?;
        eprintln!("plot: {file}");
    }
    Ok(())
}

/// Who stops a run has no use for its gigabytes.
fn remove_when_stopped(place: &Path) -> Result<()> {
    let place = place.to_owned();
    ctrlc::set_handler(move || {
        // Files come into being until the process ends: more than one try, but not for ever.
        let _removed = (0..100).any(|_| std::fs::remove_dir_all(&place).is_ok());
        std::process::exit(130);
    })
    .context("cannot handle Ctrl-C")
}
