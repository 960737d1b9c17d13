//! The command line: every subcommand, and what it says when something is wrong.

mod support;

use support::{Place, text, vmsync};

#[test]
fn a_counter_counts_over_processes_and_trackers() {
    let place = Place::new();
    let mut expected = 0;
    for rung in vmsync::probe().into_iter().filter(|rung| rung.available.is_ok()) {
        expected += 5;
        let said = place.add("5", &["--tracker", rung.kind.name(), "--stats"]);
        assert!(said.err.contains(rung.kind.name()), "{}", said.err);
        assert_eq!(said.ok(), expected.to_string());
    }
}

#[test]
fn inspect_and_verify_say_what_is_in_a_store_and_where_it_is_damaged() {
    let place = Place::new();
    let store = place.path("store");
    place.add("1", &[]).ok();
    let listed = vmsync(&["inspect", &store]).ok();
    assert!(
        listed.contains("counter") && listed.contains("4.0 KiB"),
        "{listed}"
    );
    let json: serde_json::Value = serde_json::from_str(&vmsync(&["inspect", "--json", &store]).ok()).unwrap();
    assert_eq!(json["objects"][0]["name"], "counter");
    assert_eq!(json["objects"][0]["address"], 65536);
    assert!(vmsync(&["verify", &store]).ok().contains("sound: 1 objects"));
    let image = std::fs::read_dir(&store)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.metadata().unwrap().len() == 4096 && text(path).contains("object"))
        .expect("the object has an image");
    let mut bytes = std::fs::read(&image).unwrap();
    bytes[1] ^= 4;
    std::fs::write(&image, bytes).unwrap();
    let said = vmsync(&["verify", "--json", &store]);
    let json: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(said.code, Some(1));
    assert_eq!(json["problems"].as_array().unwrap().len(), 1, "{json}");
    vmsync(&["verify", &store]).fails(1, &["restore"]);
}

#[test]
fn what_a_pager_says_is_told_though_the_guest_makes_nothing_of_it() {
    let place = Place::new();
    place.add("5", &[]).ok();
    std::fs::remove_file(place.path("store/object-1")).unwrap();
    let said = place.add("1", &[]);
    assert!(
        said.err.contains("the image of") && said.err.contains("is missing"),
        "{}",
        said.err
    );
    assert_eq!(said.code, Some(0), "the guest's own affair");
}

#[test]
fn a_module_may_be_instrumented_in_its_place() {
    let place = Place::new();
    let (module, plain) = (place.path("module.wasm"), place.path("counter.wat"));
    std::fs::write(&module, wat::parse_file(&plain).unwrap()).unwrap();
    vmsync(&["instrument", &module, "-o", &module]).ok();
    vmsync(&["instrument", &module, "-o", &module]).fails(1, &["already instrumented"]);
    // A device is written to, and stays one.
    vmsync(&["instrument", &plain, "-o", "/dev/null"]).ok();
    assert!(!std::fs::metadata("/dev/null").unwrap().is_file());
}

#[test]
fn an_instrumented_module_runs_without_being_told() {
    let place = Place::new();
    let output = place.path("marked.wasm");
    let said = vmsync(&["instrument", &place.path("counter.wat"), "-o", &output]).ok();
    assert!(said.contains("stores"), "{said}");
    let map = format!("counter={}:main", place.path("store"));
    let said = vmsync(&[
        "run", "--stats", "--invoke", "add", "--map", &map, &output, "--", "3",
    ]);
    assert!(said.err.contains("tracker barrier"), "{}", said.err);
    assert_eq!(said.ok(), "3");
}

#[test]
fn trackers_explains_every_rung() {
    let said = vmsync(&["trackers"]).ok();
    let rungs = ["uffd-async", "uffd-sync", "mprotect", "barrier", "compare"];
    for rung in rungs {
        assert!(said.lines().any(|line| line.starts_with(rung)), "{rung}: {said}");
    }
    assert_eq!(said.matches("is chosen").count(), 1, "{said}");
    let json: serde_json::Value = serde_json::from_str(&vmsync(&["trackers", "--json"]).ok()).unwrap();
    assert_eq!(json["trackers"].as_array().unwrap().len(), 5);
}

#[test]
fn help_says_all_that_is_to_be_known_of_a_command() {
    for (command, part) in [
        ("run", "134 where it trapped"),
        ("export", "must not be open for writing"),
        ("import", "Every checksum is compared"),
        ("instrument", "for hosts with pages as large"),
        ("verify", "Exits with 1 where something is wrong"),
    ] {
        let help = vmsync(&[command, "--help"]).ok();
        assert!(help.contains(part), "{command}: {help}");
    }
    let help = vmsync(&["--help"]).ok();
    assert!(
        help.contains("or, with --durable, one that lives in a store as a whole"),
        "{help}"
    );
}

