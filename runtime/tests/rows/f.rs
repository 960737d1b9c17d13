//! Row F: crashes.

use std::{collections::BTreeSet, sync::Arc};

use vmsync::{Grant, KernReturn, Sandbox, TrackerKind};
use vmsync_pager_file::{
    Background, FileStore, Options,
    disk::{
        Disk,
        memory::{Failure, Fault, MemoryDisk},
    },
};

use crate::{
    flags::SYNC,
    harness::{BASE, Guest, P, Width, guest::Window, rig::name, rungs},
};

/// The objects of the store, mapped side by side, and their pages.
const REGIONS: [(&str, u64); 2] = [("a", 3), ("b", 2)];

/// Pages of all regions.
const PAGES: u64 = 5;

/// What the pages of all regions hold.
type Image = [u64; PAGES as usize];

/// Segments so small that calls begin new ones, and checkpoints follow; no thread, so that a run is always the same.
fn options() -> Options {
    Options {
        segment_bytes: 16 << 10,
        checkpoint_bytes: 16 << 10,
        background: Background::Caller,
        ..Options::default()
    }
}

/// A fresh guest over the store on `disk`, with both regions mapped.
fn guest(disk: &MemoryDisk, kind: TrackerKind) -> Guest {
    let store = FileStore::open_on(Arc::new(disk.clone()), &options()).expect("the store opens");
    let mut builder = Sandbox::builder().tracker(kind);
    for (object, _) in REGIONS {
        builder = builder.grant(object, Grant::new(store.clone(), name(object)));
    }
    let mut guest = Guest::new(&builder.build().expect("an engine"), Width::Bits32);
    let mut page = BASE / P;
    for (object, pages) in REGIONS {
        let port = guest.open(object, pages);
        guest.map(Window {
            page,
            ..Window::new(port, pages)
        });
        page += pages;
    }
    guest
}

fn image(guest: &mut Guest) -> Image {
    std::array::from_fn(|page| guest.touched(page as u64))
}

/// A part of the disk's trace, and what may be found where it is cut.
struct Call {
    changes: std::ops::Range<usize>,
    images: BTreeSet<Image>,
}

/// Calls of a guest on `disk`, one after the other. Operation `.1` of call `.0` fails, if there is one. How many operations each
/// call took.
fn live(disk: &MemoryDisk, kind: TrackerKind, fault: Option<(usize, u64, Failure)>) -> (Vec<Call>, Vec<u64>) {
    let mut guest = guest(disk, kind);
    let (mut calls, mut operations) = (Vec::new(), Vec::new());
    let mut images = BTreeSet::from([image(&mut guest)]);
    for number in 0..5 {
        if let Some((call, after, failure)) = fault
            && call == number
        {
            disk.inject(Fault {
                after: disk.operations() + after,
                count: 1,
                failure,
            });
        }
        // Pages of both regions; two calls leave one page as it was.
        let left = number as u64 % 3;
        guest.touch((0..PAGES).filter(|page| *page != left), number as u64 + 1);
        let (start, before) = (disk.trace().len(), disk.operations());
        images.insert(image(&mut guest));
        let result = guest.msync(BASE, PAGES * P, SYNC);
        calls.push(Call {
            changes: start..disk.trace().len(),
            images: images.clone(),
        });
        operations.push(disk.operations() - before);
        match fault {
            Some((call, ..)) if call == number && result != KernReturn::Success => {}
            _ => {
                assert_eq!(result, KernReturn::Success, "{:?}", guest.inner.last_error());
                images = BTreeSet::from([image(&mut guest)]);
            }
        }
        calls.push(Call {
            changes: disk.trace().len()..disk.trace().len(),
            images: images.clone(),
        });
    }
    (calls, operations)
}

/// What a crash of `disk` may leave: every subset of what is not durable where there are few, else none, all and single ones.
fn crashes(disk: &MemoryDisk) -> Vec<MemoryDisk> {
    let unsynced = disk.unsynced();
    let total: usize = unsynced.iter().map(|(_, count)| count).sum();
    let subset = |keeps: &dyn Fn(usize) -> bool| {
        disk.after_power_cut(&mut |name, number| {
            let files = unsynced.iter().take_while(|(other, _)| other != name);
            keeps(number + files.map(|(_, count)| count).sum::<usize>())
        })
    };
    if total <= 3 {
        return (0..1_u32 << total)
            .map(|mask| subset(&|index| mask >> index & 1 == 1))
            .collect();
    }
    let single = (0..total)
        .step_by(total / 4)
        .map(|one| subset(&|index| index == one));
    [subset(&|_| false), subset(&|_| true)]
        .into_iter()
        .chain(single)
        .collect()
}

/// All that is on `disk`.
fn files(disk: &MemoryDisk) -> Vec<(String, Option<Vec<u8>>)> {
    let mut names = disk.list().expect("it works");
    names.sort();
    let contents: Vec<_> = names.iter().map(|name| disk.content(name)).collect();
    names.into_iter().zip(contents).collect()
}

/// Cuts the run on `disk` before each change of `calls` and behind them, and lets fresh guests look at what is left. How many did.
fn cut(disk: &MemoryDisk, kind: TrackerKind, calls: &[Call]) -> usize {
    let trace = disk.trace();
    let (replayed, mut replayed_to, mut guests) = (MemoryDisk::new(), 0, 0);
    for call in calls {
        let mut seen = BTreeSet::new();
        for end in call.changes.start..=call.changes.end {
            trace[replayed_to..end]
                .iter()
                .for_each(|change| replayed.replay(change));
            replayed_to = end;
            let crashes = crashes(&replayed).into_iter();
            for left in crashes.filter(|left| seen.insert(files(left))) {
                let found = image(&mut guest(&left, kind));
                let images = &call.images;
                assert!(
                    images.contains(&found),
                    "cut at {end}: {found:?} is none of {images:?}"
                );
                guests += 1;
            }
        }
    }
    guests
}

#[test]
fn f1_a_crash_leaves_the_last_successful_call() {
    for kind in rungs() {
        let disk = MemoryDisk::new();
        let (calls, _) = live(&disk, *kind, None);
        println!("{kind}: {} guests", cut(&disk, *kind, &calls));
    }
}

#[test]
fn f1_a_crash_after_a_call_that_failed_leaves_no_mix() {
    let kind = rungs()[0];
    const NUMBER: usize = 2;
    let (_, operations) = live(&MemoryDisk::new(), kind, None);
    for after in 0..operations[NUMBER] {
        for failure in [Failure::Io, Failure::FalseAlarm] {
            let disk = MemoryDisk::new();
            let (calls, _) = live(&disk, kind, Some((NUMBER, after, failure)));
            // It, what is left when it has failed, the next one, and what is left of that.
            let guests = cut(&disk, kind, &calls[2 * NUMBER..2 * NUMBER + 4]);
            println!("{failure:?} of {after}: {guests} guests");
        }
    }
}
