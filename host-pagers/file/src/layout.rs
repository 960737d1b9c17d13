//! The bytes on disk. `format.md` beside this crate draws them; the tests here hold the two together.
//!
//! ```text
//!   STORE        = 2 x Superblock slot                     which segment replay begins with
//!   journal-<n>  = SegmentHeader, records                  what was committed since
//!   record       = RecordHeader, body                      body: a Snapshot of the catalog, or calls of entries
//!   object-<id>  = pages in place      object-<id>.sums = a checksum for each page
//! ```
//!
//! Invariants:
//! - every number is little-endian;
//! - every structure carries a checksum that is seeded with the store's nonce, so that bytes of another store are
//!   never taken for ours;
//! - decoding bytes of any content answers `None` or a value, and never panics.

pub(crate) mod catalog;
pub(crate) mod entry;
pub(crate) mod record;
pub(crate) mod segment;
pub(crate) mod superblock;

use twox_hash::XxHash3_64;

use crate::limits::NUMBER_MAX;

/// The version that is written. A store of a version that is not in [`VERSIONS_READ`] is refused.
pub(crate) const FORMAT_VERSION: u32 = 3;

/// The versions that are read. They differ in the superblock only, so the next one that is written turns an older store
/// into one of this version.
pub(crate) const VERSIONS_READ: std::ops::RangeInclusive<u32> = 1..=FORMAT_VERSION;

/// What the nonce's own checksum is seeded with, in all versions: sums that an older version wrote stay right.
const NONCE_SEED: u64 = 1;

/// The seed of a store's checksums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seed(u64);

impl Seed {
    pub(crate) fn of(nonce: u128) -> Self {
        let bytes = nonce.to_le_bytes();
        Self(XxHash3_64::oneshot_with_seed(NONCE_SEED, &bytes))
    }

    /// The checksum of `bytes` in this store.
    pub(crate) fn checksum(self, bytes: &[u8]) -> u64 {
        XxHash3_64::oneshot_with_seed(self.0, bytes)
    }

    /// The checksum of a page, which differs for the same bytes at another place. Never 0: that stands for a page
    /// that was never written.
    pub(crate) fn page_sum(self, object: u64, page: u64, bytes: &[u8]) -> u64 {
        let place = self.0 ^ object.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32) ^ page;
        XxHash3_64::oneshot_with_seed(place, bytes).max(1)
    }
}

/// Reads numbers from the front of a slice.
#[derive(Clone, Copy)]
pub(crate) struct Cursor<'a>(pub(crate) &'a [u8]);

impl<'a> Cursor<'a> {
    pub(crate) fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (front, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(front)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.bytes(N)?.try_into().ok()
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn u128(&mut self) -> Option<u128> {
        self.array().map(u128::from_le_bytes)
    }
}

/// `offset` rounded up to a multiple of `align`, a power of two.
pub(crate) const fn align_up(offset: usize, align: usize) -> usize {
    assert!(align.is_power_of_two());
    (offset + align - 1) & !(align - 1)
}

/// The name of the file with both superblock slots: without it there is no store.
pub const STORE_NAME: &str = "STORE";

/// The name of the segment in slot `slot`.
pub(crate) fn segment_name(slot: u64) -> String {
    format!("journal-{slot}")
}

/// The name of an object's image.
pub(crate) fn image_name(object: u64) -> String {
    format!("object-{object}")
}

/// The name of an object's page checksums.
pub(crate) fn sums_name(object: u64) -> String {
    format!("object-{object}.sums")
}

/// What a name in the folder stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileKind {
    Segment(u64),
    Image(u64),
    Sums(u64),
}

/// The meaning of a file's name, `None` where it has none here.
pub(crate) fn file_kind(name: &str) -> Option<FileKind> {
    let number = |text: &str| text.parse().ok();
    let kind = if let Some(slot) = name.strip_prefix("journal-") {
        FileKind::Segment(number(slot)?)
    } else {
        let rest = name.strip_prefix("object-")?;
        match rest.strip_suffix(".sums") {
            Some(id) => FileKind::Sums(number(id)?),
            None => FileKind::Image(number(rest)?),
        }
    };
    let (number, canonical) = match kind {
        FileKind::Segment(slot) => (slot, segment_name(slot)),
        FileKind::Image(id) => (id, image_name(id)),
        FileKind::Sums(id) => (id, sums_name(id)),
    };
    (canonical == name && number <= NUMBER_MAX).then_some(kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_one_spelling() {
        assert_eq!(file_kind("journal-7"), Some(FileKind::Segment(7)));
        assert_eq!(file_kind("object-12"), Some(FileKind::Image(12)));
        assert_eq!(file_kind("object-12.sums"), Some(FileKind::Sums(12)));
        for other in [
            "journal-07",
            "object-",
            "object-1.sum",
            "STORE",
            "LOCK",
            "object-+1",
            "journal-18446744073709551615",
            "",
        ] {
            assert_eq!(file_kind(other), None, "{other}");
        }
    }

    #[test]
    fn the_same_page_elsewhere_has_another_sum() {
        let (seed, page) = (Seed::of(5), [1; 4096]);
        let sum = seed.page_sum(1, 1, &page);
        assert_ne!(sum, seed.page_sum(1, 2, &page));
        assert_ne!(sum, seed.page_sum(2, 1, &page));
        assert_ne!(sum, Seed::of(6).page_sum(1, 1, &page));
    }
}
