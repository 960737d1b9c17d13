//! The contract of [`vmsync_core::tracker::Tracker`], held by every rung on every backing.
//!
//! Each case is a function of a rung and a backing; [`rungs!`] makes the tests. A rung that does not work on this machine
//! is skipped with the reason that the probe gives.
#![cfg(target_os = "linux")]

#[macro_use]
mod rig;

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use rig::{
    Read, Rig, Subject, in_a_child,
    random::{Random, seed},
    without_rights,
};
use vmsync_core::{
    PageRange, PageSet, PageSize,
    tracker::{Backing, Tracker, TrackerKind},
};

const PAGE: PageSize = PageSize::KIB_4;

rungs![
    stores_are_collected_once,
    reads_do_not_count,
    a_part_can_be_collected,
    only_attached_pages_are_reported,
    what_was_stored_before_attach_does_not_count,
    a_replaced_mapping_is_attached_again,
    discarded_pages_are_clean,
    supplied_pages_are_clean,
    detach_stops,
    many_alternating_pages,
    scattered_stores_in_a_large_range,
    the_range_grows,
    large_pages,
    stores_race_with_collecting,
    a_forked_child_has_its_own,
    many_trackers_come_and_go,
    random_runs_agree_with_compare,
];

fn stores_are_collected_once(subject: Subject, backing: Backing) {
    let Some(mut rig) = Rig::new(subject, backing, PAGE, 16) else {
        return;
    };
    rig.attach(0, 16);
    rig.expect(0, 16, &[]);
    for round in 0..3 {
        rig.store(3, 8 * round);
        rig.store(3, 2048);
        rig.store(4, 0);
        rig.store(9, 4088);
        rig.expect(0, 16, &[3, 4, 9]);
        rig.expect(0, 16, &[]);
    }
    rig.store(15, 100);
    rig.expect(0, 16, &[15]);
    rig.expect(0, 16, &[]);
}

fn reads_do_not_count(subject: Subject, backing: Backing) {
    let Some(mut rig) = Rig::new(subject, backing, PAGE, 1024) else {
        return;
    };
    rig.attach(0, 1024);
    (0..1024).for_each(|page| _ = rig.load(page));
    rig.store(700, 0);
    rig.expect(0, 1024, &[700]);
    (0..1024).for_each(|page| _ = rig.load(page));
    rig.expect(0, 1024, &[]);
    rig.store(5, 0);
    rig.expect(0, 1024, &[5]);
}

fn a_part_can_be_collected(subject: Subject, backing: Backing) {
    let Some(mut rig) = Rig::new(subject, backing, PAGE, 16) else {
        return;
    };
    rig.attach(0, 16);
    for page in [0, 5, 6, 7, 15] {
        rig.store(page, 16);
    }
    rig.expect(6, 7, &[6]);
    rig.expect(6, 7, &[]);
    rig.store(6, 32);
    rig.expect(0, 6, &[0, 5]);
    rig.expect(8, 8, &[]);
    rig.expect(0, 16, &[6, 7, 15]);
    rig.expect(0, 16, &[]);
}

fn only_attached_pages_are_reported(subject: Subject, backing: Backing) {
    let Some(mut rig) = Rig::new(subject, backing, PAGE, 32) else {
        return;
    };
    rig.attach(4, 8);
    rig.attach(12, 16);
    for page in 0..32 {
        rig.store(page, 64);
    }
    let found = rig.collect(0, 32);
    assert_eq!(found.runs(), [PageRange::new(4, 8), PageRange::new(12, 16)]);
    for page in 0..32 {
        rig.store(page, 64);
    }
    assert_eq!(
        rig.collect(7, 13).runs(),
        [PageRange::new(7, 8), PageRange::new(12, 13)]
    );
    assert_eq!(rig.collect(16, 32).runs(), []);
}

fn what_was_stored_before_attach_does_not_count(subject: Subject, backing: Backing) {
    let Some(mut rig) = Rig::new(subject, backing, PAGE, 16) else {
        return;
    };
    rig.store(2, 64);
    rig.attach(0, 8);
    rig.expect(0, 16, &[]);
    rig.store(2, 64);
    rig.expect(0, 16, &[2]);
}

