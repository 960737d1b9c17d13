//! `cargo xtask bench NAME`: a benchmark with its peers in the same run. Timings never decide a test.

use anyhow::Result;
use clap::{Args, ValueEnum};

use crate::{
    c_guests, peers,
    servers::{Server, Servers},
    steps::{Workspace, run},
    web_bench,
};

/// Compare with what others do, on this machine.
#[derive(Args)]
pub struct Bench {
    /// Which one.
    name: Name,
    /// Print one JSON object instead of a table (and, but for guests, a plot: target/bench/NAME.svg).
    #[arg(long)]
    json: bool,
    /// Arguments for the benchmark itself, see its --help.
    #[arg(last = true)]
    arguments: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Name {
    /// Commits of a guest against msync(2), LMDB, redb, SQLite (`-- --rocksdb`: RocksDB) and the disk's floor; opening; bytes written.
    Commit,
    /// Every tracker against stock Wasmtime, the kernel's own faults and the peers' mechanisms.
    Tracking,
    /// SQLite, LMDB and a persistent map as guests, against stock Wasmtime, native and the ordinary heap.
    Guests,
    /// Pagers of remote engines against SlateDB and plain updates in PostgreSQL, on servers that this starts.
    Remote,
    /// A page's syncs against the browser's floor, SQLite and PGlite.
    Web,
}

impl Bench {
    pub fn run(&self, workspace: &Workspace) -> Result<()> {
        let name = match self.name {
            Name::Commit => "commit",
            Name::Tracking => "tracking",
            Name::Guests => "guests",
            Name::Remote => return self.remote(workspace),
            Name::Web => return web_bench::bench(workspace, self.json),
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
        let servers = Servers::start(&[Server::Postgres, Server::Ceph])?;
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
