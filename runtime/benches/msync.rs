//! A guest's `vm_msync` against `msync(2)` and against the least a disk can do.
//!
//! For 1, 10, 100 and 1000 random dirty pages of a 1 GiB region (8 bytes changed in each) one round measures, in turn:
//! - ours: a real guest dirties the pages, then its SYNC call is timed from the host's side of the guest;
//! - msync(2): the same stores to a shared mapping of a file on the same disk, then `msync(MS_SYNC)`;
//! - the floor: one sequential write of the bytes that ours wrote to its journal, then `fdatasync`, into a
//!   preallocated and already written file.
//!
//! Both files are written in full beforehand. The three are measured in every order equally often, because a sync right
//! after another's is cheaper; one round of each order warms up. Medians are reported, the spread is the range from the
//! 10th to the 90th percentile.

#[path = "support/plot.rs"]
mod plot;

use std::{
    fs::{File, OpenOptions},
    os::unix::fs::FileExt,
    path::Path,
    sync::Arc,
    time::Instant,
};

use anyhow::{Context, Result, bail};
use rustix::{
    fs::FallocateFlags,
    mm::{MapFlags, MsyncFlags, ProtFlags},
};
use vmsync::{Grant, Guest, ObjectName, Sandbox};
use vmsync_pager_file::{FileStore, Options};

const PAGE: u64 = 4096;
const REGION: u64 = 1 << 30;
/// Every order of ours (0), msync(2) (1) and the floor (2).
const ORDERS: [[usize; 3]; 6] = [[0, 1, 2], [2, 0, 1], [1, 2, 0], [0, 2, 1], [1, 0, 2], [2, 1, 0]];
const SYNC_WHOLE: &str = "call over the whole region";
const SYNC_PAGE: &str = "call over the page";

/// Maps the object `fill`, dirties pages, syncs.
const GUEST: &str = r#"(module
  (import "vmsync1" "memory_object_open" (func $open (param i32 i32 i64 i32 i32) (result i32)))
  (import "vmsync1" "vm_map" (func $map (param i32 i32 i32 i32 i32 i32 i64 i32 i32 i32 i32) (result i32)))
  (import "vmsync1" "vm_msync" (func $msync (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "fill")
  (global $base (mut i32) (i32.const 0))
  (func (export "map") (param $size i32) (result i32)
    (local $result i32)
    (local.set $result (call $open (i32.const 0) (i32.const 4) (i64.extend_i32_u (local.get $size))
      (i32.const 7) (i32.const 16)))
    (local.set $result (i32.or (local.get $result)
      (call $map (i32.const 1) (i32.const 20) (local.get $size) (i32.const 0) (i32.const 1)
        (i32.load (i32.const 16)) (i64.const 0) (i32.const 0) (i32.const 3) (i32.const 3) (i32.const 1))))
    (global.set $base (i32.load (i32.const 20)))
    (local.get $result))
  (func (export "store") (param $offset i32) (param $value i64)
    (i64.store (i32.add (global.get $base) (local.get $offset)) (local.get $value)))
  (func (export "sync") (param $offset i32) (param $size i32) (result i32)
    (call $msync (i32.const 1) (i32.add (global.get $base) (local.get $offset)) (local.get $size) (i32.const 2))))"#;

struct Ours {
    guest: Guest,
    store: Arc<FileStore>,
}

impl Ours {
    fn new(folder: &Path) -> Result<Self> {
        let store = FileStore::open(folder, &Options::default())?;
        let grant = Grant::new(store.clone(), ObjectName::new("fill")?);
        let sandbox = Sandbox::builder().grant("fill", grant).build()?;
        let mut guest = sandbox.instantiate(GUEST.as_bytes())?;
        if guest.call::<i32, i32>("map", REGION as i32)? != 0 {
            bail!("the guest could not map its region: {:?}", guest.last_error());
        }
        Ok(Self { guest, store })
    }

    /// Seconds of one SYNC call over `range` after `pages` were dirtied, and the bytes it put into the journal.
    fn round(&mut self, pages: &[(u64, u64)], range: (u64, u64)) -> Result<(f64, u64)> {
        for (offset, value) in pages {
            self.guest
                .call::<(i32, i64), ()>("store", (*offset as i32, *value as i64))?;
        }
        let before = self.store.stats().bytes_journaled;
        let start = Instant::now();
        let result = self
            .guest
            .call::<(i32, i32), i32>("sync", (range.0 as i32, range.1 as i32))?;
        let seconds = start.elapsed().as_secs_f64();
        if result != 0 {
            bail!("vm_msync answered {result}: {:?}", self.guest.last_error());
        }
        Ok((seconds, self.store.stats().bytes_journaled - before))
    }
}

struct Shared {
    base: *mut u8,
}

impl Shared {
    fn new(path: &Path) -> Result<Self> {
        let file = create_written(path, REGION)?;
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new shared mapping, kept until the process ends; nobody truncates the file.
        let base = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                REGION as usize,
                protection,
                MapFlags::SHARED,
                &file,
                0,
            )
        }?;
        Ok(Self { base: base.cast() })
    }

    fn round(&mut self, pages: &[(u64, u64)]) -> Result<f64> {
        for (offset, value) in pages {
            // SAFETY: the offset is inside the mapping and aligned to 8 bytes.
            unsafe {
                self.base
                    .add(*offset as usize)
                    .cast::<u64>()
                    .write_volatile(*value)
            };
        }
        let start = Instant::now();
        // SAFETY: the range is the mapping.
        unsafe { rustix::mm::msync(self.base.cast(), REGION as usize, MsyncFlags::SYNC) }?;
        Ok(start.elapsed().as_secs_f64())
    }
}