fn a_replaced_mapping_is_attached_again(subject: Subject, backing: Backing) {
    let Some(mut rig) = Rig::new(subject, backing, PAGE, 16) else {
        return;
    };
    rig.attach(0, 16);
    rig.store(5, 16);
    rig.store(12, 16);
    rig.remap(PageRange::new(4, 8));
    rig.attach(4, 8);
    rig.expect(4, 8, &[]);
    rig.store(6, 16);
    rig.expect(0, 16, &[6, 12]);
    rig.expect(0, 16, &[]);
    rig.store(4, 16);
    rig.expect(0, 16, &[4]);
}

fn discarded_pages_are_clean(subject: Subject, backing: Backing) {
    let Some(mut rig) = Rig::new(subject, backing, PAGE, 16) else {
        return;
    };
    rig.attach(0, 16);
    let pages = PageRange::new(4, 8);
    for round in 0..3 {
        for page in 2..10 {
            rig.store(page, 32);
        }
        if round == 1 {
            rig.expect(0, 16, &[2, 3, 4, 5, 6, 7, 8, 9]);
        }
        rig.discard(pages);
        rig.clear(4, 8);
        rig.expect(4, 8, &[]);
        rig.load(4);
        rig.store(5, 32);
        rig.expect(4, 8, &[5]);
        rig.collect(0, 16);
        rig.expect(0, 16, &[]);
    }
}

fn supplied_pages_are_clean(subject: Subject, backing: Backing) {
    let Some(mut rig) = Rig::new(subject, backing, PAGE, 16) else {
        return;
    };
    rig.attach(0, 16);
    for _ in 0..2 {
        for page in 4..8 {
            rig.store(page, 16);
        }
        rig.store(12, 16);
        rig.clear(4, 8);
        rig.expect(0, 16, &[12]);
        rig.store(4, 16);
        rig.expect(0, 16, &[4]);
    }
}

fn detach_stops(subject: Subject, backing: Backing) {
    let Some(mut rig) = Rig::new(subject, backing, PAGE, 16) else {
        return;
    };
    rig.attach(0, 16);
    for page in 0..16 {
        rig.store(page, 16);
    }
    let range = rig.bytes(PageRange::new(4, 12));
    rig.tracker().detach(range);
    rig.expect(0, 16, &[0, 1, 2, 3, 12, 13, 14, 15]);
    for page in 0..16 {
        rig.store(page, 16);
    }
    rig.expect(4, 12, &[]);
    rig.read_into(PageRange::new(4, 12), Read::Plain)
        .expect("nobody watches these pages");
    let all = rig.bytes(PageRange::new(0, 16));
    rig.tracker().detach(all);
    rig.tracker().detach(all);
    rig.expect(0, 16, &[]);
    rig.attach(8, 12);
    rig.expect(0, 16, &[]);
    rig.store(9, 16);
    rig.expect(0, 16, &[9]);
}

fn many_alternating_pages(subject: Subject, backing: Backing) {
    let Some(mut rig) = Rig::new(subject, backing, PAGE, 6000) else {
        return;
    };
    rig.attach(0, 6000);
    let even: Vec<u64> = (0..6000).step_by(2).collect();
    let odd: Vec<u64> = (1..6000).step_by(2).collect();
    for pages in [&even, &odd, &even] {
        pages.iter().for_each(|page| rig.store(*page, 64));
        rig.expect(0, 6000, pages);
        rig.expect(0, 6000, &[]);
    }
}

fn scattered_stores_in_a_large_range(subject: Subject, backing: Backing) {
    const PAGES: u64 = 40_000;
    let Some(mut rig) = Rig::new(subject, backing, PAGE, PAGES) else {
        return;
    };
    rig.attach(0, PAGES);
    let sparse = [0, 511, 512, 513, 5000, 5002, 5300, 20_479, 20_480, 39_999];
    for _ in 0..2 {
        sparse.iter().for_each(|page| rig.store(*page, 64));
        rig.expect(0, PAGES, &sparse);
        rig.expect(0, PAGES, &[]);
    }
    // A part that is full and armed, with holes behind it.
    (10_000..20_000).for_each(|page| rig.store(page, 64));
    rig.expect(0, PAGES, &(10_000..20_000).collect::<Vec<_>>());
    rig.expect(0, PAGES, &[]);
    rig.store(15_000, 64);
    rig.store(19_999, 64);
    rig.store(30_000, 64);
    rig.expect(100, PAGES, &[15_000, 19_999, 30_000]);
    rig.expect(0, PAGES, &[]);
    // A hole in the full part.
    rig.discard(PageRange::new(12_000, 13_000));
    rig.clear(12_000, 13_000);
    (12_100..12_200).for_each(|page| _ = rig.load(page));
    for page in [11_999, 12_150, 12_600, 13_000, 14_000] {
        rig.store(page, 64);
    }
    rig.expect(11_000, PAGES, &[11_999, 12_150, 12_600, 13_000, 14_000]);
    rig.expect(0, PAGES, &[]);
}

