//! What a synchronous call costs in this store and in the file store on the same disk, in turn with each other.
//!
//! `cargo run --release -p vmsync-pager-kv --example against_file_store [folder] [MiB of the object] [rounds]`
//!
//! Medians, with the 10th and 90th percentiles (other work on the machine shows least in the former), of calls of 1
//! and of 100 random pages, 8 bytes of each and whole; then the calls a second of 16 threads, and the bytes on disk.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use vmsync_core::{
    PageSize,
    pager::{InitRequest, Pager},
};
use vmsync_pager_conformance::{Client, random::Random};
use vmsync_pager_file::FileStore;

const PAGE: usize = 4096;

fn open(pager: &Arc<dyn Pager>, name: &str, pages: u64) -> Client {
    let request = InitRequest {
        page_size: PageSize::KIB_4,
        size_min: pages * PAGE as u64,
        create: true,
        write: true,
    };
    Client::open_with(pager.clone(), name, request).unwrap()
}

/// Distinct random pages with new contents, ascending.
fn pick(random: &mut Random, client: &Client, count: usize, pages: u64, whole: bool) -> Vec<(u64, Vec<u8>)> {
    let mut chosen = std::collections::BTreeSet::new();
    while chosen.len() < count {
        chosen.insert(random.below(pages));
    }
    let mut contents = Vec::new();
    for page in chosen {
        let mut bytes = client.read(page, 1);
        let start = random.below(PAGE as u64 / 8) as usize * 8;
        random.fill(&mut bytes[if whole { 0..PAGE } else { start..start + 8 }]);
        contents.push((page, bytes));
    }
    contents
}

fn commit(client: &Client, pages: u64, contents: &[(u64, Vec<u8>)]) -> Duration {
    let begun = Instant::now();
    let call = Client::call();
    for (page, bytes) in contents {
        client.give(call, *page, bytes).unwrap();
    }
    client.sync(call, 0, pages).unwrap();
    begun.elapsed()
}

fn shown(mut times: Vec<Duration>) -> (Duration, String) {
    times.sort();
    let at = |tenth: usize| times[times.len() * tenth / 10];
    let text = format!("{:>9.1?} ({:>9.1?} to {:>9.1?})", at(5), at(1), at(9));
    (at(5), text)
}

fn measure(pagers: &[Arc<dyn Pager>; 2], pages: u64, count: usize, whole: bool, rounds: usize) {
    let clients = pagers.each_ref().map(|pager| open(pager, "object", pages));
    let mut random = Random::new(count as u64);
    let mut times = [Vec::new(), Vec::new()];
    for round in 0..rounds + 3 {
        for (index, client) in clients.iter().enumerate() {
            let contents = pick(&mut random, client, count, pages, whole);
            let time = commit(client, pages, &contents);
            if round >= 3 {
                times[index].push(time);
            }
        }
    }
    clients.into_iter().for_each(Client::close);
    let [(kv, kv_text), (file, file_text)] = times.map(shown);
    println!(
        "{count:>4} pages {:<8}  kv {kv_text}   file {file_text}   ratio {:.2}",
        if whole { "whole" } else { "8 B each" },
        kv.as_secs_f64() / file.as_secs_f64()
    );
}

/// Calls a second of `threads` threads, each with an object of its own.
fn rate(pager: &Arc<dyn Pager>, threads: u64, length: Duration) -> f64 {
    let begun = Instant::now();
    let work = |index: u64| {
        let (client, mut count) = (open(pager, &format!("worker-{index}"), 16), 0u64);
        let mut page = vec![0; PAGE];
        while begun.elapsed() < length {
            count += 1;
            page[..8].copy_from_slice(&count.to_le_bytes());
            commit(&client, 16, &[(count % 16, page.clone())]);
        }
        client.close();
        count
    };
    let total: u64 = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|index| scope.spawn(move || work(index)))
            .collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).sum()
    });
    total as f64 / begun.elapsed().as_secs_f64()
}

fn bytes_on_disk(path: &Path) -> u64 {
    let Ok(folder) = path.read_dir() else {
        return path.metadata().unwrap().len();
    };
    folder.map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let folder = arguments.get(1).map_or_else(std::env::temp_dir, PathBuf::from);
    let megabytes: u64 = arguments.get(2).map_or(64, |text| text.parse().unwrap());
    let rounds: usize = arguments.get(3).map_or(200, |text| text.parse().unwrap());
    let folder = tempfile::tempdir_in(folder).unwrap();
    let paths = [folder.path().join("kv"), folder.path().join("file")];
    let kv = vmsync_pager_kv::open(&paths[0], &vmsync_pager_kv::Options::default()).unwrap();
    let file = FileStore::open(&paths[1], &vmsync_pager_file::Options::default()).unwrap();
    let pagers: [Arc<dyn Pager>; 2] = [kv, file];
    let pages = (megabytes << 20) / PAGE as u64;
    // Every page of both has bytes before anything is measured.
    for pager in &pagers {
        let (client, mut random) = (open(pager, "object", pages), Random::new(7));
        for first in (0..pages).step_by(256) {
            let mut bytes = vec![0; PAGE];
            let filled = (first..pages.min(first + 256)).map(|page| {
                random.fill(&mut bytes);
                (page, bytes.clone())
            });
            commit(&client, pages, &filled.collect::<Vec<_>>());
        }
        client.close();
    }
    for whole in [false, true] {
        for count in [1, 100] {
            measure(&pagers, pages, count, whole, rounds);
        }
    }
    for turn in 0..3 {
        let [kv, file] = pagers
            .each_ref()
            .map(|pager| rate(pager, 16, Duration::from_secs(2)));
        println!("turn {turn}: 16 threads, calls a second   kv {kv:>7.0}   file {file:>7.0}");
    }
    drop(pagers);
    let [kv, file] = paths.each_ref().map(|path| bytes_on_disk(path) >> 20);
    println!("on disk for {megabytes} MiB of pages   kv {kv} MiB   file {file} MiB");
}