#[test]
fn a_folder_is_written_alike_for_every_command() {
    let place = Place::new();
    let (store, module) = (place.path("store"), place.path("counter.wat"));
    let url = format!("file:{store}");
    let map = format!("counter={url}");
    vmsync(&["run", "--invoke", "add", "--map", &map, &module, "--", "1"]).ok();
    for command in ["inspect", "verify"] {
        vmsync(&[command, &store]).ok();
        vmsync(&[command, &url]).ok();
        vmsync(&[command, "s3://bucket/state"]).fails(2, &["s3://bucket/state is no folder"]);
    }
    let (file, copy) = (place.path("store.tar"), place.path("copy"));
    vmsync(&["export", &url, &file]).ok();
    vmsync(&["import", &file, &format!("file://{copy}")]).ok();
    vmsync(&["verify", &copy]).ok();
}

#[test]
fn what_is_wrong_is_said_with_what_to_do() {
    let place = Place::new();
    let counter = place.path("counter.wat");
    vmsync(&["run", "--bad"]).fails(2, &["--bad"]);
    vmsync(&["run", &place.path("missing.wasm")]).fails(1, &["missing.wasm", "No such file"]);
    vmsync(&["run", &counter]).fails(1, &["_start", "--invoke", "add, trap"]);
    vmsync(&["run", "--invoke", "add", &counter]).fails(1, &["takes 1 arguments, 0 are given"]);
    vmsync(&["run", "--invoke", "add", &counter, "--", "x"]).fails(1, &["\"x\" is not a value of type i32"]);
    vmsync(&["run", "--invoke", "trap", &counter]).fails(134, &["trapped", "unreachable"]);
    let start = "(module (func $start unreachable) (start $start) (func (export \"f\")))";
    std::fs::write(place.path("start.wat"), start).unwrap();
    vmsync(&["run", "--invoke", "f", &place.path("start.wat")]).fails(134, &["trapped", "unreachable"]);
    vmsync(&["run", "--map", "counter", &counter]).fails(2, &["NAME=STORE"]);
    vmsync(&["run", "--map", "../x=s", &counter]).fails(2, &["begins with a dot"]);
    vmsync(&["run", "--tracker", "magic", &counter]).fails(2, &["uffd-async"]);
    vmsync(&["run", "--dir", ".", &counter]).fails(2, &["--wasi"]);
    // NO_ACCESS: nothing was granted.
    assert_eq!(
        vmsync(&["run", "--invoke", "add", &counter, "--", "1"]).ok(),
        "-8"
    );
    std::fs::write(place.path("not.wasm"), b"\0asmnonsense").unwrap();
    vmsync(&["run", &place.path("not.wasm")]).fails(1, &["not.wasm"]);
    vmsync(&["verify", &place.path("nowhere")]).fails(1, &["nowhere"]);
    vmsync(&["inspect", &place.path("counter.wat")]).fails(1, &["counter.wat"]);
}

#[test]
fn guests_that_cannot_run_are_refused_in_words() {
    let place = Place::new();
    let run = |wat: &str| {
        std::fs::write(place.path("guest.wat"), wat).unwrap();
        vmsync(&["run", "--invoke", "f", &place.path("guest.wat")])
    };
    let import = r#"(import "vmsync1" "mach_task_self" (func (result i32)))"#;
    run(&format!("(module {import} (func (export \"f\")))")).fails(1, &["exports no memory"]);
    run(
        r#"(module (import "wasi_snapshot_preview1" "sched_yield" (func (result i32))) (func (export "f")))"#,
    )
    .fails(1, &["--wasi"]);
    run(r#"(module (import "env" "what" (func)) (memory (export "memory") 1) (func (export "f")))"#)
        .fails(1, &["env::what"]);
    run(r#"(module (memory (export "memory") 1 2 shared) (func (export "f")))"#).fails(1, &["thread"]);
}

#[test]
fn a_store_in_use_or_read_only_is_refused() {
    let place = Place::new();
    place.add("1", &[]).ok();
    let options = vmsync_pager_file::Options::default();
    let held = vmsync_pager_file::FileStore::open(place.path("store").as_ref(), &options).unwrap();
    place.add("1", &[]).fails(1, &["store"]);
    drop(held);
    // Opened for reading only: the guest asks for the right to store, and gets NO_ACCESS.
    assert_eq!(place.add("1", &["--read-only"]).ok(), "-8");
    assert_eq!(place.add("1", &[]).ok(), "2");
}
