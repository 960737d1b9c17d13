//! Calls: groups, aborts, completions, order.

use vmsync_core::pager::SynchronizeFlags;

use crate::{Client, Fixture};

const SYNC: SynchronizeFlags = SynchronizeFlags::SYNCHRONOUS;
const SYNC_MORE: SynchronizeFlags = SynchronizeFlags { more: true, ..SYNC };
const ASYNC: SynchronizeFlags = SynchronizeFlags::ASYNCHRONOUS;

pub(super) fn group_over_objects(fixture: &mut Fixture) {
    let left = Client::open(fixture, "left", 2);
    let right = Client::open(fixture, "right", 2);
    let call = Client::call();
    left.give_full(call, 0, 1);
    right.give_full(call, 1, 2);
    left.synchronize(call, (0, 2), SYNC_MORE).expect("is held");
    assert!(!left.recorder.is_completed(left.range(0, 2)), "more was to come");
    assert_eq!(
        left.attributes().version,
        0,
        "nothing commits before the last synchronize"
    );
    right.synchronize(call, (0, 2), SYNC).expect("commits");
    left.recorder.wait(left.range(0, 2)).expect("completes");
    right.recorder.wait(right.range(0, 2)).expect("completes");
    left.assert_full(0, 1);
    right.assert_full(1, 2);
    left.close();
    right.close();
    fixture.reopen();
    let (left, right) = (
        Client::open(fixture, "left", 2),
        Client::open(fixture, "right", 2),
    );
    left.assert_full(0, 1);
    right.assert_full(1, 2);
    assert_eq!(left.opened.version, right.opened.version, "one call, one version");
    left.close();
    right.close();
}

pub(super) fn abort_drops(fixture: &mut Fixture) {
    let client = Client::open(fixture, "aborted", 4);
    client.commit_full(0, 1);
    let (gone, kept) = (Client::call(), Client::call());
    client.give_full(gone, 0, 2);
    client.give_full(kept, 1, 3);
    client.synchronize(gone, (0, 1), SYNC_MORE).expect("is held");
    client.pager().abort(gone);
    client.recorder.forget(client.range(0, 1));
    client.sync(kept, 0, 4).expect("commits");
    client.assert_full(0, 1);
    client.assert_full(1, 3);
    // Nothing is left of the call: its number, used again by mistake, commits nothing old.
    client.sync(gone, 2, 1).expect("an empty call");
    client.assert_full(0, 1);
    client.pager().abort(Client::call());
    client.close();
}

pub(super) fn completions_match(fixture: &mut Fixture) {
    let client = Client::open(fixture, "exact", 8);
    let call = Client::call();
    client.give_full(call, 0, 1);
    let ranges = [(0, 1), (2, 3), (6, 2)];
    for (index, range) in ranges.into_iter().enumerate() {
        let flags = if index + 1 < ranges.len() { SYNC_MORE } else { SYNC };
        client.synchronize(call, range, flags).expect("is taken");
    }
    for (first, count) in ranges {
        client
            .recorder
            .wait(client.range(first, count))
            .expect("completes");
    }
    client.close();
}

pub(super) fn last_return_counts(fixture: &mut Fixture) {
    let client = Client::open(fixture, "twice", 2);
    let call = Client::call();
    client.give_full(call, 0, 1);
    client.give_full(call, 1, 1);
    client.give_full(call, 0, 2);
    client.sync(call, 0, 2).expect("commits");
    client.assert_full(0, 2);
    client.assert_full(1, 1);
    client.close();
}

pub(super) fn empty_call_completes(fixture: &mut Fixture) {
    let client = Client::open(fixture, "empty", 2);
    client.commit_full(0, 1);
    let version = client.attributes().version;
    client.sync(Client::call(), 0, 2).expect("completes");
    let call = Client::call();
    client.synchronize(call, (0, 1), ASYNC).expect("is taken");
    client.recorder.wait(client.range(0, 1)).expect("completes");
    assert_eq!(
        client.attributes().version,
        version,
        "nothing was returned, nothing changed"
    );
    client.close();
}

pub(super) fn asynchronous_order(fixture: &mut Fixture) {
    let client = Client::open(fixture, "queued", 4);
    for byte in 1..20 {
        let call = Client::call();
        client.give_full(call, 0, byte);
        client.give_full(call, u64::from(byte) % 3 + 1, byte);
        client.synchronize(call, (0, 4), ASYNC).expect("is queued");
        client
            .recorder
            .wait(client.range(0, 4))
            .expect("completes when queued");
        client.assert_full(0, byte);
    }
    client.commit_full(1, 77);
    client.close();
    fixture.reopen();
    let client = Client::open(fixture, "queued", 4);
    for (page, byte) in [(0, 19), (1, 77), (2, 19), (3, 17)] {
        client.assert_full(page, byte);
    }
    client.close();
}

pub(super) fn settle_image(fixture: &mut Fixture) {
    let client = Client::open(fixture, "settled", 4);
    let call = Client::call();
    client.give_full(call, 1, 5);
    client.synchronize(call, (1, 1), ASYNC).expect("is queued");
    client
        .recorder
        .wait(client.range(1, 1))
        .expect("completes when queued");
    client
        .pager()
        .settle_image(client.object, client.range(1, 1))
        .expect("settles");
    client.assert_full(1, 5);
    if let Some(image) = client.read_image(1, 1) {
        assert!(image == client.read(1, 1), "the image shows it");
    }
    client.close();
}
