//! Real programs as guests, against what they do without vmsync, in the same run. One file per subject; each measures in
//! alternating rounds and gives rows and figures for the summary.
//!
//! `cargo xtask bench guests` builds the programs and says where they are. Nothing here is a test: timings decide none.

mod guest;
mod lmdb;
mod map_insert;
mod sqlite;

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};

/// What every subject gets.
pub struct Setup {
    /// The folder of the built guests.
    guests: PathBuf,
    /// `lmdb-commits` for this machine.
    native_lmdb: PathBuf,
    /// A folder for stores and files, on the disk that is measured.
    folder: PathBuf,
    /// How often each side is run.
    rounds: usize,
}

/// One line of the table: the same work here and there, in seconds.
pub struct Row {
    case: String,
    measure: &'static str,
    ours: f64,
    peer: &'static str,
    theirs: f64,
}

/// What a subject has measured.
#[derive(Default)]
pub struct Measured {
    rows: Vec<Row>,
    summary: Vec<(&'static str, f64)>,
}

/// Measures one subject.
type Subject = fn(&Setup) -> Result<Measured>;

/// All of them.
const SUBJECTS: &[(&str, Subject)] = &[
    ("sqlite", sqlite::measure),
    ("lmdb", lmdb::measure),
    ("map_insert", map_insert::measure),
];

/// The middle of `values`.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn machine() -> String {
    format!(
        "{} {}, {} processors, tracker {}",
        std::env::consts::OS,
        std::env::consts::ARCH,
        std::thread::available_parallelism().map_or(0, usize::from),
        vmsync::best()
    )
}

fn print_json(measured: &[Measured]) {
    let rows: Vec<Value> = measured
        .iter()
        .flat_map(|measured| &measured.rows)
        .map(|row| {
            json!({
                "case": row.case, "measure": row.measure, "unit": "s", "ours": row.ours,
                "peers": { row.peer: row.theirs },
            })
        })
        .collect();
    let summary: Map<String, Value> = measured
        .iter()
        .flat_map(|measured| &measured.summary)
        .map(|(id, value)| ((*id).to_string(), json!(value)))
        .collect();
    let object = json!({ "bench": "guests", "machine": machine(), "rows": rows, "summary": summary });
    println!("{object:#}");
}

fn print_table(measured: &[Measured]) {
    for row in measured.iter().flat_map(|measured| &measured.rows) {
        println!(
            "{:<80} {:<21} ours {:>12.6} s   {} {:>12.6} s   ratio {:.3}",
            row.case,
            row.measure,
            row.ours,
            row.peer,
            row.theirs,
            row.ours / row.theirs
        );
    }
    for (id, value) in measured.iter().flat_map(|measured| &measured.summary) {
        println!("{id} {value:.3}");
    }
}

fn from_environment(name: &str) -> Result<PathBuf> {
    let value = std::env::var_os(name);
    value
        .map(PathBuf::from)
        .with_context(|| format!("{name} is not set: run `cargo xtask bench guests`"))
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (mut as_json, mut rounds, mut folder, mut only) = (false, 5, None, None);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--json" => as_json = true,
            "--rounds" => rounds = arguments.next().context("a number is missing")?.parse()?,
            "--folder" => folder = arguments.next(),
            "--only" => only = arguments.next(),
            // Cargo's own word for benchmarks.
            "--bench" => {}
            other => {
                bail!("unknown argument {other}: use --json, --rounds N, --folder DIR, --only SUBJECT")
            }
        }
    }
    let place = tempfile::tempdir_in(folder.unwrap_or_else(|| ".".into()))?;
    let setup = Setup {
        guests: from_environment("VMSYNC_GUESTS")?,
        native_lmdb: from_environment("VMSYNC_LMDB_NATIVE")?,
        folder: place.path().into(),
        rounds: 1.max(rounds),
    };
    let mut measured = Vec::new();
    for (name, measure) in SUBJECTS {
        if only.as_ref().is_none_or(|only| only == name) {
            measured.push(measure(&setup).with_context(|| format!("cannot measure {name}"))?);
        }
    }
    if as_json {
        print_json(&measured);
    } else {
        print_table(&measured);
    }
    Ok(())
}
