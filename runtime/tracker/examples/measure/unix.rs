//! The measurements: each adds its samples to a [`Table`].

use std::{
    collections::BTreeMap,
    fs::File,
    io::Write,
    ptr,
    sync::atomic::{AtomicU8, Ordering},
    time::Instant,
};

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, mmap_anonymous, munmap};
use vmsync_core::{
    ByteRange, PageSet, PageSize,
    tracker::{Backing, Tracker, TrackerKind},
};
use vmsync_tracker::{Barrier, CardTable, LinearRange, Straddle, new_tracker, probe};

const ROUNDS: usize = 7;
const PAGE: usize = 4096;

/// Samples by name, in the order of the table.
#[derive(Default)]
struct Table {
    samples: BTreeMap<(String, &'static str), Vec<f64>>,
}

impl Table {
    fn add(&mut self, row: &str, column: &'static str, value: f64) {
        self.samples
            .entry((row.to_string(), column))
            .or_default()
            .push(value);
    }

    fn median(&self, row: &str, column: &'static str) -> String {
        let Some(samples) = self.samples.get(&(row.to_string(), column)) else {
            return "-".into();
        };
        let mut sorted = samples.clone();
        sorted.sort_by(f64::total_cmp);
        format!("{:.3}", sorted[sorted.len() / 2])
    }

    fn print(&self, columns: &[&'static str]) {
        let mut rows: Vec<&String> = self.samples.keys().map(|(row, _)| row).collect();
        rows.dedup();
        println!(
            "{:<28}{}",
            "",
            columns
                .iter()
                .map(|column| format!("{column:>15}"))
                .collect::<String>()
        );
        for row in rows {
            let cells: String = columns
                .iter()
                .map(|column| format!("{:>15}", self.median(row, column)))
                .collect();
            println!("{row:<28}{cells}");
        }
    }
}

/// A private mapping without huge pages.
struct Mapping {
    base: *mut u8,
    pages: usize,
}

impl Mapping {
    fn new(backing: Backing, pages: usize, file: &File) -> Self {
        let (length, protection) = (pages * PAGE, ProtFlags::READ | ProtFlags::WRITE);
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: a new mapping; the file is not truncated.
        let base = unsafe {
            let start = match backing {
                Backing::Anonymous => mmap_anonymous(ptr::null_mut(), length, protection, flags),
                Backing::PrivateFile => mmap(ptr::null_mut(), length, protection, flags, file, 0),
            };
            let start = start.expect("mapping");
            let _ = madvise(start, length, Advice::LinuxNoHugepage);
            start.cast()
        };
        Self { base, pages }
    }

    fn range(&self) -> ByteRange {
        ByteRange::new(0, (self.pages * PAGE) as u64)
    }

    fn linear(&self) -> LinearRange {
        LinearRange {
            base: self.base,
            bytes_reserved: self.range().end,
        }
    }

