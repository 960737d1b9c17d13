//! What a store costs in requests, random calls with merges and reopening, damage.

mod common;

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use common::{
    client,
    hooked::{Fate, Hooked},
    in_memory, kind, location, store,
};
use futures_util::{StreamExt, TryStreamExt};
use object_store::{ObjectStore, ObjectStoreExt, PutPayload, path::Path};
use vmsync_core::{
    PageSize, PagerErrorKind,
    abi::VmProt,
    pager::{Pager, SynchronizeFlags},
};
use vmsync_pager_conformance::{Client, random::Random};
use vmsync_pager_object::{Location, Options, open};

const PAGE: usize = 4096;

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(work)
}

/// The keys of a store under `folder`.
fn keys(location: &Location, folder: &str) -> Vec<Path> {
    let folder = location.prefix.clone().join(folder);
    let list = location
        .store
        .list(Some(&folder))
        .map(|object| object.map(|object| object.location));
    block_on(list.try_collect()).unwrap()
}

#[test]
fn a_small_call_is_one_request_and_a_large_one_is_two() {
    let location = in_memory();
    let storage = store(&location);
    let client = client(&storage, "object", 600);
    client.commit_full(0, 1);
    let before = storage.engine().requests();
    for byte in 2..102 {
        client.commit_full(u64::from(byte % 7), byte);
    }
    let small = storage.engine().requests();
    // One each; that of a fold for each MiB of changes that were repeated.
    assert!((100..=103).contains(&(small.puts - before.puts)));
    assert_eq!(small.gets, before.gets);
    client.close();
    // In a store of its own, as a fold of the small ones may still be on its way.
    let location = in_memory();
    let storage = store(&location);
    let client = self::client(&storage, "object", 600);
    client.commit_full(0, 1);
    let before = storage.engine().requests();
    let call = Client::call();
    let mut random = Random::from_environment("a large call");
    for page in 0..500 {
        let mut bytes = vec![0; PAGE];
        random.fill(&mut bytes);
        client.give(call, page, &bytes).unwrap();
    }
    client.sync(call, 0, 600).unwrap();
    assert_eq!(storage.engine().requests().puts - before.puts, 2);
    client.close();
}

#[test]
fn opening_takes_four_requests() {
    let location = in_memory();
    let first = store(&location);
    let one = client(&first, "object", 600);
    for byte in 1..60 {
        one.commit_full(u64::from(byte), byte);
    }
    one.close();
    drop(first);
    let second = store(&location);
    let again = client(&second, "object", 600);
    assert_eq!(second.engine().requests().total(), 4);
    again.assert_full(7, 7);
    again.close();
}

#[test]
fn asynchronous_calls_share_a_request() {
    let options = Options {
        write_behind_delay: Duration::MAX,
        ..Options::default()
    };
    let storage = open(in_memory(), &options).unwrap();
    let client = client(&storage, "object", 8);
    client.commit_full(0, 1);
    let before = storage.engine().requests();
    for round in 0..200 {
        let call = Client::call();
        client.give_full(call, round % 8, round as u8);
        let flags = SynchronizeFlags::ASYNCHRONOUS;
        client.synchronize(call, (0, 8), flags).unwrap();
        client.recorder.wait(client.range(0, 8)).unwrap();
    }
    storage.flush().unwrap();
    assert_eq!(storage.engine().requests().total() - before.total(), 1);
    client.close();
}

