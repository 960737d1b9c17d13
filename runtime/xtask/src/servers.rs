//! Real servers for the tests and benchmarks of remote pagers, on loopback, with nothing kept.
//!
//! Tests find them by environment variables:
//!
//! | variable | what |
//! |---|---|
//! | `VMSYNC_PG` | URL of PostgreSQL, with a password |
//! | `VMSYNC_PG_PID`, `VMSYNC_S3_PID` | files with the servers' process numbers: what is killed is started again |
//! | `VMSYNC_S3` | URL of an S3 server's bucket: `http://HOST:PORT/BUCKET` |
//! | `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` | for it |
//!
//! Invariants:
//! - a server listens on loopback only, ends with this process, and its folder goes with it;
//! - nothing of the machine's own servers is touched.

mod ceph;
mod postgres;

use std::{
    fs, io,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::steps::step;

/// The servers, running.
pub struct Servers {
    postgres: Option<postgres::Postgres>,
    ceph: Option<ceph::Ceph>,
}

/// A server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Server {
    Postgres,
    Ceph,
}

impl Servers {
    /// Starts them, after installing what is missing. Without `fsync`, PostgreSQL's commits survive a kill and no loss of
    /// power, and it does not sync its folder before it starts again.
    pub fn start(wanted: &[Server], fsync: bool) -> Result<Self> {
        step(&format!("start {wanted:?}"));
        let start = Instant::now();
        let wants = |server| wanted.contains(&server);
        let postgres = wants(Server::Postgres)
            .then(|| postgres::Postgres::start(fsync))
            .transpose();
        let ceph = wants(Server::Ceph).then(ceph::Ceph::start).transpose();
        eprintln!("    servers: {:.1} s", start.elapsed().as_secs_f64());
        Ok(Self {
            postgres: postgres.context("PostgreSQL for the tests of host-pagers/sql")?,
            ceph: ceph.context("Ceph RGW for the tests of host-pagers/object")?,
        })
    }

    /// What programs need to find them.
    pub fn variables(&self) -> Vec<(&'static str, String)> {
        let path = |path: &Path| path.display().to_string();
        let mut variables = Vec::new();
        if let Some(postgres) = &self.postgres {
            variables.push(("VMSYNC_PG", postgres.url.clone()));
            variables.push(("VMSYNC_PG_PID", path(postgres.pid())));
        }
        if let Some(ceph) = &self.ceph {
            variables.push(("VMSYNC_S3", ceph.url.clone()));
            variables.push(("VMSYNC_S3_PID", path(ceph.pid())));
            variables.push(("AWS_ACCESS_KEY_ID", ceph::ACCESS_KEY.to_owned()));
            variables.push(("AWS_SECRET_ACCESS_KEY", ceph.secret_key.clone()));
        }
        variables
    }
}

/// Starts the servers and says where they are, until standard input ends.
pub fn serve() -> Result<()> {
    let servers = Servers::start(&[Server::Postgres, Server::Ceph], false)?;
    for (name, value) in servers.variables() {
        println!("export {name}='{value}'");
    }
    eprintln!("running until standard input ends (Ctrl-D)");
    io::copy(&mut io::stdin(), &mut io::sink())?;
    Ok(())
}

/// A process that is started again when it ends, as a service is, until its owner ends.
struct Service {
    stop: Arc<AtomicBool>,
    pid: PathBuf,
    thread: Option<JoinHandle<()>>,
}

impl Service {
    /// Starts what `command` makes. What it prints goes to `NAME.out` in `folder`, its number to `NAME.pid`.
    fn start(folder: &Path, name: &str, command: impl Fn() -> Command + Send + 'static) -> Result<Self> {
        let (log, pid) = (
            folder.join(format!("{name}.out")),
            folder.join(format!("{name}.pid")),
        );
        let file = fs::File::create(&log).with_context(|| format!("cannot create {}", log.display()))?;
        let start = move || -> io::Result<Child> {
            let mut command = command();
            command
                .stdin(Stdio::null())
                .stdout(file.try_clone()?)
                .stderr(file.try_clone()?);
            command.spawn()
        };
        let stop = Arc::new(AtomicBool::new(false));
        let (own_stop, own_pid) = (stop.clone(), pid.clone());
        // The processes end with this thread (`setpriv --pdeathsig`), and this thread with the service.
        let thread = thread::spawn(move || {
            while !own_stop.load(Ordering::Acquire) {
                if let Ok(mut child) = start() {
                    let _ = fs::write(&own_pid, child.id().to_string());
                    while !own_stop.load(Ordering::Acquire) && matches!(child.try_wait(), Ok(None)) {
                        thread::sleep(Duration::from_millis(20));
                    }
                    end(&mut child);
                }
                thread::sleep(Duration::from_millis(50));
            }
        });
        Ok(Self {
            stop,
            pid,
            thread: Some(thread),
        })
    }
}

/// Ends a process at once: it keeps nothing, but PostgreSQL gives shared memory back.
fn end(child: &mut Child) {
    let _ = Command::new("kill")
        .arg("-QUIT")
        .arg(child.id().to_string())
        .stderr(Stdio::null())
        .status();
    for _ in 0..50 {
        if !matches!(child.try_wait(), Ok(None)) {
            return;
        }
        thread::sleep(Duration::from_millis(20));
    }
    let _ = child.kill();
    let _ = child.wait();
}

impl Drop for Service {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A folder that goes with its owner.
struct Folder(PathBuf);

impl Folder {
    /// Makes one where also other users may go, with a short path: sockets have no room for a long one. Who was killed leaves
    /// its own, so no number that comes again is in the name.
    fn new(name: &str) -> Result<Self> {
        let path = std::env::temp_dir().join(format!("vmsync-{name}-{}", &secret()?[..8]));
        fs::create_dir(&path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A port of loopback that nobody uses now.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// A secret that nobody guesses.
fn secret() -> Result<String> {
    use io::Read;
    let mut bytes = [0; 16];
    fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Waits until `ready` answers; where it never does, the end of `log` is the error.
fn wait_until(log: &Path, mut ready: impl FnMut() -> bool) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(300);
    while !ready() {
        if Instant::now() >= deadline {
            let text = fs::read_to_string(log).unwrap_or_default();
            let lines: Vec<_> = text.lines().collect();
            bail!(
                "it does not start: {}",
                lines[lines.len().saturating_sub(5)..].join(" | ")
            );
        }
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}
