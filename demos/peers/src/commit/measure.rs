//! Who is measured when.
//!
//! Invariants:
//! - who is next is drawn by lot in every round, so that nobody always comes behind the same other;
//! - before each turn the drive is let to be as fast as it was, so nobody pays for what was asked of it before;
//! - in its turn everybody makes the same few commits in a row, as a program does that works; the first of them finds memory
//!   and caches as others left them and is kept apart;
//! - the first rounds warm up and do not count.

use std::{fs::File, path::Path, time::Duration};

use anyhow::{Context, Result};

use crate::{
    contender::{Contender, Spent},
    databases::{Lmdb, Redb, Sqlite},
    files::{Floor, Shared},
    ours::Ours,
    workload::{Change, Random, WHOLE_PAGES, WORKLOADS, Workload},
};

/// Rounds that do not count.
const WARM: usize = 2;
/// Commits in a row in a turn, the first of which is kept apart.
const TURN: usize = 4;
/// Committers of the concurrent workload.
pub const COMMITTERS: usize = 64;
/// How long they commit, and the one that they are compared with.
const TIME: Duration = Duration::from_millis(500);
/// How often rates and openings are measured.
const REPEATS: usize = 5;
/// Commits whose bytes are counted.
const COUNTED: u64 = 1024;
/// Commits of whole pages one after the other: so many that logs go on in other files and checkpoints are among them.
pub const IN_A_ROW: usize = 16_384;

/// Measured values of one kind.
#[derive(Clone, Default)]
pub struct Values(pub Vec<f64>);

impl Values {
    /// The value below which `part` of them are.
    pub fn quantile(&self, part: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted[((sorted.len() - 1) as f64 * part).round() as usize]
    }

    /// The middle one.
    pub fn median(&self) -> f64 {
        self.quantile(0.5)
    }
}

/// One workload.
pub struct Row {
    pub workload: Workload,
    /// Seconds of making the change and committing it, in the order of [`Report::names`].
    pub whole: Vec<Values>,
    /// Seconds of the commit alone; the whole for databases, which do both in one transaction.
    pub commit: Vec<Values>,
    /// Seconds of the commit alone where it was the first of a turn.
    pub first: Vec<Values>,
    /// Seconds of the floor.
    pub floor: Values,
    /// Bytes of our journal for one commit.
    pub journal_bytes: u64,
}

/// All that was measured; ours is the first of every list.
pub struct Report {
    pub names: Vec<&'static str>,
    pub rows: Vec<Row>,
    /// Commits a second of [`COMMITTERS`], and of one.
    pub rates: Vec<(Values, Values)>,
    /// The same of ours, where each of them has a thread.
    pub rate_of_threads: Values,
    /// Seconds of the change and the commit, each of [`IN_A_ROW`].
    pub in_a_row: Vec<Values>,
    /// Seconds.
    pub open: Vec<Values>,
    /// Bytes that were written for each byte that changed, one page a commit.
    pub amplification: Vec<Option<f64>>,
}

struct Field {
    ours: Ours,
    peers: Vec<Box<dyn Contender>>,
    floor: Floor,
}

impl Field {
    fn new(folder: &Path, rocksdb: bool) -> Result<Self> {
        eprintln!("preparing: 1 GiB each for ours, twice, msync(2), and the databases");
        let rocksdb = if rocksdb {
            Some(self::rocksdb(folder)?)
        } else {
            None
        };
        let mut field = Self {
            ours: Ours::new(folder)?,
            peers: vec![
                Box::new(Shared::new(folder)?),
                Box::new(Lmdb::new(folder)?),
                Box::new(Redb::new(folder)?),
                Box::new(Sqlite::new(folder)?),
                Box::new(Ours::unmodified(folder)?),
            ],
            floor: Floor::new(folder)?,
        };
        field.peers.extend(rocksdb);
        Ok(field)
    }

    /// Ours, then the peers.
    fn all(&mut self) -> impl Iterator<Item = &mut dyn Contender> {
        let ours: &mut dyn Contender = &mut self.ours;
        std::iter::once(ours).chain(
            self.peers
                .iter_mut()
                .map(|peer| &mut **peer as &mut dyn Contender),
        )
    }

    fn get(&mut self, index: usize) -> &mut dyn Contender {
        self.all().nth(index).expect("an index of a contender")
    }

    fn workload(&mut self, workload: Workload, rounds: usize, random: &mut Random) -> Result<Row> {
        let count = self.peers.len() + 1;
        let mut row = Row {
            workload,
            whole: vec![Values::default(); count],
            commit: vec![Values::default(); count],
            first: vec![Values::default(); count],
            floor: Values::default(),
            journal_bytes: 0,
        };
        for round in 0..WARM + rounds {
            let changes: Vec<Change> = (0..TURN).map(|_| workload.draw(random)).collect();
            for who in shuffled(count + 1, random) {
                self.floor.rest()?;
                for (place, change) in changes.iter().enumerate() {
                    let spent = self.commit(who, workload, change, &mut row)?;
                    if round < WARM {
                        continue;
                    }
                    match (who == count, place == 0) {
                        (true, true) => {}
                        (true, false) => row.floor.0.push(spent.commit),
                        (false, true) => row.first[who].0.push(spent.commit),
                        (false, false) => {
                            row.whole[who].0.push(spent.change + spent.commit);
                            row.commit[who].0.push(spent.commit);
                        }
                    }
                }
            }
        }
        Ok(row)
    }

