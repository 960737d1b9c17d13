//! The dirty trackers against each other and against a model, driven by the same random stores of a real guest.
//!
//! For each `vm_msync` the model knows which pages were stored to and which of them changed. Exact trackers must return
//! the former, `compare` the latter, and one that reports a superset at least the latter and nothing that lies
//! behind neither a store nor the page before it. What is committed must be what the model has, whatever was returned.
//!
//! `SEED=` runs one sequence again.

mod harness;

use std::collections::BTreeSet;

use harness::{BASE, Guest, P, Rig, RigOptions, Width, each, own::Own, rig::name, rungs};
use vmsync::{ByteRange, Grant, Host, HostOptions, KernReturn, TrackerKind, Vm, VmSync};
use vmsync_pager_conformance::random::{Random, seeds};

/// Pages of the region.
const PAGES: u64 = 24;
/// Operations of one sequence.
const STEPS: usize = 500;
/// What the model knows: the region, and a page of linear memory on both sides.
const FIRST: u64 = BASE - P;
const BYTES: usize = ((PAGES + 2) * P) as usize;

/// Exports that store a value at an address: name, bytes, alignment.
const STORES: [(&str, u64, u64); 13] = [
    ("store8", 1, 1),
    ("store16", 2, 1),
    ("store32", 4, 1),
    ("store64", 8, 1),
    ("store_i32", 4, 1),
    ("store_f32", 4, 1),
    ("store_f64", 8, 1),
    ("store_v128", 16, 1),
    ("store_lane", 4, 1),
    ("store_atomic32", 4, 4),
    ("store_atomic64", 8, 8),
    ("add_atomic32", 4, 4),
    ("exchange_atomic64", 8, 8),
];

/// What memory holds and what of it is committed.
struct Model {
    memory: Vec<u8>,
    committed: Vec<u8>,
    stored: BTreeSet<u64>,
}

impl Model {
    fn new() -> Self {
        Self {
            memory: vec![0; BYTES],
            committed: vec![0; BYTES],
            stored: BTreeSet::new(),
        }
    }

    /// Pages of the region that a byte of the range is in.
    fn mark(&mut self, address: u64, length: u64) {
        let pages = address / P..(address + length).div_ceil(P);
        let region = BASE / P..BASE / P + PAGES;
        let inside = pages.filter(|page| length > 0 && region.contains(page));
        self.stored.extend(inside.map(|page| page - BASE / P));
    }

    fn at(address: u64, length: u64) -> std::ops::Range<usize> {
        let start = (address - FIRST) as usize;
        start..start + length as usize
    }

    fn store(&mut self, address: u64, bytes: &[u8]) {
        self.memory[Self::at(address, bytes.len() as u64)].copy_from_slice(bytes);
        self.mark(address, bytes.len() as u64);
    }

    fn page(page: u64) -> std::ops::Range<usize> {
        Self::at(BASE + page * P, P)
    }

    fn changed(&self, page: u64) -> bool {
        self.memory[Self::page(page)] != self.committed[Self::page(page)]
    }
}

/// One random store of any kind, by the guest and in the model.
fn store(random: &mut Random, guest: &mut Guest, model: &mut Model) {
    let (export, bytes, align) = STORES[random.below(STORES.len() as u64) as usize];
    let reach = BYTES as u64 - 16;
    let mut address = FIRST + random.below(reach);
    if random.once_in(2) {
        // At the border of a page, or over it.
        let border = BASE + random.below(PAGES + 1) * P;
        address = border - random.below(bytes + 1);
    }
    address -= address % align;
    let value = random.number();
    guest.call::<_, ()>(export, (address as i64, value as i64));
    let words = [value.to_le_bytes(), value.to_le_bytes()].concat();
    if export == "add_atomic32" {
        let old = &model.memory[Model::at(address, 4)];
        let old = u32::from_le_bytes(old.try_into().expect("4 bytes"));
        model.store(address, &old.wrapping_add(value as u32).to_le_bytes());
    } else {
        model.store(address, &words[..bytes as usize]);
    }
}

