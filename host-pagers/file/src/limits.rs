//! Every bound of the store and its reason.

use std::time::Duration;

/// What a disk writes as a whole: the least of the drives in use. Headers that must not tear fit in one.
pub const SECTOR_BYTES: usize = 512;

/// What file systems and drives write at once and past the page cache: the largest block in use.
pub const BLOCK_BYTES: usize = 4096;

/// Room for a record that is kept for the next ones: larger ones are rare.
pub const ROOM_BYTES_MAX: usize = 1 << 20;

/// One slot of the superblock: a block of its own on every file system, so that writing one leaves the other alone.
pub const SLOT_BYTES: usize = 4096;

/// The room of a segment's header, for the same reason; records begin behind it.
pub const SEGMENT_HEADER_BYTES: usize = 4096;

/// Records begin at multiples of this, so that a search for records behind a damaged one is short.
pub const RECORD_ALIGN: usize = 8;

/// Size of a journal segment. Large enough that a new one is rare (it costs two syncs), small enough that writing one
/// full of zeroes takes milliseconds.
pub const SEGMENT_BYTES_DEFAULT: u64 = 16 << 20;

/// The smallest segment: room for a catalog of some objects and a record of some pages.
pub const SEGMENT_BYTES_MIN: u64 = 16 << 10;

/// Journal behind the active segment that starts a checkpoint. Replaying it reads each page that it names, which may be some
/// hundred thousand.
pub const CHECKPOINT_BYTES_DEFAULT: u64 = 32 << 20;

/// A journal of so many times the checkpoint threshold makes commits wait for the checkpoint, so that the disk is
/// not filled while images sync slowly.
pub const BACK_PRESSURE: u64 = 4;

/// Free segments that are kept: what a checkpoint frees at its threshold, and one that is made for a roll-over meanwhile. More are
/// removed.
pub const SEGMENTS_FREE_MAX: usize = 4;

/// Free segments that are kept although they failed, for a disk that has no room for others. More are removed.
pub const SEGMENTS_FAILED_MAX: usize = 1;

/// A group is closed at so many bytes: above it the write takes longer than the sync that it would share.
pub const GROUP_BYTES_MAX: usize = 8 << 20;

/// Queued bytes that make an asynchronous call wait for the disk.
pub const QUEUE_BYTES_MAX: usize = 64 << 20;

/// What a queued call costs beside its bytes, roughly: empty ones count, too.
pub const QUEUED_CALL_BYTES: usize = 512;

/// The most that one call may change: it is held in memory, and its length is a 32-bit field.
pub const CALL_BYTES_MAX: usize = 2 << 30;

/// The largest object: what ext4 can hold in a file with 4 KiB blocks.
pub const OBJECT_BYTES_MAX: u64 = 1 << 44;

/// Objects with records in the active segment, beyond as many as are open, before it is sealed, and a checkpoint follows: each
/// keeps a file open, and 1024 is a usual limit of those.
pub const OBJECTS_TOUCHED_MAX: usize = 128;

/// Calls, generations, superblocks and objects are numbered up to here, which a billion a second do not reach in a hundred
/// years: what is read from a file and is above it is damage, so no count overflows.
pub const NUMBER_MAX: u64 = 1 << 62;

/// Formats to come are numbered up to here: what is above it is damage.
pub const VERSION_MAX: u32 = 255;

/// Objects in a store: the catalog is written into every segment.
pub const OBJECTS_MAX: usize = 1 << 16;

/// How long an asynchronous call stays queued: long enough to share a sync with its neighbours, short enough that a
/// crash loses little.
pub const WRITE_BEHIND_DELAY_DEFAULT: Duration = Duration::from_millis(5);

/// The longest that a caller waits for another that flushes. Far above what a working disk needs; who flushes itself waits as long as
/// the disk does. (Shorter for the tests in this crate, which wait it out.)
pub const WAIT_MAX: Duration = Duration::from_secs(if cfg!(test) { 2 } else { 60 });

/// Pages share this many marks of their last change: so many that calls of different pages rarely meet on one.
pub const STAMP_COUNT: usize = 1 << 16;

/// Tries to read pages outside the lock before it is done inside: another try means that another call changed one of them
/// meanwhile, which the runtime's order of calls makes rare.
pub const READ_TRIES: usize = 3;

/// Entries of a call are kept in parts of so many bytes, and of a page more. A page that waits for its image keeps its part
/// in memory.
pub const PART_BYTES: usize = 64 << 10;

