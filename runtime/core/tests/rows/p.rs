//! Rows P: precious pages, and a pager's own requests.

use std::sync::Arc;

use vmsync_core::{
    ByteRange, KernReturn, PageRange, PageSet, PagerError, PagerErrorKind,
    abi::{VmProt, VmSync},
    object::ObjectHandle,
    pager::{LockRequest, MemoryObjectControl, ReturnPages},
    task::MapRequest,
};

use crate::harness::{Guest, Object, P, TestPager, guest::request as map_request, pager::LOST};

const SYNC: VmSync = VmSync::SYNCHRONOUS;

/// Object `a` of 4 pages at page 8, page `n` holds 10 + n; its pager gives its only copies away.
fn precious() -> (Arc<TestPager>, Object, Guest) {
    let pager = TestPager::new();
    let object = Object::new(&pager, 'a', 4);
    for page in 0..4 {
        pager.overwrite(object.id(), page, 10 + page as u8);
    }
    pager.script(|script| _ = script.moves.insert(object.id()));
    let mut guest = Guest::new(32);
    guest.map(&object, 8);
    pager.take_log();
    (pager, object, guest)
}

#[test]
fn p1_precious_pages_are_returned_before_eviction() {
    let (pager, object, mut guest) = precious();
    guest.store([9], 1);
    assert_eq!(guest.evict(8..12), KernReturn::Success);
    assert_eq!(
        pager.take_log(),
        [
            "a return 0..1 clean dropped",
            "a return 2..4 clean dropped",
            "a sync 0..4 now",
            "a request 0..1",
            "a request 2..4",
        ]
    );
    assert_eq!([8, 9, 10, 11].map(|page| guest.read(page)), [10, 1, 12, 13]);
    assert!(object.dirty().contains(1), "nothing dirty is written early");
    assert_eq!(guest.msync(8..12, SYNC), KernReturn::Success);
    assert_eq!(pager.durable(object.id(), 1)[0], 1);
}

#[test]
fn p1_precious_pages_are_returned_before_the_last_unmap() {
    let (pager, object, mut guest) = precious();
    guest.store([9], 1);
    guest.wire(10..11, true).expect("mapped");
    assert_eq!(guest.deallocate(8..12), KernReturn::Success);
    assert_eq!(
        pager.take_log(),
        [
            "a return 0..1 clean dropped",
            "a return 1..2 dirty dropped",
            "a return 2..3 clean dropped",
            "a return 3..4 clean dropped",
            "a sync 0..2 now more",
            "a sync 2..3 now more",
            "a sync 3..4 now",
        ]
    );
    let mut again = Guest::new(32);
    again.map(&object, 8);
    assert_eq!([8, 9, 10, 11].map(|page| again.read(page)), [10, 1, 12, 13]);
}

#[test]
fn p1_dirty_pages_are_not_committed_by_an_unmap() {
    let pager = TestPager::new();
    let object = Object::new(&pager, 'a', 4);
    let mut guest = Guest::new(32);
    guest.map(&object, 8);
    guest.store([9], 1);
    pager.take_log();
    assert_eq!(guest.deallocate(8..12), KernReturn::Success);
    assert!(pager.take_log().is_empty());
    guest.map(&object, 16);
    assert_eq!(guest.read(17), 0);
    assert!(object.dirty().is_empty());
}

#[test]
fn p1_a_reader_never_takes_the_only_copy() {
    let (pager, object, mut guest) = precious();
    assert_eq!(guest.deallocate(8..12), KernReturn::Success);
    assert!(object.with(|object| object.precious.is_empty()));
    let mut reader = Guest::new(32);
    let port = reader.open(&object);
    let mut window = map_request(port, 8, 4);
    (window.protection, window.max_protection) = (VmProt::READ, VmProt::READ);
    reader.map_with(&window).expect("readable");
    assert_eq!(
        reader.msync(8..12, SYNC | VmSync::INVALIDATE),
        KernReturn::Success
    );
    assert_eq!(reader.deallocate(8..12), KernReturn::Success);
    guest.map(&object, 8);
    assert_eq!([8, 9, 10, 11].map(|page| guest.read(page)), [10, 11, 12, 13]);
    drop(pager);
}

#[test]
fn p1_pages_marked_by_a_supply_are_forgotten_with_their_mapping() {
    let pager = TestPager::new();
    let object = Object::new(&pager, 'a', 2);
    let mut guest = Guest::new(32);
    guest.map(&object, 8);
    object.with(|object| object.precious.insert(PageRange::new(0, 2)));
    assert_eq!(guest.deallocate(8..10), KernReturn::Success);
    assert!(object.with(|object| object.precious.is_empty() && object.resident.is_empty()));
}