struct Floor {
    file: File,
    position: u64,
    size: u64,
}

impl Floor {
    fn new(path: &Path) -> Result<Self> {
        let size = 256 << 20;
        let file = create_written(path, size)?;
        Ok(Self {
            file,
            position: 0,
            size,
        })
    }

    fn round(&mut self, bytes: u64) -> Result<f64> {
        let buffer: Vec<u8> = (0..bytes).map(|index| (index ^ self.position) as u8).collect();
        if self.position + bytes > self.size {
            self.position = 0;
        }
        let start = Instant::now();
        self.file.write_all_at(&buffer, self.position)?;
        self.file.sync_data()?;
        let seconds = start.elapsed().as_secs_f64();
        self.position += bytes;
        Ok(seconds)
    }
}

/// A file of `size` bytes, preallocated and written, so that no sync has to wait for metadata.
fn create_written(path: &Path, size: u64) -> Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)
        .with_context(|| format!("cannot create {}", path.display()))?;
    rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, size).context("cannot preallocate")?;
    let chunk = vec![1u8; 1 << 20];
    for index in 0..size >> 20 {
        file.write_all_at(&chunk, index << 20)?;
    }
    file.sync_all()?;
    Ok(file)
}

/// xorshift64*: the same pages in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn pages(&mut self, count: usize) -> Vec<(u64, u64)> {
        let mut pages = Vec::with_capacity(count);
        for _ in 0..count {
            let offset = self.next() % (REGION / PAGE) * PAGE + self.next() % (PAGE / 8) * 8;
            pages.push((offset, self.next()));
        }
        pages
    }
}

#[derive(Default)]
struct Times {
    seconds: Vec<f64>,
}

impl Times {
    fn quantile(&self, part: f64) -> f64 {
        let mut sorted = self.seconds.clone();
        sorted.sort_by(f64::total_cmp);
        sorted[((sorted.len() - 1) as f64 * part).round() as usize]
    }

    fn median(&self) -> f64 {
        self.quantile(0.5)
    }
}

struct Row {
    pages: usize,
    call: &'static str,
    ours: Times,
    msync: Times,
    floor: Times,
    journal_bytes: u64,
}

fn measure(folder: &Path, rounds: usize, seed: u64) -> Result<Vec<Row>> {
    let mut ours = Ours::new(&folder.join("store"))?;
    let mut shared = Shared::new(&folder.join("shared"))?;
    let mut floor = Floor::new(&folder.join("floor"))?;
    let mut random = Random(seed | 1);
    let cases = [
        (1, SYNC_PAGE),
        (1, SYNC_WHOLE),
        (10, SYNC_WHOLE),
        (100, SYNC_WHOLE),
        (1000, SYNC_WHOLE),
    ];
    let mut rows = Vec::new();
    for (pages, call) in cases {
        let mut row = Row {
            pages,
            call,
            ours: Times::default(),
            msync: Times::default(),
            floor: Times::default(),
            journal_bytes: 0,
        };
        for round in 0..rounds + ORDERS.len() {
            let dirty = random.pages(pages);
            let range = if call == SYNC_PAGE {
                (dirty[0].0 / PAGE * PAGE, PAGE)
            } else {
                (0, REGION)
            };
            // Each takes its turn at each place: a sync is cheaper right after another's.
            for who in ORDERS[round % ORDERS.len()] {
                let warm = round >= ORDERS.len();
                match who {
                    0 => {
                        let (seconds, bytes) = ours.round(&dirty, range)?;
                        row.journal_bytes = bytes;
                        row.ours.seconds.extend(warm.then_some(seconds));
                    }
                    1 => row.msync.seconds.extend(warm.then_some(shared.round(&dirty)?)),
                    _ => row
                        .floor
                        .seconds
                        .extend(warm.then_some(floor.round(row.journal_bytes)?)),
                }
            }
        }
        rows.push(row);
    }
    Ok(rows)
}

