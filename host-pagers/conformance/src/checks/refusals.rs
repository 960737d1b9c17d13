//! What a pager refuses, and with which kind of error.

use vmsync_core::{
    ByteRange, PageSize, PagerErrorKind,
    abi::VmProt,
    pager::{InitRequest, ObjectId, ReturnFlags, SynchronizeFlags},
};

use crate::{Client, Fixture};

const SYNC: SynchronizeFlags = SynchronizeFlags::SYNCHRONOUS;
const DIRTY: ReturnFlags = ReturnFlags {
    dirty: true,
    kernel_copy: true,
};

pub(super) fn bad_arguments(fixture: &mut Fixture) {
    let client = Client::open(fixture, "strict", 4);
    let page = fixture.page_size().bytes();
    let length = usize::try_from(page).expect("a page fits");
    client.commit_full(3, 3);
    let (pager, object) = (client.pager(), client.object);
    let bad = [
        (1, length),
        (page / 2, length),
        (0, length - 1),
        (0, 1),
        (4 * page, length),
        (3 * page, 2 * length),
        (u64::MAX - page + 1, length),
        (!(page - 1), 2 * length),
    ];
    for (offset, length) in bad {
        let mut buffer = vec![0; length];
        let request = pager.data_request(object, offset, VmProt::READ, &mut buffer);
        assert_eq!(
            request.err().map(|error| error.kind),
            Some(PagerErrorKind::Invalid),
            "request {offset}"
        );
        let call = Client::call();
        let answer = pager.data_return(call, object, offset, &buffer, DIRTY);
        assert_eq!(
            answer.err().map(|error| error.kind),
            Some(PagerErrorKind::Invalid),
            "return {offset}"
        );
        pager.abort(call);
        let end = offset.saturating_add(length as u64);
        let range = ByteRange::new(offset, end);
        let answer = client
            .recorder
            .synchronize(pager, Client::call(), object, range, SYNC);
        assert_eq!(
            answer.err().map(|error| error.kind),
            Some(PagerErrorKind::Invalid),
            "sync {offset}"
        );
    }
    unknown_object(&client);
    client.assert_full(3, 3);
    client.commit_full(0, 4);
    client.close();
}

fn unknown_object(client: &Client) {
    let (pager, unknown, call) = (client.pager(), ObjectId(u64::MAX), Client::call());
    let mut buffer = client.read(0, 1);
    let range = client.range(0, 1);
    let invalid = |answer: Result<(), PagerErrorKind>| assert_eq!(answer, Err(PagerErrorKind::Invalid));
    invalid(
        pager
            .data_request(unknown, 0, VmProt::READ, &mut buffer)
            .map(drop)
            .map_err(|error| error.kind),
    );
    invalid(
        pager
            .data_return(call, unknown, 0, &buffer, DIRTY)
            .map_err(|error| error.kind),
    );
    invalid(
        pager
            .synchronize(call, unknown, range, SYNC)
            .map_err(|error| error.kind),
    );
    invalid(pager.attributes(unknown).map(drop).map_err(|error| error.kind));
    assert_eq!(pager.image(unknown), None);
    pager.map(unknown, 0, VmProt::READ);
    pager.last_unmap(unknown);
    pager.terminate(unknown);
    pager.abort(call);
}

pub(super) fn reader_cannot_write(fixture: &mut Fixture) {
    let writer = Client::open(fixture, "read-only", 2);
    writer.commit_full(0, 1);
    writer.close();
    let request = InitRequest {
        page_size: fixture.page_size(),
        size_min: 0,
        create: false,
        write: false,
    };
    let reader = Client::open_with(fixture.pager(), "read-only", request).expect("opens for reading");
    let call = Client::call();
    let answer = reader.give(call, 0, &reader.read(0, 1));
    assert_eq!(answer.err().map(|error| error.kind), Some(PagerErrorKind::Denied));
    reader.pager().abort(call);
    reader
        .sync(Client::call(), 0, 2)
        .expect("who reads may ask for what others have queued");
    reader.assert_full(0, 1);
    reader.close();
}

pub(super) fn page_size_differs(fixture: &mut Fixture) {
    Client::open(fixture, "pages", 2).close();
    let other = if fixture.page_size() == PageSize::KIB_16 {
        PageSize::KIB_64
    } else {
        PageSize::KIB_16
    };
    for name in ["pages", "fresh"] {
        let request = InitRequest {
            page_size: other,
            size_min: 0,
            create: false,
            write: true,
        };
        let error = Client::open_with(fixture.pager(), name, request)
            .err()
            .expect("is refused");
        assert!(
            matches!(error.kind, PagerErrorKind::Invalid | PagerErrorKind::NotFound),
            "{error}"
        );
    }
    let request = InitRequest {
        page_size: fixture.page_size(),
        size_min: 100,
        create: true,
        write: true,
    };
    let error = Client::open_with(fixture.pager(), "odd", request)
        .err()
        .expect("is refused");
    assert_eq!(error.kind, PagerErrorKind::Invalid);
}
