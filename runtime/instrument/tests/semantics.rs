//! Every form of store, run: marks cover what changed, and nothing else differs from the plain module.

mod support;

use anyhow::{Context, Result};
use support::{Pair, Side, engine};
use vmsync_instrument::{Analyses, Cards, MemoryChoice, Options, instrument};
use wasmtime::Val;

/// Addresses around the borders of pages and of a memory of two Wasm pages.
const ADDRESSES: [u32; 16] = [
    0,
    1,
    4080,
    4088,
    4092,
    4094,
    4095,
    4096,
    8191,
    65535,
    65536,
    131_056,
    131_068,
    131_071,
    131_072,
    0xffff_ffff,
];

fn variants() -> Vec<Options> {
    let mut all = Vec::new();
    for analyses in [
        Analyses::NONE,
        Analyses {
            coalesce: true,
            ..Analyses::NONE
        },
        Analyses {
            hoist: true,
            ..Analyses::NONE
        },
        Analyses {
            scatter: true,
            ..Analyses::NONE
        },
        Analyses::ALL,
    ] {
        for page_size_shift in [12, 14] {
            all.push(Options {
                analyses,
                page_size_shift,
                ..Options::default()
            });
        }
    }
    all
}

/// Runs a body, a function of an address in local 0, for all addresses and options.
fn run(memory: &str, ty: &str, body: &str) -> Result<()> {
    let text = format!(
        r#"(module (import "host" "collect" (func $collect)) (memory (export "memory") {memory})
             (data $d "some bytes to initialize a memory with")
             (func (export "run") (param $a {ty}) (local $b {ty}) {body}))"#
    );
    let wasm = wat::parse_str(&text)?;
    let engine = engine();
    for options in variants() {
        let mut pair = Pair::new(&engine, &wasm, &options, "memory")?;
        for address in ADDRESSES {
            let value = if ty == "i64" {
                Val::I64(i64::from(address))
            } else {
                Val::I32(address as i32)
            };
            let ended = pair
                .call("run", &[value])
                .map_err(|error| error.context(format!("{body} at {address:#x}, {options:?}")))?;
            assert!(ended, "{body} at {address:#x}");
        }
    }
    Ok(())
}

fn stores(ty: &str) -> Vec<String> {
    let mut all = Vec::new();
    for (ops, value) in [
        (&["i32.store", "i32.store8", "i32.store16"][..], "(i32.const -2)"),
        (
            &["i64.store", "i64.store8", "i64.store16", "i64.store32"],
            "(i64.const -2)",
        ),
        (&["f32.store"], "(f32.const -1.5)"),
        (&["f64.store"], "(f64.const -1.5)"),
        (&["v128.store"], "(v128.const i64x2 -2 -3)"),
    ] {
        for op in ops {
            for offset in [0u64, 1, 4095, 70_000, 0xffff_ffff] {
                all.push(format!("({op} offset={offset} (local.get $a) {value})"));
            }
            // The operand is not in a local, the local changes in between, the address is a constant.
            all.push(format!("({op} ({ty}.add (local.get $a) (local.get $a)) {value})"));
            all.push(format!(
                "(local.get $a) (local.set $a ({ty}.const 9)) {value} {op}"
            ));
            all.push(format!("({op} offset=3 ({ty}.const 65000) {value})"));
            all.push(format!("(block (result {ty}) (local.get $a)) {value} {op}"));
        }
    }
    for (op, lane) in [("8", 15), ("16", 7), ("32", 3), ("64", 1)] {
        all.push(format!(
            "(v128.store{op}_lane offset=2 {lane} (local.get $a) (v128.const i64x2 -2 -3))"
        ));
    }
    all
}

#[test]
fn stores_are_marked() -> Result<()> {
    for body in stores("i32") {
        run("2 3", "i32", &body)?;
    }
    Ok(())
}

#[test]
fn stores_to_a_64_bit_memory_are_marked() -> Result<()> {
    for body in stores("i64") {
        run("i64 2 3", "i64", &body)?;
    }
    run(
        "i64 2",
        "i64",
        "(i64.store offset=0xffffffffffff (local.get $a) (i64.const 1))",
    )
}

