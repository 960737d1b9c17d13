//! Patches: what makes a page out of the one in the segments, or out of zeroes.
//!
//! Invariants: runs rise, do not touch each other, and lie inside the page.

use super::{Cursor, Decoded, damaged};

/// Bytes that differ closer together than this are one run: a run of its own costs as much.
const GAP_BYTES: usize = 8;

/// The patch from `base` to `page`, which are equally long.
pub(crate) fn encode(base: &[u8], page: &[u8]) -> Vec<u8> {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for (index, (old, new)) in base.chunks(GAP_BYTES).zip(page.chunks(GAP_BYTES)).enumerate() {
        if old == new {
            continue;
        }
        let (start, end) = (index * GAP_BYTES, index * GAP_BYTES + new.len());
        match runs.last_mut() {
            Some((_, last)) if *last == start => *last = end,
            _ => runs.push((start, end)),
        }
    }
    let mut bytes = (runs.len() as u32).to_le_bytes().to_vec();
    for (start, end) in runs {
        bytes.extend_from_slice(&(start as u32).to_le_bytes());
        bytes.extend_from_slice(&((end - start) as u32).to_le_bytes());
        bytes.extend_from_slice(&page[start..end]);
    }
    bytes
}

/// Takes a patch off `cursor`, checked for pages of `page_bytes`.
pub(crate) fn take<'a>(cursor: &mut Cursor<'a>, page_bytes: usize) -> Decoded<&'a [u8]> {
    let all = cursor.0;
    let mut last = 0;
    for _ in 0..cursor.count(8)? {
        let (start, length) = (cursor.u32()? as usize, cursor.u32()? as usize);
        if start < last || start + length > page_bytes || length == 0 {
            return Err(damaged("a run of a patch lies outside its page"));
        }
        last = start + length;
        cursor.take(length)?;
    }
    Ok(&all[..all.len() - cursor.0.len()])
}

/// Changes `page`, as long as the one that the checked `patch` was made for.
pub(crate) fn apply(patch: &[u8], page: &mut [u8]) -> Decoded<()> {
    let mut cursor = Cursor(patch);
    for _ in 0..cursor.count(8)? {
        let (start, length) = (cursor.u32()? as usize, cursor.u32()? as usize);
        let target = page.get_mut(start..start.saturating_add(length));
        let target = target.ok_or_else(|| damaged("a run of a patch lies outside its page"))?;
        target.copy_from_slice(cursor.take(length)?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use vmsync_pager_conformance::random::Random;

    use super::*;

    #[test]
    fn a_patch_makes_the_page() {
        let mut random = Random::from_environment("patches");
        for _ in 0..200 {
            let mut base = vec![0; 4096];
            random.fill(&mut base);
            let mut page = base.clone();
            for _ in 0..random.below(5) {
                let start = random.below(4096) as usize;
                let end = (start + random.below(60) as usize).min(4096);
                random.fill(&mut page[start..end]);
            }
            let patch = encode(&base, &page);
            let mut cursor = Cursor(&patch);
            assert_eq!(take(&mut cursor, 4096).unwrap(), patch);
            apply(&patch, &mut base).unwrap();
            assert!(base == page);
            // Bad bytes are refused and never a panic.
            let mut bad = patch.clone();
            let at = random.below(bad.len() as u64) as usize;
            bad[at] ^= 1 << random.below(8);
            if take(&mut Cursor(&bad), 4096).is_ok() {
                apply(&bad, &mut base).unwrap();
            }
        }
    }
}
