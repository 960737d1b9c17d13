//! [`Ceph`]: an S3 server, radosgw, with the least cluster that carries it: one monitor, one OSD that keeps its
//! objects in memory.
//!
//! Daemons trust each other without keys (`auth_*` is `none`), so the monitor's clients have to use the plain mode.

use std::{
    fs,
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, anyhow};

use super::{Folder, Service, free_port, secret, wait_until};
use crate::wasm_toolchain::{find_program, install, run, stdout};

const PACKAGES: &[&str] = &["ceph-mon", "ceph-osd", "radosgw", "curl"];
const PROGRAMS: &[&str] = &[
    "ceph",
    "monmaptool",
    "ceph-mon",
    "ceph-osd",
    "radosgw",
    "radosgw-admin",
    "curl",
];
const BUCKET: &str = "vmsync";

/// A request without a body signs this.
const SHA256_OF_NOTHING: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// The user that the tests are.
pub const ACCESS_KEY: &str = "vmsync";

/// A running cluster.
pub struct Ceph {
    /// `http://HOST:PORT/BUCKET`.
    pub url: String,
    pub secret_key: String,
    /// Before the folder, so that they end first.
    gateway: Service,
    _daemons: [Service; 2],
    _folder: Folder,
}

impl Ceph {
    /// The file with the number of the gateway's process.
    pub fn pid(&self) -> &Path {
        &self.gateway.pid
    }

    pub fn start() -> Result<Self> {
        if PROGRAMS.iter().any(|program| find_program(program).is_none()) {
            install(PACKAGES, "Ceph's monitor, OSD and object gateway; on Debian")?;
        }
        let folder = Folder::new("ceph")?;
        let (monitor_port, port) = (free_port()?, free_port()?);
        let cluster = Cluster {
            folder: &folder.0,
            monitor: format!("[v1:127.0.0.1:{monitor_port}]"),
            id: uuid()?,
        };
        cluster.configure(port)?;
        let daemons = [cluster.monitor()?, cluster.osd()?];
        let gateway = cluster.service("radosgw", &["-n", "client.rgw", "-f"])?;
        wait_until(&folder.0.join("radosgw.out"), || {
            TcpStream::connect(("127.0.0.1", port)).is_ok()
        })?;
        let secret_key = secret()?;
        let mut user = cluster.command("radosgw-admin");
        user.args(["user", "create", "--uid=vmsync", "--display-name=vmsync"]);
        user.args(["--access-key", ACCESS_KEY, "--secret-key", &secret_key]);
        run(user.stdout(Stdio::null()).stderr(Stdio::null()))?;
        let url = format!("http://127.0.0.1:{port}/{BUCKET}");
        let mut bucket = Command::new("curl");
        bucket.args([
            "--silent",
            "--show-error",
            "--fail",
            "--retry",
            "10",
            "--retry-all-errors",
            "--request",
            "PUT",
            "--aws-sigv4",
            "aws:amz:us-east-1:s3",
        ]);
        bucket
            .arg("--header")
            .arg(format!("x-amz-content-sha256: {SHA256_OF_NOTHING}"));
        run(bucket
            .arg("--user")
            .arg(format!("{ACCESS_KEY}:{secret_key}"))
            .arg(&url))?;
        Ok(Self {
            url,
            secret_key,
            gateway,
            _daemons: daemons,
            _folder: folder,
        })
    }
}

struct Cluster<'a> {
    folder: &'a Path,
    monitor: String,
    id: String,
}

impl Cluster<'_> {
    fn command(&self, program: &str) -> Command {
        command(self.folder, program)
    }

    fn service(&self, program: &'static str, arguments: &[&str]) -> Result<Service> {
        let (folder, arguments): (PathBuf, Vec<String>) = (
            self.folder.into(),
            arguments.iter().map(|text| (*text).to_owned()).collect(),
        );
        Service::start(self.folder, program, move || {
            let mut command = command(&folder, program);
            command.args(&arguments);
            command
        })
    }

    fn configure(&self, port: u16) -> Result<()> {
        let folder = self.folder.display();
        for name in ["mon", "osd", "rgw"] {
            fs::create_dir(self.folder.join(name))?;
        }
        let text = format!(
            "[global]
            fsid = {id}
            mon_host = {monitor}
            public_addr = 127.0.0.1
            auth_cluster_required = none
            auth_service_required = none
            auth_client_required = none
            ms_mon_client_mode = crc
            ms_cluster_mode = crc
            ms_service_mode = crc
            ms_client_mode = crc
            mon_allow_pool_size_one = true
            mon_max_pg_per_osd = 1000
            osd_pool_default_size = 1
            osd_pool_default_min_size = 1
            osd_pool_default_pg_num = 8
            osd_pool_default_pg_autoscale_mode = off
            osd_crush_chooseleaf_type = 0
            osd_heartbeat_grace = 86400
            mon_data_avail_crit = 0
            osd_objectstore = memstore
            memstore_device_bytes = 2147483648
            mon_data = {folder}/mon
            osd_data = {folder}/osd
            rgw_data = {folder}/rgw
            run_dir = {folder}
            crash_dir = {folder}
            log_file = {folder}/$name.log
            admin_socket = {folder}/$name.asok
            pid_file = {folder}/$name.pid
            keyring = {folder}/keyring
            rgw_frontends = beast endpoint=127.0.0.1:{port}
            ",
            id = self.id,
            monitor = self.monitor,
        );
        let lines: Vec<_> = text.lines().map(str::trim_start).collect();
        fs::write(self.folder.join("ceph.conf"), lines.join("\n"))?;
        Ok(())
    }

    fn monitor(&self) -> Result<Service> {
        let map = self.folder.join("monmap");
        let mut make = Command::new("monmaptool");
        make.args(["--create", "--fsid", &self.id, "--addv", "a", &self.monitor])
            .arg(&map);
        run(make.stdout(Stdio::null()))?;
        let mut init = self.command("ceph-mon");
        run(init.args(["-i", "a", "--mkfs", "--monmap"]).arg(&map))?;
        self.service("ceph-mon", &["-i", "a", "-f"])
    }

    /// The OSD's number and its store have to carry the same uuid.
    fn osd(&self) -> Result<Service> {
        let osd = uuid()?;
        // The first command to the monitor waits until it listens, but not on a busy machine until it may answer.
        let mut told = Err(anyhow!("the monitor was not asked"));
        // Where it never may, its last refusal says more than its log.
        let _ = wait_until(&self.folder.join("ceph-mon.out"), || {
            told = stdout(self.command("ceph").args(["osd", "new", &osd]));
            told.is_ok()
        });
        let number = told?;
        let number = number.trim();
        let mut init = self.command("ceph-osd");
        init.args(["-i", number, "--mkfs", "--osd-uuid", &osd]);
        run(init.stdout(Stdio::null()).stderr(Stdio::null()))?;
        self.service("ceph-osd", &["-i", number, "-f"])
    }
}

/// `program` with the cluster's settings; it ends when this process does.
fn command(folder: &Path, program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command
        .arg("--pdeathsig=KILL")
        .arg(program)
        .arg("-c")
        .arg(folder.join("ceph.conf"));
    command
}

fn uuid() -> Result<String> {
    let text = fs::read_to_string("/proc/sys/kernel/random/uuid").context("no source of random ids")?;
    Ok(text.trim().to_owned())
}
