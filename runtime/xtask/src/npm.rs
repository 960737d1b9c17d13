//! Packages from npm, exactly as a lock file says, in a folder of their own under `target`.
//!
//! Invariant: the folder with the lock file stays as it is.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::wasm_toolchain::{find_program, install, run};

/// Installs what `package-lock.json` in `sources` names into `folder/node_modules`, if that is not there yet.
pub fn install_locked(sources: &Path, folder: &Path) -> Result<()> {
    if find_program("npm").is_none() {
        install(&["nodejs", "npm"], "Node.js 20 with npm; on Debian")?;
    }
    std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    // npm writes this file last.
    let mut changed = !folder.join("node_modules/.package-lock.json").exists();
    for file in ["package.json", "package-lock.json"] {
        let (from, to) = (sources.join(file), folder.join(file));
        let new = std::fs::read(&from).with_context(|| format!("cannot read {}", from.display()))?;
        changed |= !std::fs::read(&to).is_ok_and(|old| old == new);
        std::fs::write(&to, new).with_context(|| format!("cannot write {}", to.display()))?;
    }
    if changed {
        // Its words go to standard error: what is on standard output may be JSON.
        run(Command::new("npm")
            .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
            .stdout(std::io::stderr())
            .current_dir(folder))?;
    }
    Ok(())
}