fn the_range_grows(subject: Subject, backing: Backing) {
    let Some(mut rig) = Rig::new(subject, backing, PAGE, 64) else {
        return;
    };
    rig.attach(0, 8);
    rig.store(7, 16);
    rig.store(9, 16);
    rig.remap(PageRange::new(8, 32));
    rig.attach(8, 32);
    rig.expect(0, 64, &[7]);
    rig.store(7, 16);
    rig.store(8, 16);
    rig.store(31, 16);
    rig.expect(0, 64, &[7, 8, 31]);
}

fn large_pages(subject: Subject, backing: Backing) {
    for page in [PageSize::KIB_16, PageSize::KIB_64] {
        let Some(mut rig) = Rig::new(subject, backing, page, 16) else {
            return;
        };
        rig.attach(0, 16);
        for _ in 0..2 {
            rig.store(3, 4096);
            rig.store(3, page.bytes() - 8);
            rig.store(4, 0);
            rig.store(9, 8192);
            rig.expect(0, 16, &[3, 4, 9]);
            rig.expect(0, 16, &[]);
        }
    }
}

/// A replica that copies what is collected ends up equal, whatever raced.
fn stores_race_with_collecting(subject: Subject, backing: Backing) {
    const PAGES: u64 = 64;
    const STORES: u64 = 20_000;
    let Some(mut rig) = Rig::new(subject, backing, PAGE, PAGES) else {
        return;
    };
    rig.attach(0, PAGES);
    let word = |rig: &Rig, page: u64| {
        // SAFETY: the second word of a page inside the mapping, accessed atomically by everyone.
        unsafe { &*rig.pointer(page * PAGE.bytes() + 8).cast::<AtomicU64>() }
    };
    let mut replica: Vec<u64> = (0..PAGES)
        .map(|page| word(&rig, page).load(Ordering::SeqCst))
        .collect();
    let mut tracker = rig.tracker.take().expect("it is there");
    let range = rig.bytes(PageRange::new(0, PAGES));
    let done = AtomicBool::new(false);
    let shared = Shared(&rig);
    std::thread::scope(|scope| {
        for thread in 0..2 {
            let (shared, done) = (&shared, &done);
            scope.spawn(move || {
                for store in 0..STORES {
                    let page = (store * 7 + thread * 13) % PAGES;
                    word(shared.0, page).store((store << 8) | (thread + 1), Ordering::SeqCst);
                    shared.0.mark(page * PAGE.bytes() + 8, 8);
                }
                done.store(true, Ordering::SeqCst);
            });
        }
        while !done.load(Ordering::SeqCst) {
            replicate(tracker.as_mut(), range, |page| {
                replica[page] = word(shared.0, page as u64).load(Ordering::SeqCst)
            });
        }
    });
    replicate(tracker.as_mut(), range, |page| {
        replica[page] = word(&rig, page as u64).load(Ordering::SeqCst)
    });
    let now: Vec<u64> = (0..PAGES)
        .map(|page| word(&rig, page).load(Ordering::SeqCst))
        .collect();
    assert_eq!(replica, now);
    rig.tracker = Some(tracker);
}

fn replicate(tracker: &mut dyn Tracker, range: vmsync_core::ByteRange, mut copy: impl FnMut(usize)) {
    let mut dirty = PageSet::new();
    tracker.collect(range, &mut dirty).expect("collect");
    dirty.pages().for_each(|page| copy(page as usize));
}

/// The rig as several threads see it: its words and cards, through atomics.
struct Shared<'a>(&'a Rig);
// SAFETY: the threads use `pointer` and `mark` only, and what is behind them through atomics.
unsafe impl Sync for Shared<'_> {}

