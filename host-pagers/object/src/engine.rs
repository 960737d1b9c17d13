//! [`ObjectEngine`]: reading, and the engine's face to `vmsync-pager-group`.
//!
//! ```text
//!   ObjectEngine --- bridge   drives the client
//!        '-- Inner ---- bucket   requests                    [bucket.rs]
//!              |------- tree     what the newest manifest says [tree.rs]
//!              |------- blocks   parts of segments in memory   [blocks.rs]
//!              '------- writer   one commit at a time          [commit.rs, fold.rs, merge.rs, garbage.rs]
//! ```
//!
//! Invariants:
//! - what is read is one manifest's; what a reader reads of an object is of the version that it opened;
//! - a page is handed out only if its sum is right.

use std::{
    collections::HashMap,
    mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64},
    },
    time::{Duration, Instant},
};

use futures_util::{StreamExt, TryStreamExt, stream};
use vmsync_core::{PageSize, PagerError, PagerErrorKind};
use vmsync_pager_group::{
    Background, Batch, Bridge, Contents, Engine, Place, Result, fill, limits::ENGINE_WAIT_MAX, nonce,
};

use crate::{
    Options,
    blocks::Blocks,
    bucket::{Bucket, Requests},
    claim::Claim,
    commit::Writer,
    layout::{
        manifest::{SegmentEntry, SegmentName},
        patch,
        segment::{self, Run},
    },
    limits::{REQUESTS_AT_ONCE, sending},
    location::Location,
    pages::{self, PageMap},
    tree::{Stored, Tree},
};

/// A store in an object store.
pub struct ObjectEngine {
    bridge: Bridge,
    inner: Arc<Inner>,
}

/// What a read finds, or why it has to look again.
pub(crate) type Found<T> = std::result::Result<T, Again>;

/// What is in the way of a read.
#[derive(Debug)]
pub(crate) enum Again {
    /// The reader has gone on to another manifest meanwhile.
    Moved,
    /// The segment is gone.
    Missing(SegmentName),
}

pub(crate) struct Inner {
    pub(crate) bucket: Bucket,
    pub(crate) blocks: Blocks,
    pub(crate) page_size: PageSize,
    pub(crate) read_only: bool,
    pub(crate) garbage_delay: Duration,
    pub(crate) background: Background,
    tree: Mutex<Tree>,
    /// Directories that have been read, until all are: a call that ends before leaves them to the next one.
    loading: tokio::sync::Mutex<HashMap<SegmentName, Vec<Run>>>,
    /// Where the last read ended: the next one may go on from there.
    read_end: Mutex<Option<Place>>,
    pub(crate) writer: tokio::sync::Mutex<Writer>,
    /// Segments are being merged.
    pub(crate) merging: AtomicBool,
    /// The number of the next new segment.
    pub(crate) segment_next: AtomicU64,
}

/// A page of a segment that is to be read, and where it goes.
pub(crate) struct Wanted {
    pub(crate) index: u64,
    pub(crate) place: Place,
    pub(crate) location: pages::Location,
}

impl ObjectEngine {
    pub(crate) fn open(location: Location, options: &Options) -> Result<Self> {
        let bridge = Bridge::new()?;
        let (bucket, page_size, read_only) = (Bucket::new(location), options.page_size, options.read_only);
        let claim = Claim {
            create: options.create,
            page_size,
            writer: nonce(),
        };
        let name = bucket.name.clone();
        let deadline = Instant::now() + ENGINE_WAIT_MAX;
        let opening = async move {
            let tree = if read_only {
                bucket.newest_contents(page_size, deadline).await?
            } else {
                bucket.claim(&claim, deadline).await?
            };
            Ok((bucket, tree))
        };
        let (bucket, tree) = bridge.run(&name, deadline + ENGINE_WAIT_MAX / 2, opening)?;
        let inner = Inner {
            bucket,
            blocks: Blocks::new(),
            page_size,
            read_only,
            garbage_delay: options.garbage_delay,
            background: bridge.background(),
            writer: tokio::sync::Mutex::new(Writer::new(&tree.header)),
            tree: Mutex::new(tree),
            loading: tokio::sync::Mutex::default(),
            read_end: Mutex::default(),
            merging: AtomicBool::new(false),
            segment_next: AtomicU64::new(1),
        };
        Ok(Self {
            bridge,
            inner: Arc::new(inner),
        })
    }

    /// The requests so far.
    pub fn requests(&self) -> Requests {
        self.inner.bucket.requests()
    }

    /// The number of the manifest that this writer began with: the epoch that it holds.
    pub fn epoch(&self) -> u64 {
        self.inner.tree().header.epoch
    }

    fn fill(&self, place: Place, version: Option<u64>, buffer: &mut [u8]) -> Result<bool> {
        let page_size = self.inner.page_size;
        let count = page_size.page_of(buffer.len() as u64);
        let pages =
            self.run(|inner, deadline| async move { inner.read(place, count, version, deadline).await })?;
        Ok(fill(buffer, page_size, pages))
    }

