//! Every limit of this crate, each with its reason.

/// Trackers of the `mprotect` rung that live at once. The signal handler walks this many slots and may not allocate.
pub const WATCHES_MAX: usize = 1024;

/// Runs of writable pages between protected ones that all trackers of the `mprotect` rung make by faults: each takes up to two
/// mappings, and all together a quarter of what the kernel allows unless told otherwise.
pub const SPLITS_MAX: isize = 8192;

/// So many are each tracker's own, whatever others have.
pub const SPLITS_MIN: isize = 64;

/// Linear memories that live at once: the protected pages of each are guarded against accesses of host code. Each takes two
/// mappings at least, so that the kernel, unless told otherwise, allows no more. The signal handler walks this many slots.
pub const GUARDED_MEMORIES_MAX: usize = 32_768;

/// Closed pages that the guard opens one by one, of all memories of the process: each takes up to two mappings, and all together
/// an eighth of what the kernel allows unless told otherwise.
pub const OPENED_PAGES_MAX: usize = 4096;

/// How often the fault handler may be put in front of a foreign one. Each time takes a handler of its own, so that a
/// chain through foreign handlers never comes back to where it began.
pub const GENERATIONS_MAX: usize = 16;

/// Regions that one `PAGEMAP_SCAN` returns: 48 KiB of buffer, and four times what the kernel gathers before it copies.
pub const REGIONS_MAX: usize = 2048;

/// What one last-level page table maps, in bytes, where pages have 4 KiB: the unit in which a scan skips.
pub const GRANULE_BYTES: usize = 2 << 20;

/// The longest range that is examined page by page after one look found an unarmed page in it, in bytes. It bounds
/// how much of a clean, fully armed range is examined the slow way; doubling up to it bounds the system calls.
pub const WINDOW_BYTES_MAX: usize = 64 << 20;

/// Runs at most this many pages of the host apart are asked about by one system call: a page costs 6 to 15 ns there,
/// a call 350 ns to 1 us.
pub const FILE_GAP_PAGES: u64 = 32;

/// Dirty runs at most this many clean pages apart are armed again by one system call, on the rungs that arm by range.
pub const REARM_GAP_PAGES: u64 = 64;

/// Pages that are watched or not together: enough that a few stores to neighbours do not make them hot, and few enough
/// that small regions have whole ones.
pub const HOT_GRANULE_PAGES: u64 = 64;

/// A page that so many collects in a row found stored to is one that every interval stores to.
pub const HOT_PAGE_COLLECTS: u32 = 4;

/// A collect that finds more pages than this says nothing about any of them: with many stores all over, pages are met again
/// by chance, and a page that is reported in vain costs as much as one that is not.
pub const HOT_PAGES_MAX: u64 = 16;

/// Single pages that are remembered; the collects of a guest that syncs page by page would remember them all.
pub const HOT_PAGES_KEPT_MAX: usize = 1024;

/// For how many collects a range that is stored to all over is reported unseen, at most. Two intervals of faults in each
/// such time cost an eighth of what watching it would; a range that falls silent is reported in vain so often at most.
pub const REST_COLLECTS_MAX: u32 = 14;

/// How many bytes at the head of the page behind a marked one may have changed without a mark of its own: 15 of a vector that begins
/// at the last byte of its page, or of stores close together that share a mark.
pub const SUSPECT_BYTES: usize = 16;

const _: () = {
    assert!(WATCHES_MAX > 0 && GENERATIONS_MAX > 1 && REGIONS_MAX > 1);
    assert!(GRANULE_BYTES.is_power_of_two() && WINDOW_BYTES_MAX >= GRANULE_BYTES);
};
