//! Power cuts after every single operation of random runs, with every surviving part of what was not synced where
//! that is few, and samples where it is many. What is read afterwards must be the state after one and the same call
//! for all objects: the last reported one, or a later one.

mod common;

use std::sync::Arc;

use common::{Edit, NAMES, PAGE, PAGES, State, client, contents, open, power_cuts};
use vmsync_core::{PagerErrorKind, pager::SynchronizeFlags};
use vmsync_pager_conformance::{
    Client,
    random::{Random, seeds},
};
use vmsync_pager_file::{
    FileStore,
    disk::memory::{Change, MemoryDisk},
    inspect_on, verify_on,
};

/// A step of a run: the disk operations before and behind it, and whether its end promises durability.
struct Step {
    start: usize,
    end: usize,
    promises: bool,
    /// The state behind it; `None` before there is a store.
    state: Option<State>,
}

/// A run: what the disk was before, what was done to it, and what was promised.
struct Run {
    base: MemoryDisk,
    trace: Vec<Change>,
    steps: Vec<Step>,
}

impl Run {
    /// The states that a power cut before operation `index` may leave.
    fn allowed(&self, index: usize) -> Vec<&Option<State>> {
        let promised = self
            .steps
            .iter()
            .rposition(|step| step.promises && step.end <= index);
        let first = promised.unwrap_or(0);
        let begun = self.steps.iter().filter(|step| step.start < index).count();
        self.steps[first..begun.max(first + 1)]
            .iter()
            .map(|step| &step.state)
            .collect()
    }
}

/// Records steps.
struct Recording {
    disk: MemoryDisk,
    steps: Vec<Step>,
}

impl Recording {
    fn position(&self) -> usize {
        self.disk.trace().len()
    }

    fn step(&mut self, start: usize, promises: bool, state: Option<State>) {
        self.steps.push(Step {
            start,
            end: self.position(),
            promises,
            state,
        });
    }
}

/// Opens a store on `disk`, which holds `state`, does random calls, and closes it.
fn record(disk: MemoryDisk, state: Option<State>, random: &mut Random, edits: u64) -> Run {
    let base = disk.after_kill();
    let mut run = Recording {
        disk,
        steps: Vec::new(),
    };
    run.step(0, true, state.clone());
    let store = open(&run.disk).expect("a sound disk");
    let mut state = state.unwrap_or_default();
    run.step(0, true, Some(state.clone()));
    let mut clients = Vec::new();
    for name in NAMES {
        let start = run.position();
        clients.push(client(&store, name, PAGES).expect("opens"));
        state.entry(name.into()).or_insert(vec![0; PAGE * PAGES as usize]);
        run.step(start, true, Some(state.clone()));
    }
    for _ in 0..edits {
        one(&mut run, &store, &mut clients, &mut state, random);
    }
    let start = run.position();
    clients.clear();
    drop(store);
    run.step(start, true, Some(state));
    Run {
        base,
        trace: run.disk.trace(),
        steps: run.steps,
    }
}

fn one(
    run: &mut Recording,
    store: &Arc<FileStore>,
    clients: &mut [Client],
    state: &mut State,
    random: &mut Random,
) {
    let start = run.position();
    if random.once_in(16) {
        // Grow an object, which closes and opens it.
        let index = random.below(NAMES.len() as u64) as usize;
        let pages = state[NAMES[index]].len() / PAGE + 1;
        clients[index].pager().terminate(clients[index].object);
        clients[index] = client(store, NAMES[index], pages as u64).expect("grows");
        state.get_mut(NAMES[index]).unwrap().resize(pages * PAGE, 0);
        return run.step(start, true, Some(state.clone()));
    }
    if random.once_in(20) {
        store.checkpoint().expect("a checkpoint");
        return run.step(start, true, Some(state.clone()));
    }
    let edit = Edit::random(random, state);
    *state = edit.applied(state);
    edit.run(clients).expect("the call works");
    let promises = edit.synchronous && !edit.pages.is_empty();
    run.step(start, promises, Some(state.clone()));
}

/// Opens what a power cut left, and says why it is wrong. `None` where it left no store.
fn examine(disk: &MemoryDisk, allowed: &[&Option<State>]) -> Result<Option<State>, String> {
    match inspect_on(disk) {
        Err(error) if error.kind == PagerErrorKind::NotFound => {
            return match allowed.iter().any(|state| state.is_none()) {
                true => Ok(None),
                false => Err("the store is gone".into()),
            };
        }
        Err(error) => return Err(format!("inspect fails: {error}")),
        Ok(_) => {}
    }
    let report = verify_on(disk).map_err(|error| format!("verify fails: {error}"))?;
    if let Some(problem) = report.problems.first() {
        return Err(format!("verify reports {problem}"));
    }
    let store = open(disk).map_err(|error| format!("does not open: {error}"))?;
    let found = contents(&store).map_err(|error| format!("does not read: {error}"))?;
    match allowed.iter().copied().flatten().any(|state| *state == found) {
        true => Ok(Some(found)),
        false => Err(format!(
            "a state that no call left; {} were allowed",
            allowed.len()
        )),
    }
}

