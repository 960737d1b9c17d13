//! Each operation of a run fails in turn, in each way.

use std::{ops::Range, sync::Arc};

use vmsync_core::{PagerError, PagerErrorKind};
use vmsync_pager_conformance::{
    Client,
    random::{Random, seeds},
};
use vmsync_pager_file::{
    FileStore,
    disk::memory::{Failure, Fault, MemoryDisk},
    verify_on,
};

use crate::common::{Edit, NAMES, PAGE, PAGES, State, client, contents, open, power_cuts};

/// What must be, and what may be instead until the next call that works.
struct Expected {
    committed: State,
    failed: Vec<State>,
}

/// A store after its calls, still open.
struct Ran {
    store: Arc<FileStore>,
    clients: Vec<Client>,
    expected: Expected,
    /// Operations of the disk that the calls took.
    operations: u64,
}

/// Does `work`, which may only fail where an operation of the disk does that is in `failing`.
fn attempt<T>(
    disk: &MemoryDisk,
    failing: &Range<u64>,
    work: impl FnOnce() -> Result<T, PagerError>,
) -> Result<Option<T>, String> {
    let start = disk.operations();
    let error = match work() {
        Ok(done) => return Ok(Some(done)),
        Err(error) => error,
    };
    let failed = start.max(failing.start) < disk.operations().min(failing.end);
    match failed && matches!(error.kind, PagerErrorKind::Io | PagerErrorKind::NoSpace) {
        true => Ok(None),
        false => Err(format!("nothing has failed, and yet: {error}")),
    }
}

fn open_clients(
    disk: &MemoryDisk,
    failing: &Range<u64>,
    store: &Arc<FileStore>,
    expected: &mut Expected,
) -> Result<Vec<Client>, String> {
    let mut clients = Vec::new();
    for name in NAMES {
        // A fault may hit the creation, and as many attempts as it has operations.
        let client = loop {
            if let Some(client) = attempt(disk, failing, || client(store, name, PAGES))? {
                break client;
            }
        };
        clients.push(client);
        expected
            .committed
            .entry(name.into())
            .or_insert(vec![0; PAGE * PAGES as usize]);
        expected.failed.clear();
    }
    Ok(clients)
}

/// Runs calls; those that fail leave no trace in what is supplied.
fn run(disk: &MemoryDisk, random: &mut Random, fault: Option<Fault>) -> Result<Ran, String> {
    let mut expected = Expected {
        committed: State::new(),
        failed: Vec::new(),
    };
    let store = open(disk).map_err(|error| format!("a fresh disk: {error}"))?;
    let base = disk.operations();
    let mut failing = 0..0;
    if let Some(fault) = fault {
        let after = base + fault.after;
        failing = after..after + fault.count;
        disk.inject(Fault { after, ..fault });
    }
    let clients = open_clients(disk, &failing, &store, &mut expected)?;
    for step in 0..14 {
        let mut edit = Edit::random(random, &expected.committed);
        edit.synchronous = true;
        let after = edit.applied(&expected.committed);
        if step % 5 == 4 {
            attempt(disk, &failing, || store.checkpoint())?;
        }
        match attempt(disk, &failing, || edit.run(&clients))? {
            Some(()) if edit.pages.is_empty() => {}
            Some(()) => {
                expected = Expected {
                    committed: after,
                    failed: Vec::new(),
                }
            }
            None => expected.failed.push(after),
        }
        let found = contents(&store).map_err(|error| format!("step {step} does not read: {error}"))?;
        if found != expected.committed {
            return Err(format!("step {step}: what is supplied is not what was committed"));
        }
    }
    Ok(Ran {
        store,
        clients,
        expected,
        operations: disk.operations() - base,
    })
}

/// A healed disk is used again: one more call works.
fn go_on(disk: &MemoryDisk, random: &mut Random, ran: Ran) -> Result<(), String> {
    disk.heal();
    let edit = loop {
        let edit = Edit::random(random, &ran.expected.committed);
        if !edit.pages.is_empty() {
            break edit;
        }
    };
    let edit = Edit {
        synchronous: true,
        ..edit
    };
    edit.run(&ran.clients)
        .map_err(|error| format!("the disk works again, and yet: {error}"))?;
    let expected = Expected {
        committed: edit.applied(&ran.expected.committed),
        failed: Vec::new(),
    };
    // A process that ends here, without a clean close: its locks go, its memory with them.
    std::mem::forget(ran.store);
    examine(disk, &expected, random)
}

/// What a power cut or a kill leaves behind `run` is what was committed, or the last failed calls.
fn examine(disk: &MemoryDisk, expected: &Expected, random: &mut Random) -> Result<(), String> {
    let mut left = power_cuts(disk, random);
    left.push(disk.after_kill());
    for disk in left {
        disk.heal();
        let report = verify_on(&disk).map_err(|error| format!("verify fails: {error}"))?;
        if let Some(problem) = report.problems.first() {
            return Err(format!("verify reports {problem}"));
        }
        let store = open(&disk).map_err(|error| format!("does not open: {error}"))?;
        let found = contents(&store).map_err(|error| format!("does not read: {error}"))?;
        if found != expected.committed && !expected.failed.contains(&found) {
            return Err("neither what was committed nor what failed last".into());
        }
    }
    Ok(())
}

fn fail_everywhere(failure: Failure, count: u64) {
    for seed in seeds(1) {
        println!("{failure:?} x {count}: SEED={seed}");
        let ran = run(&MemoryDisk::new(), &mut Random::new(seed), None).unwrap();
        for after in 0..ran.operations {
            let (disk, mut random) = (MemoryDisk::new(), Random::new(seed));
            let fault = Fault {
                after,
                count,
                failure,
            };
            let outcome = run(&disk, &mut random, Some(fault)).and_then(|ran| {
                examine(&disk, &ran.expected, &mut random)?;
                go_on(&disk, &mut random, ran)
            });
            if let Err(why) = outcome {
                panic!("SEED={seed}: {failure:?} of {count} operations from {after} on: {why}");
            }
        }
    }
}

#[test]
fn input_output_errors() {
    fail_everywhere(Failure::Io, 1);
    fail_everywhere(Failure::Io, 4);
}

#[test]
fn no_space() {
    fail_everywhere(Failure::NoSpace, 1);
    fail_everywhere(Failure::NoSpace, 3);
}

#[test]
fn short_writes() {
    fail_everywhere(Failure::Short, 1);
}

#[test]
fn errors_of_operations_that_worked() {
    fail_everywhere(Failure::FalseAlarm, 1);
    fail_everywhere(Failure::FalseAlarm, 3);
}
