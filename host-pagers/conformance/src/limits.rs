//! Every bound of this crate and its reason.

use std::time::Duration;

/// How long a check waits for a completion. Far above any sync of a loaded disk; a wait that runs into it is a bug of
/// the pager.
pub const COMPLETION_WAIT: Duration = Duration::from_secs(30);

/// Turns of an event loop that a check waits for a completion, where it cannot sleep: each takes a millisecond or so.
pub const PAUSES_MAX: u32 = 20_000;

/// Steps of the random check: enough that each kind of step meets each other kind, little enough for a pager that
/// takes milliseconds for a commit.
pub const RANDOM_STEPS: usize = 300;

/// Pages of which many go back at once: enough that a pager which compares them in parts does so.
pub const RUNS_PAGES: u64 = 800;

/// Rounds of each thread of the concurrent check, for the same reason.
pub const CONCURRENT_ROUNDS: u64 = 40;

/// How often the proxy looks whether its network has changed: soon enough for a test, seldom enough to cost nothing.
pub const PROXY_TURN: Duration = Duration::from_millis(5);

const _: () = assert!(COMPLETION_WAIT.as_secs() >= 10);
