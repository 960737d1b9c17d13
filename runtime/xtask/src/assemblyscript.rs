//! Builds the AssemblyScript guests: `NAME.ts` in `demos/guests/assemblyscript`, with the compiler of its lock file.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::{guests::copy_if_changed, npm, wasm_toolchain::run};

const GUESTS: &[&str] = &["abacus"];

/// The end of the guests' window, in bytes.
const MEMORY_BASE: u64 = 16 << 20;

/// Builds every guest into `target/guests`.
pub fn build(root: &Path, target: &Path) -> Result<Vec<PathBuf>> {
    let sources = root.join("demos/guests/assemblyscript");
    let folder = target.join("guests/build/assemblyscript");
    npm::install_locked(&sources, &folder)?;
    let compiler = folder.join("node_modules/assemblyscript/bin/asc.js");
    GUESTS
        .iter()
        .map(|name| {
            let output = folder.join(format!("{name}.wasm"));
            let mut asc = Command::new("node");
            asc.arg(&compiler).arg(sources.join(format!("{name}.ts")));
            // `--use abort=`: a failed assertion is a trap, and nothing but `vmsync1` is imported.
            asc.args(["-O", "--runtime", "stub", "--use", "abort="]);
            asc.arg("--memoryBase").arg(MEMORY_BASE.to_string());
            run(asc.arg("--outFile").arg(&output))?;
            copy_if_changed(&output, &target.join("guests").join(format!("{name}.wasm")))
        })
        .collect()
}
