//! What goes on between two requests: only from inside can a test hold one of them.

use std::{collections::BTreeSet, fmt, future::pending, ops::Range, pin::pin, sync::atomic::Ordering};

use bytes::Bytes;
use futures_util::{
    future::{BoxFuture, join, ready, select},
    stream::BoxStream,
};
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult, memory::InMemory, path::Path,
};
use tokio::sync::Notify;
use vmsync_core::pager::ObjectName;
use vmsync_pager_conformance::random::Random;
use vmsync_pager_group::Entry;

use super::*;
use crate::layout::manifest::{self, Body, Header, Says};

const PAGE: usize = 4096;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Request {
    /// It has taken place.
    Put,
    Get,
    Delete,
}

type Hook = Arc<dyn Fn(Request, &Path) -> BoxFuture<'static, object_store::Result<()>> + Send + Sync>;

/// A store that waits for `hook` behind each put, and ahead of what else is asked for a key.
#[derive(Clone)]
struct Watched {
    store: Arc<dyn ObjectStore>,
    hook: Hook,
}

impl fmt::Debug for Watched {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.store.fmt(formatter)
    }
}

impl fmt::Display for Watched {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.store.fmt(formatter)
    }
}

#[async_trait::async_trait]
impl ObjectStore for Watched {
    async fn put_opts(
        &self,
        key: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> object_store::Result<PutResult> {
        let answer = self.store.put_opts(key, payload, options).await;
        (self.hook)(Request::Put, key).await?;
        answer
    }

    async fn put_multipart_opts(
        &self,
        key: &Path,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.store.put_multipart_opts(key, options).await
    }

    async fn get_opts(&self, key: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        (self.hook)(Request::Get, key).await?;
        self.store.get_opts(key, options).await
    }

    async fn get_ranges(&self, key: &Path, ranges: &[Range<u64>]) -> object_store::Result<Vec<Bytes>> {
        self.store.get_ranges(key, ranges).await
    }

    fn delete_stream(
        &self,
        keys: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        let own = self.clone();
        let delete = move |key: object_store::Result<Path>| {
            let own = own.clone();
            async move {
                let key = key?;
                (own.hook)(Request::Delete, &key).await?;
                own.store.delete(&key).await?;
                Ok(key)
            }
        };
        keys.then(delete).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.store.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.store.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> object_store::Result<()> {
        self.store.copy_opts(from, to, options).await
    }
}

fn in_memory() -> Arc<dyn ObjectStore> {
    Arc::new(InMemory::new())
}

fn location(store: Arc<dyn ObjectStore>) -> Location {
    Location {
        store,
        prefix: Path::from("store"),
        name: "test".into(),
        sorted: true,
        folder: false,
    }
}

fn watched(
    store: &Arc<dyn ObjectStore>,
    hook: impl Fn(Request, &Path) -> BoxFuture<'static, object_store::Result<()>> + Send + Sync + 'static,
) -> Location {
    location(Arc::new(Watched {
        store: store.clone(),
        hook: Arc::new(hook),
    }))
}

fn open(location: Location) -> ObjectEngine {
    ObjectEngine::open(location, &Options::default()).unwrap()
}

fn refused(key: &Path) -> object_store::Result<()> {
    Err(Error::PermissionDenied {
        path: key.to_string(),
        source: "by a test".into(),
    })
}

/// The call `number` to the store's one object, which writes `pages` at random.
fn batch(number: u64, pages: Range<u64>, random: &mut Random) -> Batch {
    let mut page = |_| {
        let mut bytes = vec![0; PAGE];
        random.fill(&mut bytes);
        Arc::from(bytes)
    };
    let entry = Entry {
        id: 1,
        size: 1 << 30,
        version: number,
        address: None,
    };
    Batch {
        pages: pages.map(|index| ((1, index), page(index))).collect(),
        objects: [(ObjectName::new("object").unwrap(), entry)].into(),
        calls: number,
        object_next: 2,
        ..Batch::default()
    }
}

/// Whoever waits for a call gives it up when its request has taken place and nothing was answered.
#[test]
fn a_call_that_was_given_up_is_known_to_the_next_one() {
    let (sent, silent) = (Arc::new(Notify::new()), Arc::new(AtomicBool::new(false)));
    let (tell, is_silent) = (sent.clone(), silent.clone());
    let engine = open(watched(&in_memory(), move |request, _| {
        if request != Request::Put || !is_silent.load(Ordering::Relaxed) {
            return Box::pin(ready(Ok(())));
        }
        tell.notify_one();
        Box::pin(pending())
    }));
    let mut random = Random::from_environment("a call that is given up");
    let (first, second) = (batch(1, 0..1, &mut random), batch(1, 0..1, &mut random));
    silent.store(true, Ordering::Relaxed);
    let given_up = engine.run(|inner, deadline| async move {
        select(pin!(inner.commit(first, deadline)), pin!(sent.notified())).await;
        Ok(())
    });
    given_up.unwrap();
    silent.store(false, Ordering::Relaxed);
    let error = engine.commit(&second).unwrap_err();
    assert_eq!(error.kind, PagerErrorKind::Gone);
    assert!(error.message.contains("reported as failed"), "{error}");
}

/// A store whose object has a page in each of so many segments.
fn with_segments(count: u64) -> Arc<dyn ObjectStore> {
    let (store, mut random) = (in_memory(), Random::from_environment("segments"));
    let engine = open(location(store.clone()));
    for number in 1..=count {
        engine.commit(&batch(number, 0..60, &mut random)).unwrap();
    }
    store
}

/// A merge replaces the segment that a read of the same host is about to fetch.
#[test]
fn a_read_that_a_merge_overtakes_goes_on() {
    let store = with_segments(7);
    let (reached, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let holds = Arc::new(AtomicBool::new(false));
    let (tell, held, is_held) = (reached.clone(), go_on.clone(), holds.clone());
    let engine = open(watched(&store, move |request, key| {
        let of_segment = request == Request::Get && key.as_ref().contains("/segment/");
        if !of_segment || !is_held.swap(false, Ordering::Relaxed) {
            return Box::pin(ready(Ok(())));
        }
        let (tell, held) = (tell.clone(), held.clone());
        Box::pin(async move {
            tell.notify_one();
            held.notified().await;
            Ok(())
        })
    }));
    let mut random = Random::from_environment("a merge");
    let last = batch(8, 100..160, &mut random);
    // Behind what comes along with a directory.
    let read = engine.run(|inner, deadline| async move {
        assert!(inner.load_pages(deadline).await?.is_ok());
        holds.store(true, Ordering::Relaxed);
        let merge = async {
            reached.notified().await;
            // The test merges by itself.
            inner.merging.store(true, Ordering::Relaxed);
            inner.clone().commit(last, deadline).await?;
            let old = inner
                .tree()
                .body
                .segments
                .iter()
                .map(|entry| entry.name)
                .collect();
            inner.merge(deadline).await?;
            inner.bucket.remove_segments(old).await?;
            go_on.notify_one();
            Ok(())
        };
        let (read, merged) = join(inner.read((1, 55), 1, None, deadline), merge).await;
        merged.and(read)
    });
    assert_eq!(read.unwrap().len(), 1);
}

/// Removes the segments that the engine's manifest names.
fn remove_segments(engine: &ObjectEngine) {
    let segments = engine.inner.tree().body.segments.clone();
    let names = segments.iter().map(|entry| entry.name).collect();
    let removed = engine.run(|inner, _| async move { inner.bucket.remove_segments(names).await });
    removed.unwrap();
}

/// A segment that the newest manifest names is missing, however many of them follow each other.
#[test]
fn a_missing_segment_is_damage_also_where_calls_go_on() {
    let (store, mut random) = (with_segments(1), Random::from_environment("a missing segment"));
    let writer = open(location(store.clone()));
    let calls = [2, 3].map(|number| batch(number, 90..91, &mut random));
    let [first, next] = calls;
    writer.commit(&first).unwrap();
    remove_segments(&writer);
    // There is a newer manifest whenever the reader has found a segment missing.
    let inner = writer.inner.clone();
    let commits = watched(&store, move |request, key| {
        if request != Request::Get || !key.as_ref().contains("/segment/") {
            return Box::pin(ready(Ok(())));
        }
        let (inner, next) = (inner.clone(), next.clone());
        let deadline = Instant::now() + ENGINE_WAIT_MAX;
        Box::pin(async move {
            inner.commit(next, deadline).await.expect("a small call commits");
            Ok(())
        })
    });
    let options = Options {
        read_only: true,
        ..Options::default()
    };
    let reader = ObjectEngine::open(commits, &options).unwrap();
    let error = reader.read((1, 0), &mut [0; PAGE]).unwrap_err();
    assert_eq!(error.kind, PagerErrorKind::Damaged, "{error}");
}

/// Another host's merge has removed what the writer before is about to read for its call.
#[test]
fn a_writer_whose_segments_another_one_has_removed_is_fenced() {
    let (store, mut random) = (with_segments(1), Random::from_environment("a fenced writer"));
    // A change in a page behind what comes along with a directory: the next writer has to read the rest.
    let mut page = [0; PAGE];
    let before = open(location(store.clone()));
    before.read((1, 55), &mut page).unwrap();
    page[7] ^= 1;
    let mut change = batch(2, 0..0, &mut random);
    change.pages.insert((1, 55), Arc::from(page));
    before.commit(&change).unwrap();
    let stale = open(location(store.clone()));
    let loaded = stale.run(|inner, deadline| async move { inner.load_pages(deadline).await });
    loaded.unwrap().unwrap();
    let owner = open(location(store));
    owner.commit(&batch(3, 90..91, &mut random)).unwrap();
    remove_segments(&owner);
    let error = stale.commit(&batch(3, 100..160, &mut random)).unwrap_err();
    assert_eq!(error.kind, PagerErrorKind::Gone, "{error}");
}

/// A store that was made by hand: manifests of epochs of `length` each, and segments of one page each.
fn by_hand(epochs: u64, length: u64, segments: u64) -> Arc<dyn ObjectStore> {
    let (store, mut random) = (in_memory(), Random::from_environment("a store by hand"));
    let bucket = Bucket::new(location(store.clone()));
    let deadline = Instant::now() + ENGINE_WAIT_MAX;
    let mut body = Body::default();
    let made = batch(1, 0..segments, &mut random);
    body.contents.catalog = made.objects;
    body.contents.object_next = 2;
    let making = async {
        for (place, page) in made.pages {
            let (bytes, directory) = segment::encode(&[(place, page)], PageSize::KIB_4);
            let entry = SegmentEntry {
                name: SegmentName {
                    epoch: 1,
                    writer: 7,
                    number: place.1,
                },
                length: bytes.len() as u64,
                directory,
            };
            bucket
                .put_segment(entry.name, bytes.into(), PAGE, deadline)
                .await?;
            body.segments.push(entry);
        }
        for number in 1..=epochs * length {
            let header = Header {
                number,
                epoch: number - (number - 1) % length,
                writer: 7,
                attempt: number,
                clean: 1,
                page_size: PageSize::KIB_4,
            };
            let bytes = manifest::encode(&header, &Says::Contents(body.clone()));
            assert!(bucket.create(number, bytes.into()).await.unwrap());
        }
        Result::Ok(())
    };
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(making)
        .unwrap();
    store
}

/// More directories than the blocks in memory have room for, and a call that ends before it has them all.
#[test]
fn a_call_goes_on_with_the_directories_that_the_last_one_read() {
    let store = by_hand(1, 1, 600);
    let gets = Arc::new(AtomicU64::new(0));
    let counted = gets.clone();
    let engine = open(watched(&store, move |request, key| {
        let of_segment = request == Request::Get && key.as_ref().contains("/segment/");
        let refuses = of_segment && counted.fetch_add(1, Ordering::Relaxed) == 550;
        Box::pin(ready(if refuses { refused(key) } else { Ok(()) }))
    }));
    let mut page = vec![0; PAGE];
    assert_eq!(
        engine.read((1, 599), &mut page).unwrap_err().kind,
        PagerErrorKind::Denied
    );
    assert!(engine.read((1, 599), &mut page).unwrap());
    let gets = gets.load(Ordering::Relaxed);
    assert!(gets < 620, "{gets} requests for 600 directories");
}

/// What a merge has dropped a moment ago stays for readers, also where it was made by the writer before.
#[test]
fn a_sweep_leaves_what_a_merge_has_dropped() {
    let engine = open(location(with_segments(7)));
    let mut random = Random::from_environment("a merge before a sweep");
    let last = batch(8, 100..160, &mut random);
    let nobodys = SegmentName {
        epoch: 1,
        writer: 99,
        number: 1,
    };
    let (before, after) = engine
        .run(|inner, deadline| async move {
            let claim = inner.tree().header;
            // The test merges by itself.
            inner.merging.store(true, Ordering::Relaxed);
            inner.clone().commit(last, deadline).await?;
            inner.merge(deadline).await?;
            inner
                .bucket
                .put_segment(nobodys, vec![0; PAGE].into(), PAGE, deadline)
                .await?;
            let before = inner.bucket.segments(deadline).await?;
            inner.sweep_segments(claim.epoch, BTreeSet::new()).await?;
            Ok((before, inner.bucket.segments(deadline).await?))
        })
        .unwrap();
    let expected: Vec<_> = before.into_iter().filter(|name| *name != nobodys).collect();
    assert_eq!(after, expected);
    assert!(after.len() > 8, "{after:?}");
}

/// What is left of epochs of seven manifests each, and the claim behind them.
fn firsts_and_lasts(epochs: u64) -> Vec<u64> {
    let ends = (0..epochs).flat_map(|epoch| [epoch * 7 + 1, epoch * 7 + 7]);
    ends.chain([epochs * 7 + 1]).collect()
}

fn manifests(engine: &ObjectEngine) -> Vec<u64> {
    let listed = engine.run(|inner, deadline| async move { inner.bucket.manifests(deadline).await });
    listed.unwrap().into_keys().collect()
}

/// A sweep that fails leaves nothing behind `clean`, and begins again with what is left.
#[test]
fn a_sweep_goes_on_where_the_last_one_ended() {
    const EPOCHS: u64 = 40;
    // How many requests are answered yet.
    let (reads, removals) = (
        Arc::new(AtomicU64::new(u64::MAX)),
        Arc::new(AtomicU64::new(u64::MAX)),
    );
    let (own_reads, own_removals) = (reads.clone(), removals.clone());
    let engine = open(watched(&by_hand(EPOCHS, 7, 0), move |request, key| {
        let left = match request {
            Request::Put => return Box::pin(ready(Ok(()))),
            Request::Get => &own_reads,
            Request::Delete => &own_removals,
        };
        let one_less = |left: u64| left.checked_sub(1);
        let answered = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less);
        Box::pin(ready(answered.map_or_else(|_| refused(key), |_| Ok(()))))
    }));
    let claim = engine.inner.tree().header;
    let sweep = || {
        let swept = engine.run(move |inner, _| async move { Ok(inner.sweep(&claim, Instant::now()).await) });
        let clean = engine.run(|inner, _| async move { Ok(inner.writer.lock().await.garbage.clean()) });
        (swept.unwrap().map_err(|error| error.kind), clean.unwrap())
    };
    reads.store(30, Ordering::Relaxed);
    let (swept, clean) = sweep();
    assert_eq!(swept, Err(PagerErrorKind::Denied));
    assert!(1 < clean && clean < claim.number, "clean: {clean}");
    reads.store(u64::MAX, Ordering::Relaxed);
    removals.store(5, Ordering::Relaxed);
    assert_eq!(sweep(), (Err(PagerErrorKind::Denied), clean));
    removals.store(u64::MAX, Ordering::Relaxed);
    // Segments of the writers before stay for a while.
    assert_eq!(sweep(), (Ok(false), claim.number));
    assert_eq!(manifests(&engine), firsts_and_lasts(EPOCHS));
}

/// One epoch with more manifests than are looked at together.
#[test]
fn a_sweep_comes_to_the_end_of_a_long_epoch() {
    let engine = open(location(by_hand(1, 400, 0)));
    let claim = engine.inner.tree().header;
    let swept = engine.run(move |inner, _| async move { inner.sweep(&claim, Instant::now()).await });
    assert!(!swept.unwrap());
    assert_eq!(manifests(&engine), [1, 400, 401]);
}

/// Writers that all end before their delay is over.
#[test]
fn what_short_runs_leave_is_removed() {
    const EPOCHS: u64 = 40;
    let engine = open(location(by_hand(EPOCHS, 7, 0)));
    let mut random = Random::from_environment("a short run");
    engine.commit(&batch(2, 55..56, &mut random)).unwrap();
    let mut expected = firsts_and_lasts(EPOCHS);
    expected.push(EPOCHS * 7 + 2);
    let start = Instant::now();
    // Behind the commit.
    while manifests(&engine) != expected {
        assert!(start.elapsed() < ENGINE_WAIT_MAX, "{:?}", manifests(&engine));
    }
}
