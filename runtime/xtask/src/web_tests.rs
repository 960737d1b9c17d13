//! The tests of the browser host, in Node and in real Chromium, with what they need.
//!
//! Sits on `web.rs` (what is served) and `wasm_toolchain.rs` (which installs Debian's packages).

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context, Result};

use crate::{
    npm,
    steps::{Workspace, run},
    wasm_toolchain::{find_program, install},
    web::{build_site, copy_folder},
    web_server::Server,
};

const CHROMIUMS: &[&str] = &["chromium", "chromium-browser", "google-chrome"];

/// Builds the site and runs every test of `runtime/web/tests` with `arguments` for Node.
pub fn test(workspace: &Workspace, arguments: &[String]) -> Result<()> {
    workspace.guests()?;
    run(
        "build the command",
        // As a part of the tests: built by itself it would need other features of what it is built on, and all that anew.
        &mut workspace.cargo(["test", "--workspace", "--no-run", "--test", "command"]),
    )?;
    let site = build_site(workspace)?;
    copy_folder(
        &workspace.root.join("runtime/web/tests/pages"),
        &site.join("test"),
    )?;
    let mut node = node_in(workspace, "tests")?;
    let server = Server::start(&site, 0)?;
    node.env("VMSYNC_SITE_URL", server.address())
        .env("VMSYNC_SITE", &site);
    node.env("VMSYNC_CLI", workspace.target.join("debug/vmsync"));
    node.env("VMSYNC_GUESTS", workspace.guests_folder());
    node.arg("--test").args(arguments);
    let folder = workspace.target.join("web/tests");
    for name in file_names(&folder)? {
        if name.ends_with(".test.mjs") {
            node.arg(name);
        }
    }
    run("tests in Node and Chromium", &mut node)
}

/// Node, in a copy of `runtime/web/FOLDER` that has its packages; with the browser's place in its environment.
pub fn node_in(workspace: &Workspace, folder: &str) -> Result<Command> {
    let (chromium, node) = (chromium()?, program("node", &["nodejs", "npm"])?);
    let source = workspace.root.join("runtime/web").join(folder);
    let target = workspace.target.join("web").join(folder);
    npm::install_locked(&source, &target)?;
    copy_folder(&source, &target)?;
    let mut command = Command::new(node);
    command.current_dir(&target).env("VMSYNC_CHROMIUM", chromium);
    Ok(command)
}

fn chromium() -> Result<PathBuf> {
    if let Some(found) = std::env::var_os("VMSYNC_CHROMIUM") {
        return Ok(found.into());
    }
    if let Some(found) = CHROMIUMS.iter().find_map(|name| find_program(name)) {
        return Ok(found);
    }
    program("chromium", &["chromium"])
}

/// A program, installed from Debian's `packages` where it is missing and that is possible.
fn program(name: &str, packages: &[&str]) -> Result<PathBuf> {
    if let Some(found) = find_program(name) {
        return Ok(found);
    }
    install(packages, &format!("{name}; on Debian"))?;
    find_program(name).with_context(|| format!("{name} is missing although its packages are installed"))
}

fn file_names(folder: &std::path::Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        names.extend(entry?.file_name().to_str().map(String::from));
    }
    names.sort();
    Ok(names)
}
