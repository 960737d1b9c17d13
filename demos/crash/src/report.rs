//! [`Report`]: what was done, as a table for people or as JSON.
//!
//! Counts of pages and journal bytes are those at each run's last sync that the guest was told of: what a kill cut
//! off is not in them. Bytes written are the system's count and have all of it: journal, images, checksums, and the
//! zeroes of new segments.

use std::{
    fmt,
    io::{self, Write},
    time::Duration,
};

use serde_json::{Value, json};

use crate::{codesearch::Answer, input::Input, life::Life, moment::Moment};

/// A kill and what was found after it.
pub struct Kill {
    pub moment: Moment,
    pub round: u64,
    /// Where the run said that it continued, if it came so far.
    pub resumed: Option<u64>,
    /// Files of the last sync that was reported before the kill.
    pub reported: u64,
    /// Files that were found after it.
    pub durable: u64,
}

impl fmt::Display for Kill {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let moment = self.moment.to_string();
        let Self {
            reported, durable, ..
        } = self;
        write!(
            formatter,
            "at {moment:<24} {reported:>6} files reported, {durable:>6} durable; sound, equal to a recount"
        )
    }
}

pub struct Report {
    pub seed: u64,
    pub files: u64,
    pub bytes_input: u64,
    pub tracker: Option<String>,
    pub rounds: u64,
    pub runs: u64,
    pub kills: Vec<Kill>,
    pub syncs: u64,
    pub pages: u64,
    pub bytes_journaled: u64,
    pub checkpoints: u64,
    /// `None` where the system does not count them.
    pub bytes_written: Option<u64>,
    /// The heap of the last round's index.
    pub bytes_state: u64,
    /// What the last round's store occupies.
    pub bytes_store: u64,
    pub time: Duration,
    pub answers: Vec<Answer>,
}

impl Report {
    pub fn new(seed: u64, input: &Input) -> Self {
        Self {
            seed,
            files: input.files.len() as u64,
            bytes_input: input.bytes,
            tracker: None,
            rounds: 0,
            runs: 0,
            kills: Vec::new(),
            syncs: 0,
            pages: 0,
            bytes_journaled: 0,
            checkpoints: 0,
            bytes_written: Some(0),
            bytes_state: 0,
            bytes_store: 0,
            time: Duration::ZERO,
            answers: Vec::new(),
        }
    }

    /// Adds what a run has done.
    pub fn count(&mut self, life: &Life) {
        let traced = &life.traced;
        self.runs += 1;
        self.syncs += life.syncs;
        self.pages += traced.pages;
        self.bytes_journaled += traced.bytes_journaled;
        self.checkpoints += traced.checkpoints;
        self.tracker = self.tracker.take().or_else(|| traced.tracker.clone());
        self.bytes_written = self
            .bytes_written
            .zip(life.bytes_written)
            .map(|(sum, bytes)| sum + bytes);
    }

    /// A number for each byte of state that all rounds together have built.
    fn per_state_byte(&self, bytes: u64) -> f64 {
        bytes as f64 / (self.bytes_state * self.rounds).max(1) as f64
    }

    pub fn print_json(&self) -> anyhow::Result<()> {
        print(&format!("{:#}\n", self.to_json()))
    }

    fn to_json(&self) -> Value {
        let kills = self.kills.iter().map(|kill| {
            json!({
                "moment": kill.moment.to_string(), "round": kill.round, "resumed": kill.resumed,
                "files_reported": kill.reported, "files_durable": kill.durable,
            })
        });
        let answers = self.answers.iter().map(|answer| {
            json!({ "identifier": answer.identifier, "places": answer.places, "first": answer.first })
        });
        json!({
            "seed": self.seed, "tracker": self.tracker, "files": self.files, "bytes_input": self.bytes_input,
            "kills": self.kills.len(), "violations": 0, "rounds": self.rounds, "runs": self.runs,
            "syncs": self.syncs, "pages_dirty": self.pages, "bytes_journaled": self.bytes_journaled,
            "checkpoints": self.checkpoints, "bytes_written": self.bytes_written, "bytes_state": self.bytes_state,
            "bytes_store": self.bytes_store, "seconds": self.time.as_secs_f64(),
            "moments": kills.collect::<Vec<_>>(), "queries": answers.collect::<Vec<_>>(),
        })
    }

    pub fn print_table(&self) -> anyhow::Result<()> {
        let mut text = String::new();
        for answer in &self.answers {
            text += &format!("{}: {} places", answer.identifier, answer.places);
            for place in &answer.first {
                text += &format!("\n  {}", shortened(place));
            }
            text += "\n";
        }
        text += "\n";
        for (name, value) in self.rows() {
            text += &format!("{name:<14} {value}\n");
        }
        print(&text)
    }

    fn rows(&self) -> Vec<(&'static str, String)> {
        let rounds = match self.rounds {
            1 => String::new(),
            rounds => format!(", {rounds} times"),
        };
        let ratio = |bytes| {
            format!(
                "{}, {:.2} for each byte of state",
                size(bytes),
                self.per_state_byte(bytes)
            )
        };
        vec![
            (
                "input",
                format!("{} files, {}{rounds}", self.files, size(self.bytes_input)),
            ),
            (
                "tracker",
                self.tracker.clone().unwrap_or_else(|| "unknown".into()),
            ),
            ("kills", format!("{}, each survived", self.kills.len())),
            ("syncs", self.syncs.to_string()),
            (
                "dirty pages",
                format!(
                    "{}, {:.1} a sync",
                    self.pages,
                    self.pages as f64 / self.syncs.max(1) as f64
                ),
            ),
            ("journal", ratio(self.bytes_journaled)),
            (
                "bytes written",
                self.bytes_written
                    .map_or_else(|| "not counted here".into(), ratio),
            ),
            (
                "state",
                format!(
                    "{}; the store occupies {}",
                    size(self.bytes_state),
                    size(self.bytes_store)
                ),
            ),
            (
                "time",
                format!("{:.1} s with the checks", self.time.as_secs_f64()),
            ),
            ("seed", self.seed.to_string()),
        ]
    }
}

/// The end of a path, which says more than its beginning.
fn shortened(place: &str) -> &str {
    const PARTS: usize = 4;
    let begin = place.rmatch_indices('/').nth(PARTS - 1);
    begin.map_or(place, |(index, _)| &place[index + 1..])
}

/// A number of bytes for people.
fn size(bytes: u64) -> String {
    const KIB: f64 = 1024.0;
    let value = bytes as f64;
    if value < KIB * KIB {
        format!("{:.1} KiB", value / KIB)
    } else {
        format!("{:.1} MiB", value / KIB / KIB)
    }
}

/// Prints; a reader that has gone away is not an error.
fn print(text: &str) -> anyhow::Result<()> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}
