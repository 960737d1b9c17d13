//! The guest's command line, `vmsync`'s around it, and what both of them print.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};

use crate::child::{Child, Output};

/// The guest's name for its memory object, and the object's name in the store.
const OBJECT: &str = "codesearch";

/// The largest object that the guest can map, in MiB: what is above its window's lower end in 32 bits.
const SIZE_MIB_MAX: u64 = 1279;

/// A size that is enough for the index of `bytes` of sources, which takes a little more than they do; verifying a
/// store takes time for every page of it.
pub fn size_mib(bytes: u64) -> u64 {
    (16 + 4 * (bytes >> 20)).min(SIZE_MIB_MAX)
}

/// How to run the guest on one list of files.
pub struct Codesearch {
    pub vmsync: PathBuf,
    pub guest: PathBuf,
    pub tracker: Option<String>,
    /// What the guest may read.
    pub folders: Vec<PathBuf>,
    pub list: PathBuf,
    pub sync_every: u64,
    /// Size of the object.
    pub size_mib: u64,
}

/// `synced FILES_DONE FILES_ALL IDENTIFIERS PLACES LIVE_BYTES`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Synced {
    pub files: u64,
    pub counts: Counts,
}

/// How large an index is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    pub identifiers: u64,
    pub places: u64,
}

/// What the guest's `check` found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Checked {
    /// The index is exactly that of the first so many files.
    Equal { files: u64, counts: Counts },
    /// It is not, or it could not be read.
    Wrong(String),
}

/// What `vmsync verify` found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verified {
    Sound,
    /// There is no store yet.
    Missing,
    Wrong(String),
}

/// The answer to a query.
pub struct Answer {
    pub identifier: String,
    pub places: u64,
    /// The first of them, as `PATH:LINE`.
    pub first: Vec<String>,
}

impl Synced {
    /// Reads a line of `index`, if it is such a one.
    pub fn parse(line: &str) -> Option<Self> {
        let numbers = numbers(line.strip_prefix("synced ")?)?;
        let &[files, _, identifiers, places, ..] = numbers.as_slice() else {
            return None;
        };
        Some(Self {
            files,
            counts: Counts { identifiers, places },
        })
    }
}

/// Where `index` says that it continues: `resumed FILES_DONE FILES_ALL`.
pub fn parse_resumed(line: &str) -> Option<u64> {
    numbers(line.strip_prefix("resumed ")?)?.first().copied()
}

fn numbers(text: &str) -> Option<Vec<u64>> {
    text.split_whitespace().map(|word| word.parse().ok()).collect()
}

impl Codesearch {
    fn command(&self, store: &Path, arguments: &[&str], trace: &[&str]) -> Command {
        let mut command = Command::new(&self.vmsync);
        command.args(["run", "--wasi"]).args(trace);
        if let Some(tracker) = &self.tracker {
            command.args(["--tracker", tracker]);
        }
        for folder in &self.folders {
            command.arg("--dir").arg(folder);
        }
        let map = format!("{OBJECT}={}:{OBJECT}", store.display());
        command.arg("--map").arg(map).arg(&self.guest);
        command.arg("--").args(arguments);
        command.args(["--object", OBJECT, "--size", &self.size_mib.to_string()]);
        command
    }

    fn list(&self) -> &str {
        self.list.to_str().expect("the workplace checked its path")
    }

    /// Runs the guest on a store that goes again: what cannot run at all as it was asked for has broken no promise.
    pub fn rehearse(&self, store: &Path) -> Result<()> {
        let output = Child::output(&mut self.command(store, &["stats"], &[]))?;
        ensure!(
            output.status.success(),
            "the guest does not run with these options: {}",
            words(&output)
        );
        fs::remove_dir_all(store).with_context(|| format!("cannot remove {}", store.display()))
    }

    /// Continues the index.
    pub fn index(&self, store: &Path) -> Command {
        let every = self.sync_every.to_string();
        self.command(
            store,
            &["index", self.list(), "--sync-every", &every],
            &["--trace-syncs"],
        )
    }

    /// Recounts.
    pub fn check(&self, store: &Path) -> Result<Checked> {
        let output = Child::output(&mut self.command(store, &["check", self.list()], &[]))?;
        let equal = output
            .out
            .last()
            .and_then(|line| numbers(line.strip_prefix("equal ")?));
        Ok(match equal.as_deref() {
            Some(&[files, identifiers, places]) if output.status.success() => Checked::Equal {
                files,
                counts: Counts { identifiers, places },
            },
            _ => Checked::Wrong(words(&output)),
        })
    }

    /// `vmsync verify`.
    pub fn verify(&self, store: &Path) -> Result<Verified> {
        if !store.exists() {
            return Ok(Verified::Missing);
        }
        let output = Child::output(Command::new(&self.vmsync).arg("verify").arg(store))?;
        if output.status.success() && output.out.iter().any(|line| line.starts_with("sound")) {
            return Ok(Verified::Sound);
        }
        let missing = output
            .errors
            .iter()
            .any(|line| line.contains("there is no store"));
        Ok(if missing && output.out.is_empty() {
            Verified::Missing
        } else {
            Verified::Wrong(words(&output))
        })
    }

    /// Asks for an identifier, and for up to `limit` of its places.
    pub fn query(&self, store: &Path, identifier: &str, limit: usize) -> Result<Answer> {
        let limit = limit.to_string();
        let arguments = ["query", identifier, "--limit", &limit];
        let mut output = Child::output(&mut self.command(store, &arguments, &[]))?;
        let last = output.out.pop().unwrap_or_default();
        match last
            .strip_prefix("places ")
            .and_then(|number| number.parse().ok())
        {
            Some(places) if output.status.success() => Ok(Answer {
                identifier: identifier.into(),
                places,
                first: output.out,
            }),
            _ => bail!("the query for \"{identifier}\" failed: {}", words(&output)),
        }
    }

    /// Bytes that the guest's heap has in use.
    pub fn live_bytes(&self, store: &Path) -> Result<u64> {
        let output = Child::output(&mut self.command(store, &["stats"], &[]))?;
        let value = output
            .out
            .iter()
            .find_map(|line| line.strip_prefix("heap_live_bytes ")?.parse().ok());
        value.with_context(|| format!("the guest's stats failed: {}", words(&output)))
    }
}

/// What a command that failed said.
fn words(output: &Output) -> String {
    let lines: Vec<_> = output
        .out
        .iter()
        .chain(&output.errors)
        .map(String::as_str)
        .filter(|line| !line.is_empty())
        .collect();
    format!("{} ({})", lines.join("; "), output.status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_of_index_are_read() {
        let synced = Synced::parse("synced 8 64 100 200 4096").unwrap();
        let (identifiers, places) = (100, 200);
        assert_eq!(
            synced,
            Synced {
                files: 8,
                counts: Counts { identifiers, places }
            }
        );
        assert_eq!(parse_resumed("resumed 16 64"), Some(16));
        for line in ["synced", "synced 8 64", "synced x 64 100 200 4096", "done 64"] {
            assert_eq!(Synced::parse(line), None, "{line}");
        }
    }
}