#[test]
fn atomics_are_marked() -> Result<()> {
    for (ty, suffixes) in [("i32", &["", "8", "16"][..]), ("i64", &["", "8", "16", "32"])] {
        for suffix in suffixes {
            run(
                "2",
                "i32",
                &format!("({ty}.atomic.store{suffix} (local.get $a) ({ty}.const -2))"),
            )?;
            let unsigned = if suffix.is_empty() { "" } else { "_u" };
            for op in ["add", "sub", "and", "or", "xor", "xchg"] {
                let name = format!("{ty}.atomic.rmw{suffix}.{op}{unsigned}");
                run(
                    "2",
                    "i32",
                    &format!("(drop ({name} offset=8 (local.get $a) ({ty}.const 77)))"),
                )?;
            }
            let name = format!("{ty}.atomic.rmw{suffix}.cmpxchg{unsigned}");
            run(
                "2",
                "i32",
                &format!("(drop ({name} (local.get $a) ({ty}.const 0) ({ty}.const 5)))"),
            )?;
        }
    }
    // The old value is an address in turn.
    run(
        "2",
        "i32",
        "(i32.store (i32.atomic.rmw.add (local.get $a) (i32.const 4096)) (i32.const 1))",
    )
}

#[test]
fn bulk_stores_are_marked() -> Result<()> {
    for (memory, ty) in [("2 3", "i32"), ("i64 2 3", "i64")] {
        for len in [0u32, 1, 15, 17, 4096, 4097, 4098, 40_000, 66_000] {
            let dynamic = format!("(local.set $b ({ty}.const {len}))");
            for (setup, len) in [
                ("", format!("({ty}.const {len})")),
                (dynamic.as_str(), "(local.get $b)".into()),
            ] {
                run(
                    memory,
                    ty,
                    &format!("{setup} (memory.fill (local.get $a) (i32.const 7) {len})"),
                )?;
                run(
                    memory,
                    ty,
                    &format!("{setup} (memory.copy (local.get $a) ({ty}.const 3) {len})"),
                )?;
            }
        }
    }
    for len in [0, 1, 20, 38, 39] {
        run(
            "2",
            "i32",
            &format!("(memory.init $d (local.get $a) (i32.const 0) (i32.const {len}))"),
        )?;
        let dynamic = format!("(local.set $b (i32.const {len}))");
        run(
            "2",
            "i32",
            &format!("{dynamic} (memory.init $d (local.get $a) (i32.const 0) (local.get $b))"),
        )?;
    }
    Ok(())
}

#[test]
fn only_the_tracked_memory_is_marked() -> Result<()> {
    let wasm = wat::parse_str(
        r#"(module (memory 1) (memory (export "memory") 2) (memory i64 1)
             (func (export "other") (param i32)
               (i32.store 0 (local.get 0) (i32.const 1))
               (i64.store 2 (i64.extend_i32_u (local.get 0)) (i64.const 1))
               (memory.copy 0 1 (local.get 0) (i32.const 0) (i32.const 9)))
             (func (export "run") (param i32)
               (i32.store 1 (local.get 0) (i32.const 1))
               (i32.store8 0 (i32.const 5) (i32.const 33))
               (memory.copy 1 0 (local.get 0) (i32.const 0) (i32.const 9))
               (memory.copy 1 2 (local.get 0) (i64.const 0) (i32.load8_u 0 (i32.const 5)))))"#,
    )?;
    for options in variants() {
        let mut pair = Pair::new(&engine(), &wasm, &options, "memory")?;
        for address in [0, 4095, 65535 - 4] {
            pair.marked.call("other", &[Val::I32(address)])?;
            assert_eq!(pair.marked.marked(), []);
            pair.plain.call("other", &[Val::I32(address)])?;
            assert!(pair.call("run", &[Val::I32(address)])?);
        }
    }
    Ok(())
}

