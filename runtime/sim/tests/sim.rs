//! A few seeds of the simulator, that it finds bugs, and that a seed is a run.

use vmsync_pager_file::limits::GROUP_BYTES_MAX;
use vmsync_sim::{
    canary::Canary,
    disk::Failure,
    life::Life,
    platter::{Change, Image},
    run::run,
    shape::Shape,
};

#[test]
fn no_power_cut_breaks_a_promise() {
    let (mut cuts, mut faults, mut detected) = (0, 0, 0);
    // Seeds in whose runs power is cut, processes are killed, operations fail, and damage is done; with long names, with an
    // object of many pages, and with pages of 16 and 64 KiB.
    for seed in [1, 2, 3, 13, 14, 94] {
        let outcome = run(seed, None);
        if let Some((breach, why)) = outcome.violation {
            panic!("{breach:?}: seed {seed}: {why}");
        }
        cuts += outcome.counts.cuts;
        faults += outcome.faults;
        detected += outcome.seen.detected;
    }
    println!("{cuts} cuts, {faults} faults, {detected} damages detected");
    assert!(cuts > 500, "the runs are long enough to mean something: {cuts}");
    assert!(faults > 0, "some operations failed");
    assert!(detected > 0, "some damage was done");
}

#[test]
fn every_canary_is_found_within_so_many_cuts() {
    const CUTS_MAX: u64 = 2000;
    for (name, canary) in Canary::ALL {
        // Where certain operations have to fail in a certain way, a seed in which they do.
        let mut seed = match canary {
            Canary::Ignored(Failure::Io) => 4,
            Canary::Ignored(Failure::NoSpace) => 10,
            Canary::Ignored(Failure::Short) => 6,
            Canary::EmptyUnasked => 7,
            _ => 1,
        };
        let mut cuts = 0;
        let (breach, why) = loop {
            let outcome = run(seed, Some(canary));
            cuts += outcome.counts.cuts;
            if let Some(found) = outcome.violation {
                break found;
            }
            assert!(cuts < CUTS_MAX, "{name}: {cuts} cuts did not show it");
            seed += 1;
        };
        println!(
            "{name}: {breach:?} at seed {seed}, after {cuts} cuts: {}",
            why.lines().next().unwrap_or_default()
        );
    }
}

#[test]
fn the_same_seed_is_the_same_run() {
    let sum = |seed| run(seed, Some(Canary::JournalNotSynced)).trace_sum;
    assert_eq!(run(7, None).trace_sum, run(7, None).trace_sum);
    assert_eq!(sum(7), sum(7));
    assert_ne!(sum(7), sum(8));
}

#[test]
fn some_seeds_have_calls_that_are_larger_than_a_group() {
    let shape = Shape::of(222);
    let is_large =
        |change: &Change| matches!(change, Change::Write(_, _, bytes) if bytes.len() > GROUP_BYTES_MAX);
    let has_one = |seed| {
        let life = Life::record(&shape, &Image::new(), None, seed, false, None);
        life.is_ok_and(|life| life.trace.iter().any(is_large))
    };
    assert!((1..=4).any(has_one));
}
