//! A disk that fails: each operation of a run in turn, in each way. What was reported as durable stays, what failed
//! is not supplied and never comes back after a later success, and a healed disk is used again.

mod common;

use std::{ops::Range, sync::Arc};

use common::{Edit, NAMES, PAGE, PAGES, State, client, contents, open, power_cuts};
use vmsync_core::{
    PageSize, PagerError, PagerErrorKind,
    abi::VmProt,
    pager::{InitRequest, Pager, SynchronizeFlags},
};
use vmsync_pager_conformance::{
    Client,
    random::{Random, seeds},
};
use vmsync_pager_file::{
    FileStore,
    disk::{
        Disk,
        memory::{Failure, Fault, MemoryDisk},
    },
    inspect_on, verify_on,
};

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

/// The trap that gave "fsyncgate" its name: a sync fails, the record has arrived all the same, a later call works.
/// The failed call must not come back.
#[test]
fn a_failed_call_that_arrived_is_void_after_a_later_one() {
    let disk = MemoryDisk::new();
    let store = open(&disk).unwrap();
    let object = client(&store, "object", PAGES).unwrap();
    object.commit_full(0, 1);
    // The write of the record works, its sync is a false alarm.
    disk.inject(Fault {
        after: disk.operations() + 1,
        count: 1,
        failure: Failure::FalseAlarm,
    });
    let call = Client::call();
    object.give_full(call, 0, 2);
    assert_eq!(object.sync(call, 0, 1).unwrap_err().kind, PagerErrorKind::Io);
    object.assert_full(0, 1);
    let resurrected = contents(&open(&disk.after_kill()).unwrap()).unwrap();
    assert_eq!(resurrected["object"][0], 2, "the record did arrive");
    object.commit_full(1, 3);
    let found = contents(&open(&disk.after_kill()).unwrap()).unwrap();
    assert_eq!((found["object"][0], found["object"][PAGE]), (1, 3));
    assert_eq!(
        object.attributes().version,
        3,
        "creation, call 2, call 3 in the place of the failed one"
    );
}

/// The same where the later call changes nothing, and so has no record of its own.
#[test]
fn a_failed_call_that_arrived_is_void_after_one_without_changes() {
    let disk = MemoryDisk::new();
    let store = open(&disk).unwrap();
    let object = client(&store, "object", PAGES).unwrap();
    object.commit_full(0, 1);
    disk.inject(Fault {
        after: disk.operations() + 1,
        count: 1,
        failure: Failure::FalseAlarm,
    });
    assert!(object.try_commit_full(0, 2).is_err(), "its sync failed");
    object.sync(Client::call(), 0, PAGES).expect("an empty call");
    for all in [false, true] {
        let left = disk.after_power_cut(&mut |_, _| all);
        let found = contents(&open(&left).unwrap()).unwrap();
        assert_eq!(found["object"][0], 1, "{all}");
    }
}

/// A call fails though its record arrived, and the process dies before what makes the record void is synced. A later call
/// without changes succeeds, so the failed one is history: no power cut may bring it back.
#[test]
fn a_failed_call_stays_void_through_a_kill_and_a_power_cut() {
    for second in 0..12 {
        let disk = MemoryDisk::new();
        let store = open(&disk).unwrap();
        let object = client(&store, "object", PAGES).unwrap();
        object.commit_full(0, 1);
        // An opening that has nothing to replay writes nothing.
        store.checkpoint().unwrap();
        let fail = |after, failure| {
            disk.inject(Fault {
                after,
                count: 1,
                failure,
            });
        };
        fail(disk.operations() + 1, Failure::FalseAlarm);
        assert!(object.try_commit_full(0, 2).is_err(), "its sync failed");
        fail(disk.operations() + second, Failure::Io);
        let _ = object.try_commit_full(1, 3);
        let killed = disk.after_kill_unsynced();
        let store = open(&killed).unwrap();
        let object = client(&store, "object", PAGES).unwrap();
        let supplied = object.read(0, 2);
        object.sync(Client::call(), 0, PAGES).expect("an empty call");
        for all in [false, true] {
            let left = killed.after_power_cut(&mut |_, _| all);
            let left = contents(&open(&left).unwrap()).unwrap();
            let same = left["object"][..2 * PAGE] == supplied;
            assert!(same, "operation {second} of the next call failed, {all}");
        }
        std::mem::forget((object, store));
    }
}

