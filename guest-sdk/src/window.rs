//! Which addresses the regions take: the *window* between the stack and the static data.
//!
//! A program that is linked with `--stack-first --global-base=N` has nothing between `__stack_high` and
//! `__global_base`, at the same addresses in every run. Regions are mapped there, so that pointers into them stay
//! valid over restarts. Sits between `options.rs`, which asks for a place, and `raw.rs`.
//!
//! ```text
//! 0        __stack_high                                    __global_base
//! |  stack  |  region A  |  region B  |       free          |  data  |  heap ...
//!           '------------------- the window ----------------'
//! ```
//!
//! Invariants:
//! - taken ranges do not overlap and start at multiples of `REGION_ALIGN`;
//! - one object has at most one taken range (the names' hashes are distinct).

use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use crate::error::{Error, Result};
use crate::limits::{REGION_ALIGN, REGIONS_MAX};
use crate::raw;

/// A taken range; free while `size` is 0. Atomics only so that the table can be static without `unsafe`: a guest
/// has one thread.
struct Slot {
    start: AtomicUsize,
    size: AtomicUsize,
    name: AtomicU64,
}

static SLOTS: [Slot; REGIONS_MAX] = [const {
    Slot {
        start: AtomicUsize::new(0),
        size: AtomicUsize::new(0),
        name: AtomicU64::new(0),
    }
}; REGIONS_MAX];

/// The name under which anonymous regions are kept; any number of them may be taken.
pub const ANONYMOUS: u64 = 0;

/// A 64-bit FNV-1a hash of an object's name, never [`ANONYMOUS`].
pub fn name_hash(name: &str) -> u64 {
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    hash.max(1)
}

/// Start and end of the window, in bytes; equal where the link left none.
pub fn bounds() -> (usize, usize) {
    let (low, high) = raw::window();
    let low = low.next_multiple_of(REGION_ALIGN);
    let high = high & !(REGION_ALIGN - 1);
    if low < high { (low, high) } else { (0, 0) }
}

/// Whether `start..start + size` lies in the window and is not taken.
pub fn is_free(start: usize, size: usize) -> bool {
    let (low, high) = bounds();
    let Some(end) = start.checked_add(size) else {
        return false;
    };
    start >= low && end <= high && first_overlap(start, end).is_none()
}

/// The lowest free range of `size` bytes from `start` on, which is in the window, as its start.
pub fn find(mut start: usize, size: usize) -> Option<usize> {
    let (_, high) = bounds();
    loop {
        start = start.checked_next_multiple_of(REGION_ALIGN)?;
        let end = start.checked_add(size).filter(|end| *end <= high)?;
        match first_overlap(start, end) {
            None => return Some(start),
            Some(overlap_end) => start = overlap_end,
        }
    }
}

/// The end of a taken range that overlaps `start..end`.
fn first_overlap(start: usize, end: usize) -> Option<usize> {
    taken().find_map(|slot| {
        let (slot_start, slot_size) = (slot.start.load(Relaxed), slot.size.load(Relaxed));
        (slot_start < end && start < slot_start + slot_size).then_some(slot_start + slot_size)
    })
}

fn taken() -> impl Iterator<Item = &'static Slot> {
    SLOTS.iter().filter(|slot| slot.size.load(Relaxed) != 0)
}

/// Fails where a region of this name cannot be taken.
pub fn check_name(name: u64) -> Result<()> {
    if name != ANONYMOUS && taken().any(|slot| slot.name.load(Relaxed) == name) {
        return Err(Error::AlreadyMapped);
    }
    if taken().count() == REGIONS_MAX {
        return Err(Error::TooManyRegions);
    }
    Ok(())
}

/// Notes that `start..start + size` is taken. The caller has called [`check_name`].
pub fn take(start: usize, size: usize, name: u64) {
    assert!(size > 0, "a region has at least one page");
    let slot = SLOTS.iter().find(|slot| slot.size.load(Relaxed) == 0);
    let slot = slot.expect("`check_name` found a free slot");
    slot.start.store(start, Relaxed);
    slot.size.store(size, Relaxed);
    slot.name.store(name, Relaxed);
}

/// Notes that the range that starts at `start` is free again.
pub fn release(start: usize) {
    let slot = taken().find(|slot| slot.start.load(Relaxed) == start);
    slot.expect("a region releases what it took")
        .size
        .store(0, Relaxed);
}

#[cfg(test)]
mod tests {
    use super::{ANONYMOUS, bounds, check_name, find, is_free, name_hash, release, take};
    use crate::error::Error;
    use crate::limits::{REGION_ALIGN, REGIONS_MAX};

    /// One test, because the table is one.
    #[test]
    fn ranges_are_taken_once_and_reused() {
        let (low, high) = bounds();
        assert_eq!((low, high), (1 << 20, 256 << 20));
        let place = |size, name| {
            check_name(name).unwrap();
            let start = find(low, size).unwrap();
            assert!(is_free(start, size));
            take(start, size, name);
            start
        };
        let (a, b) = (name_hash("a"), name_hash("b"));
        let first = place(1, a);
        assert_eq!(first, low);
        assert_eq!(check_name(a), Err(Error::AlreadyMapped));
        let second = place(3 * REGION_ALIGN, b);
        assert_eq!(second, low + REGION_ALIGN);
        let third = place(REGION_ALIGN, ANONYMOUS);
        assert_eq!(third, low + 4 * REGION_ALIGN);

        // The gap is used by what fits, and only by that.
        release(second);
        assert!(is_free(second, 3 * REGION_ALIGN));
        assert!(!is_free(second, 3 * REGION_ALIGN + 1));
        assert_eq!(find(low, 4 * REGION_ALIGN), Some(third + REGION_ALIGN));
        assert_eq!(find(low, 3 * REGION_ALIGN), Some(second));
        assert_eq!(find(second + 1, REGION_ALIGN), Some(second + REGION_ALIGN));

        // Outside of the window nothing is free.
        assert!(!is_free(0, 1) && !is_free(high, 1) && !is_free(high - 1, 2));
        assert!(!is_free(usize::MAX, 2));
        assert_eq!(find(low, high - low), None);
        assert_eq!(find(low, usize::MAX), None);
        assert_eq!(find(usize::MAX, 1), None);

        release(first);
        release(third);
        for _ in 0..REGIONS_MAX {
            place(1, ANONYMOUS);
        }
        assert_eq!(check_name(ANONYMOUS), Err(Error::TooManyRegions));
    }
}
