//! Objects: what they hold, how large they are, what survives.

use vmsync_core::{PagerErrorKind, abi::VmProt, pager::InitRequest};

use crate::{Client, Fixture};

pub(super) fn unsupplied_reads_as_zero(fixture: &mut Fixture) {
    let client = Client::open(fixture, "zero", 4);
    assert_eq!(client.opened.size, 4 * fixture.page_size().bytes());
    assert_eq!(client.opened.version, 0);
    assert_eq!(client.opened.address, None);
    (0..4).for_each(|page| client.assert_full(page, 0));
    client.commit_full(2, 9);
    client.assert_full(1, 0);
    client.assert_full(3, 0);
    let all = client.read(0, 4);
    assert_eq!(
        all.iter().filter(|byte| **byte == 9).count() as u64,
        fixture.page_size().bytes()
    );
    client.close();
}

pub(super) fn round_trip(fixture: &mut Fixture) {
    let client = Client::open(fixture, "round-trip", 8);
    let call = Client::call();
    client.give_full(call, 1, 11);
    client.give_full(call, 2, 12);
    client.give_full(call, 7, 17);
    client.sync(call, 0, 8).expect("commits");
    for (page, byte) in [(0, 0), (1, 11), (2, 12), (3, 0), (7, 17)] {
        client.assert_full(page, byte);
    }
    // One byte of a page, then the page back to zero.
    let mut page = client.read(1, 1);
    page[1234] = 99;
    let call = Client::call();
    client.give(call, 1, &page).expect("goes back");
    client.sync(call, 1, 1).expect("commits");
    assert!(client.read(1, 1) == page, "one byte changed");
    client.commit_full(1, 0);
    client.assert_full(1, 0);
    client.close();
}

pub(super) fn reopen_shows_last_commit(fixture: &mut Fixture) {
    if !fixture.is_durable() {
        return;
    }
    for round in 1..4u8 {
        let client = Client::open(fixture, "kept", 4);
        client.assert_full(3, round - 1);
        client.commit_full(3, round);
        let version = client.attributes().version;
        drop(client);
        fixture.reopen();
        let client = Client::open(fixture, "kept", 0);
        assert_eq!(client.opened.version, version);
        assert_eq!(client.opened.size, 4 * fixture.page_size().bytes());
        client.assert_full(3, round);
        client.close();
    }
}

pub(super) fn reopen_drops_uncommitted(fixture: &mut Fixture) {
    if !fixture.is_durable() {
        return;
    }
    let client = Client::open(fixture, "half", 4);
    client.commit_full(0, 1);
    client.give_full(Client::call(), 0, 2);
    client.give_full(Client::call(), 1, 2);
    drop(client);
    fixture.reopen();
    let client = Client::open(fixture, "half", 4);
    client.assert_full(0, 1);
    client.assert_full(1, 0);
    client.close();
}

pub(super) fn grows_and_never_shrinks(fixture: &mut Fixture) {
    let client = Client::open(fixture, "grows", 2);
    client.commit_full(1, 5);
    client.close();
    for (asked, size) in [(6, 6), (3, 6), (0, 6), (7, 7)] {
        let client = Client::open(fixture, "grows", asked);
        assert_eq!(client.opened.size, size * fixture.page_size().bytes());
        client.assert_full(1, 5);
        client.assert_full(size - 1, 0);
        client.close();
        fixture.reopen();
    }
    let client = Client::open(fixture, "grows", 7);
    client.commit_full(6, 6);
    client.assert_full(6, 6);
    client.close();
}

pub(super) fn grows_while_open(fixture: &mut Fixture) {
    let bytes = fixture.page_size().bytes();
    let client = Client::open(fixture, "grows-open", 2);
    client.commit_full(0, 4);
    let call = Client::call();
    client.give_full(call, 1, 5);
    match client.pager().grow(client.object, 6 * bytes) {
        Err(error) if error.kind == PagerErrorKind::Unsupported => return client.close(),
        grown => assert_eq!(grown.expect("grows").size, 6 * bytes),
    }
    client
        .sync(call, 0, 2)
        .expect("what was returned before still commits");
    for (page, byte) in [(0, 4), (1, 5), (2, 0), (5, 0)] {
        client.assert_full(page, byte);
    }
    client.commit_full(5, 6);
    let same = client
        .pager()
        .grow(client.object, bytes)
        .expect("is large enough");
    assert_eq!(same.size, 6 * bytes);
    let odd = client.pager().grow(client.object, 6 * bytes + 1);
    assert_eq!(odd.err().map(|error| error.kind), Some(PagerErrorKind::Invalid));
    client.close();
    fixture.reopen();
    let request = InitRequest {
        page_size: fixture.page_size(),
        size_min: 0,
        create: false,
        write: false,
    };
    let reader = Client::open_with(fixture.pager(), "grows-open", request).expect("opens");
    reader.assert_full(1, 5);
    reader.assert_full(5, 6);
    let refused = reader.pager().grow(reader.object, 7 * bytes);
    assert_eq!(
        refused.err().map(|error| error.kind),
        Some(PagerErrorKind::Denied)
    );
    reader.close();
}

pub(super) fn version_rises(fixture: &mut Fixture) {
    let client = Client::open(fixture, "versions", 2);
    let mut last = client.attributes().version;
    for round in 1..6 {
        client.commit_full(round % 2, round as u8);
        let version = client.attributes().version;
        assert!(version > last, "version {version} after {last}");
        last = version;
    }
    client.close();
    fixture.reopen();
    let client = Client::open(fixture, "versions", 2);
    assert_eq!(client.opened.version, last);
    client.commit_full(0, 8);
    assert!(client.attributes().version > last);
    client.close();
}

pub(super) fn address_is_remembered(fixture: &mut Fixture) {
    let client = Client::open(fixture, "mapped", 2);
    client.pager().map(client.object, 0x10_0000, VmProt::READ);
    client.commit_full(0, 1);
    assert_eq!(client.attributes().address, Some(0x10_0000));
    client.pager().last_unmap(client.object);
    client.close();
    fixture.reopen();
    let client = Client::open(fixture, "mapped", 2);
    assert_eq!(client.opened.address, Some(0x10_0000));
    client.close();
}

pub(super) fn one_writer(fixture: &mut Fixture) {
    let client = Client::open(fixture, "owned", 2);
    let request = InitRequest {
        page_size: fixture.page_size(),
        size_min: 0,
        create: false,
        write: true,
    };
    let second = Client::open_with(fixture.pager(), "owned", request);
    assert_eq!(second.err().map(|error| error.kind), Some(PagerErrorKind::Busy));
    client.close();
    Client::open_with(fixture.pager(), "owned", request)
        .expect("opens when the writer is gone")
        .close();
}

pub(super) fn missing_is_not_found(fixture: &mut Fixture) {
    let request = InitRequest {
        page_size: fixture.page_size(),
        size_min: 0,
        create: false,
        write: true,
    };
    for _ in 0..2 {
        let missing = Client::open_with(fixture.pager(), "missing", request);
        assert_eq!(
            missing.err().map(|error| error.kind),
            Some(PagerErrorKind::NotFound)
        );
    }
}
