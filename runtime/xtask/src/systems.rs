//! Systems that no machine of ours runs: what is written for them must compile, at least.
//!
//! Only the tracker knows operating systems by name. The check needs neither a linker nor a machine: a standard library
//! is enough, rustup's or the one that Debian's compiler builds from source.

use anyhow::Result;

use crate::{
    steps::{Workspace, run},
    wasm_toolchain::RustToolchain,
};

const TARGETS: &[&str] = &["aarch64-apple-darwin", "x86_64-pc-windows-msvc"];
const PACKAGE: &str = "vmsync-tracker";

/// Compiles the tracker for every system of [`TARGETS`].
pub fn check(workspace: &Workspace) -> Result<()> {
    let mut check = RustToolchain::find_for_checks(TARGETS)?.cargo_check(TARGETS);
    check
        .current_dir(&workspace.root)
        .arg("--target-dir")
        .arg(workspace.target.join("systems"))
        .args(["--package", PACKAGE]);
    run("compiles for macOS and Windows", &mut check)
}
