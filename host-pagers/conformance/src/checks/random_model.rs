//! Random calls against a model: bytes by object, changed as a whole when a call commits.
//!
//! Invariant: the seed alone decides the steps, so that a run can be repeated.

use std::collections::BTreeMap;

use vmsync_core::pager::{CallId, SynchronizeFlags};

use crate::{Client, Fixture, limits::RANDOM_STEPS, random::Random};

/// Names of the objects; few, so that calls meet on the same pages, one after the other.
const NAMES: [&str; 3] = ["alpha", "beta", "gamma"];
const PAGES: u64 = 6;

/// The store as it must be.
struct Model {
    objects: Vec<Vec<u8>>,
    versions: [u64; NAMES.len()],
}

/// A call under way: pages by object and page.
struct OpenCall {
    id: CallId,
    pages: BTreeMap<(usize, u64), Vec<u8>>,
}

pub(super) fn random_calls(fixture: &mut Fixture) {
    let mut random = Random::from_environment("random calls");
    let page_length = usize::try_from(fixture.page_size().bytes()).expect("a page fits");
    let mut model = Model {
        objects: vec![Vec::new(); NAMES.len()],
        versions: [0; NAMES.len()],
    };
    for object in &mut model.objects {
        object.resize(page_length * PAGES as usize, 0);
    }
    let mut clients = open_all(fixture, &model);
    let mut calls: Vec<OpenCall> = Vec::new();
    for _ in 0..RANDOM_STEPS {
        match random.below(20) {
            0..9 => give(&mut random, &clients, &model, &mut calls),
            9..13 if !calls.is_empty() => {
                let call = calls.swap_remove(random.below(calls.len() as u64) as usize);
                commit(call, &clients, &mut model, !random.once_in(3));
            }
            13 if !calls.is_empty() => {
                let call = calls.swap_remove(random.below(calls.len() as u64) as usize);
                clients[0].pager().abort(call.id);
            }
            14..18 => check(&mut random, &clients, &model),
            18 if random.once_in(4) => {
                // Orders everything queued before the reopening.
                clients[0].sync(Client::call(), 0, PAGES).expect("commits");
                calls.clear();
                clients
                    .drain(..)
                    .for_each(|client| client.recorder.assert_exact());
                fixture.reopen();
                if !fixture.is_durable() {
                    return;
                }
                clients = open_all(fixture, &model);
            }
            _ => {}
        }
    }
    clients.into_iter().for_each(Client::close);
}

fn open_all(fixture: &Fixture, model: &Model) -> Vec<Client> {
    let clients: Vec<Client> = NAMES
        .iter()
        .map(|name| Client::open(fixture, name, PAGES))
        .collect();
    for ((client, expected), version) in clients.iter().zip(&model.objects).zip(model.versions) {
        assert!(
            client.read(0, PAGES) == *expected,
            "an object differs after opening"
        );
        assert!(client.opened.version >= version);
    }
    clients
}

/// Adds a changed page to a new or open call.
fn give(random: &mut Random, clients: &[Client], model: &Model, calls: &mut Vec<OpenCall>) {
    if calls.is_empty() || (calls.len() < 3 && random.once_in(4)) {
        calls.push(OpenCall {
            id: Client::call(),
            pages: BTreeMap::new(),
        });
    }
    let index = random.below(calls.len() as u64) as usize;
    let (object, page) = (random.below(NAMES.len() as u64) as usize, random.below(PAGES));
    let mut others = calls.iter().enumerate().filter(|(other, _)| *other != index);
    if others.any(|(_, call)| call.pages.contains_key(&(object, page))) {
        // The runtime makes the second call wait.
        return;
    }
    let length = model.objects[object].len() / PAGES as usize;
    let start = page as usize * length;
    let mut bytes = model.objects[object][start..start + length].to_vec();
    match random.below(4) {
        0 => random.fill(&mut bytes),
        1 => bytes.fill(random.number() as u8),
        2 => {}
        _ => {
            for _ in 0..=random.below(6) {
                let first = random.below(length as u64) as usize;
                let behind = (first + 1 + random.below(40) as usize).min(length);
                random.fill(&mut bytes[first..behind]);
            }
        }
    }
    clients[object]
        .give(calls[index].id, page, &bytes)
        .expect("the page goes back");
    calls[index].pages.insert((object, page), bytes);
}

/// Synchronizes the whole of each object that the call touched.
fn commit(call: OpenCall, clients: &[Client], model: &mut Model, synchronous: bool) {
    let mut touched: Vec<usize> = call.pages.keys().map(|(object, _)| *object).collect();
    touched.dedup();
    for (position, object) in touched.iter().enumerate() {
        let flags = SynchronizeFlags {
            synchronous,
            more: position + 1 < touched.len(),
            nowait: call.id.0.is_multiple_of(2),
        };
        clients[*object]
            .synchronize(call.id, (0, PAGES), flags)
            .expect("is taken");
    }
    for object in &touched {
        let client = &clients[*object];
        client.recorder.wait(client.range(0, PAGES)).expect("completes");
        let version = client.attributes().version;
        assert!(version >= model.versions[*object], "versions rise");
        model.versions[*object] = version;
    }
    for ((object, page), bytes) in call.pages {
        let start = page as usize * bytes.len();
        model.objects[object][start..start + bytes.len()].copy_from_slice(&bytes);
    }
}

fn check(random: &mut Random, clients: &[Client], model: &Model) {
    let object = random.below(NAMES.len() as u64) as usize;
    let first = random.below(PAGES);
    let count = 1 + random.below(PAGES - first);
    let length = model.objects[object].len() / PAGES as usize;
    let expected = &model.objects[object][first as usize * length..(first + count) as usize * length];
    assert!(
        clients[object].read(first, count) == expected,
        "{} pages {first}+{count}",
        NAMES[object]
    );
}
