//! Durable commits of SlateDB on an S3 server, one after another or of many tasks at once.
//!
//! For each line `ROUNDS TASKS` of standard input it makes ROUNDS commits of one value of 4 KiB in each of TASKS tasks,
//! waits until each is durable, and answers with the seconds of each commit, on one line. `vmsync-pager-object`'s
//! bench asks for rounds in turn with its own.

use std::{
    io::{BufRead, Write},
    sync::Arc,
    time::Instant,
};

use anyhow::{Context, Result};
use slatedb::{
    Db,
    object_store::{ObjectStore, aws::AmazonS3Builder},
};

const VALUE_BYTES: usize = 4096;
const KEYS: u64 = 1024;

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (endpoint, bucket, prefix) = (arguments.next(), arguments.next(), arguments.next());
    let usage = "usage: vmsync-peer-slatedb ENDPOINT BUCKET PREFIX";
    let store: Arc<dyn ObjectStore> = Arc::new(
        AmazonS3Builder::from_env()
            .with_endpoint(endpoint.context(usage)?)
            .with_allow_http(true)
            .with_region("us-east-1")
            .with_bucket_name(bucket.context(usage)?)
            .build()?,
    );
    let db = Arc::new(Db::open(prefix.context(usage)?, store).await?);
    commit(&db, 0, 1).await?;
    println!("ready");
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let (rounds, tasks) = line.split_once(' ').context("expected ROUNDS TASKS")?;
        let (rounds, tasks): (u64, u64) = (rounds.parse()?, tasks.parse()?);
        let running: Vec<_> = (0..tasks)
            .map(|task| tokio::spawn(commits(db.clone(), task, rounds)))
            .collect();
        let mut seconds = Vec::new();
        for task in running {
            seconds.extend(task.await??);
        }
        let words: Vec<String> = seconds.iter().map(f64::to_string).collect();
        println!("{}", words.join(" "));
        std::io::stdout().flush()?;
    }
    db.close().await?;
    Ok(())
}

async fn commits(db: Arc<Db>, task: u64, rounds: u64) -> Result<Vec<f64>> {
    let mut seconds = Vec::new();
    for round in 0..rounds {
        let start = Instant::now();
        commit(&db, task * KEYS + round % KEYS, round).await?;
        seconds.push(start.elapsed().as_secs_f64());
    }
    Ok(seconds)
}

/// A commit that is durable when this returns: flushing at once is faster than waiting for the interval.
async fn commit(db: &Db, key: u64, round: u64) -> Result<()> {
    let mut value = vec![0; VALUE_BYTES];
    value[..8].copy_from_slice(&round.to_le_bytes());
    db.put(key.to_be_bytes(), value).await?;
    db.flush().await?;
    Ok(())
}