fn find(rows: &[Row], pages: usize, call: &str) -> (f64, f64) {
    let row = rows
        .iter()
        .find(|row| row.pages == pages && row.call == call)
        .expect("a measured case");
    (
        row.ours.median() / row.floor.median(),
        row.msync.median() / row.ours.median(),
    )
}

fn print_json(rows: &[Row]) {
    let table: Vec<_> = rows
        .iter()
        .map(|row| {
            serde_json::json!({
                "case": format!("{} random dirty pages of 1 GiB, {}", row.pages, row.call),
                "measure": "SYNC call, median",
                "unit": "s",
                "ours": row.ours.median(),
                "peers": { "msync(MS_SYNC)": row.msync.median(), "write + fdatasync (floor)": row.floor.median() },
                "spread": { "ours": [row.ours.quantile(0.1), row.ours.quantile(0.9)] },
                "journal_bytes": row.journal_bytes,
            })
        })
        .collect();
    let (floor, one) = find(rows, 1, SYNC_PAGE);
    let summary = serde_json::json!({
        "sync1_vs_floor": floor,
        "sync1_speedup_msync": one,
        "sync1_whole_speedup_msync": find(rows, 1, SYNC_WHOLE).1,
        "sync100_speedup_msync": find(rows, 100, SYNC_WHOLE).1,
        "sync1000_speedup_msync": find(rows, 1000, SYNC_WHOLE).1,
    });
    let machine = format!(
        "{} {}, {} processors, tracker {}",
        std::env::consts::OS,
        std::env::consts::ARCH,
        std::thread::available_parallelism().map_or(0, usize::from),
        vmsync::best()
    );
    let object =
        serde_json::json!({ "bench": "msync", "machine": machine, "rows": table, "summary": summary });
    println!("{object:#}");
}

fn print_table(rows: &[Row]) {
    println!(
        "{:>5}  {:<26} {:>11} {:>19} {:>11} {:>11} {:>9} {:>9} {:>9}",
        "pages", "", "ours", "10 to 90 %", "msync(2)", "floor", "vs floor", "speedup", "journal"
    );
    let ms = |seconds: f64| format!("{:.3} ms", seconds * 1e3);
    for row in rows {
        println!(
            "{:>5}  {:<26} {:>11} {:>19} {:>11} {:>11} {:>9.2} {:>9.1} {:>7} B",
            row.pages,
            row.call,
            ms(row.ours.median()),
            format!("{} to {}", ms(row.ours.quantile(0.1)), ms(row.ours.quantile(0.9)))
                .replace(" ms to", " to"),
            ms(row.msync.median()),
            ms(row.floor.median()),
            row.ours.median() / row.floor.median(),
            row.msync.median() / row.ours.median(),
            row.journal_bytes
        );
    }
}

fn draw(rows: &[Row]) -> String {
    let groups: Vec<_> = rows
        .iter()
        .map(|row| plot::Group {
            label: format!(
                "{} ({})",
                row.pages,
                if row.call == SYNC_PAGE {
                    "its page"
                } else {
                    "1 GiB"
                }
            ),
            values: [&row.ours, &row.msync, &row.floor]
                .map(|times| times.median() * 1e3)
                .to_vec(),
        })
        .collect();
    let series = ["vm_msync SYNC", "msync(MS_SYNC)", "write + fdatasync"];
    plot::bars(
        "Random dirty pages of 1 GiB (the call's range), median time of a sync",
        "ms",
        &series,
        &groups,
    )
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (mut json, mut rounds, mut seed, mut folder, mut plot) = (false, 42, 1, None, None);
    while let Some(argument) = arguments.next() {
        let mut number = || -> Result<u64> { Ok(arguments.next().context("a number is missing")?.parse()?) };
        match argument.as_str() {
            "--json" => json = true,
            "--rounds" => rounds = number()? as usize,
            "--seed" => seed = number()?,
            "--folder" => folder = arguments.next(),
            "--plot" => plot = Some(arguments.next().context("a file is missing")?),
            // Cargo's own word for benchmarks.
            "--bench" => {}
            other => bail!(
                "unknown argument {other}: use --json, --rounds N, --seed N, --folder DIR, --plot FILE.svg"
            ),
        }
    }
    let place = tempfile::tempdir_in(folder.unwrap_or_else(|| ".".into()))?;
    let rows = measure(place.path(), rounds.max(1), seed)?;
    if json {
        print_json(&rows)
    } else {
        print_table(&rows)
    }
    if let Some(file) = plot {
        std::fs::write(&file, draw(&rows)).with_context(|| format!("cannot write {file}"))?;
        eprintln!("plot: {file}");
    }
    Ok(())
}
