//! What is changed before a commit: the workloads, and the changes drawn for them.
//!
//! Invariants:
//! - every contender is given the same change, and keeps a state of the same size: 1 GiB, or 2 MiB where words are packed;
//! - a page is picked at random among those of 1 GiB, and so are the eight bytes in it.

/// Bytes of a page.
pub const PAGE: u64 = 4096;
/// Bytes of the state that is worked on.
pub const REGION: u64 = 1 << 30;
/// Pages of it.
pub const PAGES: u64 = REGION / PAGE;
/// Words of eight bytes that the packed workload changes some of, from the start of the state on.
pub const WORDS: u64 = 1 << 18;
/// Pages that the sequential workload rewrites.
pub const SEQUENTIAL_PAGES: u64 = 256;
/// Places that it does so in: few, so that databases have records there after the rounds that warm up.
const SEQUENTIAL_PLACES: u64 = 4;
/// Pages that are rewritten one at a time, for the same reason.
pub const WHOLE_PAGES: u64 = SEQUENTIAL_PAGES * SEQUENTIAL_PLACES;

/// One kind of commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workload {
    /// The same eight bytes each time.
    Counter,
    /// Eight bytes in one random page; the call covers that page.
    One,
    /// Eight bytes in each of so many random pages; the call covers everything.
    Random(usize),
    /// So many random words of [`WORDS`]; the call covers those. Small and dense, as a table in a database is.
    Packed(usize),
    /// [`SEQUENTIAL_PAGES`] pages in a row, every byte of them.
    Sequential,
    /// One of [`WHOLE_PAGES`] pages, every byte of it.
    Whole,
}

/// All of them, in the order in which they are shown.
pub const WORKLOADS: [Workload; 9] = [
    Workload::Counter,
    Workload::One,
    Workload::Random(1),
    Workload::Random(10),
    Workload::Random(100),
    Workload::Random(1000),
    Workload::Random(10_000),
    Workload::Packed(10_000),
    Workload::Sequential,
];

/// What one commit has to make durable.
pub enum Change {
    /// Eight bytes each, at these offsets.
    Stores {
        /// Where [`Random`] has to stand to draw the same; `None` for a single store elsewhere.
        state: Option<u64>,
        /// Offsets in bytes, and values.
        stores: Vec<(u64, u64)>,
    },
    /// Whole pages with one byte over and over.
    Fill {
        /// Offset in bytes.
        start: u64,
        /// Bytes.
        length: u64,
        /// What they become.
        value: u8,
    },
}

impl Workload {
    /// The next change.
    pub fn draw(self, random: &mut Random) -> Change {
        match self {
            Workload::Counter => Change::Stores {
                state: None,
                stores: vec![(0, random.next())],
            },
            Workload::One => random.stores(1),
            Workload::Random(pages) => random.stores(pages),
            Workload::Packed(words) => random.words(words),
            Workload::Sequential => {
                let length = SEQUENTIAL_PAGES * PAGE;
                Change::Fill {
                    start: random.next() % SEQUENTIAL_PLACES * length,
                    length,
                    value: random.next() as u8,
                }
            }
            Workload::Whole => Change::Fill {
                start: random.next() % WHOLE_PAGES * PAGE,
                length: PAGE,
                value: random.next() as u8,
            },
        }
    }

    /// The range that a sync is asked for, in bytes: start and length.
    pub fn range(self, change: &Change) -> (u64, u64) {
        match (self, change) {
            (Workload::Counter | Workload::One, Change::Stores { stores, .. }) => {
                (stores[0].0 / PAGE * PAGE, PAGE)
            }
            (Workload::Packed(_), _) => (0, WORDS * 8),
            (_, Change::Stores { .. }) => (0, REGION),
            (_, Change::Fill { start, length, .. }) => (*start, *length),
        }
    }

    /// Pages that change, at most.
    pub fn pages(self) -> u64 {
        match self {
            Workload::Counter | Workload::One | Workload::Whole => 1,
            Workload::Random(pages) => pages as u64,
            Workload::Packed(_) => WORDS * 8 / PAGE,
            Workload::Sequential => SEQUENTIAL_PAGES,
        }
    }
}

impl std::fmt::Display for Workload {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Workload::Counter => formatter.write_str("8-byte counter"),
            Workload::One => formatter.write_str("1 random page, call over it"),
            Workload::Random(1) => formatter.write_str("1 random page, call over 1 GiB"),
            Workload::Random(pages) => write!(formatter, "{pages} random pages"),
            Workload::Packed(words) => write!(formatter, "{words} words, packed in 2 MiB"),
            Workload::Sequential => write!(formatter, "{SEQUENTIAL_PAGES} whole pages in a row"),
            Workload::Whole => formatter.write_str("1 whole page"),
        }
    }
}

/// xorshift64*: the same changes in every run. The guest has the same generator.
pub struct Random(pub u64);

impl Random {
    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn words(&mut self, count: usize) -> Change {
        let state = Some(self.0);
        let stores = (0..count)
            .map(|_| (self.next() % WORDS * 8, self.next()))
            .collect();
        Change::Stores { state, stores }
    }

    fn stores(&mut self, count: usize) -> Change {
        let state = Some(self.0);
        let mut store = || {
            let offset = self.next() % PAGES * PAGE + self.next() % (PAGE / 8) * 8;
            (offset, self.next())
        };
        let stores = (0..count).map(|_| store()).collect();
        Change::Stores { state, stores }
    }
}
