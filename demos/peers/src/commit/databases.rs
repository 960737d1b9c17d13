//! Embedded databases, with the same state as everybody: 1 GiB in records of 256 bytes, small enough to write little of a
//! page and large enough to spend little on keys; the words that are packed in a table of their own; and whole pages in a
//! third.
//!
//! Invariants:
//! - a commit returns after the disk was asked to flush;
//! - words and records exist beforehand, pages after the rounds that warm up;
//! - a database may keep all of its pages in memory;
//! - writers of one database take turns, as each of them demands.

use std::{
    path::{Path, PathBuf},
    sync::Mutex,
    time::Duration,
};

use anyhow::Result;
use heed::{
    Database as HeedDatabase, Env, EnvOpenOptions,
    byteorder::BigEndian,
    types::{Bytes, U32, U64},
};
use redb::{Database, ReadableDatabase, TableDefinition};
use rusqlite::Connection;

use crate::{
    contender::{Contender, Spent, rate_of, timed},
    workload::{Change, PAGE, REGION, WORDS, Workload},
};

/// Bytes of address space for LMDB's map; the file grows as needed.
const MAP_BYTES: usize = 8 << 30;
/// Bytes that a database may keep in memory: more than there are.
const CACHE_BYTES: usize = 3 << 30;
/// Bytes of a record.
const RECORD: u64 = 256;

/// A transaction that is open.
pub trait Transaction {
    /// Puts a record of eight bytes.
    fn word(&mut self, word: u32, value: u64) -> Result<()>;
    /// Puts a record.
    fn record(&mut self, record: u32, bytes: &[u8]) -> Result<()>;
    /// Puts a page.
    fn page(&mut self, page: u32, bytes: &[u8]) -> Result<()>;
}

/// Puts `change` into a transaction.
pub fn put(workload: Workload, change: &Change, transaction: &mut dyn Transaction) -> Result<()> {
    match (workload, change) {
        (Workload::One | Workload::Random(_), Change::Stores { stores, .. }) => {
            stores.iter().try_for_each(|(offset, value)| {
                let mut bytes = [1; RECORD as usize];
                let at = (offset % RECORD) as usize;
                bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
                transaction.record((offset / RECORD) as u32, &bytes)
            })
        }
        (_, Change::Stores { stores, .. }) => stores
            .iter()
            .try_for_each(|(offset, value)| transaction.word((offset / 8) as u32, *value)),
        (_, Change::Fill { start, length, value }) => {
            let bytes = vec![*value; PAGE as usize];
            (start / PAGE..(start + length) / PAGE).try_for_each(|page| transaction.page(page as u32, &bytes))
        }
    }
}

/// Every word, and every record too where `records`.
pub fn prefill(transaction: &mut dyn Transaction, records: bool) -> Result<()> {
    (0..WORDS as u32).try_for_each(|word| transaction.word(word, 1))?;
    let count = if records { REGION / RECORD } else { 0 };
    (0..count as u32).try_for_each(|record| transaction.record(record, &[1; RECORD as usize]))
}

/// The change of one committer of many: to a word of its own.
pub fn counter(index: usize, value: usize) -> Change {
    Change::Stores {
        state: None,
        stores: vec![(index as u64 * 8, value as u64)],
    }
}

/// LMDB. Its write map is left out: with it a commit is an `msync(2)`, which costs more than its own writes.
pub struct Lmdb {
    env: Env,
    words: HeedDatabase<U32<BigEndian>, U64<BigEndian>>,
    records: HeedDatabase<U32<BigEndian>, Bytes>,
    pages: HeedDatabase<U32<BigEndian>, Bytes>,
    cold: PathBuf,
}

struct LmdbTransaction<'a, 'b>(&'a Lmdb, &'a mut heed::RwTxn<'b>);

impl Transaction for LmdbTransaction<'_, '_> {
    fn word(&mut self, word: u32, value: u64) -> Result<()> {
        Ok(self.0.words.put(self.1, &word, &value)?)
    }

    fn record(&mut self, record: u32, bytes: &[u8]) -> Result<()> {
        Ok(self.0.records.put(self.1, &record, bytes)?)
    }

    fn page(&mut self, page: u32, bytes: &[u8]) -> Result<()> {
        Ok(self.0.pages.put(self.1, &page, bytes)?)
    }
}

impl Lmdb {
    /// A database with every record.
    ///
    /// # Errors
    /// Whatever goes wrong.
    pub fn new(folder: &Path) -> Result<Self> {
        let cold = folder.join("lmdb-open");
        let made = Self::open_in(&folder.join("lmdb"))?;
        Self::open_in(&cold)?.run(|transaction| prefill(transaction, false))?;
        made.run(|transaction| prefill(transaction, true))?;
        Ok(Self { cold, ..made })
    }

    fn open_in(folder: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder)?;
        // SAFETY: nobody else touches the files, and no environment of this process has them open.
        let env = unsafe { EnvOpenOptions::new().map_size(MAP_BYTES).max_dbs(3).open(folder) }?;
        let mut transaction = env.write_txn()?;
        let words = env.create_database(&mut transaction, Some("words"))?;
        let records = env.create_database(&mut transaction, Some("records"))?;
        let pages = env.create_database(&mut transaction, Some("pages"))?;
        transaction.commit()?;
        Ok(Self {
            env,
            words,
            records,
            pages,
            cold: PathBuf::new(),
        })
    }

    fn run(&self, body: impl FnOnce(&mut dyn Transaction) -> Result<()>) -> Result<()> {
        let mut transaction = self.env.write_txn()?;
        body(&mut LmdbTransaction(self, &mut transaction))?;
        Ok(transaction.commit()?)
    }
}

