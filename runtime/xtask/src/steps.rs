//! What tasks are made of: the workspace's folders, and commands that are shown before they run.

use std::{path::PathBuf, process::Command, time::Instant};

use anyhow::{Context, Result, bail};
use cargo_metadata::{Metadata, MetadataCommand};

use crate::guests;

/// The workspace and what Cargo says of it.
pub struct Workspace {
    /// Its folder.
    pub root: PathBuf,
    /// Where Cargo builds.
    pub target: PathBuf,
    /// Packages and dependencies.
    pub metadata: Metadata,
}

impl Workspace {
    /// The workspace that this program was built from.
    pub fn find() -> Result<Self> {
        let manifest = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
        let metadata = MetadataCommand::new()
            .manifest_path(manifest)
            .exec()
            .context("cannot read the workspace: run this from a checkout of it")?;
        let root = metadata.workspace_root.clone().into_std_path_buf();
        let target = metadata.target_directory.clone().into_std_path_buf();
        Ok(Self {
            root,
            target,
            metadata,
        })
    }

    /// Cargo, in the workspace's folder.
    ///
    /// Not with what Cargo has told this program about itself: build scripts that look at it (ring's) would run again,
    /// and everything above them be compiled again, whenever Cargo is called now from here and now by hand.
    pub fn cargo<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Command {
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.current_dir(&self.root).args(arguments);
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
                command.env_remove(&name);
            }
        }
        command
    }

    /// Where guests are built to.
    pub fn guests_folder(&self) -> PathBuf {
        self.target.join("guests")
    }

    /// Builds the guests.
    pub fn guests(&self) -> Result<()> {
        step("build the guests");
        for module in guests::build(&self.root, &self.target)? {
            eprintln!("      {}", module.display());
        }
        Ok(())
    }
}

/// Says what comes next.
pub fn step(what: &str) {
    eprintln!("==> {what}");
}

/// Runs `command` as the step `what`.
pub fn run(what: &str, command: &mut Command) -> Result<()> {
    step(what);
    let start = Instant::now();
    let status = command
        .status()
        .with_context(|| format!("cannot run {}", command.get_program().display()))?;
    if !status.success() {
        let words: Vec<_> = command.get_args().map(|word| word.to_string_lossy()).collect();
        bail!(
            "{what}: `{} {}` failed: {status}",
            command.get_program().display(),
            words.join(" ")
        );
    }
    eprintln!("    {what}: {:.1} s", start.elapsed().as_secs_f64());
    Ok(())
}
