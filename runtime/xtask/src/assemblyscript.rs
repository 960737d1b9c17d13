//! Builds the AssemblyScript guests: `NAME.ts` in `demos/guests/assemblyscript`, with the compiler of its lock file.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::{
    guests::copy_if_changed,
    wasm_toolchain::{find_program, install, run},
};

const GUESTS: &[&str] = &["abacus"];

/// The end of the guests' window, in bytes.
const MEMORY_BASE: u64 = 16 << 20;

/// Builds every guest into `target/guests`.
pub fn build(root: &Path, target: &Path) -> Result<Vec<PathBuf>> {
    let sources = root.join("demos/guests/assemblyscript");
    let folder = target.join("guests/build/assemblyscript");
    let compiler = compiler(&sources, &folder)?;
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

/// The compiler, installed in `folder` as the lock file says if it is not there yet.
fn compiler(sources: &Path, folder: &Path) -> Result<PathBuf> {
    if find_program("npm").is_none() {
        install(&["nodejs", "npm"], "Node.js 20 with npm; on Debian")?;
    }
    std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let compiler = folder.join("node_modules/assemblyscript/bin/asc.js");
    let mut changed = !compiler.exists();
    for file in ["package.json", "package-lock.json"] {
        let (from, to) = (sources.join(file), folder.join(file));
        let new = std::fs::read(&from).with_context(|| format!("cannot read {}", from.display()))?;
        changed |= !std::fs::read(&to).is_ok_and(|old| old == new);
        std::fs::write(&to, new).with_context(|| format!("cannot write {}", to.display()))?;
    }
    if changed {
        run(Command::new("npm")
            .args(["ci", "--no-audit", "--no-fund"])
            .current_dir(folder))?;
    }
    Ok(compiler)
}
