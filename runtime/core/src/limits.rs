//! A limit on everything a guest or pager can make grow, each with its reason.

/// Bytes of one `data_return`: large enough that the call costs nothing beside the copy, small enough that a pager
/// can hold several.
pub const RETURN_BYTES_MAX: u64 = 1 << 20;

/// Entries of one map: what looks at all of them stays short. How many mappings of the host a task may take is the host's to say
/// ([`TaskMemory::make_room`](crate::memory::TaskMemory::make_room)).
pub const MAP_ENTRIES_MAX: usize = 16_384;

/// Objects that one task holds open at a time: each costs a pager resources.
pub const OPEN_OBJECTS_MAX: usize = 1_024;

/// Bytes of one object that a pager is asked for. Stores, and the memories that map it, have lower bounds of their own.
pub const OBJECT_BYTES_MAX: u64 = 1 << 46;

/// Pager requests that wait for the owner of the memory; a pager that sends more is told to slow down.
pub const LOCK_REQUESTS_MAX: usize = 64;
