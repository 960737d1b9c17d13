//! [`Shape`]: how large the things are that a seed works on. Most seeds work on small ones, so that they are quick.
//!
//! ```text
//!   seed mod 4 = 3     long names: a catalog lies in several sectors
//!   seed mod 32 = 13   an object of many pages: so do its checksums
//!   seed mod 32 = 14   pages of 16 KiB
//!   seed mod 32 = 30   pages of 64 KiB
//!   seed mod 256 = 222 so many of them that a call is larger than a group of calls, and is a group of its own; a short life, in
//!                      which few of the disks are looked at, for each takes as long as a hundred small ones
//!   an odd number of ones in it   what is durable waits for its images until a task tidies up, as with the store's own threads
//! ```

use std::ops::Range;

use vmsync_core::{PageSize, abi::NAME_BYTES_MAX};
use vmsync_pager_file::Background;

use crate::limits::{
    LOOK_LARGE_ONCE_IN, NAMES, NAMES_WIDE, PAGES_FIRST_MAX, PAGES_LARGE_MAX, PAGES_MAX, PAGES_WIDE, TURNS,
    TURNS_LARGE,
};

/// See the head of the file.
#[derive(Clone, Debug)]
pub struct Shape {
    /// The page size of the store.
    pub page_size: PageSize,
    /// Who puts what is durable into images, and when: no thread, so that the seed decides.
    pub background: Background,
    /// Objects that tasks use.
    pub names: Vec<String>,
    /// Pages of the first of them where it has many.
    pub pages_wide: Option<usize>,
    /// Turns of a life.
    pub turns: usize,
    /// Of the disks that cuts leave one in so many is looked at.
    pub look_once_in: usize,
}

impl Shape {
    /// The shape of `seed`.
    pub fn of(seed: u64) -> Self {
        let page_size = match seed % 32 {
            14 => PageSize::KIB_16,
            30 => PageSize::KIB_64,
            _ => PageSize::KIB_4,
        };
        let length = if seed % 4 == 3 { NAME_BYTES_MAX } else { 0 };
        let is_large = seed % 256 == 222;
        let pages_wide = (seed % 32 == 13 || is_large).then_some(PAGES_WIDE);
        // With few others it is open most of the time.
        let count = if pages_wide.is_some() {
            NAMES_WIDE
        } else {
            NAMES.len()
        };
        let names = NAMES[..count].iter();
        Self {
            page_size,
            background: match seed.count_ones() % 2 {
                0 => Background::Caller,
                _ => Background::Host,
            },
            names: names.map(|name| format!("{name:-<length$}")).collect(),
            pages_wide,
            turns: if is_large { TURNS_LARGE } else { TURNS },
            look_once_in: if is_large { LOOK_LARGE_ONCE_IN } else { 1 },
        }
    }

    /// A page in bytes.
    pub fn page(&self) -> usize {
        self.page_size.bytes() as usize
    }

    /// Pages that `name` may begin with, and that it grows to.
    pub fn pages(&self, name: &str) -> (Range<usize>, usize) {
        match self.pages_wide {
            Some(wide) if name == self.names[0] => (wide..wide + 1, wide + PAGES_MAX),
            // Large pages are few.
            _ if self.page_size != PageSize::KIB_4 => (1..2, PAGES_LARGE_MAX),
            _ => (1..1 + PAGES_FIRST_MAX, PAGES_MAX),
        }
    }
}
