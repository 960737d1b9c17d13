//! A check on the checker: with the marks of one kind of store left out, the differential run has to notice.

mod support;

use anyhow::Result;
use support::{Pair, engine};
use vmsync_instrument::{Analyses, Options, StoreKind, instrument_without};
use wasmtime::Val;

/// A store of each kind, each to a page of its own, not the first of the memory.
const MODULE: &str = r#"(module
    (import "wasi_snapshot_preview1" "random_get" (func $random_get (param i32 i32) (result i32)))
    (memory (export "memory") 8) (data $d "0123456789")
    (func (export "run") (param $a i32)
      (i32.store offset=4096 (local.get $a) (i32.const -1))
      (v128.store8_lane offset=20480 15 (local.get $a) (v128.const i64x2 -1 -1))
      (drop (i32.atomic.rmw.xchg offset=40960 (local.get $a) (i32.const -1)))
      (memory.fill (i32.add (local.get $a) (i32.const 61440)) (i32.const 1) (local.get $a))
      (memory.copy (i32.add (local.get $a) (i32.const 94208)) (i32.const 12288) (local.get $a))
      (memory.init $d (i32.add (local.get $a) (i32.const 122880)) (i32.const 0) (i32.const 9))
      (drop (call $random_get (i32.add (local.get $a) (i32.const 159744)) (i32.const 100)))))"#;

#[test]
fn a_missing_kind_of_mark_is_noticed() -> Result<()> {
    let wasm = wat::parse_str(MODULE)?;
    let engine = engine();
    for analyses in [Analyses::NONE, Analyses::ALL] {
        let options = Options {
            analyses,
            ..Options::default()
        };
        let mut pair = Pair::new(&engine, &wasm, &options, "memory")?;
        assert!(pair.call("run", &[Val::I32(8192)])?);
        for kind in StoreKind::ALL {
            let done = instrument_without(&wasm, &options, kind)?;
            let mut pair = Pair::of(&engine, &wasm, done, "memory")?;
            let found = pair.call("run", &[Val::I32(8192)]);
            let error = found.expect_err("a mark is missing").to_string();
            assert!(error.contains("without a mark"), "{kind:?}: {error}");
        }
    }
    Ok(())
}

/// A loop that stores to places all over memory: these marks look at their card first.
const SCATTER: &str = r#"(module
    (memory (export "memory") 64)
    (func (export "run") (param $state i32)
      (local $count i32)
      (local.set $count (i32.const 40))
      (loop $each
        (local.set $state (i32.add (i32.mul (local.get $state) (i32.const 1664525)) (i32.const 1013904223)))
        (i32.store (i32.shr_u (local.get $state) (i32.const 10)) (local.get $state))
        (br_if $each (local.tee $count (i32.sub (local.get $count) (i32.const 1)))))))"#;

#[test]
fn a_missing_mark_of_a_scattered_store_is_noticed() -> Result<()> {
    let (wasm, engine, options) = (wat::parse_str(SCATTER)?, engine(), Options::default());
    let mut pair = Pair::new(&engine, &wasm, &options, "memory")?;
    assert_eq!(pair.done.report.scattered, 1);
    // Cards that an earlier call set are clear again.
    for state in [1, 2, 1, 3] {
        assert!(pair.call("run", &[Val::I32(state)])?);
    }
    let done = instrument_without(&wasm, &options, StoreKind::Plain)?;
    let mut pair = Pair::of(&engine, &wasm, done, "memory")?;
    let error = pair
        .call("run", &[Val::I32(1)])
        .expect_err("a mark is missing")
        .to_string();
    assert!(error.contains("without a mark"), "{error}");
    Ok(())
}

#[test]
fn the_checker_knows_the_suspect_rule() {
    let cards = vmsync_instrument::CardsLocation {
        export: Some("cards"),
        memory: 1,
        tracked: 0,
        offset: 0,
        len: 4,
        page_size_shift: 12,
        suspect_bytes: 16,
    };
    let base = vec![0u8; 4 * 4096];
    let changed = |at: usize| {
        let mut now = base.clone();
        now[at] = 1;
        now
    };
    let check = |at: usize, table: [u8; 4]| support::check(&base, &changed(at), &table, &cards).is_ok();
    assert!(check(4095, [1, 0, 0, 0]) && check(4096, [0, 1, 0, 0]));
    assert!(check(4096 + 15, [1, 0, 0, 0]));
    assert!(!check(4096 + 16, [1, 0, 0, 0]));
    assert!(!check(4095, [0, 1, 0, 0]) && !check(4096, [0; 4]) && !check(8192, [1, 0, 0, 1]));
    assert!(!check(0, [0, 0, 0, 1]));
}
