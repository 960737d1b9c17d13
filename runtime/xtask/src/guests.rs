//! Builds the guest programs of `demos/guests` into `target/guests/*.wasm`.
//!
//! Sits on `wasm_toolchain.rs`, which finds the compilers; what is written in C is in `c_guests.rs`. Cargo decides what
//! is out of date; a module is written only where it changed, so that its time stamp can be trusted.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::{
    assemblyscript, c_guests,
    wasm_toolchain::{RustToolchain, Target, run},
};

/// The Rust guests: packages of `demos/guests`.
const RUST_GUESTS: &[(Target, &[&str])] = &[
    (
        Target::Unknown,
        &["counter", "fill", "kernels", "ledger", "life", "maps", "sketch"],
    ),
    (Target::Wasip1, &["codesearch", "records", "smoke"]),
];

/// Builds every guest of the workspace at `root`; the modules, in `target/guests`.
///
/// `target` is the workspace's target folder.
pub fn build(root: &Path, target: &Path) -> Result<Vec<PathBuf>> {
    let guests = target.join("guests");
    std::fs::create_dir_all(&guests).with_context(|| format!("cannot create {}", guests.display()))?;
    let posix = c_guests::build_posix(root, target)?;
    let mut modules = Vec::new();
    for (wasm_target, packages) in RUST_GUESTS {
        modules.extend(build_rust(root, &guests, &posix, *wasm_target, packages)?);
    }
    modules.extend(assemblyscript::build(root, target)?);
    modules.extend(c_guests::build(root, target)?);
    Ok(modules)
}

/// `posix` is the POSIX library, for those that are linked with it.
fn build_rust(
    root: &Path,
    guests: &Path,
    posix: &Path,
    target: Target,
    packages: &[&str],
) -> Result<Vec<PathBuf>> {
    let toolchain = RustToolchain::find(target)?;
    let build_folder = guests.join("build");
    let mut cargo = toolchain.cargo_build(target);
    cargo
        .current_dir(root.join("demos/guests"))
        .env("VMSYNC_POSIX", posix)
        .arg("--target-dir")
        .arg(&build_folder);
    for package in packages {
        cargo.args(["--package", package]);
    }
    run(&mut cargo)?;
    let built = build_folder.join(target.triple()).join("release");
    packages
        .iter()
        .map(|package| {
            let name = format!("{package}.wasm");
            copy_if_changed(&built.join(&name), &guests.join(&name))
        })
        .collect()
}

/// Copies a module to where it is run from, if it is another one.
pub fn copy_if_changed(from: &Path, to: &Path) -> Result<PathBuf> {
    let new = std::fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
    if std::fs::read(to).is_ok_and(|old| old == new) {
        return Ok(to.into());
    }
    std::fs::write(to, new).with_context(|| format!("cannot write {}", to.display()))?;
    Ok(to.into())
}