#[test]
fn marks_are_exact_without_analyses() -> Result<()> {
    let wasm = wat::parse_str(
        r#"(module (memory (export "memory") 2)
             (func (export "run") (param i32) (i32.store offset=4 (local.get 0) (i32.const 1)))
             (func (export "fill") (param i32 i32)
               (memory.fill (local.get 0) (i32.const 1) (local.get 1))))"#,
    )?;
    let options = Options {
        analyses: Analyses::NONE,
        ..Options::default()
    };
    let mut pair = Pair::new(&engine(), &wasm, &options, "memory")?;
    for (address, expected) in [
        (0, vec![0]),
        (4095, vec![1]),
        (131_064, vec![31]),
        (131_065, vec![]),
        (-1, vec![]),
    ] {
        pair.marked.rebase();
        let _ = pair.marked.call("run", &[Val::I32(address)])?;
        assert_eq!(pair.marked.marked(), expected, "{address}");
    }
    for (address, len, expected) in [
        (0, 0, vec![]),
        (4095, 1, vec![0]),
        (4095, 2, vec![0, 1]),
        (8192, 12289, vec![2, 3, 4, 5]),
        (131_072, 0, vec![]),
        // It traps, and has marks all the same.
        (131_071, 2, vec![31, 32]),
    ] {
        pair.marked.rebase();
        let _ = pair.marked.call("fill", &[Val::I32(address), Val::I32(len)])?;
        assert_eq!(pair.marked.marked(), expected, "{address} {len}");
    }
    Ok(())
}

#[test]
fn dead_code_stays_valid() -> Result<()> {
    run(
        "2",
        "i32",
        "(return) (i32.store) (i32.const 1) (i32.store) (drop)",
    )?;
    run(
        "2",
        "i32",
        "(block (br 0) (f64.store (f64.const 1)) (memory.fill)) (i32.store (local.get $a) (i32.const 1))",
    )?;
    run(
        "2",
        "i32",
        "(loop (br 1) (block (param i32) (i32.const 4) (i32.store))) (unreachable)",
    )?;
    run(
        "2",
        "i32",
        "(unreachable) (block (i32.store (i32.const 1) (i32.const 2)))",
    )
}

#[test]
fn values_may_call_and_store_too() -> Result<()> {
    let wasm = wat::parse_str(
        r#"(module (import "host" "collect" (func $collect)) (memory (export "memory") 2)
             (func $next (param i32) (result i32)
               (i32.store (local.get 0) (i32.const 6)) (call $collect)
               (i32.add (local.get 0) (i32.const 4096)))
             (func (export "run") (param $a i32)
               (i32.store (call $next (local.get $a))
                 (i32.atomic.rmw.add (call $next (i32.const 0))
                   (if (result i32) (local.get $a)
                     (then (i32.store (i32.add (local.get $a) (local.get $a)) (i32.const 5)) (call $collect) (i32.const 1))
                     (else (i32.const 2))))))
             (func (export "memory64free") (param $a i32) (local $i i32)
               (loop $l (param)
                 (i32.store (call $next (local.get $i)) (call $next (local.get $i)))
                 (local.set $i (i32.add (local.get $i) (i32.const 640)))
                 (br_if $l (i32.lt_u (local.get $i) (local.get $a))))))"#,
    )?;
    for options in variants() {
        let mut pair = Pair::new(&engine(), &wasm, &options, "memory")?;
        for address in [0, 4, 4092, 4096, 30_000, 131_071] {
            assert!(pair.call("run", &[Val::I32(address)])?);
            assert!(pair.call("memory64free", &[Val::I32(address)])?);
        }
    }
    Ok(())
}

#[test]
fn cards_may_lie_in_the_memory_itself() -> Result<()> {
    let wasm = wat::parse_str(
        r#"(module (memory (export "memory") 20)
             (func (export "run") (param i32)
               (i64.store offset=6 (local.get 0) (i64.const -1))
               (memory.fill (local.get 0) (i32.const 7) (i32.const 9000))))"#,
    )?;
    let options = Options {
        cards: Cards::Inline { offset: 2 * 65536 },
        ..Options::default()
    };
    let mut pair = Pair::new(&engine(), &wasm, &options, "memory")?;
    for address in [0, 4090, 65536, 131_072 - 9000, 1_200_000, 1_310_700] {
        assert!(pair.call("run", &[Val::I32(address)])?);
    }
    Ok(())
}