#[test]
fn p1_a_range_whose_pages_were_not_returned_is_kept() {
    let (pager, object, mut guest) = precious();
    // A pager that takes what it is given, beside.
    let other_pager = TestPager::beside(&pager);
    let other = Object::new(&other_pager, 'b', 1);
    other_pager.script(|script| _ = script.moves.insert(other.id()));
    guest.map(&other, 12);
    guest.store([9], 1);
    for kind in [PagerErrorKind::NoSpace, PagerErrorKind::Io] {
        pager.script(|script| script.completion_fails = Some(kind));
        assert_eq!(guest.deallocate(8..13), kind.write_back());
        assert_eq!([8, 9, 10, 11].map(|page| guest.read(page)), [10, 1, 12, 13]);
        assert!(object.with(|object| object.precious.contains(0) && object.dirty.contains(1)));
        assert!(other.with(|object| object.precious.is_empty()), "it has a copy");
    }
    pager.script(|script| script.completion_fails = None);
    assert_eq!(guest.deallocate(8..13), KernReturn::Success);
    guest.map(&object, 8);
    assert_eq!([8, 9, 10, 11].map(|page| guest.read(page)), [10, 1, 12, 13]);
}

#[test]
fn p1_a_range_whose_object_is_gone_is_given_up() {
    let (_pager, object, mut guest) = precious();
    object.with(|object| object.destroy(PagerError::new(PagerErrorKind::Gone, "as the test says")));
    assert_eq!(guest.deallocate(8..12), KernReturn::MemoryFailure, "it was tried");
    assert!(!guest.task.map().covers(PageRange::new(8, 9)));
}

#[test]
fn p1_a_failed_return_keeps_the_page() {
    let (pager, object, mut guest) = precious();
    pager.script(|script| {
        _ = script
            .returns_fail
            .insert((object.id(), 1), vmsync_core::PagerErrorKind::Io)
    });
    assert_eq!(guest.evict(8..12), KernReturn::Failure);
    pager.script(|script| script.returns_fail.clear());
    assert_eq!([8, 9, 10, 11].map(|page| guest.read(page)), [10, 11, 12, 13]);
    assert_eq!(guest.deallocate(8..12), KernReturn::Success);
    guest.map(&object, 8);
    assert_eq!([8, 9, 10, 11].map(|page| guest.read(page)), [10, 11, 12, 13]);
}

#[test]
fn p2_a_precious_page_is_returned_by_each_sync_and_stays_precious() {
    let (pager, object, mut guest) = precious();
    guest.store([9], 1);
    assert_eq!(guest.msync(8..12, SYNC), KernReturn::Success);
    assert_eq!(
        pager.take_log(),
        [
            "a return 0..1 clean kept",
            "a return 1..2 dirty kept",
            "a return 2..4 clean kept",
            "a sync 0..4 now",
        ]
    );
    for flags in [SYNC, VmSync::ASYNCHRONOUS] {
        assert_eq!(guest.msync(8..12, flags), KernReturn::Success);
        let log = pager.take_log();
        assert_eq!(log[0], "a return 0..4 clean kept");
        assert_eq!(object.with(|object| object.precious.len()), 4);
    }
}

#[test]
fn p4_a_supply_over_a_resident_page_is_refused_with_its_offset() {
    let pager = TestPager::new();
    let object = Object::new(&pager, 'a', 4);
    let bytes = |pages: std::ops::Range<u64>| ByteRange::new(pages.start * P, pages.end * P);
    object.with(|object| {
        assert_eq!(object.data_supply(bytes(1..2), false), Ok(PageRange::new(1, 2)));
        assert_eq!(
            object.data_supply(bytes(0..4), true),
            Err((KernReturn::MemoryPresent, P))
        );
        // The pager keeps the page: none of the refused ones counts as given away.
        assert!(object.precious.is_empty());
        assert_eq!(object.resident.len(), 1);
        assert_eq!(object.data_supply(bytes(2..4), true), Ok(PageRange::new(2, 4)));
        assert_eq!(object.precious.len(), 2);
        for outside in [bytes(3..5), ByteRange::new(P, P + 1), ByteRange::new(1, P)] {
            assert_eq!(
                object.data_supply(outside, true),
                Err((KernReturn::InvalidArgument, outside.start))
            );
        }
    });
}

/// What a page is before the request.
#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Clean,
    Dirty,
    Precious,
    WiredDirty,
}

