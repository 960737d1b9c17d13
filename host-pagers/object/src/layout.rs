//! The bytes of a store's objects, as `format.md` draws them.
//!
//! Invariants:
//! - numbers are little-endian;
//! - an object carries a sum of everything before it, or of each of its parts, so that what was changed or cut is
//!   found out;
//! - decoding bounds every length by what is there, and never panics.

pub(crate) mod manifest;
pub(crate) mod patch;
pub(crate) mod segment;

use twox_hash::XxHash3_64;
use vmsync_core::{PagerError, PagerErrorKind};

/// The version of everything in this folder.
pub(crate) const FORMAT_VERSION: u32 = 1;

const SUM_BYTES: usize = 8;

/// Why bytes could not be understood.
pub(crate) type Decoded<T> = Result<T, PagerError>;

pub(crate) fn damaged(what: &str) -> PagerError {
    PagerError::new(PagerErrorKind::Damaged, what)
}

/// Adds the sum of everything so far.
pub(crate) fn seal(bytes: &mut Vec<u8>) {
    let sum = XxHash3_64::oneshot(bytes);
    bytes.extend_from_slice(&sum.to_le_bytes());
}

/// What was sealed.
pub(crate) fn unseal(bytes: &[u8]) -> Decoded<&[u8]> {
    match bytes.split_last_chunk::<SUM_BYTES>() {
        Some((body, sum)) if XxHash3_64::oneshot(body) == u64::from_le_bytes(*sum) => Ok(body),
        _ => Err(damaged("its sum is wrong")),
    }
}

/// Reads values one after another.
pub(crate) struct Cursor<'a>(pub(crate) &'a [u8]);

impl<'a> Cursor<'a> {
    pub(crate) fn take(&mut self, length: usize) -> Decoded<&'a [u8]> {
        let (taken, rest) = self
            .0
            .split_at_checked(length)
            .ok_or_else(|| damaged("it ends too early"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Decoded<[u8; N]> {
        let (taken, rest) = self
            .0
            .split_first_chunk()
            .ok_or_else(|| damaged("it ends too early"))?;
        self.0 = rest;
        Ok(*taken)
    }

    pub(crate) fn u16(&mut self) -> Decoded<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Decoded<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Decoded<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// A number of things that each take at least `bytes` of what is left.
    pub(crate) fn count(&mut self, bytes: usize) -> Decoded<usize> {
        let count = self.u32()? as usize;
        if count
            .checked_mul(bytes)
            .is_none_or(|length| length > self.0.len())
        {
            return Err(damaged("it counts more than it holds"));
        }
        Ok(count)
    }

    pub(crate) fn end(self) -> Decoded<()> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(damaged("it has bytes behind its end"))
        }
    }
}