/// One random bulk operation.
fn bulk(random: &mut Random, guest: &mut Guest, model: &mut Model) {
    let length = random.below(3 * P);
    let mut place = || FIRST + random.below(BYTES as u64 - length);
    let (to, from) = (place(), place());
    match random.below(3) {
        0 => {
            let byte = random.number() as u8;
            guest.call::<_, ()>("fill", (to as i64, i64::from(byte), length as i64));
            model.store(to, &vec![byte; length as usize]);
        }
        1 => {
            guest.call::<_, ()>("copy", (to as i64, from as i64, length as i64));
            let bytes = model.memory[Model::at(from, length)].to_vec();
            model.store(to, &bytes);
        }
        _ => {
            let (skip, length) = (random.below(16), random.below(17));
            let to = to.min(FIRST + BYTES as u64 - 32);
            guest.call::<_, ()>("init", (to as i64, skip as i64, length as i64));
            let segment: Vec<u8> = (1..=32).collect();
            model.store(to, &segment[skip as usize..(skip + length) as usize]);
        }
    }
}

/// A part of the region, in pages.
fn part(random: &mut Random) -> std::ops::Range<u64> {
    let first = random.below(PAGES);
    first..first + 1 + random.below(PAGES - first)
}

/// The pages that the log says were returned.
fn returned(log: &[String]) -> BTreeSet<u64> {
    let mut pages = BTreeSet::new();
    for line in log {
        let words: Vec<&str> = line.split(' ').collect();
        if let ["a", "return", range, "dirty", _] = words[..] {
            let (start, end) = range.split_once("..").expect("a range");
            let [start, end] = [start, end].map(|page| page.parse::<u64>().expect("a page"));
            pages.extend(start..end);
        }
    }
    pages
}

/// SYNC of a part, compared with the model.
fn sync(rig: &Rig, guest: &mut Guest, model: &mut Model, part: std::ops::Range<u64>) {
    rig.log();
    let (address, size) = (BASE + part.start * P, (part.end - part.start) * P);
    assert_eq!(
        guest.msync(address, size, VmSync::SYNCHRONOUS.0),
        KernReturn::Success
    );
    let returned = returned(&rig.log());
    let stored: BTreeSet<u64> = model
        .stored
        .iter()
        .copied()
        .filter(|page| part.contains(page))
        .collect();
    let changed: BTreeSet<u64> = part.clone().filter(|page| model.changed(*page)).collect();
    if guest.inner.vm().reports_superset() {
        assert!(
            changed.is_subset(&returned),
            "{changed:?} changed, {returned:?} returned"
        );
        assert!(returned.iter().all(|page| part.contains(page)));
    } else if rig.kind == TrackerKind::Compare {
        assert_eq!(returned, changed);
    } else {
        assert_eq!(returned, stored);
    }
    let contents = rig.store.contents(&name("a")).expect("the object exists");
    for page in part {
        let at = (page * P) as usize..((page + 1) * P) as usize;
        assert!(
            contents[at] == model.memory[Model::page(page)],
            "page {page} as committed"
        );
        let clean = model.memory[Model::page(page)].to_vec();
        model.committed[Model::page(page)].copy_from_slice(&clean);
        model.stored.remove(&page);
    }
}

/// INVALIDATE of a part: the last commit shows again.
fn invalidate(guest: &mut Guest, model: &mut Model, part: std::ops::Range<u64>) {
    let (address, size) = (BASE + part.start * P, (part.end - part.start) * P);
    assert_eq!(
        guest.msync(address, size, VmSync::INVALIDATE.0),
        KernReturn::Success
    );
    for page in part {
        let last = model.committed[Model::page(page)].to_vec();
        model.memory[Model::page(page)].copy_from_slice(&last);
        model.stored.remove(&page);
    }
}