    fn run<T: Send + 'static, F: Future<Output = Result<T>> + Send + 'static>(
        &self,
        work: impl FnOnce(Arc<Inner>, Instant) -> F,
    ) -> Result<T> {
        self.run_long(ENGINE_WAIT_MAX, work)
    }

    fn run_long<T: Send + 'static, F: Future<Output = Result<T>> + Send + 'static>(
        &self,
        wait: Duration,
        work: impl FnOnce(Arc<Inner>, Instant) -> F,
    ) -> Result<T> {
        let deadline = Instant::now() + wait;
        // The work ends by itself at the deadline; this is for a bug in it.
        let late = deadline + ENGINE_WAIT_MAX / 2;
        self.bridge
            .run(&self.inner.bucket.name, late, work(self.inner.clone(), deadline))
    }
}

impl Inner {
    pub(crate) fn tree(&self) -> MutexGuard<'_, Tree> {
        // Nothing panics between two changes that belong together.
        self.tree.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn damaged(&self, what: &str) -> PagerError {
        let message = format!("{}: {what}: restore it", self.bucket.name);
        PagerError::new(PagerErrorKind::Damaged, message)
    }

    /// Reads the directories that were not read yet.
    pub(crate) async fn load_pages(&self, deadline: Instant) -> Result<Found<()>> {
        let mut read = self.loading.lock().await;
        let (number, segments, ids) = {
            let tree = self.tree();
            if tree.pages.is_some() {
                return Ok(Ok(()));
            }
            let ids: Vec<u64> = tree
                .body
                .contents
                .catalog
                .values()
                .map(|entry| entry.id)
                .collect();
            (tree.header.number, tree.body.segments.clone(), ids)
        };
        let left = segments.iter().filter(|entry| !read.contains_key(&entry.name));
        let requests: Vec<_> = left
            .map(|entry| async move {
                let range = 0..u64::from(entry.directory);
                let directory = self.blocks.read(&self.bucket, entry, range, false, deadline);
                (entry, directory.await)
            })
            .collect();
        let mut directories = stream::iter(requests).buffer_unordered(REQUESTS_AT_ONCE);
        while let Some((entry, directory)) = directories.next().await {
            let Some(directory) = directory? else {
                return Ok(Err(Again::Missing(entry.name)));
            };
            let runs = segment::decode(&directory, entry.length, self.page_size)
                .map_err(|error| self.damaged(&format!("a segment: {}", error.message)))?;
            read.insert(entry.name, runs);
        }
        let (mut pages, mut read) = (PageMap::default(), mem::take(&mut *read));
        for entry in &segments {
            let runs = read.remove(&entry.name).unwrap_or_default();
            for run in runs.into_iter().filter(|run| ids.contains(&run.place.0)) {
                pages.insert(entry.name, run, self.page_size);
            }
        }
        let mut tree = self.tree();
        // A reader may have gone on to another manifest meanwhile.
        if tree.header.number == number {
            tree.pages = Some(pages);
        }
        Ok(tree.pages.as_ref().map(|_| ()).ok_or(Again::Moved))
    }

    /// Reads stored pages of `count` from `first` on, by their distance from it.
    pub(crate) async fn read_once(
        &self,
        first: Place,
        count: u64,
        version: Option<u64>,
        deadline: Instant,
    ) -> Result<Found<Vec<(u64, Vec<u8>)>>> {
        if let Err(again) = self.load_pages(deadline).await? {
            return Ok(Err(again));
        }
        let mut wanted = Vec::new();
        let (mut found, mut patches) = (Vec::new(), Vec::new());
        let entries: Vec<SegmentEntry> = {
            let tree = self.tree();
            if version.is_some_and(|version| !tree.shows(first.0, version)) {
                return Err(self.changed());
            }
            // A reader may have gone on to another manifest just now, whose directories are not here.
            if tree.pages.is_none() {
                return Ok(Err(Again::Moved));
            }
            for (index, stored) in tree.stored(first, count) {
                let place = (first.0, first.1 + index);
                let located = match stored {
                    Stored::Image(page) => {
                        found.push((index, page.to_vec()));
                        continue;
                    }
                    Stored::Changed(change, location) => {
                        let base = location.filter(|_| !change.on_zeroes);
                        patches.push((index, change.patch));
                        base
                    }
                    Stored::Segment(location) => Some(location),
                };
                match located.filter(|location| location.offset.is_some()) {
                    Some(location) => wanted.push(Wanted {
                        index,
                        place,
                        location,
                    }),
                    None => found.push((index, vec![0; self.page_size.bytes() as usize])),
                }
            }
            let segment = |wanted: &Wanted| tree.segment(wanted.location.segment);
            wanted.iter().filter_map(segment).collect()
        };
        if entries.len() != wanted.len() {
            return Err(self.damaged("a page lies in a segment that is not named"));
        }
        let ahead = self.is_sequential(first, count);
        match self.read_wanted(&wanted, &entries, ahead, deadline).await? {
            Ok(read) => found.extend(read),
            Err(again) => return Ok(Err(again)),
        }
        for (index, change) in patches {
            let page = found.iter_mut().find(|(other, _)| *other == index);
            let (_, page) = page.expect("each change has a page that it is for");
            patch::apply(&change, page)?;
        }
        Ok(Ok(found))
    }

