//! [`Postgres`]: a server with a data folder of its own. It refuses to run as root, so root starts it as `postgres`.

use std::{
    fs,
    net::TcpStream,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use super::{Folder, Service, free_port, secret, wait_until};
use crate::wasm_toolchain::{install, is_root, run};

const PACKAGES: &[&str] = &["postgresql"];
const VERSIONS: &str = "/usr/lib/postgresql";

/// A running server.
pub struct Postgres {
    /// `postgres://…`, with the password.
    pub url: String,
    /// Before the folder, so that it ends first.
    service: Service,
    _folder: Folder,
}

impl Postgres {
    pub fn start(fsync: bool) -> Result<Self> {
        let programs = match programs() {
            Some(programs) => programs,
            None => {
                install(PACKAGES, "PostgreSQL; on Debian")?;
                programs().with_context(|| format!("no PostgreSQL in {VERSIONS}"))?
            }
        };
        let folder = Folder::new("postgres")?;
        let (data, password, port) = (folder.0.join("data"), secret()?, free_port()?);
        let password_file = folder.0.join("password");
        fs::write(&password_file, &password)?;
        if is_root() {
            run(Command::new("chown")
                .args(["-R", "postgres:postgres"])
                .arg(&folder.0))?;
        }
        let mut init = unprivileged(&programs.join("initdb"));
        init.arg("-D").arg(&data).arg("--pwfile").arg(&password_file);
        init.args([
            "-U",
            "postgres",
            "-A",
            "scram-sha-256",
            "-E",
            "UTF8",
            "--no-locale",
            "--no-sync",
        ]);
        run(init.current_dir(&folder.0).stdout(std::process::Stdio::null()))?;
        let own = folder.0.clone();
        let service = Service::start(&folder.0, "postgres", move || {
            let mut server = unprivileged(&programs.join("postgres"));
            server
                .arg("-D")
                .arg(&data)
                .arg("-p")
                .arg(port.to_string())
                .arg("-k")
                .arg(&own);
            server
                .args(["-c", "listen_addresses=127.0.0.1", "-c", "max_connections=80"])
                .args(["-c", if fsync { "fsync=on" } else { "fsync=off" }])
                .current_dir(&own);
            server
        })?;
        // The socket's file appears when it accepts connections.
        let socket = folder.0.join(format!(".s.PGSQL.{port}"));
        wait_until(&folder.0.join("postgres.out"), || {
            socket.exists() && TcpStream::connect(("127.0.0.1", port)).is_ok()
        })?;
        Ok(Self {
            url: format!("postgres://postgres:{password}@127.0.0.1:{port}/postgres"),
            service,
            _folder: folder,
        })
    }
}

impl Postgres {
    /// The file with the number of its process.
    pub fn pid(&self) -> &Path {
        &self.service.pid
    }
}

/// The folder with the newest version's programs.
fn programs() -> Option<PathBuf> {
    let mut found: Vec<(u32, PathBuf)> = fs::read_dir(VERSIONS)
        .ok()?
        .flatten()
        .filter_map(|entry| {
            Some((
                entry.file_name().to_str()?.parse().ok()?,
                entry.path().join("bin"),
            ))
        })
        .filter(|(_, programs)| programs.join("postgres").exists() && programs.join("initdb").exists())
        .collect();
    found.sort();
    found.pop().map(|(_, programs)| programs)
}

/// `program`, as a user that it accepts; it ends when this process does.
fn unprivileged(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    if is_root() {
        command.args(["--reuid=postgres", "--regid=postgres", "--init-groups"]);
    }
    command.arg("--pdeathsig=QUIT").arg(program);
    command
}