impl Contender for Lmdb {
    fn name(&self) -> &'static str {
        "LMDB"
    }

    fn commit(&mut self, workload: Workload, change: &Change) -> Result<Spent> {
        let ((), commit) = timed(|| self.run(|transaction| put(workload, change, transaction)))?;
        Ok(Spent { change: 0.0, commit })
    }

    fn rate(&mut self, threads: usize, time: Duration) -> Result<Option<f64>> {
        let own = &*self;
        let committers = (0..threads).map(|index| {
            move |count: usize| {
                own.run(|transaction| put(Workload::Counter, &counter(index, count), transaction))
            }
        });
        Ok(Some(rate_of(committers.collect(), time)?))
    }

    fn open(&mut self) -> Result<Option<f64>> {
        let (database, seconds) = timed(|| {
            // SAFETY: as above.
            let env = unsafe {
                EnvOpenOptions::new()
                    .map_size(MAP_BYTES)
                    .max_dbs(3)
                    .open(&self.cold)
            }?;
            let transaction = env.read_txn()?;
            let words: Option<HeedDatabase<U32<BigEndian>, U64<BigEndian>>> =
                env.open_database(&transaction, Some("words"))?;
            let found = words.expect("it was made").get(&transaction, &0)?;
            assert_eq!(found, Some(1));
            drop(transaction);
            Ok(env)
        })?;
        database.prepare_for_closing().wait();
        Ok(Some(seconds))
    }
}

const WORD_TABLE: TableDefinition<'_, u32, u64> = TableDefinition::new("words");
const RECORD_TABLE: TableDefinition<'_, u32, &[u8]> = TableDefinition::new("records");
const PAGE_TABLE: TableDefinition<'_, u32, &[u8]> = TableDefinition::new("pages");

/// redb, with its default durability: every commit is synced.
pub struct Redb {
    database: Database,
    cold: PathBuf,
}

struct RedbTransaction<'a> {
    words: redb::Table<'a, u32, u64>,
    records: redb::Table<'a, u32, &'static [u8]>,
    pages: redb::Table<'a, u32, &'static [u8]>,
}

impl Transaction for RedbTransaction<'_> {
    fn word(&mut self, word: u32, value: u64) -> Result<()> {
        self.words.insert(word, value)?;
        Ok(())
    }

    fn record(&mut self, record: u32, bytes: &[u8]) -> Result<()> {
        self.records.insert(record, bytes)?;
        Ok(())
    }

    fn page(&mut self, page: u32, bytes: &[u8]) -> Result<()> {
        self.pages.insert(page, bytes)?;
        Ok(())
    }
}

impl Redb {
    /// A database with every record.
    ///
    /// # Errors
    /// Whatever goes wrong.
    pub fn new(folder: &Path) -> Result<Self> {
        let cold = folder.join("redb-open");
        let made = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .create(folder.join("redb"))?;
        Self::run(&Database::create(&cold)?, |transaction| {
            prefill(transaction, false)
        })?;
        Self::run(&made, |transaction| prefill(transaction, true))?;
        Ok(Self { database: made, cold })
    }

    fn run(database: &Database, body: impl FnOnce(&mut dyn Transaction) -> Result<()>) -> Result<()> {
        let transaction = database.begin_write()?;
        body(&mut RedbTransaction {
            words: transaction.open_table(WORD_TABLE)?,
            records: transaction.open_table(RECORD_TABLE)?,
            pages: transaction.open_table(PAGE_TABLE)?,
        })?;
        Ok(transaction.commit()?)
    }
}

impl Contender for Redb {
    fn name(&self) -> &'static str {
        "redb"
    }

    fn commit(&mut self, workload: Workload, change: &Change) -> Result<Spent> {
        let ((), commit) =
            timed(|| Self::run(&self.database, |transaction| put(workload, change, transaction)))?;
        Ok(Spent { change: 0.0, commit })
    }

    fn rate(&mut self, threads: usize, time: Duration) -> Result<Option<f64>> {
        let database = &self.database;
        let committers = (0..threads).map(|index| {
            move |count: usize| {
                Self::run(database, |transaction| {
                    put(Workload::Counter, &counter(index, count), transaction)
                })
            }
        });
        Ok(Some(rate_of(committers.collect(), time)?))
    }

    fn open(&mut self) -> Result<Option<f64>> {
        let (kept, seconds) = timed(|| {
            let database = Database::open(&self.cold)?;
            let found = database.begin_read()?.open_table(WORD_TABLE)?.get(0)?;
            assert_eq!(found.map(|value| value.value()), Some(1));
            Ok(database)
        })?;
        drop(kept);
        Ok(Some(seconds))
    }
}

