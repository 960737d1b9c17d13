//! The header of a pooled file: which name it has now, and in which store.
//!
//! ```text
//!   0          8       9      264          272         273      504        512           4096
//!   +----------+-------+------+------------+-----------+--------+----------+-------------+-----
//!   |vmsync-P1 | length| name | generation | is import | zeroes | checksum |   unused    | the file's bytes
//!   +----------+-------+------+------------+-----------+--------+----------+-------------+-----
//! ```
//!
//! Each import begins a generation; a pool without one is in generation 0. What the import itself names is marked, up to
//! its last file: that one counts, and with it its generation.
//!
//! Invariants:
//! - it is written as one sector: after a power cut it is the old header, the new one, or does not check;
//! - a header that does not check means that the file has no name;
//! - the store that counts is that of the highest generation in a header without the mark.

use vmsync_pager_file::limits::SECTOR_BYTES;

const MAGIC: &[u8; 8] = b"vmsyncP1";
const NAME_BYTES_MAX: usize = 255;
const NAME_AT: usize = 9;
const GENERATION_AT: usize = NAME_AT + NAME_BYTES_MAX;
const IMPORT_AT: usize = GENERATION_AT + 8;
const SUM_AT: usize = SECTOR_BYTES - 8;
const _: () = assert!(IMPORT_AT < SUM_AT);

/// A header's bytes.
pub(crate) type Bytes = [u8; SECTOR_BYTES];

/// What a header says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// Empty: none.
    pub name: String,
    pub generation: u64,
    /// Whether an import wrote it, which may not have come to its end.
    pub import: bool,
}

impl Header {
    /// `None` where the name is too long.
    pub fn encode(&self) -> Option<Bytes> {
        let name = self.name.as_bytes();
        if name.len() > NAME_BYTES_MAX {
            return None;
        }
        let mut bytes = [0; SECTOR_BYTES];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8] = u8::try_from(name.len()).ok()?;
        bytes[NAME_AT..][..name.len()].copy_from_slice(name);
        bytes[GENERATION_AT..IMPORT_AT].copy_from_slice(&self.generation.to_le_bytes());
        bytes[IMPORT_AT] = self.import.into();
        let sum = sum(&bytes);
        bytes[SUM_AT..].copy_from_slice(&sum.to_le_bytes());
        Some(bytes)
    }

    /// `None` where the bytes do not check.
    pub fn decode(bytes: &Bytes) -> Option<Self> {
        let right = bytes.starts_with(MAGIC) && bytes[SUM_AT..] == sum(bytes).to_le_bytes();
        let name = std::str::from_utf8(&bytes[NAME_AT..][..usize::from(bytes[8])]).ok()?;
        let generation = bytes[GENERATION_AT..IMPORT_AT].try_into().ok()?;
        right.then(|| Self {
            name: name.into(),
            generation: u64::from_le_bytes(generation),
            import: bytes[IMPORT_AT] != 0,
        })
    }
}

/// FNV-1a over the header before its checksum: a torn sector is to be noticed, not a forger.
fn sum(bytes: &Bytes) -> u64 {
    let step = |sum: u64, byte: &u8| (sum ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    bytes[..SUM_AT].iter().fold(0xcbf2_9ce4_8422_2325, step)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(name: &str, generation: u64) -> Header {
        Header {
            name: name.into(),
            generation,
            import: generation > 0,
        }
    }

    #[test]
    fn headers_come_back() {
        for name in ["", "STORE", "object-17.sums", &"n".repeat(255)] {
            for generation in [0, 1, u64::MAX] {
                let header = header(name, generation);
                assert_eq!(Header::decode(&header.encode().unwrap()), Some(header));
            }
        }
        assert_eq!(header(&"n".repeat(256), 0).encode(), None);
    }

    #[test]
    fn what_is_torn_has_no_name() {
        let old = header("object-1", 0).encode().unwrap();
        let new = header("journal-22", 7).encode().unwrap();
        for cut in NAME_AT..SUM_AT {
            let mut torn = old;
            torn[..cut].copy_from_slice(&new[..cut]);
            let found = Header::decode(&torn);
            assert!(
                found.is_none() || torn == old || torn == new,
                "cut at {cut}: {found:?}"
            );
        }
        assert_eq!(Header::decode(&[0; SECTOR_BYTES]), None);
    }
}
