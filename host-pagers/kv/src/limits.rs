//! Every bound of the store and its reason.

use std::time::Duration;

/// Memory for the database's own cache of its file, in bytes. The runtime keeps resident pages itself, so this holds
/// the inner nodes of the tree and little more.
pub const CACHE_BYTES_DEFAULT: usize = 64 << 20;

/// How long an asynchronous call stays queued: long enough to share a transaction with its neighbours, short enough
/// that a crash loses little.
pub const WRITE_BEHIND_DELAY_DEFAULT: Duration = Duration::from_millis(5);

/// A group is closed at so many bytes: above it writing takes longer than the sync that it would share.
pub const GROUP_BYTES_MAX: usize = 8 << 20;

/// The most that one call may return: it is held in memory until it is committed.
pub const CALL_BYTES_MAX: usize = 1 << 30;

/// Objects in a store: their table is held in memory while it is open.
pub const OBJECTS_MAX: usize = 1 << 16;
