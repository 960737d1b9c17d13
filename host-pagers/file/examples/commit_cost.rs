//! What a commit costs beside its floor: the same journal bytes in one sequential write and `fdatasync` to a
//! preallocated file on the same disk, in turn with the commits.
//!
//! `cargo run --release -p vmsync-pager-file --example commit_cost [folder] [MiB of the object] [rounds]`
//!
//! Then: how many commits a second one thread makes, and how many 64 make together.

use std::{
    fs::File,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{
        Arc, Barrier,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use vmsync_core::{
    PageSize,
    pager::{InitRequest, Pager},
};
use vmsync_pager_conformance::{Client, random::Random};
use vmsync_pager_file::{FileStore, Options};

const PAGE: usize = 4096;
const FLOOR_BYTES: u64 = 64 << 20;

/// The preallocated file that the floor is measured on.
struct Floor {
    file: File,
    offset: u64,
}

impl Floor {
    fn new(folder: &Path) -> Self {
        let path = folder.join("floor");
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(path)
            .unwrap();
        let zeroes = vec![0; 1 << 20];
        (0..FLOOR_BYTES >> 20).for_each(|index| file.write_all_at(&zeroes, index << 20).unwrap());
        file.sync_all().unwrap();
        Self { file, offset: 0 }
    }

    fn write(&mut self, bytes: &[u8]) -> Duration {
        if self.offset + bytes.len() as u64 > FLOOR_BYTES {
            self.offset = 0;
        }
        let begun = Instant::now();
        self.file.write_all_at(bytes, self.offset).unwrap();
        self.file.sync_data().unwrap();
        self.offset += bytes.len() as u64;
        begun.elapsed()
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn open(store: &Arc<FileStore>, name: &str, pages: u64) -> Client {
    let size_min = pages * PAGE as u64;
    let request = InitRequest {
        page_size: PageSize::KIB_4,
        size_min,
        create: true,
        write: true,
    };
    Client::open_with(store.clone(), name, request).unwrap()
}

/// Distinct random pages, ascending.
fn pick(random: &mut Random, count: usize, pages: u64) -> Vec<u64> {
    let mut chosen = std::collections::BTreeSet::new();
    while chosen.len() < count {
        chosen.insert(random.below(pages));
    }
    chosen.into_iter().collect()
}

/// Times commits of `count` random pages, in turn with their floor.
fn measure(store: &Arc<FileStore>, floor: &mut Floor, pages: u64, count: usize, whole: bool, rounds: usize) {
    let object = open(store, "object", pages);
    let mut random = Random::new(count as u64);
    let (mut commits, mut returns, mut floors, mut bytes) = (Vec::new(), Vec::new(), Vec::new(), 0);
    for round in 0..rounds + 3 {
        let chosen = pick(&mut random, count, pages);
        let mut contents: Vec<Vec<u8>> = chosen.iter().map(|page| object.read(*page, 1)).collect();
        for content in &mut contents {
            let start = random.below(PAGE as u64 / 8) as usize * 8;
            let range = if whole { 0..PAGE } else { start..start + 8 };
            random.fill(&mut content[range]);
        }
        let before = store.stats();
        let begun = Instant::now();
        let call = Client::call();
        for (page, content) in chosen.iter().zip(&contents) {
            object.give(call, *page, content).unwrap();
        }
        let returned = begun.elapsed();
        object.sync(call, 0, pages).unwrap();
        let elapsed = begun.elapsed();
        store.settle_image(object.object, object.range(0, pages)).unwrap();
        bytes = (store.stats().bytes_journaled - before.bytes_journaled) as usize;
        let mut record = vec![0; bytes];
        random.fill(&mut record);
        let least = floor.write(&record);
        if round >= 3 {
            commits.push(elapsed);
            returns.push(returned);
            floors.push(least);
        }
    }
    object.close();
    let (commit, returned, floor) = (median(commits), median(returns), median(floors));
    println!(
        "{count:>5} pages {:<8} {bytes:>8} B   commit {commit:>10.1?} (returning {returned:>9.1?})   \
         floor {floor:>10.1?}   ratio {:.2}",
        if whole { "whole" } else { "8 B each" },
        commit.as_secs_f64() / floor.as_secs_f64()
    );
}

/// Commits a second of `threads` threads, each with an object of its own.
fn rate(store: &Arc<FileStore>, threads: usize, length: Duration) -> f64 {
    let (stop, total) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let barrier = Arc::new(Barrier::new(threads + 1));
    let workers: Vec<_> = (0..threads)
        .map(|index| {
            let (stop, total, barrier) = (stop.clone(), total.clone(), barrier.clone());
            let client = open(store, &format!("worker-{index}"), 16);
            thread::spawn(move || {
                let mut page = vec![0; PAGE];
                barrier.wait();
                for round in 1u64.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    page[..8].copy_from_slice(&round.to_le_bytes());
                    let call = Client::call();
                    client.give(call, round % 16, &page).unwrap();
                    client.sync(call, round % 16, 1).unwrap();
                    total.fetch_add(1, Ordering::Relaxed);
                }
                client.close();
            })
        })
        .collect();
    barrier.wait();
    let begun = Instant::now();
    thread::sleep(length);
    let count = total.load(Ordering::Relaxed);
    let elapsed = begun.elapsed();
    stop.store(true, Ordering::Relaxed);
    workers.into_iter().for_each(|worker| worker.join().unwrap());
    count as f64 / elapsed.as_secs_f64()
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let folder = arguments.get(1).map_or_else(std::env::temp_dir, PathBuf::from);
    let megabytes: u64 = arguments.get(2).map_or(1024, |text| text.parse().unwrap());
    let rounds: usize = arguments.get(3).map_or(200, |text| text.parse().unwrap());
    let folder = tempfile::tempdir_in(folder).unwrap();
    let mut floor = Floor::new(folder.path());
    let store = FileStore::open(&folder.path().join("store"), &Options::default()).unwrap();
    let pages = (megabytes << 20) / PAGE as u64;
    for whole in [false, true] {
        for count in [1, 10, 100, 1000] {
            let rounds = if count == 1000 { rounds / 4 } else { rounds };
            measure(&store, &mut floor, pages, count, whole, rounds);
        }
    }
    for turn in 0..3 {
        let one = rate(&store, 1, Duration::from_secs(2));
        let before = store.stats();
        let many = rate(&store, 64, Duration::from_secs(2));
        let after = store.stats();
        let group = (after.calls - before.calls) as f64 / (after.records - before.records) as f64;
        println!(
            "turn {turn}: 1 thread {one:>8.0}/s   64 threads {many:>8.0}/s   ratio {:.1}   \
             calls in a record {group:.1}",
            many / one
        );
    }
    println!("{:?}", store.stats());
}
