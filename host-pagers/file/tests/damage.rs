//! Bits that flip and files that shrink: opening or verifying tells, nothing panics, and what opens and verifies
//! holds what it should.

mod common;

use std::{ops::Range, sync::Arc};

use common::{Edit, NAMES, PAGE, PAGES, State, client, contents, open};
use vmsync_core::PagerErrorKind;
use vmsync_pager_conformance::{
    Client,
    random::{Random, seeds},
};
use vmsync_pager_file::{
    FileStore, Options,
    disk::{Disk, memory::MemoryDisk},
    inspect_on, verify_on,
};

/// A store with a checkpoint behind it and calls in its journal, as a killed process leaves it.
fn killed(random: &mut Random) -> (MemoryDisk, State) {
    let (disk, state, _) = killed_after(random);
    (disk, state)
}

/// The same, and what it held before the last call that changed something.
fn killed_after(random: &mut Random) -> (MemoryDisk, State, State) {
    let (disk, mut state) = (MemoryDisk::new(), State::new());
    let options = Options {
        segment_bytes: 64 << 10,
        ..common::tiny()
    };
    let store = FileStore::open_on(Arc::new(disk.clone()), &options).unwrap();
    let clients: Vec<Client> = NAMES
        .iter()
        .map(|name| client(&store, name, PAGES).unwrap())
        .collect();
    for name in NAMES {
        state.insert(name.into(), vec![0; PAGE * PAGES as usize]);
    }
    let mut before = state.clone();
    for step in 0..8 {
        let mut edit = Edit::random(random, &state);
        edit.synchronous = true;
        edit.run(&clients).unwrap();
        let after = edit.applied(&state);
        if after != state {
            before = std::mem::replace(&mut state, after);
        }
        if step == 4 {
            store.checkpoint().unwrap();
        }
    }
    std::mem::forget(store);
    (disk.after_kill(), state, before)
}

/// A store that was closed.
fn closed(random: &mut Random) -> (MemoryDisk, State) {
    let (disk, state) = killed(random);
    drop(open(&disk).unwrap());
    (disk.after_kill(), state)
}

/// The live bytes of each file but the journal: both superblock slots, images, sums.
fn live(disk: &MemoryDisk) -> Vec<(String, Range<usize>)> {
    let mut ranges = vec![("STORE".into(), 0..88), ("STORE".into(), 4096..4096 + 88)];
    for index in 1..=NAMES.len() {
        ranges.push((format!("object-{index}"), 0..PAGE * PAGES as usize));
        let sums = format!("object-{index}.sums");
        if let Some(content) = disk.content(&sums) {
            ranges.push((sums, 0..content.len()));
        }
    }
    ranges
}

/// Whether somebody notices; a store that opens and verifies must hold `state`.
fn check(disk: &MemoryDisk, state: &State) -> Result<bool, String> {
    let report = verify_on(disk).map_err(|error| format!("verify fails: {error}"))?;
    if !report.problems.is_empty() {
        // Opening may work, for it does not read everything; it must not panic.
        if let Ok(store) = open(disk) {
            let _ = contents(&store);
        }
        return Ok(true);
    }
    let store = open(disk).map_err(|error| format!("verifies, and does not open: {error}"))?;
    let found = contents(&store).map_err(|error| format!("verifies, and does not read: {error}"))?;
    if found != *state {
        return Err("verifies, opens and supplies something else".into());
    }
    Ok(false)
}

fn flip(disk: &MemoryDisk, name: &str, bit: usize) -> MemoryDisk {
    let flipped = disk.after_kill();
    flipped.tamper(name, |content| content[bit / 8] ^= 1 << (bit % 8));
    flipped
}

