//! The command line, as the head of `main.rs` describes it.

use std::str::FromStr;

use crate::Failure;

/// What to do.
pub enum Command {
    /// Index the files that the list names.
    Index { list: String },
    /// Recount and compare.
    Check { list: String },
    /// Print where an identifier occurs.
    Query { identifier: String },
    /// Print how large the index is.
    Stats,
}

/// A parsed command line.
pub struct Options {
    pub command: Command,
    /// Name of the memory object.
    pub object: String,
    /// Least size of the region, in MiB.
    pub size_mib: usize,
    /// Files between two syncs.
    pub sync_every: usize,
    /// Most places that a query prints.
    pub limit: usize,
}

const USAGE: &str = "index LIST [--sync-every N] | check LIST | query IDENTIFIER [--limit N] | stats, \
                     each with [--object NAME] [--size MIB]";

impl Options {
    /// Reads the arguments that follow the program's name.
    pub fn parse(arguments: impl Iterator<Item = String>) -> Result<Self, Failure> {
        let mut options = Self {
            command: Command::Stats,
            object: "codesearch".into(),
            size_mib: 1024,
            sync_every: 8,
            limit: 20,
        };
        let mut words = Vec::new();
        let mut arguments = arguments;
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
            match argument.as_str() {
                "--object" => options.object = value()?,
                "--size" => options.size_mib = number(&value()?, 1, 1279)?,
                "--sync-every" => options.sync_every = number(&value()?, 1, usize::MAX)?,
                "--limit" => options.limit = number(&value()?, 0, usize::MAX)?,
                _ if argument.starts_with("--") => return Err(format!("{argument}? {USAGE}").into()),
                _ => words.push(argument),
            }
        }
        let mut words = words.into_iter();
        options.command = match (words.next().as_deref(), words.next(), words.next()) {
            (Some("index"), Some(list), None) => Command::Index { list },
            (Some("check"), Some(list), None) => Command::Check { list },
            (Some("query"), Some(identifier), None) => Command::Query { identifier },
            (Some("stats"), None, None) => Command::Stats,
            _ => return Err(USAGE.into()),
        };
        Ok(options)
    }
}

fn number(text: &str, least: usize, most: usize) -> Result<usize, Failure> {
    match usize::from_str(text) {
        Ok(number) if (least..=most).contains(&number) => Ok(number),
        _ => Err(format!("{text} is no number from {least} to {most}").into()),
    }
}
