//! [`Bucket`]: the object store, under one prefix, with every request bounded and counted.
//!
//! ```text
//!   PREFIX/manifest/{!number, 16 hexadecimal digits}        created once, never overwritten while it counts
//!   PREFIX/segment/{epoch}-{writer}-{number}
//! ```
//!
//! Invariants:
//! - a request that may have taken place without an answer is never reported as refused;
//! - no message has a credential.

use std::{
    collections::BTreeMap,
    future::ready,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use object_store::{
    Error, GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions, path::Path,
};
use tokio::time::{sleep, timeout};
use vmsync_core::{PagerError, PagerErrorKind};
use vmsync_pager_group::Result;

use crate::{
    layout::manifest::SegmentName,
    limits::{KEYS_REMOVED_AT_ONCE, PAUSE_FIRST, PAUSE_MAX, REQUEST_WAIT_MAX, sending},
    location::{Location, MANIFESTS, SEGMENTS},
};

/// Why a request failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// No answer, or one that says "later": whether it took place is not known.
    Unknown(String),
    /// It did not take place.
    Refused(PagerError),
}

/// How many requests of each kind were made, and the bytes that they moved. What the client repeats by itself counts
/// once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Requests {
    /// Objects written.
    pub puts: u64,
    /// Objects, or parts of them, read.
    pub gets: u64,
    /// Listings.
    pub lists: u64,
    /// Removals, of one or many objects.
    pub deletes: u64,
    /// Sent in objects.
    pub bytes_sent: u64,
    /// Received in objects.
    pub bytes_received: u64,
}

impl Requests {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.puts + self.gets + self.lists + self.deletes
    }
}

#[derive(Default)]
struct Counts {
    puts: AtomicU64,
    gets: AtomicU64,
    lists: AtomicU64,
    deletes: AtomicU64,
    bytes_sent: AtomicU64,
    bytes_received: AtomicU64,
}

/// See the head of this file.
pub(crate) struct Bucket {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    /// For messages.
    pub(crate) name: String,
    /// Listings come in the order of keys.
    sorted: bool,
    folder: bool,
    counts: Counts,
}

/// Pauses that grow, up to a deadline.
pub(crate) struct Pause(Duration);

impl Pause {
    pub(crate) fn new() -> Self {
        Self(PAUSE_FIRST)
    }

    /// Waits; false when `deadline` is over.
    pub(crate) async fn wait(&mut self, deadline: Instant) -> bool {
        if Instant::now() + self.0 >= deadline {
            return false;
        }
        sleep(self.0).await;
        self.0 = (self.0 * 2).min(PAUSE_MAX);
        true
    }
}

impl Bucket {
    pub(crate) fn new(location: Location) -> Self {
        Self {
            store: location.store,
            prefix: location.prefix,
            name: location.name,
            sorted: location.sorted,
            folder: location.folder,
            counts: Counts::default(),
        }
    }

    pub(crate) fn requests(&self) -> Requests {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Requests {
            puts: load(&self.counts.puts),
            gets: load(&self.counts.gets),
            lists: load(&self.counts.lists),
            deletes: load(&self.counts.deletes),
            bytes_sent: load(&self.counts.bytes_sent),
            bytes_received: load(&self.counts.bytes_received),
        }
    }

    fn manifest_key(&self, number: u64) -> Path {
        // The newest comes first in a listing.
        self.prefix
            .clone()
            .join(MANIFESTS)
            .join(format!("{:016x}", !number))
    }

    fn segment_key(&self, name: SegmentName) -> Path {
        let SegmentName {
            epoch,
            writer,
            number,
        } = name;
        self.prefix
            .clone()
            .join(SEGMENTS)
            .join(format!("{epoch:016x}-{writer:016x}-{number:016x}"))
    }

    /// The number of the manifest whose key it is.
    fn manifest_number(&self, key: &Path) -> Option<u64> {
        let number = !u64::from_str_radix(key.filename()?, 16).ok()?;
        (self.manifest_key(number) == *key).then_some(number)
    }

    /// The name of the segment whose key it is.
    fn segment_name(&self, key: &Path) -> Option<SegmentName> {
        let mut numbers = key
            .filename()?
            .split('-')
            .map(|text| u64::from_str_radix(text, 16));
        let mut next = || numbers.next()?.ok();
        let name = SegmentName {
            epoch: next()?,
            writer: next()?,
            number: next()?,
        };
        (self.segment_key(name) == *key).then_some(name)
    }

