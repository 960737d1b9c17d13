//! What it costs to ask: a collect with its re-arming, per dirty page, and one that finds nothing, per GiB.

use std::{
    fs::File,
    sync::atomic::{AtomicU8, Ordering},
    time::Instant,
};

use anyhow::{Result, ensure};
use vmsync_core::{
    ByteRange, PageSet, PageSize,
    tracker::{Backing, Tracker, TrackerKind},
};
use vmsync_tracker::{Barrier, CardTable, LinearRange};

use crate::{
    mapping::{Mapping, PAGE, nanoseconds},
    table::Table,
};

/// What is scanned; rungs whose faults take microseconds make do with a part.
pub const PAGES: usize = 1 << 16;
const PAGES_SLOW: usize = PAGES / 16;
const PAGES_PER_GIB: f64 = (1 << 18) as f64;

/// Every how many pages one is dirty.
pub const DENSITIES: [(usize, &str); 3] = [
    (1, "collect, every page dirty"),
    (2, "collect, every 2nd page dirty"),
    (64, "collect, every 64th page dirty"),
];
/// Every how many pages one was stored to, before a collect that finds nothing; 0: none, and all were loaded.
pub const IDLE: [(usize, &str); 3] = [
    (1, "idle collect, all pages stored to once"),
    (2, "idle collect, every 2nd page stored to once"),
    (0, "idle collect, all pages only loaded"),
];
const PER_PAGE: &str = "ns/dirty page";
const PER_GIB: &str = "ms/GiB";

/// One round of every case.
pub fn measure(kinds: &[TrackerKind], file: &File, table: &mut Table) -> Result<()> {
    for kind in kinds {
        let pages = match kind {
            TrackerKind::Mprotect | TrackerKind::UffdSync => PAGES_SLOW,
            _ => PAGES,
        };
        collects(*kind, pages, table)?;
        for (step, name) in IDLE {
            idle(*kind, None, pages, step, name, table)?;
            idle(
                *kind,
                Some(file),
                pages,
                step,
                &format!("{name}, of a file"),
                table,
            )?;
        }
    }
    cards(table)
}

fn collects(kind: TrackerKind, pages: usize, table: &mut Table) -> Result<()> {
    let mapping = Mapping::new(None, pages)?;
    let mut tracked = mapping.track(kind, Backing::Anonymous)?;
    mapping.store(0..pages);
    tracked.collect()?;
    for (step, name) in DENSITIES {
        mapping.store((0..pages).step_by(step));
        let (time, dirty) = tracked.collect()?;
        // What is stored is what was there: a rung that compares finds nothing, and has no figure here.
        if kind != TrackerKind::Compare {
            ensure!(dirty == pages.div_ceil(step) as u64, "{kind} saw {dirty} pages");
            table.add(name, PER_PAGE, kind.name(), time / dirty as f64);
        }
    }
    Ok(())
}

fn idle(
    kind: TrackerKind,
    file: Option<&File>,
    pages: usize,
    step: usize,
    name: &str,
    table: &mut Table,
) -> Result<()> {
    let mapping = Mapping::new(file, pages)?;
    let backing = match file {
        None => Backing::Anonymous,
        Some(_) => Backing::PrivateFile,
    };
    let mut tracked = mapping.track(kind, backing)?;
    match step {
        0 => mapping.load_all(),
        _ => _ = mapping.store((0..pages).step_by(step)),
    }
    tracked.collect()?;
    tracked.collect()?;
    let (time, dirty) = tracked.collect()?;
    ensure!(dirty == 0, "{kind} saw {dirty} pages that nobody stored to");
    table.add(
        name,
        PER_GIB,
        kind.name(),
        time / 1e6 * PAGES_PER_GIB / pages as f64,
    );
    Ok(())
}

/// The card table of a barrier, a byte a page: the same questions.
fn cards(table: &mut Table) -> Result<()> {
    let mapping = Mapping::new(None, PAGES)?;
    let cards: Vec<AtomicU8> = (0..PAGES).map(|_| AtomicU8::new(0)).collect();
    let card_table = CardTable {
        first: cards.as_ptr(),
        cards: PAGES as u64,
    };
    let linear = LinearRange {
        base: mapping.base(),
        bytes_reserved: mapping.range().end,
    };
    let who = TrackerKind::Barrier.name();
    // SAFETY: both memories outlive the tracker, which is dropped first.
    let mut tracker = unsafe { Barrier::new(card_table, linear, PageSize::KIB_4) };
    tracker.attach(mapping.range(), Backing::Anonymous)?;
    // Every page's head is known from then on.
    mapping.store(0..PAGES);
    cards.iter().for_each(|card| card.store(1, Ordering::Relaxed));
    collect(&mut tracker, mapping.range())?;
    for (step, name) in DENSITIES {
        cards
            .iter()
            .step_by(step)
            .for_each(|card| card.store(1, Ordering::Relaxed));
        let (time, dirty) = collect(&mut tracker, mapping.range())?;
        table.add(name, PER_PAGE, who, time / dirty as f64);
    }
    let (time, dirty) = collect(&mut tracker, mapping.range())?;
    ensure!(dirty == 0, "{dirty} cards came from nowhere");
    table.add(IDLE[0].1, PER_GIB, who, time / 1e6 * PAGES_PER_GIB / PAGES as f64);
    Ok(())
}

fn collect(tracker: &mut dyn Tracker, range: ByteRange) -> Result<(f64, u64)> {
    let mut dirty = PageSet::new();
    let start = Instant::now();
    tracker.collect(range, &mut dirty)?;
    Ok((nanoseconds(start), dirty.len()))
}

/// What it costs to find out by its bytes that a page has not changed, out of memory and not out of a cache.
pub fn unchanged(table: &mut Table) -> Result<()> {
    const NAME: &str = "finding a page unchanged";
    let words = PAGE / size_of::<u64>();
    let data: Vec<u64> = (0..PAGES_SLOW * words)
        .map(|word| (word as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15))
        .collect();
    let shadow = data.clone();
    let hashes: Vec<u128> = data.chunks(words).map(hash).collect();
    let start = Instant::now();
    ensure!(std::hint::black_box(&data) == std::hint::black_box(&shadow));
    table.add(
        NAME,
        UNIT_PAGE,
        "memcmp with a shadow",
        nanoseconds(start) / PAGES_SLOW as f64,
    );
    let start = Instant::now();
    ensure!(
        std::hint::black_box(&data)
            .chunks(words)
            .map(hash)
            .eq(hashes.iter().copied())
    );
    table.add(
        NAME,
        UNIT_PAGE,
        "xxh3-128",
        nanoseconds(start) / PAGES_SLOW as f64,
    );
    Ok(())
}

const UNIT_PAGE: &str = "ns/page";

fn hash(page: &[u64]) -> u128 {
    // SAFETY: words are bytes.
    let bytes = unsafe { std::slice::from_raw_parts(page.as_ptr().cast::<u8>(), size_of_val(page)) };
    twox_hash::XxHash3_128::oneshot(bytes)
}
