//! The crate's limits, each with its reason.

/// Regions that one program maps at a time. The table of them is static, so that mapping needs no allocator.
pub const REGIONS_MAX: usize = 64;

/// Regions start at multiples of this, in bytes: Wasm's page, a multiple of every VM page that a host uses.
pub const REGION_ALIGN: usize = 64 << 10;
