//! `cargo xtask web`: builds the browser host and the demo page, and serves them.
//!
//! ```text
//!   vmsync-web --cargo, wasm32--> .wasm --wasm-bindgen--> target/web/site/vmsync   with runtime/web/js
//!   demos/guests --> target/web/site/guests       demos/web --> target/web/site
//! ```
//!
//! Invariant: what is served is what is built; nothing of the sources is served in place.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use clap::Args;

use crate::{
    steps::{Workspace, run, step},
    wasm_toolchain::{RustToolchain, Target},
    web_server::Server,
};

/// The modules that are made for a browser: the host, and the suite for pagers.
const MODULES: &[(&str, &str)] = &[
    ("vmsync-web", "vmsync"),
    ("vmsync-pager-conformance-web", "conformance"),
];

/// Crates on the way of every commit: compiled for speed, where the others are for size.
const FAST: &[&str] = &["twox-hash", "vmsync-core", "vmsync-pager-file", "vmsync-web"];

/// Build the browser host and the demo page, and serve them on this machine.
#[derive(Args)]
pub struct Web {
    /// The port; 0 takes a free one.
    #[arg(long, default_value_t = 8080)]
    port: u16,
    /// Only build, into target/web/site.
    #[arg(long)]
    build: bool,
}

impl Web {
    pub fn run(&self, workspace: &Workspace) -> Result<()> {
        workspace.guests()?;
        let site = build_site(workspace)?;
        if self.build {
            return Ok(());
        }
        let server = Server::start(&site, self.port)?;
        eprintln!("==> the demo is at {} (Ctrl-C ends it)", server.address());
        server.wait();
        Ok(())
    }
}

/// Builds everything that a browser is served; the folder.
pub fn build_site(workspace: &Workspace) -> Result<PathBuf> {
    let site = workspace.target.join("web/site");
    build_modules(workspace, &site)?;
    copy_folder(&workspace.root.join("runtime/web/js"), &site.join("vmsync"))?;
    copy_folder(&workspace.root.join("demos/web"), &site)?;
    copy_folder(&workspace.guests_folder(), &site.join("guests"))?;
    Ok(site)
}

/// Cargo for what a browser runs, into a target folder of its own; its packages are to be named.
pub fn cargo_build(workspace: &Workspace) -> Result<Command> {
    let mut cargo = RustToolchain::find(Target::Unknown)?.cargo_build(Target::Unknown);
    // A page waits for every byte of it.
    cargo
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "s")
        .env("CARGO_PROFILE_RELEASE_LTO", "true")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1")
        .env("CARGO_PROFILE_RELEASE_DEBUG", "false");
    for package in FAST {
        cargo.args([
            "--config",
            &format!("profile.release.package.{package}.opt-level=3"),
        ]);
    }
    cargo
        .current_dir(&workspace.root)
        .arg("--target-dir")
        .arg(build_folder(workspace));
    Ok(cargo)
}

fn build_folder(workspace: &Workspace) -> PathBuf {
    workspace.target.join("web/build")
}

/// Compiles [`MODULES`] and makes the JavaScript around them.
fn build_modules(workspace: &Workspace, site: &Path) -> Result<()> {
    let build = build_folder(workspace);
    let mut cargo = cargo_build(workspace)?;
    for (package, _) in MODULES {
        cargo.args(["--package", package]);
    }
    run("build the browser host", &mut cargo)?;
    let tool = workspace.target.join("web/tool");
    let mut cargo = workspace.cargo(["build", "--quiet", "--locked"]);
    cargo.current_dir(workspace.root.join("runtime/web/bindgen"));
    run("build wasm-bindgen", cargo.arg("--target-dir").arg(&tool))?;
    for (package, name) in MODULES {
        let file = format!("{}.wasm", package.replace('-', "_"));
        let module = build.join(Target::Unknown.triple()).join("release").join(file);
        let mut bindgen = Command::new(tool.join("debug/vmsync-web-bindgen"));
        run("wasm-bindgen", bindgen.arg(module).arg(site.join(name)))?;
    }
    Ok(())
}

/// Copies the files of a folder.
pub fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    step(&format!("copy {}", from.display()));
    fs::create_dir_all(to).with_context(|| format!("cannot make {}", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            fs::copy(entry.path(), to.join(entry.file_name()))
                .with_context(|| format!("cannot copy {}", entry.path().display()))?;
        }
    }
    Ok(())
}
