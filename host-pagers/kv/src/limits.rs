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

/// Queued bytes that make an asynchronous call commit before it returns.
pub const QUEUE_BYTES_MAX: usize = 64 << 20;

/// The most that one call may return: it is held in memory, together with the pages that it replaces.
pub const CALL_BYTES_MAX: usize = 1 << 30;

/// The largest object: the same as in the file store, so that objects can move between the two.
pub const OBJECT_BYTES_MAX: u64 = 1 << 44;

/// Objects in a store: their table is held in memory while it is open.
pub const OBJECTS_MAX: usize = 1 << 16;

/// The longest wait on behalf of a caller. Far above what a working disk needs; nothing waits for ever.
pub const WAIT_MAX: Duration = Duration::from_secs(60);

const _: () = assert!(GROUP_BYTES_MAX <= QUEUE_BYTES_MAX);
const _: () = assert!(QUEUE_BYTES_MAX <= CALL_BYTES_MAX);