fn a_forked_child_has_its_own(subject: Subject, backing: Backing) {
    let Some(mut rig) = Rig::new(subject, backing, PAGE, 16) else {
        return;
    };
    rig.attach(0, 16);
    rig.store(1, 16);
    rig.store(2, 16);
    rig.expect(2, 3, &[2]);
    in_a_child(|| {
        rig.store(5, 16);
        rig.expect(0, 16, &[1, 5]);
        rig.store(6, 16);
        let found = rig.collect(0, 16);
        assert!(
            found.contains(6) && !found.contains(5),
            "exact from the second time on: {:?}",
            found.runs()
        );
        rig.clear(0, 16);
        rig.attach(8, 12);
        rig.store(9, 16);
        let found = rig.collect(0, 16);
        assert!(found.contains(9) && !found.contains(6), "{:?}", found.runs());
        rig.tracker = None;
    });
    rig.store(7, 16);
    rig.expect(0, 16, &[1, 7]);
    rig.expect(0, 16, &[]);
    rig.store(8, 16);
    rig.expect(0, 16, &[8]);
}

fn many_trackers_come_and_go(subject: Subject, backing: Backing) {
    for round in 0..20 {
        let Some(mut rig) = Rig::new(subject, backing, PAGE, 16) else {
            return;
        };
        rig.attach(0, 8);
        rig.store(round % 8, 16);
        rig.expect(0, 16, &[round % 8]);
        if round % 2 == 0 {
            rig.tracker = None;
            rig.store(3, 16);
            rig.tracker = Some(rig.new_tracker(subject));
            rig.remap(PageRange::new(0, 8));
            rig.attach(0, 8);
            rig.expect(0, 16, &[]);
        }
    }
}

fn random_runs_agree_with_compare(subject: Subject, backing: Backing) {
    const PAGES: u64 = 1600;
    let mut random = Random(seed());
    let Some(mut rig) = Rig::new(subject, backing, PAGE, PAGES) else {
        return;
    };
    let mut oracle = rig.new_tracker(Subject::Rung(TrackerKind::Compare));
    let mut attached = PageSet::new();
    let mut stored = PageSet::new();
    for _ in 0..3000 {
        let pages = random.pages(PAGES);
        let range = rig.bytes(pages);
        match random.next(16) {
            0 => {
                rig.remap(pages);
                rig.attach(pages.start, pages.end);
                oracle.attach(range, backing).expect("attach");
                attached.insert(pages);
                stored.remove(pages);
            }
            1 => {
                rig.tracker().detach(range);
                oracle.detach(range);
                attached.remove(pages);
                stored.remove(pages);
            }
            2 => {
                rig.discard(pages);
                rig.clear(pages.start, pages.end);
                oracle.clear(range).expect("clear");
                stored.remove(pages);
            }
            3 | 4 => {
                let found = rig.collect(pages.start, pages.end);
                let mut changed = PageSet::new();
                oracle.collect(range, &mut changed).expect("collect");
                let expected = stored.within(pages);
                check(&mut rig, &found, &changed, &expected);
                stored.remove(pages);
            }
            5 => _ = rig.load(pages.start),
            6 if rig.read_into(pages, Read::Plain).is_ok() => stored.union(&attached.within(pages)),
            _ => {
                let at = random.next(512) * 8;
                rig.store(pages.start, at);
                stored.union(&attached.within(PageRange::new(pages.start, pages.start + 1)));
            }
        }
    }
    drop(oracle);
}

fn check(rig: &mut Rig, found: &PageSet, changed: &PageSet, expected: &PageSet) {
    assert_eq!(changed, expected, "the oracle saw what was stored");
    let mut missing = expected.clone();
    missing.subtract(found);
    assert!(
        missing.is_empty(),
        "missed {} pages, first {:?}",
        missing.len(),
        missing.runs().first()
    );
    if !rig.tracker().reports_superset() {
        assert_eq!(found, expected);
    }
}

/// Memory that came in huge pages is tracked in small ones.
#[test]
fn huge_pages_are_split_or_avoided() {
    const PAGES: u64 = 2048;
    for kind in [
        TrackerKind::UffdAsync,
        TrackerKind::UffdSync,
        TrackerKind::Mprotect,
    ] {
        let Some(mut rig) = Rig::new(Subject::Rung(kind), Backing::Anonymous, PAGE, PAGES) else {
            continue;
        };
        rig.prefer_huge_pages();
        (0..PAGES / 2).step_by(64).for_each(|page| rig.store(page, 0));
        rig.attach(0, PAGES);
        rig.expect(0, PAGES, &[]);
        for _ in 0..2 {
            rig.store(700, 0);
            rig.store(1500, 0);
            rig.expect(0, PAGES, &[700, 1500]);
            rig.expect(0, PAGES, &[]);
        }
    }
}