/// A full disk: calls fail with `NoSpace`, and work again when there is room.
#[test]
fn no_space_passes() {
    let disk = MemoryDisk::new();
    let store = open(&disk).unwrap();
    let object = client(&store, "object", PAGES).unwrap();
    object.commit_full(0, 1);
    disk.inject(Fault {
        after: disk.operations(),
        count: u64::MAX / 2,
        failure: Failure::NoSpace,
    });
    for _ in 0..3 {
        let call = Client::call();
        object.give_full(call, 0, 2);
        assert_eq!(object.sync(call, 0, 1).unwrap_err().kind, PagerErrorKind::NoSpace);
        object.assert_full(0, 1);
    }
    disk.heal();
    object.commit_full(0, 2);
    drop(store);
    object.recorder.assert_exact();
}

/// What is queued and cannot be written is left in the guest's memory only, which is about to be dropped.
#[test]
fn an_image_is_not_settled_where_what_is_queued_is_lost() {
    let disk = MemoryDisk::new();
    let store = open(&disk).unwrap();
    let object = client(&store, "object", 1).unwrap();
    let call = Client::call();
    object.give_full(call, 0, 7);
    let flags = SynchronizeFlags {
        synchronous: false,
        more: false,
        nowait: false,
    };
    object.synchronize(call, (0, 1), flags).unwrap();
    disk.inject(Fault {
        after: disk.operations(),
        count: 2,
        failure: Failure::NoSpace,
    });
    let settled = store.settle_image(object.object, object.range(0, 1));
    assert_eq!(settled.unwrap_err().kind, PagerErrorKind::NoSpace);
    disk.heal();
    store.settle_image(object.object, object.range(0, 1)).unwrap();
    object.assert_full(0, 0);
}

/// Who reads an object was supplied with what is queued, perhaps as the base of a change of its own.
#[test]
fn a_call_that_fails_is_told_to_everybody_who_may_have_read_it() {
    let disk = MemoryDisk::new();
    let store = open(&disk).unwrap();
    let writer = client(&store, "object", 2).unwrap();
    writer.commit_full(0, 1);
    let request = InitRequest {
        page_size: PageSize::KIB_4,
        size_min: 0,
        create: false,
        write: false,
    };
    let reader = Client::open_with(store.clone(), "object", request).unwrap();
    let other = client(&store, "other", 1).unwrap();
    disk.inject(Fault {
        after: disk.operations(),
        count: u64::MAX / 2,
        failure: Failure::NoSpace,
    });
    assert!(writer.try_commit_full(1, 2).is_err());
    let told = reader.recorder.take_write_behind_failures();
    assert_eq!(told.len(), 1);
    assert_eq!(
        (told[0].0, told[0].1.kind),
        (reader.range(1, 1), PagerErrorKind::NoSpace)
    );
    for unconcerned in [&writer, &other] {
        assert!(unconcerned.recorder.take_write_behind_failures().is_empty());
    }
}

/// An image that cannot be written when its record is durable: the commit stands, the page is supplied from memory,
/// and is written later.
#[test]
fn an_image_that_fails_after_the_record_is_caught_up() {
    let disk = MemoryDisk::new();
    let store = open(&disk).unwrap();
    let object = client(&store, "object", PAGES).unwrap();
    object.commit_full(0, 1);
    disk.inject(Fault {
        after: disk.operations() + 2,
        count: 2,
        failure: Failure::Io,
    });
    object.commit_full(0, 2);
    object.assert_full(0, 2);
    assert_eq!(disk.content("object-1").unwrap()[0], 1, "the image is behind");
    assert!(store.settle_image(object.object, object.range(0, 1)).is_err());
    object.assert_full(0, 2);
    store.settle_image(object.object, object.range(0, 1)).unwrap();
    assert_eq!(disk.content("object-1").unwrap()[0], 2);
}

/// Were calls to succeed in a segment that the superblock does not name, nobody would miss it.
#[test]
fn no_call_succeeds_in_a_segment_that_the_superblock_does_not_name() {
    let disk = MemoryDisk::new();
    let store = open(&disk).unwrap();
    let object = client(&store, "object", PAGES).unwrap();
    disk.refuse(&[("STORE", 0)]);
    let works = |number: u8| object.try_commit_full(u64::from(number) % PAGES, number).is_ok();
    let first = (1..10).find(|number| !works(*number)).expect("a segment is full");
    assert!((first + 1..10).all(|number| !works(number)));
    disk.refuse(&[]);
    assert!(works(10));
}

