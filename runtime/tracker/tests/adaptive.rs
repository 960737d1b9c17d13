//! Rungs that stop watching where all is stored to anyway: nothing is lost, it ends when the stores do, and who asks for
//! an exact set gets one.
#![cfg(target_os = "linux")]

#[macro_use]
mod rig;

use rig::{
    Rig, Subject,
    random::{Random, seed},
};
use vmsync_core::{
    PageRange, PageSet, PageSize,
    tracker::{Backing, TrackerKind},
};

const PAGE: PageSize = PageSize::KIB_4;
/// The rungs that take faults.
const KINDS: [TrackerKind; 3] = [
    TrackerKind::UffdAsync,
    TrackerKind::UffdSync,
    TrackerKind::Mprotect,
];

fn rigs(pages: u64) -> impl Iterator<Item = Rig> {
    let all = KINDS.into_iter().flat_map(|kind| {
        [Backing::Anonymous, Backing::PrivateFile].map(|backing| (Subject::Rung(kind), backing))
    });
    all.filter_map(move |(subject, backing)| {
        let mut rig = Rig::new(subject, backing, PAGE, pages)?;
        rig.attach(0, pages);
        Some(rig)
    })
}

fn collect_superset(rig: &mut Rig, pages: PageRange) -> PageSet {
    let range = rig.bytes(pages);
    let mut dirty = PageSet::new();
    rig.tracker()
        .collect_superset(range, &mut dirty)
        .expect("collect");
    dirty
}

fn store_all(rig: &mut Rig, pages: PageRange) {
    (pages.start..pages.end).for_each(|page| rig.store(page, 64));
}

#[test]
fn what_is_stored_to_all_over_is_left_alone_until_it_falls_silent() {
    let all = PageRange::new(0, 256);
    for mut rig in rigs(256) {
        let busy = PageRange::new(64, 192);
        for _ in 0..40 {
            store_all(&mut rig, busy);
            assert_eq!(collect_superset(&mut rig, all), PageSet::from(busy));
        }
        // It rests: it is reported although nobody stored to it, and no more than it.
        let in_vain = (0..100)
            .map(|_| collect_superset(&mut rig, all))
            .position(|found| found.is_empty())
            .expect("it is watched again");
        assert!((1..=16).contains(&in_vain), "reported {in_vain} times in vain");
        assert!(rig.tracker().reports_superset());
        for _ in 0..100 {
            assert!(collect_superset(&mut rig, all).is_empty(), "it stays watched");
        }
        rig.store(100, 0);
        assert_eq!(collect_superset(&mut rig, all), PageSet::from_iter([100]));
    }
}

#[test]
fn a_page_of_every_interval_is_left_alone_until_it_falls_silent() {
    let all = PageRange::new(0, 256);
    for mut rig in rigs(256) {
        for round in 0..40 {
            rig.store(5, 64);
            rig.store(100 + round, 0);
            let found = collect_superset(&mut rig, all);
            assert_eq!(found, PageSet::from_iter([5, 100 + round]));
        }
        let in_vain = (0..100)
            .map(|_| collect_superset(&mut rig, all))
            .take_while(|found| *found == PageSet::from_iter([5]))
            .count();
        assert!((1..=16).contains(&in_vain), "reported {in_vain} times in vain");
        assert!(collect_superset(&mut rig, all).is_empty());
        rig.store(5, 0);
        assert_eq!(rig.collect(0, 256), PageSet::from_iter([5]));
    }
}

#[test]
fn pages_that_are_met_again_by_chance_are_watched() {
    let all = PageRange::new(0, 256);
    for mut rig in rigs(256) {
        // Three times in a row is not often enough, and an exact collect begins anew.
        for round in 0..40 {
            if round % 4 < 3 {
                rig.store(5, 64);
            }
            let found = collect_superset(&mut rig, all);
            assert_eq!(found, (5..5 + u64::from(round % 4 < 3)).collect());
        }
        for round in 0..12 {
            rig.store(7, 8);
            let found = match round % 4 {
                3 => rig.collect(0, 256),
                _ => collect_superset(&mut rig, all),
            };
            assert_eq!(found, PageSet::from_iter([7]));
        }
        assert!(!rig.tracker().reports_superset());
    }
}

/// A guest that syncs each page by itself, more pages than are remembered.
#[test]
fn syncs_page_by_page_are_exact() {
    const PAGES: u64 = 3000;
    for mut rig in rigs(PAGES) {
        for _ in 0..3 {
            for page in 0..PAGES {
                rig.store(page, 0);
                let found = collect_superset(&mut rig, PageRange::new(page, page + 1));
                assert_eq!(found, PageSet::from_iter([page]));
            }
        }
    }
}

#[test]
fn few_stores_are_exact() {
    let all = PageRange::new(0, 256);
    for mut rig in rigs(256) {
        for round in 0..20 {
            let pages: Vec<u64> = (round..256).step_by(3).collect();
            pages.iter().for_each(|page| rig.store(*page, 64));
            assert_eq!(collect_superset(&mut rig, all), PageSet::from_iter(pages));
        }
        assert!(!rig.tracker().reports_superset());
    }
}

/// An exact collect arms what rested, so that the next one tells what was stored to since (INVALIDATE asks that way).
#[test]
fn an_exact_collect_ends_the_rest() {
    let all = PageRange::new(0, 128);
    for mut rig in rigs(128) {
        for _ in 0..3 {
            store_all(&mut rig, all);
            collect_superset(&mut rig, all);
        }
        rig.store(7, 0);
        assert!(rig.collect(0, 128).contains(7));
        assert!(rig.collect(0, 128).is_empty());
        rig.store(8, 0);
        assert_eq!(collect_superset(&mut rig, all), PageSet::from_iter([8]));
    }
}

#[test]
fn a_new_mapping_is_watched() {
    let all = PageRange::new(0, 128);
    for mut rig in rigs(128) {
        for _ in 0..3 {
            store_all(&mut rig, all);
            collect_superset(&mut rig, all);
        }
        rig.remap(PageRange::new(0, 64));
        rig.attach(0, 64);
        rig.clear(64, 128);
        assert!(collect_superset(&mut rig, all).is_empty());
    }
}

#[test]
fn random_runs_lose_nothing() {
    const PAGES: u64 = 512;
    let mut random = Random(seed());
    for mut rig in rigs(PAGES) {
        let mut stored = PageSet::new();
        for _ in 0..1500 {
            let pages = random.pages(PAGES);
            if random.next(10) > 0 {
                rig.store(3, 8);
                stored.insert(PageRange::new(3, 4));
            }
            match random.next(8) {
                0..4 => {
                    let start = pages.start / 64 * 64;
                    let busy = PageRange::new(start, (start + 64 + random.next(64)).min(PAGES));
                    store_all(&mut rig, busy);
                    stored.insert(busy);
                }
                4 => {
                    rig.store(pages.start, 8);
                    stored.insert(PageRange::new(pages.start, pages.start + 1));
                }
                exact => {
                    let part = match random.next(3) {
                        0 => pages,
                        _ => PageRange::new(0, PAGES),
                    };
                    let found = match exact {
                        5 => rig.collect(part.start, part.end),
                        _ => collect_superset(&mut rig, part),
                    };
                    let mut missing = stored.within(part);
                    missing.subtract(&found);
                    assert!(missing.is_empty(), "lost {:?}", missing.runs());
                    stored.remove(part);
                }
            }
        }
    }
}