/// What is expected of a page: how it is returned, and what memory holds afterwards.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Expected {
    returned: Option<&'static str>,
    after: After,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum After {
    /// What memory held before.
    Kept,
    /// What the pager has, fetched again.
    Fetched,
}

/// How a page is returned and what memory holds afterwards, for each [`State`].
type Row = [(Option<&'static str>, After); 4];

/// Contract §2 and §4, one line for each request and one column for each state.
const MATRIX: [(ReturnPages, bool, Row); 8] = {
    use After::{Fetched, Kept};
    use ReturnPages::{All, Anything, Dirty, None as Nothing};
    const D: Option<&str> = Some("dirty");
    const C: Option<&str> = Some("clean");
    const N: Option<&str> = None;
    [
        //                     clean          dirty          precious       wired and dirty
        (Nothing, false, [(N, Kept), (N, Kept), (N, Kept), (N, Kept)]),
        (Dirty, false, [(N, Kept), (D, Kept), (N, Kept), (D, Kept)]),
        (All, false, [(N, Kept), (D, Kept), (C, Kept), (D, Kept)]),
        (Anything, false, [(C, Kept), (D, Kept), (C, Kept), (D, Kept)]),
        // A precious page is the only copy: no flush drops it without returning it.
        (
            Nothing,
            true,
            [(N, Fetched), (N, Fetched), (C, Fetched), (N, Kept)],
        ),
        (Dirty, true, [(N, Fetched), (D, Fetched), (C, Fetched), (D, Kept)]),
        (All, true, [(N, Fetched), (D, Fetched), (C, Fetched), (D, Kept)]),
        (
            Anything,
            true,
            [(C, Fetched), (D, Fetched), (C, Fetched), (D, Kept)],
        ),
    ]
};

/// One cell of the matrix: a request for page 1 of three, which is in `state`.
fn check_cell(should_return: ReturnPages, flush: bool, state: State, expected: Expected) {
    let pager = TestPager::new();
    let object = Object::new(&pager, 'a', 3);
    let mut guest = Guest::new(32);
    guest.map(&object, 8);
    match state {
        State::Clean => {}
        State::Dirty => guest.store([9], 1),
        State::Precious => object.with(|object| object.precious.insert(PageRange::new(1, 2))),
        State::WiredDirty => {
            guest.store([9], 1);
            guest.wire(9..10, true).expect("mapped");
        }
    }
    let before = guest.read(9);
    pager.take_log();
    let request = LockRequest {
        range: ByteRange::new(P, 2 * P),
        should_return,
        flush,
        prohibit: None,
    };
    let case = format!("{should_return:?} flush {flush} {state:?}");
    assert_eq!(
        guest.lock_request(&object, &request),
        KernReturn::Success,
        "{case}"
    );
    let mut log = Vec::new();
    if let Some(how) = expected.returned {
        let kept = if expected.after == After::Kept {
            "kept"
        } else {
            "dropped"
        };
        log.push(format!("a return 1..2 {how} {kept}"));
        log.push("a sync 1..2 now".into());
    }
    let after = if expected.after == After::Fetched {
        log.push("a request 1..2".into());
        if expected.returned.is_some() { before } else { 0 }
    } else {
        before
    };
    assert_eq!(pager.take_log(), log, "{case}");
    assert_eq!(guest.read(9), after, "{case}");
    let still_dirty = matches!(state, State::Dirty | State::WiredDirty)
        && expected.returned.is_none()
        && expected.after == After::Kept;
    assert_eq!(guest.msync(8..11, SYNC), KernReturn::Success);
    let returned = pager
        .take_log()
        .iter()
        .any(|line| line == "a return 1..2 dirty kept");
    assert_eq!(returned, still_dirty, "{case}");
}

#[test]
fn p5_lock_request_matrix() {
    let mut cells = 0;
    for (should_return, flush, row) in MATRIX {
        let states = [State::Clean, State::Dirty, State::Precious, State::WiredDirty];
        for (state, (returned, after)) in states.into_iter().zip(row) {
            check_cell(should_return, flush, state, Expected { returned, after });
            cells += 1;
        }
    }
    assert_eq!(cells, 32);
}

#[test]
fn p5_restriction_comes_first_and_only_where_the_object_is_mapped() {
    let (pager, object, mut guest) = precious();
    let request = LockRequest {
        range: ByteRange::new(P, 3 * P),
        should_return: ReturnPages::None,
        flush: false,
        prohibit: Some(VmProt::WRITE),
    };
    object.control().lock_request(request).expect("there is room");
    let waiting = object
        .with(|object| object.next_lock_request(&PageRange::new(0, 4).into()))
        .expect("just sent");
    assert_eq!(guest.lock_request(&object, &waiting), KernReturn::Success);
    assert!(pager.take_log().is_empty());
    let writable: Vec<u64> = (0..32)
        .filter(|page| guest.memory.allows(*page, VmProt::WRITE))
        .collect();
    assert_eq!(writable.len(), 30);
    assert!(!writable.contains(&9) && !writable.contains(&10));
    guest
        .protect(8..12, VmProt::READ_WRITE)
        .expect("below the maximum");
}

#[test]
fn p5_a_request_is_carried_out_by_each_task_that_writes_a_part() {
    let pager = TestPager::new();
    let object = Object::new(&pager, 'a', 4);
    // Page by page in turn.
    let mut tasks = [Guest::new(32), Guest::new(32)];
    for page in 0..4 {
        let guest = &mut tasks[page as usize % 2];
        let port = guest.open(&object);
        let part = MapRequest {
            offset: page * P,
            ..map_request(port, 8 + page, 1)
        };
        guest.map_with(&part).expect("nobody else writes it");
        guest.store([8 + page], 1);
    }
    let send = |pages: std::ops::Range<u64>| {
        let request = LockRequest {
            range: ByteRange::new(pages.start * P, pages.end * P),
            should_return: ReturnPages::Dirty,
            flush: false,
            prohibit: None,
        };
        object.control().lock_request(request).expect("there is room");
    };
    let serve = |guest: &mut Guest| {
        let mut served = 0;
        while let Some((object, request)) = guest.task.next_lock_request() {
            assert_eq!(guest.lock_request(&object, &request), KernReturn::Success);
            served += 1;
        }
        served
    };
    let durable = || {
        (0..4)
            .map(|page| pager.durable(object.id(), page)[0])
            .collect::<Vec<_>>()
    };
    let [one, other] = &mut tasks;
    // Of the other one's pages only.
    send(1..2);
    assert_eq!((serve(one), serve(other)), (0, 1));
    assert_eq!(durable(), [0, 1, 0, 0]);
    send(0..4);
    assert_eq!(serve(one), 1);
    assert_eq!(durable(), [1, 1, 1, 0]);
    assert_eq!((serve(one), serve(other)), (0, 1));
    assert_eq!(durable(), [1, 1, 1, 1]);
    // Who has given its part up has nothing to return, and nobody waits for it.
    send(0..4);
    assert_eq!(other.deallocate(8..12), KernReturn::Success);
    assert_eq!((serve(one), serve(other)), (1, 0));
    assert_eq!(serve(one), 0);
}

#[test]
fn p5_a_request_waits_for_the_task_that_writes_the_object() {
    let pager = TestPager::new();
    let object = Object::new(&pager, 'a', 4);
    let (mut writer, mut reader) = (Guest::new(32), Guest::new(32));
    writer.map(&object, 8);
    let port = reader.open(&object);
    let mut window = map_request(port, 8, 4);
    (window.protection, window.max_protection) = (VmProt::READ, VmProt::READ);
    reader.map_with(&window).expect("readable");
    window.address = 16 * P;
    window.copy = true;
    reader.map_with(&window).expect("readable");
    let request = LockRequest {
        range: ByteRange::new(0, P),
        should_return: ReturnPages::Dirty,
        flush: false,
        prohibit: None,
    };
    object.control().lock_request(request).expect("there is room");
    assert_eq!(reader.task.next_lock_request(), None);
    assert_eq!(writer.task.next_lock_request(), Some((object, request)));
    assert_eq!(writer.task.next_lock_request(), None);
}

#[test]
fn p5_requests_of_a_pager_are_bounded_and_inside_the_object() {
    let (_, object, _) = precious();
    let request = |end| LockRequest {
        range: ByteRange::new(0, end),
        should_return: ReturnPages::All,
        flush: true,
        prohibit: None,
    };
    let control = object.control();
    assert_eq!(
        control.lock_request(request(4 * P + 1)),
        Err(KernReturn::InvalidArgument)
    );
    for _ in 0..vmsync_core::limits::LOCK_REQUESTS_MAX {
        assert_eq!(control.lock_request(request(P)), Ok(()));
    }
    assert_eq!(
        control.lock_request(request(P)),
        Err(KernReturn::ResourceShortage)
    );
}

#[test]
fn p2_the_harness_notices_a_lost_page() {
    let (pager, object, guest) = precious();
    drop(guest);
    object.with(|object| object.written_by = PageSet::new());
    let mut again = Guest::new(32);
    again.map(&object, 8);
    assert_eq!(again.read(8), LOST);
    drop(pager);
}
