//! Taking the store from a writer that does not pause: no call that was acknowledged is lost, and it always succeeds.

mod common;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use common::{
    bucket, client,
    hooked::{Fate, Hooked, before_creates},
    in_memory, kind, location, prefix, server, store,
};
use object_store::ObjectStore;
use vmsync_core::{PagerErrorKind, pager::InitRequest, pager::Pager};
use vmsync_pager_conformance::Client;
use vmsync_pager_object::{Location, Options, open};

/// A writer that counts in the first page of its object until it is fenced.
struct Counter {
    client: Client,
    acknowledged: Mutex<u8>,
}

impl Counter {
    fn start(location: &Location) -> Self {
        let client = client(&store(location), "object", 2);
        let acknowledged = Mutex::new(client.read(0, 1)[0]);
        Self { client, acknowledged }
    }

    /// False when it is fenced.
    fn count(&self) -> bool {
        let mut acknowledged = self.acknowledged.lock().unwrap();
        // A fenced store takes no pages any more.
        if self.client.recorder.destroyed().is_some() {
            return false;
        }
        let next = acknowledged.wrapping_add(1);
        let committed = self.client.try_commit_full(0, next);
        match kind(committed) {
            None => *acknowledged = next,
            Some(kind) => assert_eq!(kind, PagerErrorKind::Gone),
        }
        *acknowledged == next
    }

    fn acknowledged(&self) -> u8 {
        *self.acknowledged.lock().unwrap()
    }
}

/// What one who only reads finds.
fn found(location: &Location) -> u8 {
    let options = Options {
        create: false,
        read_only: true,
        ..Options::default()
    };
    let request = InitRequest {
        create: false,
        write: false,
        ..common::request(2)
    };
    let storage = open(location.clone(), &options).unwrap();
    let client = Client::open_with(storage as Arc<dyn Pager>, "object", request).unwrap();
    client.read(0, 1)[0]
}

/// The old writer makes `pace` calls for each create of the new one.
#[test]
fn a_writer_of_any_pace_is_overtaken() {
    for pace in 1..40 {
        let place = in_memory();
        let old = Arc::new(Counter::start(&place));
        assert!(old.count());
        let (hook, reader) = (old.clone(), place.clone());
        let before = before_creates(move || {
            for _ in 0..pace {
                hook.count();
            }
            assert_eq!(found(&reader), hook.acknowledged(), "a reader, pace {pace}");
            Fate::Sound
        });
        let hooked: Arc<dyn ObjectStore> = Arc::new(Hooked {
            store: place.store.clone(),
            before,
        });
        let new = Counter::start(&location(&hooked, &place.prefix));
        assert!(!old.count(), "the old writer is fenced");
        assert_eq!(new.acknowledged(), old.acknowledged(), "pace {pace}");
        assert!(new.count());
        assert_eq!(found(&place), new.acknowledged());
    }
}

/// A claimer that sleeps while its numbers are used and removed does not go down into the past.
#[test]
fn a_claimer_that_sleeps_begins_again() {
    let place = in_memory();
    let old = Arc::new(Counter::start(&place));
    for _ in 0..400 {
        old.count();
    }
    let (hook, creates) = (old.clone(), AtomicU64::new(0));
    let before = before_creates(move || {
        let calls = [1, 400].get(creates.fetch_add(1, Ordering::Relaxed) as usize);
        for _ in 0..calls.copied().unwrap_or(0) {
            hook.count();
        }
        // Removing goes on behind the commits.
        thread::sleep(Duration::from_millis(20));
        Fate::Sound
    });
    let hooked: Arc<dyn ObjectStore> = Arc::new(Hooked {
        store: place.store.clone(),
        before,
    });
    let storage = store(&location(&hooked, &place.prefix));
    let requests = storage.engine().requests();
    assert!((10..40).contains(&requests.total()), "{requests:?}");
    assert_eq!(found(&place), old.acknowledged());
    assert!(!old.count(), "the old writer is fenced");
}

/// The same where its first claim, which is not ahead of anybody, is so slow: it then has not taken the store.
#[test]
fn a_claim_among_removed_numbers_is_none() {
    let place = in_memory();
    let old = Arc::new(Counter::start(&place));
    for _ in 0..400 {
        old.count();
    }
    let (hook, creates) = (old.clone(), AtomicU64::new(0));
    let before = before_creates(move || {
        if creates.fetch_add(1, Ordering::Relaxed) == 0 {
            for _ in 0..400 {
                hook.count();
            }
            // Removing goes on behind the commits.
            thread::sleep(Duration::from_millis(20));
        }
        Fate::Sound
    });
    let hooked: Arc<dyn ObjectStore> = Arc::new(Hooked {
        store: place.store.clone(),
        before,
    });
    let new = Counter::start(&location(&hooked, &place.prefix));
    assert!(!old.count(), "the old writer is fenced");
    assert_eq!(new.acknowledged(), old.acknowledged());
    assert!(new.count());
    assert_eq!(found(&place), new.acknowledged());
}