    /// A commit of `who`; behind all of them comes the floor.
    fn commit(&mut self, who: usize, workload: Workload, change: &Change, row: &mut Row) -> Result<Spent> {
        if who == self.peers.len() + 1 {
            self.floor.set_bytes(row.journal_bytes);
            return self.floor.commit();
        }
        let before = self.ours.bytes_journaled();
        let spent = self.get(who).commit(workload, change)?;
        if who == 0 {
            row.journal_bytes = self.ours.bytes_journaled() - before;
        }
        Ok(spent)
    }

    fn rates(&mut self, random: &mut Random) -> Result<(Vec<(Values, Values)>, Values)> {
        let count = self.peers.len() + 1;
        let mut rates = vec![(Values::default(), Values::default()); count];
        let mut of_threads = Values::default();
        for _ in 0..REPEATS {
            for who in shuffled(count, random) {
                self.floor.rest()?;
                let contender = self.get(who);
                rates[who].0.0.extend(contender.rate(COMMITTERS, TIME)?);
                rates[who].1.0.extend(contender.rate(1, TIME)?);
            }
            of_threads.0.push(self.ours.rate_of_threads(COMMITTERS, TIME)?);
        }
        Ok((rates, of_threads))
    }

    fn in_a_row(&mut self, random: &mut Random) -> Result<Vec<Values>> {
        let mut all = vec![Values::default(); self.peers.len() + 1];
        for who in shuffled(all.len(), random) {
            self.floor.rest()?;
            // Everybody has a record for each page then.
            for number in 0..WHOLE_PAGES as usize + IN_A_ROW {
                let spent = self
                    .get(who)
                    .commit(Workload::Whole, &Workload::Whole.draw(random))?;
                if number >= WHOLE_PAGES as usize {
                    all[who].0.push(spent.change + spent.commit);
                }
            }
        }
        Ok(all)
    }

    fn open(&mut self, random: &mut Random) -> Result<Vec<Values>> {
        let count = self.peers.len() + 1;
        let mut open = vec![Values::default(); count];
        for _ in 0..2 * REPEATS {
            for who in shuffled(count, random) {
                let seconds = self.get(who).open()?;
                open[who].0.extend(seconds);
            }
        }
        Ok(open)
    }

    fn amplification(&mut self, folder: &Path, random: &mut Random) -> Result<Vec<Option<f64>>> {
        let folder = File::open(folder)?;
        self.all()
            .map(|contender| {
                contender.settle()?;
                // A file system without a device of its own has no such count.
                let before = bytes_written(&folder).ok();
                for _ in 0..COUNTED {
                    contender.commit(Workload::One, &Workload::One.draw(random))?;
                }
                contender.settle()?;
                let written = before.map(|before| Ok::<_, anyhow::Error>(bytes_written(&folder)? - before));
                Ok(written
                    .transpose()?
                    .map(|bytes| bytes as f64 / (COUNTED * 8) as f64))
            })
            .collect()
    }
}

/// Everybody once, in an order drawn by lot.
fn shuffled(count: usize, random: &mut Random) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    for place in (1..count).rev() {
        order.swap(place, (random.next() % (place as u64 + 1)) as usize);
    }
    order
}

/// Bytes that were written so far to the device of `folder`, by anybody. (What the kernel counts for a process is pages that
/// it made dirty, in units of up to megabytes.)
fn bytes_written(folder: &File) -> Result<u64> {
    rustix::fs::syncfs(folder)?;
    let device = rustix::fs::fstat(folder)?.st_dev;
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let path = format!("/sys/dev/block/{major}:{minor}/stat");
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let sectors: u64 = text
        .split_whitespace()
        .nth(6)
        .with_context(|| format!("{path} has no count of sectors written"))?
        .parse()?;
    Ok(sectors * 512)
}

#[cfg(feature = "rocksdb")]
fn rocksdb(folder: &Path) -> Result<Box<dyn Contender>> {
    Ok(Box::new(crate::rocks::Rocks::new(folder)?))
}

#[cfg(not(feature = "rocksdb"))]
fn rocksdb(_: &Path) -> Result<Box<dyn Contender>> {
    anyhow::bail!(
        "built without RocksDB: `cargo xtask bench commit -- --rocksdb` builds it in where its library is"
    )
}

/// Measures everything on the disk of `folder`, with RocksDB or without.
///
/// # Errors
/// Whatever goes wrong.
pub fn measure(folder: &Path, rounds: usize, seed: u64, rocksdb: bool) -> Result<Report> {
    let mut field = Field::new(folder, rocksdb)?;
    let mut random = Random(seed | 1);
    let mut rows = Vec::new();
    // Everybody's memory was made a while ago: on some machines the first touch of two megabytes then takes 20 us more.
    field.workload(Workload::Random(1000), 0, &mut random)?;
    for workload in WORKLOADS {
        eprintln!("{workload}");
        // Where a round takes long, fewer of them say as much; what differs by little needs more.
        let rounds = match workload.pages() {
            0..10 => 16 * rounds,
            10..100 => 4 * rounds,
            100..10_000 => rounds,
            _ => rounds.div_ceil(4),
        };
        rows.push(field.workload(workload, rounds, &mut random)?);
    }
    eprintln!("{COMMITTERS} committers");
    let (rates, rate_of_threads) = field.rates(&mut random)?;
    eprintln!("{IN_A_ROW} in a row");
    let in_a_row = field.in_a_row(&mut random)?;
    eprintln!("opening, counting bytes");
    Ok(Report {
        names: field.all().map(|contender| contender.name()).collect(),
        rows,
        rates,
        rate_of_threads,
        in_a_row,
        open: field.open(&mut random)?,
        amplification: field.amplification(folder, &mut random)?,
    })
}
