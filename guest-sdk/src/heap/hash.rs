//! Hashes that stay the same: what a [`PHashMap`](super::PHashMap) of an earlier build was laid out by.
//!
//! The standard library's `Hash` may feed a hasher differently in the next release, and well-kept hashers change between
//! versions. So both are here.
//!
//! Invariant: this file's output for a value never changes; a test holds it.

/// A type whose hash is the same in every build for targets of one pointer width.
///
/// A type that borrows as another (`PString` as `str`) has the same hash as that.
pub trait StableHash {
    /// Feeds the value to `hasher`.
    fn hash_stably(&self, hasher: &mut StableHasher);
}

/// Takes a value in, word by word.
#[derive(Clone, Debug, Default)]
pub struct StableHasher(u64);

/// The golden ratio's bits: an odd number without a pattern.
const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

impl StableHasher {
    /// Takes a number in.
    pub fn word(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(23) ^ word).wrapping_mul(FACTOR);
    }

    /// Takes bytes in, and how many there are.
    pub fn bytes(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.word(u64::from_le_bytes(*word));
        }
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        self.word(u64::from_le_bytes(last));
        self.word(bytes.len() as u64);
    }

    /// The hash: each of its bits depends on each bit that was taken in (the finalizer of MurmurHash3).
    pub(super) fn finish(&self) -> u64 {
        let mut hash = self.0;
        hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        hash ^ (hash >> 33)
    }
}

macro_rules! hash_numbers {
    ($($number:ty),*) => {$(
        impl StableHash for $number {
            fn hash_stably(&self, hasher: &mut StableHasher) {
                hasher.word(*self as u64);
            }
        }
    )*};
}

hash_numbers!(u8, u16, u32, u64, usize, i8, i16, i32, i64, isize, bool, char);

impl StableHash for u128 {
    fn hash_stably(&self, hasher: &mut StableHasher) {
        hasher.word(*self as u64);
        hasher.word((*self >> 64) as u64);
    }
}

impl StableHash for i128 {
    fn hash_stably(&self, hasher: &mut StableHasher) {
        self.cast_unsigned().hash_stably(hasher);
    }
}

impl StableHash for str {
    fn hash_stably(&self, hasher: &mut StableHasher) {
        hasher.bytes(self.as_bytes());
    }
}

impl<T: StableHash> StableHash for [T] {
    fn hash_stably(&self, hasher: &mut StableHasher) {
        hasher.word(self.len() as u64);
        self.iter().for_each(|item| item.hash_stably(hasher));
    }
}

impl<T: StableHash, const N: usize> StableHash for [T; N] {
    fn hash_stably(&self, hasher: &mut StableHasher) {
        self[..].hash_stably(hasher);
    }
}

impl StableHash for super::PString<'_> {
    fn hash_stably(&self, hasher: &mut StableHasher) {
        (**self).hash_stably(hasher);
    }
}

impl<'h, T: super::Persist<'h> + StableHash> StableHash for super::PVec<'h, T> {
    fn hash_stably(&self, hasher: &mut StableHasher) {
        (**self).hash_stably(hasher);
    }
}

#[cfg(test)]
mod tests {
    use super::{StableHash, StableHasher};

    fn hash(value: &(impl StableHash + ?Sized)) -> u64 {
        let mut hasher = StableHasher::default();
        value.hash_stably(&mut hasher);
        hasher.finish()
    }

    #[test]
    fn hashes_never_change() {
        // Heaps of former builds hold maps that were laid out by these.
        assert_eq!(hash(&0_u64), 0);
        assert_eq!(hash(&1_u8), hash(&1_u64));
        assert_eq!(hash(&1_u64), HASH_OF_1);
        assert_eq!(hash("durable memory"), HASH_OF_TEXT);
        assert_eq!(hash(&[1_u16, 2]), hash(&[1_u16, 2][..]));
        assert_ne!(hash(&[1_u16, 2]), hash(&[2_u16, 1]));
        assert_ne!(hash("a\0"), hash("a"));
    }

    const HASH_OF_1: u64 = 11_286_133_854_226_296_554;
    const HASH_OF_TEXT: u64 = 7_646_916_406_666_615_769;
}