/// It is the only place that has the page when the power goes: a checkpoint that cannot write it frees no record, though the
/// image's sync would work.
#[test]
fn a_page_that_its_image_refuses_stays_in_the_journal() {
    let disk = MemoryDisk::new();
    let store = open(&disk).unwrap();
    let object = client(&store, "object", PAGES).unwrap();
    // Behind the bytes of the checksums' file.
    disk.refuse(&[("object-1", PAGE as u64)]);
    object.commit_full(1, 7);
    assert_eq!(store.checkpoint().unwrap_err().kind, PagerErrorKind::Io);
    disk.refuse(&[]);
    let cut = disk.after_power_cut(&mut |_, _| false);
    assert_eq!(verify_on(&cut).unwrap().problems, []);
    let found = contents(&open(&cut).unwrap()).unwrap();
    assert_eq!(found["object"][PAGE], 7);
}

/// After a failed sync of an image at a checkpoint the next one writes the pages again.
#[test]
fn a_failed_checkpoint_writes_pages_again() {
    for after in 0..12 {
        let disk = MemoryDisk::new();
        let store = open(&disk).unwrap();
        let object = client(&store, "object", PAGES).unwrap();
        object.commit_full(0, 1);
        object.commit_full(2, 3);
        disk.inject(Fault {
            after: disk.operations() + after,
            count: 1,
            failure: Failure::Io,
        });
        let first = store.checkpoint();
        object.commit_full(1, 2);
        store
            .checkpoint()
            .unwrap_or_else(|error| panic!("after {after}, {first:?}: {error}"));
        let cut = disk.after_power_cut(&mut |_, _| false);
        assert_eq!(verify_on(&cut).unwrap().problems, []);
        let found = contents(&open(&cut).unwrap()).unwrap();
        let firsts: Vec<u8> = found["object"].chunks(PAGE).map(|page| page[0]).collect();
        assert_eq!(firsts, [1, 2, 3, 0], "fault after {after}");
    }
}

/// A page that the kernel could not write, counted as clean and gave back: what a call changed in it is not lost in silence
/// when a later call began with what was left.
#[test]
fn a_page_that_was_lost_from_the_cache_is_not_passed_as_whole() {
    for after in 0..12 {
        let disk = MemoryDisk::new();
        let store = open(&disk).unwrap();
        let object = client(&store, "object", PAGES).unwrap();
        object.commit_full(0, 1);
        store.checkpoint().unwrap();
        let commit = |at: usize| {
            // Two pages in a row are compared with the image, not by sums of what was there before.
            let mut pages = object.read(0, 2);
            pages[at] = 2;
            let call = Client::call();
            object.give(call, 0, &pages).unwrap();
            object.sync(call, 0, 2).unwrap();
        };
        commit(0);
        disk.tamper("object-1", |content| content[0] = 1);
        commit(100);
        disk.inject(Fault {
            after: disk.operations() + after,
            count: 1,
            failure: Failure::Io,
        });
        let failed = store.checkpoint().is_err();
        let image = || disk.content("object-1").unwrap();
        // Where the image's own sync failed its pages are written again.
        if failed && store.checkpoint().is_err() {
            return;
        }
        assert_eq!((image()[0], image()[100]), (1, 2), "after {after}: nobody looked");
    }
    panic!("the checkpoint behind a failed sync of the image took a page for whole that was not");
}

/// A bug in a disk, or in the store: whoever calls is told, waits for nobody, and what was committed is there.
#[test]
fn after_a_panic_nothing_is_committed_until_the_store_is_opened_again() {
    // Parts of a roll-over, the write of a record, its sync, the write of an image.
    for after in 0..12 {
        let disk = MemoryDisk::new();
        let store = open(&disk).unwrap();
        let object = client(&store, "object", PAGES).unwrap();
        object.commit_full(0, 1);
        object.commit_full(1, 1);
        disk.inject(Fault {
            after: disk.operations() + after,
            count: 1,
            failure: Failure::Panic,
        });
        let commit = |byte: &u8| {
            let call = Client::call();
            object.give(call, 0, &[*byte; PAGE]).unwrap();
            object.sync(call, 0, 1)
        };
        let kept = (2..10)
            .take_while(|byte| commit(byte).is_ok())
            .last()
            .unwrap_or(1);
        let error = commit(&10).unwrap_err();
        assert_eq!(error.kind, PagerErrorKind::Io);
        assert!(error.message.contains("open it again"), "{error}");
        object.assert_full(0, kept);
        assert!(store.checkpoint().is_err());
        object.close();
        drop(store);
        let found = contents(&open(&disk).unwrap()).unwrap();
        // The first that failed may have arrived.
        assert!((kept..=kept + 1).contains(&found["object"][0]) && found["object"][PAGE] == 1);
    }
}

