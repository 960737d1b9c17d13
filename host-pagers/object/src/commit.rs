//! Committing: pages that do not fit into a manifest go to segments first, then one create decides.
//!
//! Invariants:
//! - a batch has been committed when the manifest behind the last one is this attempt's, and not otherwise;
//! - a create without an answer is repeated with the same bytes until it has one: the number is then taken by this
//!   attempt or by somebody else, and reading it back tells;
//! - an attempt that was given up, and took place all the same, is found at the next commit, which stops the store.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::task::spawn_blocking;
use vmsync_core::{PagerError, PagerErrorKind};
use vmsync_pager_group::{Batch, Place, Result, nonce};

use crate::{
    bucket::{Failure, Pause},
    engine::Inner,
    fold::Folding,
    garbage::Garbage,
    layout::{
        manifest::{self, Header, SegmentEntry, SegmentName},
        segment,
    },
    limits::{MANIFEST_BYTES_MAX, REQUESTS_AT_ONCE, SEGMENT_BYTES_MAX, SEGMENTS_MAX},
    pages::Location,
    tree::{Draft, Images},
};

/// What only the one that commits may touch.
pub(crate) struct Writer {
    /// Attempts at the next number, from before the first request of each.
    attempts: Vec<u64>,
    pub(crate) folding: Folding,
    /// Bytes of changes in the manifests since they went to segments.
    pub(crate) repeated: usize,
    pub(crate) garbage: Garbage,
}

impl Writer {
    pub(crate) fn new(header: &Header) -> Self {
        Self {
            attempts: Vec::new(),
            folding: Folding::Idle,
            repeated: 0,
            garbage: Garbage::new(header),
        }
    }
}

impl Inner {
    pub(crate) fn fenced(&self, number: u64) -> PagerError {
        let message = format!(
            "{}: another host has taken the store over (manifest {number}): this one is fenced, and what it had not \
             committed is lost; go on there, or open the store again to take it back",
            self.bucket.name
        );
        PagerError::new(PagerErrorKind::Gone, message)
    }

    /// Why a segment is gone that the manifest names: this writer's, or the newest one.
    pub(crate) async fn missing_segment(&self, deadline: Instant) -> Result<PagerError> {
        let damaged = self.damaged("a segment is missing");
        if self.read_only {
            return Ok(damaged);
        }
        let newest = self.bucket.newest(deadline).await?;
        let newer = newest.filter(|newest| *newest > self.tree().header.number);
        Ok(newer.map_or(damaged, |newer| self.fenced(newer)))
    }

    pub(crate) async fn commit(self: Arc<Self>, batch: Batch, deadline: Instant) -> Result<()> {
        if self.read_only {
            let message = format!("{} was opened read-only: open it for writing", self.bucket.name);
            return Err(PagerError::new(PagerErrorKind::Denied, message));
        }
        let mut writer = self.writer.lock().await;
        if self.load_pages(deadline).await?.is_err() {
            return Err(self.missing_segment(deadline).await?);
        }
        self.drop_stale_fold(&mut writer);
        let mut draft = self.draft(&writer, &batch);
        if !draft.spilled.is_empty() && !self.tree().unknown().is_empty() {
            self.read_changed(deadline).await?;
            draft = self.draft(&writer, &batch);
        }
        self.upload(&mut draft, deadline).await?;
        let header = self.write(&mut writer, &draft, deadline).await?;
        // Only then may there be segments to merge; finding out takes a walk over the map.
        let grown = !draft.runs.is_empty();
        if draft.folded {
            writer.folding = Folding::Idle;
        }
        let removed: Vec<u64> = batch.removed.iter().map(|(_, id)| *id).collect();
        self.tree().apply(header, draft, &removed);
        self.fold_if_due(&mut writer);
        drop(writer);
        if grown {
            self.clone().merge_if_due();
        }
        self.keep_house();
        Ok(())
    }

    fn draft(&self, writer: &Writer, batch: &Batch) -> Draft {
        let base = |place, location| self.base_at_hand(place, location);
        self.tree().draft(batch, writer.folding.made(), base)
    }

    /// The segments' page, where it is in memory.
    fn base_at_hand(&self, place: Place, location: Location) -> Option<Arc<[u8]>> {
        let offset = location.offset?;
        let page = self
            .blocks
            .cached(location.segment, offset..offset + self.page_size.bytes())?;
        (segment::sum(place, &page) == location.sum).then(|| page.into())
    }

    /// Reads the full pages of changes that an earlier writer made.
    pub(crate) async fn read_changed(&self, deadline: Instant) -> Result<()> {
        let places = self.tree().unknown();
        for place in places {
            let found = self.read(place, 1, None, deadline).await?;
            let Some((_, page)) = found.into_iter().next() else {
                return Err(self.damaged("a page that has changed is not stored"));
            };
            let images = Images {
                base: None,
                page: page.into(),
            };
            self.tree().images.insert(place, images);
        }
        Ok(())
    }

    /// Writes what is spilled to new segments, which no manifest names yet.
    async fn upload(self: &Arc<Self>, draft: &mut Draft, deadline: Instant) -> Result<()> {
        let entries = self.upload_pages(&draft.spilled, deadline).await?;
        for (entry, runs) in entries {
            draft.segments.push(entry);
            draft.runs.push((entry.name, runs));
        }
        if draft.segments.len() > SEGMENTS_MAX {
            let message = format!("{}: {SEGMENTS_MAX} segments: remove objects", self.bucket.name);
            return Err(PagerError::new(PagerErrorKind::NoSpace, message));
        }
        Ok(())
    }

