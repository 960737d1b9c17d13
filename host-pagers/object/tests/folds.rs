//! Folds: what manifests would repeat for ever goes to segments in the background, and nothing is lost by that.

mod common;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use common::{
    client,
    hooked::{Fate, Hooked},
    in_memory, location, store,
};
use vmsync_core::pager::ObjectName;
use vmsync_pager_conformance::{Client, random::Random};
use vmsync_pager_object::ObjectStorage;

const PAGE: usize = 4096;

/// Changes eight bytes of a page of `model`, in a call of its own.
fn change(
    storage: &ObjectStorage,
    client: &Client,
    model: &mut BTreeMap<u64, Vec<u8>>,
    page: u64,
    random: &mut Random,
) {
    let bytes = model.entry(page).or_insert_with(|| vec![0; PAGE]);
    let at = random.below(PAGE as u64 / 8) as usize * 8;
    random.fill(&mut bytes[at..at + 8]);
    let (call, before) = (Client::call(), storage.engine().requests());
    client.give(call, page, bytes).unwrap();
    client.sync(call, page, 1).unwrap();
    // A fold is due at two thirds of it, and is made beside the calls: they wait where it gets no turn.
    if storage.engine().requests().bytes_sent - before.bytes_sent > 14 << 10 {
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn check(client: &Client, model: &BTreeMap<u64, Vec<u8>>) {
    for (page, bytes) in model {
        assert!(client.read(*page, 1) == *bytes, "page {page}");
    }
}

#[test]
fn many_small_commits_send_few_bytes_in_few_requests() {
    let location = in_memory();
    let storage = store(&location);
    let one = client(&storage, "object", 1024);
    let (mut model, mut random) = (BTreeMap::new(), Random::from_environment("small commits"));
    change(&storage, &one, &mut model, 0, &mut random);
    let before = storage.engine().requests();
    const CALLS: u64 = 2000;
    for _ in 0..CALLS {
        let page = random.below(1024);
        change(&storage, &one, &mut model, page, &mut random);
    }
    let after = storage.engine().requests();
    let requests = after.total() - before.total();
    assert!(
        requests < CALLS * 103 / 100,
        "{requests} requests for {CALLS} calls"
    );
    let bytes = (after.bytes_sent - before.bytes_sent) / CALLS;
    assert!(bytes < 16 << 10, "{bytes} bytes for each call");
    check(&one, &model);
    one.close();
    drop(storage);
    check(&client(&store(&location), "object", 1024), &model);
}

/// Calls beside segments that take their time: commits of all sizes, removals, reopening.
#[test]
fn what_is_committed_beside_a_fold_is_kept() {
    let mut random = Random::from_environment("folds");
    let place = in_memory();
    let (uploads, pauses) = (
        Arc::new(AtomicU64::new(0)),
        Mutex::new(Random::new(random.number())),
    );
    let counted = uploads.clone();
    let hooked = Hooked {
        store: place.store.clone(),
        before: Box::new(move |key, _| {
            if key.as_ref().contains("/segment/") {
                counted.fetch_add(1, Ordering::Relaxed);
                return Fate::Late(Duration::from_millis(pauses.lock().unwrap().below(20)));
            }
            Fate::Sound
        }),
    };
    let location = location(&(Arc::new(hooked) as _), &place.prefix);
    let (mut model, mut large) = (BTreeMap::new(), 0);
    for _ in 0..4 {
        let storage = store(&location);
        let one = client(&storage, "object", 400);
        check(&one, &model);
        let mut seen = uploads.load(Ordering::Relaxed);
        let (beside, mut beside_model) = (client(&storage, "beside", 100), BTreeMap::new());
        for _ in 0..300 + random.below(400) {
            let page = random.below(300);
            change(&storage, &one, &mut model, page, &mut random);
            let page = random.below(100);
            change(&storage, &beside, &mut beside_model, page, &mut random);
            // Soon after a fold has begun, now and then: too much for a manifest, so all changes go to segments at once.
            if uploads.load(Ordering::Relaxed) > seen && random.once_in(10) {
                large += 1;
                let call = Client::call();
                for page in 290..310 {
                    let bytes = model.entry(page).or_insert_with(|| vec![0; PAGE]);
                    random.fill(bytes);
                    one.give(call, page, bytes).unwrap();
                }
                one.sync(call, 290, 20).unwrap();
                seen = uploads.load(Ordering::Relaxed);
            }
        }
        check(&one, &model);
        check(&beside, &beside_model);
        beside.close();
        storage
            .remove_object(&ObjectName::new("beside").unwrap())
            .unwrap();
        change(&storage, &one, &mut model, 0, &mut random);
        check(&one, &model);
        one.close();
    }
    let uploads = uploads.load(Ordering::Relaxed);
    assert!(
        uploads > large + 4,
        "{uploads} segments, {large} large calls: none is a fold's"
    );
    let storage = store(&location);
    let one = client(&storage, "object", 400);
    check(&one, &model);
    one.close();
}
