//! Seeded randomness for tests: splitmix64, so that a seed means the same run on every machine.

use std::sync::atomic::{AtomicU64, Ordering};

/// A stream of numbers that its seed decides.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The stream of `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The stream of the number in the environment variable `SEED`, else of a fresh seed; printed, so that a failure
    /// can be run again.
    pub fn from_environment(test: &str) -> Self {
        let seed = seeds(1)[0];
        println!("{test}: SEED={seed}");
        Self::new(seed)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0);
        self.number() % bound
    }

    /// True once in `times`.
    pub fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    /// Fills `bytes`.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let number = self.number().to_le_bytes();
            chunk.copy_from_slice(&number[..chunk.len()]);
        }
    }
}

/// What [`set_seed`] was told, where there is no environment to read.
static SEED: AtomicU64 = AtomicU64::new(0);

/// Sets the seed in place of the environment and the clock, which a browser has not.
pub fn set_seed(seed: u64) {
    SEED.store(seed, Ordering::Relaxed);
}

/// The seeds to run: from the one of `SEED` on, which comes first, else fresh ones; `count` of them.
///
/// # Panics
/// When `SEED` is not a number.
pub fn seeds(count: usize) -> Vec<u64> {
    let set = Some(SEED.load(Ordering::Relaxed)).filter(|set| *set != 0);
    let given = || Some(std::env::var("SEED").ok()?.parse().expect("SEED is a number"));
    if let Some(first) = set.or_else(given) {
        let mut more = Random::new(first);
        let more = std::iter::repeat_with(|| more.number() >> 16);
        return std::iter::once(first).chain(more).take(count).collect();
    }
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let mut fresh = Random::new(now.map_or(0, |elapsed| elapsed.as_nanos() as u64));
    (0..count).map(|_| fresh.number() >> 16).collect()
}
