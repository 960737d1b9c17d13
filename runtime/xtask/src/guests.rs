//! Builds the guest programs of `demos/guests` into `target/guests/*.wasm`.
//!
//! Sits on `wasm_toolchain.rs`, which finds the compilers. Cargo decides what is out of date; a module is written
//! only where it changed, so that its time stamp can be trusted.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::{
    assemblyscript,
    wasm_toolchain::{CToolchain, RustToolchain, Target, run},
};

/// The Rust guests: packages of `demos/guests`.
const RUST_GUESTS: &[(Target, &[&str])] = &[
    (Target::Unknown, &["counter", "fill", "kernels", "ledger", "maps"]),
    (Target::Wasip1, &["codesearch", "smoke"]),
];

/// The C guests: `NAME.c` in `demos/guests/c`.
const C_GUESTS: &[CGuest] = &[
    CGuest {
        name: "journal",
        triple: "wasm32-wasi",
        flags: &[],
    },
    // No C library, as for any other host than a WASI one.
    CGuest {
        name: "tally",
        triple: "wasm32",
        flags: &["-nostdlib", "-ffreestanding", "-Wl,--no-entry"],
    },
];

/// The end of the C guests' window, in bytes.
const C_GLOBAL_BASE: u64 = 256 << 20;

struct CGuest {
    name: &'static str,
    triple: &'static str,
    flags: &'static [&'static str],
}

/// Builds every guest of the workspace at `root`; the modules, in `target/guests`.
///
/// `target` is the workspace's target folder.
pub fn build(root: &Path, target: &Path) -> Result<Vec<PathBuf>> {
    let guests = target.join("guests");
    std::fs::create_dir_all(&guests).with_context(|| format!("cannot create {}", guests.display()))?;
    let mut modules = Vec::new();
    for (wasm_target, packages) in RUST_GUESTS {
        modules.extend(build_rust(root, &guests, *wasm_target, packages)?);
    }
    modules.extend(assemblyscript::build(root, target)?);
    let toolchain = CToolchain::find()?;
    for guest in C_GUESTS {
        modules.push(build_c(root, &guests, &toolchain, guest)?);
    }
    Ok(modules)
}

fn build_rust(root: &Path, guests: &Path, target: Target, packages: &[&str]) -> Result<Vec<PathBuf>> {
    let toolchain = RustToolchain::find(target)?;
    let build_folder = guests.join("build");
    let mut cargo = toolchain.cargo_build(target);
    cargo
        .current_dir(root.join("demos/guests"))
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

fn build_c(root: &Path, guests: &Path, toolchain: &CToolchain, guest: &CGuest) -> Result<PathBuf> {
    let source = root.join("demos/guests/c").join(format!("{}.c", guest.name));
    let output = guests.join("build").join(format!("{}.wasm", guest.name));
    let mut clang = toolchain.command(guest.triple);
    clang
        .args(["-std=c11", "-O2", "-Wall", "-Wextra", "-Werror"])
        .args(guest.flags);
    clang.arg(format!(
        "-Wl,--stack-first,-z,stack-size=1048576,--global-base={C_GLOBAL_BASE}"
    ));
    clang.arg("-I").arg(root.join("guest-sdk/c/include"));
    clang.arg(source).arg("-o").arg(&output);
    run(&mut clang)?;
    copy_if_changed(&output, &guests.join(format!("{}.wasm", guest.name)))
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
