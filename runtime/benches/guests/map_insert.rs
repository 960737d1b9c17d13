//! Inserts in a guest's persistent ordered map against the same inserts in the standard library's map on the guest's
//! ordinary heap.
//!
//! Both run in one instance, in turns. What is compared is the processor's time for the calls that insert, which other
//! programs on the machine disturb least; flushing comes after.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use vmsync::{Grant, Guest, ObjectName, Sandbox};
use vmsync_pager_file::{FileStore, Options};

use crate::{Measured, Row, Setup, median};

const ENTRIES: u64 = 200_000;

/// A round takes a tenth of those of other subjects: more of them for the same time.
const ROUNDS_EACH: usize = 3;

pub fn measure(setup: &Setup) -> Result<Measured> {
    let wasm = std::fs::read(setup.guests.join("maps.wasm")).context("the guest maps.wasm")?;
    let store = FileStore::open(&setup.folder.join("maps"), &Options::default())?;
    let grant = Grant::new(store, ObjectName::new("maps")?);
    let sandbox = Sandbox::builder().grant("maps", grant).build()?;
    let mut guest = sandbox.instantiate(&wasm)?;
    let mut rounds = Rounds::default();
    // One round more than counts: the first is the one in which everything is touched for the first time.
    for round in 0..=setup.rounds * ROUNDS_EACH {
        rounds.run(&mut guest, round as u64)?;
    }
    Ok(rounds.measured())
}

/// Seconds of an insert, in order of the rounds.
#[derive(Default)]
struct Rounds {
    ordinary: Vec<f64>,
    durable: Vec<f64>,
    flush: Vec<f64>,
}

impl Rounds {
    fn run(&mut self, guest: &mut Guest, seed: u64) -> Result<()> {
        if seed.is_multiple_of(2) {
            self.ordinary.push(insert(guest, "ordinary_insert", seed)?);
            self.durable.push(insert(guest, "durable_insert", seed)?);
        } else {
            self.durable.push(insert(guest, "durable_insert", seed)?);
            self.ordinary.push(insert(guest, "ordinary_insert", seed)?);
        }
        let start = Instant::now();
        durable(guest, "durable_flush")?;
        self.flush.push(each(start.elapsed()));
        guest.call::<(), ()>("ordinary_clear", ())?;
        durable(guest, "durable_clear")?;
        durable(guest, "durable_flush")
    }

    fn measured(&self) -> Measured {
        let ratios = self.durable.iter().zip(&self.ordinary).skip(1);
        let ratio = median(ratios.map(|(durable, ordinary)| durable / ordinary).collect());
        let row = |case: &str, ours, theirs| Row {
            case: format!("{ENTRIES} inserts of u64 keys in random order: {case}"),
            measure: "an insert",
            ours,
            peer: "BTreeMap, ordinary heap",
            theirs,
        };
        let middle = |times: &[f64]| median(times[1..].to_vec());
        let ordinary = middle(&self.ordinary);
        Measured {
            rows: vec![
                row("PMap in a region", middle(&self.durable), ordinary),
                row("the first time", self.durable[0], self.ordinary[0]),
                row("PMap's flush", middle(&self.flush), ordinary),
            ],
            summary: vec![("map_insert_vs_heap", ratio)],
        }
    }
}

fn each(time: Duration) -> f64 {
    time.as_secs_f64() / ENTRIES as f64
}

fn durable(guest: &mut Guest, call: &str) -> Result<()> {
    ensure!(guest.call::<(), u64>(call, ())? == 0, "{call} failed");
    Ok(())
}

/// How long this thread has been running on a processor.
fn processor_time() -> Result<Duration> {
    let statistics = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanoseconds = statistics.split(' ').next().context("schedstat is empty")?;
    Ok(Duration::from_nanos(nanoseconds.parse()?))
}

fn insert(guest: &mut Guest, call: &str, seed: u64) -> Result<f64> {
    let start = processor_time()?;
    let entries = guest.call::<(u64, u64), u64>(call, (ENTRIES, seed))?;
    let time = processor_time()? - start;
    ensure!(entries == ENTRIES, "{call} left {entries} entries");
    Ok(each(time))
}
