//! [`Manifest`]: one commit, and with it everything that the store is at that moment.

use std::collections::BTreeMap;

use bytes::Bytes;
use vmsync_core::{PageSize, PagerError, PagerErrorKind, pager::ObjectName};
use vmsync_pager_group::{Contents, Entry, Place};

use super::{Cursor, Decoded, FORMAT_VERSION, damaged, patch, seal, unseal};

const MAGIC: &[u8; 8] = b"VMSYNCMF";

/// Nothing but the header: what it named has been superseded, and it only keeps its number taken.
const RETIRED: u32 = 1;
/// No contents yet: they are those of the next lower manifest that has any.
const BORROWS: u32 = 2;

/// A patch is for the page in the segments.
const ON_SEGMENT: u32 = 0;
/// A patch is for a page of zeroes.
const ON_ZEROES: u32 = 1;

/// A change's object, page and form.
const CHANGE_BYTES: usize = 20;

/// Who wrote a manifest, and which one it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// One more than the writer's last. Only a claim may be ahead; where its writer dies it leaves a gap below.
    pub(crate) number: u64,
    /// The number of the writer's first manifest, which is what fences the writer before.
    pub(crate) epoch: u64,
    /// The writer's nonce.
    pub(crate) writer: u64,
    /// The nonce of this one attempt to write it.
    pub(crate) attempt: u64,
    /// Below this one, all but first and last manifests of epochs have been removed.
    pub(crate) clean: u64,
    pub(crate) page_size: PageSize,
}

/// A segment, as a manifest names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SegmentName {
    pub(crate) epoch: u64,
    pub(crate) writer: u64,
    pub(crate) number: u64,
}

/// A segment and its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentEntry {
    pub(crate) name: SegmentName,
    /// Of the whole object, in bytes.
    pub(crate) length: u64,
    /// Of its directory, which it begins with.
    pub(crate) directory: u32,
}

/// A page that differs from the one in the segments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    /// The patch is for a page of zeroes.
    pub(crate) on_zeroes: bool,
    pub(crate) patch: Bytes,
}

impl Change {
    /// What it takes in a manifest.
    pub(crate) fn bytes(&self) -> usize {
        CHANGE_BYTES + self.patch.len()
    }
}

/// The contents of a store.
#[derive(Clone, Debug, Default)]
pub(crate) struct Body {
    pub(crate) contents: Contents,
    /// Later ones replace pages of earlier ones.
    pub(crate) segments: Vec<SegmentEntry>,
    pub(crate) changes: BTreeMap<Place, Change>,
}

/// What a manifest says.
#[derive(Clone, Debug)]
pub(crate) enum Says {
    Contents(Body),
    /// Those of the next lower manifest that has any.
    Borrows,
    Retired,
}

pub(crate) fn encode(header: &Header, says: &Says) -> Vec<u8> {
    match says {
        Says::Contents(body) => {
            let changes = body.changes.iter().collect();
            encode_contents(header, &body.contents, &body.segments, &changes)
        }
        Says::Borrows => encode_flagged(header, BORROWS, |_| {}),
        Says::Retired => encode_flagged(header, RETIRED, |_| {}),
    }
}

/// The same of contents that lie in several places: a commit does not copy what it leaves as it is.
pub(crate) fn encode_contents(
    header: &Header,
    contents: &Contents,
    segments: &[SegmentEntry],
    changes: &BTreeMap<&Place, &Change>,
) -> Vec<u8> {
    encode_flagged(header, 0, |bytes| {
        encode_catalog(bytes, contents);
        encode_segments(bytes, segments);
        encode_changes(bytes, changes);
    })
}

fn encode_flagged(header: &Header, flags: u32, rest: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
    bytes.extend_from_slice(&flags.to_le_bytes());
    let numbers = [
        header.number,
        header.epoch,
        header.writer,
        header.attempt,
        header.clean,
        header.page_size.bytes(),
    ];
    numbers
        .iter()
        .for_each(|number| bytes.extend_from_slice(&number.to_le_bytes()));
    rest(&mut bytes);
    seal(&mut bytes);
    bytes
}

fn encode_catalog(bytes: &mut Vec<u8>, contents: &Contents) {
    bytes.extend_from_slice(&contents.calls.to_le_bytes());
    bytes.extend_from_slice(&contents.object_next.to_le_bytes());
    bytes.extend_from_slice(&(contents.catalog.len() as u32).to_le_bytes());
    for (name, entry) in &contents.catalog {
        let address = entry.address.unwrap_or(u64::MAX);
        for number in [entry.id, entry.size, entry.version, address] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        let name = name.as_str().as_bytes();
        bytes.extend_from_slice(&(name.len() as u16).to_le_bytes());
        bytes.extend_from_slice(name);
    }
}