    /// Creates manifest `number`; false where there is one.
    pub(crate) async fn create(&self, number: u64, bytes: Bytes) -> std::result::Result<bool, Failure> {
        let key = self.manifest_key(number);
        let options = PutOptions::from(PutMode::Create);
        self.count_put(&bytes);
        match timeout(REQUEST_WAIT_MAX, self.store.put_opts(&key, bytes.into(), options)).await {
            Ok(Ok(_)) => Ok(true),
            Ok(Err(Error::AlreadyExists { .. })) => Ok(false),
            Ok(Err(error)) => Err(self.failure(error)),
            Err(_) => Err(Failure::Unknown("no answer".into())),
        }
    }

    /// Replaces manifest `number`, which is superseded.
    pub(crate) async fn replace(&self, number: u64, bytes: Bytes, deadline: Instant) -> Result<()> {
        let key = self.manifest_key(number);
        self.put(&key, bytes, REQUEST_WAIT_MAX, deadline).await
    }

    /// Writes a segment, which shares the line with others: `together` bytes.
    pub(crate) async fn put_segment(
        &self,
        name: SegmentName,
        bytes: Bytes,
        together: usize,
        deadline: Instant,
    ) -> Result<()> {
        let wait = REQUEST_WAIT_MAX + sending(together);
        self.put(&self.segment_key(name), bytes, wait, deadline).await
    }

    async fn put(&self, key: &Path, bytes: Bytes, wait: Duration, deadline: Instant) -> Result<()> {
        let bytes = &bytes;
        self.repeat_long(wait, deadline, move || async move {
            self.count_put(bytes);
            self.store.put(key, bytes.clone().into()).await.map(drop)
        })
        .await
    }

    fn count_put(&self, bytes: &Bytes) {
        self.counts.puts.fetch_add(1, Ordering::Relaxed);
        self.counts
            .bytes_sent
            .fetch_add(bytes.len() as u64, Ordering::Relaxed);
    }

    /// A manifest; `None` where there is none.
    pub(crate) async fn manifest(&self, number: u64, deadline: Instant) -> Result<Option<Bytes>> {
        self.get(&self.manifest_key(number), None, deadline).await
    }

    /// Bytes of a segment; `None` where there is none.
    pub(crate) async fn segment(
        &self,
        name: SegmentName,
        range: Range<u64>,
        deadline: Instant,
    ) -> Result<Option<Bytes>> {
        let length = range.end - range.start;
        let bytes = self.get(&self.segment_key(name), Some(range), deadline).await?;
        if bytes.as_ref().is_some_and(|bytes| bytes.len() as u64 != length) {
            let message = format!("{}: a segment is shorter than it was: restore it", self.name);
            return Err(PagerError::new(PagerErrorKind::Damaged, message));
        }
        Ok(bytes)
    }

    async fn get(&self, key: &Path, range: Option<Range<u64>>, deadline: Instant) -> Result<Option<Bytes>> {
        let range = &range;
        self.repeat(deadline, move || async move {
            self.counts.gets.fetch_add(1, Ordering::Relaxed);
            let options = GetOptions::new().with_range(range.clone().map(GetRange::Bounded));
            let bytes = match self.store.get_opts(key, options).await {
                Ok(answer) => answer.bytes().await?,
                Err(Error::NotFound { .. }) => return Ok(None),
                Err(error) => return Err(error),
            };
            self.counts
                .bytes_received
                .fetch_add(bytes.len() as u64, Ordering::Relaxed);
            Ok(Some(bytes))
        })
        .await
    }

    /// The number of the newest manifest.
    pub(crate) async fn newest(&self, deadline: Instant) -> Result<Option<u64>> {
        if !self.sorted {
            return Ok(self.manifests(deadline).await?.into_keys().next_back());
        }
        let folder = &self.prefix.clone().join(MANIFESTS);
        self.repeat(deadline, move || async move {
            self.counts.lists.fetch_add(1, Ordering::Relaxed);
            let mut objects = self.store.list(Some(folder));
            while let Some(object) = objects.next().await {
                // Others may have keys of their own there.
                if let Some(number) = self.manifest_number(&object?.location) {
                    return Ok(Some(number));
                }
            }
            Ok(None)
        })
        .await
    }

    /// The numbers of all manifests, rising, and when each was written, by the store's clock.
    pub(crate) async fn manifests(&self, deadline: Instant) -> Result<BTreeMap<u64, SystemTime>> {
        let objects = self.list(MANIFESTS, deadline).await?;
        let written = objects.into_iter().filter_map(|object| {
            let number = self.manifest_number(&object.location)?;
            Some((number, object.last_modified.into()))
        });
        Ok(written.collect())
    }

    pub(crate) async fn segments(&self, deadline: Instant) -> Result<Vec<SegmentName>> {
        Ok(self
            .list(SEGMENTS, deadline)
            .await?
            .iter()
            .filter_map(|object| self.segment_name(&object.location))
            .collect())
    }

