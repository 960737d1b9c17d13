//! What each layer is for.

use std::sync::Arc;

use vmsync_core::{
    ByteRange, PageSize, PagerError, PagerErrorKind,
    abi::VmProt,
    pager::{InitRequest, LockRequest, ObjectName, Pager, ReturnPages},
};
use vmsync_pager_conformance::{Client, ScriptedPager, random::Random};
use vmsync_pager_layers::{Compress, Counted, Encrypt, Key, Pages};
use vmsync_pager_memory::MemoryPager;

const PAGE: usize = 16 << 10;
const PAGES: Pages = Pages::new(PageSize::KIB_16, PageSize::KIB_4);

fn key(byte: u8) -> Key {
    Key::new([byte; 32])
}

fn open(pager: Arc<dyn Pager>, name: &str) -> Result<Client, PagerError> {
    let request = InitRequest {
        page_size: PageSize::KIB_16,
        size_min: 4 * PAGE as u64,
        create: true,
        write: true,
    };
    Client::open_with(pager, name, request)
}

fn sealed(below: &Arc<MemoryPager>, keys: Vec<Key>) -> Arc<dyn Pager> {
    Arc::new(Encrypt::over(below.clone(), PAGES, keys))
}

fn read(client: &Client, page: u64) -> Result<(), PagerError> {
    let mut bytes = vec![0; PAGE];
    let request = client
        .pager()
        .data_request(client.object, page * PAGE as u64, VmProt::READ, &mut bytes);
    request.map(drop)
}

#[test]
fn sealed_pages_show_nothing_and_are_bound_to_their_place() {
    let below = Arc::new(MemoryPager::default());
    let name = ObjectName::new("secret").unwrap();
    let client = open(sealed(&below, vec![key(1)]), "secret").unwrap();
    client.commit_full(0, 65);
    client.commit_full(1, 65);
    let stored = below.contents(&name).unwrap();
    assert!(
        !stored.windows(8).any(|window| window == [65; 8]),
        "the bytes below are sealed"
    );
    let slot = stored.len() / 4;
    assert!(
        stored[..slot] != stored[slot..2 * slot],
        "equal pages look different"
    );
    let mut random = Random::from_environment("sealed pages");
    for _ in 0..50 {
        let (at, bit) = (random.below((PAGE + 52) as u64), random.below(8) as u8);
        let good = stored[at as usize];
        below.overwrite(&name, at, &[good ^ (1 << bit)]);
        let error = read(&client, 0).unwrap_err();
        // A changed id of the key looks like another key.
        assert!(
            matches!(error.kind, PagerErrorKind::Damaged | PagerErrorKind::Denied),
            "{error}"
        );
        below.overwrite(&name, at, &[good]);
    }
    client.assert_full(0, 65);
    // The second page's slot in the place of the first.
    below.overwrite(&name, 0, &stored[slot..2 * slot]);
    assert_eq!(read(&client, 0).unwrap_err().kind, PagerErrorKind::Damaged);
    client.close();
}

#[test]
fn a_wrong_key_is_told_when_the_object_is_opened_and_keys_rotate() {
    let below = Arc::new(MemoryPager::default());
    let client = open(sealed(&below, vec![key(1)]), "secret").unwrap();
    client.commit_full(0, 7);
    client.commit_full(1, 8);
    client.close();
    let error = open(sealed(&below, vec![key(2)]), "secret").err().unwrap();
    assert_eq!(error.kind, PagerErrorKind::Denied);
    assert!(error.message.contains("another key"), "{error}");
    // The new key first, the old one behind it; then each page is written again.
    let client = open(sealed(&below, vec![key(2), key(1)]), "secret").unwrap();
    for (page, byte) in [(0, 7), (1, 8)] {
        client.assert_full(page, byte);
        client.commit_full(page, byte);
    }
    client.close();
    let client = open(sealed(&below, vec![key(2)]), "secret").unwrap();
    client.assert_full(0, 7);
    client.assert_full(1, 8);
    client.close();
    // Without a first page, the others tell.
    let client = open(sealed(&below, vec![key(1)]), "sparse").unwrap();
    client.commit_full(1, 7);
    client.close();
    let client = open(sealed(&below, vec![key(2)]), "sparse").unwrap();
    assert_eq!(read(&client, 1).unwrap_err().kind, PagerErrorKind::Denied);
    client.close();
}

#[test]
fn compressed_pages_leave_pages_below_empty() {
    let below = Arc::new(MemoryPager::default());
    let client = open(Arc::new(Compress::over(below.clone(), PAGES)), "text").unwrap();
    let text: Vec<u8> = b"a line of text\n".iter().copied().cycle().take(PAGE).collect();
    let call = Client::call();
    client.give(call, 1, &text).unwrap();
    client.sync(call, 0, 4).unwrap();
    assert!(client.read(1, 1) == text);
    let stored = below.contents(&ObjectName::new("text").unwrap()).unwrap();
    let used = stored
        .chunks(4096)
        .filter(|page| page.iter().any(|byte| *byte != 0))
        .count();
    assert_eq!(used, 1, "one page below instead of four");
    // A page that cannot be made smaller is kept as it is.
    let mut bytes = vec![0; PAGE];
    Random::from_environment("random page").fill(&mut bytes);
    let call = Client::call();
    client.give(call, 2, &bytes).unwrap();
    client.sync(call, 0, 4).unwrap();
    assert!(client.read(2, 1) == bytes);
    client.close();
}

#[test]
fn what_the_pager_below_says_of_a_part_of_a_page_holds_for_the_page() {
    let below = Arc::new(ScriptedPager::new(Arc::new(MemoryPager::default())));
    let client = open(Arc::new(Compress::over(below.clone(), PAGES)), "object").unwrap();
    let control = below.control(client.object).unwrap();
    let slot = below.attributes(client.object).unwrap().size / 4;
    for (range, pages) in [
        (ByteRange::new(0, 4096), client.range(0, 1)),
        (ByteRange::new(slot - 4096, slot + 4096), client.range(0, 2)),
        (ByteRange::new(slot, 4 * slot), client.range(1, 3)),
    ] {
        control.write_behind_failed(range, PagerError::new(PagerErrorKind::Io, "scripted"));
        let request = LockRequest {
            range,
            should_return: ReturnPages::Dirty,
            flush: false,
            prohibit: None,
        };
        control.lock_request(request).unwrap();
        let told = client.recorder.take_write_behind_failures();
        assert_eq!(told.iter().map(|(range, _)| *range).collect::<Vec<_>>(), [pages]);
        let asked = client.recorder.take_lock_requests();
        assert_eq!(asked.iter().map(|asked| asked.range).collect::<Vec<_>>(), [pages]);
    }
    client.close();
}

#[test]
fn what_passes_is_counted() {
    let counted = Arc::new(Counted::over(Arc::new(MemoryPager::default())));
    let client = open(counted.clone(), "object").unwrap();
    client.commit_full(0, 1);
    client.assert_full(0, 1);
    client.pager().abort(Client::call());
    let mut odd = [0; 7];
    assert!(
        counted
            .data_request(client.object, 1, VmProt::READ, &mut odd)
            .is_err()
    );
    let counts = counted.counts();
    assert_eq!((counts.inits, counts.returns, counts.synchronizes), (1, 1, 1));
    assert_eq!((counts.requests, counts.aborts, counts.errors), (2, 1, 1));
    assert_eq!(counts.bytes_returned, PAGE as u64);
    client.close();
}
