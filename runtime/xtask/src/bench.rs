//! `cargo xtask bench NAME`: a benchmark with its peers in the same run. Timings never decide a test.

use anyhow::{Result, ensure};
use clap::{Args, ValueEnum};

use crate::{
    c_guests, peers,
    servers::{Server, Servers},
    steps::{Workspace, run},
    web_bench,
};

/// Compare with what others do, on this machine.
///
/// What is compared is built first, some minutes the first time, and what is missing is installed where that is possible (as
/// root on Debian; else it is named). Measure on an idle machine: whatever else runs is in the figures. How they are to be
/// read, and what came out: runtime/docs/PERFORMANCE.md, and for remote host-pagers/object/README.md.
#[derive(Args)]
pub struct Bench {
    /// Which one.
    name: Name,
    /// Print one JSON object instead of a table (and, of commit and tracking, a plot: target/bench/NAME.svg).
    #[arg(long)]
    json: bool,
    /// Arguments for the benchmark itself: see its name.
    #[arg(last = true)]
    arguments: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Name {
    /// Commits of a guest against msync(2), LMDB, redb, SQLite and the disk's floor; opening; bytes written. Needs 8 GB of the
    /// disk that is measured. ARGUMENTS: --rounds N, --seed N, --folder DIR (on which disk), --rocksdb (RocksDB as well: Debian's
    /// librocksdb-dev and libclang-dev).
    Commit,
    /// Every tracker that works here against stock Wasmtime, the kernel's own faults and the peers' mechanisms. Needs what
    /// guests are built with. ARGUMENTS: --rounds N, --only PART (of a kernel's name).
    Tracking,
    /// SQLite, LMDB and a persistent map as guests, against stock Wasmtime, native and the ordinary heap. Needs what guests are
    /// built with. ARGUMENTS: --rounds N, --folder DIR (on which disk), --only sqlite, lmdb or map_insert.
    Guests,
    /// Pagers of remote engines against SlateDB and plain updates in PostgreSQL, on servers that this starts. Needs PostgreSQL
    /// and Ceph's radosgw. ARGUMENTS: --turns N, --rounds N.
    Remote,
    /// A page's syncs against the browser's floor, SQLite and PGlite. Needs what guests are built with, Node 20 with npm, and
    /// Chromium. No ARGUMENTS.
    Web,
}

impl Bench {
    pub fn run(&self, workspace: &Workspace) -> Result<()> {
        let name = match self.name {
            Name::Commit => "commit",
            Name::Tracking => "tracking",
            Name::Guests => "guests",
            Name::Remote => return self.remote(workspace),
            Name::Web => {
                ensure!(self.arguments.is_empty(), "bench web takes no arguments");
                return web_bench::bench(workspace, self.json);
            }
        };
        let mut cargo = if self.name == Name::Commit {
            let rocksdb = self.arguments.iter().any(|argument| argument == "--rocksdb");
            let mut cargo = peers::cargo(workspace, &["run", "--release"], rocksdb);
            cargo.args(["--bin", name, "--"]);
            cargo
        } else {
            let mut cargo = workspace.cargo(["bench", "--workspace", "--bench", name, "--"]);
            workspace.guests()?;
            cargo.env("VMSYNC_GUESTS", workspace.guests_folder());
            cargo
        };
        if self.name == Name::Guests {
            let native = c_guests::build_native_lmdb(&workspace.root, &workspace.target)?;
            cargo.env("VMSYNC_LMDB_NATIVE", native);
        }
        if self.json {
            cargo.arg("--json");
        } else if self.name != Name::Guests {
            let folder = workspace.target.join("bench");
            std::fs::create_dir_all(&folder)?;
            cargo.arg("--plot").arg(folder.join(format!("{name}.svg")));
        }
        run(&format!("bench {name}"), cargo.args(&self.arguments))
    }

    fn remote(&self, workspace: &Workspace) -> Result<()> {
        let folder = workspace.root.join("demos/peers/slatedb");
        let target = workspace.target.join("demos/peers/slatedb");
        let mut build = workspace.cargo(["build", "--release"]);
        build.current_dir(&folder).env("CARGO_TARGET_DIR", &target);
        run(
            "build the peer SlateDB (a few minutes the first time)",
            &mut build,
        )?;
        // Of the whole workspace, as the other benches: a package of its own would compile other features once more.
        let bench = ["bench", "--workspace", "--bench", "remote"];
        run("build the bench", workspace.cargo(bench).arg("--no-run"))?;
        let servers = Servers::start(&[Server::Postgres, Server::Ceph], true)?;
        let mut cargo = workspace.cargo(bench);
        cargo.envs(servers.variables());
        cargo.env("VMSYNC_PEER_SLATEDB", target.join("release/vmsync-peer-slatedb"));
        cargo.arg("--");
        if self.json {
            cargo.arg("--json");
        }
        run("bench remote", cargo.args(&self.arguments))
    }
}
