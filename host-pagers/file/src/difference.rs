//! The difference of two versions of a page, as runs of bytes.
//!
//! Invariants:
//! - every byte that differs is inside a run; runs ascend and do not touch;
//! - no runs means that the pages are equal;
//! - runs never cost more than the whole page as one run: a gap between two saves more than a run costs.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::{layout::entry::RUN_HEADER_BYTES, limits::RUN_GAP_BYTES};

const _: () = assert!(RUN_GAP_BYTES > RUN_HEADER_BYTES);
const _: () = assert!(RUN_GAP_BYTES >= WORD - 1 && STRIDE.is_multiple_of(WORD));

/// Bytes that are compared at once while nothing differs: a cache line.
const STRIDE: usize = 64;

/// Bytes that are compared at once where something differs.
const WORD: usize = size_of::<u64>();

/// The words of a block.
type Block = [u64; STRIDE / WORD];

/// Puts the ranges in which `new` differs from `base` into `runs`, as starts and ends.
pub(crate) fn difference(base: &[u8], new: &[u8], runs: &mut Vec<(usize, usize)>) {
    assert!(base.len() == new.len() && new.len().is_multiple_of(STRIDE));
    runs.clear();
    let blocks = base.chunks_exact(STRIDE).zip(new.chunks_exact(STRIDE));
    for (index, (old, new)) in blocks.enumerate() {
        compare(index, words(old), words(new), runs);
    }
}

/// The same with a base that others may write to meanwhile.
pub(crate) fn difference_of_shared(base: &[AtomicU64], new: &[u8], runs: &mut Vec<(usize, usize)>) {
    assert!(size_of_val(base) == new.len() && new.len().is_multiple_of(STRIDE));
    runs.clear();
    let blocks = base.chunks_exact(STRIDE / WORD).zip(new.chunks_exact(STRIDE));
    for (index, (old, new)) in blocks.enumerate() {
        let old = core::array::from_fn(|word| u64::from_le(old[word].load(Ordering::Relaxed)));
        compare(index, old, words(new), runs);
    }
}

fn words(bytes: &[u8]) -> Block {
    core::array::from_fn(|index| {
        let word = &bytes[index * WORD..(index + 1) * WORD];
        u64::from_le_bytes(word.try_into().expect("a word has this length"))
    })
}

/// Adds the unequal bytes of one block.
#[inline]
fn compare(block: usize, old: Block, new: Block, runs: &mut Vec<(usize, usize)>) {
    let unequal: Block = core::array::from_fn(|word| old[word] ^ new[word]);
    if unequal.iter().fold(0, |any, word| any | word) != 0 {
        collect(block * STRIDE, unequal, runs);
    }
}

/// Adds the bytes that are not zero in `unequal`, a block that begins at `start`.
fn collect(start: usize, unequal: Block, runs: &mut Vec<(usize, usize)>) {
    for (index, unequal) in unequal.into_iter().enumerate() {
        if unequal == 0 {
            continue;
        }
        // The equal bytes inside a word are a gap that is shorter than the least one.
        let position = start + index * WORD;
        let first = position + unequal.trailing_zeros() as usize / 8;
        let behind = position + WORD - unequal.leading_zeros() as usize / 8;
        match runs.last_mut() {
            Some((_, end)) if first - *end < RUN_GAP_BYTES => *end = behind,
            _ => runs.push((first, behind)),
        }
    }
}

#[cfg(test)]
mod tests {
    use vmsync_pager_conformance::random::Random;

    use super::*;

    fn runs_of(base: &[u8], new: &[u8]) -> Vec<(usize, usize)> {
        let (mut runs, mut same) = (vec![(7, 9)], vec![(7, 9)]);
        difference(base, new, &mut runs);
        let word = |bytes: &[u8]| AtomicU64::new(u64::from_ne_bytes(bytes.try_into().unwrap()));
        let shared: Vec<AtomicU64> = base.chunks_exact(WORD).map(word).collect();
        difference_of_shared(&shared, new, &mut same);
        assert_eq!(runs, same);
        runs
    }

    #[test]
    fn runs_turn_the_old_page_into_the_new_one() {
        let mut random = Random::from_environment("difference");
        for _ in 0..2000 {
            let mut base = vec![0; 4096];
            random.fill(&mut base);
            let mut new = base.clone();
            for _ in 0..random.below(20) {
                let start = random.below(4096) as usize;
                let end = (start + 1 + random.below(300) as usize).min(4096);
                random.fill(&mut new[start..end]);
            }
            let runs = runs_of(&base, &new);
            assert_eq!(runs.is_empty(), base == new);
            assert!(
                runs.windows(2).all(|pair| pair[0].1 < pair[1].0),
                "runs ascend and do not touch"
            );
            runs.iter()
                .for_each(|&(start, end)| base[start..end].copy_from_slice(&new[start..end]));
            assert!(base == new);
        }
    }

    #[test]
    fn near_runs_become_one() {
        let base = vec![0; 4096];
        let mut stored = base.clone();
        stored[100..108].fill(1);
        assert_eq!(runs_of(&base, &stored), [(100, 108)]);
        stored[115] = 1;
        assert_eq!(runs_of(&base, &stored), [(100, 116)]);
        stored[124] = 1;
        assert_eq!(runs_of(&base, &stored), [(100, 116), (124, 125)]);
        assert_eq!(runs_of(&base, &vec![1; 4096]), [(0, 4096)]);
        let every_other: Vec<u8> = (0..4096).map(|index| u8::from(index % 2 == 0)).collect();
        assert_eq!(runs_of(&base, &every_other), [(0, 4095)]);
    }
}
