//! RocksDB, a log-structured store: a commit appends to its log, and tables are written later.
//!
//! Invariants are those of databases.rs, but that writers share a sync: RocksDB commits in groups of its own. Its log files
//! are used again, as ours are.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Result;
use rocksdb::{DB, Options, WriteBatch, WriteOptions};

use crate::{
    contender::{Contender, Spent, rate_of, timed},
    databases::{Transaction, counter, prefill, put},
    workload::{Change, Workload},
};

/// Log files that are kept to be used again.
const LOGS_KEPT: usize = 4;

/// Records that are put at once before anything is measured.
const BATCH_RECORDS: usize = 1 << 16;

/// The three tables, by the first byte of a key.
enum Table {
    Words,
    Records,
    Pages,
}

/// See the head of the file.
pub struct Rocks {
    database: DB,
    cold: PathBuf,
}

/// A transaction, or what is put before anything is measured, which is written out now and then.
struct Batch<'a> {
    batch: WriteBatch,
    spill: Option<&'a DB>,
}

fn key(table: Table, number: u32) -> [u8; 5] {
    let number = number.to_be_bytes();
    [table as u8, number[0], number[1], number[2], number[3]]
}

impl Batch<'_> {
    fn put(&mut self, table: Table, number: u32, value: &[u8]) -> Result<()> {
        self.batch.put(key(table, number), value);
        match self.spill {
            Some(database) if self.batch.len() >= BATCH_RECORDS => {
                Ok(database.write_without_wal(std::mem::take(&mut self.batch))?)
            }
            _ => Ok(()),
        }
    }
}

impl Transaction for Batch<'_> {
    fn word(&mut self, word: u32, value: u64) -> Result<()> {
        self.put(Table::Words, word, &value.to_le_bytes())
    }

    fn record(&mut self, record: u32, bytes: &[u8]) -> Result<()> {
        self.put(Table::Records, record, bytes)
    }

    fn page(&mut self, page: u32, bytes: &[u8]) -> Result<()> {
        self.put(Table::Pages, page, bytes)
    }
}

impl Rocks {
    /// A database with every record.
    ///
    /// # Errors
    /// Whatever goes wrong.
    pub fn new(folder: &Path) -> Result<Self> {
        let cold = folder.join("rocksdb-open");
        drop(Self::create(&cold, false)?);
        Ok(Self {
            database: Self::create(&folder.join("rocksdb"), true)?,
            cold,
        })
    }

    fn open_in(folder: &Path) -> Result<DB> {
        let mut options = Options::default();
        options.create_if_missing(true);
        options.set_recycle_log_file_num(LOGS_KEPT);
        Ok(DB::open(&options, folder)?)
    }

    fn create(folder: &Path, records: bool) -> Result<DB> {
        let database = Self::open_in(folder)?;
        let mut filling = Batch {
            batch: WriteBatch::default(),
            spill: Some(&database),
        };
        prefill(&mut filling, records)?;
        database.write_without_wal(filling.batch)?;
        database.flush()?;
        Ok(database)
    }

    fn run(&self, workload: Workload, change: &Change) -> Result<()> {
        let mut transaction = Batch {
            batch: WriteBatch::default(),
            spill: None,
        };
        put(workload, change, &mut transaction)?;
        let mut options = WriteOptions::default();
        options.set_sync(true);
        Ok(self.database.write_opt(transaction.batch, &options)?)
    }
}

impl Contender for Rocks {
    fn name(&self) -> &'static str {
        "RocksDB"
    }

    fn commit(&mut self, workload: Workload, change: &Change) -> Result<Spent> {
        let ((), commit) = timed(|| self.run(workload, change))?;
        Ok(Spent { change: 0.0, commit })
    }

    fn settle(&mut self) -> Result<()> {
        Ok(self.database.flush()?)
    }

    fn rate(&mut self, threads: usize, time: Duration) -> Result<Option<f64>> {
        let own = &*self;
        let committers =
            (0..threads).map(|index| move |count: usize| own.run(Workload::Counter, &counter(index, count)));
        Ok(Some(rate_of(committers.collect(), time)?))
    }

    fn open(&mut self) -> Result<Option<f64>> {
        let (kept, seconds) = timed(|| {
            let database = Self::open_in(&self.cold)?;
            assert!(database.get(key(Table::Words, 0))?.is_some());
            Ok(database)
        })?;
        drop(kept);
        Ok(Some(seconds))
    }
}
