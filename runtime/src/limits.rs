//! A limit on everything the host side can make grow, each with its reason.

use std::time::Duration;

/// Mappings that a guest may take, whatever others have: enough for the regions of a program, and the host says how many guests
/// there are.
pub const MAPPINGS_MIN: usize = 64;

/// One guest takes this part of the mappings that the kernel allows a process (65,530, unless told otherwise) at most.
pub const MAPPINGS_PART: usize = 32;

/// All guests together take this part of them at most, beyond what is each one's own: the rest is the host's, and of who stores
/// (`vmsync_tracker::limits`).
pub const MAPPINGS_PART_ALL: usize = 2;

/// How long a call waits for a pager before it answers ABORTED: far above any healthy disk or server, below the
/// patience of a person.
pub const PAGER_TIME_OUT: Duration = Duration::from_secs(30);

/// The longest that a host can choose to wait: for ever in practice, and no clock overflows.
pub const PAGER_TIME_OUT_MAX: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Time-outs of tasks are looked at so often while they last: one comes late by this part of itself, and looking costs nothing.
pub const TICKS: u32 = 8;

/// Bounds of the time between two looks.
pub const TICK_MIN: Duration = Duration::from_millis(1);
/// See [`TICK_MIN`].
pub const TICK_MAX: Duration = Duration::from_secs(1);

/// Address space of a 64-bit linear memory, in bytes: pages cost nothing until they are used, but a host has 2^47
/// bytes for all of its guests.
pub const MEMORY64_RESERVED_BYTES_MAX: usize = 1 << 38;

/// Grants of one guest: a lookup by name stays cheap and a configuration stays readable.
pub const GRANTS_MAX: usize = 4_096;

/// Tables and globals of a durable instance, in bytes: four for each element of a table, of which Wasmtime allows ten
/// million by default.
pub const DURABLE_STATE_BYTES_MAX: u64 = 1 << 26;
