//! Damage that no store can undo, and that it has to see: flipped bits, misdirected and phantom writes, cut and
//! missing files.
//!
//! A damaged disk passes if opening or verifying tells, or if it holds what it held before: then no live byte was hit.
//! One exception: the journal's last record, when it is damaged, looks as a torn one does, for which the state before it is
//! right. So what hits a sector or block of it passes where what is left is what a disk holds that the record, and those before
//! it that were hit as well, never reached; and that was a state of the store.

use std::{ops::Range, sync::Arc};

use vmsync_core::PageSize;
use vmsync_pager_file::limits::{BLOCK_BYTES, SECTOR_BYTES, SEGMENT_HEADER_BYTES};

use crate::{
    cuts::{Finding, Look, find},
    history::{Breach, Print, allows},
    life::Broken,
    limits::DAMAGES,
    platter::{Image, write},
    random::Random,
};

/// Where a segment has its generation, a record its segment's, and a slot of the superblock its number, in bytes.
const GENERATION_AT: usize = 8;
const RECORD_GENERATION_AT: usize = 16;
const NUMBER_AT: usize = 32;

/// How long their headers are.
const HEADER_BYTES: usize = 56;
const RECORD_HEADER_BYTES: usize = 64;

/// A way to damage a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// Its end is missing.
    Cut,
    /// All of it is missing.
    Missing,
    /// Other bytes of the disk stand in a sector or block of it.
    Misdirected,
    /// A sector was never written.
    Phantom,
    /// A bit flipped.
    Rot,
    /// A bit flipped in the header of the newest segment.
    Header,
    /// A bit flipped in a record of the newest segment.
    Record,
}

impl Damage {
    /// Whether no more than a block is hit, and no header of a segment alone.
    fn is_local(self) -> bool {
        !matches!(self, Self::Cut | Self::Missing | Self::Header)
    }
}

/// What damage did.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Damaged disks.
    pub damaged: u64,
    /// Those that were told of.
    pub detected: u64,
    /// Those that hold what they held.
    pub harmless: u64,
    /// Those that look as after a torn last record.
    pub torn: u64,
}

/// Damages copies of `image`, which holds `state`; `earlier` are the states that it held before. Where
/// one kind is `untold`, it is the only one, nobody verifies, and behind a broken header or record opening sees nothing.
///
/// # Errors
/// Damage that nobody saw.
pub fn damage(
    (image, page_size): (&Image, PageSize),
    (state, earlier): (&Print, &[&Print]),
    random: &mut Random,
    seen: &mut Seen,
    untold: Option<Damage>,
) -> Result<(), Broken> {
    const OFTEN: [Damage; 10] = [
        Damage::Cut,
        Damage::Missing,
        Damage::Misdirected,
        Damage::Misdirected,
        Damage::Phantom,
        Damage::Rot,
        Damage::Rot,
        Damage::Rot,
        Damage::Header,
        Damage::Record,
    ];
    for _ in 0..DAMAGES {
        let mut damaged = image.clone();
        let damage = OFTEN[random.below(OFTEN.len())];
        let damage = untold.unwrap_or(damage);
        let spoilt = spoil(&mut damaged, damage, random);
        if untold.is_some() && matches!(damage, Damage::Header | Damage::Record) {
            hide_behind(&mut damaged, &spoilt);
        }
        if untold == Some(Damage::Header) {
            hide_newest(&mut damaged);
        }
        if damaged == *image {
            continue;
        }
        seen.damaged += 1;
        let look = match untold {
            Some(_) => Look::Open,
            // Verifying tells of every broken header, opening of one that calls follow.
            None if damage == Damage::Header => Look::Open,
            None if random.once_in(4) => Look::VerifyAndReadOnly,
            None => Look::Verify,
        };
        match find(&damaged, page_size, look)? {
            Finding::Refused(_) => seen.detected += 1,
            Finding::Nothing if !has_images(image) => seen.torn += 1,
            Finding::Holds(found) if found == *state => seen.harmless += 1,
            Finding::Holds(found)
                if damage.is_local()
                    && earlier.iter().any(|state| allows(state, &found))
                    && spoilt.leaves(image, page_size)? == Some(Finding::Holds(found.clone())) =>
            {
                seen.torn += 1
            }
            other => {
                let found = match other {
                    Finding::Holds(found) => format!("{found:?}"),
                    _ => "no store".into(),
                };
                return Err((
                    Breach::Undetected,
                    format!("{}: found {found} instead of {state:?}", spoilt.what),
                ));
            }
        }
    }
    Ok(())
}

/// Without images what is left of a store looks like one whose creation was interrupted.
fn has_images(image: &Image) -> bool {
    image.keys().any(|name| name.starts_with("object-"))
}

/// What was done to which file.
#[derive(Default)]
struct Spoilt {
    name: String,
    /// The bytes that are not what they were; of what is missing all.
    bytes: Range<usize>,
    what: String,
}

impl Spoilt {
    /// What `image` holds if the newest segment's records, from the first that was hit on, never reached the disk. `None` where
    /// the last of them was not hit: then records are whole behind one that is not, as no power cut leaves them.
    fn leaves(&self, image: &Image, page_size: PageSize) -> Result<Option<Finding>, Broken> {
        let Some((name, bytes)) = newest_segment(image).filter(|(name, _)| **name == self.name) else {
            return Ok(None);
        };
        let records = records(bytes);
        let hit = records.iter().rfind(|start| **start <= self.bytes.start);
        let (Some(first), Some(last)) = (hit.or(records.first()), records.last()) else {
            return Ok(None);
        };
        if self.bytes.end <= *last {
            return Ok(None);
        }
        let mut cut = image.clone();
        let content = cut.get_mut(name).expect("the newest segment");
        Arc::make_mut(content)[*first..].fill(0);
        find(&cut, page_size, Look::Open).map(Some)
    }
}