/// SQLite with a write-ahead log that is synced at every commit, and one connection that owns the file.
pub struct Sqlite {
    connection: Mutex<Connection>,
    cold: PathBuf,
}

struct SqliteTransaction<'a>(&'a Connection);

impl Transaction for SqliteTransaction<'_> {
    fn word(&mut self, word: u32, value: u64) -> Result<()> {
        let mut statement = self.0.prepare_cached("UPDATE words SET v = ?2 WHERE k = ?1")?;
        // SQLite's integers are signed.
        let changed = statement.execute((word, value as i64))?;
        assert_eq!(changed, 1);
        Ok(())
    }

    fn record(&mut self, record: u32, bytes: &[u8]) -> Result<()> {
        let mut statement = self.0.prepare_cached("UPDATE records SET v = ?2 WHERE k = ?1")?;
        let changed = statement.execute((record, bytes))?;
        assert_eq!(changed, 1);
        Ok(())
    }

    fn page(&mut self, page: u32, bytes: &[u8]) -> Result<()> {
        let mut statement = self
            .0
            .prepare_cached("INSERT OR REPLACE INTO pages VALUES (?1, ?2)")?;
        statement.execute((page, bytes))?;
        Ok(())
    }
}

impl Sqlite {
    /// A database with every record.
    ///
    /// # Errors
    /// Whatever goes wrong.
    pub fn new(folder: &Path) -> Result<Self> {
        let cold = folder.join("sqlite-open");
        Self::create(&cold, false)?;
        Ok(Self {
            connection: Mutex::new(Self::create(&folder.join("sqlite"), true)?),
            cold,
        })
    }

    fn connect(path: &Path) -> Result<Connection> {
        let connection = Connection::open(path)?;
        connection.execute_batch(&format!(
            "PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; \
             PRAGMA cache_size = -{};",
            CACHE_BYTES >> 10
        ))?;
        Ok(connection)
    }

    fn create(path: &Path, records: bool) -> Result<Connection> {
        let connection = Self::connect(path)?;
        connection.execute_batch(
            "CREATE TABLE words (k INTEGER PRIMARY KEY, v INTEGER) STRICT; \
             CREATE TABLE records (k INTEGER PRIMARY KEY, v BLOB) STRICT; \
             CREATE TABLE pages (k INTEGER PRIMARY KEY, v BLOB) STRICT;",
        )?;
        let numbers = "WITH RECURSIVE n (k) AS (SELECT 0 UNION ALL SELECT k + 1 FROM n WHERE k + 1 < ?1)";
        connection.execute(
            &format!("{numbers} INSERT INTO words SELECT k, 1 << 62 FROM n"),
            [WORDS as i64],
        )?;
        if records {
            connection.execute(
                &format!("{numbers} INSERT INTO records SELECT k, ?2 FROM n"),
                ((REGION / RECORD) as i64, [1; RECORD as usize]),
            )?;
        }
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
        Ok(connection)
    }

    fn run(&self, workload: Workload, change: &Change) -> Result<()> {
        let connection = self.connection.lock().expect("no committer panics");
        connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        put(workload, change, &mut SqliteTransaction(&connection))?;
        connection.prepare_cached("COMMIT")?.execute([])?;
        Ok(())
    }
}

impl Contender for Sqlite {
    fn name(&self) -> &'static str {
        "SQLite (WAL, FULL)"
    }

    fn commit(&mut self, workload: Workload, change: &Change) -> Result<Spent> {
        let ((), commit) = timed(|| self.run(workload, change))?;
        Ok(Spent { change: 0.0, commit })
    }

    fn settle(&mut self) -> Result<()> {
        let connection = self.connection.lock().expect("no committer panics");
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
        Ok(())
    }

    fn rate(&mut self, threads: usize, time: Duration) -> Result<Option<f64>> {
        let own = &*self;
        let committers =
            (0..threads).map(|index| move |count: usize| own.run(Workload::Counter, &counter(index, count)));
        Ok(Some(rate_of(committers.collect(), time)?))
    }

    fn open(&mut self) -> Result<Option<f64>> {
        let (kept, seconds) = timed(|| {
            let connection = Self::connect(&self.cold)?;
            let found: i64 = connection.query_row("SELECT v FROM words WHERE k = 0", [], |row| row.get(0))?;
            assert!(found > 0);
            Ok(connection)
        })?;
        drop(kept);
        Ok(Some(seconds))
    }
}
