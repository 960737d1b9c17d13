//! The header of a pooled file: which name it has now.
//!
//! ```text
//!   0          8       9      264      504        512           4096
//!   +----------+-------+------+--------+----------+-------------+-----
//!   |vmsync-P1 | length| name | zeroes | checksum |   unused    | the file's bytes
//!   +----------+-------+------+--------+----------+-------------+-----
//! ```
//!
//! Invariants:
//! - it is written as one sector: after a power cut it is the old header, the new one, or does not check;
//! - a header that does not check means that the file has no name.

use vmsync_pager_file::limits::SECTOR_BYTES;

const MAGIC: &[u8; 8] = b"vmsyncP1";
const NAME_BYTES_MAX: usize = 255;
const SUM_AT: usize = SECTOR_BYTES - 8;

/// A header's bytes.
pub(crate) type Header = [u8; SECTOR_BYTES];

/// The header of a file called `name`; an empty one has no name. `None` where it is too long.
pub(crate) fn encode(name: &str) -> Option<Header> {
    if name.len() > NAME_BYTES_MAX {
        return None;
    }
    let mut header = [0; SECTOR_BYTES];
    header[..8].copy_from_slice(MAGIC);
    header[8] = u8::try_from(name.len()).ok()?;
    header[9..9 + name.len()].copy_from_slice(name.as_bytes());
    let sum = sum(&header);
    header[SUM_AT..].copy_from_slice(&sum.to_le_bytes());
    Some(header)
}

/// The name in a header, if it has one.
pub(crate) fn decode(header: &Header) -> Option<&str> {
    let right = header.starts_with(MAGIC) && header[SUM_AT..] == sum(header).to_le_bytes();
    let name = std::str::from_utf8(header.get(9..9 + usize::from(header[8]))?).ok()?;
    (right && !name.is_empty()).then_some(name)
}

/// FNV-1a over the header before its checksum: a torn sector is to be noticed, not a forger.
fn sum(header: &Header) -> u64 {
    let step = |sum: u64, byte: &u8| (sum ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    header[..SUM_AT].iter().fold(0xcbf2_9ce4_8422_2325, step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back() {
        for name in ["STORE", "object-17.sums", &"n".repeat(255)] {
            assert_eq!(decode(&encode(name).unwrap()), Some(name));
        }
        assert_eq!(encode(&"n".repeat(256)), None);
    }

    #[test]
    fn what_is_torn_has_no_name() {
        let (old, new) = (encode("object-1").unwrap(), encode("journal-22").unwrap());
        for cut in 9..SUM_AT {
            let mut torn = old;
            torn[..cut].copy_from_slice(&new[..cut]);
            let name = decode(&torn);
            assert!(
                name.is_none() || torn == old || torn == new,
                "cut at {cut}: {name:?}"
            );
        }
        assert_eq!(decode(&[0; SECTOR_BYTES]), None);
        assert_eq!(decode(&encode("").unwrap()), None);
    }
}
