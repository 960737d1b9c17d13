//! What each rung costs on this machine: `cargo run --release -p vmsync-tracker --example measure [MiB]`.
//!
//! Every figure is the median of [`ROUNDS`] runs; rungs, backings and the untracked kernel take turns, so that drift of
//! the machine hits all alike. Pages have 4 KiB. Huge pages are off everywhere.

#[cfg(unix)]
#[path = "measure/unix.rs"]
mod measure;

#[cfg(unix)]
fn main() {
    measure::main();
}

#[cfg(not(unix))]
fn main() {
    println!("nothing to measure here");
}
