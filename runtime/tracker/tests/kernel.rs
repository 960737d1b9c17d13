//! Writes that no guest makes, and pages that come and go: what the kernel does to a watched range, on every rung.
//!
//! A write by the kernel is recorded, or refused by design: see the table of the crate. What a rung refuses must leave no
//! mark, and what it records must be exact as everywhere.
#![cfg(target_os = "linux")]

#[macro_use]
mod rig;

use rig::{Read, Rig, Subject, answers_kernel_faults, swap::Swap, without_rights};
use rustix::io::Errno;
use vmsync_core::{
    PageRange, PageSize,
    tracker::{Backing, TrackerKind},
};

const PAGE: PageSize = PageSize::KIB_4;

rungs![
    writes_by_the_kernel,
    writes_by_direct_io,
    writes_by_a_debugger,
    writes_by_another_process,
    pages_that_were_paged_out,
];

/// What happens to a write by the kernel to a page that is watched.
fn kernel_writes(subject: Subject) -> Result<(), Errno> {
    match subject {
        Subject::Rung(TrackerKind::Mprotect) => Err(Errno::FAULT),
        Subject::Rung(TrackerKind::UffdSync) if !answers_kernel_faults() => Err(Errno::FAULT),
        _ => Ok(()),
    }
}

fn writes_by_the_kernel(subject: Subject, backing: Backing) {
    let Some(mut rig) = Rig::new(subject, backing, PAGE, 16) else {
        return;
    };
    rig.attach(0, 16);
    for call in [Read::Plain, Read::Vectored, Read::Plain, Read::Vectored] {
        let result = rig.read_into(PageRange::new(3, 6), call);
        assert_eq!(result, kernel_writes(subject), "{subject:?}, {call:?}");
        if result.is_ok() {
            rig.expect(0, 16, &[3, 4, 5]);
        }
        rig.expect(0, 16, &[]);
    }
    // After a store the page is open to the kernel on every rung.
    rig.store(8, 0);
    rig.read_into(PageRange::new(8, 9), Read::Plain)
        .expect("the page is open");
    rig.expect(0, 16, &[8]);
}

fn writes_by_a_debugger(subject: Subject, backing: Backing) {
    let Some(mut rig) = Rig::new(subject, backing, PAGE, 16) else {
        return;
    };
    rig.attach(0, 16);
    for _ in 0..2 {
        let result = rig.write_as_a_debugger(7);
        assert_eq!(result, kernel_writes(subject), "{subject:?}");
        let expected: &[u64] = if result.is_ok() { &[7] } else { &[] };
        rig.expect(0, 16, expected);
    }
}

/// A device writes to the page's memory, past its page-table entry: what takes the page for it has to count.
fn writes_by_direct_io(subject: Subject, backing: Backing) {
    let Some(mut rig) = Rig::new(subject, backing, PAGE, 16) else {
        return;
    };
    rig.attach(0, 16);
    for _ in 0..2 {
        let result = rig.read_directly(PageRange::new(10, 13));
        if result == Err(Errno::INVAL) {
            eprintln!("skipped: the folder for temporary files has no direct I/O");
            return;
        }
        assert_eq!(result, kernel_writes(subject), "{subject:?}");
        if result.is_ok() {
            rig.expect(0, 16, &[10, 11, 12]);
        }
        rig.expect(0, 16, &[]);
    }
}

fn writes_by_another_process(subject: Subject, backing: Backing) {
    let Some(mut rig) = Rig::new(subject, backing, PAGE, 16) else {
        return;
    };
    rig.attach(0, 16);
    for _ in 0..2 {
        let result = rig.write_from_a_child(11);
        if result == Err(Errno::PERM) {
            eprintln!("skipped: a child may not write to its parent here");
            return;
        }
        assert_eq!(result, kernel_writes(subject), "{subject:?}");
        let expected: &[u64] = if result.is_ok() { &[11] } else { &[] };
        rig.expect(0, 16, expected);
        rig.expect(0, 16, &[]);
    }
}

/// Clean pages of a file are dropped and read again; others go to swap where there is some.
fn pages_that_were_paged_out(subject: Subject, backing: Backing) {
    let Some(mut rig) = Rig::new(subject, backing, PAGE, 64) else {
        return;
    };
    rig.attach(0, 64);
    page_out(&mut rig);
}

/// Stores before, between and after the pages go; returns how many were not in memory when they were asked about.
fn page_out(rig: &mut Rig) -> usize {
    let mut gone = 0;
    let all = PageRange::new(0, 64);
    (0..32).for_each(|page| _ = rig.load(page));
    for _ in 0..3 {
        // Dirty pages go, and count all the same.
        (8..24).for_each(|page| rig.store(page, 128));
        gone += rig.page_out(all);
        rig.expect(0, 64, &(8..24).collect::<Vec<_>>());
        rig.expect(0, 64, &[]);
        // Collected pages go, and stay clean until they are stored to.
        gone += rig.page_out(all);
        rig.expect(0, 64, &[]);
        (0..64).for_each(|page| _ = rig.load(page));
        rig.expect(0, 64, &[]);
        gone += rig.page_out(all);
        for page in [3, 9, 23, 40] {
            rig.store(page, 256);
        }
        rig.expect(0, 64, &[3, 9, 23, 40]);
        rig.expect(0, 64, &[]);
    }
    gone
}

/// The same with a swap file, which root may add for as long as the test takes.
#[test]
fn pages_that_were_swapped_out() {
    let _swap = match Swap::add(64 << 20) {
        Ok(swap) => swap,
        Err(why) => {
            eprintln!("skipped: no swap: {why}");
            return;
        }
    };
    let kinds = TrackerKind::ALL
        .into_iter()
        .filter(|kind| *kind != TrackerKind::Barrier);
    let subjects = kinds.map(Subject::Rung).chain([Subject::Barrier]);
    for subject in subjects {
        for backing in [Backing::Anonymous, Backing::PrivateFile] {
            let Some(mut rig) = Rig::new(subject, backing, PAGE, 64) else {
                continue;
            };
            rig.attach(0, 64);
            if page_out(&mut rig) == 0 {
                eprintln!("skipped: {subject:?} on {backing:?}: the kernel swapped nothing out");
            }
        }
    }
}

/// Everything above, as a user without rights: `uffd-async` records what the kernel writes all the same.
#[test]
fn the_suite_holds_without_rights() {
    without_rights("the_suite_holds_without_rights");
}
