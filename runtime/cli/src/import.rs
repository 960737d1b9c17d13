//! `vmsync import`: a store out of a tar file that `vmsync export` or a page of a browser has made.
//!
//! Invariants:
//! - a store that exists is left alone;
//! - the folder gets its name when everything in it is durable and every checksum was compared;
//! - an archive decides what its files hold, and nothing else: neither where they are, nor what they are.

use std::{
    fs::{self, File, Permissions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, bail};
use clap::Args;
use serde_json::json;
use tar::EntryType;

use crate::{
    archive::{STORE_FILE, file_name, is_store_file, progress},
    interrupt::{self, Stopping},
    output::{bytes, print_json, print_line, warn},
    store_name::folder,
    whole_file::{parent, sync_folder},
};

/// Bytes that are copied at a time; where all of them are zero, an image gets a hole.
const CHUNK_BYTES: usize = 1 << 16;

/// Make a store of a tar file that `vmsync export` or a page of a browser has written.
///
/// Every checksum is compared before STORE appears. A tar file of a store's folder does as well.
#[derive(Args)]
pub struct Import {
    /// The tar file.
    file: PathBuf,
    /// The folder of the store to make; it must not exist, or be empty.
    #[arg(value_parser = folder())]
    store: PathBuf,
    /// Print as JSON.
    #[arg(long)]
    json: bool,
}

/// What was taken from an archive.
#[derive(Default)]
struct Taken {
    files: u64,
    bytes: u64,
    has_store: bool,
    left_out: Vec<String>,
}

impl Import {
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        let (taken, report) = self
            .import()
            .with_context(|| format!("cannot import {}", self.file.display()))?;
        if self.json {
            print_json(&json!({
                "files": taken.files, "bytes": taken.bytes, "left_out": taken.left_out,
                "objects": report.objects, "pages": report.pages,
            }))?;
        } else {
            for name in &taken.left_out {
                warn(&format!("left out, for it is not of a store: {name}"));
            }
            print_line(&format!(
                "{} files, {} in {}: {} objects, {} pages compared",
                taken.files,
                bytes(taken.bytes),
                self.store.display(),
                report.objects,
                report.pages
            ))?;
        }
        Ok(ExitCode::SUCCESS)
    }

    fn import(&self) -> anyhow::Result<(Taken, vmsync_pager_file::Report)> {
        self.refuse_occupied()?;
        let file = File::open(&self.file).context("cannot open it")?;
        let folder = parent(&self.store);
        interrupt::listen();
        let temporary = tempfile::Builder::new()
            .prefix(".vmsync-import-")
            .permissions(Permissions::from_mode(0o777))
            .tempdir_in(folder)
            .with_context(|| format!("cannot make a folder in {}", folder.display()))?;
        let bar = progress(file.metadata().context("cannot examine it")?.len())?;
        let taken = unpack(bar.wrap_read(Stopping(file)), temporary.path())?;
        bar.finish_and_clear();
        if !taken.has_store {
            bail!("no file {STORE_FILE} in it: this is not an exported store, or it is cut short");
        }
        sync_folder(temporary.path())?;
        let report = vmsync_pager_file::verify(temporary.path())?;
        if let Some(problem) = report.problems.first() {
            bail!("it is damaged: {problem}: run `vmsync verify` on the store that it was made of");
        }
        interrupt::check()?;
        fs::rename(temporary.path(), &self.store)
            .with_context(|| format!("cannot make {}", self.store.display()))?;
        // Under its own name it stays.
        let _ = temporary.keep();
        sync_folder(folder)?;
        Ok((taken, report))
    }

    fn refuse_occupied(&self) -> anyhow::Result<()> {
        let store = self.store.display();
        match fs::read_dir(&self.store).map(|mut entries| entries.next().is_some()) {
            Ok(true) => bail!("{store} exists and is not empty: choose another folder, or remove it"),
            Ok(false) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error).with_context(|| format!("cannot look into {store}")),
        }
    }
}

/// Writes the store's files of `archive` into `folder`.
fn unpack(archive: impl Read, folder: &Path) -> anyhow::Result<Taken> {
    const BROKEN: &str = "this is not a tar file, or it is cut short";
    let mut taken = Taken::default();
    let mut archive = tar::Archive::new(archive);
    for entry in archive.entries().context(BROKEN)? {
        let mut entry = entry.context(BROKEN)?;
        let path = entry.path().context(BROKEN)?.into_owned();
        let kind = entry.header().entry_type();
        if kind.is_dir() {
            continue;
        }
        let Some(name) = file_name(&path) else {
            bail!("the name {} leads out of its folder", path.display());
        };
        if !is_store_file(name) {
            taken.left_out.push(name.into());
            continue;
        }
        if !matches!(
            kind,
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse
        ) {
            bail!("{name} is not a plain file");
        }
        let length = entry.size();
        if unpack_file(&mut entry, &folder.join(name), name)? != length {
            bail!("{name} is cut short: export the store again");
        }
        taken.files += 1;
        taken.bytes += length;
        taken.has_store |= name == STORE_FILE;
    }
    Ok(taken)
}

/// How many bytes were written, durably.
fn unpack_file(entry: &mut impl Read, path: &Path, name: &str) -> anyhow::Result<u64> {
    let cannot_write = || format!("cannot write {name}");
    let mut file = match File::create_new(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => bail!("it has two files called {name}"),
        created => created.with_context(cannot_write)?,
    };
    // A journal with holes would need space when it is written.
    let has_holes = name.starts_with("object-");
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut length = 0;
    loop {
        let count = fill(entry, &mut chunk).with_context(|| format!("cannot read {name} in it"))?;
        let bytes = &chunk[..count];
        if has_holes && bytes.iter().all(|byte| *byte == 0) {
            file.seek(SeekFrom::Current(count as i64))
                .with_context(cannot_write)?;
        } else {
            file.write_all(bytes).with_context(cannot_write)?;
        }
        length += count as u64;
        if count < chunk.len() {
            break;
        }
    }
    file.set_len(length).with_context(cannot_write)?;
    file.sync_all().with_context(cannot_write)?;
    Ok(length)
}

/// Reads until `buffer` is full or nothing is left; how many bytes that were.
fn fill(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut count = 0;
    while count < buffer.len() {
        match from.read(&mut buffer[count..]) {
            Ok(0) => break,
            Ok(more) => count += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(count)
}
