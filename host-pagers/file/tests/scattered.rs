//! Calls that return many scattered pages at once, where a page is compared with what is kept of it (its lines' sums, what waits
//! for its image) in place of the image: what is supplied is what a model says, whatever comes between and whatever fails.

mod common;

use std::{collections::BTreeSet, sync::Arc};

use common::{PAGE, client, tiny};
use vmsync_core::{
    PagerError,
    pager::{CallId, Pager, SynchronizeFlags},
};
use vmsync_pager_conformance::{
    Client,
    random::{Random, seeds},
};
use vmsync_pager_file::{
    Background, FileStore, Options,
    disk::memory::{Failure, Fault, MemoryDisk},
    limits::{HELPER_PAGES, UNREAD_BYTES_MAX},
    verify_on,
};

const PAGES: u64 = 64;

/// Pages that a call returns: scattered, in a row, or few.
fn choose(random: &mut Random) -> BTreeSet<u64> {
    match random.below(6) {
        0 => {
            let first = random.below(PAGES - 8);
            (first..first + 2 + random.below(6)).collect()
        }
        1 => (0..=random.below(2)).map(|_| random.below(PAGES)).collect(),
        _ => {
            // Of a quarter of the object, so that pages come again soon.
            let (quarter, count) = (random.below(4), 5 + random.below(8));
            (0..count).map(|_| quarter * 16 + random.below(16)).collect()
        }
    }
}

/// Changes a few bytes at a few places, most of the time; or tries again what it `tried` last, or takes back.
fn change(random: &mut Random, page: &mut [u8], tried: &mut Vec<u8>) {
    let before = page.to_vec();
    match random.below(8) {
        2 | 3 if !tried.is_empty() => page.copy_from_slice(tried),
        0 => random.fill(page),
        1 => {}
        _ => {
            for _ in 0..=random.below(3) {
                let start = random.below(PAGE as u64) as usize;
                let end = (start + 1 + random.below(12) as usize).min(PAGE);
                random.fill(&mut page[start..end]);
            }
        }
    }
    *tried = if random.once_in(2) { before } else { page.to_vec() };
}

struct Run {
    object: Client,
    /// What is supplied.
    model: Vec<u8>,
    /// What each page was, or was to be.
    tried: Vec<Vec<u8>>,
}

impl Run {
    /// Returns pages as a call may have changed them: some at once, some one by one, some twice. What the object then is,
    /// and which pages came back.
    fn returned(&mut self, random: &mut Random, call: CallId) -> (Vec<u8>, BTreeSet<u64>) {
        let (mut after, mut all) = (self.model.clone(), BTreeSet::new());
        for _ in 0..=u64::from(random.once_in(6)) {
            let pages = choose(random);
            for page in &pages {
                let tried = &mut self.tried[*page as usize];
                change(random, &mut after[*page as usize * PAGE..][..PAGE], tried);
            }
            all.extend(&pages);
            let pages: Vec<u64> = pages.into_iter().collect();
            let runs: Vec<(u64, &[u8])> = pages
                .chunk_by(|last, next| last + 1 == *next)
                .map(|run| (run[0], &after[run[0] as usize * PAGE..][..run.len() * PAGE]))
                .collect();
            if random.once_in(8) {
                for (page, bytes) in runs {
                    self.object.give_runs(call, &[(page, bytes)]).expect("goes back");
                }
            } else {
                self.object.give_runs(call, &runs).expect("the runs go back");
            }
        }
        (after, all)
    }

    fn synchronize(&self, call: CallId, synchronous: bool) -> Result<(), PagerError> {
        let flags = SynchronizeFlags {
            synchronous,
            more: false,
            nowait: false,
        };
        self.object.synchronize(call, (0, PAGES), flags)?;
        self.object.recorder.wait(self.object.range(0, PAGES))
    }

    /// # Panics
    /// When something else is supplied, naming the step and the page.
    fn check(&self, step: u64) {
        let supplied = self.object.read(0, PAGES);
        if supplied == self.model {
            return;
        }
        for page in 0..PAGES as usize {
            let (found, wanted) = (
                &supplied[page * PAGE..][..PAGE],
                &self.model[page * PAGE..][..PAGE],
            );
            let place = found
                .iter()
                .zip(wanted)
                .position(|(found, wanted)| found != wanted);
            assert_eq!(place, None, "step {step}: page {page} differs there");
        }
    }
}

