//! Random programs of loops, branches and stores keep their marks, and have few that they do not need.

mod support;

use anyhow::{Context, Result};
use std::mem::take;
use support::programs::{PARAMS, program};
use support::{Pair, Random, Side, count, engine, seed};
use vmsync_instrument::{Analyses, Options, instrument};
use wasmtime::Val;

#[test]
fn random_loops_keep_their_marks() -> Result<()> {
    let mut random = Random(seed("loops", 1));
    let engine = engine();
    let (mut hoisted, mut coalesced, mut scattered, mut stores, mut checked) = (0, 0, 0, 0, 0);
    let (mut stored, mut too_many) = (0, 0);
    for number in 0..count("FUZZ_LOOPS", 400) {
        let state = random.0;
        let text = program(&mut random);
        let context = || format!("program {number}, SEED={state}:\n{text}");
        let wasm = wat::parse_str(&text).with_context(context)?;
        let analyses = Analyses {
            shadow_stack: true,
            coalesce: random.below(4) > 0,
            hoist: random.below(4) > 0,
            scatter: random.below(4) > 0,
        };
        let suspect_bytes = [16, 64, 2048][random.below(3) as usize];
        let options = Options {
            analyses,
            suspect_bytes,
            ..Options::default()
        };
        let mut pair = Pair::new(&engine, &wasm, &options, "memory").with_context(context)?;
        hoisted += pair.done.report.hoisted;
        coalesced += pair.done.report.coalesced;
        scattered += pair.done.report.scattered;
        stores += pair.done.report.stores;
        let none = Options {
            analyses: Analyses::NONE,
            ..options.clone()
        };
        let plain_marks = instrument(&wasm, &none)?;
        let mut exact = Side::new(&engine, &plain_marks.wasm, "memory", Some(&plain_marks.cards))?;
        for _ in 0..4 {
            let args: Vec<Val> = (0..PARAMS)
                .map(|_| match random.below(4) {
                    0 => random.number() as i32,
                    1 => random.below(200) as i32,
                    _ => random.below(131_072) as i32,
                })
                .map(Val::I32)
                .collect();
            match pair
                .call("run", &args)
                .with_context(|| format!("{args:?}, {options:?}"))
                .with_context(context)?
            {
                true => checked += 1,
                // The two stopped at different places: nothing can be compared any more.
                false => break,
            }
            let ended = exact.call("run", &args)?;
            exact.collect()?;
            let [exact, marked] =
                [&mut exact, &mut pair.marked].map(|side| take(&mut side.store.data_mut().marked));
            // A loop that a trap ends has marks for what it did not get to.
            if let Some(Ok(_)) = ended {
                stored += exact.len();
                too_many += marked.difference(&exact).count();
            }
        }
    }
    println!("loops: {stored} pages stored to, {too_many} more marked");
    assert!(
        too_many < stored / 10,
        "{too_many} marks for {stored} pages are not needed"
    );
    println!(
        "loops: {stores} stores, {hoisted} hoisted, {coalesced} coalesced, {scattered} scattered, {checked} calls checked"
    );
    assert!(hoisted > 0 && coalesced > 0 && scattered > 0 && checked > 0);
    Ok(())
}

/// Behind the back edge a store runs once, when the loop is over: that the addresses before it trap proves nothing of it.
#[test]
fn a_store_behind_a_back_edge_is_marked() -> Result<()> {
    let wasm = wat::parse_str(
        r#"(module (memory (export "memory") 2)
          (func (export "up_to_zero") (param $i i32)
            (loop $l
              (local.set $i (i32.add (local.get $i) (i32.const 4)))
              (br_if $l (local.get $i))
              (i32.store offset=0x10000 (local.get $i) (i32.const 7))))
          (func (export "all_around") (param $i i32)
            (loop $l
              (local.set $i (i32.add (local.get $i) (i32.const 4096)))
              (br_if $l (i32.ne (local.get $i) (i32.const 0x3000)))
              (i32.store (local.get $i) (i32.const 7)))))"#,
    )?;
    for (function, from) in [("up_to_zero", -8192), ("all_around", -0x0fff_d000)] {
        let mut pair = Pair::new(&engine(), &wasm, &Options::default(), "memory")?;
        assert!(pair.call(function, &[Val::I32(from)]).context(function)?);
    }
    Ok(())
}
