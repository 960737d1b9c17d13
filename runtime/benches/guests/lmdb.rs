//! LMDB with a writable map: how long a commit takes as a guest on a store, and native on a file of the same disk.

use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::{Measured, Row, Setup, guest::Ours, median};

/// Commits of a run.
const COMMITS: &str = "300";

pub fn measure(setup: &Setup) -> Result<Measured> {
    let store = setup.folder.join("lmdb-store");
    let ours = Ours::new(&setup.guests.join("lmdb-commits.wasm"), &store)?;
    let (mut here, mut there) = (Vec::new(), Vec::new());
    for round in 0..setup.rounds {
        if round % 2 == 0 {
            here.extend(seconds(&ours.run(&[&format!("data/{round}"), COMMITS])?.output)?);
            there.extend(native(setup, round)?);
        } else {
            there.extend(native(setup, round)?);
            here.extend(seconds(&ours.run(&[&format!("data/{round}"), COMMITS])?.output)?);
        }
    }
    let (here, there) = (median(here), median(there));
    Ok(Measured {
        rows: vec![Row {
            case: "LMDB, MDB_WRITEMAP: a record of 100 bytes of 1000".into(),
            measure: "a commit, median",
            ours: here,
            peer: "native LMDB",
            theirs: there,
        }],
        summary: vec![("lmdb_commit_vs_native", here / there)],
    })
}

fn native(setup: &Setup, round: usize) -> Result<Vec<f64>> {
    let folder = setup.folder.join(format!("lmdb-{round}"));
    std::fs::create_dir_all(&folder)?;
    let output = Command::new(&setup.native_lmdb)
        .arg(&folder)
        .arg(COMMITS)
        .output()
        .with_context(|| format!("cannot run {}", setup.native_lmdb.display()))?;
    ensure!(
        output.status.success(),
        "native LMDB failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    seconds(&String::from_utf8(output.stdout)?)
}

/// One line of nanoseconds for each commit.
fn seconds(output: &str) -> Result<Vec<f64>> {
    let parse = |line: &str| Ok(line.trim().parse::<f64>()? / 1e9);
    output.lines().map(parse).collect()
}
