//! Every bound of the browser host and its reason.

use std::time::Duration;

/// A journal segment of a store that is made in a page: small, because it is filled with zeroes before the first commit.
pub const SEGMENT_BYTES: u64 = 1 << 20;

/// Journal that starts a checkpoint: the engine takes it between two calls, and the next one waits, so it stays short.
pub const CHECKPOINT_BYTES: u64 = 4 << 20;

/// How long an asynchronous call stays queued before the engine writes it.
pub const WRITE_BEHIND_DELAY: Duration = Duration::from_millis(20);

/// Files that a guest's next call can make without waiting: two for an object, and some for the journal.
pub const FILES_RESERVED: usize = 8;

/// The most objects that one guest may open.
pub const GRANTS_MAX: usize = 1_024;

/// The largest store that is exported: a page has it in memory twice, as files and as one file.
pub const EXPORT_BYTES_MAX: u64 = 1 << 30;

/// Bytes of the card table that are looked at in one step.
pub const CARDS_CHUNK_BYTES: u64 = 1 << 16;

/// The largest description of pages that a page can ask for at once, in pages: 4 GiB of them.
pub const PICTURE_PAGES_MAX: u32 = 1 << 20;
