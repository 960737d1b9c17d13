//! [`Garbage`]: what no manifest needs any more, and when it goes.
//!
//! Invariants:
//! - only a writer removes anything: its claim has been seen to be real (`claim.rs`);
//! - the newest manifest, and the first and the last of each epoch, are never removed: they keep their numbers taken.
//!   What they say is replaced by a stub when it is superseded;
//! - a segment is removed when the newest manifest does not name it, and it is of an earlier epoch or was dropped by
//!   this writer. A writer that is stale without knowing it so never removes what the next one has made.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use vmsync_pager_group::{Result, limits::ENGINE_WAIT_MAX};

use crate::{
    engine::Inner,
    layout::manifest::{self, Header, Says, SegmentName},
    limits::{MANIFESTS_KEPT, MANIFESTS_REMOVED_AT_ONCE},
};

/// See the head of this file.
pub(crate) struct Garbage {
    /// The writer's own first manifest.
    claim: Header,
    clean: u64,
    /// Own manifests below this one are removed, but for the first.
    removed_to: u64,
    /// When this writer began: one that ends soon has better things to do than to look for what others have left.
    began: Instant,
    /// That was done.
    swept: bool,
    retired: bool,
    segments: Vec<(Instant, SegmentName)>,
}

/// What is to be done now.
struct Due {
    claim: Header,
    manifests: Vec<u64>,
    segments: Vec<SegmentName>,
    retire: bool,
    sweep: bool,
}

impl Garbage {
    pub(crate) fn new(claim: &Header) -> Self {
        Self {
            claim: *claim,
            clean: claim.clean,
            removed_to: claim.number + 1,
            began: Instant::now(),
            swept: false,
            retired: false,
            segments: Vec::new(),
        }
    }

    /// For the next manifest's header.
    pub(crate) fn clean(&self) -> u64 {
        self.clean
    }

    pub(crate) fn drop_segments(&mut self, names: impl IntoIterator<Item = SegmentName>) {
        let now = Instant::now();
        self.segments.extend(names.into_iter().map(|name| (now, name)));
    }

    fn take_due(&mut self, newest: u64, delay: Duration) -> Option<Due> {
        let end = newest.saturating_sub(MANIFESTS_KEPT);
        let many = end.saturating_sub(self.removed_to) >= MANIFESTS_REMOVED_AT_ONCE;
        let manifests: Vec<u64> = if many {
            (self.removed_to..end).collect()
        } else {
            Vec::new()
        };
        let is_due = |(since, _): &(Instant, SegmentName)| since.elapsed() >= delay;
        let (due, rest): (Vec<_>, Vec<_>) = self.segments.drain(..).partition(is_due);
        self.segments = rest;
        let sweep = !self.swept && self.began.elapsed() >= delay;
        let due = Due {
            claim: self.claim,
            segments: due.into_iter().map(|(_, name)| name).collect(),
            retire: many && !self.retired,
            sweep,
            manifests,
        };
        if many {
            self.removed_to = end;
            self.retired = true;
        }
        self.swept |= sweep;
        let nothing = due.manifests.is_empty() && due.segments.is_empty() && !due.sweep;
        (!nothing).then_some(due)
    }
}

impl Inner {
    /// Removes what is due, behind the commit that made it so. What fails is left for another time: nothing depends
    /// on it.
    pub(crate) fn keep_house(self: Arc<Self>) {
        let Ok(mut writer) = self.writer.try_lock() else {
            return;
        };
        let newest = self.tree().header.number;
        let Some(due) = writer.garbage.take_due(newest, self.garbage_delay) else {
            return;
        };
        drop(writer);
        self.background.clone().spawn(async move {
            let deadline = Instant::now() + ENGINE_WAIT_MAX;
            self.bucket.remove_manifests(due.manifests.clone()).await;
            self.bucket.remove_segments(due.segments.clone()).await;
            if due.retire {
                let _ = self.retire(&due.claim, deadline).await;
            }
            if due.sweep {
                let deadline = Instant::now() + ENGINE_WAIT_MAX;
                if let Ok(clean) = self.sweep(&due.claim, deadline).await {
                    self.writer.lock().await.garbage.clean = clean;
                }
            }
        });
    }

    /// Replaces the first manifest of this epoch, and the contents that it began with, by stubs.
    async fn retire(&self, claim: &Header, deadline: Instant) -> Result<()> {
        for number in (1..=claim.number).rev() {
            let Some((header, says)) = self.bucket.read_manifest(number, deadline).await? else {
                break;
            };
            let borrows = matches!(says, Says::Borrows);
            if !borrows || number == claim.number {
                let stub = manifest::encode(&header, &Says::Retired);
                self.bucket.replace(number, stub.into(), deadline).await?;
            }
            if !borrows && number < claim.number {
                break;
            }
        }
        Ok(())
    }

    /// Removes what earlier writers have left; answers below which manifest that is done.
    pub(crate) async fn sweep(&self, claim: &Header, deadline: Instant) -> Result<u64> {
        let named: BTreeSet<SegmentName> = {
            let tree = self.tree();
            tree.body.segments.iter().map(|segment| segment.name).collect()
        };
        let segments = self.bucket.segments(deadline).await?;
        let left = |name: &SegmentName| name.epoch < claim.epoch && !named.contains(name);
        self.bucket
            .remove_segments(segments.into_iter().filter(left).collect())
            .await;
        // The first and last manifests of the epochs before, from the newest back.
        let (mut kept, mut last) = (BTreeSet::new(), claim.number - 1);
        while last >= claim.clean && last > 0 {
            let Some((header, _)) = self.bucket.read_manifest(last, deadline).await? else {
                // Somebody else has cleaned here, so this writer is stale.
                return Ok(claim.clean);
            };
            kept.extend([header.epoch, header.epoch.saturating_sub(1), last]);
            last = header.epoch.saturating_sub(1);
        }
        let manifests = self.bucket.manifests(deadline).await?;
        let left = |number: &u64| (claim.clean..claim.number).contains(number) && !kept.contains(number);
        self.bucket
            .remove_manifests(manifests.into_iter().filter(left).collect())
            .await;
        Ok(claim.number)
    }
}
