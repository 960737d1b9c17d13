//! Every bound of the simulator and its reason.

use vmsync_pager_file::limits::{GROUP_BYTES_MAX, SECTOR_BYTES};

/// Objects that tasks use; more than tasks, so that some are always free to be opened, and calls cover several.
pub const NAMES: [&str; 5] = ["alpha", "beta", "gamma", "delta", "epsilon"];

/// Tasks that take turns.
pub const TASKS: usize = 3;

/// Pages that an object begins with, at most.
pub const PAGES_FIRST_MAX: usize = 3;

/// Pages that an object grows to: small, so that calls meet on the same ones.
pub const PAGES_MAX: usize = 6;

/// Pages that an object grows to where pages are large: few, so that a disk is copied quickly.
pub const PAGES_LARGE_MAX: usize = 2;

/// Pages that an object of many begins with: its checksums lie in three sectors, and where they are large, all of them are more
/// than a group of calls may have.
pub const PAGES_WIDE: usize = 2 * SUMS_IN_SECTOR + 2;

/// Objects of a run that has one of many pages.
pub const NAMES_WIDE: usize = 3;

/// Checksums in a sector.
pub const SUMS_IN_SECTOR: usize = SECTOR_BYTES / 8;

/// Pages on either side of such a sector's end that a task changes together, at most.
pub const NEIGHBOURS_MAX: usize = 6;

/// Turns that the tasks of one life get together: enough for a few checkpoints on the smallest segments.
pub const TURNS: usize = 90;

/// Turns of a life on a large disk: enough for some large calls.
pub const TURNS_LARGE: usize = 30;

/// Of the disks that cuts leave of a large one, one in so many is looked at: each takes some 20 ms.
pub const LOOK_LARGE_ONCE_IN: usize = 32;

/// Lives that follow each other on one disk, each on what a power cut left of the one before.
pub const LIVES: usize = 3;

/// Up to so many unsynced changes, every subset of them is tried: 64 disks.
pub const SUBSETS_ALL_MAX: usize = 6;

/// Random subsets that are tried where there are more.
pub const SUBSETS_SAMPLED: usize = 12;

/// Tears of one write that are tried at each cut.
pub const TEARS: usize = 6;

/// Faults of one life or opening, at most: each is a window of failing operations. As many of its reads.
pub const FAULTS_MAX: usize = 4;

/// Operations that fail in one window, at most.
pub const FAULT_OPERATIONS_MAX: usize = 4;

/// One fault of so many lasts, at one place.
pub const LASTING_ONCE_IN: usize = 4;

/// For so many operations, wherever these are: more than a call and its retries take.
pub const LASTING_OPERATIONS: usize = 80;

/// Operations among which a life's faults begin: about as many as it has.
pub const OPERATIONS_OF_LIFE: usize = 400;

/// Reads among which they begin.
pub const READS_OF_LIFE: usize = 1000;

/// The same for faults that begin before the store is open: about as many as an opening has.
pub const OPERATIONS_OF_OPENING: usize = 30;

/// See [`OPERATIONS_OF_OPENING`].
pub const READS_OF_OPENING: usize = 30;

/// One disk of so many is looked at once more, while a read fails.
pub const READ_FAILS_ONCE_IN: usize = 32;

/// Reads of which one fails then: about as many as looking takes.
pub const READS_OF_LOOK: usize = 64;

/// Recoveries that follow each other behind a life, each of what a power cut left of the one before.
pub const RECOVERIES: usize = 3;

/// One cut of so many also gets its disks damaged.
pub const DAMAGE_ONCE_IN: usize = 16;

/// Damages of one disk.
pub const DAMAGES: usize = 8;

/// One disk of so many is opened read-only as well.
pub const READ_ONLY_ONCE_IN: usize = 8;

/// Attempts at something that injected faults may refuse, before the faults are taken away.
pub const ATTEMPTS: usize = 4;

/// One turn of so many sets the moment at which the process is killed.
pub const KILL_ONCE_IN: usize = 30;

/// Operations that a process still does then, at most: about two calls, or a checkpoint.
pub const KILL_OPERATIONS_MAX: usize = 20;

/// Addresses at which tasks map an object: so few that it comes back to one.
pub const ADDRESSES: usize = 2;

/// One call of so many comes from another address, perhaps.
pub const REMAP_ONCE_IN: usize = 3;

/// One call of so many is sent at once, without turns of other tasks: what is queued is mostly still so.
pub const AT_ONCE_ONCE_IN: usize = 3;

/// One message of so many is a page of the call once more, with other bytes; and as many objects grow in the middle of a call.
pub const AGAIN_ONCE_IN: usize = 12;

/// One failed call of so many is followed at once by an empty one and by one with the same pages, which may fail and be followed
/// as well: so rarely that it ends.
pub const TRY_AGAIN_ONCE_IN: usize = 3;

const _: () = assert!(PAGES_WIDE * (64 << 10) > GROUP_BYTES_MAX);
