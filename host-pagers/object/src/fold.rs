//! Folding: changes that manifests have repeated often enough go to segments, in the background.
//!
//! ```text
//!   Idle --repeated enough--> Underway --uploaded--> Made --the next commit names it--> Idle
//!                                                      '---- no longer carried: garbage --'
//! ```
//!
//! Invariants:
//! - commits go on meanwhile, and take one request each: the fold is named by the next one;
//! - a fold is named only while all of its pages still have changes. Those become changes of its pages; a page that was
//!   written to another segment meanwhile would come back with old bytes.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use vmsync_pager_group::{Place, Result, limits::ENGINE_WAIT_MAX};

use crate::{
    commit::Writer,
    engine::Inner,
    layout::{manifest::SegmentEntry, segment::Run},
    limits::{REPEATED_BYTES_MAX, sending},
};

/// Segments that no manifest names yet, and what is in them.
pub(crate) struct Fold {
    pub(crate) segments: Vec<(SegmentEntry, Vec<Run>)>,
    pub(crate) pages: BTreeMap<Place, Arc<[u8]>>,
}

/// See the head of this file.
pub(crate) enum Folding {
    Idle,
    Underway,
    Made(Fold),
}

impl Folding {
    pub(crate) fn made(&self) -> Option<&Fold> {
        match self {
            Self::Made(fold) => Some(fold),
            Self::Idle | Self::Underway => None,
        }
    }
}

impl Inner {
    /// Counts what a commit has repeated.
    pub(crate) fn fold_if_due(self: &Arc<Self>, writer: &mut Writer) {
        let bytes = self.tree().changes_bytes();
        writer.repeated = if bytes == 0 { 0 } else { writer.repeated + bytes };
        if writer.repeated < REPEATED_BYTES_MAX || !matches!(writer.folding, Folding::Idle) {
            return;
        }
        writer.repeated = 0;
        writer.folding = Folding::Underway;
        let inner = self.clone();
        self.background.spawn(async move {
            let made = inner.fold(Instant::now() + ENGINE_WAIT_MAX).await;
            // Where it fails, a later commit tries again.
            inner.writer.lock().await.folding = made.map_or(Folding::Idle, Folding::Made);
        });
    }

    async fn fold(self: &Arc<Self>, deadline: Instant) -> Result<Fold> {
        let pages: Vec<_> = {
            let _writer = self.writer.lock().await;
            self.read_changed(deadline).await?;
            let tree = self.tree();
            let images = tree.images.iter();
            images
                .map(|(place, images)| (*place, images.page.clone()))
                .collect()
        };
        let deadline = deadline + sending(pages.iter().map(|(_, page)| page.len()).sum());
        Ok(Fold {
            segments: self.upload_pages(&pages, deadline).await?,
            pages: pages.into_iter().collect(),
        })
    }

    pub(crate) fn drop_stale_fold(&self, writer: &mut Writer) {
        let stale = |fold: &&Fold| !self.tree().carries(fold);
        let Some(fold) = writer.folding.made().filter(stale) else {
            return;
        };
        let names: Vec<_> = fold.segments.iter().map(|(entry, _)| entry.name).collect();
        writer.garbage.drop_segments(names);
        writer.folding = Folding::Idle;
    }
}
