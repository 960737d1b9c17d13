//! Other people's programs as guests, unmodified: LMDB with its own tests, SQLite with its speed test, and databases in
//! both that are killed at any moment; QuickJS, whose heap outlives it.

mod support;

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
    time::{SystemTime, UNIX_EPOCH},
};

use support::{guests, text, vmsync};

/// `vmsync run` of a guest whose folder `data` is a store.
fn run(guest: &Path, store: &Path, arguments: &[&str]) -> support::Said {
    let files = format!("{}::data", text(store));
    let mut words = vec!["run", "--wasi", "--files", &files, text(guest), "--"];
    words.extend(arguments);
    vmsync(&words)
}

/// LMDB's tests open "./testdb".
fn lmdb_tests(suffix: &str) {
    let Some(guests) = guests() else { return };
    for test in ["mtest", "mtest2", "mtest3", "mtest4", "mtest5", "mtest6"] {
        let folder = tempfile::tempdir().unwrap();
        let files = format!("{}::testdb", text(&folder.path().join("store")));
        let guest = guests.join(format!("lmdb-{test}{suffix}.wasm"));
        // mtest maps its database at a fixed address: twice shows that it gets the same again.
        let runs = if test == "mtest" { 2 } else { 1 };
        for run in 0..runs {
            let said = vmsync(&["run", "--wasi", "--files", &files, text(&guest)]);
            let out = said.ok();
            assert!(out.lines().count() >= 39, "{test}{suffix}, run {run}: {out}");
        }
    }
}

#[test]
fn lmdb_passes_its_own_tests() {
    lmdb_tests("");
}

#[test]
fn lmdb_passes_its_own_tests_with_a_writable_map() {
    lmdb_tests("-writemap");
}

#[test]
fn sqlite_runs_its_speed_test() {
    let Some(guests) = guests() else { return };
    let guest = guests.join("sqlite-speedtest1.wasm");
    if !guest.exists() {
        return eprintln!(
            "SKIPPED: the source of SQLite's speed test could not be had, see `cargo xtask guests`"
        );
    }
    let folder = tempfile::tempdir().unwrap();
    let ways: [&[&str]; 2] = [&[], &["--journal", "memory", "--mmap", "100000000"]];
    for (number, way) in ways.into_iter().enumerate() {
        let database = format!("data/{number}.db");
        let arguments = [&["--size", "10"], way, &[&database]].concat();
        let out = run(&guest, &folder.path().join("store"), &arguments).ok();
        assert!(
            out.contains("integrity_check") && out.contains("TOTAL"),
            "{way:?}: {out}"
        );
    }
}

/// xorshift64*, from `SEED` or the clock; says which.
fn random() -> impl FnMut(u64) -> u64 {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    let clock = || {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        now.as_nanos() as u64
    };
    let mut state = seed.unwrap_or_else(clock) | 1;
    eprintln!("SEED={state}");
    move |below| {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d) % below
    }
}

/// Kills a ledger again and again, each time within the transactions behind one of the next `reach`. What it finds is
/// never older than what it has said, and every account fits (the guest looks).
fn kill_ledger(name: &str, argument: &str, lives: u64, reach: u64) {
    let Some(guests) = guests() else { return };
    let guest = guests.join(format!("{name}.wasm"));
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    let files = format!("{}::data", text(&store));
    let (mut random, mut said) = (random(), 0);
    for life in 0..lives {
        let mut child = Command::new(env!("CARGO_BIN_EXE_vmsync"))
            .args([
                "run",
                "--wasi",
                "--files",
                &files,
                text(&guest),
                "--",
                argument,
                "1000000",
            ])
            .stdout(Stdio::piped())
            .spawn()
            .expect("the command starts");
        let lines = BufReader::new(child.stdout.take().expect("its output is piped")).lines();
        let mut kill_at = u64::MAX;
        for line in lines.map_while(Result::ok) {
            let count = line.split(' ').nth(1).and_then(|count| count.parse::<u64>().ok());
            let count = count.unwrap_or_else(|| panic!("life {life} said {line}"));
            if line.starts_with("found") {
                assert!(
                    count >= said,
                    "life {life}: {said} were durable, {count} are there"
                );
                kill_at = count + random(reach);
            }
            said = count;
            if count == kill_at {
                // Somewhere within the next transactions; then whatever it still said is read.
                std::thread::sleep(std::time::Duration::from_micros(random(20_000)));
                child.kill().expect("it was running");
            }
        }
        assert!(
            kill_at < u64::MAX,
            "life {life} ended by itself: {:?}",
            child.wait()
        );
        child.wait().expect("it was killed");
    }
    let out = run(&guest, &store, &[argument, "3"]).ok();
    assert_eq!(out.lines().count(), 4, "{out}");
    vmsync(&["verify", text(&store)]).ok();
}

#[test]
fn javascript_goes_on_where_it_was() {
    let Some(guests) = guests() else { return };
    let guest = guests.join("quickjs.wasm");
    let folder = tempfile::tempdir().unwrap();
    let map = format!("heap={}", text(&folder.path().join("store")));
    let script = |script: &str| vmsync(&["run", "--wasi", "--map", &map, text(&guest), "--", script]);
    let new = "globalThis.next = (n => () => ++n)(40); globalThis.all = new Map([['a', /b+/g]]); next()";
    assert_eq!(script(new).ok(), "41");
    // A closure, and a regular expression in a map, of a process that has ended.
    assert_eq!(
        script("next() + ' ' + 'abbc'.replace(all.get('a'), 'x')").ok(),
        "42 axc"
    );
    // What a script did that throws is undone.
    script("next(); all.clear(); delete globalThis.next; throw new Error('stop')").fails(1, &["Error: stop"]);
    assert_eq!(script("next() + all.size").ok(), "44");
    // Jobs run before the commit.
    assert_eq!(
        script("Promise.resolve(7).then(v => { globalThis.v = v }); 'later'").ok(),
        "later"
    );
    assert_eq!(script("v").ok(), "7");
}

#[test]
fn a_database_in_lmdb_survives_kills() {
    kill_ledger("lmdb-ledger", "data/ledger", 12, 60);
}

#[test]
fn a_database_in_sqlite_survives_kills() {
    kill_ledger("sqlite-ledger", "data/ledger.db", 5, 60);
}
