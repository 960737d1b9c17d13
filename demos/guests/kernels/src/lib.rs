//! What programs do to memory, as guests of the tracking benchmark: the standard library's collections, strings,
//! block copies and random stores.
//!
//! Each export is one kernel of some ten milliseconds and returns a checksum. A kernel that is called again does the
//! same and returns the same. They import nothing: the benchmark lays a region under their whole memory.

use core::cell::RefCell;
use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write,
};

/// xorshift64*: the same numbers in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

/// Inserts into a B-tree, removes every third key again, walks it.
#[unsafe(no_mangle)]
pub extern "C" fn btree() -> u64 {
    let (mut random, mut tree) = (Random(1), BTreeMap::new());
    for index in 0..60_000_u64 {
        tree.insert(random.next() % 200_000, index);
    }
    for key in (0..200_000).step_by(3) {
        tree.remove(&key);
    }
    tree.iter().fold(0, |sum: u64, (key, value)| {
        sum.wrapping_mul(31).wrapping_add(key ^ value)
    })
}

/// Counts keys in a hash map.
#[unsafe(no_mangle)]
pub extern "C" fn hash_map() -> u64 {
    let (mut random, mut counts) = (Random(2), HashMap::new());
    for _ in 0..150_000 {
        *counts.entry(random.next() % 50_000).or_insert(0_u64) += 1;
    }
    counts
        .iter()
        .fold(0, |sum: u64, (key, count)| sum.wrapping_add(key * count * count))
}

/// Sorts numbers, and words by their text.
#[unsafe(no_mangle)]
pub extern "C" fn sort() -> u64 {
    let mut random = Random(3);
    let mut numbers: Vec<u64> = (0..200_000).map(|_| random.next()).collect();
    numbers.sort_unstable();
    let mut words: Vec<[u8; 12]> = (0..50_000)
        .map(|_| core::array::from_fn(|_| b'a' + (random.next() >> 60) as u8))
        .collect();
    words.sort();
    numbers[1000] ^ u64::from(words[4711][3])
}

/// Builds text piece by piece: numbers, names, a line each, and the lines once more in capitals.
#[unsafe(no_mangle)]
pub extern "C" fn strings() -> u64 {
    let (mut random, mut text) = (Random(4), String::new());
    for line in 0..40_000 {
        let value = random.next();
        writeln!(
            text,
            "{line}: {{\"id\": {value}, \"name\": \"item-{:x}\"}}",
            value >> 40
        )
        .expect("a string takes every text");
    }
    let capitals: Vec<String> = text.lines().step_by(4).map(str::to_uppercase).collect();
    capitals.join(",").bytes().fold(text.len() as u64, |sum, byte| {
        sum.wrapping_mul(31).wrapping_add(byte.into())
    })
}

thread_local! {
    /// What the kernels below work on: 16 MiB that stay from call to call.
    static WORDS: RefCell<Vec<u64>> = RefCell::new(vec![0; 2 << 20]);
}

/// Copies blocks of 1 B to 64 KiB from one half to the other.
#[unsafe(no_mangle)]
pub extern "C" fn copies() -> u64 {
    WORDS.with_borrow_mut(|words| {
        let mut random = Random(5);
        let (from, to) = words.split_at_mut(1 << 20);
        from.iter_mut().zip(1..).for_each(|(word, value)| *word = value);
        for _ in 0..8_000 {
            let length = (random.next() % (1 << 13)) as usize;
            let (start, end) = (random.next() as usize, random.next() as usize);
            let (start, end) = (start % (from.len() - length), end % (to.len() - length));
            to[end..end + length].copy_from_slice(&from[start..start + length]);
        }
        to[12_345]
    })
}

/// Fills blocks of 1 B to 64 KiB.
#[unsafe(no_mangle)]
pub extern "C" fn fills() -> u64 {
    WORDS.with_borrow_mut(|words| {
        let mut random = Random(6);
        for round in 0..8_000_u64 {
            let length = (random.next() % (1 << 13)) as usize;
            let start = random.next() as usize % (words.len() - length);
            // One byte in every place of the word: a fill by bytes.
            words[start..start + length].fill((round & 0xff) * 0x0101_0101_0101_0101);
        }
        words[12_345]
    })
}

/// Stores to random words of all 16 MiB.
#[unsafe(no_mangle)]
pub extern "C" fn scatter() -> u64 {
    WORDS.with_borrow_mut(|words| {
        let (mut random, count) = (Random(7), words.len());
        for _ in 0..1_000_000 {
            let value = random.next();
            words[value as usize % count] = value;
        }
        words[12_345]
    })
}
