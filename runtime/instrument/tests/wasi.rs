//! What functions of WASI write has marks: on the pages that they may have written, and on no others.

mod support;

use std::collections::BTreeSet;
use std::sync::LazyLock;

use anyhow::{Context, Result};
use support::{Host, Side, engine};
use vmsync_instrument::{Analyses, Options, StoreKind, expose::expose, instrument, instrument_without};
use wasmtime::{Caller, Extern, Linker, Module, Store, Val};

const PAGE: i32 = 4096;
/// Pages of the guest's memory, the last of which ends with it.
const PAGES: i32 = 16 * 16;

/// Each function that writes memory, with its type.
const FUNCTIONS: [(&str, &str); 25] = [
    ("args_get", "i32 i32"),
    ("args_sizes_get", "i32 i32"),
    ("clock_res_get", "i32 i32"),
    ("clock_time_get", "i32 i64 i32"),
    ("environ_get", "i32 i32"),
    ("environ_sizes_get", "i32 i32"),
    ("fd_fdstat_get", "i32 i32"),
    ("fd_filestat_get", "i32 i32"),
    ("fd_pread", "i32 i32 i32 i64 i32"),
    ("fd_prestat_dir_name", "i32 i32 i32"),
    ("fd_prestat_get", "i32 i32"),
    ("fd_pwrite", "i32 i32 i32 i64 i32"),
    ("fd_read", "i32 i32 i32 i32"),
    ("fd_readdir", "i32 i32 i32 i64 i32"),
    ("fd_seek", "i32 i64 i32 i32"),
    ("fd_tell", "i32 i32"),
    ("fd_write", "i32 i32 i32 i32"),
    ("path_filestat_get", "i32 i32 i32 i32 i32"),
    ("path_open", "i32 i32 i32 i32 i32 i64 i64 i32 i32"),
    ("path_readlink", "i32 i32 i32 i32 i32 i32"),
    ("poll_oneoff", "i32 i32 i32 i32"),
    ("random_get", "i32 i32"),
    ("sock_accept", "i32 i32 i32"),
    ("sock_recv", "i32 i32 i32 i32 i32 i32"),
    ("sock_send", "i32 i32 i32 i32 i32"),
];

