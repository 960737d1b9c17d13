//! Pagers of remote engines, on the servers that `cargo xtask bench remote` starts, each with its peer in the same run:
//! - the object pager against SlateDB on the same S3 server: durable commits of one page, in turn;
//! - the SQL pager against a plain row update in the same PostgreSQL, in turn;
//! - requests: of a commit, of a cold open, of 64 tasks that share a store against 64 stores of their own.
//!
//! Medians are reported; the spread is the range from the 10th to the 90th percentile. Requests are counted by the
//! pager, and what its client repeats by itself counts once.

use std::{
    env,
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::Arc,
    thread,
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use object_store::{ObjectStore, aws::AmazonS3Builder, path::Path};
use serde_json::{Value, json};
use vmsync_core::{
    PageSize,
    pager::{InitRequest, Pager},
};
use vmsync_pager_conformance::{Client, random::Random};
use vmsync_pager_object::{Location, ObjectStorage, Options, open};

const PAGE: u64 = 4096;
const OBJECT_PAGES: u64 = 1024;
/// Commits in a turn, so that the two of a pair meet the same machine.
const TURN: usize = 10;
const TASKS: usize = 64;

struct Row {
    case: &'static str,
    measure: &'static str,
    unit: &'static str,
    ours: f64,
    peers: Vec<(&'static str, f64)>,
    spread: Option<(f64, f64)>,
}

/// Where the servers are.
struct Servers {
    endpoint: String,
    bucket: String,
    postgres: String,
    slatedb: String,
    prefix: String,
}

impl Servers {
    fn find() -> Result<Self> {
        let variable = |name| {
            env::var(name).with_context(|| format!("{name} is not set: use `cargo xtask bench remote`"))
        };
        let url = variable("VMSYNC_S3")?;
        let (endpoint, bucket) = url
            .rsplit_once('/')
            .context("VMSYNC_S3 is http://HOST:PORT/BUCKET")?;
        Ok(Self {
            endpoint: endpoint.into(),
            bucket: bucket.into(),
            postgres: variable("VMSYNC_PG")?,
            slatedb: variable("VMSYNC_PEER_SLATEDB")?,
            prefix: format!("bench-{}", std::process::id()),
        })
    }

    fn location(&self, name: &str) -> Result<Location> {
        let store: Arc<dyn ObjectStore> = Arc::new(
            AmazonS3Builder::from_env()
                .with_endpoint(&self.endpoint)
                .with_allow_http(true)
                .with_region("us-east-1")
                .with_bucket_name(&self.bucket)
                .build()?,
        );
        Ok(Location {
            store,
            prefix: Path::from(format!("{}/{name}", self.prefix)),
            name: name.into(),
            sorted: true,
            folder: false,
        })
    }
}

fn client(pager: Arc<dyn Pager>, name: &str) -> Result<Client> {
    let request = InitRequest {
        page_size: PageSize::KIB_4,
        size_min: OBJECT_PAGES * PAGE,
        create: true,
        write: true,
    };
    Ok(Client::open_with(pager, name, request)?)
}

/// Seconds of one call that changes 8 bytes of one page.
fn commit(client: &Client, pages: &mut [Vec<u8>], random: &mut Random) -> Result<f64> {
    let page = random.below(OBJECT_PAGES);
    let bytes = &mut pages[page as usize];
    let at = random.below(PAGE / 8) as usize * 8;
    random.fill(&mut bytes[at..at + 8]);
    let start = Instant::now();
    let call = Client::call();
    client.give(call, page, bytes)?;
    client.sync(call, page, 1)?;
    Ok(start.elapsed().as_secs_f64())
}

fn pages() -> Vec<Vec<u8>> {
    vec![vec![0; PAGE as usize]; OBJECT_PAGES as usize]
}

/// Median, and the 10th and 90th percentile.
fn spread(mut seconds: Vec<f64>) -> (f64, (f64, f64)) {
    seconds.sort_by(f64::total_cmp);
    let at = |part: f64| seconds[((seconds.len() - 1) as f64 * part) as usize];
    (at(0.5), (at(0.1), at(0.9)))
}

/// SlateDB, in a process of its own.
struct SlateDb {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl SlateDb {
    fn start(servers: &Servers) -> Result<Self> {
        let mut child = Command::new(&servers.slatedb)
            .args([
                &servers.endpoint,
                &servers.bucket,
                &format!("{}/slatedb", servers.prefix),
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the peer")?;
        let input = child.stdin.take().context("a pipe")?;
        let output = BufReader::new(child.stdout.take().context("a pipe")?);
        let mut peer = Self { child, input, output };
        ensure!(peer.line()? == "ready", "the peer does not start");
        Ok(peer)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        Ok(line.trim().to_owned())
    }

    fn commits(&mut self, rounds: usize, tasks: usize) -> Result<Vec<f64>> {
        writeln!(self.input, "{rounds} {tasks}")?;
        let line = self.line()?;
        line.split(' ')
            .map(|word| word.parse().context("the peer ended"))
            .collect()
    }
}

impl Drop for SlateDb {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Commits of the object pager and of SlateDB, in turn.
fn object_commits(servers: &Servers, turns: usize, rows: &mut Vec<Row>) -> Result<(f64, f64)> {
    let store = open(servers.location("commits")?, &Options::default())?;
    let client = client(store.clone(), "object")?;
    let (mut pages, mut random) = (pages(), Random::new(1));
    let mut peer = SlateDb::start(servers)?;
    for _ in 0..TURN {
        commit(&client, &mut pages, &mut random)?;
    }
    peer.commits(TURN, 1)?;
    let before = store.engine().requests();
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..turns {
        for _ in 0..TURN {
            ours.push(commit(&client, &mut pages, &mut random)?);
        }
        theirs.extend(peer.commits(TURN, 1)?);
    }
    let after = store.engine().requests();
    let calls = ours.len() as f64;
    let (ours, around) = spread(ours);
    let (theirs, _) = spread(theirs);
    let requests = (after.total() - before.total()) as f64 / calls;
    let bytes = (after.bytes_sent - before.bytes_sent) as f64 / calls;
    let mut row = |measure, unit, ours, peers, spread| {
        let case = "object store: a call that changes 8 bytes";
        rows.push(Row {
            case,
            measure,
            unit,
            ours,
            peers,
            spread,
        });
    };
    row("latency", "s", ours, vec![("slatedb", theirs)], Some(around));
    row("rate", "1/s", 1.0 / ours, vec![("slatedb", 1.0 / theirs)], None);
    row("requests", "1", requests, vec![], None);
    row("bytes sent", "B", bytes, vec![], None);
    client.close();
    Ok((requests, theirs / ours))
}

/// Requests and time of opening a store that has been written to.
fn cold_open(servers: &Servers, rows: &mut Vec<Row>) -> Result<f64> {
    let location = servers.location("commits")?;
    let (mut requests, mut seconds, mut first_page) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..10 {
        let start = Instant::now();
        let store = open(location.clone(), &Options::default())?;
        let client = client(store.clone(), "object")?;
        seconds.push(start.elapsed().as_secs_f64());
        requests.push(store.engine().requests().total() as f64);
        client.read(0, 1);
        first_page.push(start.elapsed().as_secs_f64());
        client.close();
    }
    let case = "object store: cold open for writing";
    let (requests, _) = spread(requests);
    let mut row = |measure, unit, ours, spread| {
        rows.push(Row {
            case,
            measure,
            unit,
            ours,
            peers: vec![],
            spread,
        });
    };
    row("requests", "1", requests, None);
    let (open, around) = spread(seconds);
    row("latency", "s", open, Some(around));
    let (first, around) = spread(first_page);
    row("latency with the first page", "s", first, Some(around));
    Ok(requests)
}

/// Requests of tasks that commit at the same time: each on a store of its own, and all on one.
fn tasks(servers: &Servers, rounds: usize, rows: &mut Vec<Row>) -> Result<f64> {
    let shared = open(servers.location("shared")?, &Options::default())?;
    let stores = vec![shared.clone(); TASKS];
    run_tasks(&stores, 1)?;
    let before = shared.engine().requests().total();
    let seconds = run_tasks(&stores, rounds)?;
    let together = (shared.engine().requests().total() - before) as f64;
    let open_alone = |number| {
        Ok(open(
            servers.location(&format!("alone-{number}"))?,
            &Options::default(),
        )?)
    };
    let stores: Vec<_> = (0..TASKS).map(open_alone).collect::<Result<_>>()?;
    run_tasks(&stores, 1)?;
    let total = || {
        stores
            .iter()
            .map(|store| store.engine().requests().total())
            .sum::<u64>()
    };
    let before = total();
    let seconds_alone = run_tasks(&stores, rounds)?;
    let alone = (total() - before) as f64;
    let case = "object store: 64 tasks, one call each at a time";
    let mut row = |measure, unit, ours, alone| {
        let peers = vec![("each on a store of its own", alone)];
        rows.push(Row {
            case,
            measure,
            unit,
            ours,
            peers,
            spread: None,
        });
    };
    let calls = (TASKS * rounds) as f64;
    row("requests per call", "1", together / calls, alone / calls);
    row("rate of all", "1/s", calls / seconds, calls / seconds_alone);
    Ok(together / alone)
}

fn run_tasks(stores: &[Arc<ObjectStorage>], rounds: usize) -> Result<f64> {
    let clients: Vec<Client> = (0..)
        .zip(stores)
        .map(|(number, store)| client(store.clone(), &format!("task-{number}")))
        .collect::<Result<_>>()?;
    let start = Instant::now();
    thread::scope(|scope| {
        let running: Vec<_> = (0..)
            .zip(&clients)
            .map(|(seed, client)| {
                scope.spawn(move || -> Result<()> {
                    let (mut pages, mut random) = (pages(), Random::new(seed));
                    (0..rounds).try_for_each(|_| commit(client, &mut pages, &mut random).map(drop))
                })
            })
            .collect();
        running
            .into_iter()
            .try_for_each(|task| task.join().expect("a task does not panic"))
    })?;
    let seconds = start.elapsed().as_secs_f64();
    clients.into_iter().for_each(Client::close);
    Ok(seconds)
}

/// Commits of the SQL pager and plain updates of one row, in turn.
fn sql_commits(servers: &Servers, turns: usize, rows: &mut Vec<Row>) -> Result<f64> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let (database, connection) =
        runtime.block_on(tokio_postgres::connect(&servers.postgres, tokio_postgres::NoTls))?;
    runtime.spawn(connection);
    let prepare = "DROP SCHEMA IF EXISTS bench CASCADE; CREATE SCHEMA bench;
        CREATE TABLE bench.rows (id bigint PRIMARY KEY, bytes bytea NOT NULL) WITH (toast_tuple_target = 8160);
        ALTER TABLE bench.rows ALTER COLUMN bytes SET STORAGE EXTERNAL;
        INSERT INTO bench.rows SELECT n, decode(repeat('ab', 4096), 'hex') FROM generate_series(0, 1023) n";
    runtime.block_on(database.batch_execute(prepare))?;
    let update = runtime.block_on(database.prepare("UPDATE bench.rows SET bytes = $2 WHERE id = $1"))?;
    let separator = if servers.postgres.contains('?') { '&' } else { '?' };
    let url = format!("{}{separator}options=-csearch_path%3Dbench", servers.postgres);
    let store = vmsync_pager_sql::open(&url, &Default::default())?;
    let client = client(store, "object")?;
    let (mut pages, mut random) = (pages(), Random::new(2));
    // Every page is there, as every row is.
    let call = Client::call();
    for (page, bytes) in (0..).zip(&mut pages) {
        random.fill(bytes);
        client.give(call, page, bytes)?;
    }
    client.sync(call, 0, OBJECT_PAGES)?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for turn in 0..=turns {
        for _ in 0..TURN {
            let seconds = commit(&client, &mut pages, &mut random)?;
            let (id, bytes) = (random.below(OBJECT_PAGES), pages[0].clone());
            let start = Instant::now();
            runtime.block_on(database.execute(&update, &[&(id as i64), &bytes]))?;
            if turn > 0 {
                ours.push(seconds);
                theirs.push(start.elapsed().as_secs_f64());
            }
        }
    }
    let ((ours, around), (theirs, _)) = (spread(ours), spread(theirs));
    rows.push(Row {
        case: "PostgreSQL: a call that changes one page",
        measure: "latency",
        unit: "s",
        ours,
        peers: vec![("update of one row", theirs)],
        spread: Some(around),
    });
    client.close();
    Ok(ours / theirs)
}

fn machine() -> String {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let model = read("/proc/cpuinfo");
    let model = model
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .unwrap_or("");
    let cores = thread::available_parallelism().map_or(0, usize::from);
    format!(
        "{cores} cores, {}, Linux {}",
        model.trim_start_matches([' ', '\t', ':']),
        read("/proc/sys/kernel/osrelease").trim()
    )
}

fn print_table(rows: &[Row], summary: &Value) {
    for row in rows {
        print!(
            "{:<48} {:<28} {:>12.6} {:<4}",
            row.case, row.measure, row.ours, row.unit
        );
        if let Some((low, high)) = row.spread {
            print!(" ({low:.6} to {high:.6})");
        }
        for (name, value) in &row.peers {
            print!("  {name}: {value:.6}");
        }
        println!();
    }
    println!("{summary:#}");
}

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().collect();
    if arguments.iter().any(|argument| argument == "--test") || env::var_os("VMSYNC_S3").is_none() {
        eprintln!("SKIPPED: use `cargo xtask bench remote`");
        return Ok(());
    }
    let number = |name: &str, otherwise| {
        let position = arguments.iter().position(|argument| argument == name);
        position
            .and_then(|at| arguments.get(at + 1)?.parse().ok())
            .unwrap_or(otherwise)
    };
    let (turns, rounds) = (number("--turns", 30), number("--rounds", 20));
    // The first one to choose a provider decides for the process; any will do.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let servers = Servers::find()?;
    let mut rows = Vec::new();
    let (requests, rate) = object_commits(&servers, turns, &mut rows)?;
    let cold = cold_open(&servers, &mut rows)?;
    let shared = tasks(&servers, rounds, &mut rows)?;
    let sql = sql_commits(&servers, turns, &mut rows)?;
    let summary = json!({
        "requests_per_commit": requests, "cold_open_requests": cold, "commit_rate_vs_slatedb": rate,
        "commit_vs_pg_update": sql, "requests_64_tasks_vs_alone": shared,
    });
    if !arguments.iter().any(|argument| argument == "--json") {
        print_table(&rows, &summary);
        return Ok(());
    }
    let rows: Vec<Value> = rows
        .iter()
        .map(|row| {
            let peers: serde_json::Map<_, _> = row
                .peers
                .iter()
                .map(|(name, value)| ((*name).to_owned(), json!(value)))
                .collect();
            json!({
                "case": row.case, "measure": row.measure, "unit": row.unit, "ours": row.ours, "peers": peers,
                "spread": row.spread,
            })
        })
        .collect();
    let answer = json!({ "bench": "remote", "machine": machine(), "rows": rows, "summary": summary });
    println!("{answer:#}");
    Ok(())
}