    /// Stores to every `step`th page; nanoseconds a store.
    fn store(&self, step: usize) -> f64 {
        let start = Instant::now();
        for page in (0..self.pages).step_by(step) {
            // SAFETY: inside the mapping.
            unsafe { self.base.add(page * PAGE + 64).write_volatile(page as u8 | 1) };
        }
        nanoseconds(start) / self.pages.div_ceil(step) as f64
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: our own mapping, without a tracker by now.
        let _ = unsafe { munmap(self.base.cast(), self.pages * PAGE) };
    }
}

fn nanoseconds(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e9
}

fn collect(tracker: &mut dyn Tracker, range: ByteRange) -> (f64, u64) {
    let mut dirty = PageSet::new();
    let start = Instant::now();
    tracker.collect(range, &mut dirty).expect("collect");
    (nanoseconds(start), dirty.len())
}

pub fn main() {
    let mebibytes: usize = std::env::args()
        .nth(1)
        .map_or(256, |text| text.parse().expect("a number of MiB"));
    let pages = mebibytes << 20 >> 12;
    let file = file_of(pages);
    let rungs = probe();
    for rung in &rungs {
        println!(
            "{:<12} {:?}; private files: {:?}",
            rung.kind.name(),
            rung.available,
            rung.private_file
        );
    }
    let mut table = Table::default();
    for _ in 0..ROUNDS {
        for backing in [Backing::Anonymous, Backing::PrivateFile] {
            untracked(backing, pages, &file, &mut table);
            for rung in &rungs {
                let works = match backing {
                    Backing::Anonymous => &rung.available,
                    Backing::PrivateFile => &rung.private_file,
                };
                if works.is_ok() && rung.kind != TrackerKind::Barrier {
                    stores_and_collects(rung.kind, backing, pages, &file, &mut table);
                    idle(rung.kind, backing, pages, &file, &mut table);
                }
            }
        }
        cards(&mut table);
        shadow_or_hash(&mut table);
    }
    println!("\nmedians of {ROUNDS} runs over {mebibytes} MiB");
    table.print(&["first ns", "again ns", "all ns/p", "every 2nd", "every 64th"]);
    println!(
        "first and again: a store to a fresh page, to a collected one; then collect and re-arm, ns a dirty page"
    );
    table.print(&[
        "attach us",
        "fresh ms/GiB",
        "read ms/GiB",
        "full ms/GiB",
        "half ms/GiB",
    ]);
    println!(
        "a collect that finds nothing: never touched, all read, all stored to, every second page stored to"
    );
    table.print(&["us/4GiB", "ns/page"]);
}

fn file_of(pages: usize) -> File {
    let mut file = tempfile::tempfile().expect("a temporary file");
    (0..pages).for_each(|_| file.write_all(&[7; PAGE]).expect("writing"));
    file
}

fn row(name: &str, backing: Backing) -> String {
    format!("{name} {backing:?}")
}

/// The kernel's own minor fault.
fn untracked(backing: Backing, pages: usize, file: &File, table: &mut Table) {
    let mapping = Mapping::new(backing, pages, file);
    table.add(&row("untracked", backing), "first ns", mapping.store(1));
    table.add(&row("untracked", backing), "again ns", mapping.store(1));
}

fn stores_and_collects(kind: TrackerKind, backing: Backing, pages: usize, file: &File, table: &mut Table) {
    // A fault costs these rungs microseconds: less of it says as much.
    let slow = matches!(kind, TrackerKind::Mprotect | TrackerKind::UffdSync);
    let mapping = Mapping::new(backing, if slow { pages / 16 } else { pages }, file);
    // SAFETY: the tracker is dropped before its mapping.
    let mut tracker = unsafe { new_tracker(kind, mapping.linear(), PageSize::KIB_4) }.expect("it was probed");
    let row = row(kind.name(), backing);
    let start = Instant::now();
    tracker.attach(mapping.range(), backing).expect("attach");
    table.add(&row, "attach us", nanoseconds(start) / 1e3);
    table.add(&row, "first ns", mapping.store(1));
    collect(tracker.as_mut(), mapping.range());
    table.add(&row, "again ns", mapping.store(1));
    for (column, step) in [("all ns/p", 1), ("every 2nd", 2), ("every 64th", 64)] {
        mapping.store(step);
        let (time, dirty) = collect(tracker.as_mut(), mapping.range());
        if kind != TrackerKind::Compare {
            table.add(&row, column, time / dirty as f64);
        }
    }
}

fn idle(kind: TrackerKind, backing: Backing, pages: usize, file: &File, table: &mut Table) {
    let slow = matches!(kind, TrackerKind::Mprotect | TrackerKind::UffdSync);
    let pages = if slow { pages / 16 } else { pages };
    for (column, step) in [
        ("fresh ms/GiB", 0),
        ("read ms/GiB", 0),
        ("full ms/GiB", 1),
        ("half ms/GiB", 2),
    ] {
        let mapping = Mapping::new(backing, pages, file);
        // SAFETY: the tracker is dropped before its mapping.
        let mut tracker =
            unsafe { new_tracker(kind, mapping.linear(), PageSize::KIB_4) }.expect("it was probed");
        tracker.attach(mapping.range(), backing).expect("attach");
        if step > 0 {
            mapping.store(step);
            collect(tracker.as_mut(), mapping.range());
        }
        if column.starts_with("read") {
            // SAFETY: inside the mapping.
            (0..pages).for_each(|page| unsafe { _ = mapping.base.add(page * PAGE).read_volatile() });
            collect(tracker.as_mut(), mapping.range());
        }
        collect(tracker.as_mut(), mapping.range());
        let (time, dirty) = collect(tracker.as_mut(), mapping.range());
        assert_eq!(dirty, 0);
        table.add(
            &row(kind.name(), backing),
            column,
            time / 1e6 * (1 << 18) as f64 / pages as f64,
        );
    }
}

/// The card table of a 4 GiB memory, without marks and with many.
fn cards(table: &mut Table) {
    const CARDS: usize = 1 << 20;
    let memory: Vec<AtomicU8> = (0..CARDS).map(|_| AtomicU8::new(0)).collect();
    // SAFETY: a reservation that only heads of marked pages are read of.
    let base = unsafe {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        mmap_anonymous(
            ptr::null_mut(),
            CARDS * PAGE,
            protection,
            MapFlags::PRIVATE | MapFlags::NORESERVE,
        )
    };
    let base = base.expect("reserving").cast::<u8>();
    let all = ByteRange::new(0, (CARDS * PAGE) as u64);
    for (name, straddle) in [
        ("barrier marked", Straddle::Marked),
        ("barrier suspect", Straddle::NextPageSuspect),
    ] {
        let table_of = CardTable {
            first: memory.as_ptr(),
            cards: CARDS as u64,
        };
        let linear = LinearRange {
            base,
            bytes_reserved: all.end,
        };
        // SAFETY: both outlive the tracker.
        let mut tracker = unsafe { Barrier::new(table_of, linear, PageSize::KIB_4, straddle) };
        tracker.attach(all, Backing::Anonymous).expect("attach");
        collect(&mut tracker, all);
        table.add(name, "us/4GiB", collect(&mut tracker, all).0 / 1e3);
        for (column, step) in [("all ns/p", 1), ("every 2nd", 2), ("every 64th", 64)] {
            for round in 0..2 {
                memory[..1 << 16]
                    .iter()
                    .step_by(step)
                    .for_each(|card| card.store(1, Ordering::Relaxed));
                let (time, _) = collect(&mut tracker, all);
                if round == 1 {
                    table.add(name, column, time * step as f64 / f64::from(1 << 16));
                }
            }
        }
    }
    // SAFETY: our own mapping; the trackers are gone.
    let _ = unsafe { munmap(base.cast(), CARDS * PAGE) };
}

/// What finding out that nothing changed costs, per page, out of memory and not out of a cache.
fn shadow_or_hash(table: &mut Table) {
    const PAGES: usize = 1 << 14;
    let data: Vec<u64> = (0..PAGES * PAGE / 8)
        .map(|word| (word as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15))
        .collect();
    let shadow = data.clone();
    let hashes: Vec<u128> = data.chunks(PAGE / 8).map(hash).collect();
    let start = Instant::now();
    assert!(
        std::hint::black_box(&data)
            .chunks(PAGE / 8)
            .eq(std::hint::black_box(&shadow).chunks(PAGE / 8))
    );
    table.add(
        "memcmp with a shadow",
        "ns/page",
        nanoseconds(start) / PAGES as f64,
    );
    let start = Instant::now();
    assert!(
        std::hint::black_box(&data)
            .chunks(PAGE / 8)
            .map(hash)
            .eq(hashes.iter().copied())
    );
    table.add("xxh3-128", "ns/page", nanoseconds(start) / PAGES as f64);
}

fn hash(page: &[u64]) -> u128 {
    // SAFETY: words are bytes.
    let bytes = unsafe { std::slice::from_raw_parts(page.as_ptr().cast::<u8>(), size_of_val(page)) };
    xxhash_rust::xxh3::xxh3_128(bytes)
}
