//! Where the sources of other people's programs are: in crates that carry them, and in Debian's source packages.
//!
//! Nothing of them is kept in this repository. Crates come through Cargo (`demos/guests/sources`), which checks them
//! against its lock file; a source package comes through apt, which checks its signature.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use cargo_metadata::MetadataCommand;

use crate::wasm_toolchain::{find_program, install, run};

/// Where Debian keeps its lists of packages.
const DEBIAN_LISTS: &[&str] = &["/etc/apt/sources.list", "/etc/apt/sources.list.d/debian.sources"];

/// Folders with sources.
pub struct Sources {
    /// `sqlite3.c` and `sqlite3.h`: the amalgamation.
    pub sqlite: PathBuf,
    /// `mdb.c`, `midl.c` and LMDB's own tests.
    pub lmdb: PathBuf,
    /// `quickjs.c` and what belongs to it.
    pub quickjs: PathBuf,
}

impl Sources {
    /// Finds the sources in crates; Cargo downloads what is missing.
    pub fn find(root: &Path) -> Result<Self> {
        let metadata = MetadataCommand::new()
            .manifest_path(root.join("demos/guests/sources/Cargo.toml"))
            .other_options(["--locked".to_string()])
            .exec()
            .context("cannot get the crates that carry the sources of SQLite, LMDB and QuickJS")?;
        let folder = |name: &str, inside: &str| {
            let package = metadata.packages.iter().find(|package| package.name == name);
            let manifest = &package.with_context(|| format!("no crate {name}"))?.manifest_path;
            let folder = manifest
                .parent()
                .context("a manifest is in a folder")?
                .join(inside);
            ensure!(folder.is_dir(), "{folder} is not there: {name} has changed");
            anyhow::Ok(folder.into_std_path_buf())
        };
        Ok(Self {
            sqlite: folder("libsqlite3-sys", "sqlite3")?,
            lmdb: folder("lmdb-master-sys", "lmdb/libraries/liblmdb")?,
            quickjs: folder("libquickjs-ng-sys", "embed/quickjs")?,
        })
    }
}

/// `member` of Debian's source package `package`, put into `folder`.
pub fn debian_source(folder: &Path, package: &str, member: &str) -> Result<PathBuf> {
    let folder = folder.join(package);
    let name = Path::new(member).file_name().context("a member is a file")?;
    let found = folder.join(name);
    if found.exists() {
        return Ok(found);
    }
    ensure!(
        find_program("apt-get").is_some(),
        "{member} is in Debian's source package {package}, and there is no apt-get here"
    );
    if find_program("xz").is_none() {
        install(&["xz-utils"], "xz; on Debian")?;
    }
    // Lists, settings and downloads of its own: the machine's stay as they are.
    let apt = folder.join("apt");
    for part in ["lists/partial", "archives/partial", "sources"] {
        fs::create_dir_all(apt.join(part))?;
    }
    for (number, list) in DEBIAN_LISTS.iter().enumerate() {
        let Ok(text) = fs::read_to_string(list) else {
            continue;
        };
        let text = text.replace("Types: deb\n", "Types: deb-src\n");
        let lines = text.lines().map(|line| match line.strip_prefix("deb ") {
            Some(rest) => format!("deb-src {rest}\n"),
            None => format!("{line}\n"),
        });
        let kind = Path::new(list).extension().unwrap_or_default().display();
        fs::write(
            apt.join(format!("sources/{number}.{kind}")),
            lines.collect::<String>(),
        )?;
    }
    let apt_get = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        let option = |name: &str, path: &str| format!("-o{name}={}", apt.join(path).display());
        command
            .arg("-oDir::Etc::sourcelist=/dev/null")
            .arg(option("Dir::Etc::sourceparts", "sources"))
            .arg(option("Dir::State::lists", "lists"))
            .arg(option("Dir::Cache", ""))
            .arg("-oAPT::Sandbox::User=root")
            .arg("-qq")
            .args(arguments)
            .current_dir(&folder)
            .stdout(std::process::Stdio::null());
        run(&mut command)
    };
    apt_get(&["update"])?;
    apt_get(&["source", "--download-only", "--tar-only", package])?;
    let archive = fs::read_dir(&folder)?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.to_string_lossy().contains(".orig.tar"))
        .with_context(|| format!("Debian has no source package {package} here"))?;
    run(Command::new("tar")
        .arg("-xf")
        .arg(&archive)
        .args(["--strip-components=2", "--wildcards"])
        .arg(format!("*/{member}"))
        .current_dir(&folder))?;
    fs::remove_dir_all(&apt)?;
    ensure!(found.exists(), "{} has no {member}", archive.display());
    Ok(found)
}
