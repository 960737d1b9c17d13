//! Every bound of the pager and its reason.

use std::time::Duration;

use vmsync_pager_group::limits::{CALL_BYTES_MAX, ENGINE_WAIT_MAX, WAIT_MAX};

/// How long an asynchronous call stays queued. A request takes tens of milliseconds and costs money, so it is worth
/// waiting for more calls to share it.
pub const WRITE_BEHIND_DELAY_DEFAULT: Duration = Duration::from_millis(100);

/// A group is closed at so many bytes: above it uploading takes longer than the request that it would share.
pub const GROUP_BYTES_MAX: usize = 32 << 20;

/// Changes that a manifest carries, in bytes. A request of this size takes no longer than an empty one, so small
/// commits need no object of their own.
pub const INLINE_BYTES_MAX: usize = 48 << 10;

/// Bytes of changes that manifests have repeated until a segment takes the changes. It costs one more request, and
/// uploads about as much.
pub const REPEATED_BYTES_MAX: usize = 1 << 20;

/// Pages that a manifest carries changes of: their images are held in memory.
pub const INLINE_PAGES_MAX: usize = 1024;

/// Bytes of pages in a segment: large enough for reading at full speed, small enough to be rewritten at once.
pub const SEGMENT_BYTES_MAX: usize = 16 << 20;

/// Segments with fewer live bytes than this are merged.
pub const SEGMENT_BYTES_SMALL: u64 = 8 << 20;

/// As soon as there are so many of them: opening reads the directory of each segment.
pub const SEGMENTS_SMALL_MAX: usize = 8;

/// How long a merge may take: it moves more bytes than a commit, and nobody waits for it.
pub const MERGE_WAIT_MAX: Duration = Duration::from_secs(4 * ENGINE_WAIT_MAX.as_secs());

/// Segments in a manifest: 1 TiB of full ones. Where a request takes 25 ms, each 14,000 of them take one call more until
/// their directories are read.
pub const SEGMENTS_MAX: usize = 1 << 16;

/// Bytes of a manifest: the objects, the segments and the inline changes at their limits.
pub const MANIFEST_BYTES_MAX: u64 = 8 << 20;

/// What is read at a time where nothing says that more will be needed.
pub const BLOCK_BYTES: u64 = 128 << 10;

/// What is read ahead when reading is sequential: then a request brings so much at least.
pub const AHEAD_BYTES: u64 = 4 << 20;

/// Blocks held in memory: 64 MiB.
pub const CACHE_BLOCKS: usize = 512;

/// Requests on the way at a time for one operation: more gain little from one client.
pub const REQUESTS_AT_ONCE: usize = 8;

/// One request, from connecting to its last byte; one that sends segments has [`sending`] on top.
pub const REQUEST_WAIT_MAX: Duration = Duration::from_secs(12);

/// What a line has to carry for calls of any size, 42 Mbit/s: the largest one has to be over before those that wait for
/// it give up. Smaller calls get by with less, as [`REQUEST_WAIT_MAX`] comes on top.
pub const BYTES_PER_SECOND_MIN: u64 = 5 << 20;

/// How long `bytes` are on the way.
pub const fn sending(bytes: usize) -> Duration {
    Duration::from_millis(bytes as u64 * 1000 / BYTES_PER_SECOND_MIN)
}

/// The longest request: one of so many segments that share the line.
pub const SEGMENTS_WAIT_MAX: Duration =
    REQUEST_WAIT_MAX.saturating_add(sending(REQUESTS_AT_ONCE * SEGMENT_BYTES_MAX));

/// Connecting.
pub const CONNECT_WAIT_MAX: Duration = Duration::from_secs(3);

/// The first pause before a request is repeated; it doubles up to [`PAUSE_MAX`].
pub const PAUSE_FIRST: Duration = Duration::from_millis(50);

/// The longest such pause.
pub const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Manifests behind the newest that stay: a reader that has just learnt of one still finds it.
pub const MANIFESTS_KEPT: u64 = 16;

/// Manifests that are removed in one request; also how many earlier writers may have left until the next one looks for
/// them with its first commit. What is read to find out is one manifest for each epoch among them, well within
/// [`ENGINE_WAIT_MAX`].
pub const MANIFESTS_REMOVED_AT_ONCE: u64 = 128;

/// Keys that are removed in one request: S3 takes no more.
pub const KEYS_REMOVED_AT_ONCE: usize = 1000;

/// How long a segment stays that nothing names any more. A reader that finds one gone reads the newest
/// manifest, but nothing of objects that have changed.
pub const GARBAGE_DELAY_DEFAULT: Duration = Duration::from_secs(60);

/// How far ahead of a writer that has been faster a claim is made at first: it commits two or three times while its
/// manifests are listed and the claim is created. Each time that it is faster again, the distance doubles.
pub const CLAIM_AHEAD_FIRST: u64 = 4;

/// The largest such distance: each number of it that the writer does not use takes a request.
pub const CLAIM_AHEAD_MAX: u64 = 1024;

const _: () = assert!(INLINE_BYTES_MAX < SEGMENT_BYTES_MAX);
const _: () = assert!(SEGMENT_BYTES_SMALL < SEGMENT_BYTES_MAX as u64);
const _: () = assert!(2 * REQUEST_WAIT_MAX.as_secs() < ENGINE_WAIT_MAX.as_secs());
const _: () = assert!(ENGINE_WAIT_MAX.as_secs() + sending(CALL_BYTES_MAX).as_secs() < WAIT_MAX.as_secs());
