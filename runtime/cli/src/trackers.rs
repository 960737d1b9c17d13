//! `vmsync trackers`: the rungs of the ladder on this machine.

use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use crate::output::{print_json, print_line};

/// Show which trackers work on this machine.
#[derive(Args)]
pub struct Trackers {
    /// Print as JSON.
    #[arg(long)]
    json: bool,
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
                        "available": rung.available.is_ok(),
                        "why": rung.available.as_ref().err(),
                    })
                })
                .collect();
            print_json(&json!({ "best": best.name(), "trackers": rows }))?;
            return Ok(ExitCode::SUCCESS);
        }
        for rung in rungs {
            let state = match &rung.available {
                Ok(()) if rung.kind == best => "works, chosen unless --tracker says otherwise".to_string(),
                Ok(()) => "works".to_string(),
                Err(why) => format!("not here: {why}"),
            };
            print_line(&format!("{:<10}  {state}", rung.kind.name()))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