    /// Reads pages of segments, those that follow each other at once.
    pub(crate) async fn read_wanted(
        &self,
        wanted: &[Wanted],
        entries: &[SegmentEntry],
        ahead: bool,
        deadline: Instant,
    ) -> Result<Found<Vec<(u64, Vec<u8>)>>> {
        let length = self.page_size.bytes();
        let offset = |wanted: &Wanted| wanted.location.offset.unwrap_or(0);
        let follows = |a: &Wanted, b: &Wanted| {
            a.location.segment == b.location.segment && offset(a) + length == offset(b)
        };
        let mut reads = Vec::new();
        let mut start = 0;
        for group in wanted.chunk_by(follows) {
            let range = offset(&group[0])..offset(&group[0]) + group.len() as u64 * length;
            reads.push((group, entries[start], range));
            start += group.len();
        }
        let requests: Vec<_> = reads
            .iter()
            .map(|(_, entry, range)| {
                self.blocks
                    .read(&self.bucket, entry, range.clone(), ahead, deadline)
            })
            .collect();
        let parts: Vec<Option<Vec<u8>>> = stream::iter(requests)
            .buffered(REQUESTS_AT_ONCE)
            .try_collect()
            .await?;
        let mut found = Vec::with_capacity(wanted.len());
        for ((group, entry, _), bytes) in reads.iter().zip(parts) {
            let Some(bytes) = bytes else {
                return Ok(Err(Again::Missing(entry.name)));
            };
            for (wanted, page) in group.iter().zip(bytes.chunks_exact(length as usize)) {
                if segment::sum(wanted.place, page) != wanted.location.sum {
                    let (object, page) = wanted.place;
                    return Err(self.damaged(&format!(
                        "page {page} of the object with id {object} is not what was written"
                    )));
                }
                found.push((wanted.index, page.to_vec()));
            }
        }
        Ok(Ok(found))
    }

    /// Whether a read goes on where the last one ended.
    fn is_sequential(&self, (object, first): Place, count: u64) -> bool {
        let end = Some((object, first + count));
        let mut last = self.read_end.lock().unwrap_or_else(PoisonError::into_inner);
        mem::replace(&mut *last, end) == Some((object, first))
    }

    pub(crate) async fn read(
        &self,
        first: Place,
        count: u64,
        version: Option<u64>,
        deadline: Instant,
    ) -> Result<Vec<(u64, Vec<u8>)>> {
        loop {
            let again = match self.read_once(first, count, version, deadline).await? {
                Ok(found) => return Ok(found),
                Err(again) => again,
            };
            // A segment that is gone no newer manifest names, also one of a merge here, or somebody else removed it.
            if let Again::Missing(name) = again {
                if self.read_only {
                    self.refresh(deadline).await?;
                }
                if self.tree().segment(name).is_some() {
                    return Err(self.missing_segment(deadline).await?);
                }
            }
            if Instant::now() >= deadline {
                let what = "segments go faster than they can be read";
                return Err(self.bucket.unreachable(what));
            }
        }
    }

    /// Takes over the newest contents, for reading.
    async fn refresh(&self, deadline: Instant) -> Result<()> {
        let newest = self.bucket.newest_contents(self.page_size, deadline).await?;
        self.tree().go_on(newest);
        Ok(())
    }

    fn changed(&self) -> PagerError {
        let message = format!(
            "{}: the object has changed since it was opened: open it again",
            self.bucket.name
        );
        PagerError::new(PagerErrorKind::Unavailable, message)
    }
}

impl Engine for ObjectEngine {
    fn page_size(&self) -> PageSize {
        self.inner.page_size
    }

    fn name(&self) -> &str {
        &self.inner.bucket.name
    }

    fn load(&self) -> Result<Contents> {
        if self.inner.read_only {
            self.run(|inner, deadline| async move { inner.refresh(deadline).await })?;
        }
        Ok(self.inner.tree().body.contents.clone())
    }

    fn read(&self, place: Place, buffer: &mut [u8]) -> Result<bool> {
        self.fill(place, None, buffer)
    }

    fn read_version(&self, place: Place, version: u64, buffer: &mut [u8]) -> Result<bool> {
        self.fill(place, Some(version), buffer)
    }

    fn commit(&self, batch: &Batch) -> Result<()> {
        let batch = batch.clone();
        let wait = ENGINE_WAIT_MAX + sending(batch.pages.values().map(|page| page.len()).sum());
        self.run_long(wait, |inner, deadline| async move {
            inner.commit(batch, deadline).await
        })
    }
}

#[cfg(test)]
mod tests;
