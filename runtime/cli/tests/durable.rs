//! `vmsync run --durable`: whole instances over processes, however these end.

mod support;

use std::{
    io::Read,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use support::{Said, guests, text, vmsync};

/// A module that knows nothing of vmsync.
const COUNTER: &str = r#"(module
  (memory 2)
  (global $count (mut i32) (i32.const 0))
  (func (export "count") (result i32)
    (global.set $count (i32.add (global.get $count) (i32.const 1)))
    (i32.store (i32.const 70000) (global.get $count))
    (global.get $count))
  (func (export "in_memory") (result i32) (i32.load (i32.const 70000)))
  (func (export "trap") (global.set $count (i32.const 99)) (i32.store (i32.const 70000) (i32.const 99)) unreachable)
  (func (export "endless")
    (loop (i32.store (i32.const 70000) (i32.const 77)) (global.set $count (i32.const 77)) (br 0))))"#;

/// A WASI reactor: the host stores to its memory.
const REACTOR: &str = r#"(module
  (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "_initialize") (i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (i32.const 1))))
  (func (export "draw") (result i64)
    (drop (call $random (i32.const 40000) (i32.const 8)))
    (i64.load (i32.const 40000)))
  (func (export "drawn") (result i64) (i64.load (i32.const 40000)))
  (func (export "begun") (result i32) (i32.load (i32.const 0))))"#;

/// It exits in the midst of a call.
const EXIT: &str = r#"(module
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1)
  (func (export "set_and_exit") (param i32) (i32.store (i32.const 1000) (i32.const 42)) (call $exit (local.get 0)))
  (func (export "get") (result i32) (i32.load (i32.const 1000))))"#;

struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let place = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        place.write("counter.wat", COUNTER);
        place.write("reactor.wat", REACTOR);
        place.write("exit.wat", EXIT);
        place
    }

    fn write(&self, name: &str, module: &str) {
        std::fs::write(self.path(name), module).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn run(&self, module: &Path, function: &str, more: &[&str], arguments: &[&str]) -> Said {
        let store = self.path("store");
        let mut words = vec!["run", "--durable", text(&store), "--invoke", function];
        words.extend(more);
        words.push(text(module));
        if !arguments.is_empty() {
            words.push("--");
            words.extend(arguments);
        }
        vmsync(&words)
    }

    fn counter(&self, function: &str) -> Said {
        self.run(&self.path("counter.wat"), function, &[], &[])
    }
}

fn trackers() -> Vec<&'static str> {
    let rungs = vmsync::probe().into_iter();
    rungs
        .filter(|rung| rung.available.is_ok())
        .map(|rung| rung.kind.name())
        .collect()
}

#[test]
fn an_unmodified_module_counts_over_processes_and_trackers() {
    let place = Place::new();
    for (count, tracker) in (1..).zip(trackers()) {
        let said = place.run(
            &place.path("counter.wat"),
            "count",
            &["--tracker", tracker, "--stats"],
            &[],
        );
        assert!(said.err.contains(&format!("tracker {tracker}")), "{}", said.err);
        assert_eq!(said.ok(), count.to_string(), "{tracker}");
        assert_eq!(place.counter("in_memory").ok(), count.to_string());
    }
    let store = place.path("store");
    assert!(
        vmsync(&["inspect", text(&store)])
            .ok()
            .contains("instance.memory.0")
    );
    vmsync(&["verify", text(&store)]).ok();
}

#[test]
fn a_call_that_exits_has_not_happened_and_is_no_success() {
    let place = Place::new();
    let module = place.path("exit.wat");
    for (code, told) in [("0", 1), ("7", 7)] {
        let said = place.run(&module, "set_and_exit", &["--wasi"], &[code]);
        assert_eq!(said.code, Some(told));
        assert!(said.err.contains("nothing of it is kept"), "{}", said.err);
        assert_eq!(place.run(&module, "get", &["--wasi"], &[]).ok(), "0");
    }
}

#[test]
fn a_call_that_is_killed_has_not_happened() {
    let place = Place::new();
    assert_eq!(place.counter("count").ok(), "1");
    let (store, module) = (place.path("store"), place.path("counter.wat"));
    for round in 0..3 {
        let mut child = Command::new(env!("CARGO_BIN_EXE_vmsync"))
            .args([
                "run",
                "--durable",
                text(&store),
                "--invoke",
                "endless",
                text(&module),
            ])
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(100 * round));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(place.counter("in_memory").ok(), "1");
    }
    assert_eq!(place.counter("count").ok(), "2");
}