/// However long it fails, and whatever is tried again, the journal takes no more than its bound.
#[test]
fn a_disk_that_keeps_failing_is_not_filled() {
    // The superblock, records: what an activation writes is in front of them.
    for (file, from) in [("STORE", 0), ("journal", 1)] {
        let disk = MemoryDisk::new();
        let store = open(&disk).unwrap();
        let object = client(&store, "object", PAGES).unwrap();
        object.commit_full(0, 1);
        disk.refuse(&[(file, from)]);
        let commit = |byte: u8| object.try_commit_full(0, byte);
        // Until the journal goes on in another file, which the superblock has to name.
        let failed = (0..40).map(&commit).filter(Result::is_err).count();
        assert!(failed > 20, "{file}: {failed}");
        let journals = disk
            .list()
            .unwrap()
            .into_iter()
            .filter(|name| name.starts_with("journal-"));
        assert!(journals.count() <= 6, "{file}: {:?}", disk.list());
        disk.refuse(&[]);
        commit(77).unwrap();
        drop((object, store));
        assert_eq!(verify_on(&disk).unwrap().problems, []);
        assert_eq!(contents(&open(&disk).unwrap()).unwrap()["object"][0], 77);
    }
}

/// All journal files there are.
fn journals(disk: &MemoryDisk) -> Vec<String> {
    let mut names = disk.list().unwrap();
    names.retain(|name| name.starts_with("journal-"));
    names
}

/// Nothing that counts is in it.
#[test]
fn a_free_journal_file_that_fails_is_left_alone() {
    let disk = MemoryDisk::new();
    let store = open(&disk).unwrap();
    let object = client(&store, "object", PAGES).unwrap();
    for number in 0..60 {
        object.commit_full(number % PAGES, number as u8);
    }
    drop((object, store));
    let names = journals(&disk);
    assert!(names.len() > 1);
    for name in &names {
        let disk = disk.after_kill();
        disk.refuse(&[(name, 0)]);
        let store = open(&disk).unwrap();
        let object = client(&store, "object", PAGES).unwrap();
        object.commit_full(0, 99);
        drop((object, store));
        disk.refuse(&[]);
        let store = open(&disk).unwrap();
        client(&store, "object", PAGES).unwrap().assert_full(0, 99);
    }
}

/// All of them lie in a bad region, say.
#[test]
fn journal_files_that_fail_are_replaced() {
    let disk = MemoryDisk::new();
    let store = open(&disk).unwrap();
    let object = client(&store, "object", PAGES).unwrap();
    for number in 0..60 {
        object.commit_full(number % PAGES, number as u8);
    }
    store.checkpoint().unwrap();
    let bad = journals(&disk);
    assert!(bad.len() > 2, "{bad:?}");
    let bad: Vec<_> = bad.iter().map(|name| (name.as_str(), 0)).collect();
    disk.refuse(&bad);
    // One call finds out for each of them.
    let works = (0..=bad.len()).any(|_| object.try_commit_full(0, 99).is_ok());
    assert!(works, "{:?}", disk.list());
    drop((object, store));
    disk.refuse(&[]);
    assert_eq!(verify_on(&disk).unwrap().problems, []);
    client(&open(&disk).unwrap(), "object", PAGES)
        .unwrap()
        .assert_full(0, 99);
}

/// A large one that is used again would otherwise take small calls for ever, without a checkpoint.
#[test]
fn a_journal_file_of_a_large_call_takes_no_more_of_small_ones() {
    let disk = MemoryDisk::new();
    let store = open(&disk).unwrap();
    let large = client(&store, "large", 256).unwrap();
    let mut pages = vec![0; 256 * PAGE];
    for round in 0..8 {
        Random::new(round).fill(&mut pages);
        let call = Client::call();
        large.give(call, 0, &pages).unwrap();
        large.sync(call, 0, 256).unwrap();
    }
    store.checkpoint().unwrap();
    for number in 0..400 {
        large.commit_full(number % 200, number as u8);
        let bytes = inspect_on(&disk.after_kill()).unwrap().journal.bytes_in_use;
        assert!(bytes < 512 << 10, "{bytes} after {number}");
    }
}

