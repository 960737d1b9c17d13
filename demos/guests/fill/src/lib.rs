//! The guest of the msync benchmark: dirties chosen numbers of random pages of one region and flushes them.
//!
//! The exports return 0 or more on success and the negated `kern_return_t` (or -1000: another error) on failure.
//! The object's name is `fill`. Call `map` first. The host times the calls.

use core::cell::RefCell;

use vmsync_guest::{Error, Region};

const PAGE_BYTES: usize = 4096;

thread_local! {
    static REGION: RefCell<Option<Region>> = const { RefCell::new(None) };
}

fn status(result: Result<(), Error>) -> i32 {
    match result {
        Ok(()) => 0,
        Err(error) => error.kern_return().map_or(-1000, |code| -code.code()),
    }
}

fn with_region<T>(work: impl FnOnce(&mut Region) -> T) -> T {
    REGION.with_borrow_mut(|region| work(region.as_mut().expect("`map` comes first")))
}

/// xorshift64*: as many page numbers as wanted from one seed, the same in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

/// Maps `size` bytes.
#[unsafe(no_mangle)]
pub extern "C" fn map(size: u64) -> i32 {
    let mapped = usize::try_from(size).map_err(|_| Error::BadSize { size });
    status(mapped.and_then(|size| {
        let region = Region::map("fill", size)?;
        REGION.set(Some(region));
        Ok(())
    }))
}

/// Stores 8 bytes, drawn from `seed`, into each of `pages` random pages (some may be drawn twice). Seeds 0 and 1 are one.
#[unsafe(no_mangle)]
pub extern "C" fn dirty(pages: u32, seed: u64) -> i32 {
    with_region(|region| {
        let words = region.view_mut_slice::<u64>().expect("the region is writable");
        let words_per_page = PAGE_BYTES / size_of::<u64>();
        let page_count = (words.len() / words_per_page) as u64;
        let mut random = Random(seed.max(1));
        for _ in 0..pages {
            let (page, value) = ((random.next() % page_count) as usize, random.next());
            words[page * words_per_page + (value % words_per_page as u64) as usize] = value;
        }
        0
    })
}

/// Stores 8 bytes to the page at `offset` bytes.
#[unsafe(no_mangle)]
pub extern "C" fn dirty_at(offset: u64, value: u64) -> i32 {
    with_region(|region| status(region.view_mut_at(offset as usize).map(|word| *word = value)))
}

/// Stores to every page, with one value: a region that is not sparse any more.
#[unsafe(no_mangle)]
pub extern "C" fn touch_all(value: u64) -> i32 {
    with_region(|region| {
        let words = region.view_mut_slice::<u64>().expect("the region is writable");
        words
            .iter_mut()
            .step_by(PAGE_BYTES / size_of::<u64>())
            .for_each(|word| *word = value);
        0
    })
}

/// Flushes the whole region.
#[unsafe(no_mangle)]
pub extern "C" fn sync_all() -> i32 {
    with_region(|region| status(region.flush()))
}

/// Flushes the page at `offset` bytes alone.
#[unsafe(no_mangle)]
pub extern "C" fn sync_one(offset: u64) -> i32 {
    let offset = offset as usize;
    with_region(|region| status(region.flush_range(offset..offset + 1)))
}

/// Hands over the changes of the whole region and does not wait.
#[unsafe(no_mangle)]
pub extern "C" fn sync_async() -> i32 {
    with_region(|region| status(region.flush_async()))
}

/// Undoes the changes since the last flush.
#[unsafe(no_mangle)]
pub extern "C" fn invalidate() -> i32 {
    with_region(|region| status(region.invalidate()))
}

/// The 8 bytes at `offset`; 0 outside the region.
#[unsafe(no_mangle)]
pub extern "C" fn read(offset: u64) -> u64 {
    with_region(|region| region.view_at::<u64>(offset as usize).map_or(0, |word| *word))
}

/// A sum over every word: two regions of equal contents have equal sums.
#[unsafe(no_mangle)]
pub extern "C" fn checksum() -> u64 {
    with_region(|region| {
        let words = region.view_slice::<u64>();
        words
            .iter()
            .fold(0, |sum: u64, word| sum.rotate_left(5).wrapping_add(*word))
    })
}
