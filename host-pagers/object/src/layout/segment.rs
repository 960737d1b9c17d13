//! A segment: a directory of page runs, then the pages.
//!
//! Invariants:
//! - a segment never changes once it is written, and its name is not used again;
//! - each page has its sum in the directory, seeded with its place.

use std::sync::Arc;

use twox_hash::XxHash3_64;
use vmsync_core::PageSize;
use vmsync_pager_group::Place;

use super::{Cursor, Decoded, FORMAT_VERSION, damaged, seal, unseal};

const MAGIC: &[u8; 8] = b"VMSYNCSG";

/// Pages that follow each other in an object and in a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) place: Place,
    /// Where the first one lies in the segment; `None`: they are zeroes, and lie nowhere.
    pub(crate) offset: Option<u64>,
    /// Of each page; zeroes have them too, so that a run is as long as they are.
    pub(crate) sums: Vec<u64>,
}

/// The sum of a page.
pub(crate) fn sum((object, page): Place, bytes: &[u8]) -> u64 {
    // An odd factor keeps different objects apart for every page that one can have.
    const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
    XxHash3_64::oneshot_with_seed(object.wrapping_mul(SPREAD) ^ page, bytes)
}

/// A segment of `pages`, in rising order, and the length of its directory.
pub(crate) fn encode(pages: &[(Place, Arc<[u8]>)], page_size: PageSize) -> (Vec<u8>, u32) {
    let mut runs: Vec<Run> = Vec::new();
    let mut offset = 0;
    for (place, bytes) in pages {
        let zeroes = bytes.iter().all(|byte| *byte == 0);
        let sum = sum(*place, bytes);
        let follows = |run: &&mut Run| {
            let next = run.place.1 + run.sums.len() as u64;
            run.place.0 == place.0 && next == place.1 && run.offset.is_none() == zeroes
        };
        match runs.last_mut().filter(follows) {
            Some(run) => run.sums.push(sum),
            None => runs.push(Run {
                place: *place,
                offset: (!zeroes).then_some(offset),
                sums: vec![sum],
            }),
        }
        offset += if zeroes { 0 } else { page_size.bytes() };
    }
    let mut segment = MAGIC.to_vec();
    segment.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
    segment.extend_from_slice(&(runs.len() as u32).to_le_bytes());
    for run in &runs {
        segment.extend_from_slice(&run.place.0.to_le_bytes());
        segment.extend_from_slice(&run.place.1.to_le_bytes());
        // Relative to the end of the directory, whose length is not known yet.
        segment.extend_from_slice(&run.offset.unwrap_or(u64::MAX).to_le_bytes());
        segment.extend_from_slice(&(run.sums.len() as u32).to_le_bytes());
        run.sums
            .iter()
            .for_each(|sum| segment.extend_from_slice(&sum.to_le_bytes()));
    }
    seal(&mut segment);
    let directory = segment.len() as u32;
    segment.reserve_exact(offset as usize);
    for (_, bytes) in pages {
        if bytes.iter().any(|byte| *byte != 0) {
            segment.extend_from_slice(bytes);
        }
    }
    (segment, directory)
}

/// The runs of a segment of `length` bytes, from its directory; offsets count from the segment's first byte.
pub(crate) fn decode(directory: &[u8], length: u64, page_size: PageSize) -> Decoded<Vec<Run>> {
    let mut cursor = Cursor(unseal(directory)?);
    if cursor.take(MAGIC.len())? != MAGIC || cursor.u32()? != FORMAT_VERSION {
        return Err(damaged("it is no segment"));
    }
    let mut runs = Vec::new();
    for _ in 0..cursor.count(28)? {
        let place = (cursor.u64()?, cursor.u64()?);
        let offset = cursor.u64()?;
        let count = cursor.count(8)?;
        let sums: Vec<u64> = (0..count).map(|_| cursor.u64()).collect::<Decoded<_>>()?;
        let offset = (offset != u64::MAX).then(|| offset.saturating_add(directory.len() as u64));
        let bytes = page_size.bytes() * count as u64;
        let inside = offset.is_none_or(|offset| offset.checked_add(bytes).is_some_and(|end| end <= length));
        if !inside || place.1.checked_add(count as u64).is_none() {
            return Err(damaged("a run of pages lies outside the segment"));
        }
        runs.push(Run { place, offset, sums });
    }
    cursor.end()?;
    Ok(runs)
}