/// Flips bits of every live range, all of short ranges and samples of long ones. A flip that `may_pass` unnoticed
/// must leave everything as it was.
fn flip_bits(make: fn(&mut Random) -> (MemoryDisk, State), may_pass: fn(&str) -> bool) {
    for seed in seeds(1) {
        println!("bit flips: SEED={seed}");
        let mut random = Random::new(seed);
        let (disk, state) = make(&mut random);
        assert_eq!(verify_on(&disk).unwrap().problems, []);
        for (name, range) in live(&disk) {
            let bits = range.len() * 8;
            let samples = if bits <= 600 { bits } else { 150 };
            for sample in 0..samples {
                let within = if bits <= 600 {
                    sample
                } else {
                    random.below(bits as u64) as usize
                };
                let bit = range.start * 8 + within;
                match check(&flip(&disk, &name, bit), &state) {
                    Ok(noticed) => assert!(
                        noticed || may_pass(&name),
                        "SEED={seed}: bit {bit} of {name} is not noticed"
                    ),
                    Err(why) => panic!("SEED={seed}: bit {bit} of {name}: {why}"),
                }
            }
        }
    }
}

#[test]
fn a_flipped_bit_of_a_closed_store_is_noticed() {
    flip_bits(closed, |_| false);
}

#[test]
fn a_flipped_bit_of_a_killed_store_is_noticed() {
    // What the journal is going to overwrite anyway heals.
    flip_bits(killed, |name| name.starts_with("object-"));
}

/// Whether `byte` of a segment is behind the body of a record, and before the next one.
fn is_padding(segment: &[u8], byte: usize) -> bool {
    let mut start = 4096;
    loop {
        let length = u32::from_le_bytes(segment[start + 12..start + 16].try_into().unwrap());
        let body_end = start + 64 + length as usize;
        let end = body_end.next_multiple_of(8);
        if byte < end {
            return byte >= body_end;
        }
        start = end;
    }
}

/// In the journal every bit of every record counts. Only the last one may go unnoticed, for a broken one is what a power
/// cut leaves: then the store is as before that call, as a whole. Mostly it is noticed too, by the images.
#[test]
fn a_flipped_bit_of_the_journal_is_noticed() {
    for seed in seeds(1) {
        println!("journal bits: SEED={seed}");
        let mut random = Random::new(seed);
        let (disk, state, before) = killed_after(&mut random);
        let segment = (0..8)
            .map(|slot| format!("journal-{slot}"))
            .filter(|name| disk.content(name).is_some())
            .max_by_key(|name| disk.content(name).map(|content| content[8]))
            .unwrap();
        let end = inspect_on(&disk).unwrap().journal.bytes_in_use as usize;
        let content = disk.content(&segment).unwrap();
        let (mut noticed, mut padding, mut torn) = (0, 0, 0);
        for byte in (0..48).chain(4096..end) {
            if byte >= 4400 && !random.once_in(23) {
                continue;
            }
            let bit = byte * 8 + random.below(8) as usize;
            let flipped = flip(&disk, &segment, bit);
            match check(&flipped, &state) {
                Ok(true) => noticed += 1,
                Err(_) if check(&flip(&disk, &segment, bit), &before) == Ok(false) => torn += 1,
                // Up to seven bytes behind a record are nobody's.
                Ok(false) if is_padding(&content, byte) => padding += 1,
                Ok(false) => panic!("SEED={seed}: bit {bit} of {segment} is not noticed"),
                Err(why) => panic!("SEED={seed}: bit {bit} of {segment}: {why}"),
            }
        }
        println!("{noticed} noticed, {padding} in padding, {torn} taken for a torn record");
        assert!(torn * 2 < noticed);
    }
}

#[test]
fn a_shorter_file_is_noticed() {
    let mut random = Random::new(4);
    let (disk, _) = closed(&mut random);
    for name in ["object-1", "object-2", "object-3"] {
        let cut = disk.after_kill();
        cut.tamper(name, |content| content.truncate(PAGE * 3));
        assert!(!verify_on(&cut).unwrap().problems.is_empty(), "{name}");
        let store = open(&cut).unwrap();
        let number: usize = name[7..].parse().unwrap();
        let error = client(&store, NAMES[number - 1], PAGES)
            .err()
            .expect("is refused");
        assert_eq!(error.kind, PagerErrorKind::Damaged);
        assert!(error.message.contains(name), "{error}");
    }
    let mut refused = 0;
    for slot in 0..4 {
        let (cut, name) = (disk.after_kill(), format!("journal-{slot}"));
        if cut.content(&name).is_none() {
            continue;
        }
        cut.tamper(&name, |content| content.truncate(5000));
        let opened = open(&cut).map(drop);
        let verified = verify_on(&cut).unwrap().problems.is_empty();
        assert_eq!(opened.is_ok(), verified, "{name}: {opened:?}");
        refused += usize::from(opened.is_err());
    }
    assert_eq!(refused, 1, "the others wait to be used again");
}