/// The segment with the highest generation.
fn newest_segment(image: &Image) -> Option<(&String, &Arc<Vec<u8>>)> {
    let segments = image.iter().filter(|(name, _)| name.starts_with("journal-"));
    segments.max_by_key(|(_, bytes)| number(bytes, GENERATION_AT))
}

/// The number in eight bytes, 0 where they are not there.
fn number(bytes: &[u8], at: usize) -> u64 {
    let found = bytes.get(at..at + 8);
    found.map_or(0, |found| {
        u64::from_le_bytes(found.try_into().expect("eight bytes"))
    })
}

/// Where the records of a segment begin; only as the format says, so that the store's own reading is not what judges it.
fn records(segment: &[u8]) -> Vec<usize> {
    let generation = number(segment, GENERATION_AT);
    let places = (SEGMENT_HEADER_BYTES..segment.len()).step_by(8);
    let is_record = |at: &usize| {
        segment[*at..].starts_with(b"vmsR") && number(segment, *at + RECORD_GENERATION_AT) == generation
    };
    places.filter(is_record).collect()
}

/// Takes what is behind the damage from its file, as from a store that does not look there.
fn hide_behind(image: &mut Image, spoilt: &Spoilt) {
    if let Some(content) = image.get_mut(&spoilt.name) {
        Arc::make_mut(content)[spoilt.bytes.end..].fill(0);
    }
}

/// Takes the newer slot of the superblock, which names the newest segment, as in a store that does not note that one.
fn hide_newest(image: &mut Image) {
    if let Some(content) = image.get_mut("STORE") {
        let content = Arc::make_mut(content);
        let newer = [0, BLOCK_BYTES]
            .into_iter()
            .max_by_key(|slot| number(content, slot + NUMBER_AT));
        if let Some(slot) = newer.and_then(|start| content.get_mut(start..start + SECTOR_BYTES)) {
            slot.fill(0);
        }
    }
}

/// Does `damage` to one file.
fn spoil(image: &mut Image, damage: Damage, random: &mut Random) -> Spoilt {
    let names: Vec<String> = image
        .iter()
        .filter(|(name, bytes)| !bytes.is_empty() && *name != "LOCK")
        .map(|(name, _)| name.clone())
        .collect();
    if names.is_empty() {
        return Spoilt::default();
    }
    let name = match damage {
        Damage::Header | Damage::Record => newest_segment(image).map(|(name, _)| name.clone()),
        _ => Some(names[random.below(names.len())].clone()),
    };
    let Some(name) = name else {
        return Spoilt::default();
    };
    let other = names[random.below(names.len())].clone();
    let source = image[&other].clone();
    let content = Arc::make_mut(image.get_mut(&name).expect("one of the names"));
    let length = content.len();
    let (bytes, what) = match damage {
        Damage::Cut => {
            let left = random.below(length);
            content.truncate(left);
            (left..length, format!("{name} cut to {left} bytes"))
        }
        Damage::Missing => {
            image.remove(&name);
            (0..length, format!("{name} missing"))
        }
        Damage::Misdirected => {
            let unit = [SECTOR_BYTES, BLOCK_BYTES][random.below(2)];
            let (from, to) = (
                random.below(source.len().div_ceil(unit)),
                random.below(length.div_ceil(unit)),
            );
            let bytes = &source[from * unit..source.len().min((from + 1) * unit)];
            write(content, to * unit, bytes);
            content.truncate(length);
            let what = format!("{unit} bytes at unit {from} of {other} written over unit {to} of {name}");
            (to * unit..(to + 1) * unit, what)
        }
        Damage::Phantom => {
            let sector = random.below(length.div_ceil(SECTOR_BYTES)) * SECTOR_BYTES;
            let end = length.min(sector + SECTOR_BYTES);
            content[sector..end].fill(0);
            (
                sector..end,
                format!("a sector at {sector} of {name} never written"),
            )
        }
        Damage::Rot => {
            let bit = live_bit(content, random);
            flip(content, bit, &name)
        }
        Damage::Header => flip(content, random.below(length.min(HEADER_BYTES) * 8), &name),
        Damage::Record => match &records(content)[..] {
            [] => return Spoilt::default(),
            records => {
                let start = records[random.below(records.len())];
                let header = length.min(start + RECORD_HEADER_BYTES) - start;
                flip(content, start * 8 + random.below(header * 8), &name)
            }
        },
    };
    Spoilt { name, bytes, what }
}

/// Flips a bit: where that is, and in words.
fn flip(content: &mut [u8], bit: usize, name: &str) -> (Range<usize>, String) {
    content[bit / 8] ^= 1 << (bit % 8);
    (bit / 8..bit / 8 + 1, format!("bit {bit} of {name} flipped"))
}

/// A bit near bytes that are not zero: most of a file may be room.
fn live_bit(content: &[u8], random: &mut Random) -> usize {
    for _ in 0..8 {
        let byte = random.below(content.len());
        if content[byte] != 0 {
            return byte * 8 + random.below(8);
        }
    }
    random.below(content.len().min(256)) * 8 + random.below(8)
}
