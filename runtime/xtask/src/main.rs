//! `cargo xtask`: the workspace's own tasks. Each is one file.

mod assemblyscript;
mod bench;
mod c_guests;
mod demo;
mod guests;
mod npm;
mod peers;
mod rules;
mod servers;
mod sim;
mod sources;
mod steps;
mod systems;
mod tests;
mod wasm_toolchain;
mod web;
mod web_bench;
mod web_server;
mod web_tests;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::steps::Workspace;

/// The workspace's own tasks. Each sets up what it needs and says what it cannot.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

/// What each does is said where it is: a comment here would take the place of that.
#[derive(Subcommand)]
enum Task {
    Demo(demo::Demo),
    Test(tests::Test),
    Bench(bench::Bench),
    Sim(sim::Sim),
    Web(web::Web),
    /// Build the guest programs into target/guests.
    Guests,
    /// Start PostgreSQL and an S3 server (Ceph RGW) for tests by hand, and stop them when standard input ends.
    Servers,
    /// Check what crates may depend on what.
    Rules,
}

fn main() -> ExitCode {
    let result = Workspace::find().and_then(|workspace| match Cli::parse().task {
        Task::Demo(task) => task.run(&workspace),
        Task::Test(task) => task.run(&workspace),
        Task::Bench(task) => task.run(&workspace),
        Task::Sim(task) => task.run(&workspace),
        Task::Web(task) => task.run(&workspace),
        Task::Guests => workspace.guests(),
        Task::Servers => servers::serve(),
        Task::Rules => rules::check(&workspace),
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
