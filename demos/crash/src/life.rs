//! [`Life`]: one run of the guest's `index`, from its start to its kill or its end.

use std::{
    collections::VecDeque,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::Result;
use serde_json::Value;

use crate::{
    child::{Child, End, Event, Line},
    codesearch::{Synced, parse_resumed},
    moment::Moment,
};

/// Lines of standard error that are kept for the report of a run that failed.
const ERRORS_MAX: usize = 10;

/// What `vmsync` exits with for wrong usage, and the guest when it cannot carry out its command.
const EXIT_REFUSED: i32 = 2;

/// What a run has done.
pub struct Life {
    pub how: How,
    /// Where it said that it continues, if it came so far.
    pub resumed: Option<u64>,
    /// Its last `synced` line.
    pub reported: Option<Synced>,
    /// How many `synced` lines there were.
    pub syncs: u64,
    /// Counts of the host at its last sync.
    pub traced: Traced,
    /// Bytes sent to the storage, where the system counts them.
    pub bytes_written: Option<u64>,
    /// From the start to the first line.
    pub start: Option<Duration>,
    /// From the first line to the last sync.
    pub syncing: Duration,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum How {
    /// We killed it.
    Killed,
    /// All files are indexed.
    Finished,
    /// By itself, before all files were indexed, because it cannot be done as it was asked: too small an object, for example.
    Refused(String),
    /// By itself, before all files were indexed.
    Failed(String),
}

/// The last line of `vmsync run --trace-syncs`.
#[derive(Clone, Debug, Default)]
pub struct Traced {
    pub tracker: Option<String>,
    pub pages: u64,
    pub bytes_journaled: u64,
    pub checkpoints: u64,
}

impl Traced {
    fn parse(line: &str) -> Option<Self> {
        let value: Value = serde_json::from_str(line).ok()?;
        Some(Self {
            tracker: Some(value["tracker"].as_str()?.into()),
            pages: value["pages_changed"].as_u64()?,
            bytes_journaled: value["bytes_journaled"].as_u64()?,
            checkpoints: value["checkpoints"].as_u64()?,
        })
    }
}

/// Runs `command` until `moment` or its end; `progress` is told of every sync.
pub fn live(command: &mut Command, moment: Moment, progress: impl Fn(Synced)) -> Result<Life> {
    let born = Instant::now();
    let mut child = Child::spawn(command)?;
    let mut life = Life {
        how: How::Killed,
        resumed: None,
        reported: None,
        syncs: 0,
        traced: Traced::default(),
        bytes_written: None,
        start: None,
        syncing: Duration::ZERO,
    };
    let mut errors = VecDeque::new();
    let (mut killed, mut done) = (false, false);
    let mut time = match moment {
        Moment::Start(time) => Some(born + time),
        Moment::Work(_) | Moment::Syncs { .. } | Moment::Never => None,
    };
    loop {
        match child.next(time)? {
            Event::TimeReached => {
                child.kill()?;
                (killed, time) = (true, None);
            }
            Event::Line(Line::Out(line)) => {
                if let Some(synced) = Synced::parse(&line) {
                    life.syncs += 1;
                    life.reported = Some(synced);
                    life.syncing = born.elapsed().saturating_sub(life.start.unwrap_or_default());
                    progress(synced);
                    match moment {
                        Moment::Syncs { syncs, delay } if syncs == life.syncs => {
                            time = Some(Instant::now() + delay);
                        }
                        _ => {}
                    }
                } else if let Some(files) = parse_resumed(&line) {
                    life.resumed = Some(files);
                    life.start = Some(born.elapsed());
                    if let Moment::Work(delay) = moment {
                        time = Some(Instant::now() + delay);
                    }
                } else {
                    done |= line.starts_with("done ");
                }
            }
            Event::Line(Line::Error(line)) => match Traced::parse(&line) {
                Some(traced) => life.traced = traced,
                None => {
                    errors.push_back(line);
                    if errors.len() > ERRORS_MAX {
                        errors.pop_front();
                    }
                }
            },
            Event::Closed => break,
        }
    }
    let end = child.end()?;
    life.bytes_written = end.bytes_written;
    life.how = how(&end, killed, done, errors.into());
    Ok(life)
}

fn how(end: &End, killed: bool, done: bool, errors: Vec<String>) -> How {
    if done && end.status.success() {
        // Perhaps the kill came while it was ending anyway.
        How::Finished
    } else if killed && end.status.code().is_none() {
        How::Killed
    } else {
        let words = format!("{} ({})", errors.join("; "), end.status);
        match end.status.code() {
            Some(EXIT_REFUSED) => How::Refused(words),
            _ => How::Failed(words),
        }
    }
}
