//! [`Snapshot`]: the state that is not in linear memory, as values and as bytes.
//!
//! ```text
//! offset  bytes  field
//!      0      8  magic          "vmsyinst"
//!      8      4  version        of this layout
//!     12      4  0
//!     16     16  identity       of the module
//!     32      8  body bytes
//!     40         body:  memory bytes u64
//!                       globals u32, each 16 bytes: a number, or as a table's element
//!                       tables u32, each: elements u32, each u32: 0 null, else the function's index + 1
//! ```
//!
//! Numbers are little-endian. What is all zero was never written.
//!
//! Invariant: decoding reads only what is there, and allocates no more than was read.

use super::DurableError;

const MAGIC: [u8; 8] = *b"vmsyinst";

/// Version of the layout, and of how modules are exposed.
const VERSION: u32 = 1;

/// Bytes before the body.
const HEADER_BYTES: usize = 40;

/// Globals, tables, and the memory's size.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Snapshot {
    pub memory_bytes: u64,
    pub globals: Vec<u128>,
    pub tables: Vec<Vec<u32>>,
}

impl Snapshot {
    pub fn encode(&self, identity: u128) -> Vec<u8> {
        let mut body = Vec::new();
        body.extend(self.memory_bytes.to_le_bytes());
        body.extend((self.globals.len() as u32).to_le_bytes());
        for global in &self.globals {
            body.extend(global.to_le_bytes());
        }
        body.extend((self.tables.len() as u32).to_le_bytes());
        for table in &self.tables {
            body.extend((table.len() as u32).to_le_bytes());
            for element in table {
                body.extend(element.to_le_bytes());
            }
        }
        let mut bytes = Vec::with_capacity(HEADER_BYTES + body.len());
        bytes.extend(MAGIC);
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend([0; 4]);
        bytes.extend(identity.to_le_bytes());
        bytes.extend((body.len() as u64).to_le_bytes());
        bytes.append(&mut body);
        bytes
    }

    /// How many bytes there are in all, if something was written; `bytes` are at least the header.
    ///
    /// # Errors
    /// [`DurableError::Damaged`], [`DurableError::Version`], [`DurableError::OtherModule`].
    pub fn length(bytes: &[u8], identity: u128) -> Result<Option<u64>, DurableError> {
        let mut reader = Reader(bytes);
        let (magic, version) = (reader.array::<8>()?, u32::from_le_bytes(reader.array()?));
        reader.array::<4>()?;
        let (found, body) = (u128::from_le_bytes(reader.array()?), reader.u64()?);
        if magic == [0; 8] && version == 0 && found == 0 && body == 0 {
            return Ok(None);
        }
        if magic != MAGIC {
            return Err(damaged("its first bytes are those of something else"));
        }
        if version != VERSION {
            return Err(DurableError::Version {
                found: version,
                expected: VERSION,
            });
        }
        if found != identity {
            return Err(DurableError::OtherModule {
                found,
                given: identity,
            });
        }
        Ok(Some(body.saturating_add(HEADER_BYTES as u64)))
    }

    /// Reads what [`Snapshot::encode`] wrote; more may follow.
    ///
    /// # Errors
    /// [`DurableError::Damaged`].
    pub fn decode(bytes: &[u8]) -> Result<Self, DurableError> {
        let mut reader = Reader(bytes);
        reader.bytes(HEADER_BYTES)?;
        let memory_bytes = reader.u64()?;
        let mut globals = Vec::new();
        for _ in 0..reader.u32()? {
            globals.push(u128::from_le_bytes(reader.array()?));
        }
        let mut tables = Vec::new();
        for _ in 0..reader.u32()? {
            let mut table = Vec::new();
            for _ in 0..reader.u32()? {
                table.push(reader.u32()?);
            }
            tables.push(table);
        }
        Ok(Self {
            memory_bytes,
            globals,
            tables,
        })
    }
}

pub(super) fn damaged(what: &str) -> DurableError {
    DurableError::Damaged { what: what.into() }
}

/// What is left to read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn bytes(&mut self, count: usize) -> Result<&'a [u8], DurableError> {
        let (bytes, rest) = self
            .0
            .split_at_checked(count)
            .ok_or_else(|| damaged("it ends too early"))?;
        self.0 = rest;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DurableError> {
        let bytes = self.bytes(N)?;
        Ok(bytes.try_into().expect("as long as was asked for"))
    }

    fn u32(&mut self) -> Result<u32, DurableError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, DurableError> {
        Ok(u64::from_le_bytes(self.array()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Snapshot {
        Snapshot {
            memory_bytes: 3 << 16,
            globals: vec![1, u128::MAX],
            tables: vec![vec![0, 7], vec![]],
        }
    }

    #[test]
    fn what_was_encoded_is_decoded() {
        let mut bytes = example().encode(9);
        assert_eq!(Snapshot::length(&bytes, 9).unwrap(), Some(bytes.len() as u64));
        bytes.extend([0xff; 100]);
        assert_eq!(Snapshot::decode(&bytes).unwrap(), example());
        assert_eq!(Snapshot::length(&[0; 64], 9).unwrap(), None);
    }

    #[test]
    fn what_is_wrong_is_said_and_nothing_panics() {
        let bytes = example().encode(9);
        assert!(matches!(
            Snapshot::length(&bytes, 8),
            Err(DurableError::OtherModule { found: 9, given: 8 })
        ));
        for end in 0..bytes.len() {
            assert!(Snapshot::decode(&bytes[..end]).is_err(), "cut at {end}");
        }
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 0x55;
            // Some of these are other valid bytes.
            let _ = Snapshot::length(&changed, 9).and_then(|_| Snapshot::decode(&changed));
        }
        let mut version = bytes.clone();
        version[8] = 9;
        assert!(matches!(
            Snapshot::length(&version, 9),
            Err(DurableError::Version { found: 9, .. })
        ));
        let mut magic = bytes;
        magic[0] = b'V';
        assert!(matches!(
            Snapshot::length(&magic, 9),
            Err(DurableError::Damaged { .. })
        ));
    }
}
