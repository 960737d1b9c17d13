//! Writes that stop in the middle: this program runs itself as a child under a limit of the size of files (`RLIMIT_FSIZE`), which it
//! lowers and raises while it commits. The kernel writes what fits, and refuses the rest; where the limit is raised again, the same
//! process goes on. In the end the child kills itself, and another process opens what is left.
#![cfg(target_os = "linux")]

mod common;

use std::{
    collections::hash_map::DefaultHasher,
    hash::{Hash, Hasher},
    os::unix::process::ExitStatusExt,
    path::Path,
    process::Command,
};

use common::{Edit, Kept, NAMES, PAGES, State, client, contents, tiny};
use rustix::process::{Resource, Rlimit, Signal, getpid, getrlimit, kill_process, setrlimit};
use vmsync_core::{PagerError, PagerErrorKind};
use vmsync_pager_conformance::random::{Random, seeds};
use vmsync_pager_file::{FileStore, verify};

/// The child's store, and its seed; their presence makes a process the child.
const STORE: &str = "VMSYNC_FILE_SIZE_STORE";
const SEED: &str = "VMSYNC_FILE_SIZE_SEED";

const ROUNDS: u64 = 25;

/// The child prints it before a state that may be left of the store.
const LEFT: &str = "left: ";

fn limit_file_size(bytes: Option<u64>) {
    let maximum = getrlimit(Resource::Fsize).maximum;
    let limit = Rlimit {
        current: bytes.or(maximum),
        maximum,
    };
    setrlimit(Resource::Fsize, limit).unwrap();
}

fn sum(state: &State) -> u64 {
    let mut hasher = DefaultHasher::new();
    state.hash(&mut hasher);
    hasher.finish()
}

/// Whether `outcome` is a success; a failure tells of the limit.
fn works(outcome: Result<(), PagerError>) -> bool {
    let Err(error) = outcome else { return true };
    assert_eq!(error.kind, PagerErrorKind::NoSpace, "{error}");
    assert!(error.message.contains("raise the limit"), "{error}");
    false
}

/// The child: calls and checkpoints, some below the limit, some above it.
fn commit_under_limits(folder: &Path, seed: u64) {
    // SAFETY: no handler is installed; a write behind the limit is an error instead of the end of the process.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
    let mut random = Random::new(seed);
    let store = FileStore::open(folder, &tiny()).unwrap();
    let clients: Vec<_> = NAMES
        .iter()
        .map(|name| client(&store, name, PAGES).unwrap())
        .collect();
    let (mut kept, mut refused) = (Kept::zeroes(), 0);
    for round in 0..ROUNDS {
        // Somewhere in an image or a segment. Past the page cache, drives take what ends at a block, or at a sector of one.
        let unit = [1, 512, 4096][random.below(3) as usize];
        limit_file_size(Some(random.below(17 << 10) / unit * unit));
        for _ in 0..=random.below(3) {
            let edit = Edit::of_something(&mut random, &kept.committed);
            refused += u64::from(!works(kept.run(&store, &clients, &edit)));
        }
        if random.once_in(3) {
            works(store.checkpoint());
        }
        limit_file_size(None);
        kept.assert_left(folder);
        if round + 1 < ROUNDS {
            let edit = Edit::of_something(&mut random, &kept.committed);
            kept.run(&store, &clients, &edit).expect("the limit is raised");
        }
    }
    assert!(refused >= ROUNDS / 4, "{refused} calls were refused");
    for state in kept.failed.iter().chain([&kept.committed]) {
        println!("\n{LEFT}{}", sum(state));
    }
    kill_process(getpid(), Signal::KILL).unwrap();
}

#[test]
fn the_child() {
    if let (Some(folder), Ok(seed)) = (std::env::var_os(STORE), std::env::var(SEED)) {
        commit_under_limits(folder.as_ref(), seed.parse().unwrap());
    }
}

#[test]
fn writes_that_stop_in_the_middle_lose_nothing() {
    if std::env::var_os(STORE).is_some() {
        return;
    }
    for seed in seeds(2) {
        println!("SEED={seed}");
        let folder = tempfile::tempdir().unwrap();
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "the_child", "--nocapture", "--test-threads=1"])
            .env(STORE, folder.path())
            .env(SEED, seed.to_string())
            .output()
            .unwrap();
        let (said, error) = (
            String::from_utf8_lossy(&child.stdout),
            String::from_utf8_lossy(&child.stderr),
        );
        assert_eq!(child.status.signal(), Some(9), "{said}{error}");
        let left = said.lines().filter_map(|line| line.strip_prefix(LEFT));
        let left: Vec<u64> = left.map(|sum| sum.parse().unwrap()).collect();
        assert_eq!(verify(folder.path()).unwrap().problems, []);
        let found = contents(&FileStore::open(folder.path(), &tiny()).unwrap()).unwrap();
        assert!(
            left.contains(&sum(&found)),
            "neither what was committed nor what failed since"
        );
    }
}
