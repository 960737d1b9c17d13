//! Every bound of the front and its reason.

use std::time::Duration;

/// Queued bytes that make an asynchronous call commit before it returns.
pub const QUEUE_BYTES_MAX: usize = 64 << 20;

/// The most that one call may return, unless the engine says otherwise: it is held in memory until the engine has it.
pub const CALL_BYTES_MAX: usize = 256 << 20;

/// The largest object: the same as in the file store, so that objects can move between the two.
pub const OBJECT_BYTES_MAX: u64 = 1 << 44;

/// Objects in a store, unless the engine says otherwise: their table is held in memory while it is open, and an object
/// store writes it with each commit.
pub const OBJECTS_MAX: usize = 4096;

/// The longest wait for another thread's commit. Longer than an engine tries ([`ENGINE_WAIT_MAX`]), so that the
/// engine's own error is what a caller sees.
pub const WAIT_MAX: Duration = Duration::from_secs(90);

/// How long an engine tries one operation before it gives up.
pub const ENGINE_WAIT_MAX: Duration = Duration::from_secs(30);

/// How often a read is repeated because a commit of the same object came between; then commits have to wait.
pub const READ_RETRIES_MAX: usize = 3;

const _: () = assert!(WAIT_MAX.as_secs() >= 2 * ENGINE_WAIT_MAX.as_secs());
const _: () = assert!(QUEUE_BYTES_MAX <= CALL_BYTES_MAX);
