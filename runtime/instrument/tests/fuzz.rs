//! Modules from wasm-smith: the instrumented module validates, behaves as the plain one, and marks what it changes.
//!
//! `FUZZ_MODULES` sets how many modules are made, `SEED` where to begin.

mod support;

use anyhow::{Context, Result};
use arbitrary::Unstructured;
use support::{Pair, Random, count, engine, seed, zero};
use vmsync_instrument::{Analyses, InstrumentError, InstrumentErrorKind, MemoryChoice, Options, instrument};
use wasm_smith::{Config, InstructionKind, InstructionKinds, Module};
use wasmtime::Val;

fn config(random: &mut Random) -> Config {
    use InstructionKind::*;
    let mostly_memory = [Numeric, Parametric, Variable, Memory, Control];
    let kinds: &[InstructionKind] = match random.below(3) {
        0 => &[
            Numeric, Vector, Reference, Parametric, Variable, Table, Memory, Control, Aggregate,
        ],
        1 => &[NumericInt, VectorInt, Parametric, Variable, Memory, Control],
        _ => &mostly_memory,
    };
    let (memories, threads) = (1 + random.below(3) as usize, random.below(4) == 0);
    Config {
        max_imports: 0,
        min_memories: 1,
        max_memories: memories,
        min_funcs: 1,
        max_funcs: 8,
        max_types: 8,
        max_globals: 4,
        max_tables: 2,
        max_tags: 2,
        max_data_segments: 3,
        max_element_segments: 2,
        max_instructions: 400,
        allowed_instructions: InstructionKinds::new(kinds),
        disallow_traps: random.below(2) == 0,
        export_everything: true,
        allow_start_export: random.below(4) == 0,
        bulk_memory_enabled: true,
        multi_value_enabled: true,
        reference_types_enabled: true,
        simd_enabled: random.below(2) == 0,
        relaxed_simd_enabled: random.below(4) == 0,
        memory64_enabled: random.below(3) == 0,
        threads_enabled: threads,
        tail_call_enabled: true,
        exceptions_enabled: random.below(2) == 0,
        gc_enabled: random.below(3) == 0,
        wide_arithmetic_enabled: random.below(4) == 0,
        extended_const_enabled: true,
        custom_page_sizes_enabled: false,
        max_memory32_bytes: 4 << 20,
        max_memory64_bytes: 4 << 20,
        memory_max_size_required: true,
        memory_offset_choices: wasm_smith::MemoryOffsetChoices(90, 9, 1),
        ..Config::default()
    }
}

fn options(random: &mut Random) -> Options {
    let bit = |random: &mut Random| random.below(4) > 0;
    Options {
        memory: MemoryChoice::Index(0),
        page_size_shift: 12 + random.below(3) as u32,
        analyses: Analyses {
            shadow_stack: bit(random),
            coalesce: bit(random),
            hoist: bit(random),
            scatter: bit(random),
        },
        suspect_bytes: [16, 64][random.below(2) as usize],
        ..Options::default()
    }
}

/// The name under which memory 0 is exported, if it is one that the checker can read.
fn memory_name(wasm: &[u8]) -> Option<String> {
    let engine = engine();
    let module = wasmtime::Module::new(&engine, wasm).ok()?;
    let shared = module
        .exports()
        .any(|e| e.ty().memory().is_some_and(|memory| memory.is_shared()));
    let names: Vec<_> = module
        .exports()
        .filter(|e| e.ty().memory().is_some())
        .map(|e| e.name().to_string())
        .collect();
    let choice = |name: &String| {
        let by_name = Options {
            memory: MemoryChoice::Export(name.clone()),
            ..Options::default()
        };
        instrument(wasm, &by_name).is_ok_and(|done| done.cards.tracked == 0)
    };
    names.into_iter().find(choice).filter(|_| !shared)
}

fn arguments(function: &wasmtime::FuncType, random: &mut Random) -> Option<Vec<Val>> {
    function
        .params()
        .map(|ty| {
            let any = random.number();
            Some(match ty {
                wasmtime::ValType::I32 => Val::I32(if any & 1 == 0 {
                    random.below(70_000) as i32
                } else {
                    any as i32
                }),
                wasmtime::ValType::I64 => Val::I64(if any & 1 == 0 {
                    random.below(70_000) as i64
                } else {
                    any as i64
                }),
                wasmtime::ValType::F32 => Val::F32(any as u32),
                wasmtime::ValType::F64 => Val::F64(any),
                ty => zero(&ty)?,
            })
        })
        .collect()
}

