//! The store behind a cache on this machine's disk: what the cache spares, and what it is not believed.

mod common;

use std::{path::Path, sync::Arc};

use common::{address, bucket, client, location, prefix, request, server, store};
use vmsync_core::{PagerErrorKind, abi::VmProt};
use vmsync_pager_conformance::Client;
use vmsync_pager_file::FileStore;
use vmsync_pager_layers::Cache;
use vmsync_pager_object::{Location, ObjectStorage};

const PAGES: u64 = 20;

/// The object of `storage`, with copies of its pages in `folder`.
fn through_cache(storage: &Arc<ObjectStorage>, folder: &Path) -> Client {
    let local = FileStore::open(folder, &Default::default()).unwrap();
    let cache = Cache::over(storage.clone(), local, "the store");
    Client::open_with(Arc::new(cache), "object", request(PAGES)).unwrap()
}

/// A store on the server; `None`, loudly, where there is none.
fn place() -> Option<Location> {
    let server = server()?;
    Some(location(&bucket(&server, address(&server)), &prefix()))
}

#[test]
fn a_copy_spares_the_requests_of_reading() {
    let Some(place) = place() else { return };
    let folder = tempfile::tempdir().unwrap();
    let storage = store(&place);
    let one = through_cache(&storage, folder.path());
    one.pager().map(one.object, 0x1_0000, VmProt::READ);
    // Enough for a segment: a manifest comes along with opening.
    let pages: Vec<u8> = (0..PAGES * 4096).map(|at| ((at * at) >> 8) as u8).collect();
    let call = Client::call();
    one.give(call, 0, &pages).unwrap();
    one.sync(call, 0, PAGES).unwrap();
    one.close();
    drop(storage);
    let storage = store(&place);
    let one = through_cache(&storage, folder.path());
    assert_eq!(one.opened.address, Some(0x1_0000));
    let before = storage.engine().requests();
    assert!(one.read(0, PAGES) == pages);
    assert_eq!(storage.engine().requests(), before);
    one.commit_full(0, 2);
    one.close();
    drop(storage);
    client(&store(&place), "object", PAGES).assert_full(0, 2);
}

#[test]
fn a_copy_that_another_writer_has_outrun_is_not_believed() {
    let Some(place) = place() else { return };
    let folder = tempfile::tempdir().unwrap();
    let first = store(&place);
    let stale = through_cache(&first, folder.path());
    stale.commit_full(0, 1);
    stale.commit_full(1, 1);
    let second = store(&place);
    let owner = client(&second, "object", PAGES);
    // Both make a call with the same number: the stale one's fails.
    owner.commit_full(1, 2);
    let error = stale.try_commit_full(1, 3).unwrap_err();
    assert_eq!(error.kind, PagerErrorKind::Gone);
    stale.close();
    drop(first);
    owner.close();
    drop(second);
    let storage = store(&place);
    let one = through_cache(&storage, folder.path());
    one.assert_full(0, 1);
    one.assert_full(1, 2);
    one.close();
}