/// Of two that claim at the same time, the later one has the store, and the other one is told. Had it begun again, the two
/// could go on for ever.
#[test]
fn of_two_claimers_the_later_one_has_the_store() {
    let place = in_memory();
    let old = Arc::new(Counter::start(&place));
    assert!(old.count());
    let later: Arc<Mutex<Option<Counter>>> = Arc::default();
    let (hook, other, creates) = (old.clone(), later.clone(), AtomicU64::new(0));
    let there = place.clone();
    let before = before_creates(move || {
        match creates.fetch_add(1, Ordering::Relaxed) {
            0 => assert!(hook.count(), "so that the claim is made ahead"),
            2 => *other.lock().unwrap() = Some(Counter::start(&there)),
            _ => {}
        }
        Fate::Sound
    });
    let hooked: Arc<dyn ObjectStore> = Arc::new(Hooked {
        store: place.store.clone(),
        before,
    });
    let overtaken = open(location(&hooked, &place.prefix), &Options::default());
    assert_eq!(kind(overtaken), Some(PagerErrorKind::Gone));
    let later = later.lock().unwrap().take().expect("it was opened");
    assert_eq!(later.acknowledged(), old.acknowledged());
    assert!(later.count() && !old.count());
    assert_eq!(found(&place), later.acknowledged());
}

/// A claimer that dies at any step leaves a gap at most, which neither readers nor the next one trip over.
#[test]
fn a_claimer_may_die_at_any_step() {
    for pace in 1..8 {
        for (step, fate) in (0..14).flat_map(|step| [(step, Fate::Dies), (step, Fate::DiesBehind)]) {
            let place = in_memory();
            let old = Arc::new(Counter::start(&place));
            assert!(old.count());
            let (hook, creates) = (old.clone(), AtomicU64::new(0));
            let before = before_creates(move || {
                for _ in 0..pace {
                    hook.count();
                }
                let create = creates.fetch_add(1, Ordering::Relaxed);
                match create.cmp(&step) {
                    std::cmp::Ordering::Less => Fate::Sound,
                    std::cmp::Ordering::Equal => fate,
                    std::cmp::Ordering::Greater => Fate::Dies,
                }
            });
            let hooked: Arc<dyn ObjectStore> = Arc::new(Hooked {
                store: place.store.clone(),
                before,
            });
            let dying = open(location(&hooked, &place.prefix), &Options::default());
            assert!(dying.is_ok() || kind(dying) == Some(PagerErrorKind::Denied));
            let case = format!("pace {pace}, {fate:?} at {step}");
            assert_eq!(found(&place), old.acknowledged(), "{case}");
            for _ in 0..3 {
                old.count();
            }
            assert_eq!(found(&place), old.acknowledged(), "{case}");
            let new = Counter::start(&place);
            assert_eq!(new.acknowledged(), old.acknowledged(), "{case}");
            assert!(!old.count() && new.count(), "{case}");
            assert_eq!(found(&place), new.acknowledged(), "{case}");
        }
    }
}

/// Writers take the store from each other while they commit as fast as they can: every call that was acknowledged is
/// there, in the order of the takeovers.
#[test]
fn takeovers_under_load_lose_nothing() {
    let (memory, folder) = (in_memory(), tempfile::tempdir().unwrap());
    let folder = format!("file://{}", folder.path().display());
    let mut places: Vec<Box<dyn Fn() -> Location>> = vec![
        Box::new(move || memory.clone()),
        Box::new(move || Location::new(&folder).unwrap()),
    ];
    if let Some(server) = server() {
        let prefix = prefix();
        // A client for each writer, as hosts have.
        places.push(Box::new(move || {
            location(&bucket(&server, common::address(&server)), &prefix)
        }));
    }
    for place in places {
        let mut last: Option<thread::JoinHandle<u8>> = None;
        for life in 0..6 {
            let storage = store(&place());
            // From here on the writer before acknowledges nothing, whatever it has left behind.
            let acknowledged = last.take().map_or(0, |thread| thread.join().unwrap());
            let one = client(&storage, "object", 2);
            let found = one.read(0, 1)[0];
            // One call more may have been on its way when the store was taken.
            assert!(
                found == acknowledged || found == acknowledged.wrapping_add(1),
                "life {life}: {acknowledged} was acknowledged, {found} is there"
            );
            last = Some(thread::spawn(move || {
                let mut acknowledged = found;
                while one.try_commit_full(0, acknowledged.wrapping_add(1)).is_ok() {
                    acknowledged = acknowledged.wrapping_add(1);
                }
                acknowledged
            }));
            thread::sleep(Duration::from_millis(40));
        }
        drop(store(&place()));
        last.unwrap().join().unwrap();
    }
}