/// Runs every exported function of one module. Returns how many calls were compared.
fn differential(wasm: &[u8], memory: &str, options: &Options, random: &mut Random) -> Result<u64> {
    let done = instrument(wasm, options)?;
    let engine = engine();
    let Ok(mut pair) = Pair::of(&engine, wasm, done, memory) else {
        // Instantiation may trap; then both must.
        let plain = support::Side::new(&engine, wasm, memory, None).is_err();
        anyhow::ensure!(plain, "only the instrumented module fails to instantiate");
        return Ok(0);
    };
    let functions: Vec<(String, wasmtime::FuncType)> = wasmtime::Module::new(&engine, wasm)?
        .exports()
        .filter_map(|export| Some((export.name().to_string(), export.ty().func()?.clone())))
        .collect();
    let mut compared = 0;
    for (name, ty) in functions {
        for _ in 0..3 {
            let Some(args) = arguments(&ty, random) else { break };
            if !pair
                .call(&name, &args)
                .with_context(|| format!("calling {name} with {args:?}"))?
            {
                return Ok(compared);
            }
            compared += 1;
        }
    }
    Ok(compared)
}

#[test]
fn generated_modules_behave_the_same() -> Result<()> {
    let mut random = Random(seed("fuzz", 1));
    let (mut run, mut compared, mut stores, mut refused) = (0, 0, 0, 0);
    for number in 0..count("FUZZ_MODULES", 400) {
        let state = random.0;
        let config = config(&mut random);
        let len = 4000 + random.below(16_000) as usize;
        let bytes = random.bytes(len);
        let options = options(&mut random);
        let Ok(mut module) = Module::new(config, &mut Unstructured::new(&bytes)) else {
            continue;
        };
        let _ = module.ensure_termination(100_000);
        let wasm = module.to_bytes();
        let context = || format!("module {number}, SEED={state}, {options:?}");
        match instrument(&wasm, &options) {
            Ok(done) => stores += done.report.stores,
            Err(error) => {
                anyhow::ensure!(
                    error.kind() != InstrumentErrorKind::Internal,
                    "{error}, {}",
                    context()
                );
                refused += 1;
                continue;
            }
        }
        let Some(memory) = memory_name(&wasm) else {
            continue;
        };
        run += 1;
        compared += differential(&wasm, &memory, &options, &mut random).with_context(context)?;
    }
    println!("fuzz: {run} modules run, {stores} stores, {compared} calls compared, {refused} refused");
    assert!(run > 0 && compared > 0);
    Ok(())
}

#[test]
fn broken_bytes_never_panic() {
    let mut random = Random(seed("robustness", 7));
    let (mut errors, mut fine) = (0u64, 0u64);
    let mut judge = |bytes: &[u8]| match instrument(bytes, &Options::default()) {
        Ok(_) => fine += 1,
        Err(error) => {
            assert_ne!(error.kind(), InstrumentErrorKind::Internal, "{error}");
            errors += 1;
        }
    };
    let seedling = wat::parse_str(include_str!("robustness.wat")).expect("the file is valid");
    for len in 0..seedling.len() {
        judge(&seedling[..len]);
    }
    for _ in 0..count("FUZZ_MODULES", 400) * 20 {
        let mut bytes = seedling.clone();
        for _ in 0..1 + random.below(6) {
            let at = random.below(bytes.len() as u64) as usize;
            match random.below(4) {
                0 => bytes[at] = random.number() as u8,
                1 => bytes[at] ^= 1 << random.below(8),
                2 => bytes.insert(at, random.number() as u8),
                _ => drop(bytes.remove(at)),
            }
        }
        judge(&bytes);
        let len = random.below(60) as usize;
        let noise = random.bytes(len);
        judge(&[&seedling[..8], &noise].concat());
        judge(&noise);
    }
    println!("robustness: {errors} errors, {fine} accepted");
    assert!(errors > 0 && fine > 0);
}

#[test]
fn a_component_and_an_instrumented_module_are_refused() -> Result<()> {
    let component = wat::parse_str("(component)")?;
    assert!(matches!(
        instrument(&component, &Options::default()),
        Err(InstrumentError::Component)
    ));
    let wasm = wat::parse_str(include_str!("robustness.wat"))?;
    let once = instrument(&wasm, &Options::default())?;
    let twice = instrument(&once.wasm, &Options::default());
    assert!(matches!(twice, Err(InstrumentError::AlreadyInstrumented { .. })));
    Ok(())
}
