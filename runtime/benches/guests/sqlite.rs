//! SQLite: its own speed test, and short transactions, against the same module under stock Wasmtime.

use anyhow::{Context, Result};

use crate::{
    Measured, Row, Setup,
    guest::{Ours, Run, Stock},
    median,
};

/// The speed test's own measure of work; 100 is its default.
const SIZE: &str = "25";

/// Transactions of a run of the ledger.
const TRANSACTIONS: u32 = 200;

const PEER: &str = "stock Wasmtime";

pub fn measure(setup: &Setup) -> Result<Measured> {
    let mut measured = Measured::default();
    speed_test(setup, &mut measured)?;
    transactions(setup, &mut measured)?;
    Ok(measured)
}

/// What the speed test says of itself, in seconds.
fn total(run: &Run) -> Result<f64> {
    let line = run.output.lines().find(|line| line.contains("TOTAL"));
    let word = line.and_then(|line| line.split_whitespace().last());
    let word = word.context("the speed test printed no TOTAL")?;
    let number = word.trim_end_matches('s');
    number.parse().with_context(|| format!("not a number: {number}"))
}

/// The same arguments on both sides, and beside it the way that only a store makes safe.
fn speed_test(setup: &Setup, measured: &mut Measured) -> Result<()> {
    let wasm = setup.guests.join("sqlite-speedtest1.wasm");
    let ours = Ours::new(&wasm, &setup.folder.join("speedtest-store"))?;
    let stock = Stock::new(&wasm, &setup.folder.join("speedtest-files"))?;
    let (mut here, mut there, mut mapped) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..setup.rounds {
        let database = format!("data/{round}.db");
        let plain = ["--size", SIZE, &database];
        if round % 2 == 0 {
            here.push(total(&ours.run(&plain)?)?);
            there.push(total(&stock.run(&plain)?)?);
        } else {
            there.push(total(&stock.run(&plain)?)?);
            here.push(total(&ours.run(&plain)?)?);
        }
        let database = format!("data/mapped-{round}.db");
        let options = [
            "--size",
            SIZE,
            "--journal",
            "memory",
            "--mmap",
            "1000000000",
            &database,
        ];
        mapped.push(total(&ours.run(&options)?)?);
    }
    let (here, there, mapped) = (median(here), median(there), median(mapped));
    for (case, seconds) in [
        ("the same arguments", here),
        ("mapped, journal in memory, against the default", mapped),
    ] {
        measured.rows.push(Row {
            case: format!("SQLite's speed test, size {SIZE}: {case}"),
            measure: "TOTAL, median",
            ours: seconds,
            peer: PEER,
            theirs: there,
        });
    }
    measured
        .summary
        .push(("sqlite_speedtest_vs_wasmtime", here / there));
    measured
        .summary
        .push(("sqlite_speedtest_mapped_vs_wasmtime", mapped / there));
    Ok(())
}

/// Transactions that survive a crash on either side: here the journal may stay in memory, there it may not.
fn transactions(setup: &Setup, measured: &mut Measured) -> Result<()> {
    let wasm = setup.guests.join("sqlite-ledger.wasm");
    let ours = Ours::new(&wasm, &setup.folder.join("ledger-store"))?;
    let stock = Stock::new(&wasm, &setup.folder.join("ledger-files"))?;
    let count = TRANSACTIONS.to_string();
    let (mut here, mut there) = (Vec::new(), Vec::new());
    for round in 0..setup.rounds {
        let database = format!("data/{round}.db");
        let here_now = || ours.run(&[&database, &count]);
        let there_now = || stock.run(&[&database, &count, "DELETE"]);
        let (one, other) = if round % 2 == 0 {
            (here_now()?, there_now()?)
        } else {
            let other = there_now()?;
            (here_now()?, other)
        };
        here.push(one.seconds / f64::from(TRANSACTIONS));
        there.push(other.seconds / f64::from(TRANSACTIONS));
    }
    let (here, there) = (median(here), median(there));
    measured.rows.push(Row {
        case: "SQLite: 8 updates of 1 KiB a transaction, durable".into(),
        measure: "a transaction, median",
        ours: here,
        peer: PEER,
        theirs: there,
    });
    measured.summary.push(("sqlite_commit_vs_wasmtime", here / there));
    Ok(())
}