#[test]
fn a_broken_record_before_a_good_one_is_refused() {
    let disk = MemoryDisk::new();
    let store = open(&disk).unwrap();
    let object = client(&store, "object", PAGES).unwrap();
    for byte in 1..4 {
        let call = Client::call();
        object
            .give(call, 0, &[&[byte; 8][..], &[0; PAGE - 8]].concat())
            .unwrap();
        object.sync(call, 0, 1).unwrap();
    }
    let end = {
        std::mem::forget(store);
        inspect_on(&disk.after_kill()).unwrap().journal.bytes_in_use as usize
    };
    let broken = disk.after_kill();
    // In the record before the last, of which each has a line of 128 bytes.
    broken.tamper("journal-0", |content| content[end - 300] ^= 1);
    let error = open(&broken).err().expect("is refused");
    assert_eq!(error.kind, PagerErrorKind::Damaged);
    assert!(error.message.contains("journal-0 at byte"), "{error}");
    assert_eq!(verify_on(&broken).unwrap().problems.len(), 1);
}

#[test]
fn what_is_no_store_is_told_apart() {
    let kind = |disk: &MemoryDisk| open(disk).err().map(|error| error.kind);
    let disk = closed(&mut Random::new(1)).0;
    let foreign = disk.after_kill();
    foreign.tamper("STORE", |content| content.fill(b'x'));
    assert_eq!(kind(&foreign), Some(PagerErrorKind::Damaged));
    let version = disk.after_kill();
    version.tamper("STORE", |content| {
        [8, 4096 + 8, 40, 4096 + 40]
            .iter()
            .for_each(|at| content[*at] = 9)
    });
    assert_eq!(kind(&version), Some(PagerErrorKind::Version));
    // One slot of a newer program, which may have written calls as well.
    let newer = disk.after_kill();
    newer.tamper("STORE", |content| {
        content[8] += 1;
        content[40] ^= 1;
    });
    assert_eq!(kind(&newer), Some(PagerErrorKind::Version));
    // Its version is what is damaged there.
    let rotten = disk.after_kill();
    rotten.tamper("STORE", |content| content[8] += 1);
    assert_eq!(kind(&rotten), None);
    let blank = disk.after_kill();
    blank.tamper("STORE", |content| content.fill(0));
    assert_eq!(kind(&blank), Some(PagerErrorKind::Damaged), "there are objects");
    let page_size = vmsync_core::PageSize::KIB_16;
    let options = Options {
        page_size,
        ..common::tiny()
    };
    let other = FileStore::open_on(Arc::new(disk.clone()), &options).err();
    assert_eq!(other.map(|error| error.kind), Some(PagerErrorKind::Invalid));
    let options = Options {
        create: false,
        ..common::tiny()
    };
    let missing = FileStore::open_on(Arc::new(MemoryDisk::new()), &options).err();
    assert_eq!(missing.map(|error| error.kind), Some(PagerErrorKind::NotFound));
}

/// Calls in the checkpoint's segment and in one behind it, and files that wait to be used again: as a kill leaves them.
fn several_segments() -> MemoryDisk {
    let disk = MemoryDisk::new();
    let options = Options {
        checkpoint_bytes: 1 << 20,
        ..common::tiny()
    };
    let store = FileStore::open_on(Arc::new(disk.clone()), &options).unwrap();
    let object = client(&store, "object", PAGES).unwrap();
    // Three of them fill a segment.
    (1..10).for_each(|byte| object.commit_full(0, byte));
    store.checkpoint().unwrap();
    (10..15).for_each(|byte| object.commit_full(1, byte));
    std::mem::forget(store);
    disk.after_kill()
}

