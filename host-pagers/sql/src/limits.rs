//! Every bound of the pager and its reason.

use std::time::Duration;

/// How long an asynchronous call stays queued: long enough to share a transaction with its neighbours, short enough
/// that a crash loses little.
pub const WRITE_BEHIND_DELAY_DEFAULT: Duration = Duration::from_millis(5);

/// A group is closed at so many bytes: a statement is held in the server's memory as a whole.
pub const GROUP_BYTES_MAX: usize = 8 << 20;

/// How long one statement may take before the connection counts as lost. A server that is alive answers the largest
/// group in a small part of it; one call that is larger has [`more_time`].
pub const STATEMENT_WAIT_MAX: Duration = Duration::from_secs(10);

/// How long the server lets a statement run, or wait for a lock, in milliseconds: less than [`STATEMENT_WAIT_MAX`],
/// so that a lost client leaves nothing behind that is still waiting.
pub const SERVER_WAIT_MS: u32 = 8_000;

/// The least that a server and the way to it have to manage in a second of what a call returns: the slowest ones that
/// are of use, and the largest call is still done before the pager gives up.
pub const BYTES_PER_SECOND_MIN: usize = 16 << 20;

/// What a statement with so many bytes has on top of [`STATEMENT_WAIT_MAX`] and [`SERVER_WAIT_MS`]: nothing for a group.
pub const fn more_time(bytes: usize) -> Duration {
    Duration::from_secs((bytes / BYTES_PER_SECOND_MIN) as u64)
}

/// Bytes of pages of a removed object that one statement removes: it is over long before [`SERVER_WAIT_MS`], also on a server that is
/// as slow as [`BYTES_PER_SECOND_MIN`] allows.
pub const BYTES_REMOVED_AT_ONCE: u64 = BYTES_PER_SECOND_MIN as u64;

/// How long connecting may take.
pub const CONNECT_WAIT_MAX: Duration = Duration::from_secs(5);

/// The first pause before a lost connection is made again; it doubles up to [`PAUSE_MAX`].
pub const PAUSE_FIRST: Duration = Duration::from_millis(50);

/// The longest such pause: a server that restarts is found soon after.
pub const PAUSE_MAX: Duration = Duration::from_secs(1);

const _: () = assert!((SERVER_WAIT_MS as u64) < STATEMENT_WAIT_MAX.as_secs() * 1000);
const _: () = assert!(GROUP_BYTES_MAX < BYTES_PER_SECOND_MIN);
const _: () = assert!(
    STATEMENT_WAIT_MAX.as_secs() + more_time(vmsync_pager_group::limits::CALL_BYTES_MAX).as_secs()
        < vmsync_pager_group::limits::ENGINE_WAIT_MAX.as_secs()
);
