//! Rows B1 and B2: the POSIX library of the C SDK, as its test program sees it (guest-sdk/c/tests), on file stores, on
//! pagers that fail, and over several runs.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use vmsync::{
    Grant, Host, HostOptions, Marks, ObjectName, Pager, PagerError, PagerErrorKind, TrackerKind, Vm,
    add_to_linker, prepare,
};
use vmsync_pager_conformance::{Fault, ScriptedPager};
use vmsync_pager_file::{
    Background, FileStore, Options,
    disk::memory::{Failure, Fault as DiskFault, MemoryDisk},
};
use wasmtime::{Config, Engine, Linker, Module, Store};
use wasmtime_wasi::{
    I32Exit, WasiCtxBuilder,
    p1::{self, WasiP1Ctx},
    p2::pipe::MemoryOutputPipe,
};

struct State {
    vm: Vm,
    wasi: WasiP1Ctx,
}

struct Program {
    host: Host,
    engine: Engine,
    module: Module,
    marks: Option<Marks>,
}

/// The test program, compiled; `None`, loudly, where nobody has built it.
fn compile(tracker: Option<TrackerKind>) -> Option<Program> {
    let Some(folder) = std::env::var_os("VMSYNC_GUESTS").map(PathBuf::from) else {
        eprintln!("SKIPPED: set VMSYNC_GUESTS to the folder that `cargo xtask guests` builds");
        return None;
    };
    let wasm = std::fs::read(folder.join("posix.wasm")).expect("the program was built");
    let mut options = HostOptions::default();
    options.tracker = tracker;
    let host = Host::new(options);
    let engine = Engine::new(host.configure(&mut Config::new())).expect("an engine");
    let prepared = prepare(&host, &wasm).expect("a module");
    let module = Module::new(&engine, &prepared.wasm).expect("compiles");
    Some(Program {
        host,
        engine,
        module,
        marks: prepared.marks,
    })
}

/// The program that tests share.
fn program() -> Option<&'static Program> {
    static PROGRAM: OnceLock<Option<Program>> = OnceLock::new();
    PROGRAM.get_or_init(|| compile(None)).as_ref()
}

/// How a case ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Passed,
    Trapped,
    Failed(String),
}

/// Runs a case over the files of `pager`, each of at most `size_max` bytes.
fn run(
    program: &Program,
    case: &str,
    size_max: u64,
    grant: impl Fn(ObjectName) -> Grant + Send + Sync + 'static,
) -> End {
    let output = MemoryOutputPipe::new(1 << 20);
    let wasi = WasiCtxBuilder::new()
        .args(&["posix", case])
        .stdout(output.clone())
        .stderr(output.clone())
        .build_p1();
    let vm = Vm::builder(&program.host)
        .marks(program.marks)
        .grant_with(move |name| {
            let object = ObjectName::new(name.strip_prefix("data_2F")?).ok()?;
            Some(grant(object).size_max(size_max))
        })
        .build()
        .expect("a guest");
    let mut linker = Linker::new(&program.engine);
    add_to_linker(&mut linker, |state: &mut State| &mut state.vm).expect("links");
    p1::add_to_linker_sync(&mut linker, |state: &mut State| &mut state.wasi).expect("links");
    let mut store = Store::new(&program.engine, State { vm, wasi });
    let instance = linker
        .instantiate(&mut store, &program.module)
        .expect("instantiates");
    let start = instance
        .get_typed_func::<(), ()>(&mut store, "_start")
        .expect("a command");
    let result = start.call(&mut store, ());
    drop(store);
    let said = String::from_utf8_lossy(&output.contents()).into_owned();
    match result {
        Ok(()) => End::Passed,
        Err(error) => match error.downcast_ref::<I32Exit>() {
            Some(I32Exit(0)) => End::Passed,
            Some(I32Exit(code)) => End::Failed(format!("exit {code}:\n{said}")),
            None if said.is_empty() => End::Trapped,
            None => End::Failed(said),
        },
    }
}

fn open(folder: &Path) -> Arc<FileStore> {
    FileStore::open(&folder.join("store"), &Options::default()).expect("a store")
}

/// Runs a case over a store of its own.
fn ends(case: &str, end: &End) {
    let Some(program) = program() else { return };
    let folder = tempfile::tempdir().expect("a folder for the test");
    let store = open(folder.path());
    let ended = run(program, case, u64::MAX, move |object| {
        Grant::new(store.clone(), object)
    });
    assert_eq!(ended, *end, "{case}");
}

/// Runs `cases` one after the other over one store, each as in a process of its own: with a new host, and the store
/// opened again.
fn lives(cases: &[(&str, End)]) {
    let folder = tempfile::tempdir().expect("a folder for the test");
    for (case, end) in cases {
        let Some(program) = compile(None) else { return };
        let store = open(folder.path());
        let ended = run(&program, case, u64::MAX, move |object| {
            Grant::new(store.clone(), object)
        });
        assert_eq!(ended, *end, "{case}");
    }
}

/// Runs a case over a pager whose first commit fails.
fn with_fault(case: &str, kind: PagerErrorKind) {
    let Some(program) = program() else { return };
    let folder = tempfile::tempdir().expect("a folder for the test");
    let pager = Arc::new(ScriptedPager::new(open(folder.path())));
    pager.inject(Fault::Completion(Some(PagerError::new(
        kind,
        "as the test wants it",
    ))));
    let pager: Arc<dyn Pager> = pager;
    let ended = run(program, case, u64::MAX, move |object| {
        Grant::new(pager.clone(), object)
    });
    assert_eq!(ended, End::Passed, "{case}");
}

