//! What the store barrier costs: kernels run plain and instrumented in turns, medians compared.
//!
//! ```text
//! cargo run --release -p vmsync-instrument --example barrier_cost [-- MODULE.wasm ...]
//! ```
//!
//! The kernels are `examples/kernels/kernels.wat`; with `clang-19` on the path also `kernels.c`, built on the fly. Of each
//! further module that is named, the functions without parameters are run; one that imports something is only measured in
//! size. `ROUNDS` sets how often each kernel runs (default 9), `ONLY` a part of the names of those that do.
//!
//! Every variant of a kernel has to return what the plain one returns.

use anyhow::{Context, Result, ensure};
use std::process::Command;
use std::time::{Duration, Instant};
use vmsync_instrument::{Analyses, Options, Report, instrument};
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

/// What is measured, and what came out so far.
struct Bench {
    engine: Engine,
    variants: Vec<Variant>,
    rounds: usize,
    only: String,
    /// For each variant, its kernels' times relative to the plain ones.
    ratios: Vec<Vec<f64>>,
    sizes: Vec<String>,
}

impl Bench {
    fn input(&mut self, input: &Input) -> Result<()> {
        let plain = Module::new(&self.engine, &input.wasm)?;
        let mut marked = Vec::new();
        for variant in &self.variants {
            let done = instrument(&input.wasm, &variant.options)?;
            self.sizes.push(size(&input.name, variant.name, &done.report));
            marked.push(Module::new(&self.engine, &done.wasm)?);
        }
        let runs = plain.imports().len() == 0;
        for export in plain.exports().filter(|_| runs) {
            let fits = |ty: &wasmtime::FuncType| ty.params().len() == 0 && ty.results().len() == 1;
            let name = format!("{}/{}", input.name, export.name());
            if export.ty().func().is_some_and(fits) && name.contains(&self.only) {
                self.kernel(&name, export.name(), &plain, &marked)?;
            }
        }
        Ok(())
    }

    fn kernel(&mut self, name: &str, export: &str, plain: &Module, marked: &[Module]) -> Result<()> {
        let mut times = vec![Vec::new(); marked.len() + 1];
        let (_, expected) = run(&self.engine, plain, export)?;
        for _ in 0..self.rounds {
            for (module, times) in std::iter::once(plain).chain(marked).zip(&mut times) {
                let (took, results) = run(&self.engine, module, export)?;
                ensure!(
                    results == expected,
                    "{name} returns something else when instrumented"
                );
                times.push(took);
            }
        }
        let mut medians = times.into_iter().map(median);
        let base = medians.next().context("there is a plain module")?;
        print!("{name:<22}{:>9.2}", base * 1e3);
        for (ratio, all) in medians.map(|time| time / base).zip(&mut self.ratios) {
            print!("{ratio:>11.2}");
            all.push(ratio);
        }
        println!();
        Ok(())
    }

    fn summary(&self) {
        print!("{:<31}", "geometric mean");
        for all in &self.ratios {
            let logarithms: f64 = all.iter().map(|ratio| ratio.ln()).sum();
            print!("{:>11.3}", (logarithms / all.len() as f64).exp());
        }
        print!("\n{:<31}", "worst");
        for all in &self.ratios {
            print!("{:>11.2}", all.iter().copied().fold(0.0, f64::max));
        }
        println!("\n");
        self.sizes.iter().for_each(|line| println!("{line}"));
    }
}

fn size(input: &str, variant: &str, report: &Report) -> String {
    format!(
        "{input:<12}{variant:<11}{:>6.2}x of {} bytes; {} stores: {} on the stack, {} coalesced, {} hoisted from {} loops; {} marks",
        report.bytes_out as f64 / report.bytes_in as f64,
        report.bytes_in,
        report.stores,
        report.skipped_stack,
        report.coalesced,
        report.hoisted,
        report.loops,
        report.marks
    )
}

fn main() -> Result<()> {
    let mut config = Config::new();
    config.wasm_multi_memory(true);
    let variants = variants();
    print!("{:<22}{:>9}", "kernel", "plain ms");
    variants.iter().for_each(|variant| print!("{:>11}", variant.name));
    println!();
    let mut bench = Bench {
        engine: Engine::new(&config)?,
        rounds: std::env::var("ROUNDS")
            .ok()
            .and_then(|text| text.parse().ok())
            .unwrap_or(9),
        only: std::env::var("ONLY").unwrap_or_default(),
        ratios: vec![Vec::new(); variants.len()],
        sizes: Vec::new(),
        variants,
    };
    for input in inputs()? {
        bench.input(&input)?;
    }
    bench.summary();
    Ok(())
}