#[test]
fn growing_memories_stay_covered() -> Result<()> {
    let wasm = wat::parse_str(
        r#"(module (memory (export "memory") 1 200)
             (func (export "run") (param i32) (result i32)
               (memory.grow (local.get 0))
               (i32.store (i32.sub (i32.mul (memory.size) (i32.const 65536)) (i32.const 4)) (i32.const 9))))"#,
    )?;
    let mut pair = Pair::new(&engine(), &wasm, &Options::default(), "memory")?;
    for pages in [0, 1, 100, 100, 50] {
        assert!(pair.call("run", &[Val::I32(pages)])?);
    }
    Ok(())
}

#[test]
fn modern_modules_are_handled() -> Result<()> {
    let wasm = wat::parse_str(
        r#"(module $m (type $s (struct (field (mut i32)))) (type $f (func (param i32)))
             (import "host" "collect" (func $collect))
             (memory (export "memory") 2) (table $t i64 1 funcref) (tag $e (param i32)) (global $g (mut i32) (i32.const 0))
             (elem (table $t) (i64.const 0) func $throws)
             (data (i32.const 8) "active") (start $begin)
             (func $begin (i32.store (i32.const 4096) (i32.const 5)))
             (func $throws (param i32) (i32.store (local.get 0) (i32.const 1)) (throw $e (local.get 0)))
             (func (export "run") (param $a i32) (result i32)
               (block $caught (result i32)
                 (try_table (catch $e $caught)
                   (i32.store offset=8 (local.get $a) (i32.const 3))
                   (call_indirect $t (type $f) (local.get $a) (i64.const 0)))
                 (i32.const 0))
               (i32.store offset=4096 (local.get $a) (i32.const 4))
               (drop (struct.new $s (local.get $a))))
             (func (export "tail") (param $a i32)
               (i32.store16 (local.get $a) (i32.const 4)) (return_call $throws (local.get $a))))"#,
    )?;
    for options in variants() {
        let mut pair = Pair::new(&engine(), &wasm, &options, "memory")?;
        for address in [0, 4090, 126_900, 131_000, 131_072] {
            assert!(pair.call("run", &[Val::I32(address)])?);
            assert!(pair.call("tail", &[Val::I32(address)])?);
        }
    }
    Ok(())
}

#[test]
fn what_is_stored_before_fuel_ends_is_marked() -> Result<()> {
    for (memory, ty) in [("2", "i32"), ("i64 2", "i64")] {
        for body in [
            "(memory.fill (local.get $at) (local.get $byte) (local.get $len))",
            "(i32.store8 (local.get $at) (local.get $byte))
             (memory.copy (local.get $to) (local.get $at) (local.get $len))",
            "(memory.init $d (local.get $at) (i32.const 0) (i32.const 38)) (i32.store (local.get $to) (local.get $byte))
             (memory.fill (local.get $at) (local.get $byte) (local.get $len))",
        ] {
            let wasm = wat::parse_str(format!(
                r#"(module (memory (export "memory") {memory}) (data $d "some bytes to initialize a memory with")
                     (func (export "run") (param $at {ty}) (param $to {ty}) (param $len {ty}) (param $byte i32) {body}))"#
            ))?;
            let value = |number| match ty {
                "i64" => Val::I64(number),
                _ => Val::I32(number as i32),
            };
            for analyses in [Analyses::NONE, Analyses::ALL] {
                let options = Options {
                    analyses,
                    ..Options::default()
                };
                let done = instrument(&wasm, &options)?;
                let mut side = Side::new(&engine(), &done.wasm, "memory", Some(&done.cards))?;
                let args = [value(3000), value(50_000), value(30_000)];
                side.collect_wherever_fuel_ends("run", &args)
                    .with_context(|| format!("{body} {memory}"))?;
            }
        }
    }
    Ok(())
}

#[test]
fn a_memory_may_be_chosen_by_index() -> Result<()> {
    let wasm = wat::parse_str(
        r#"(module (memory 1) (memory (export "second") 1)
             (func (export "run") (param i32) (i32.store 1 (local.get 0) (i32.const 1))))"#,
    )?;
    let options = Options {
        memory: MemoryChoice::Index(1),
        ..Options::default()
    };
    let mut pair = Pair::new(&engine(), &wasm, &options, "second")?;
    assert!(pair.call("run", &[Val::I32(5000)])?);
    Ok(())
}
