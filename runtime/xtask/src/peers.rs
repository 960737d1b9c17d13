//! `demos/peers`: the databases that benchmarks compare with. It shares the target folder, for most of what it needs is
//! there.
//!
//! RocksDB is built in where it is asked for and Debian's library is, or can be installed: its own build takes longer than
//! all the rest.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{steps::Workspace, wasm_toolchain::install};

const PACKAGES: &[&str] = &["librocksdb-dev", "libclang-dev"];
const HEADERS: &str = "/usr/include";
const LIBRARY: &str = "librocksdb.so";
/// What reads the headers, in a folder of LLVM.
const LIBCLANG: &str = "lib/libclang.so";

/// Cargo's `command` for the workspace of the peers, `with_rocksdb` where that can be.
pub fn cargo(workspace: &Workspace, command: &[&str], with_rocksdb: bool) -> Command {
    let mut cargo = workspace.cargo(command.iter().copied());
    cargo.args(["--manifest-path", "demos/peers/Cargo.toml"]);
    cargo.env("CARGO_TARGET_DIR", &workspace.target);
    match with_rocksdb.then(rocksdb) {
        Some(Ok(folder)) => {
            cargo.args(["--features", "rocksdb"]);
            cargo
                .env("ROCKSDB_INCLUDE_DIR", HEADERS)
                .env("ROCKSDB_LIB_DIR", folder);
        }
        Some(Err(error)) => eprintln!("without RocksDB: {error:#}"),
        None => {}
    }
    cargo
}

/// The folder of its library, where all is there that building needs.
fn rocksdb() -> anyhow::Result<PathBuf> {
    if let Some(folder) = library() {
        return Ok(folder);
    }
    install(PACKAGES, "RocksDB's library; on Debian")?;
    library().ok_or_else(|| anyhow::anyhow!("{LIBRARY} is missing although its package is installed"))
}

fn library() -> Option<PathBuf> {
    // One folder for each kind of machine, one for each version of LLVM.
    let folders = fs::read_dir("/usr/lib").ok()?.flatten();
    let folders: Vec<PathBuf> = folders.map(|folder| folder.path()).collect();
    let can_read_headers = folders.iter().any(|folder| folder.join(LIBCLANG).exists());
    if !can_read_headers || !Path::new(HEADERS).join("rocksdb/c.h").exists() {
        return None;
    }
    folders.into_iter().find(|folder| folder.join(LIBRARY).exists())
}