/// What the running store keeps in memory where an image has no room, it keeps when it is opened, too.
#[test]
fn a_store_on_a_full_disk_opens() {
    let disk = MemoryDisk::new();
    let store = open(&disk).unwrap();
    let object = client(&store, "object", PAGES).unwrap();
    disk.fill_up(Some("object-"));
    object.commit_full(1, 7);
    let disk = disk.after_kill();
    drop((object, store));
    disk.fill_up(Some("object-"));
    let store = open(&disk).unwrap();
    let object = client(&store, "object", PAGES).unwrap();
    object.assert_full(1, 7);
    object.commit_full(2, 8);
    assert_eq!(store.checkpoint().unwrap_err().kind, PagerErrorKind::NoSpace);
    disk.fill_up(None);
    store.checkpoint().unwrap();
    drop((object, store));
    assert_eq!(verify_on(&disk).unwrap().problems, []);
    let store = open(&disk).unwrap();
    let object = client(&store, "object", PAGES).unwrap();
    object.assert_full(1, 7);
    object.assert_full(2, 8);
}

/// It could be opened again, and be found to be too short.
#[test]
fn an_object_that_cannot_be_made_leaves_no_file() {
    let disk = MemoryDisk::new();
    let store = open(&disk).unwrap();
    for operation in 0..3 {
        let before = disk.list().unwrap();
        disk.inject(Fault {
            after: disk.operations() + operation,
            count: 1,
            failure: Failure::NoSpace,
        });
        assert!(client(&store, "object", PAGES).is_err(), "{operation}");
        disk.heal();
        let images = |names: Vec<String>| {
            names
                .into_iter()
                .filter(|name| name.starts_with("object-"))
                .count()
        };
        assert_eq!(images(disk.list().unwrap()), images(before), "{operation}");
    }
}

/// It is committed with the pages, whose pointers are those of the region there.
#[test]
fn the_address_of_the_last_mapping_is_that_of_the_last_call() {
    let disk = MemoryDisk::new();
    let store = open(&disk).unwrap();
    let object = client(&store, "object", PAGES).unwrap();
    let mapped = |address| store.map(object.object, address, VmProt::READ_WRITE);
    let address = || {
        let store = open(&disk.after_kill()).unwrap();
        client(&store, "object", PAGES).unwrap().attributes().address
    };
    let queue = |byte| {
        let (call, flags) = (
            Client::call(),
            SynchronizeFlags {
                synchronous: false,
                more: false,
                nowait: false,
            },
        );
        object.give_full(call, 0, byte);
        object.synchronize(call, (0, 1), flags).unwrap();
        object.recorder.wait(object.range(0, 1)).unwrap();
    };
    mapped(0x1_0000);
    object.commit_full(0, 1);
    mapped(0x2_0000);
    queue(2);
    mapped(0x1_0000);
    object.commit_full(0, 3);
    assert_eq!(address(), Some(0x1_0000));
    // What is lost gives no address.
    mapped(0x2_0000);
    queue(4);
    disk.inject(Fault {
        after: disk.operations(),
        count: 1,
        failure: Failure::Io,
    });
    store.flush().unwrap_err();
    object.commit_full(0, 5);
    assert_eq!(address(), Some(0x2_0000));
}

/// Calls that are queued behind the record that failed fail with it: they may be differences to what is not there.
#[test]
fn what_is_queued_behind_a_record_that_fails_fails_too() {
    // Two of them are too much for one record.
    const MANY: u64 = 1280;
    let disk = MemoryDisk::new();
    let store = open(&disk).unwrap();
    let object = client(&store, "object", 2 * MANY).unwrap();
    for (first, byte) in [(0, 1), (MANY, 2)] {
        let call = Client::call();
        object
            .give(call, first, &vec![byte; PAGE * MANY as usize])
            .unwrap();
        let flags = SynchronizeFlags {
            synchronous: false,
            more: false,
            nowait: false,
        };
        object.synchronize(call, (first, MANY), flags).unwrap();
        object.recorder.wait(object.range(first, MANY)).unwrap();
    }
    disk.inject(Fault {
        after: disk.operations(),
        count: 1,
        failure: Failure::Io,
    });
    assert_eq!(store.flush().unwrap_err().kind, PagerErrorKind::Io);
    assert_eq!(object.recorder.take_write_behind_failures().len(), 2);
    for _ in 0..2 {
        object.assert_full(0, 0);
        object.assert_full(MANY, 0);
        store.flush().unwrap();
    }
}

