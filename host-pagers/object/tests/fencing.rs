//! One writer: what rests on creating a key only where there is none.

mod common;

use std::{
    fmt,
    ops::Range,
    sync::{
        Arc, Barrier,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use bytes::Bytes;
use common::{
    bucket_with, client,
    hooked::{Fate, Hooked, before_creates},
    in_memory, kind, location, prefix, server, store,
};
use futures_util::stream::BoxStream;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
    memory::InMemory, path::Path,
};
use vmsync_core::PagerErrorKind;
use vmsync_pager_conformance::fence_stale_writer;
use vmsync_pager_object::{Location, Options, open};

const CLIENTS: usize = 16;

/// Has all clients create one key in each round; answers in how many rounds there was not exactly one winner.
///
/// Each has a client of its own from `connect`: one that several runtimes share hangs while its first one rests.
fn race(connect: impl Fn() -> Arc<dyn ObjectStore>, rounds: usize) -> usize {
    let prefix = prefix();
    let (barrier, winners) = (Barrier::new(CLIENTS), AtomicUsize::new(0));
    let wrong = AtomicUsize::new(0);
    thread::scope(|scope| {
        for number in 0..CLIENTS {
            let (store, prefix, barrier, winners, wrong) = (connect(), &prefix, &barrier, &winners, &wrong);
            scope.spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .unwrap();
                for round in 0..rounds {
                    let key = prefix.clone().join(format!("round-{round}"));
                    barrier.wait();
                    let payload = PutPayload::from(format!("client {number}"));
                    let answer = runtime.block_on(store.put_opts(&key, payload, PutMode::Create.into()));
                    match answer {
                        Ok(_) => drop(winners.fetch_add(1, Ordering::SeqCst)),
                        Err(Error::AlreadyExists { .. }) => {}
                        Err(error) => panic!("round {round}: {error}"),
                    }
                    if barrier.wait().is_leader() && winners.swap(0, Ordering::SeqCst) != 1 {
                        wrong.fetch_add(1, Ordering::SeqCst);
                    }
                }
            });
        }
    });
    wrong.into_inner()
}

/// `RACE_ROUNDS` for more of them by hand.
fn rounds() -> usize {
    std::env::var("RACE_ROUNDS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(200)
}

#[test]
fn a_key_that_many_create_has_one_winner() {
    let Some(server) = server() else { return };
    let connect = || bucket_with(&server, common::address(&server), Duration::from_secs(60));
    assert_eq!(race(connect, rounds()), 0, "rounds without exactly one winner");
}

/// A store that looks first and writes then, as some servers do: the race has to find it out. Its clients look at the same
/// time.
#[derive(Debug)]
struct CheckThenAct(InMemory, Barrier);

impl fmt::Display for CheckThenAct {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("check, then act")
    }
}

#[async_trait::async_trait]
impl ObjectStore for CheckThenAct {
    async fn put_opts(&self, key: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        if options.mode == PutMode::Create && self.0.head(key).await.is_ok() {
            let path = key.to_string();
            return Err(Error::AlreadyExists {
                path,
                source: "it is there".into(),
            });
        }
        self.1.wait();
        self.0.put(key, payload).await
    }

    async fn put_multipart_opts(
        &self,
        key: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.0.put_multipart_opts(key, options).await
    }

    async fn get_opts(&self, key: &Path, options: GetOptions) -> Result<GetResult> {
        self.0.get_opts(key, options).await
    }

    async fn get_ranges(&self, key: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.0.get_ranges(key, ranges).await
    }

    fn delete_stream(&self, keys: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.0.delete_stream(keys)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.0.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.0.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.0.copy_opts(from, to, options).await
    }
}

#[test]
fn the_race_finds_a_store_out_that_checks_before_it_acts() {
    let store: Arc<dyn ObjectStore> = Arc::new(CheckThenAct(InMemory::new(), Barrier::new(CLIENTS)));
    assert_eq!(race(|| store.clone(), 1), 1, "all of them win");
}

#[test]
fn a_stale_writer_is_fenced() {
    let location = in_memory();
    fence_stale_writer(|| store(&location));
}

/// The outcome of a create that failed is read back from a server. A folder shows the file of one that it could not sync,
/// too: that commit is not durable, and no commit may follow it.
#[test]
fn what_a_folder_did_not_sync_is_not_committed() {
    for folder in [false, true] {
        let fails = Arc::new(AtomicBool::new(false));
        let fail = fails.clone();
        let before = before_creates(move || match fail.swap(false, Ordering::SeqCst) {
            true => Fate::FailsBehind,
            false => Fate::Sound,
        });
        let place = in_memory();
        let hooked: Arc<dyn ObjectStore> = Arc::new(Hooked {
            store: place.store.clone(),
            before,
        });
        let place = Location {
            folder,
            ..location(&hooked, &place.prefix)
        };
        let gone = folder.then_some(PagerErrorKind::Gone);
        fails.store(true, Ordering::SeqCst);
        assert_eq!(kind(open(place.clone(), &Options::default())), gone, "a claim");
        let storage = store(&place);
        let one = client(&storage, "object", 4);
        one.commit_full(0, 1);
        fails.store(true, Ordering::SeqCst);
        assert_eq!(kind(one.try_commit_full(0, 2)), gone, "a commit");
        assert_eq!(one.recorder.destroyed().is_some(), folder);
        drop(storage);
        // It is there all the same, and the next writer's manifest carries it.
        client(&store(&place), "object", 4).assert_full(0, 2);
    }
}

/// S3 refuses a create while another request for its key is under way; that is nobody's claim.
#[test]
fn a_conflict_that_leaves_nothing_is_tried_again() {
    let place = in_memory();
    let conflicts = Arc::new(AtomicU64::new(0));
    let left = conflicts.clone();
    let taken = move |left: u64| left.checked_sub(1);
    let before = before_creates(
        move || match left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, taken) {
            Ok(_) => Fate::Conflicts,
            Err(_) => Fate::Sound,
        },
    );
    let hooked: Arc<dyn ObjectStore> = Arc::new(Hooked {
        store: place.store.clone(),
        before,
    });
    conflicts.store(1, Ordering::SeqCst);
    let storage = store(&location(&hooked, &place.prefix));
    let one = client(&storage, "object", 4);
    for byte in 1..4 {
        conflicts.store(2, Ordering::SeqCst);
        one.commit_full(0, byte);
    }
    assert_eq!(conflicts.load(Ordering::SeqCst), 0);
    one.close();
    drop(storage);
    client(&store(&place), "object", 4).assert_full(0, 3);
}