fn encode_segments(bytes: &mut Vec<u8>, segments: &[SegmentEntry]) {
    bytes.extend_from_slice(&(segments.len() as u32).to_le_bytes());
    for segment in segments {
        let SegmentName {
            epoch,
            writer,
            number,
        } = segment.name;
        for number in [epoch, writer, number, segment.length] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(&segment.directory.to_le_bytes());
    }
}

fn encode_changes(bytes: &mut Vec<u8>, changes: &BTreeMap<&Place, &Change>) {
    bytes.extend_from_slice(&(changes.len() as u32).to_le_bytes());
    for ((object, page), change) in changes {
        bytes.extend_from_slice(&object.to_le_bytes());
        bytes.extend_from_slice(&page.to_le_bytes());
        let form = if change.on_zeroes { ON_ZEROES } else { ON_SEGMENT };
        bytes.extend_from_slice(&form.to_le_bytes());
        bytes.extend_from_slice(&change.patch);
    }
}

pub(crate) fn decode(bytes: &Bytes) -> Decoded<(Header, Says)> {
    let mut cursor = Cursor(bytes);
    if cursor.take(MAGIC.len())? != MAGIC {
        return Err(damaged("it is no manifest"));
    }
    let format = cursor.u32()?;
    if format != FORMAT_VERSION {
        let message = format!("format {format}, this program knows {FORMAT_VERSION}");
        return Err(PagerError::new(PagerErrorKind::Version, message));
    }
    let mut cursor = Cursor(unseal(bytes)?);
    cursor.take(MAGIC.len() + 4)?;
    let flags = cursor.u32()?;
    let header = Header {
        number: cursor.u64()?,
        epoch: cursor.u64()?,
        writer: cursor.u64()?,
        attempt: cursor.u64()?,
        clean: cursor.u64()?,
        page_size: PageSize::new(cursor.u64()?).ok_or_else(|| damaged("its page size is none"))?,
    };
    let says = match flags {
        RETIRED => Says::Retired,
        BORROWS => Says::Borrows,
        0 => Says::Contents(decode_body(bytes, &mut cursor, header.page_size)?),
        _ => return Err(damaged("its flags are unknown")),
    };
    cursor.end()?;
    Ok((header, says))
}

fn decode_body(bytes: &Bytes, cursor: &mut Cursor<'_>, page_size: PageSize) -> Decoded<Body> {
    let mut body = Body::default();
    body.contents.calls = cursor.u64()?;
    body.contents.object_next = cursor.u64()?;
    for _ in 0..cursor.count(34)? {
        let numbers = [cursor.u64()?, cursor.u64()?, cursor.u64()?, cursor.u64()?];
        let [id, size, version, address] = numbers;
        let length = cursor.u16()?;
        let name =
            std::str::from_utf8(cursor.take(length.into())?).map_err(|_| damaged("a name is no text"))?;
        let name = ObjectName::new(name).map_err(|error| damaged(&error.message))?;
        if id >= body.contents.object_next || !page_size.is_aligned(size) {
            return Err(damaged("the id or size of an object is wrong"));
        }
        let address = (address != u64::MAX).then_some(address);
        let entry = Entry {
            id,
            size,
            version,
            address,
        };
        body.contents.catalog.insert(name, entry);
    }
    for _ in 0..cursor.count(36)? {
        let name = SegmentName {
            epoch: cursor.u64()?,
            writer: cursor.u64()?,
            number: cursor.u64()?,
        };
        let (length, directory) = (cursor.u64()?, cursor.u32()?);
        if u64::from(directory) > length {
            return Err(damaged("a segment is shorter than its directory"));
        }
        body.segments.push(SegmentEntry {
            name,
            length,
            directory,
        });
    }
    for _ in 0..cursor.count(24)? {
        let place = (cursor.u64()?, cursor.u64()?);
        let on_zeroes = match cursor.u32()? {
            ON_SEGMENT => false,
            ON_ZEROES => true,
            _ => return Err(damaged("the form of a change is unknown")),
        };
        let patch = patch::take(cursor, page_size.bytes() as usize)?;
        let patch = bytes.slice_ref(patch);
        body.changes.insert(place, Change { on_zeroes, patch });
    }
    Ok(body)
}
