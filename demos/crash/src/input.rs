//! What is indexed: text files, in an order that the same folders repeat.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};
use cargo_metadata::{Metadata, MetadataCommand};

/// Larger files are data, not sources; the guest holds a file in memory as a whole.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// A zero in so many first bytes means that a file is no text.
const PROBE_BYTES: usize = 8192;

/// The files to index.
pub struct Input {
    /// Absolute paths.
    pub files: Vec<String>,
    /// The folders that the guest must see to read them.
    pub folders: Vec<PathBuf>,
    /// Sum of the files' lengths.
    pub bytes: u64,
}

impl Input {
    /// The text files in `folders`.
    pub fn of_folders(folders: &[PathBuf], bytes_max: u64) -> Result<Self> {
        let mut input = Self::new();
        for folder in folders {
            let folder = fs::canonicalize(folder)
                .with_context(|| format!("cannot use the input {}", folder.display()))?;
            input.add_folder(&folder, is_text, bytes_max)?;
            input.folders.push(folder);
        }
        input.finish("give a folder with text files with --input")
    }

    /// The Rust sources of the current workspace's dependencies, where Cargo has unpacked them.
    pub fn of_dependencies(bytes_max: u64) -> Result<Self> {
        let mut packages: Vec<(String, PathBuf)> = Vec::new();
        for package in metadata()?.packages {
            let from_registry = package.source.as_ref().is_some_and(|source| {
                source.repr.starts_with("registry+") || source.repr.starts_with("sparse+")
            });
            if !from_registry {
                continue;
            }
            let folder = package
                .manifest_path
                .parent()
                .context("a manifest is in a folder")?;
            let name = folder.file_name().context("a package's folder has a name")?;
            packages.push((name.into(), folder.into()));
        }
        packages.sort();
        let mut input = Self::new();
        let mut registries = BTreeSet::new();
        for (_, folder) in &packages {
            input.add_folder(
                folder,
                |path| Ok(path.extension().is_some_and(|end| end == "rs")),
                bytes_max,
            )?;
            registries.extend(folder.parent().map(PathBuf::from));
        }
        input.folders = registries.into_iter().collect();
        input.finish(
            "run it in the folder of a workspace that has dependencies, or give a folder with --input",
        )
    }

    fn new() -> Self {
        Self {
            files: Vec::new(),
            folders: Vec::new(),
            bytes: 0,
        }
    }

    fn finish(self, what_to_do: &str) -> Result<Self> {
        ensure!(!self.files.is_empty(), "there is nothing to index: {what_to_do}");
        for folder in &self.folders {
            ensure!(
                !folder.to_string_lossy().contains("::"),
                "the path {} has a \"::\", which `vmsync run --dir` would take for a separator: move the folder",
                folder.display()
            );
        }
        Ok(self)
    }

    /// Adds the files below `folder` that `wanted` accepts, sorted by path, until there are `bytes_max` in all.
    fn add_folder(
        &mut self,
        folder: &Path,
        wanted: impl Fn(&Path) -> Result<bool> + Copy,
        bytes_max: u64,
    ) -> Result<()> {
        let cannot = || format!("cannot read the folder {}", folder.display());
        let mut entries: Vec<_> = fs::read_dir(folder)
            .with_context(cannot)?
            .collect::<Result<_, _>>()
            .with_context(cannot)?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let (path, kind) = (entry.path(), entry.file_type().with_context(cannot)?);
            let hidden = entry.file_name().to_string_lossy().starts_with('.');
            if hidden || self.bytes >= bytes_max {
                continue;
            }
            if kind.is_dir() {
                self.add_folder(&path, wanted, bytes_max)?;
            } else if kind.is_file() {
                let length = entry.metadata().with_context(cannot)?.len();
                if length <= FILE_BYTES_MAX && is_listable(&path) && wanted(&path)? {
                    self.files.push(path.to_string_lossy().into_owned());
                    self.bytes += length;
                }
            }
        }
        Ok(())
    }
}

/// Whether a list with one path a line can name the file.
fn is_listable(path: &Path) -> bool {
    path.to_str()
        .is_some_and(|text| text.trim() == text && !text.contains(['\n', '\r']))
}

fn is_text(path: &Path) -> Result<bool> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(!bytes[..bytes.len().min(PROBE_BYTES)].contains(&0))
}

/// What Cargo says of the workspace, for this machine alone: only those packages are certainly here. Offline if
/// possible.
fn metadata() -> Result<Metadata> {
    let platform = host_platform()?;
    let ask = |more: &[&str]| {
        let options = ["--filter-platform", &platform]
            .into_iter()
            .chain(more.iter().copied());
        MetadataCommand::new()
            .other_options(options.map(String::from).collect::<Vec<_>>())
            .exec()
    };
    ask(&["--offline"])
        .or_else(|_| ask(&[]))
        .context("`cargo metadata` does not name the dependencies: run it in the workspace, or give a folder with --input")
}

fn host_platform() -> Result<String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc)
        .arg("-vV")
        .output()
        .context("cannot run rustc: give a folder with --input instead")?;
    let text = String::from_utf8_lossy(&output.stdout);
    match text.lines().find_map(|line| line.strip_prefix("host: ")) {
        Some(host) => Ok(host.into()),
        None => bail!("`rustc -vV` names no host: give a folder with --input instead"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_files_come_sorted_and_up_to_the_limit() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("b")).unwrap();
        fs::create_dir(folder.path().join(".git")).unwrap();
        for (name, text) in [
            ("b/x.rs", "fn x() {}"),
            ("a.txt", "some words"),
            ("c.bin", "not\0text"),
            (".git/config", "hidden"),
            ("d.md", "last"),
        ] {
            fs::write(folder.path().join(name), text).unwrap();
        }
        let names = |bytes_max| {
            let input = Input::of_folders(&[folder.path().into()], bytes_max).unwrap();
            let names = input
                .files
                .iter()
                .map(|file| Path::new(file).file_name().unwrap().to_owned());
            names.collect::<Vec<_>>()
        };
        assert_eq!(names(u64::MAX), ["a.txt", "x.rs", "d.md"]);
        assert_eq!(names(11), ["a.txt", "x.rs"]);
    }

    #[test]
    fn nothing_to_index_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let error = Input::of_folders(&[folder.path().into()], u64::MAX)
            .err()
            .unwrap();
        assert!(error.to_string().contains("--input"), "{error}");
    }
}
