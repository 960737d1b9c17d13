//! `cargo xtask bench web`: the browser host against the floor, SQLite and PGlite, in one run of Chromium.
//!
//! Sits on `web.rs` (what is served) and `web_tests.rs` (Node, packages, the browser).

use std::{fs, os::unix::fs::symlink, path::Path};

use anyhow::{Context, Result};

use crate::{
    steps::{Workspace, run},
    wasm_toolchain::CToolchain,
    web::{build_site, copy_folder},
    web_server::Server,
    web_tests::node_in,
};

/// The peers, where npm puts what a browser loads of them.
const PEERS: &[(&str, &str)] = &[
    ("sqlite", "node_modules/@sqlite.org/sqlite-wasm/dist"),
    ("pglite", "node_modules/@electric-sql/pglite/dist"),
];

/// Builds what is measured and runs it.
pub fn bench(workspace: &Workspace, json: bool) -> Result<()> {
    workspace.guests()?;
    let site = build_site(workspace)?;
    let pages = site.join("bench");
    let mut node = node_in(workspace, "bench")?;
    copy_folder(&workspace.root.join("runtime/web/bench/pages"), &pages)?;
    for (name, packages) in PEERS {
        link(
            &workspace.target.join("web/bench").join(packages),
            &pages.join(name),
        )?;
    }
    let kernels = workspace
        .root
        .join("runtime/instrument/examples/kernels/kernels.c");
    let mut clang = CToolchain::find()?.command("wasm32");
    clang.args([
        "-O2",
        "-nostdlib",
        "-mbulk-memory",
        "-Wl,--no-entry",
        "-Wl,--export-memory",
        "-o",
    ]);
    run("kernels", clang.arg(pages.join("kernels.wasm")).arg(kernels))?;
    let server = Server::start(&site, 0)?;
    node.env("VMSYNC_SITE_URL", server.address())
        .env("VMSYNC_SITE", &site);
    node.arg("bench.mjs").args(json.then_some("--json"));
    run("bench web", &mut node)
}

/// Makes `link` stand for `folder`.
fn link(folder: &Path, link: &Path) -> Result<()> {
    if fs::read_link(link).is_ok_and(|old| old == folder) {
        return Ok(());
    }
    symlink(folder, link).with_context(|| format!("cannot make {}", link.display()))
}
