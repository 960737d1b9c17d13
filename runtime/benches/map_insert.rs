//! Inserts in a guest's persistent ordered map against the same inserts in the standard library's map on the guest's
//! ordinary heap.
//!
//! Both run in one instance, in turns. What is compared is the time of the calls that insert; flushing comes after.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::json;
use vmsync::{Grant, Guest, ObjectName, Sandbox};
use vmsync_pager_file::{FileStore, Options};

const ENTRIES: u64 = 200_000;
const ROUNDS: usize = 15;

fn main() -> anyhow::Result<()> {
    // Cargo passes `--bench`; a plain `cargo test` builds this and passes nothing.
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some(guests) = std::env::var_os("VMSYNC_GUESTS") else {
        eprintln!("SKIPPED: set VMSYNC_GUESTS to the folder that `cargo xtask guests` builds");
        return Ok(());
    };
    let wasm =
        std::fs::read(std::path::Path::new(&guests).join("maps.wasm")).context("the guest maps.wasm")?;
    let folder = tempfile::tempdir()?;
    let store = FileStore::open(folder.path(), &Options::default())?;
    let grant = Grant::new(store, ObjectName::new("maps")?);
    let sandbox = Sandbox::builder().grant("maps", grant).build()?;
    let mut guest = sandbox.instantiate(&wasm)?;
    let mut rounds = Rounds::default();
    // One round more than counts: the first is the one in which everything is touched for the first time.
    for round in 0..=ROUNDS {
        rounds.run(&mut guest, round as u64)?;
    }
    rounds.report(&mut guest, arguments.iter().any(|word| word == "--json"));
    Ok(())
}

#[derive(Default)]
struct Rounds {
    ordinary: Vec<Duration>,
    durable: Vec<Duration>,
    flush: Vec<Duration>,
}

impl Rounds {
    fn run(&mut self, guest: &mut Guest, seed: u64) -> anyhow::Result<()> {
        if seed.is_multiple_of(2) {
            self.ordinary.push(insert(guest, "ordinary_insert", seed)?);
            self.durable.push(insert(guest, "durable_insert", seed)?);
        } else {
            self.durable.push(insert(guest, "durable_insert", seed)?);
            self.ordinary.push(insert(guest, "ordinary_insert", seed)?);
        }
        let start = Instant::now();
        ensure!(
            guest.call::<(), u64>("durable_flush", ())? == 0,
            "flushing failed"
        );
        self.flush.push(start.elapsed());
        guest.call::<(), ()>("ordinary_clear", ())?;
        ensure!(
            guest.call::<(), u64>("durable_clear", ())? == 0,
            "clearing failed"
        );
        ensure!(
            guest.call::<(), u64>("durable_flush", ())? == 0,
            "flushing failed"
        );
        Ok(())
    }

    fn report(&mut self, guest: &mut Guest, as_json: bool) {
        let ratio = |index: usize| self.durable[index].as_secs_f64() / self.ordinary[index].as_secs_f64();
        let first = ratio(0);
        let mut ratios: Vec<f64> = (1..=ROUNDS).map(ratio).collect();
        ratios.sort_by(f64::total_cmp);
        let median = ratios[ratios.len() / 2];
        let nanoseconds = |times: &[Duration]| {
            let mut times = times[1..].to_vec();
            times.sort();
            times[times.len() / 2].as_nanos() as f64 / ENTRIES as f64
        };
        let tracker = guest.vm().tracker().map_or("none", |kind| kind.name());
        let (ordinary, durable) = (nanoseconds(&self.ordinary), nanoseconds(&self.durable));
        let flush = nanoseconds(&self.flush);
        if as_json {
            let line = json!({
                "summary": { "map_insert_vs_heap": median },
                "map_insert": {
                    "entries": ENTRIES, "rounds": ROUNDS, "tracker": tracker, "first_round": first,
                    "ratio_min": ratios[0], "ratio_max": ratios[ratios.len() - 1],
                    "ordinary_ns": ordinary, "durable_ns": durable, "flush_ns": flush,
                },
            });
            println!("{line}");
        } else {
            println!(
                "{ENTRIES} inserts of u64 keys in random order, {ROUNDS} rounds in turns, tracker {tracker}"
            );
            println!("BTreeMap, ordinary heap  {ordinary:8.1} ns an insert");
            println!(
                "PMap, region             {durable:8.1} ns an insert, {median:.2} times ({:.2} to {:.2})",
                ratios[0],
                ratios[ratios.len() - 1]
            );
            println!("  the first time         {first:8.2} times: pages are touched for the first time");
            println!("  its flush              {flush:8.1} ns an insert more");
        }
    }
}

fn insert(guest: &mut Guest, call: &str, seed: u64) -> anyhow::Result<Duration> {
    let start = Instant::now();
    let entries = guest.call::<(u64, u64), u64>(call, (ENTRIES, seed))?;
    let time = start.elapsed();
    ensure!(entries == ENTRIES, "{call} left {entries} entries");
    Ok(time)
}
