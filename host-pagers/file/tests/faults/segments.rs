//! Journal files that cannot be made, written or used again.

use vmsync_pager_conformance::{Client, random::Random};
use vmsync_pager_file::{
    disk::{Disk, memory::MemoryDisk},
    inspect_on, verify_on,
};

use crate::common::{PAGE, PAGES, client, contents, open};

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
