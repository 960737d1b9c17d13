//! The programs that are run as guests: which modules, and which of their exports are kernels.
//!
//! - `wat`, `c`: numeric kernels (PolyBench's and others), sorting, hashing, compression, block copies; the sources are
//!   those of the instrumenter's own example;
//! - `rust`: the standard library's collections, strings, block copies, random stores (`demos/guests/kernels`);
//! - `sqlite`: a table with an index, filled, changed and read in memory (`demos/guests/sqlite/kernel.c`).

use std::{path::PathBuf, process::Command};

use anyhow::{Context, Result, bail};
use wasmtime::{Engine, FuncType, Module};

const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/instrument/examples/kernels");

/// A module with kernels.
pub struct Program {
    pub name: &'static str,
    pub wasm: Vec<u8>,
    pub kernels: Vec<String>,
}

impl Program {
    /// The kernels' names, with the program's.
    pub fn names(&self) -> impl Iterator<Item = String> {
        self.kernels
            .iter()
            .map(|kernel| format!("{}/{kernel}", self.name))
    }
}

/// Every program that can be built or found here; a word on the error output about each that cannot.
pub fn programs() -> Result<Vec<Program>> {
    let wat = wat::parse_file(format!("{SOURCES}/kernels.wat"))?;
    let sources = [
        ("wat", Ok(wat)),
        ("c", compile_c()),
        ("rust", read_guest("kernels.wasm")),
        ("sqlite", read_guest("sqlite-kernel.wasm")),
    ];
    let mut programs = Vec::new();
    for (name, wasm) in sources {
        match wasm {
            Ok(wasm) => programs.push(Program {
                name,
                kernels: kernels_of(&wasm)?,
                wasm,
            }),
            Err(error) => eprintln!("the {name} kernels are left out: {error:#}"),
        }
    }
    Ok(programs)
}

/// The exported functions without parameters that return a checksum.
fn kernels_of(wasm: &[u8]) -> Result<Vec<String>> {
    let module = Module::new(&Engine::default(), wasm)?;
    let fits = |ty: &FuncType| {
        let results: Vec<_> = ty.results().collect();
        ty.params().len() == 0 && results.len() == 1 && results[0].is_i64()
    };
    let exports = module.exports();
    let kernels = exports.filter(|export| export.ty().func().is_some_and(fits));
    Ok(kernels.map(|export| export.name().to_string()).collect())
}

/// The kernels in C. Their shadow stack comes first, so that a region can lie over everything behind it.
fn compile_c() -> Result<Vec<u8>> {
    let folder = tempfile::tempdir()?;
    let output = folder.path().join("kernels.wasm");
    for clang in ["clang-19", "clang"] {
        let status = Command::new(clang)
            .args(["--target=wasm32", "-O2", "-nostdlib", "-mbulk-memory"])
            .args(["-Wl,--no-entry", "-Wl,--export-memory", "-Wl,--stack-first", "-o"])
            .arg(&output)
            .arg(format!("{SOURCES}/kernels.c"))
            .status();
        if status.is_ok_and(|status| status.success()) {
            return Ok(std::fs::read(&output)?);
        }
    }
    bail!("neither clang-19 nor clang compiles them for wasm32: install clang-19 and lld-19")
}

/// A guest that `cargo xtask guests` built.
fn read_guest(name: &str) -> Result<Vec<u8>> {
    let folder = std::env::var_os("VMSYNC_GUESTS").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/guests")),
        PathBuf::from,
    );
    let path = folder.join(name);
    std::fs::read(&path).with_context(|| format!("{}: run `cargo xtask guests`", path.display()))
}