/// A store over the border of two pages counts for both, wherever the collected range ends.
#[test]
fn straddling_stores_count_for_both_pages() {
    let subjects = TrackerKind::ALL
        .into_iter()
        .filter(|kind| *kind != TrackerKind::Barrier)
        .map(Subject::Rung)
        .chain([Subject::Barrier]);
    for subject in subjects {
        let Some(mut rig) = Rig::new(subject, Backing::Anonymous, PAGE, 16) else {
            continue;
        };
        rig.attach(2, 14);
        for (first, second) in [((2, 6), (6, 14)), ((6, 14), (2, 6))] {
            rig.store(5, 4092);
            let mut expected = vec![];
            for (start, end) in [first, second] {
                let page = if start == 2 { 5 } else { 6 };
                rig.expect(start, end, &[page]);
                expected.push(page);
            }
            rig.expect(0, 16, &[]);
        }
        // From an unwatched page into a watched one, and out of the last one.
        rig.store(1, 4092);
        rig.expect(0, 16, &[2]);
        rig.store(13, 4092);
        rig.expect(0, 16, &[13]);
    }
}

/// Behind a marked page whose store did not straddle, nothing is reported: the head of the next page tells.
#[test]
fn heads_keep_suspects_from_being_reported() {
    let subject = Subject::Barrier;
    let mut rig = Rig::new(subject, Backing::Anonymous, PAGE, 16).expect("it needs nothing of the system");
    rig.attach(0, 16);
    rig.store(4, 16);
    assert_eq!(
        rig.collect(0, 16).runs(),
        [PageRange::new(4, 6)],
        "nothing is known of a fresh page's head"
    );
    rig.store(4, 16);
    assert_eq!(
        rig.collect(0, 16).runs(),
        [PageRange::new(4, 5)],
        "the head was kept when it was reported"
    );
    rig.store(5, 0);
    assert!(rig.collect(5, 6).contains(5));
    rig.store(4, 16);
    assert_eq!(
        rig.collect(4, 6).runs(),
        [PageRange::new(4, 5)],
        "the head that was stored last was kept"
    );
    rig.collect(0, 16);
    rig.clear(5, 6);
    rig.store(4, 16);
    assert_eq!(
        rig.collect(0, 16).runs(),
        [PageRange::new(4, 6)],
        "nothing is known of a head after a clear"
    );
    rig.store(4, 16);
    assert_eq!(rig.collect(0, 16).runs(), [PageRange::new(4, 5)]);
}

/// Marks anywhere in a table are found, wherever the collected range begins and ends.
#[test]
fn every_card_is_found() {
    let subject = Subject::Barrier;
    let mut rig = Rig::new(subject, Backing::Anonymous, PAGE, 600).expect("it needs nothing of the system");
    rig.attach(0, 600);
    for page in 0..600 {
        rig.mark(page * PAGE.bytes(), 1);
        let (start, end) = (page.saturating_sub(page % 13), 600 - (599 - page) % 17);
        rig.expect(start, end, &[page]);
        rig.expect(0, 600, &[]);
    }
}

/// A mapping that was replaced is an error, not a lie, until it is attached again.
#[test]
fn uffd_async_refuses_a_replaced_mapping() {
    let subject = Subject::Rung(TrackerKind::UffdAsync);
    let Some(mut rig) = Rig::new(subject, Backing::Anonymous, PAGE, 16) else {
        return;
    };
    rig.attach(0, 16);
    rig.remap(PageRange::new(4, 8));
    let range = rig.bytes(PageRange::new(0, 16));
    let error = rig
        .tracker()
        .collect(range, &mut PageSet::new())
        .expect_err("the mapping is not registered");
    assert!(error.message.contains("replaced"), "{error}");
    rig.attach(4, 8);
    rig.expect(0, 16, &[]);
}

/// Everything above, as a user without rights.
#[test]
fn the_suite_holds_without_rights() {
    without_rights("the_suite_holds_without_rights");
}

/// A card is a byte: the guest's engine marks without knowing of trackers.
const _: () = assert!(size_of::<AtomicU8>() == 1);
