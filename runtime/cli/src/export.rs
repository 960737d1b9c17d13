//! `vmsync export`: a store as one tar file, for a page of a browser, a backup or another machine.
//!
//! Invariants:
//! - nobody writes the store meanwhile, and nothing in it changes;
//! - every checksum was compared: what is damaged is not carried on as if it were a backup;
//! - the file is complete and durable when it gets its name.

use std::{
    fs::File,
    io::{BufWriter, IntoInnerError, Read},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::{Context, bail};
use clap::Args;
use indicatif::ProgressBar;
use serde_json::json;
use vmsync_pager_file::{
    disk::{
        Disk, Sharing,
        native::{Folder, NativeDisk},
    },
    verify_on,
};

use crate::{
    archive::{STORE_FILE, is_store_file, progress},
    interrupt::{self, Stopping},
    output::{bytes, print_json, print_line},
    sparse::Sparse,
    store_name::folder,
    whole_file::Target,
};

/// Bytes that are written at a time.
const BUFFER_BYTES: usize = 1 << 20;

/// Write a store to one tar file, which `vmsync import` and pages of a browser take.
///
/// The store must not be open for writing, and every checksum is compared first: one that is damaged is refused. A FILE
/// that exists is replaced when the new one is complete.
#[derive(Args)]
pub struct Export {
    /// The folder of the store.
    #[arg(value_parser = folder())]
    store: PathBuf,
    /// The tar file to make.
    file: PathBuf,
    /// Print as JSON.
    #[arg(long)]
    json: bool,
}

impl Export {
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        let (files, length) = self
            .export()
            .with_context(|| format!("cannot export {}", self.store.display()))?;
        if self.json {
            print_json(&json!({ "files": files, "bytes": length }))?;
        } else {
            let file = self.file.display();
            print_line(&format!("{files} files, {} in {file}", bytes(length)))?;
        }
        Ok(ExitCode::SUCCESS)
    }

    /// How many files, of how many bytes, are in the archive.
    fn export(&self) -> anyhow::Result<(usize, u64)> {
        let target = self.target()?;
        let disk = NativeDisk::new(&self.store, Folder::Existing)?;
        let _lock = disk.lock(Sharing::Shared)?;
        let report = verify_on(&disk)?;
        if let Some(problem) = report.problems.first() {
            bail!("it is damaged: {problem}: `vmsync verify` names every place; restore it from a copy");
        }
        let mut names = disk.list()?;
        names.retain(|name| is_store_file(name));
        names.sort_by(|left, right| (left == STORE_FILE, left).cmp(&(right == STORE_FILE, right)));
        let files = names.into_iter().map(|name| {
            let path = self.store.join(&name);
            let opened = File::open(&path).and_then(|file| Ok((file.metadata()?.len(), file)));
            let (length, file) = opened.with_context(|| format!("cannot read {}", path.display()))?;
            Ok((name, length, file))
        });
        let files: Vec<_> = files.collect::<anyhow::Result<_>>()?;
        let (count, length) = (files.len(), files.iter().map(|(_, length, _)| length).sum());
        let bar = progress(length)?;
        interrupt::listen();
        target.write(|to| archive(files, &bar, to))?;
        Ok((count, length))
    }

    /// Where the archive goes: not over a device, and not over a file of the store.
    fn target(&self) -> anyhow::Result<Target> {
        let (target, file) = (Target::new(&self.file), self.file.display());
        if target.is_special() {
            bail!("{file} is no file, and would be replaced by one: name another");
        }
        if target.name_in(&self.store).is_some_and(is_store_file) {
            bail!("{file} would be a file of the store itself: name another");
        }
        Ok(target)
    }
}

fn archive(files: Vec<(String, u64, File)>, bar: &ProgressBar, to: &File) -> anyhow::Result<()> {
    let mut archive = tar::Builder::new(BufWriter::with_capacity(BUFFER_BYTES, Sparse::new(to)));
    for (name, length, file) in files {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::Regular);
        header.set_mode(0o644);
        header.set_size(length);
        let data = bar.wrap_read(Stopping(file.take(length)));
        archive.append_data(&mut header, name, data)?;
    }
    let buffer = archive.into_inner()?;
    buffer
        .into_inner()
        .map_err(IntoInnerError::into_error)?
        .finish()?;
    bar.finish_and_clear();
    Ok(())
}
