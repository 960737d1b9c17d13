//! `vmsync inspect`: what a store holds, without changing it.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::Args;
use serde_json::json;
use vmsync_pager_file::Summary;

use crate::{
    output::{bytes, print_json, print_line},
    store_name::folder,
};

/// Show what a store holds.
#[derive(Args)]
pub struct Inspect {
    /// The folder of the store.
    #[arg(value_parser = folder())]
    store: PathBuf,
    /// Print as JSON.
    #[arg(long)]
    json: bool,
}

impl Inspect {
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        let summary = vmsync_pager_file::inspect(&self.store)
            .with_context(|| format!("cannot inspect {}", self.store.display()))?;
        if self.json {
            print_json(&to_json(&summary))?
        } else {
            print_table(&summary)?
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn to_json(summary: &Summary) -> serde_json::Value {
    let objects: Vec<_> = summary
        .objects
        .iter()
        .map(|(name, attributes)| {
            json!({
                "name": name.as_str(), "size": attributes.size, "version": attributes.version,
                "address": attributes.address, "precious": attributes.precious,
            })
        })
        .collect();
    let journal = &summary.journal;
    json!({
        "format_version": summary.format_version,
        "page_size": summary.page_size.bytes(),
        "superblock": summary.superblock,
        "objects": objects,
        "journal": {
            "segments": journal.segments, "segments_free": journal.segments_free,
            "bytes_in_use": journal.bytes_in_use, "records": journal.records, "calls": journal.calls,
            "sequence_next": journal.sequence_next,
        },
    })
}

fn print_table(summary: &Summary) -> anyhow::Result<()> {
    let journal = &summary.journal;
    print_line(&format!(
        "format {}, pages of {}, superblock {}",
        summary.format_version,
        bytes(summary.page_size.bytes()),
        summary.superblock
    ))?;
    print_line(&format!(
        "journal: {} calls in {} records not yet in the images, {} segments ({}) in use, {} free",
        journal.calls,
        journal.records,
        journal.segments,
        bytes(journal.bytes_in_use),
        journal.segments_free
    ))?;
    print_line(&format!(
        "{:<32} {:>12} {:>10}  {}",
        "object", "size", "version", "last mapped at"
    ))?;
    for (name, attributes) in &summary.objects {
        let address = attributes
            .address
            .map_or_else(|| "-".into(), |address| format!("{address:#x}"));
        print_line(&format!(
            "{:<32} {:>12} {:>10}  {address}",
            name.as_str(),
            bytes(attributes.size),
            attributes.version
        ))?;
    }
    Ok(())
}