/// Bytes of a call that are journaled whole rather than waiting for the drive to read what they are to be compared with: a
/// read takes 100 us a page, writing a page more to the journal a few. Above it, what is read in a row costs less.
pub const UNREAD_BYTES_MAX: usize = 16 << 20;

/// Fewer pages are compared with a copy of their base: a place that was not looked at before costs a fault, 5 to 10 us where
/// caches are cold, and reading it 4.
pub const SHOWN_PAGES_MIN: u64 = 4;

/// Bytes of a page that share a sum: few enough that what is journaled with the changed ones costs little, so many that the sums
/// take a 16th of the pages.
pub const LINE_BYTES: usize = 128;

/// Pages of one object whose lines' sums are kept: 4 GiB of them for 264 MiB. Pages of larger ones share places, and a page whose
/// place is taken is compared with its image.
pub const LINES_PAGES_MAX: u64 = 1 << 20;

/// Pages that a thread compares before it takes the next ones: 50 us where they are scattered.
pub const COMPARE_PAGES: u64 = 64;

/// A thread more compares for so many more pages: with two for 250 scattered pages nothing was gained, for 500 a fifth of the call.
pub const HELPER_PAGES: u64 = 224;

/// Threads that help: with more of them, memory is what they wait for.
pub const HELPERS_MAX: usize = 7;

/// How long somebody looks whether helpers are done before it sleeps: about as long as being woken again takes.
pub const HELPER_SPIN: Duration = Duration::from_micros(50);

/// Unequal bytes closer than this become one run: a run costs four bytes and some work of its own.
pub const RUN_GAP_BYTES: usize = 8;

/// How long changed pages stay out of their images: long enough that a page that changes all the time is written a few
/// times a second, short enough that their memory is soon free.
pub const APPLY_DELAY: Duration = Duration::from_millis(100);

/// Fewer waiting pages do not wake the thread: a store that is seldom used, or changes the same few pages over and
/// over, does without it.
pub const APPLY_WAKE_PAGES: usize = 64;

/// What a page that waits takes beside its patch, roughly.
pub const WAITING_PAGE_BYTES: usize = 128;

/// So many bytes of waiting pages are put into the images at once, without the delay.
pub const APPLY_BYTES_MIN: usize = 16 << 20;

/// Pages that are put into the images before the thread looks for more urgent work: less than a millisecond.
pub const APPLY_PAGES_MAX: usize = 256;

/// Bytes that are put into an image at once. A file system caches together what was written together, and looks at all of
/// it whenever a page of it changes: on ext4 a page took 6 us after writes of 1 MiB, 20 when they were not in the
/// processor's caches, 3 after writes of 64 KiB, 2 after single pages, which took longer to write first (Linux 6.18).
pub const IMAGE_WRITE_BYTES: usize = 32 << 10;

/// Memory for what has changed of pages that wait for being put into their images; above it committers do it themselves. A part of a
/// call's entries is kept as long as a page of it waits, so it may be more, but no more than the journal has.
pub const UNAPPLIED_BYTES_MAX: usize = 64 << 20;

/// Pages that the disk is told of before an opening reads them: so many that a drive is busy, so few that they stay in memory until
/// they are read.
pub const REPLAY_PAGES: usize = 1024;

/// Bytes that the zero-filling of a new segment writes at once.
pub const FILL_BYTES: usize = 1 << 20;

const _: () = assert!(SLOT_BYTES.is_multiple_of(SECTOR_BYTES));
const _: () = assert!(SEGMENT_HEADER_BYTES.is_multiple_of(SECTOR_BYTES));
const _: () = assert!(SEGMENT_BYTES_DEFAULT.is_multiple_of(BLOCK_BYTES as u64));
const _: () = assert!(SEGMENT_HEADER_BYTES.is_multiple_of(RECORD_ALIGN));
const _: () = assert!(SEGMENT_BYTES_MIN > 2 * SEGMENT_HEADER_BYTES as u64);
const _: () = assert!(SEGMENT_BYTES_DEFAULT >= SEGMENT_BYTES_MIN);
// Entries take a little more than the pages.
const _: () = assert!(CALL_BYTES_MAX / 2 * 3 < u32::MAX as usize);
const _: () = assert!(APPLY_WAKE_PAGES <= APPLY_PAGES_MAX && APPLY_BYTES_MIN < UNAPPLIED_BYTES_MAX);
const _: () = assert!(STAMP_COUNT.is_power_of_two());
const _: () = assert!(BLOCK_BYTES.is_multiple_of(LINE_BYTES));
