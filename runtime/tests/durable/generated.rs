//! Modules from wasm-smith: one that is restored before every call does what one that just goes on does.
//!
//! `FUZZ_MODULES` sets how many modules are made, `SEED` where to begin.

use std::sync::Arc;

use arbitrary::Unstructured;
use vmsync::{Error, Grant, Sandbox};
use vmsync_pager_conformance::random::Random;
use vmsync_pager_memory::MemoryPager;
use wasm_smith::{Config, Module};
use wasmtime::{Engine, Func, Instance, Store, Val, ValType};

use crate::harness::{rig::name, rungs};

fn config(random: &mut Random) -> Config {
    Config {
        max_imports: 0,
        min_funcs: 1,
        max_funcs: 8,
        max_memories: 1,
        min_globals: 1,
        max_globals: 6,
        max_tables: 2,
        max_data_segments: 4,
        max_element_segments: 4,
        max_instructions: 300,
        disallow_traps: !random.once_in(3),
        export_everything: true,
        allow_start_export: true,
        bulk_memory_enabled: true,
        reference_types_enabled: true,
        simd_enabled: random.once_in(2),
        memory64_enabled: random.once_in(3),
        exceptions_enabled: false,
        gc_enabled: false,
        threads_enabled: false,
        custom_page_sizes_enabled: false,
        canonicalize_nans: true,
        max_memory32_bytes: 4 << 20,
        max_memory64_bytes: 4 << 20,
        max_table_elements: 1000,
        memory_max_size_required: true,
        table_max_size_required: true,
        ..Config::default()
    }
}

fn arguments(types: &[ValType], random: &mut Random) -> Option<Vec<Val>> {
    let argument = |ty: &ValType| {
        let any = random.number();
        Some(match ty {
            ValType::I32 => Val::I32((any % 70_000) as i32),
            ValType::I64 => Val::I64((any % 70_000) as i64),
            ValType::F32 => Val::F32(1.5_f32.to_bits()),
            ValType::F64 => Val::F64(2.5_f64.to_bits()),
            ValType::V128 => Val::V128(u128::from(any).into()),
            ValType::Ref(_) => return None,
        })
    };
    types.iter().map(argument).collect()
}

/// Results or a trap, as words that do not say where a reference points.
fn words<E>(called: Result<Vec<Val>, E>) -> Option<Vec<String>> {
    let word = |value: Val| match value {
        Val::FuncRef(function) => format!("function {}", function.is_some()),
        other => format!("{other:?}"),
    };
    Some(called.ok()?.into_iter().map(word).collect())
}

fn call_plain(store: &mut Store<()>, function: Func, arguments: &[Val]) -> Option<Vec<String>> {
    let mut results = vec![Val::I32(0); function.ty(&*store).results().len()];
    let called = function.call(store, arguments, &mut results);
    words(called.map(|()| results))
}

/// Compares every exported function; how many calls were compared, or `None` where the module cannot be kept or run.
fn compare(wasm: &[u8], random: &mut Random) -> Option<usize> {
    let kind = rungs()[random.below(rungs().len() as u64) as usize];
    let pager = Arc::new(MemoryPager::default());
    let open = || {
        let sandbox = Sandbox::builder().tracker(kind).build().expect("an engine");
        sandbox.durable(wasm, Grant::new(pager.clone(), name("a")))
    };
    let opened = open();
    if matches!(opened, Err(Error::Durable(_))) {
        return None;
    }
    let engine = Engine::default();
    let mut store = Store::new(&engine, ());
    let module = wasmtime::Module::new(&engine, wasm).ok()?;
    let Ok(plain) = Instance::new(&mut store, &module, &[]) else {
        assert!(opened.is_err(), "only the plain module fails to begin");
        return None;
    };
    drop(opened.unwrap_or_else(|error| panic!("{kind}: only the durable instance fails to begin: {error}")));
    let functions: Vec<_> = module
        .exports()
        .filter_map(|it| Some((it.name(), it.ty().func()?.clone())))
        .collect();
    let mut compared = 0;
    for (name, ty) in functions.iter().chain(&functions) {
        let types: Vec<_> = ty.params().collect();
        let Some(arguments) = arguments(&types, random) else {
            continue;
        };
        let function = plain.get_func(&mut store, name).expect("it is exported");
        let expected = call_plain(&mut store, function, &arguments);
        let mut restored = open().unwrap_or_else(|error| panic!("{kind}: {error}"));
        let called = words(restored.step(|calls| {
            let function = calls.function(name)?;
            let mut results = vec![Val::I32(0); ty.results().len()];
            function.call(calls.store(), &arguments, &mut results)?;
            Ok(results)
        }));
        assert_eq!(called, expected, "{kind}: {name} {arguments:?}");
        if called.is_none() {
            break;
        }
        compared += 1;
    }
    Some(compared)
}

#[test]
fn generated_modules_are_restored_exactly() {
    let mut random = Random::from_environment("generated_modules_are_restored_exactly");
    let modules = std::env::var("FUZZ_MODULES")
        .ok()
        .and_then(|count| count.parse().ok())
        .unwrap_or(150);
    let (mut kept, mut compared) = (0, 0);
    for _ in 0..modules {
        let config = config(&mut random);
        let mut bytes = vec![0; 4000 + random.below(8000) as usize];
        random.fill(&mut bytes);
        let Ok(mut module) = Module::new(config, &mut Unstructured::new(&bytes)) else {
            continue;
        };
        let _ = module.ensure_termination(20_000);
        if let Some(calls) = compare(&module.to_bytes(), &mut random) {
            kept += 1;
            compared += calls;
        }
    }
    println!("{kept} of {modules} modules kept, {compared} calls compared");
    assert!(kept > 0 && compared > 0);
}
