//! The guest programs of `demos/guests`, in Rust and C, under the command and every tracker.

mod support;

use std::path::Path;

use support::{guests, text, vmsync};

/// The trackers that work here.
fn trackers() -> Vec<&'static str> {
    vmsync::probe()
        .into_iter()
        .filter(|rung| rung.available.is_ok())
        .map(|rung| rung.kind.name())
        .collect()
}

fn run(guest: &Path, store: &Path, name: &str, tracker: &str, more: &[&str]) -> support::Said {
    let map = format!("{name}={}", text(store));
    let mut arguments = vec!["run", "--map", &map, "--tracker", tracker];
    arguments.extend(&more[..more.iter().position(|word| *word == "--").unwrap_or(more.len())]);
    arguments.push(text(guest));
    arguments.extend(&more[more.iter().position(|word| *word == "--").unwrap_or(more.len())..]);
    vmsync(&arguments)
}

#[test]
fn counters_in_every_language_count_over_processes() {
    let Some(guests) = guests() else { return };
    for name in ["counter", "tally", "abacus"] {
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().join("store");
        for (expected, tracker) in (1..).zip(trackers()) {
            let guest = guests.join(format!("{name}.wasm"));
            let said = run(&guest, &store, name, tracker, &["--invoke", "add"]);
            assert_eq!(said.ok(), expected.to_string(), "{name} with {tracker}");
        }
    }
}

#[test]
fn a_counter_in_assemblyscript_can_be_undone() {
    let Some(guests) = guests() else { return };
    let guest = guests.join("abacus.wasm");
    for tracker in trackers() {
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().join("store");
        for (call, count) in [("add", "1"), ("undone", "1"), ("add", "2")] {
            let said = run(&guest, &store, "abacus", tracker, &["--invoke", call]);
            assert_eq!(said.ok(), count, "{call} with {tracker}");
        }
    }
}

#[test]
fn a_program_in_assemblyscript_maps_its_regions_again() {
    let Some(guests) = guests() else { return };
    let guest = guests.join("abacus.wasm");
    for tracker in trackers() {
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().join("store");
        let [high, next] = ["abacus-high", "abacus-next"].map(|name| format!("{name}={}", text(&store)));
        let more = ["--map", &high, "--map", &next, "--invoke", "remapped"];
        let said = run(&guest, &store, "abacus", tracker, &more);
        assert_eq!(said.ok(), "0", "{tracker}");
    }
}

#[test]
fn a_crate_that_knows_only_memmap2_keeps_its_records() {
    let Some(guests) = guests() else { return };
    let guest = guests.join("records.wasm");
    for tracker in trackers() {
        let folder = tempfile::tempdir().unwrap();
        let files = format!("{}::data", text(&folder.path().join("store")));
        let records = |words: &[&str]| {
            let mut arguments = vec![
                "run",
                "--wasi",
                "--files",
                &files,
                "--tracker",
                tracker,
                text(&guest),
                "--",
            ];
            arguments.extend(words);
            vmsync(&arguments)
        };
        assert_eq!(records(&["add", "7", "8"]).ok(), "2", "{tracker}");
        records(&["crash"]).fails(134, &["trapped"]);
        let many: Vec<String> = (0..1000).map(|number| number.to_string()).collect();
        let many: Vec<&str> = ["add"]
            .into_iter()
            .chain(many.iter().map(String::as_str))
            .collect();
        assert_eq!(records(&many).ok(), "1002", "{tracker}");
        let listed = records(&["list"]).ok();
        let lines: Vec<_> = listed.lines().collect();
        assert_eq!(
            (lines[0], lines[1], lines[1001]),
            ("0 7", "1 8", "1001 999"),
            "{tracker}"
        );
    }
}

#[test]
fn a_c_program_keeps_a_journal() {
    let Some(guests) = guests() else { return };
    let guest = guests.join("journal.wasm");
    for tracker in trackers() {
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().join("store");
        let journal = |words: &[&str]| {
            let mut more = vec!["--wasi", "--"];
            more.extend(words);
            run(&guest, &store, "journal", tracker, &more).ok()
        };
        journal(&["append", "first"]);
        journal(&["undo", "never"]);
        journal(&["append", "second"]);
        let listed = journal(&["list"]);
        assert!(
            listed.contains("first") && listed.contains("second"),
            "{tracker}: {listed}"
        );
        assert!(!listed.contains("never"), "{tracker}: {listed}");
    }
}

#[test]
fn everything_in_the_sdk_works_under_every_tracker() {
    let Some(guests) = guests() else { return };
    let guest = guests.join("smoke.wasm");
    for tracker in trackers() {
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().join("store");
        let heap = format!("smoke-heap={}", text(&store));
        for round in 0..2 {
            let said = run(&guest, &store, "smoke", tracker, &["--wasi", "--map", &heap]);
            let out = said.ok();
            assert!(out.contains("passed 21"), "{tracker}, round {round}: {out}");
        }
    }
}
