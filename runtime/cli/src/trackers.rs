//! `vmsync trackers`: the rungs of the ladder on this machine, what each is, and why one is chosen.

use std::process::ExitCode;

use clap::Args;
use serde_json::json;
use vmsync::{Rung, TrackerKind};

use crate::output::{print_json, print_line};

/// Show which trackers work on this machine, why others do not, and which one guests get.
#[derive(Args)]
pub struct Trackers {
    /// Print as JSON.
    #[arg(long)]
    json: bool,
}

/// What a rung does, and what it costs. Figures: see `cargo xtask bench tracking`.
fn description(kind: TrackerKind) -> &'static str {
    match kind {
        TrackerKind::UffdAsync => {
            "the kernel records the first store to each page by itself; about 1 us each, then full speed"
        }
        TrackerKind::UffdSync => "a thread of the host answers the first store to each page",
        TrackerKind::Mprotect => {
            "pages are read-only and a signal handler answers the first store to each; about 5 us each; \
             read(2) and the like into such a page fail"
        }
        TrackerKind::Barrier => {
            "the guest's own stores mark a table: its module is rewritten, which costs speed and size, but nothing \
             of the system"
        }
        TrackerKind::Compare => {
            "every page is compared with a copy: twice the memory, and each sync reads all of it"
        }
    }
}

/// Whether `rung` works here, and whether it is the one that is chosen.
fn state(rung: &Rung, best: TrackerKind) -> String {
    match (&rung.available, &rung.private_file) {
        (Err(why), _) => format!("not here: {why}"),
        (Ok(()), _) if rung.kind == best => "works, and is chosen unless --tracker says otherwise".into(),
        (Ok(()), _) if rung.kind == TrackerKind::Barrier => {
            "works, for modules that are instrumented, and for others if --tracker asks for it".into()
        }
        (Ok(()), Ok(())) => "works".into(),
        (Ok(()), Err(why)) => {
            format!("works, but objects are copied in: mapped files cannot be watched ({why})")
        }
    }
}

impl Trackers {
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        let best = vmsync::best();
        let rungs = vmsync::probe();
        if self.json {
            let rows: Vec<_> = rungs
                .iter()
                .map(|rung| {
                    json!({
                        "tracker": rung.kind.name(),
                        "description": description(rung.kind),
                        "available": rung.available.is_ok(),
                        "why": rung.available.as_ref().err(),
                        "private_files": rung.private_file.is_ok(),
                    })
                })
                .collect();
            print_json(&json!({ "best": best.name(), "trackers": rows }))?;
            return Ok(ExitCode::SUCCESS);
        }
        for rung in &rungs {
            print_line(&format!("{:<10}  {}", rung.kind.name(), state(rung, best)))?;
            print_line(&format!("{:<10}  {}", "", description(rung.kind)))?;
        }
        print_line(&format!(
            "\n{best} is the first of the list that works here and takes guests as they are."
        ))?;
        Ok(ExitCode::SUCCESS)
    }
}
