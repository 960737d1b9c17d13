//! What the store barrier costs: kernels run plain and instrumented in turns, medians compared.
//!
//! ```text
//! cargo run --release -p vmsync-instrument --example barrier_cost [-- MODULE.wasm ...]
//! ```
//!
//! The kernels are `examples/kernels/kernels.wat`; with `clang-19` on the path also `kernels.c`, built on the fly. Each further
//! module that is named has its functions without parameters run, or is only measured in size if it imports something. `ROUNDS` sets how often each kernel
//! runs (default 9), `ONLY` a part of the names of those that do.
//!
//! Every variant of a kernel has to return what the plain one returns.

use anyhow::{Context, Result, ensure};
use std::process::Command;
use std::time::{Duration, Instant};
use vmsync_instrument::{Analyses, Options, instrument};
use wasmtime::{Config, Engine, Module, Store, Val};

struct Variant {
    name: &'static str,
    options: Options,
}

fn variants() -> Vec<Variant> {
    let with = |analyses, suspect_bytes| Options {
        analyses,
        suspect_bytes,
        ..Options::default()
    };
    let none = Analyses::NONE;
    vec![
        Variant {
            name: "both ends",
            options: with(none, 0),
        },
        Variant {
            name: "one mark",
            options: with(none, 16),
        },
        Variant {
            name: "+stack",
            options: with(
                Analyses {
                    shadow_stack: true,
                    ..none
                },
                16,
            ),
        },
        Variant {
            name: "+coalesce",
            options: with(
                Analyses {
                    shadow_stack: true,
                    coalesce: true,
                    ..none
                },
                16,
            ),
        },
        Variant {
            name: "+hoist",
            options: with(Analyses::ALL, 16),
        },
        Variant {
            name: "suspect 64",
            options: with(Analyses::ALL, 64),
        },
    ]
}

struct Input {
    name: String,
    wasm: Vec<u8>,
}

fn inputs() -> Result<Vec<Input>> {
    let kernels = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/kernels");
    let mut inputs = vec![Input {
        name: "wat".into(),
        wasm: wat::parse_file(format!("{kernels}/kernels.wat"))?,
    }];
    let out = std::env::temp_dir().join(format!("barrier_cost-{}.wasm", std::process::id()));
    let clang = Command::new("clang-19")
        .args([
            "--target=wasm32",
            "-O2",
            "-nostdlib",
            "-mbulk-memory",
            "-Wl,--no-entry",
            "-Wl,--export-memory",
            "-o",
        ])
        .arg(&out)
        .arg(format!("{kernels}/kernels.c"))
        .status();
    match clang {
        Ok(status) if status.success() => {
            inputs.push(Input {
                name: "c".into(),
                wasm: std::fs::read(&out)?,
            });
            std::fs::remove_file(&out)?;
        }
        _ => println!("no clang-19: the kernels in C are left out"),
    }
    for path in std::env::args().skip(1) {
        let name = path
            .rsplit('/')
            .next()
            .unwrap_or(&path)
            .trim_end_matches(".wasm")
            .to_string();
        inputs.push(Input {
            name,
            wasm: std::fs::read(&path).with_context(|| path.clone())?,
        });
    }
    Ok(inputs)
}

/// Runs one export in a fresh instance: how long, and what it returned.
fn run(engine: &Engine, module: &Module, export: &str) -> Result<(Duration, Vec<u64>)> {
    let mut store = Store::new(engine, ());
    let instance = wasmtime::Instance::new(&mut store, module, &[])?;
    let function = instance
        .get_func(&mut store, export)
        .context("the export is a function")?;
    let mut results = vec![Val::I64(0); function.ty(&store).results().len()];
    let begin = Instant::now();
    function.call(&mut store, &[], &mut results)?;
    let took = begin.elapsed();
    let bits = |value: &Val| match value {
        Val::I32(value) => *value as u64,
        Val::I64(value) => *value as u64,
        Val::F64(bits) => *bits,
        _ => 0,
    };
    Ok((took, results.iter().map(bits).collect()))
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64()
}

fn main() -> Result<()> {
    let mut config = Config::new();
    config.wasm_multi_memory(true);
    let engine = Engine::new(&config)?;
    let variants = variants();
    let rounds: usize = std::env::var("ROUNDS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(9);
    let only = std::env::var("ONLY").unwrap_or_default();
    print!("{:<22}{:>9}", "kernel", "plain ms");
    variants.iter().for_each(|variant| print!("{:>11}", variant.name));
    println!();
    let mut ratios: Vec<Vec<f64>> = vec![Vec::new(); variants.len()];
    let mut sizes = Vec::new();
    for input in inputs()? {
        let plain = Module::new(&engine, &input.wasm)?;
        let mut marked = Vec::new();
        for variant in &variants {
            let done = instrument(&input.wasm, &variant.options)?;
            sizes.push((
                input.name.clone(),
                variant.name,
                done.report.clone(),
                done.wasm.len(),
            ));
            marked.push(Module::new(&engine, &done.wasm)?);
        }
        let runs = plain.imports().len() == 0;
        let exports: Vec<String> = plain
            .exports()
            .filter(|_| runs)
            .filter(|export| {
                export
                    .ty()
                    .func()
                    .is_some_and(|ty| ty.params().len() == 0 && ty.results().len() == 1)
            })
            .map(|export| export.name().to_string())
            .filter(|name| format!("{}/{name}", input.name).contains(&only))
            .collect();
        for export in exports {
            let mut times = vec![Vec::new(); variants.len() + 1];
            let (_, expected) = run(&engine, &plain, &export)?;
            for _ in 0..rounds {
                for (module, times) in std::iter::once(&plain).chain(&marked).zip(&mut times) {
                    let (took, results) = run(&engine, module, &export)?;
                    ensure!(
                        results == expected,
                        "{export} returns something else when instrumented"
                    );
                    times.push(took);
                }
            }
            let mut medians = times.into_iter().map(median);
            let base = medians.next().context("there is a plain module")?;
            print!("{:<22}{:>9.2}", format!("{}/{export}", input.name), base * 1e3);
            for (ratio, all) in medians.map(|time| time / base).zip(&mut ratios) {
                print!("{ratio:>11.2}");
                all.push(ratio);
            }
            println!();
        }
    }
    print!("{:<31}", "geometric mean");
    for all in &ratios {
        print!(
            "{:>11.3}",
            (all.iter().map(|ratio| ratio.ln()).sum::<f64>() / all.len() as f64).exp()
        );
    }
    print!("\n{:<31}", "worst");
    for all in &ratios {
        print!("{:>11.2}", all.iter().copied().fold(0.0, f64::max));
    }
    println!("\n");
    for (input, variant, report, bytes) in sizes {
        println!(
            "{input:<10}{variant:<11} {:>6.2}x of {} bytes; {} stores: {} on the stack, {} coalesced, {} hoisted from {} loops; {} marks",
            bytes as f64 / report.bytes_in as f64,
            report.bytes_in,
            report.stores,
            report.skipped_stack,
            report.coalesced,
            report.hoisted,
            report.loops,
            report.marks
        );
    }
    Ok(())
}
