//! Every bound of the pool and its reason.

/// The room of a file's header: a page, so that what follows stays aligned to pages. Of it one sector is written.
pub const HEADER_BYTES: usize = 4096;

/// Files that a new pool has: `STORE`, some segments of the journal, and two for each of a few objects.
pub const FILES_DEFAULT: usize = 16;

/// The most files of a pool: Safari opens at most 252 handles for an origin.
pub const FILES_MAX: usize = 240;

/// How often the first file is tried while another worker has it open. A worker that was just terminated gives its files
/// up a moment later.
pub const LOCK_TRIES: u32 = 20;

/// The wait between two tries, in milliseconds.
pub const LOCK_WAIT_MS: i32 = 50;
