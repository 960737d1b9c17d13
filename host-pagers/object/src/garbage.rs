//! [`Garbage`]: what no manifest needs any more, and when it goes.
//!
//! Invariants:
//! - only a writer removes anything: its claim has been seen to be real (`claim.rs`);
//! - the newest manifest, and the first and the last of each epoch, are never removed: they keep their numbers taken.
//!   What they say is replaced by a stub when it is superseded;
//! - a segment is removed when the newest manifest does not name it, and it is of an earlier epoch or was dropped by
//!   this writer, and its delay is over. A writer that is stale without knowing it so never removes what the next one has made.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
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
    /// When this writer began.
    began: Instant,
    sweep: Sweep,
    retired: bool,
    segments: Vec<(Instant, SegmentName)>,
}

/// How far the removal is of what earlier writers have left.
enum Sweep {
    /// It is to be tried when the delay is over: a writer that ends soon has better things to do.
    Since(Instant),
    /// Much is left, perhaps by writers that all ended soon.
    Due,
    Underway,
    Done,
}

/// What is to be done now.
struct Due {
    claim: Header,
    began: Instant,
    manifests: Vec<u64>,
    segments: Vec<SegmentName>,
    retire: bool,
    sweep: bool,
}

impl Garbage {
    pub(crate) fn new(claim: &Header) -> Self {
        let (began, left) = (Instant::now(), claim.number.saturating_sub(claim.clean));
        Self {
            claim: *claim,
            clean: claim.clean,
            removed_to: claim.number + 1,
            began,
            sweep: if left < MANIFESTS_REMOVED_AT_ONCE {
                Sweep::Since(began)
            } else {
                Sweep::Due
            },
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
        let sweep = match self.sweep {
            Sweep::Since(moment) => moment.elapsed() >= delay,
            Sweep::Due => true,
            Sweep::Underway | Sweep::Done => false,
        };
        let due = Due {
            claim: self.claim,
            began: self.began,
            segments: due.into_iter().map(|(_, name)| name).collect(),
            retire: many && !self.retired,
            sweep,
            manifests,
        };
        if many {
            self.removed_to = end;
            self.retired = true;
        }
        if sweep {
            self.sweep = Sweep::Underway;
        }
        let nothing = due.manifests.is_empty() && due.segments.is_empty() && !due.sweep;
        (!nothing).then_some(due)
    }
}

impl Inner {
    /// Removes what is due, behind the commit that made it so. What fails is left to a sweep: nothing depends on it.
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
            let _ = self.bucket.remove_manifests(due.manifests).await;
            let _ = self.bucket.remove_segments(due.segments).await;
            if due.retire {
                let _ = self.retire(&due.claim, deadline).await;
            }
            if due.sweep {
                let swept = self.sweep(&due.claim, due.began).await;
                self.writer.lock().await.garbage.sweep = match swept {
                    Ok(true) => Sweep::Done,
                    Ok(false) | Err(_) => Sweep::Since(Instant::now()),
                };
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

    /// Removes what earlier writers have left; false where some of their segments have to stay for readers that are behind.
    pub(crate) async fn sweep(&self, claim: &Header, began: Instant) -> Result<bool> {
        let manifests = self.bucket.manifests(Instant::now() + ENGINE_WAIT_MAX).await?;
        let delay = self.garbage_delay;
        let may_remove = began.elapsed() >= delay || age(claim, &manifests).is_some_and(|age| age >= delay);
        let unused = match may_remove {
            true => Some((claim.epoch, BTreeSet::new())),
            false => self.unused(aged(claim, &manifests, delay)).await?,
        };
        self.sweep_manifests(claim, manifests.into_keys()).await?;
        if let Some((epoch, kept)) = unused {
            self.sweep_segments(epoch, kept).await?;
        }
        Ok(may_remove)
    }

    /// The epoch of the newest of the manifests `aged` that has contents, and the segments that it names: no other one of an
    /// epoch before was named since.
    async fn unused(&self, aged: Vec<u64>) -> Result<Option<(u64, BTreeSet<SegmentName>)>> {
        let deadline = Instant::now() + ENGINE_WAIT_MAX;
        for number in aged.into_iter().rev().take(MANIFESTS_KEPT as usize) {
            if let Some((header, Says::Contents(body))) = self.bucket.read_manifest(number, deadline).await? {
                let named = body.segments.iter().map(|segment| segment.name);
                return Ok(Some((header.epoch, named.collect())));
            }
        }
        Ok(None)
    }

    /// Removes segments of epochs before `epoch` that are not to be `kept`, and that the newest manifest does not name.
    pub(crate) async fn sweep_segments(&self, epoch: u64, mut kept: BTreeSet<SegmentName>) -> Result<()> {
        let listed = self.bucket.segments(Instant::now() + ENGINE_WAIT_MAX).await?;
        {
            let writer = self.writer.lock().await;
            // What a merge has just dropped is promised to readers for its time.
            let dropped = writer.garbage.segments.iter().map(|(_, name)| *name);
            let tree = self.tree();
            let named = tree.body.segments.iter().map(|segment| segment.name);
            kept.extend(named.chain(dropped));
        }
        let left = |name: &SegmentName| name.epoch < epoch && !kept.contains(name);
        self.bucket
            .remove_segments(listed.into_iter().filter(left).collect())
            .await
    }

    /// Removes manifests before `claim`, but for the first and the last of each epoch, from the oldest on: `clean` follows.
    async fn sweep_manifests(&self, claim: &Header, numbers: impl Iterator<Item = u64>) -> Result<()> {
        let mut clean = self.writer.lock().await.garbage.clean;
        let mut left: Vec<u64> = numbers
            .filter(|number| (clean..claim.number).contains(number))
            .collect();
        let mut count = MANIFESTS_REMOVED_AT_ONCE as usize;
        while clean < claim.number {
            let deadline = Instant::now() + ENGINE_WAIT_MAX;
            // Where one is gone, somebody else has cleaned here, so this writer is stale.
            let end = match left.get(count) {
                Some(number) => self.epoch_of(*number, deadline).await?,
                None => Some(claim.number),
            };
            let Some(end) = end else { return Ok(()) };
            if end <= clean {
                // All of them are of one epoch.
                count *= 2;
                continue;
            }
            let (mut kept, mut last) = (BTreeSet::new(), end - 1);
            while last >= clean.max(1) {
                let Some(first) = self.epoch_of(last, deadline).await? else {
                    return Ok(());
                };
                kept.extend([first, last]);
                last = first.min(last).saturating_sub(1);
            }
            let done = left.partition_point(|number| *number < end);
            let removed = left.drain(..done).filter(|number| !kept.contains(number));
            self.bucket.remove_manifests(removed.collect()).await?;
            (clean, count) = (end, MANIFESTS_REMOVED_AT_ONCE as usize);
            self.writer.lock().await.garbage.clean = clean;
        }
        Ok(())
    }

    /// The first manifest of the epoch that manifest `number` is of; `None` where it is not there.
    async fn epoch_of(&self, number: u64, deadline: Instant) -> Result<Option<u64>> {
        let found = self.bucket.read_manifest(number, deadline).await?;
        Ok(found.map(|(header, _)| header.epoch))
    }
}

/// How long the writers before `claim` have made nothing, by the store's clock: what they named until then is at least so
/// long of no use.
fn age(claim: &Header, manifests: &BTreeMap<u64, SystemTime>) -> Option<Duration> {
    let last = manifests.get(&claim.number.checked_sub(1)?)?;
    manifests.values().next_back()?.duration_since(*last).ok()
}

/// The manifests before `claim` that are older than `delay`, by the store's clock, rising.
fn aged(claim: &Header, manifests: &BTreeMap<u64, SystemTime>, delay: Duration) -> Vec<u64> {
    let newest = manifests.values().next_back().copied();
    let is_aged = |written: &SystemTime| {
        let age = newest.and_then(|newest| newest.duration_since(*written).ok());
        age.is_some_and(|age| age >= delay)
    };
    let before = manifests.range(..claim.number);
    let aged = before.filter(|(_, written)| is_aged(written));
    aged.map(|(number, _)| *number).collect()
}

#[cfg(test)]
mod tests {
    use vmsync_core::PageSize;

    use super::*;

    #[test]
    fn a_pause_of_the_writers_before_is_seen_in_the_manifests() {
        let claim = Header {
            number: 3,
            epoch: 3,
            writer: 1,
            attempt: 1,
            clean: 1,
            page_size: PageSize::KIB_4,
        };
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let mut manifests = BTreeMap::from([(1, at(10)), (2, at(20)), (3, at(90)), (4, at(95))]);
        assert_eq!(age(&claim, &manifests), Some(Duration::from_secs(75)));
        manifests.remove(&2);
        assert_eq!(age(&claim, &manifests), None);
        let first = Header { number: 0, ..claim };
        assert_eq!(age(&first, &manifests), None);
        let manifests = BTreeMap::from([(1, at(10)), (2, at(20)), (3, at(90)), (4, at(95))]);
        assert_eq!(aged(&claim, &manifests, Duration::from_secs(75)), [1, 2]);
        assert_eq!(aged(&claim, &manifests, Duration::from_secs(76)), [1]);
    }
}
