//! A task that moves between two hosts: network namespaces of this machine, with a link each to the store's server.
//!
//! Host A runs a guest until its link is cut. It is declared dead, and host B maps the same object and goes on. When A's
//! link is back, A still tries. Nothing that either host has acknowledged may be lost, and A may acknowledge nothing any
//! more. Then B closes the store, and a new host A goes on where B has ended.

mod support;

use std::{
    env,
    io::{self, BufRead, BufReader, Lines, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use support::guests;
use vmsync::{Grant, ObjectName, Pager, Sandbox};
use vmsync_pager_conformance::Proxy;

/// The store's URL, for a host.
const STORE: &str = "VMSYNC_TEST_STORE";

/// The object in it.
const OBJECT: &str = "VMSYNC_TEST_OBJECT";

/// Not a test of its own: the host, which counts until its standard input ends or a call fails.
#[test]
fn host() {
    let (Ok(url), Some(guests)) = (env::var(STORE), env::var_os("VMSYNC_GUESTS")) else {
        return;
    };
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    thread::spawn(move || {
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        stopped.store(true, Ordering::Release);
    });
    let store: Arc<dyn Pager> = if url.starts_with("s3:") {
        let location = vmsync_pager_object::Location::new(&url).unwrap();
        vmsync_pager_object::open(location, &Default::default()).unwrap()
    } else {
        vmsync_pager_sql::open(&url, &Default::default()).unwrap()
    };
    let object = ObjectName::new(&env::var(OBJECT).unwrap()).unwrap();
    let grant = Grant::new(store, object);
    let sandbox = Sandbox::builder().grant("counter", grant).build().unwrap();
    let module = std::fs::read(Path::new(&guests).join("counter.wasm")).unwrap();
    let mut guest = sandbox.instantiate(&module).unwrap();
    while !stop.load(Ordering::Acquire) {
        let count = guest.call::<(), i64>("add", ()).unwrap();
        println!("\ncount {count}");
        io::stdout().flush().unwrap();
        if count < 0 {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// A network namespace with a link to this one.
struct Net {
    name: String,
    link: String,
    ours: IpAddr,
}

fn ip(arguments: &str) -> bool {
    let words = arguments.split_whitespace();
    Command::new("ip")
        .args(words)
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Removes the namespaces, and with them the links, of processes that were killed: a link that is left would take the
/// packets for its addresses.
fn remove_abandoned() {
    let listed = Command::new("ip").args(["netns", "list"]).output();
    let text = listed.map_or(String::new(), |output| {
        String::from_utf8_lossy(&output.stdout).into_owned()
    });
    for name in text.lines().filter_map(|line| line.split(' ').next()) {
        let pid = name
            .strip_prefix("vmsync-")
            .and_then(|rest| rest.split('-').next());
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            ip(&format!("netns del {name}"));
        }
    }
}

impl Net {
    /// `None` where this process may not make one. `number` is below 4.
    fn new(number: u32) -> Option<Self> {
        let pid = std::process::id();
        let (name, link, inner) = (
            format!("vmsync-{pid}-{number}"),
            format!("vm{pid}o{number}"),
            format!("vm{pid}i{number}"),
        );
        // Four networks of four addresses for each process, so that runs at the same time do not meet.
        let base = pid % (1 << 12) * 16 + number * 4;
        let address = |host: u32| Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 213, 0, 0)) + base + host);
        let net = Self {
            ours: address(1).into(),
            name,
            link,
        };
        let (Self { name, link, ours }, theirs) = (&net, address(2));
        let made = ip(&format!("netns add {name}"))
            && ip(&format!(
                "link add {link} type veth peer name {inner} netns {name}"
            ))
            && ip(&format!("addr add {ours}/30 dev {link}"))
            && ip(&format!("link set {link} up"))
            && ip(&format!("-n {name} addr add {theirs}/30 dev {inner}"))
            && ip(&format!("-n {name} link set {inner} up"));
        made.then_some(net)
    }

    /// Cuts the link, or mends it.
    fn set(&self, up: bool) {
        assert!(ip(&format!(
            "link set {} {}",
            self.link,
            if up { "up" } else { "down" }
        )));
    }

    /// Starts a host here, whose store is at `url` of `proxy`.
    fn host(&self, url: &str, proxy: &Proxy) -> Host {
        let address = proxy.address();
        let mut child = Command::new("ip")
            .args(["netns", "exec", &self.name])
            .arg(env::current_exe().unwrap())
            .args(["--exact", "host", "--nocapture"])
            .env(OBJECT, format!("hosts-{}", std::process::id()))
            .env(STORE, url.replace("ADDRESS", &address.to_string()))
            .env("AWS_ENDPOINT_URL", format!("http://{address}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Host { child, lines }
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        ip(&format!("link del {}", self.link));
        ip(&format!("netns del {}", self.name));
    }
}

struct Host {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Host {
    /// The next count that the host acknowledges, below zero for a failure.
    fn next(&mut self) -> Option<i64> {
        let mut counts = self.lines.by_ref().map_while(Result::ok);
        counts.find_map(|line| line.strip_prefix("count ")?.parse().ok())
    }

    /// Has the host close its store and end; answers with its last count.
    fn stop(mut self, mut last: i64) -> i64 {
        drop(self.child.stdin.take());
        while let Some(count) = self.next() {
            last = count;
        }
        assert!(self.child.wait().unwrap().success());
        last
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs the story on the store at `url`, whose server is at `server`.
fn a_task_moves(url: &str, server: SocketAddr, nets: [u32; 2]) {
    remove_abandoned();
    let (Some(left), Some(right)) = (Net::new(nets[0]), Net::new(nets[1])) else {
        eprintln!("SKIPPED: this process may not make network namespaces: run it as root, with iproute2");
        return;
    };
    let at = |net: &Net| Proxy::start_on(net.ours, server).unwrap();
    let (left_proxy, right_proxy) = (at(&left), at(&right));
    let mut a = left.host(url, &left_proxy);
    for expected in 1..=20 {
        assert_eq!(a.next(), Some(expected), "A counts");
    }
    left.set(false);
    let mut b = right.host(url, &right_proxy);
    let first = b.next().unwrap();
    // What A has acknowledged meanwhile, and no more once B goes on.
    let mut last = first;
    for _ in 0..20 {
        let count = b.next().unwrap();
        assert_eq!(count, last + 1, "B counts alone");
        last = count;
    }
    left.set(true);
    let (mut acknowledged, mut failed) = (20, false);
    while let Some(count) = a.next() {
        if count < 0 {
            failed = true;
            break;
        }
        acknowledged = count;
    }
    assert!(failed, "A is told");
    assert!(
        acknowledged < first,
        "A acknowledged {acknowledged}, which B does not have: it began with {first}"
    );
    assert!(
        first <= acknowledged + 2,
        "B began with {first}, A had {acknowledged} and one call on its way"
    );
    for _ in 0..5 {
        let count = b.next().unwrap();
        assert_eq!(count, last + 1, "B counts alone");
        last = count;
    }
    let last = b.stop(last);
    let mut again = left.host(url, &left_proxy);
    assert_eq!(again.next(), Some(last + 1), "A goes on where B has ended");
}

fn address(url: &str) -> SocketAddr {
    let rest = url.split_once("://").unwrap().1;
    let host = rest.split('/').next().unwrap();
    host.rsplit('@').next().unwrap().parse().unwrap()
}

#[test]
fn a_task_moves_over_an_object_store() {
    let (Some(_), Ok(server)) = (guests(), env::var("VMSYNC_S3")) else {
        return;
    };
    let bucket = server.rsplit('/').next().unwrap();
    a_task_moves(
        &format!("s3://{bucket}/hosts-{}", std::process::id()),
        address(&server),
        [0, 1],
    );
}

#[test]
fn a_task_moves_over_postgresql() {
    let (Some(_), Ok(server)) = (guests(), env::var("VMSYNC_PG")) else {
        return;
    };
    let address = address(&server);
    a_task_moves(&server.replace(&address.to_string(), "ADDRESS"), address, [2, 3]);
}
