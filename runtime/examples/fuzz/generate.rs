//! Modules, and what to call them with: from wasm-smith, and programs of loops that the instrumenter's tests generate.

#[path = "../../instrument/tests/support/programs.rs"]
mod programs;

use arbitrary::Unstructured;
pub use vmsync_pager_conformance::random::Random;
use wasm_smith::{Config, InstructionKind, InstructionKinds, Module};
use wasmtime::{FuncType, Val, ValType};

/// Most bytes of the one memory: a fill of all of it, in a loop, still ends soon.
const MEMORY_BYTES_MAX: u64 = 256 << 10;
/// How many loops and calls a module may go through.
const STEPS_MAX: u32 = 2000;

/// The module of a seed, as text or binary: one 32-bit memory and everything exported, no import but `host.collect`, a
/// function without parameters. `None`: the seed makes none.
pub fn module(random: &mut Random) -> Option<Vec<u8>> {
    if random.once_in(2) {
        return Some(programs::program(random).into_bytes());
    }
    let mut bytes = vec![0; 10_000 + random.below(50_000) as usize];
    random.fill(&mut bytes);
    let mut module = Module::new(config(random), &mut Unstructured::new(&bytes)).ok()?;
    module.ensure_termination(STEPS_MAX).ok()?;
    Some(module.to_bytes())
}

fn config(random: &mut Random) -> Config {
    use InstructionKind::{Control, Memory, Numeric, NumericInt, Parametric, Variable, Vector};
    let kinds: &[InstructionKind] = match random.below(3) {
        0 => &[Numeric, Vector, Parametric, Variable, Memory, Control],
        1 => &[NumericInt, Parametric, Variable, Memory, Control],
        _ => &[NumericInt, Variable, Memory, Control],
    };
    Config {
        max_imports: 0,
        min_memories: 1,
        max_memories: 1,
        min_funcs: 3,
        max_funcs: 8,
        max_types: 6,
        max_globals: 2,
        max_data_segments: 3,
        max_instructions: 1000,
        allowed_instructions: InstructionKinds::new(kinds),
        disallow_traps: !random.once_in(4),
        export_everything: true,
        allow_start_export: false,
        bulk_memory_enabled: true,
        multi_value_enabled: true,
        reference_types_enabled: true,
        simd_enabled: true,
        relaxed_simd_enabled: false,
        memory64_enabled: false,
        threads_enabled: false,
        tail_call_enabled: true,
        exceptions_enabled: false,
        gc_enabled: false,
        custom_page_sizes_enabled: false,
        max_memory32_bytes: MEMORY_BYTES_MAX,
        memory_max_size_required: true,
        memory_offset_choices: wasm_smith::MemoryOffsetChoices(95, 5, 0),
        ..Config::default()
    }
}

/// Arguments for a function, addresses among them. `None`: it takes what only a guest can make.
pub fn arguments(function: &FuncType, random: &mut Random) -> Option<Vec<Val>> {
    let value = |ty| {
        let any = random.number();
        let small = any >> 32 & 1 == 0;
        let number = if small { any % MEMORY_BYTES_MAX } else { any };
        Some(match ty {
            ValType::I32 => Val::I32(number as i32),
            ValType::I64 => Val::I64(number as i64),
            ValType::F32 => Val::F32(any as u32),
            ValType::F64 => Val::F64(any),
            other => Val::default_for_ty(&other)?,
        })
    };
    function.params().map(value).collect()
}