/// A module that exports WASI's functions as they are.
fn exporting() -> Result<Vec<u8>> {
    let import = |(name, parameters): &(&str, &str)| {
        format!(
            r#"(func (export "{name}") (import "wasi_snapshot_preview1" "{name}") (param {parameters}) (result i32))"#
        )
    };
    let imports: Vec<String> = FUNCTIONS.iter().map(import).collect();
    let text = format!(r#"(module {} (memory (export "memory") 16))"#, imports.join("\n"));
    Ok(wat::parse_str(text)?)
}

/// The module that exports WASI's functions, instrumented and compiled once.
static EXPORTING: LazyLock<Module> = LazyLock::new(|| {
    let wasm = exporting().expect("a good text");
    let done = instrument(&wasm, &Options::default()).expect("a good module");
    assert_eq!(done.report.wrapped, FUNCTIONS.len() as u64);
    Module::new(&engine(), &done.wasm).expect("a good module")
});

/// Pages that a function marks which is called with `args` and with these words in memory, and a host that does nothing.
fn marked(name: &str, args: &[i64], words: &[(i32, i32)]) -> Result<BTreeSet<i32>> {
    let mut store = Store::new(EXPORTING.engine(), ());
    store.set_fuel(1_000_000)?;
    let mut linker = Linker::new(EXPORTING.engine());
    linker.define_unknown_imports_as_default_values(&mut store, &EXPORTING)?;
    let instance = linker.instantiate(&mut store, &EXPORTING)?;
    let memory = instance.get_memory(&mut store, "memory").context("the memory")?;
    for &(at, word) in words {
        memory.write(&mut store, at as usize, &word.to_le_bytes())?;
    }
    let function = instance.get_func(&mut store, name).context("the function")?;
    let ty = function.ty(&store);
    let values = ty.params().zip(args).map(|(ty, arg)| match ty {
        wasmtime::ValType::I64 => Val::I64(*arg),
        _ => Val::I32(*arg as i32),
    });
    let values: Vec<Val> = values.collect();
    function.call(&mut store, &values, &mut [Val::I32(0)])?;
    let cards = instance.get_memory(&mut store, vmsync_instrument::CARDS_EXPORT);
    let cards = cards.context("the cards")?.data(&store);
    // Cards behind the memory may be set.
    Ok((0..PAGES)
        .zip(cards)
        .filter(|(_, card)| **card != 0)
        .map(|(page, _)| page)
        .collect())
}

#[track_caller]
fn assert_marked(name: &str, args: &[i64], words: &[(i32, i32)], pages: impl IntoIterator<Item = i32>) {
    let found = marked(name, args, words).unwrap_or_else(|error| panic!("{name}: {error:#}"));
    assert_eq!(found, pages.into_iter().collect(), "{name} {args:?}");
}

/// The address that lies `back` bytes before a page.
fn before(page: i32, back: i32) -> i64 {
    i64::from(page * PAGE - back)
}

#[test]
fn results_mark_the_pages_that_they_lie_in() {
    for (name, at, len) in [
        ("args_sizes_get", 1, 4),
        ("clock_res_get", 1, 8),
        ("clock_time_get", 2, 8),
        ("environ_sizes_get", 1, 4),
        ("fd_fdstat_get", 1, 24),
        ("fd_filestat_get", 1, 64),
        ("fd_prestat_get", 1, 8),
        ("fd_pwrite", 4, 4),
        ("fd_seek", 3, 8),
        ("fd_tell", 1, 8),
        ("fd_write", 3, 4),
        ("path_filestat_get", 4, 64),
        ("path_open", 8, 4),
        ("sock_accept", 2, 4),
        ("sock_send", 4, 4),
    ] {
        // Sizes have another result, which is on page 0 here.
        let other = name.contains("sizes").then_some(0);
        let mut args = [0; 9];
        for (address, pages) in [
            (before(9, len), vec![8]),
            (before(9, len - 1), vec![8, 9]),
            (before(PAGES, 1), vec![PAGES - 1]),
            (before(PAGES, 0), vec![]),
            (i64::from(i32::MIN), vec![]),
        ] {
            args[at] = address;
            assert_marked(name, &args, &[], pages.into_iter().chain(other));
        }
    }
}

#[test]
fn arrays_mark_the_pages_that_they_may_fill() {
    assert_marked("random_get", &[before(3, 1), i64::from(2 * PAGE)], &[], [2, 3, 4]);
    assert_marked("random_get", &[before(3, 1), 0], &[], []);
    assert_marked("random_get", &[0, 0], &[], []);
    assert_marked("random_get", &[before(3, 0), -1], &[], 3..PAGES);
    assert_marked(
        "poll_oneoff",
        &[0, before(3, 32), 2, before(7, 4)],
        &[],
        [2, 3, 6],
    );
    assert_marked(
        "poll_oneoff",
        &[0, before(3, 0), 1 << 31, before(7, 4)],
        &[],
        3..PAGES,
    );
    assert_marked(
        "fd_readdir",
        &[3, before(3, 1), 2, 0, before(7, 4)],
        &[],
        [2, 3, 6],
    );
    assert_marked("fd_prestat_dir_name", &[3, before(3, 1), 2], &[], [2, 3]);
    assert_marked(
        "path_readlink",
        &[3, 0, 0, before(3, 1), 2, before(7, 4)],
        &[],
        [2, 3, 6],
    );
    assert_marked("args_get", &[0, 0], &[], 0..PAGES);
    assert_marked("environ_get", &[0, 0], &[], 0..PAGES);
}

#[test]
fn lists_mark_their_buffers() {
    // Two buffers and one that is empty, described at 16.
    let words = [
        (16, before(9, 1) as i32),
        (20, PAGE),
        (24, before(50, 0) as i32),
        (28, 0),
        (32, before(20, 0) as i32),
        (36, 1),
    ];
    let result = before(30, 4);
    assert_marked("fd_read", &[0, 16, 3, result], &words, [8, 9, 20, 29]);
    assert_marked("fd_read", &[0, 16, 1, result], &words, [8, 9, 29]);
    assert_marked("fd_read", &[0, 16, 0, result], &words, [29]);
    assert_marked("fd_pread", &[0, 16, 3, 0, result], &words, [8, 9, 20, 29]);
    assert_marked(
        "sock_recv",
        &[0, 16, 3, 0, result, before(40, 1)],
        &words,
        [8, 9, 20, 29, 39, 40],
    );
    // A buffer that leads out of the memory, and one that is nowhere near it.
    assert_marked(
        "fd_read",
        &[0, 16, 1, result],
        &[(16, before(PAGES, 1) as i32), (20, -1)],
        [29, PAGES - 1],
    );
    assert_marked("fd_read", &[0, 16, 1, result], &[(16, i32::MIN), (20, 100)], [29]);
}

#[test]
fn lists_that_may_change_mark_everything() {
    let result = before(30, 4);
    let words = [(16, 8), (20, 9)];
    assert_marked("fd_read", &[0, 16, 1, result], &words, 0..PAGES);
    assert_marked("fd_read", &[0, 16, 1, result], &[(16, 8), (20, 8)], [0, 29]);
    assert_marked("fd_read", &[0, 16, 1, result], &[(16, 24), (20, 8)], [0, 29]);
    // The result is written over the list.
    assert_marked("fd_read", &[0, 16, 1, 20], &[], 0..PAGES);
    assert_marked("fd_read", &[0, 16, 1, 24], &[], [0]);
    assert_marked("sock_recv", &[0, 16, 1, 0, result, 23], &[], 0..PAGES);
    // More than a host takes, or outside the memory: whatever the guest says, little is done.
    assert_marked("fd_read", &[0, 16, 1025, result], &[], 0..PAGES);
    assert_marked("fd_read", &[0, 16, -1, result], &[], 0..PAGES);
    assert_marked("fd_read", &[0, before(PAGES, 8), 1, result], &[], [29]);
    assert_marked("fd_read", &[0, before(PAGES, 8), 2, result], &[], 0..PAGES);
    assert_marked("fd_read", &[0, -8, 1, result], &[], 0..PAGES);
}

#[test]
fn others_functions_and_memories_are_left_alone() -> Result<()> {
    let wrapped = |import: &str, memory: &str| -> Result<u64> {
        let text = format!("(module {import} {memory} (memory 1))");
        let options = Options {
            memory: vmsync_instrument::MemoryChoice::Index(0),
            ..Options::default()
        };
        Ok(instrument(&wat::parse_str(text)?, &options)?.report.wrapped)
    };
    let memory = r#"(memory (export "memory") 1)"#;
    let good = r#"(import "wasi_snapshot_preview1" "random_get" (func (param i32 i32) (result i32)))"#;
    assert_eq!(wrapped(good, memory)?, 1);
    assert_eq!(wrapped(good, r#"(memory (export "another") 1)"#)?, 0);
    assert_eq!(wrapped(good, r#"(memory (export "memory") i64 1)"#)?, 0);
    for (from, to) in [
        ("wasi_snapshot_preview1", "env"),
        ("random_get", "fd_close"),
        ("i32 i32", "i32 i64"),
    ] {
        assert_eq!(wrapped(&good.replace(from, to), memory)?, 0);
    }
    Ok(())
}

/// Whoever keeps a whole instance relies on marks only where nothing else writes its memory.
#[test]
fn what_hosts_add_to_the_module_of_wasi_may_write_anything() -> Result<()> {
    for (module, name, unseen) in [
        ("wasi_snapshot_preview1", "random_get", false),
        ("wasi_snapshot_preview1", "fd_close", false),
        ("wasi_snapshot_preview1", "sock_recv_from", true),
        ("env", "random_get", true),
    ] {
        let text = format!(
            r#"(module (import "{module}" "{name}" (func (param i32 i32) (result i32))) (memory (export "memory") 1))"#
        );
        assert_eq!(
            expose(&wat::parse_str(text)?)?.calls_host,
            unseen,
            "{module} {name}"
        );
    }
    Ok(())
}

/// Every way to a function of WASI.
const USES: &str = r#"(module
  (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
  (type $random (func (param i32 i32) (result i32)))
  (import "host" "collect" (func $collect))
  (memory (export "memory") 16)
  (table $initial 1 (ref null $random) (ref.func $random))
  (table $filled 2 funcref) (elem (table $filled) (i32.const 1) func $random)
  (elem $passive funcref (ref.func $random))
  (global $global (ref $random) (ref.func $random))
  (export "exported" (func $random))
  (func (export "call") (param i32 i32) (result i32) (call $random (local.get 0) (local.get 1)))
  (func (export "tail") (param i32 i32) (result i32) (return_call $random (local.get 0) (local.get 1)))
  (func (export "reference") (param i32 i32) (result i32)
    (call_ref $random (local.get 0) (local.get 1) (ref.func $random)))
  (func (export "global") (param i32 i32) (result i32)
    (call_ref $random (local.get 0) (local.get 1) (global.get $global)))
  (func (export "initial") (param i32 i32) (result i32)
    (call_indirect $initial (type $random) (local.get 0) (local.get 1) (i32.const 0)))
  (func (export "filled") (param i32 i32) (result i32)
    (call_indirect $filled (type $random) (local.get 0) (local.get 1) (i32.const 1)))
  (func (export "passive") (param i32 i32) (result i32)
    (table.init $filled $passive (i32.const 0) (i32.const 0) (i32.const 1))
    (call_indirect $filled (type $random) (local.get 0) (local.get 1) (i32.const 0)))
  (func (export "dead") (param i32 i32) (result i32)
    (block (br 0) (drop (ref.func $random)) (drop (call $random (i32.const 0) (i32.const 0))))
    (call $random (local.get 0) (local.get 1))))"#;

#[test]
fn every_use_of_a_function_is_seen() -> Result<()> {
    let wasm = wat::parse_str(USES)?;
    let engine = engine();
    let names = [
        "exported",
        "call",
        "tail",
        "reference",
        "global",
        "initial",
        "filled",
        "passive",
        "dead",
    ];
    for analyses in [Analyses::NONE, Analyses::ALL] {
        let options = Options {
            analyses,
            ..Options::default()
        };
        let done = instrument(&wasm, &options)?;
        let without = instrument_without(&wasm, &options, StoreKind::Wasi)?;
        for name in names {
            let args = [Val::I32(8 * PAGE + 100), Val::I32(PAGE)];
            let mut side = Side::new(&engine, &done.wasm, "memory", Some(&done.cards))?;
            side.call(name, &args)?
                .context("enough fuel")?
                .map_err(anyhow::Error::msg)?;
            assert_eq!(side.marked(), [8, 9], "{name}");
            side.collect().context(name)?;
            if name == "exported" {
                // As it is, it is the host's, which then has no caller whose memory it could write.
                continue;
            }
            let mut side = Side::new(&engine, &without.wasm, "memory", Some(&without.cards))?;
            side.call(name, &args)?
                .context("enough fuel")?
                .map_err(anyhow::Error::msg)?;
            let error = side.collect().expect_err("marks are missing").to_string();
            assert!(error.contains("without a mark"), "{name}: {error}");
        }
    }
    Ok(())
}

/// A host that fills the buffers of a list, and two results. What is in the third is its answer; a negative one is a trap.
fn fill(mut caller: Caller<'_, Host>, _: i32, list: i32, count: i32, result: i32) -> wasmtime::Result<i32> {
    let memory = caller.get_export("memory").and_then(Extern::into_memory);
    let memory = memory.expect("the memory");
    let word = |caller: &Caller<'_, Host>, at: i32| -> wasmtime::Result<i32> {
        let mut bytes = [0; 4];
        memory.read(caller, at as usize, &mut bytes)?;
        Ok(i32::from_le_bytes(bytes))
    };
    let byte = word(&caller, 0)?;
    for index in 0..count {
        let (at, len) = (
            word(&caller, list + 8 * index)?,
            word(&caller, list + 8 * index + 4)?,
        );
        memory.write(&mut caller, at as usize, &vec![byte as u8; len as usize])?;
    }
    if result < 0 {
        wasmtime::bail!("the result has no place");
    }
    memory.write(&mut caller, result as usize, &byte.to_le_bytes())?;
    Ok(0)
}

/// Reads two buffers.
const READS: &str = r#"(module
  (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 16)
  (func (export "read") (param $result i32) (param $byte i32) (result i32)
    (i32.store (i32.const 0) (local.get $byte))
    (i32.store (i32.const 16) (i32.const 8000)) (i32.store (i32.const 20) (i32.const 20000))
    (i32.store (i32.const 24) (i32.const 60000)) (i32.store (i32.const 28) (i32.const 9000))
    (call $read (i32.const 0) (i32.const 16) (i32.const 2) (local.get $result))))"#;

fn reading() -> Result<Side> {
    let done = instrument(&wat::parse_str(READS)?, &Options::default())?;
    Side::linked(&engine(), &done.wasm, "memory", Some(&done.cards), |linker| {
        linker.func_wrap("wasi_snapshot_preview1", "fd_read", fill)?;
        Ok(())
    })
}

#[test]
fn what_is_written_before_fuel_ends_has_marks() -> Result<()> {
    // The result lies over the list the second time.
    for result in [100_000, 20] {
        reading()?.collect_wherever_fuel_ends("read", &[Val::I32(result)])?;
    }
    Ok(())
}

#[test]
fn what_is_written_before_a_trap_has_marks() -> Result<()> {
    let mut side = reading()?;
    let ended = side.call("read", &[Val::I32(-1), Val::I32(7)])?;
    ended.context("enough fuel")?.expect_err("a trap");
    assert_eq!(side.memory.data(&side.store)[8000..][..20_000], [7; 20_000]);
    side.collect()
}

/// The host collects in the middle of a call, after it has written a part.
#[test]
fn what_is_written_after_a_collection_has_marks() -> Result<()> {
    let mut store = Store::new(EXPORTING.engine(), ());
    store.set_fuel(1_000_000)?;
    let mut linker = Linker::new(EXPORTING.engine());
    linker.func_wrap(
        "wasi_snapshot_preview1",
        "random_get",
        |mut caller: Caller<'_, ()>, at: i32, _len: i32| -> Result<i32, wasmtime::Error> {
            let cards = caller
                .get_export(vmsync_instrument::CARDS_EXPORT)
                .and_then(Extern::into_memory);
            cards.expect("the cards").data_mut(&mut caller).fill(0);
            let memory = caller.get_export("memory").and_then(Extern::into_memory);
            memory
                .expect("the memory")
                .write(&mut caller, at as usize, b"late")?;
            Ok(0)
        },
    )?;
    linker.define_unknown_imports_as_default_values(&mut store, &EXPORTING)?;
    let instance = linker.instantiate(&mut store, &EXPORTING)?;
    let random = instance.get_typed_func::<(i32, i32), i32>(&mut store, "random_get")?;
    random.call(&mut store, (5 * PAGE, 4))?;
    let cards = instance
        .get_memory(&mut store, vmsync_instrument::CARDS_EXPORT)
        .context("the cards")?;
    assert_eq!(cards.data(&store)[..8], [0, 0, 0, 0, 0, 1, 0, 0]);
    Ok(())
}
