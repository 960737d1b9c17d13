//! Inserts in the persistent ordered map and, by the same code, in the standard library's on the ordinary heap. For
//! measuring; the host times the calls.

use std::cell::RefCell;
use std::collections::BTreeMap;

use vmsync_guest::{Heap, PMap, Result};

type Durable = Heap<PMap<'static, u64, u64>>;

thread_local! {
    static ORDINARY: RefCell<BTreeMap<u64, u64>> = const { RefCell::new(BTreeMap::new()) };
    static DURABLE: RefCell<Option<Durable>> = const { RefCell::new(None) };
}

/// Bytes of the region: room for some millions of entries.
const REGION_BYTES: usize = 128 << 20;

/// An error as the host sees it.
const FAILED: u64 = u64::MAX;

/// Calls `insert` with `count` keys that `seed` determines (the generator is SplitMix64).
fn insert_all(count: u64, seed: u64, mut insert: impl FnMut(u64, u64)) {
    let mut state = seed;
    for value in 0..count {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut key = state;
        key = (key ^ (key >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        key = (key ^ (key >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        insert(key ^ (key >> 31), value);
    }
}

/// Inserts `count` keys; the number of entries.
#[unsafe(no_mangle)]
pub extern "C" fn ordinary_insert(count: u64, seed: u64) -> u64 {
    ORDINARY.with_borrow_mut(|map| {
        insert_all(count, seed, |key, value| {
            map.insert(key, value);
        });
        map.len() as u64
    })
}

/// Removes every entry.
#[unsafe(no_mangle)]
pub extern "C" fn ordinary_clear() {
    ORDINARY.with_borrow_mut(BTreeMap::clear);
}

fn durable<T>(work: impl FnOnce(&mut Durable) -> Result<T>) -> Result<T> {
    DURABLE.with_borrow_mut(|heap| {
        if heap.is_none() {
            *heap = Some(Heap::map("maps", REGION_BYTES)?);
        }
        work(heap.as_mut().expect("mapped above"))
    })
}

/// Inserts `count` keys; the number of entries, or all ones where something fails.
#[unsafe(no_mangle)]
pub extern "C" fn durable_insert(count: u64, seed: u64) -> u64 {
    let inserted = durable(|heap| {
        heap.update(|map, _| {
            let mut result = Ok(());
            insert_all(count, seed, |key, value| {
                if let Err(error) = map.insert(key, value) {
                    result = Err(error);
                }
            });
            result.map(|()| map.len() as u64)
        })
    });
    inserted.unwrap_or(FAILED)
}

/// Makes what was inserted durable; 0, or all ones where it fails.
#[unsafe(no_mangle)]
pub extern "C" fn durable_flush() -> u64 {
    durable(Heap::flush).map_or(FAILED, |()| 0)
}

/// Removes every entry; 0, or all ones where it fails.
#[unsafe(no_mangle)]
pub extern "C" fn durable_clear() -> u64 {
    durable(|heap| {
        heap.update(|map, _| map.clear());
        Ok(())
    })
    .map_or(FAILED, |()| 0)
}