    pub(crate) async fn upload_pages(
        self: &Arc<Self>,
        pages: &[(Place, Arc<[u8]>)],
        deadline: Instant,
    ) -> Result<Vec<(SegmentEntry, Vec<segment::Run>)>> {
        if pages.is_empty() {
            return Ok(Vec::new());
        }
        let (inner, pages) = (self.clone(), pages.to_vec());
        // It takes the processor for long, and this thread may drive the requests of others.
        let encoding = spawn_blocking(move || inner.encode(&pages));
        let made = encoding.await.map_err(|error| {
            let message = format!("{}: segments are not encoded: {error}", self.bucket.name);
            PagerError::new(PagerErrorKind::Io, message)
        })??;
        let first = made.iter().take(REQUESTS_AT_ONCE);
        let together = first.map(|(.., bytes)| bytes.len()).sum();
        let requests: Vec<_> = made
            .iter()
            .map(|(entry, _, bytes)| {
                self.bucket
                    .put_segment(entry.name, bytes.clone(), together, deadline)
            })
            .collect();
        stream::iter(requests)
            .buffer_unordered(REQUESTS_AT_ONCE)
            .try_collect::<()>()
            .await?;
        Ok(made.into_iter().map(|(entry, runs, _)| (entry, runs)).collect())
    }

    /// Segments of `pages`, which stay in memory as well.
    fn encode(&self, pages: &[(Place, Arc<[u8]>)]) -> Result<Vec<(SegmentEntry, Vec<segment::Run>, Bytes)>> {
        let own = self.tree().header;
        let mut made = Vec::new();
        for part in pages.chunks(SEGMENT_BYTES_MAX / self.page_size.bytes() as usize) {
            // A number is not used again, also where the upload fails.
            let name = SegmentName {
                epoch: own.epoch,
                writer: own.writer,
                number: self.segment_next.fetch_add(1, Ordering::Relaxed),
            };
            let (bytes, directory) = segment::encode(part, self.page_size);
            let entry = SegmentEntry {
                name,
                length: bytes.len() as u64,
                directory,
            };
            let runs = segment::decode(&bytes[..directory as usize], entry.length, self.page_size)?;
            let bytes = Bytes::from(bytes);
            self.blocks.insert(entry.name, 0, &bytes);
            made.push((entry, runs, bytes));
        }
        Ok(made)
    }

    /// Creates the manifest behind the newest one that is known: the moment of the commit.
    pub(crate) async fn write(
        &self,
        writer: &mut Writer,
        draft: &Draft,
        deadline: Instant,
    ) -> Result<Header> {
        let (header, bytes) = {
            let tree = self.tree();
            let header = Header {
                number: tree.header.number + 1,
                attempt: nonce(),
                clean: writer.garbage.clean(),
                ..tree.header
            };
            let changes = tree.changes(draft);
            let bytes = manifest::encode_contents(&header, &draft.contents, &draft.segments, &changes);
            (header, Bytes::from(bytes))
        };
        if bytes.len() as u64 > MANIFEST_BYTES_MAX {
            let message = format!(
                "{}: a manifest of {} bytes: remove objects",
                self.bucket.name,
                bytes.len()
            );
            return Err(PagerError::new(PagerErrorKind::NoSpace, message));
        }
        // Whoever waits for a call may give it up at any moment, and what was sent by then may take place.
        writer.attempts.push(header.attempt);
        self.create_or_find(writer, &header, &bytes, deadline).await?;
        writer.attempts.clear();
        Ok(header)
    }

    async fn create_or_find(
        &self,
        writer: &Writer,
        header: &Header,
        bytes: &Bytes,
        deadline: Instant,
    ) -> Result<()> {
        let mut pause = Pause::new();
        loop {
            let message = match self.bucket.create(header.number, bytes.clone()).await {
                Ok(true) => return Ok(()),
                Ok(false) if self.recognise(writer, header, deadline).await? => return Ok(()),
                Ok(false) => "the next manifest is refused, and not there".into(),
                Err(Failure::Refused(error)) => return Err(error),
                Err(Failure::Unknown(message)) => message,
            };
            if !pause.wait(deadline).await {
                return Err(self.bucket.unreachable(&message));
            }
        }
    }

    /// The number is taken: by this attempt, by one that was given up, or by another writer. False: by nobody. S3 answers
    /// so (409) while another request for the key is under way, an earlier one of this attempt too. What has taken the
    /// number is not removed (`format.md`), so whoever asks again learns what it was.
    async fn recognise(&self, writer: &Writer, header: &Header, deadline: Instant) -> Result<bool> {
        match self.bucket.read_manifest(header.number, deadline).await? {
            Some((found, _)) if found.attempt == header.attempt => {
                self.bucket.require_synced()?;
                Ok(true)
            }
            Some((found, _)) if writer.attempts.contains(&found.attempt) => {
                let message = format!(
                    "{}: a call that was reported as failed has taken place all the same: open the store again to go \
                     on from it",
                    self.bucket.name
                );
                Err(PagerError::new(PagerErrorKind::Gone, message))
            }
            Some(_) => Err(self.fenced(header.number)),
            None => Ok(false),
        }
    }
}
