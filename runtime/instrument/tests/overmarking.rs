//! Marks ahead of loops are no more than what the loops store to: every page that is marked and was not written costs the
//! collector a look and the pager a page.
//!
//! A loop that ends in a trap may have marks of pages that it did not get to; none lie outside the memory, unless it is in another
//! loop.

mod support;

use anyhow::{Context, Result, ensure};
use std::ops::Range;
use support::{Side, engine};
use vmsync_instrument::{Options, instrument};
use wasmtime::{Engine, Instance, Module, Store, Val};

/// Pages of the memory.
const PAGES: u64 = 64;

struct Case {
    name: &'static str,
    /// A function of three parameters of type i32, all free to use.
    body: &'static str,
    args: [i32; 3],
    /// The pages that are marked.
    marked: Range<u64>,
}

const CASES: &[Case] = &[
    Case {
        name: "counted by more than is left at the end, as copies are unrolled",
        body: "(loop $l
                 (i64.store (local.get 0) (i64.const 1))
                 (i64.store (i32.add (local.get 0) (i32.const 24)) (i64.const 1))
                 (local.set 0 (i32.add (local.get 0) (i32.const 32)))
                 (br_if $l (i32.gt_u (local.tee 1 (i32.add (local.get 1) (i32.const -32))) (i32.const 15))))",
        args: [8192, 32 * 100 + 7, 0],
        marked: 2..3,
    },
    Case {
        name: "left from a block within",
        body: "(loop $l
                 (i32.store8 (local.get 0) (i32.const 1))
                 (block $b
                   (br_if $b (i32.eq (local.get 0) (local.get 2)))
                   (local.set 0 (i32.add (local.get 0) (i32.const 1)))
                   (br_if $l (local.tee 1 (i32.sub (local.get 1) (i32.const 1))))))",
        args: [8192, 0, 8192 + 100],
        marked: 2..3,
    },
    Case {
        name: "up to the end of the memory",
        body: "(loop $l
                 (i32.store (local.get 0) (i32.const 1))
                 (local.set 0 (i32.add (local.get 0) (i32.const 4)))
                 (br_if $l (i32.ne (local.tee 1 (i32.add (local.get 1) (i32.const 3))) (i32.const 100))))",
        args: [8192 * 4, 0, 0],
        marked: 8..PAGES,
    },
    Case {
        name: "down to the begin of the memory",
        body: "(loop $l
                 (i64.store (local.get 0) (i64.const 1))
                 (local.set 0 (i32.sub (local.get 0) (i32.const 8)))
                 (br_if $l (i32.le_s (local.tee 1 (i32.add (local.get 1) (i32.const 1))) (i32.const 0x7fffffff))))",
        args: [20_000, 0, 0],
        marked: 0..5,
    },
    Case {
        name: "a step that is a value, to a bound that it does not meet",
        body: "(loop $l
                 (i32.store8 (local.get 0) (i32.const 1))
                 (br_if $l (i32.lt_u (local.tee 0 (i32.add (local.get 0) (local.get 1))) (local.get 2))))",
        args: [4096, 3, 4096 + 200],
        marked: 1..2,
    },
    Case {
        name: "offsets and differences beyond a page",
        body: "(loop $l
                 (i32.store offset=40960 (local.get 0) (i32.const 1))
                 (i32.store offset=40968 (i32.sub (local.get 0) (i32.const 4)) (i32.const 1))
                 (local.set 0 (i32.add (local.get 0) (i32.const 4)))
                 (br_if $l (local.tee 1 (i32.sub (local.get 1) (i32.const 1)))))",
        args: [64, 100, 0],
        marked: 10..11,
    },
    Case {
        name: "up, in another loop",
        body: "(loop (loop $l
                 (i64.store (local.get 0) (i64.const 1))
                 (local.set 0 (i32.add (local.get 0) (i32.const 8)))
                 (br_if $l (local.tee 1 (i32.sub (local.get 1) (i32.const 1))))))",
        args: [8192 + 4088, 2 * 512 + 1, 0],
        marked: 2..5,
    },
    Case {
        name: "down, in another loop",
        body: "(loop (loop $l
                 (i64.store (local.get 0) (i64.const 1))
                 (local.set 0 (i32.sub (local.get 0) (i32.const 8)))
                 (br_if $l (local.tee 1 (i32.sub (local.get 1) (i32.const 1))))))",
        args: [5 * 4096, 2 * 512 + 1, 0],
        marked: 3..6,
    },
    Case {
        name: "one page, in another loop",
        body: "(loop (loop $l
                 (i32.store8 offset=4096 (local.get 0) (i32.const 1))
                 (local.set 0 (i32.add (local.get 0) (i32.const 1)))
                 (br_if $l (i32.lt_s (local.get 0) (local.get 1)))))",
        args: [4096, 8192, 0],
        marked: 2..3,
    },
];

#[test]
fn loops_mark_what_they_store_to() -> Result<()> {
    for case in CASES {
        let text = format!(
            "(module (memory (export \"memory\") 4 4) (func (export \"run\") (param i32 i32 i32) {}))",
            case.body
        );
        check(case, &wat::parse_str(text)?).context(case.name)?;
    }
    Ok(())
}

fn check(case: &Case, wasm: &[u8]) -> Result<()> {
    let done = instrument(wasm, &Options::default())?;
    ensure!(
        done.report.loops == 1 || case.name.contains("block"),
        "the loop has no marks ahead of it"
    );
    let mut side = Side::new(&engine(), &done.wasm, "memory", Some(&done.cards))?;
    let ended = side.call("run", &case.args.map(Val::I32))?;
    ensure!(ended.is_some(), "the loop ends by itself");
    let marked = side.marked();
    let expected: Vec<u64> = case.marked.clone().collect();
    ensure!(
        marked == expected,
        "{} pages are marked, from {:?}",
        marked.len(),
        marked.first()
    );
    side.collect()
}

/// Where the memory fills the address space, nothing ends a loop that wraps.
#[test]
fn a_loop_goes_on_at_the_other_end_of_a_full_memory() -> Result<()> {
    let body = "(loop $l
                  (i32.store (local.get 0) (i32.const 1))
                  (local.set 0 (i32.add (local.get 0) (i32.const 4)))
                  (br_if $l (local.tee 1 (i32.sub (local.get 1) (i32.const 1)))))";
    goes_round(body)?;
    goes_round(&format!("(loop {body})"))
}

fn goes_round(body: &str) -> Result<()> {
    let wasm = wat::parse_str(format!(
        "(module (memory (export \"memory\") 65536) (func (export \"run\") (param i32 i32) {body}))"
    ))?;
    let done = instrument(&wasm, &Options::default())?;
    let engine = Engine::default();
    let mut store = Store::new(&engine, ());
    let instance = Instance::new(&mut store, &Module::new(&engine, &done.wasm)?, &[])?;
    let run = instance.get_typed_func::<(i32, i32), ()>(&mut store, "run")?;
    run.call(&mut store, (-2048, 1024))?;
    let cards = instance
        .get_memory(&mut store, vmsync_instrument::CARDS_EXPORT)
        .context("cards")?;
    let cards = cards.data(&store);
    assert!(cards[0] != 0 && cards[(1 << 20) - 1] != 0);
    Ok(())
}