fn run(kind: TrackerKind, width: Width, seed: u64) {
    println!("{kind} {width:?} SEED={seed}");
    let mut random = Random::new(seed);
    let rig = Rig::new(kind, RigOptions::default());
    let mut guest = rig.region_of(width, PAGES);
    let mut model = Model::new();
    for _ in 0..STEPS {
        match random.below(40) {
            0..30 => store(&mut random, &mut guest, &mut model),
            30..34 => bulk(&mut random, &mut guest, &mut model),
            34 => assert!(guest.call::<i64, i64>("grow", random.below(2) as i64) >= 64),
            35 => invalidate(&mut guest, &mut model, part(&mut random)),
            _ => sync(&rig, &mut guest, &mut model, part(&mut random)),
        }
    }
    sync(&rig, &mut guest, &mut model, 0..PAGES);
    let memory = &guest.inner.memory()[FIRST as usize..][..BYTES];
    assert!(memory == model.memory, "memory holds what was stored");
}

#[test]
fn every_tracker_sees_the_same_stores() {
    for seed in seeds(3) {
        for kind in rungs() {
            for width in Width::ALL {
                run(*kind, width, seed);
            }
        }
    }
}

/// A guest of the host's own store with `a` mapped, and what it has committed.
fn own(kind: TrackerKind) -> (Own, std::sync::Arc<vmsync_pager_memory::MemoryPager>) {
    let store = std::sync::Arc::new(vmsync_pager_memory::MemoryPager::default());
    let mut options = HostOptions::default();
    options.tracker = Some(kind);
    let host = Host::new(options);
    let grant = Grant::new(store.clone(), name("a"));
    let vm = Vm::builder(&host).grant("a", grant);
    let wasm = include_bytes!("guests/wasi.wat");
    let mut own = Own::new(&host, vm, wasm).expect("the guest runs");
    assert_eq!(own.run::<(), i32>("map", ()), 0);
    (own, store)
}

#[test]
fn stores_of_the_host_count() {
    for kind in rungs() {
        println!("{kind}");
        let (mut own, store) = own(*kind);
        let memory = own.memory;
        memory
            .write(&mut own.store, BASE as usize + P as usize - 2, b"host")
            .expect("inside the memory");
        assert_eq!(own.run::<_, i32>("random_get", ((BASE + 3 * P) as i32, 64)), 0);
        if *kind == TrackerKind::Barrier {
            let vm = &mut own.store.data_mut().vm;
            vm.note_store(ByteRange::new(BASE + P - 2, BASE + P + 2));
        }
        assert_eq!(own.run::<_, i32>("msync", (BASE as i32, 4 * P as i32, 2)), 0);
        let stats = own.store.data().vm.stats();
        assert_eq!(stats.pages_returned, 3, "pages 0, 1 and 3");
        let contents = store.contents(&name("a")).expect("the object exists");
        assert_eq!(&contents[P as usize - 2..P as usize + 2], b"host");
        assert!(contents[3 * P as usize..][..64].iter().any(|byte| *byte != 0));
    }
}

#[test]
fn the_host_can_sync_between_calls_of_the_guest() {
    each(|rig| {
        let mut guest = rig.guest();
        let everything = ByteRange::new(BASE, BASE + 4 * P);
        let early = guest.inner.msync(everything, VmSync::SYNCHRONOUS);
        assert!(early.is_ok(), "before the first call: {early:?}");
        guest.map_region("a", 4);
        guest.touch([2], 7);
        rig.log();
        let synced = guest.inner.msync(everything, VmSync::SYNCHRONOUS);
        assert!(synced.is_ok(), "{synced:?}");
        rig.assert_log(&guest, &["a return 2..3 dirty kept", "a sync 0..4 now"]);
        let both = VmSync::SYNCHRONOUS | VmSync::ASYNCHRONOUS;
        let refused = guest
            .inner
            .msync(everything, both)
            .expect_err("contradicting flags");
        assert_eq!(refused.to_string(), "vm_msync: KERN_INVALID_ARGUMENT");
    });
}
