//! `cargo xtask test`: every check and test, as CI runs them.

use std::process::Command;

use anyhow::Result;
use clap::{Args, ValueEnum};

use crate::{
    npm, peers, rules,
    servers::{Server, Servers},
    steps::{Workspace, run},
    systems, web, web_tests,
};

/// Packages that must compile for the browser.
const WASM_PACKAGES: &[&str] = &[
    "vmsync-abi",
    "vmsync-core",
    "vmsync-instrument",
    "vmsync-pager-file",
];

/// The folder with the lock file of the npm packages that tests run.
const PACKAGES: &str = "runtime/instrument/tests/packages";

/// Folders with a workspace of their own.
const OWN_WORKSPACES: &[&str] = &[
    "guest-sdk",
    "demos/guests",
    "demos/guests/sources",
    "demos/peers",
    "demos/peers/slatedb",
    "runtime/web/bindgen",
];

/// Cargo's arguments for the lints of a workspace.
const CLIPPY: [&str; 6] = ["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"];

/// Every check and test, as CI runs them; or one group of tests.
#[derive(Args)]
pub struct Test {
    /// Only this group.
    group: Option<Group>,
    /// Arguments for the test programs, for example a name to filter by.
    #[arg(last = true)]
    arguments: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Group {
    /// The contract's rows, against core and against real guests.
    Conformance,
    /// Formatting, lints, documentation, dependency rules.
    Lint,
    /// The tests of the Rust workspace, the kill -9 loop among them.
    Unit,
    /// The guest SDK and the builds for wasm32.
    Guest,
    /// Compile checks for macOS and Windows.
    Systems,
    /// The browser host, in Node and in Chromium.
    Web,
}

impl Test {
    pub fn run(&self, workspace: &Workspace) -> Result<()> {
        match self.group {
            Some(Group::Conformance) => self.conformance(workspace),
            Some(Group::Lint) => lint(workspace),
            Some(Group::Unit) => self.unit(workspace),
            Some(Group::Guest) => guest(workspace),
            Some(Group::Systems) => systems::check(workspace),
            Some(Group::Web) => web_tests::test(workspace, &self.arguments),
            None => {
                lint(workspace)?;
                guest(workspace)?;
                systems::check(workspace)?;
                self.unit(workspace)?;
                web_tests::test(workspace, &[])
            }
        }
    }

    fn conformance(&self, workspace: &Workspace) -> Result<()> {
        workspace.guests()?;
        let tests = ["test", "--workspace", "--test", "rows", "--test", "posix", "--"];
        let mut cargo = workspace.cargo(tests);
        cargo.env("VMSYNC_GUESTS", workspace.guests_folder());
        run("conformance rows", cargo.args(&self.arguments))
    }

    fn unit(&self, workspace: &Workspace) -> Result<()> {
        workspace.guests()?;
        let packages = workspace.target.join("packages");
        npm::install_locked(&workspace.root.join(PACKAGES), &packages)?;
        // Built first, so that servers do not wait for a compiler.
        run(
            "build the tests",
            &mut workspace.cargo(["test", "--workspace", "--no-run"]),
        )?;
        let servers = Servers::start(&[Server::Postgres, Server::Ceph], false)?;
        let mut cargo = workspace.cargo(["test", "--workspace", "--"]);
        cargo.envs(servers.variables());
        // Modules that others have published.
        cargo.env("VMSYNC_PACKAGES", packages.join("node_modules"));
        // Tests that run guests, or the command on them, find both here; Cargo builds the command before any test runs.
        cargo.env("VMSYNC_GUESTS", workspace.guests_folder());
        cargo.env("VMSYNC_CLI", workspace.target.join("debug/vmsync"));
        run("tests", cargo.args(&self.arguments))
    }
}

fn lint(workspace: &Workspace) -> Result<()> {
    rules::check(workspace)?;
    run("format", &mut workspace.cargo(["fmt", "--all", "--check"]))?;
    for folder in OWN_WORKSPACES {
        run(
            &format!("format of {folder}"),
            &mut in_folder(workspace, folder, ["fmt", "--all", "--check"]),
        )?;
    }
    run("lints", &mut workspace.cargo(CLIPPY))?;
    // Not those of SlateDB, which takes longer to build than all the rest.
    run(
        "lints of demos/guests",
        &mut in_folder(workspace, "demos/guests", CLIPPY),
    )?;
    let mut peers = peers::cargo(workspace, &["clippy", "--all-targets"], true);
    run("lints of demos/peers", peers.args(["--", "-D", "warnings"]))?;
    let mut doc = workspace.cargo(["doc", "--workspace", "--no-deps"]);
    run("documentation", doc.env("RUSTDOCFLAGS", "-D warnings"))
}

fn guest(workspace: &Workspace) -> Result<()> {
    workspace.guests()?;
    run(
        "lints of the guest SDK",
        &mut in_folder(workspace, "guest-sdk", CLIPPY),
    )?;
    run(
        "tests of the guest SDK",
        &mut in_folder(workspace, "guest-sdk", ["test", "--workspace"]),
    )?;
    let mut build = web::cargo_build(workspace)?;
    for package in WASM_PACKAGES {
        build.args(["--package", package]);
    }
    run("builds for wasm32", &mut build)
}

/// Cargo in a folder with a workspace of its own. Its target folder is its own too: its profile differs.
fn in_folder<'a>(
    workspace: &Workspace,
    folder: &str,
    arguments: impl IntoIterator<Item = &'a str>,
) -> Command {
    let mut cargo = workspace.cargo(arguments);
    cargo
        .current_dir(workspace.root.join(folder))
        .env("CARGO_TARGET_DIR", workspace.target.join(folder));
    cargo
}