fn run(seed: u64, background: Background, faults: bool) {
    println!("seed {seed}, {background:?}, faults {faults}");
    let mut random = Random::new(seed);
    let disk = MemoryDisk::new();
    let options = Options {
        segment_bytes: 64 << 10,
        checkpoint_bytes: 256 << 10,
        background,
        ..tiny()
    };
    let open = || FileStore::open_on(Arc::new(disk.clone()), &options).expect("the store opens");
    let mut store = open();
    let mut run = Run {
        object: client(&store, "object", PAGES).expect("it opens"),
        model: vec![0; PAGES as usize * PAGE],
        tried: vec![Vec::new(); PAGES as usize],
    };
    for step in 0..300 {
        let call = Client::call();
        disk.set_cold(random.once_in(4));
        match random.below(20) {
            0 => {
                run.returned(&mut random, call);
                store.abort(call);
            }
            1 => drop(store.tidy()),
            2 => drop(store.checkpoint()),
            3 if faults => {
                // Nothing queued is at stake: only what this call returns fails with it.
                store.flush().expect("the disk works");
                let failures = [Failure::Io, Failure::NoSpace, Failure::Short];
                disk.inject(Fault {
                    after: disk.operations(),
                    count: 4,
                    failure: failures[random.below(3) as usize],
                });
                let (after, _) = run.returned(&mut random, call);
                if run.synchronize(call, true).is_ok() {
                    run.model = after;
                }
                disk.heal();
            }
            5 if faults && background == Background::Caller => {
                // What a call was compared with is queued, and fails before the call is queued.
                store.flush().expect("the disk works");
                let durable = run.model.clone();
                run.model = run.returned(&mut random, call).0;
                run.synchronize(call, false).expect("it is queued");
                let next = Client::call();
                let (after, _) = run.returned(&mut random, next);
                disk.inject(Fault {
                    after: disk.operations(),
                    count: 4,
                    failure: Failure::Io,
                });
                let lost = store.flush().is_err();
                disk.heal();
                let committed = run.synchronize(next, true);
                assert_eq!(committed.is_err(), lost, "it fails with what was lost before it");
                run.model = if lost { durable } else { after };
            }
            4 => {
                run.object.close();
                drop(store);
                assert_eq!(verify_on(&disk).expect("it can be read").problems, []);
                store = open();
                run.object = client(&store, "object", PAGES).expect("it opens");
            }
            _ => {
                let (after, _) = run.returned(&mut random, call);
                let synchronous = !random.once_in(3);
                run.synchronize(call, synchronous).expect("the disk works");
                run.model = after;
            }
        }
        run.check(step);
    }
    store.flush().expect("the disk works");
    run.object.recorder.assert_exact();
    run.object.close();
    drop(store);
    assert_eq!(verify_on(&disk).expect("it can be read").problems, []);
}

#[test]
fn scattered_pages_are_what_a_model_says() {
    for seed in seeds(3) {
        run(seed, Background::Caller, false);
        run(seed, Background::Thread, false);
    }
}

#[test]
fn scattered_pages_of_calls_that_fail_leave_no_trace() {
    for seed in seeds(3) {
        run(seed, Background::Caller, true);
        run(seed, Background::Thread, true);
    }
}

/// So many that several threads compare them: sums of what they found, and pages that are compared with the image as well.
#[test]
fn thousands_of_pages_at_once() {
    const MANY: u64 = 24 * HELPER_PAGES;
    let mut random = Random::from_environment("thousands");
    let disk = MemoryDisk::new();
    let options = Options {
        background: Background::Thread,
        ..Options::default()
    };
    let store = FileStore::open_on(Arc::new(disk.clone()), &options).expect("the store opens");
    let object = client(&store, "object", MANY).expect("it opens");
    let mut model = vec![0; MANY as usize * PAGE];
    for round in 0..4 {
        // Every other page at least stays as it is.
        let pages: Vec<u64> = (0..MANY)
            .filter(|page| page % 2 == 0 && !random.once_in(8))
            .collect();
        for page in &pages {
            let place = *page as usize * PAGE + random.below(PAGE as u64 - 8) as usize;
            random.fill(&mut model[place..place + 8]);
        }
        let runs: Vec<(u64, &[u8])> = pages
            .iter()
            .map(|page| (*page, &model[*page as usize * PAGE..][..PAGE]))
            .collect();
        let call = Client::call();
        object.give_runs(call, &runs).expect("the runs go back");
        object.sync(call, 0, MANY).expect("the disk works");
        assert!(object.read(0, MANY) == model, "round {round}");
    }
    object.close();
    drop(store);
    assert_eq!(verify_on(&disk).expect("it can be read").problems, []);
}

/// However many threads compare, the drive is not waited for before the bytes of one call are used up.
#[test]
fn what_one_call_may_journal_unread_is_for_all_who_compare_it() {
    const MANY: u64 = 3000;
    const _: () = assert!((MANY as usize * PAGE) < UNREAD_BYTES_MAX);
    let disk = MemoryDisk::new();
    let options = Options {
        background: Background::Thread,
        ..Options::default()
    };
    let open = || FileStore::open_on(Arc::new(disk.clone()), &options).expect("the store opens");
    let store = open();
    let object = client(&store, "object", 2 * MANY).expect("it opens");
    let call = Client::call();
    let all = vec![1; 2 * MANY as usize * PAGE];
    object.give_runs(call, &[(0, &all)]).expect("the run goes back");
    object.sync(call, 0, 2 * MANY).expect("the disk works");
    object.close();
    drop(store);
    // Nothing is known of any page, and none is in memory.
    let store = open();
    let object = client(&store, "object", 2 * MANY).expect("it opens");
    disk.set_cold(true);
    let mut page = vec![1; PAGE];
    page[..8].fill(2);
    let runs: Vec<(u64, &[u8])> = (0..MANY).map(|index| (2 * index, &page[..])).collect();
    let call = Client::call();
    object.give_runs(call, &runs).expect("the runs go back");
    object.sync(call, 0, 2 * MANY).expect("the disk works");
    let journaled = store.stats().bytes_journaled;
    assert!(
        journaled > MANY * PAGE as u64,
        "{journaled} bytes: pages were read"
    );
}
