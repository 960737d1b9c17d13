//! Which object holds which part of something that grows.
//!
//! Not every pager lets an open object grow ([`vmsync_core::pager::Pager::grow`]), so what grows is kept in several: the
//! first is as large as it is at first, each further one as large as all before it. Their bounds follow from the first size
//! and the largest, so they need not be stored.

use vmsync_core::{ByteRange, PagerError, pager::ObjectName};

/// A growing range of bytes from 0 on, cut into objects.
#[derive(Clone, Debug)]
pub(super) struct Extents {
    /// What the objects' names begin with.
    name: String,
    first: u64,
    bytes_max: u64,
}

/// One object of [`Extents`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    pub name: ObjectName,
    /// The bytes that it holds, from the start of what grows.
    pub range: ByteRange,
}

impl Extents {
    /// `first` bytes at first and at most `bytes_max`, both multiples of the page size and `first` not 0.
    pub fn new(name: String, first: u64, bytes_max: u64) -> Self {
        assert!(first > 0, "the first object has bytes");
        Self {
            name,
            first,
            bytes_max: bytes_max.max(first),
        }
    }

    /// The extents that hold bytes of `part`, ascending.
    ///
    /// # Errors
    /// The name is too long for an object.
    pub fn holding(&self, part: ByteRange) -> Result<Vec<Extent>, PagerError> {
        let mut found = Vec::new();
        let (mut range, mut number) = (ByteRange::new(0, self.first), 0);
        while !part.is_empty() && range.start < part.end && !range.is_empty() {
            if range.end > part.start {
                let name = ObjectName::new(&format!("{}.{number}", self.name))?;
                found.push(Extent { name, range });
            }
            range = ByteRange::new(range.end, range.end.saturating_mul(2).min(self.bytes_max));
            number += 1;
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(extents: &Extents, start: u64, end: u64) -> Vec<(String, u64, u64)> {
        let found = extents.holding(ByteRange::new(start, end)).unwrap();
        found
            .into_iter()
            .map(|extent| (extent.name.to_string(), extent.range.start, extent.range.end))
            .collect()
    }

    #[test]
    fn extents_double_up_to_the_limit() {
        let extents = Extents::new("m".into(), 3, 20);
        let expected = [("m.0", 0, 3), ("m.1", 3, 6), ("m.2", 6, 12), ("m.3", 12, 20)];
        let expected = expected.map(|(name, start, end)| (name.to_string(), start, end));
        assert_eq!(ranges(&extents, 0, 20), expected);
        assert_eq!(ranges(&extents, 0, 3), expected[..1]);
        assert_eq!(ranges(&extents, 3, 7), expected[1..3]);
        assert_eq!(ranges(&extents, 5, 5), []);
        // Behind the limit there is nothing.
        assert_eq!(ranges(&extents, 15, u64::MAX), expected[3..]);
        let whole = Extents::new("w".into(), u64::MAX, u64::MAX);
        assert_eq!(ranges(&whole, 0, u64::MAX).len(), 1);
    }
}