/// The journal files of `disk`, the newest last.
fn segments_by_age(disk: &MemoryDisk) -> Vec<String> {
    let mut names: Vec<_> = (0..8)
        .map(|slot| format!("journal-{slot}"))
        .filter_map(|name| Some((disk.content(&name)?[8], name)))
        .collect();
    names.sort();
    names.into_iter().map(|(_, name)| name).collect()
}

/// Without it the journal looks as it did before it was begun. Its calls were reported.
#[test]
fn a_newest_segment_that_is_lost_is_noticed() {
    let disk = several_segments();
    let names = segments_by_age(&disk);
    let newest = &names[names.len() - 1];
    type Loss = fn(&MemoryDisk, &str);
    let losses: [Loss; 3] = [
        |disk, name| disk.remove(name).unwrap(),
        |disk, name| disk.tamper(name, |content| content.fill(0)),
        |disk, name| disk.tamper(name, |content| content.truncate(100)),
    ];
    for lose in losses {
        let lost = disk.after_kill();
        lose(&lost, newest);
        let error = open(&lost).err().expect("is refused");
        assert_eq!(error.kind, PagerErrorKind::Damaged);
        assert!(!verify_on(&lost).unwrap().problems.is_empty());
    }
}

/// The header of a file's earlier life, over that of the newest segment: its calls were reported.
#[test]
fn a_header_that_came_back_is_noticed() {
    let disk = several_segments();
    let names = segments_by_age(&disk);
    let (oldest, newest) = (&names[0], &names[names.len() - 1]);
    let journal = inspect_on(&disk).unwrap().journal;
    assert!(journal.segments > 1 && journal.segments_free > 0, "{journal:?}");
    assert!(open(&disk.after_kill()).is_ok());
    let stale = disk.after_kill();
    let header = disk.content(oldest).unwrap()[..512].to_vec();
    stale.tamper(newest, |content| content[..512].copy_from_slice(&header));
    let error = open(&stale).err().expect("is refused");
    assert_eq!(error.kind, PagerErrorKind::Damaged);
    assert!(error.message.contains(newest), "{error}");
    assert!(!verify_on(&stale).unwrap().problems.is_empty());
}

/// A page of which the journal has some bytes rests on the image's others, and a later read on the rest of the file.
#[test]
fn an_image_that_replay_cannot_rest_on_is_told_by_opening() {
    for spoil in [
        |image: &mut Vec<u8>| image[PAGE / 2] ^= 1,
        |image: &mut Vec<u8>| image.truncate(PAGE),
    ] {
        let disk = MemoryDisk::new();
        let store = open(&disk).unwrap();
        let object = client(&store, "object", PAGES).unwrap();
        object.commit_full(0, 1);
        store.checkpoint().unwrap();
        let mut page = object.read(0, 1);
        page[0] = 2;
        let call = Client::call();
        object.give(call, 0, &page).unwrap();
        object.sync(call, 0, 1).unwrap();
        let killed = disk.after_kill();
        killed.tamper("object-1", spoil);
        let opened = open(&killed).map(drop);
        assert_eq!(opened.unwrap_err().kind, PagerErrorKind::Damaged);
    }
}

#[test]
fn a_broken_record_hides_none_behind_it_however_long_it_is() {
    let disk = MemoryDisk::new();
    let options = Options {
        segment_bytes: 4 << 20,
        ..common::tiny()
    };
    let store = FileStore::open_on(Arc::new(disk.clone()), &options).unwrap();
    let object = client(&store, "object", 512).unwrap();
    let call = Client::call();
    object.give(call, 0, &vec![1; 512 * PAGE]).unwrap();
    object.sync(call, 0, 512).unwrap();
    object.commit_full(0, 2);
    let killed = disk.after_kill();
    killed.tamper("journal-0", |content| content[1 << 20] ^= 1);
    let opened = open(&killed).map(drop);
    assert_eq!(opened.unwrap_err().kind, PagerErrorKind::Damaged);
}
