//! The dependency rules: arrows point up, and what is below knows nothing of what is above.
//!
//! Normal and build dependencies count; what tests use does not.

use anyhow::{Result, bail};
use cargo_metadata::DependencyKind;

use crate::steps::{Workspace, step};

/// A crate, and the crates of this workspace that it may depend on.
const ALLOWED: &[(&str, &[&str])] = &[
    ("vmsync-abi", &[]),
    ("vmsync-core", &["vmsync-abi"]),
    ("vmsync-instrument", &[]),
    ("vmsync-tracker", &["vmsync-core"]),
    ("vmsync-pager-file", &["vmsync-core"]),
    ("vmsync-pager-kv", &["vmsync-core", "vmsync-pager-group"]),
    ("vmsync-pager-memory", &["vmsync-core"]),
    ("vmsync-pager-conformance", &["vmsync-core"]),
    ("vmsync-pager-group", &["vmsync-core"]),
    ("vmsync-pager-sql", &["vmsync-core", "vmsync-pager-group"]),
    ("vmsync-pager-object", &["vmsync-core", "vmsync-pager-group"]),
    ("vmsync-pager-layers", &["vmsync-core"]),
    ("vmsync-pager-idb", &["vmsync-core"]),
    ("vmsync-pager-opfs", &["vmsync-core", "vmsync-pager-file"]),
    (
        "vmsync-pager-conformance-web",
        &[
            "vmsync-core",
            "vmsync-pager-conformance",
            "vmsync-pager-file",
            "vmsync-pager-idb",
            "vmsync-pager-opfs",
        ],
    ),
    (
        "vmsync-web",
        &[
            "vmsync-core",
            "vmsync-instrument",
            "vmsync-pager-file",
            "vmsync-pager-idb",
            "vmsync-pager-memory",
            "vmsync-pager-opfs",
        ],
    ),
    ("vmsync", &["vmsync-core", "vmsync-instrument", "vmsync-tracker"]),
    (
        "vmsync-cli",
        &[
            "vmsync",
            "vmsync-pager-file",
            "vmsync-pager-object",
            "vmsync-pager-sql",
        ],
    ),
    ("vmsync-sim", &["vmsync-core", "vmsync-pager-file"]),
    ("vmsync-xtask", &[]),
    ("vmsync-crash", &[]),
];

/// A crate, and what it may not depend on: engines and operating systems belong above it, `anyhow` to the edges.
const FORBIDDEN: &[(&str, &[&str])] = &[
    ("vmsync-abi", &["*"]),
    ("vmsync-core", &["anyhow", "wasmtime", "rustix", "libc", "tokio"]),
    ("vmsync-instrument", &["anyhow", "wasmtime", "rustix", "libc"]),
    ("vmsync-tracker", &["anyhow", "wasmtime"]),
    // It asks the kernel which pages of a file are in memory, mincore(2), which rustix does not know.
    ("vmsync-pager-file", &["anyhow", "wasmtime"]),
    ("vmsync-pager-kv", &["anyhow", "wasmtime", "libc"]),
    ("vmsync-pager-memory", &["anyhow", "wasmtime"]),
    ("vmsync-pager-group", &["anyhow", "wasmtime"]),
    ("vmsync-pager-sql", &["anyhow", "wasmtime"]),
    ("vmsync-pager-object", &["anyhow", "wasmtime"]),
    ("vmsync-pager-layers", &["anyhow", "wasmtime"]),
    ("vmsync-pager-idb", &["anyhow", "wasmtime", "libc"]),
    ("vmsync-pager-opfs", &["anyhow", "wasmtime", "libc"]),
    ("vmsync-web", &["anyhow", "wasmtime", "libc"]),
    ("vmsync", &["anyhow"]),
];

/// Checks the rules through `cargo metadata`.
pub fn check(workspace: &Workspace) -> Result<()> {
    step("dependency rules");
    let mut broken = Vec::new();
    for package in workspace.metadata.workspace_packages() {
        let name = package.name.as_str();
        let Some((_, allowed)) = ALLOWED.iter().find(|(crate_name, _)| *crate_name == name) else {
            broken.push(format!(
                "{name} is not in the plan: add it to ALLOWED in rules.rs, with what it may use"
            ));
            continue;
        };
        let forbidden = FORBIDDEN
            .iter()
            .find(|(crate_name, _)| *crate_name == name)
            .map_or(&[][..], |(_, list)| list);
        for dependency in package
            .dependencies
            .iter()
            .filter(|entry| entry.kind != DependencyKind::Development)
        {
            let other = dependency.name.as_str();
            if other.starts_with("vmsync") && !allowed.contains(&other) {
                broken.push(format!("{name} may not depend on {other}"));
            }
            if forbidden.contains(&other) || forbidden.contains(&"*") {
                broken.push(format!("{name} may not depend on {other}"));
            }
        }
    }
    if broken.is_empty() {
        Ok(())
    } else {
        bail!("dependency rules:\n  {}", broken.join("\n  "))
    }
}