/// An asynchronous call that fails later is told, once, for each of its ranges, and leaves nothing.
#[test]
fn a_failed_queued_call_is_told() {
    let disk = MemoryDisk::new();
    let store = open(&disk).unwrap();
    let (left, right) = (
        client(&store, "left", PAGES).unwrap(),
        client(&store, "right", PAGES).unwrap(),
    );
    let call = Client::call();
    left.give_full(call, 0, 1);
    right.give_full(call, 1, 1);
    left.synchronize(
        call,
        (0, 2),
        SynchronizeFlags {
            synchronous: false,
            more: true,
            nowait: false,
        },
    )
    .unwrap();
    right
        .synchronize(
            call,
            (1, 1),
            SynchronizeFlags {
                synchronous: false,
                more: false,
                nowait: false,
            },
        )
        .unwrap();
    left.recorder.wait(left.range(0, 2)).unwrap();
    right.recorder.wait(right.range(1, 1)).unwrap();
    left.assert_full(0, 1);
    disk.inject(Fault {
        after: disk.operations(),
        count: 1,
        failure: Failure::Io,
    });
    assert_eq!(store.flush().unwrap_err().kind, PagerErrorKind::Io);
    for (client, range) in [(&left, left.range(0, 2)), (&right, right.range(1, 1))] {
        let told = client.recorder.take_write_behind_failures();
        assert_eq!(told.len(), 1);
        assert_eq!((told[0].0, told[0].1.kind), (range, PagerErrorKind::Io));
        client.assert_full(0, 0);
        client.assert_full(1, 0);
    }
    store.flush().unwrap();
    assert!(left.recorder.take_write_behind_failures().is_empty());
    left.commit_full(0, 5);
    left.assert_full(0, 5);
}

/// What a call was compared with may fail before it is queued itself, and so may pages that it has not returned, as they were
/// taken for safe.
#[test]
fn a_call_that_was_begun_before_a_queued_one_failed_fails_with_it() {
    let mut changed = vec![2; PAGE];
    changed[9] = 3;
    for page in [changed, vec![2; PAGE]] {
        let disk = MemoryDisk::new();
        let store = open(&disk).unwrap();
        let object = client(&store, "object", PAGES).unwrap();
        object.commit_full(0, 1);
        let queued = Client::call();
        object.give_full(queued, 0, 2);
        object.give_full(queued, 1, 2);
        let flags = SynchronizeFlags {
            synchronous: false,
            more: false,
            nowait: false,
        };
        object.synchronize(queued, (0, 2), flags).unwrap();
        object.recorder.wait(object.range(0, 2)).unwrap();
        let behind = Client::call();
        object.give(behind, 0, &page).unwrap();
        disk.inject(Fault {
            after: disk.operations(),
            count: 1,
            failure: Failure::Io,
        });
        assert_eq!(store.flush().unwrap_err().kind, PagerErrorKind::Io);
        let told = object.sync(behind, 0, 1).unwrap_err();
        assert_eq!(told.kind, PagerErrorKind::Io);
        assert!(told.message.contains("a call before it is lost"), "{told}");
        object.assert_full(0, 1);
        object.assert_full(1, 0);
        let again = Client::call();
        object.give(again, 0, &page).unwrap();
        object.give_full(again, 1, 2);
        object.sync(again, 0, 2).unwrap();
        assert!(object.read(0, 1) == page);
        drop((object, store));
        let store = open(&disk).unwrap();
        assert!(client(&store, "object", PAGES).unwrap().read(0, 1) == page);
    }
}

/// Who queued a call may close the object before it fails. Whoever opened it meanwhile, and read what was queued, is told.
#[test]
fn a_failed_queued_call_of_somebody_who_left_is_told_to_who_has_the_object_open() {
    let disk = MemoryDisk::new();
    let store = open(&disk).unwrap();
    let first = client(&store, "object", 2).unwrap();
    let call = Client::call();
    first.give_full(call, 1, 7);
    let queued = SynchronizeFlags {
        synchronous: false,
        more: false,
        nowait: false,
    };
    first.synchronize(call, (0, 2), queued).unwrap();
    first.recorder.wait(first.range(0, 2)).unwrap();
    first.close();
    let second = client(&store, "object", 2).unwrap();
    second.assert_full(1, 7);
    disk.inject(Fault {
        after: disk.operations(),
        count: 1,
        failure: Failure::Io,
    });
    assert!(store.flush().is_err());
    second.assert_full(1, 0);
    let told = second.recorder.take_write_behind_failures();
    assert_eq!(told.len(), 1);
    assert_eq!(
        (told[0].0, told[0].1.kind),
        (second.range(1, 1), PagerErrorKind::Io)
    );
}