/// Random calls of all sizes against a model, with merges, removals of what is superseded, and reopening.
#[test]
fn random_calls_survive_merges_and_reopening() {
    let mut random = Random::from_environment("merges");
    let location = in_memory();
    let options = Options {
        garbage_delay: Duration::from_millis(20),
        ..Options::default()
    };
    let mut model: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
    for life in 0..5 {
        let storage = open(location.clone(), &options).unwrap();
        let client = client(&storage, "object", 256);
        check(&client, &model);
        for _ in 0..40 {
            let call = Client::call();
            let most_pages = if random.once_in(3) { 40 } else { 2 };
            for _ in 0..=random.below(most_pages) {
                let page = random.below(256);
                let mut bytes = model.get(&page).cloned().unwrap_or_else(|| vec![0; PAGE]);
                match random.below(4) {
                    0 => random.fill(&mut bytes),
                    1 => bytes.fill(0),
                    _ => {
                        let at = random.below(PAGE as u64 - 8) as usize;
                        random.fill(&mut bytes[at..at + 8]);
                    }
                }
                client.give(call, page, &bytes).unwrap();
                model.insert(page, bytes);
            }
            client.sync(call, 0, 256).unwrap();
            if random.once_in(10) {
                check(&client, &model);
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        check(&client, &model);
        // Segments are merged and removed in the background, after a commit.
        let start = Instant::now();
        loop {
            client.commit_full(0, life);
            let segments = keys(&location, "segment").len();
            if segments < 10 {
                break;
            }
            assert!(start.elapsed() < Duration::from_secs(30), "{segments} segments");
            std::thread::sleep(Duration::from_millis(20));
        }
        model.insert(0, vec![life; PAGE]);
        client.close();
    }
    let storage = open(location.clone(), &options).unwrap();
    let client = client(&storage, "object", 256);
    check(&client, &model);
    client.close();
}

fn check(client: &Client, model: &BTreeMap<u64, Vec<u8>>) {
    let found = client.read(0, 256);
    for (page, bytes) in (0..).zip(found.chunks(PAGE)) {
        let expected = model.get(&page).map_or(&[0; PAGE][..], |bytes| bytes);
        assert!(bytes == expected, "page {page}");
    }
}

#[test]
fn manifests_are_removed_and_their_numbers_stay_taken() {
    let location = in_memory();
    let options = Options {
        garbage_delay: Duration::from_millis(10),
        ..Options::default()
    };
    for life in 0..3 {
        let storage = open(location.clone(), &options).unwrap();
        let client = client(&storage, "object", 4);
        for round in 0..200 {
            client.commit_full(1, round);
        }
        std::thread::sleep(Duration::from_millis(300));
        client.commit_full(0, life);
        client.assert_full(1, 199);
        client.close();
    }
    let kept = keys(&location, "manifest").len();
    assert!(kept < 3 * 110, "{kept} manifests of 600 calls");
    let storage = open(location.clone(), &options).unwrap();
    let client = client(&storage, "object", 4);
    client.assert_full(0, 2);
    client.close();
}

/// Writers that all end before their delay is over, and follow each other without a pause.
#[test]
fn what_short_runs_no_longer_use_is_removed() {
    const PAGES: u64 = 40;
    let location = in_memory();
    let options = Options {
        garbage_delay: Duration::from_secs(2),
        ..Options::default()
    };
    let mut random = Random::from_environment("short runs");
    let (start, mut before) = (Instant::now(), Vec::new());
    loop {
        let storage = open(location.clone(), &options).unwrap();
        let client = client(&storage, "object", PAGES);
        let mut bytes = vec![0; PAGES as usize * PAGE];
        random.fill(&mut bytes);
        let call = Client::call();
        client.give(call, 0, &bytes).unwrap();
        client.sync(call, 0, PAGES).unwrap();
        assert_eq!(client.read(0, PAGES), bytes);
        (0..30).for_each(|byte| client.commit_full(0, byte));
        client.close();
        let there = keys(&location, "segment");
        if before.iter().any(|key| !there.contains(key)) {
            break;
        }
        assert!(
            start.elapsed() < Duration::from_secs(30),
            "{} segments",
            there.len()
        );
        before = there;
    }
}

/// A line that takes 14 s for 32 MiB, 20 Mbit/s, carries a call of so much.
#[test]
fn a_large_call_has_the_time_that_its_bytes_take() {
    const PAGES: u64 = (32 << 20) / PAGE as u64;
    let place = in_memory();
    let hooked: Arc<dyn ObjectStore> = Arc::new(Hooked {
        store: place.store.clone(),
        before: Box::new(|key, _| match key.as_ref().contains("/segment/") {
            true => Fate::Late(Duration::from_secs(14)),
            false => Fate::Sound,
        }),
    });
    let storage = store(&location(&hooked, &place.prefix));
    let client = client(&storage, "object", PAGES);
    let mut bytes = vec![0; PAGES as usize * PAGE];
    Random::from_environment("a large call").fill(&mut bytes);
    let call = Client::call();
    client.give(call, 0, &bytes).unwrap();
    client.sync(call, 0, PAGES).unwrap();
    client.close();
}

/// A reader is told where it is too late for what it opened, and reads on what is as it was.
#[test]
fn a_reader_never_mixes_two_moments() {
    const PAGES: u64 = 200;
    let location = in_memory();
    let options = Options {
        garbage_delay: Duration::from_millis(10),
        ..Options::default()
    };
    let storage = open(location.clone(), &options).unwrap();
    let (busy, quiet) = (client(&storage, "busy", PAGES), client(&storage, "quiet", PAGES));
    let mut random = Random::from_environment("a reader");
    let mut rewrite = |client: &Client| {
        let mut bytes = vec![0; PAGES as usize * PAGE];
        random.fill(&mut bytes);
        let call = Client::call();
        client.give(call, 0, &bytes).unwrap();
        client.sync(call, 0, PAGES).unwrap();
        bytes
    };
    let expected = rewrite(&quiet);
    rewrite(&busy);
    let first = keys(&location, "segment");
    let reading = vmsync_core::pager::InitRequest {
        create: false,
        write: false,
        ..common::request(0)
    };
    let readers = Options {
        read_only: true,
        ..Options::default()
    };
    let reader = open(location.clone(), &readers).unwrap();
    let open_in_reader = |name| Client::open_with(reader.clone(), name, reading).unwrap();
    let read = |client: &Client| {
        let mut bytes = vec![0; PAGES as usize * PAGE];
        let supplied = reader.data_request(client.object, 0, VmProt::READ, &mut bytes);
        supplied.map(|_| bytes)
    };
    let (late, unmoved) = (open_in_reader("busy"), open_in_reader("quiet"));
    let mut newest = Vec::new();
    while keys(&location, "segment").iter().any(|key| first.contains(key)) {
        newest = rewrite(&busy);
        std::thread::sleep(Duration::from_millis(20));
    }
    for _ in 0..2 {
        assert_eq!(kind(read(&late)), Some(PagerErrorKind::Unavailable));
        assert!(read(&unmoved).unwrap() == expected);
    }
    late.close();
    assert!(read(&open_in_reader("busy")).unwrap() == newest);
    assert!(read(&unmoved).unwrap() == expected);
}

/// What a reader has open is of the call that it opened, whoever opens something else meanwhile: as it was, or not at all.
#[test]
fn a_reader_is_not_moved_on_by_another_opening() {
    let location = in_memory();
    let storage = store(&location);
    let (mapped, other) = (client(&storage, "mapped", 2), client(&storage, "other", 1));
    mapped.commit_full(0, 1);
    mapped.commit_full(1, 1);
    let reading = vmsync_core::pager::InitRequest {
        create: false,
        write: false,
        ..common::request(0)
    };
    let readers = Options {
        read_only: true,
        ..Options::default()
    };
    let reader = open(location.clone(), &readers).unwrap();
    let open_in_reader = |name| Client::open_with(reader.clone(), name, reading).unwrap();
    let read = |client: &Client, page: u64| {
        let mut bytes = vec![0; PAGE];
        let supplied = reader.data_request(client.object, page * PAGE as u64, VmProt::READ, &mut bytes);
        supplied.map(|_| bytes[0])
    };
    let opened = open_in_reader("mapped");
    assert_eq!(read(&opened, 0), Ok(1));
    // One call changes both pages.
    let call = Client::call();
    mapped.give(call, 0, &vec![2; 2 * PAGE]).unwrap();
    mapped.sync(call, 0, 2).unwrap();
    other.commit_full(0, 3);
    let beside = open_in_reader("other");
    assert_eq!(read(&beside, 0), Ok(3));
    // The second page of a mapping whose first one was of the call before.
    assert_eq!(kind(read(&opened, 1)), Some(PagerErrorKind::Unavailable));
    opened.close();
    let opened = open_in_reader("mapped");
    assert_eq!([read(&opened, 0), read(&opened, 1)], [Ok(2), Ok(2)]);
}

#[test]
fn changed_bytes_are_found_out() {
    let location = in_memory();
    let storage = store(&location);
    let one = client(&storage, "object", 64);
    let call = Client::call();
    let mut random = Random::from_environment("damage");
    for page in 0..60 {
        let mut bytes = vec![0; PAGE];
        random.fill(&mut bytes);
        one.give(call, page, &bytes).unwrap();
    }
    one.sync(call, 0, 64).unwrap();
    let expected = one.read(0, 64);
    one.close();
    drop(storage);
    let mut found = 0;
    for folder in ["manifest", "segment"] {
        // The newest manifest comes first.
        let key = keys(&location, folder).remove(0);
        let good = block_on(async { location.store.get(&key).await.unwrap().bytes().await.unwrap() });
        for _ in 0..40 {
            let mut bad = good.to_vec();
            let at = random.below(bad.len() as u64) as usize;
            bad[at] ^= 1 << random.below(8);
            block_on(location.store.put(&key, PutPayload::from(bad))).unwrap();
            let readers = Options {
                read_only: true,
                ..Options::default()
            };
            let answer = open(location.clone(), &readers).and_then(|storage| {
                let reading = vmsync_core::pager::InitRequest {
                    create: false,
                    write: false,
                    ..common::request(0)
                };
                let reader = Client::open_with(storage.clone(), "object", reading)?;
                let mut bytes = vec![0; 64 * PAGE];
                storage.data_request(reader.object, 0, VmProt::READ, &mut bytes)?;
                assert!(bytes == expected, "wrong bytes were supplied");
                Ok(())
            });
            let error = answer.expect_err("every byte is under a sum");
            assert!(
                matches!(error.kind, PagerErrorKind::Damaged | PagerErrorKind::Version),
                "{error}"
            );
            found += 1;
        }
        block_on(location.store.put(&key, PutPayload::from_bytes(good))).unwrap();
    }
    assert_eq!(found, 80);
}

/// Keys that others have put there, before and behind the store's own, and copies of those in a folder.
#[test]
fn keys_of_others_do_not_matter() {
    let location = in_memory();
    drop(store(&location));
    for other in [".keep", "+000000000000000", "0/fffffffffffffff0", "README", "z"] {
        for folder in ["manifest", "segment"] {
            let key = Path::from(format!("{}/{folder}/{other}", location.prefix));
            block_on(location.store.put(&key, PutPayload::from("others'"))).unwrap();
        }
    }
    let readers = Options {
        read_only: true,
        ..Options::default()
    };
    open(location.clone(), &readers).unwrap();
    client(&store(&location), "object", 1).commit_full(0, 1);
    client(&store(&location), "object", 1).assert_full(0, 1);
}

/// A folder below folders that are not there, and one that is.
#[test]
fn a_folder_is_made_where_it_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("file://{}/a/b/c", folder.path().display());
    for byte in 1..3 {
        let storage = store(&Location::new(&url).unwrap());
        client(&storage, "object", 1).commit_full(0, byte);
    }
}

#[test]
fn what_cannot_be_opened_is_named() {
    let location = in_memory();
    let existing = Options {
        create: false,
        ..Options::default()
    };
    assert_eq!(
        kind(open(location.clone(), &existing)),
        Some(PagerErrorKind::NotFound)
    );
    drop(store(&location));
    let large = Options {
        page_size: PageSize::KIB_16,
        ..Options::default()
    };
    let error = open(location.clone(), &large).err().unwrap();
    assert_eq!(error.kind, PagerErrorKind::Invalid);
    assert!(
        error.message.contains("4096") && error.message.contains("16384"),
        "{error}"
    );
    for (url, part) in [
        ("nonsense", "s3://BUCKET/PREFIX"),
        ("ftp://bucket/x", "no object store"),
        ("s3://key:secret@bucket/x", "environment"),
    ] {
        let error = Location::new(url).err().unwrap();
        assert!(
            error.message.contains(part) && !error.message.contains("secret"),
            "{error}"
        );
    }
    let reader = Options {
        read_only: true,
        ..Options::default()
    };
    let storage: Arc<_> = open(location, &reader).unwrap();
    let refused = Client::open_with(storage, "object", common::request(1));
    assert_eq!(kind(refused), Some(PagerErrorKind::Denied));
}
