//! A few generated modules under every rung; `examples/fuzz` goes on for as long as one likes.

#[path = "../examples/fuzz/generate.rs"]
mod generate;
#[path = "../examples/fuzz/rungs.rs"]
mod rungs;

use rungs::{Counts, Rungs};
use vmsync_pager_conformance::random::seeds;

/// Modules of one run.
const MODULES: u64 = 60;

#[test]
fn generated_modules_run_the_same_under_every_rung() {
    let rungs = Rungs::new();
    println!("rungs: {}", rungs.names());
    let mut counts = Counts::default();
    for first in seeds(1) {
        println!("SEED={first}");
        for seed in first..first + MODULES {
            if let Err(error) = rungs.run(seed, &mut counts) {
                panic!("SEED={seed}: {error:#}");
            }
        }
    }
    println!("{counts:?}");
    assert!(counts.calls > 0 && counts.pages_changed > 0 && counts.findings == 0);
}