#[test]
fn what_was_printed_survives_kill_9_at_any_moment() {
    let place = Place::new();
    let (store, module) = (place.path("store"), place.path("counter.wat"));
    let mut count: i32 = place.counter("count").ok().parse().unwrap();
    for round in 0..20 {
        let mut child = Command::new(env!("CARGO_BIN_EXE_vmsync"))
            .args([
                "run",
                "--durable",
                text(&store),
                "--invoke",
                "count",
                text(&module),
            ])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(3 * round));
        let _ = child.kill();
        child.wait().unwrap();
        let mut printed = String::new();
        child.stdout.take().unwrap().read_to_string(&mut printed).unwrap();
        let now: i32 = place.counter("in_memory").ok().parse().unwrap();
        assert!(now == count || now == count + 1, "{count}, then {now}");
        if !printed.is_empty() {
            assert_eq!(printed.trim(), now.to_string());
        }
        count = now;
    }
}

#[test]
fn a_trap_is_told_and_undone() {
    let place = Place::new();
    assert_eq!(place.counter("count").ok(), "1");
    place.counter("trap").fails(134, &["trapped", "unreachable"]);
    assert_eq!(place.counter("in_memory").ok(), "1");
    assert_eq!(place.counter("count").ok(), "2");
}

#[test]
fn a_start_function_that_traps_is_told_as_well_and_leaves_no_instance() {
    let place = Place::new();
    let module = |start: &str| {
        let text = format!(
            r#"(module (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
              (memory (export "memory") 1)
              (func $start {start}) (start $start)
              (func (export "count") (result i32) (i32.const 1)))"#
        );
        place.write("start.wat", &text);
        place.path("start.wat")
    };
    for _ in 0..2 {
        place
            .run(&module("unreachable"), "count", &["--wasi"], &[])
            .fails(134, &["trapped", "unreachable"]);
    }
    place
        .run(&module("(call $exit (i32.const 7))"), "count", &["--wasi"], &[])
        .fails(7, &["exited"]);
    assert_eq!(place.run(&module("nop"), "count", &["--wasi"], &[]).ok(), "1");
}

#[test]
fn a_reactor_begins_once_and_keeps_what_the_host_stored() {
    for tracker in trackers() {
        let place = Place::new();
        let reactor = place.path("reactor.wat");
        let run = |function| {
            place
                .run(&reactor, function, &["--wasi", "--tracker", tracker], &[])
                .ok()
        };
        let drawn = run("draw");
        assert_ne!(drawn, "0");
        assert_eq!(run("drawn"), drawn, "{tracker}");
        assert_eq!(run("begun"), "1", "{tracker}");
    }
}

#[test]
fn a_rust_program_with_an_ordinary_map_is_kept() {
    let Some(guests) = guests() else { return };
    let ledger = guests.join("ledger.wasm");
    for tracker in trackers() {
        let place = Place::new();
        let run =
            |function, arguments: &[&str]| place.run(&ledger, function, &["--tracker", tracker], arguments);
        for (account, amount, balance) in [("1", "50", "50"), ("2", "7", "7"), ("1", "-20", "30")] {
            assert_eq!(run("deposit", &[account, amount]).ok(), balance, "{tracker}");
        }
        run("deposit", &["2", "-8"]).fails(134, &["trapped"]);
        assert_eq!(run("total", &[]).ok(), "37", "{tracker}");
        assert_eq!(run("changes", &[]).ok(), "3", "{tracker}");
    }
}

#[test]
fn what_is_wrong_is_said_with_what_to_do() {
    let place = Place::new();
    let (store, counter) = (place.path("store"), place.path("counter.wat"));
    vmsync(&["run", "--durable", text(&store), text(&counter)]).fails(1, &["--invoke"]);
    vmsync(&["run", "--durable", text(&store), "--map", "a=b", text(&counter)]).fails(2, &["--map"]);
    place
        .counter("nothing")
        .fails(1, &["nothing", "count, in_memory, trap, endless"]);
    place
        .run(&counter, "count", &[], &["1"])
        .fails(1, &["takes 0 arguments, 1 are given"]);
    place.counter("count").ok();
    let reactor = place.path("reactor.wat");
    place
        .run(&reactor, "draw", &["--wasi"], &[])
        .fails(1, &["another module", "STORE:NAME"]);
    place.run(&reactor, "draw", &[], &[]).fails(1, &["--wasi"]);
    place.write("command.wat", r#"(module (func (export "_start")))"#);
    let said = place.run(&place.path("command.wat"), "_start", &[], &[]);
    assert_eq!(said.err.matches("is a command").count(), 1, "{}", said.err);
    said.fails(1, &["command", "reactor"]);
    place.write("tables.wat", "(module (table 1 externref))");
    place
        .run(&place.path("tables.wat"), "f", &[], &[])
        .fails(1, &["externref", "cannot keep"]);
    // Another name in the same store.
    let named = format!("{}:second", text(&store));
    assert_eq!(
        vmsync(&["run", "--durable", &named, "--invoke", "count", text(&counter)]).ok(),
        "1"
    );
    assert_eq!(place.counter("count").ok(), "2");
}
