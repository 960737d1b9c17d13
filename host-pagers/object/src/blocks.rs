//! [`Blocks`]: parts of segments, held in memory. Segments never change, so nothing here is ever stale.

use std::{
    num::NonZeroUsize,
    ops::Range,
    sync::{Mutex, PoisonError},
    time::Instant,
};

use bytes::Bytes;
use lru::LruCache;
use vmsync_pager_group::Result;

use crate::{
    bucket::Bucket,
    layout::manifest::{SegmentEntry, SegmentName},
    limits::{AHEAD_BYTES, BLOCK_BYTES, CACHE_BLOCKS},
};

/// See the head of this file.
pub(crate) struct Blocks(Mutex<LruCache<(SegmentName, u64), Bytes>>);

impl Blocks {
    pub(crate) fn new() -> Self {
        let count = NonZeroUsize::new(CACHE_BLOCKS).expect("a constant above zero");
        Self(Mutex::new(LruCache::new(count)))
    }

    /// Bytes of a segment that are here.
    pub(crate) fn cached(&self, segment: SegmentName, range: Range<u64>) -> Option<Vec<u8>> {
        let mut blocks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut bytes = Vec::with_capacity((range.end - range.start) as usize);
        for block in range.start / BLOCK_BYTES..range.end.div_ceil(BLOCK_BYTES) {
            let start = block * BLOCK_BYTES;
            let part = range.start.max(start) - start..range.end.min(start + BLOCK_BYTES) - start;
            bytes.extend_from_slice(
                blocks
                    .get(&(segment, block))?
                    .get(part.start as usize..part.end as usize)?,
            );
        }
        Some(bytes)
    }

    /// Keeps bytes of a segment that begin with a block.
    pub(crate) fn insert(&self, segment: SegmentName, offset: u64, bytes: &Bytes) {
        let mut blocks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut start = 0;
        for block in offset / BLOCK_BYTES.. {
            if start >= bytes.len() {
                break;
            }
            let end = bytes.len().min(start + BLOCK_BYTES as usize);
            // A copy of its own: a slice would keep all of `bytes` in memory.
            blocks.put((segment, block), Bytes::copy_from_slice(&bytes[start..end]));
            start = end;
        }
    }

    /// Bytes of a segment; `ahead`: more than asked for, because that is what comes next. `None` where the segment
    /// is gone.
    pub(crate) async fn read(
        &self,
        bucket: &Bucket,
        segment: &SegmentEntry,
        range: Range<u64>,
        ahead: bool,
        deadline: Instant,
    ) -> Result<Option<Vec<u8>>> {
        if let Some(bytes) = self.cached(segment.name, range.clone()) {
            return Ok(Some(bytes));
        }
        let start = range.start / BLOCK_BYTES * BLOCK_BYTES;
        let least = if ahead { start + AHEAD_BYTES } else { 0 };
        let end = range.end.max(least).div_ceil(BLOCK_BYTES) * BLOCK_BYTES;
        let fetched = bucket
            .segment(segment.name, start..end.min(segment.length), deadline)
            .await?;
        let Some(bytes) = fetched else { return Ok(None) };
        self.insert(segment.name, start, &bytes);
        let part = (range.start - start) as usize..(range.end - start) as usize;
        Ok(bytes.get(part).map(<[u8]>::to_vec))
    }
}