macro_rules! cases {
    ($($test:ident: $case:literal),+ $(,)?) => {
        $(#[test]
        fn $test() {
            ends($case, &End::Passed);
        })+
    };
}

cases! {
    b1_ltp_msync01: "msync01",
    b1_ltp_msync02: "msync02",
    b1_ltp_msync03: "msync03",
    b1_ltp_msync04: "msync04",
    b1_gvisor_whole_mappings: "whole",
    b1_gvisor_edges: "edges",
    b1_gvisor_holes: "hole",
    b1_gvisor_locked_pages: "locked",
    b1_llvm_msync: "llvm-msync",
    b1_llvm_mmap: "llvm-mmap",
    b1_llvm_mprotect: "llvm-mprotect",
    b1_llvm_madvise: "llvm-madvise",
    b1_netbsd_msync: "netbsd-msync",
    b2_flags_by_name: "flags-by-name",
    files_and_mappings_are_coherent: "coherence",
    access_modes_are_kept: "access-modes",
    sizes_change: "sizes",
    what_is_written_may_come_from_behind_the_end: "from-behind",
    names_are_kept_apart: "names",
    streams_of_stdio_work: "streams",
    locks_are_free: "locks",
    write_passes_a_read_only_mapping: "protection",
    a_protection_ends_with_its_mapping: "protection-ends",
    fixed_mappings: "fixed",
    regions_and_files_share_the_window: "beside-regions",
    what_is_no_file_is_in_nobodys_way: "foreign",
    neighbours_are_asked_one_by_one_and_synced_as_one: "neighbours",
    an_advice_loses_nothing_of_a_file: "advice",
    a_write_that_would_take_a_mapping_too_many_is_refused: "mappings",
}

#[test]
fn a_store_to_a_read_only_mapping_traps() {
    ends("store-to-read-only", &End::Trapped);
    ends("store-to-shown-once", &End::Trapped);
}

#[test]
fn what_was_synced_outlives_a_trap_and_what_was_written_an_exit() {
    lives(&[
        ("life-1", End::Trapped),
        ("gone", End::Trapped),
        ("life-2", End::Passed),
        ("life-3", End::Passed),
    ]);
}

#[test]
fn what_was_cut_off_stays_away_when_a_part_is_synced() {
    lives(&[("regrown-1", End::Trapped), ("regrown-2", End::Passed)]);
    lives(&[("cut-1", End::Trapped), ("cut-2", End::Passed)]);
}

#[test]
fn a_size_whose_queued_write_is_lost_is_in_the_next_sync() {
    let disk = MemoryDisk::new();
    let options = Options {
        // What is queued waits for the next sync, and fails with it.
        background: Background::Caller,
        ..Options::default()
    };
    for (case, faults, end) in [
        ("queued-1", 0, End::Passed),
        // The journal's next file, another one in its place, and the first once more.
        ("queued-2", 3, End::Trapped),
        ("queued-3", 0, End::Passed),
    ] {
        let Some(program) = compile(None) else { return };
        let store = FileStore::open_on(Arc::new(disk.clone()), &options).expect("a store");
        disk.heal();
        disk.inject(DiskFault {
            after: disk.operations(),
            count: faults,
            failure: Failure::Io,
        });
        let ended = run(&program, case, u64::MAX, move |object| {
            Grant::new(store.clone(), object)
        });
        assert_eq!(ended, end, "{case}");
    }
}

#[test]
fn a_file_keeps_its_address() {
    lives(&[
        ("address", End::Passed),
        ("address", End::Passed),
        ("address-other-order", End::Passed),
    ]);
}

#[test]
fn files_work_under_every_tracker() {
    let rungs = vmsync::probe().into_iter().filter(|rung| rung.available.is_ok());
    for kind in rungs.map(|rung| rung.kind) {
        let Some(program) = compile(Some(kind)) else {
            return;
        };
        let folder = tempfile::tempdir().expect("a folder for the test");
        let store = open(folder.path());
        for case in ["msync02", "msync04", "hole", "coherence", "sizes", "protection"] {
            let store = store.clone();
            let ended = run(&program, case, u64::MAX, move |object| {
                Grant::new(store.clone(), object)
            });
            assert_eq!(ended, End::Passed, "{case} with {}", kind.name());
        }
    }
}

#[test]
fn a_store_that_is_open_for_reading_only() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    for (case, read_only, end) in [
        ("life-1", false, End::Trapped),
        ("life-2", false, End::Passed),
        ("read-only", true, End::Passed),
    ] {
        let Some(program) = compile(None) else { return };
        let store = open(folder.path());
        let grant = move |object| {
            let grant = Grant::new(store.clone(), object);
            if read_only { grant.read_only() } else { grant }
        };
        assert_eq!(run(&program, case, u64::MAX, grant), end, "{case}");
    }
}

#[test]
fn a_quota_is_enospc() {
    let Some(program) = program() else { return };
    let folder = tempfile::tempdir().expect("a folder for the test");
    let store = open(folder.path());
    let ended = run(program, "quota", 1 << 20, move |object| {
        Grant::new(store.clone(), object)
    });
    assert_eq!(ended, End::Passed);
}

#[test]
fn b1_a_failed_write_back_is_eio() {
    with_fault("fault-io", PagerErrorKind::Io);
}

#[test]
fn b1_a_full_store_is_enospc() {
    with_fault("fault-full", PagerErrorKind::NoSpace);
}

#[test]
fn b1_a_failed_page_is_not_dropped() {
    with_fault("fault-invalidate", PagerErrorKind::Io);
}

#[test]
fn a_failed_fsync_can_be_repeated() {
    with_fault("fault-fsync", PagerErrorKind::Io);
}