    async fn list(&self, folder: &str, deadline: Instant) -> Result<Vec<ObjectMeta>> {
        let folder = &self.prefix.clone().join(folder);
        self.repeat(deadline, move || async move {
            self.counts.lists.fetch_add(1, Ordering::Relaxed);
            let (mut found, mut objects) = (Vec::new(), self.store.list(Some(folder)));
            while let Some(object) = objects.next().await {
                found.push(object?);
            }
            Ok(found)
        })
        .await
    }

    pub(crate) async fn remove_manifests(&self, numbers: Vec<u64>) -> Result<()> {
        let keys = numbers.into_iter().map(|number| self.manifest_key(number));
        self.remove(keys.collect()).await
    }

    pub(crate) async fn remove_segments(&self, names: Vec<SegmentName>) -> Result<()> {
        let keys = names.into_iter().map(|name| self.segment_key(name));
        self.remove(keys.collect()).await
    }

    /// Removes what nobody needs, as far as that works; what fails is not tried again.
    async fn remove(&self, keys: Vec<Path>) -> Result<()> {
        let mut all = Ok(());
        for keys in keys.chunks(KEYS_REMOVED_AT_ONCE) {
            self.counts.deletes.fetch_add(1, Ordering::Relaxed);
            let keys: Vec<_> = keys.iter().cloned().map(Ok).collect();
            let removal = self
                .store
                .delete_stream(stream::iter(keys).boxed())
                .fold(Ok(()), |all, one| {
                    ready(all.and(match one {
                        Ok(_) | Err(Error::NotFound { .. }) => Ok(()),
                        Err(error) => Err(error),
                    }))
                });
            let failure = match timeout(REQUEST_WAIT_MAX, removal).await {
                Ok(Ok(())) => continue,
                Ok(Err(error)) => self.failure(error),
                Err(_) => Failure::Unknown("no answer".into()),
            };
            all = Err(match failure {
                Failure::Refused(error) => error,
                Failure::Unknown(message) => self.unreachable(&message),
            });
        }
        all
    }

    /// Repeats a request that may be repeated until it has an answer.
    async fn repeat<T, F: Future<Output = object_store::Result<T>> + Send>(
        &self,
        deadline: Instant,
        request: impl Fn() -> F,
    ) -> Result<T> {
        self.repeat_long(REQUEST_WAIT_MAX, deadline, request).await
    }

    /// The same for one that may take `wait` each time.
    async fn repeat_long<T, F: Future<Output = object_store::Result<T>> + Send>(
        &self,
        wait: Duration,
        deadline: Instant,
        request: impl Fn() -> F,
    ) -> Result<T> {
        let mut pause = Pause::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let wait = wait.min(left.max(REQUEST_WAIT_MAX));
            let failure = match timeout(wait, request()).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => self.failure(error),
                Err(_) => Failure::Unknown("no answer".into()),
            };
            match failure {
                Failure::Refused(error) => return Err(error),
                Failure::Unknown(message) => {
                    if !pause.wait(deadline).await {
                        return Err(self.unreachable(&message));
                    }
                }
            }
        }
    }

    /// What it means that a create found its own manifest there, so that an earlier one of it failed: of a server, that
    /// the answer was lost. A folder has the file before its name is synced, and a later sync that succeeds tells nothing of
    /// one that failed.
    pub(crate) fn require_synced(&self) -> Result<()> {
        if !self.folder {
            return Ok(());
        }
        let message = format!(
            "{}: a commit was not synced, and may be there or not: check the disk, then open the store again",
            self.name
        );
        Err(PagerError::new(PagerErrorKind::Gone, message))
    }

    pub(crate) fn unreachable(&self, message: &str) -> PagerError {
        let message = format!(
            "{}: {message}: check that the server can be reached, then retry",
            self.name
        );
        PagerError::new(PagerErrorKind::Io, message)
    }

    fn failure(&self, error: Error) -> Failure {
        let (kind, advice) = match &error {
            Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => (
                PagerErrorKind::Denied,
                "check the credentials in the environment and their rights",
            ),
            // Of a key this is an answer and not an error; so it is the bucket.
            Error::NotFound { .. } => (PagerErrorKind::NotFound, "create the bucket first"),
            Error::NotSupported { .. } | Error::NotImplemented { .. } => (
                PagerErrorKind::Unsupported,
                "this store cannot create an object only where there is none",
            ),
            _ => return Failure::Unknown(error.to_string()),
        };
        Failure::Refused(PagerError::new(kind, format!("{}: {error}: {advice}", self.name)))
    }
}