/// Cuts the power after every operation of `run`. `again` is called for some of the disks that came back.
fn cut_everywhere(
    run: &Run,
    random: &mut Random,
    mut again: impl FnMut(MemoryDisk, Option<State>, &mut Random),
) -> Result<u64, String> {
    let disk = run.base.after_kill();
    let mut count = 0;
    for index in 0..=run.trace.len() {
        let allowed = run.allowed(index);
        for left in power_cuts(&disk, random) {
            count += 1;
            let second = left.after_kill();
            let found = examine(&left, &allowed)
                .map_err(|why| format!("after operation {index} of {}: {why}", run.trace.len()))?;
            if random.once_in(400) {
                again(second, found, random);
            }
        }
        if let Some(change) = run.trace.get(index) {
            disk.replay(change);
        }
    }
    Ok(count)
}

#[test]
fn every_power_cut_leaves_a_whole_call() {
    for seed in seeds(3) {
        println!("power cuts: SEED={seed}");
        let mut random = Random::new(seed);
        let run = record(MemoryDisk::new(), None, &mut random, 25);
        let mut lives = 0;
        let count = cut_everywhere(&run, &mut random, |disk, state, random| {
            // A second life on what the first cut left, cut in turn: recovery itself is interrupted too.
            lives += 1;
            let next = record(disk, state, random, 3);
            if let Err(why) = cut_everywhere(&next, random, |_, _, _| {}) {
                panic!("SEED={seed}, second life: {why}");
            }
        });
        match count {
            Ok(count) => println!(
                "{count} power cuts in {} operations, {lives} second lives",
                run.trace.len()
            ),
            Err(why) => panic!("SEED={seed}: {why}"),
        }
    }
}

#[test]
fn the_same_seed_is_the_same_run() {
    let trace = |seed| record(MemoryDisk::new(), None, &mut Random::new(seed), 20).trace;
    assert!(trace(7) == trace(7));
    assert!(trace(7) != trace(8));
}

/// Moves what follows each journal sync up to the next one in front of it: a store that puts pages into the images
/// before their record is durable.
fn apply_before_sync(trace: &[Change]) -> Vec<Change> {
    let mut changed: Vec<Change> = Vec::new();
    for change in trace {
        let sync = changed
            .iter()
            .rposition(|earlier| matches!(earlier, Change::Sync(name) if name.starts_with("journal-")));
        match sync {
            Some(sync) if is_page(change) && changed[sync + 1..].iter().all(is_page) => {
                changed.insert(sync, change.clone());
            }
            _ => changed.push(change.clone()),
        }
    }
    changed
}

/// Whether `change` writes to an image.
fn is_page(change: &Change) -> bool {
    matches!(change, Change::Write(name, ..) if name.starts_with("object-") && !name.ends_with(".sums"))
}

/// Each canary is a bug that the search above has to find.
fn assert_found(bug: &str, spoil: impl Fn(&[Change]) -> Vec<Change>) {
    for seed in 0..8 {
        let mut random = Random::new(seed);
        let run = record(MemoryDisk::new(), None, &mut random, 25);
        let spoiled = Run {
            trace: spoil(&run.trace),
            ..run
        };
        if let Err(why) = cut_everywhere(&spoiled, &mut random, |_, _, _| {}) {
            println!("{bug}: {why}");
            return;
        }
    }
    panic!("{bug}: no power cut showed it");
}

/// A trace with some changes left out, at the same positions.
fn without(trace: &[Change], drop: impl Fn(&Change) -> bool) -> Vec<Change> {
    let nothing = |name: &str| Change::Write(name.into(), 0, Vec::new());
    let replace = |change: &Change| match change {
        Change::Sync(name) if drop(change) => nothing(name),
        other => other.clone(),
    };
    trace.iter().map(replace).collect()
}

#[test]
fn canary_images_before_the_journal() {
    assert_found("applied before the sync", apply_before_sync);
}

#[test]
fn canary_journal_not_synced() {
    assert_found("journal not synced", |trace| {
        without(
            trace,
            |change| matches!(change, Change::Sync(name) if name.starts_with("journal-")),
        )
    });
}

#[test]
fn canary_images_not_synced_at_a_checkpoint() {
    assert_found("images not synced", |trace| {
        without(
            trace,
            |change| matches!(change, Change::Sync(name) if name.starts_with("object-") && !name.ends_with(".sums")),
        )
    });
}

#[test]
fn canary_sums_not_synced_at_a_checkpoint() {
    assert_found("sums not synced", |trace| {
        without(
            trace,
            |change| matches!(change, Change::Sync(name) if name.ends_with(".sums")),
        )
    });
}

/// What asynchronous calls leave is in order: a later call is never there without an earlier one.
#[test]
fn queued_calls_become_durable_in_order() {
    let disk = MemoryDisk::new();
    let store = open(&disk).unwrap();
    let object = client(&store, "queued", PAGES).unwrap();
    for byte in 1..=9 {
        let call = Client::call();
        object.give_full(call, u64::from(byte) % PAGES, byte);
        let flags = SynchronizeFlags {
            synchronous: byte == 5,
            more: false,
            nowait: false,
        };
        object.synchronize(call, (0, PAGES), flags).unwrap();
        object.recorder.wait(object.range(0, PAGES)).unwrap();
    }
    let killed = disk.after_kill();
    let found = contents(&open(&killed).unwrap()).unwrap();
    let firsts: Vec<u8> = found["queued"].chunks(PAGE).map(|page| page[0]).collect();
    assert_eq!(
        firsts,
        [4, 5, 2, 3],
        "the synchronous call took the queued ones along, later ones are lost"
    );
}
