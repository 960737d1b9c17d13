//! A store in a folder: who may open it, what an image shows, what goes when an object goes, what a commit costs.

mod common;

use std::sync::Arc;

use common::{PAGE, PAGES, client, contents, name};
use vmsync_core::{
    PageSize, PagerErrorKind,
    pager::{InitRequest, Pager, SynchronizeFlags},
};
use vmsync_pager_conformance::Client;
use vmsync_pager_file::{FileStore, Options, disk::memory::MemoryDisk, inspect, verify};

fn small() -> Options {
    Options {
        segment_bytes: 64 << 10,
        checkpoint_bytes: 64 << 10,
        ..Options::default()
    }
}

fn read_only() -> Options {
    Options {
        read_only: true,
        ..small()
    }
}

#[test]
fn a_second_opener_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let store = FileStore::open(folder.path(), &small()).unwrap();
    for options in [small(), read_only()] {
        let error = FileStore::open(folder.path(), &options)
            .err()
            .expect("is refused");
        assert_eq!(error.kind, PagerErrorKind::Busy);
        assert!(error.message.contains(folder.path().to_str().unwrap()), "{error}");
        assert!(error.message.contains("this process"), "{error}");
    }
    assert_eq!(verify(folder.path()).unwrap_err().kind, PagerErrorKind::Busy);
    assert_eq!(inspect(folder.path()).unwrap_err().kind, PagerErrorKind::Busy);
    drop(store);
    drop(FileStore::open(folder.path(), &small()).unwrap());
    let (one, two) = (
        FileStore::open(folder.path(), &read_only()),
        FileStore::open(folder.path(), &read_only()),
    );
    assert!(one.is_ok() && two.is_ok(), "readers share a store");
    assert!(FileStore::open(folder.path(), &small()).is_err());
    assert_eq!(verify(folder.path()).unwrap().problems, []);
}

/// A copy without `LOCK`, as an import makes it.
#[test]
fn a_reader_who_comes_first_is_seen_by_a_writer() {
    let folder = tempfile::tempdir().unwrap();
    drop(FileStore::open(folder.path(), &small()).unwrap());
    std::fs::remove_file(folder.path().join("LOCK")).unwrap();
    let reader = FileStore::open(folder.path(), &read_only()).unwrap();
    let writer = FileStore::open(folder.path(), &small()).err();
    assert_eq!(writer.map(|error| error.kind), Some(PagerErrorKind::Busy));
    drop(reader);
    drop(FileStore::open(folder.path(), &small()).unwrap());
}

/// Looking for a store leaves nothing where there is none.
#[test]
fn a_reader_of_a_folder_without_a_store_leaves_it_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let found = FileStore::open(folder.path(), &read_only()).err();
    assert_eq!(found.map(|error| error.kind), Some(PagerErrorKind::NotFound));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_reader_sees_the_journal_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options {
        background: vmsync_pager_file::Background::Caller,
        ..small()
    };
    let store = FileStore::open(folder.path(), &options).unwrap();
    let object = client(&store, "object", PAGES).unwrap();
    object.commit_full(0, 1);
    store.checkpoint().unwrap();
    object.commit_full(1, 2);
    // As a killed process leaves it: copied while it is open, image and all, but for the last image write.
    let copy = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    let mut image = std::fs::read(copy.path().join("object-1")).unwrap();
    image[PAGE..2 * PAGE].fill(0);
    std::fs::write(copy.path().join("object-1"), &image).unwrap();
    let files = |path: &std::path::Path| {
        let mut files: Vec<_> = std::fs::read_dir(path)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .map(|path| (path.clone(), std::fs::read(path).unwrap()))
            .collect();
        files.sort();
        files
    };
    let before = files(copy.path());
    let reader = FileStore::open(copy.path(), &read_only()).unwrap();
    let found = contents(&reader).unwrap();
    assert_eq!((found["object"][0], found["object"][PAGE]), (1, 2));
    let request = InitRequest {
        page_size: PageSize::KIB_4,
        size_min: 0,
        create: false,
        write: true,
    };
    let refused = Client::open_with(reader.clone(), "object", request).err();
    assert_eq!(refused.map(|error| error.kind), Some(PagerErrorKind::Denied));
    let create = InitRequest {
        create: true,
        write: false,
        ..request
    };
    let refused = Client::open_with(reader.clone(), "other", create).err();
    assert_eq!(refused.map(|error| error.kind), Some(PagerErrorKind::Denied));
    let reading = InitRequest {
        write: false,
        ..request
    };
    let object = Client::open_with(reader.clone(), "object", reading).unwrap();
    assert_eq!(
        reader.image(object.object),
        None,
        "the image is behind the journal"
    );
    assert_eq!(reader.checkpoint().unwrap_err().kind, PagerErrorKind::Denied);
    object.sync(Client::call(), 0, PAGES).unwrap();
    drop((object, reader));
    assert!(files(copy.path()) == before);
    assert_eq!(verify(copy.path()).unwrap().problems, []);
    assert_eq!(inspect(copy.path()).unwrap().journal.calls, 1);
}

#[test]
fn the_image_shows_what_is_settled() {
    let folder = tempfile::tempdir().unwrap();
    let store = FileStore::open(folder.path(), &small()).unwrap();
    let object = client(&store, "object", PAGES).unwrap();
    let image = store.image(object.object).unwrap();
    assert_eq!(image.offset, 0);
    let byte_at = |offset: u64| {
        let mut byte = [0];
        let file = std::fs::File::open(format!("/proc/self/fd/{}", image.descriptor)).unwrap();
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut byte, offset).unwrap();
        byte[0]
    };
    object.commit_full(0, 1);
    store.settle_image(object.object, object.range(0, 1)).unwrap();
    assert_eq!(byte_at(0), 1);
    for round in 2..40 {
        let call = Client::call();
        (0..PAGES).for_each(|page| object.give_full(call, page, round));
        let flags = SynchronizeFlags {
            synchronous: round % 3 == 0,
            more: false,
            nowait: false,
        };
        object.synchronize(call, (0, PAGES), flags).unwrap();
        object.recorder.wait(object.range(0, PAGES)).unwrap();
        store.settle_image(object.object, object.range(1, 2)).unwrap();
        assert_eq!((byte_at(PAGE as u64), byte_at(2 * PAGE as u64)), (round, round));
    }
}

#[test]
fn a_call_that_was_overtaken_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let store = FileStore::open(folder.path(), &small()).unwrap();
    let object = client(&store, "object", PAGES).unwrap();
    object.commit_full(0, 1);
    let (slow, fast) = (Client::call(), Client::call());
    let (mut slow_page, mut fast_page) = (vec![1; PAGE], vec![1; PAGE]);
    (slow_page[9], fast_page[7]) = (2, 3);
    object.give(slow, 0, &slow_page).unwrap();
    object.give_full(slow, 1, 2);
    object.give(fast, 0, &fast_page).unwrap();
    object.sync(fast, 0, 1).unwrap();
    let error = object.sync(slow, 0, PAGES).unwrap_err();
    assert_eq!(error.kind, PagerErrorKind::Busy, "{error}");
    assert_eq!(
        object.read(0, 1),
        fast_page,
        "all of one call, nothing of the other"
    );
    assert_eq!(object.read(1, 1), [0; PAGE]);
    let again = Client::call();
    object.give(again, 0, &slow_page).unwrap();
    object.sync(again, 0, PAGES).unwrap();
    assert_eq!(object.read(0, 1), slow_page);
}

#[test]
fn a_page_that_comes_back_twice_counts_as_it_came_last() {
    let folder = tempfile::tempdir().unwrap();
    let store = FileStore::open(folder.path(), &small()).unwrap();
    let object = client(&store, "object", PAGES).unwrap();
    object.commit_full(1, 1);
    let call = Client::call();
    object.give_full(call, 1, 2);
    object.give_full(call, 2, 2);
    let mut page = vec![1; PAGE];
    page[100] = 3;
    object.give(call, 1, &page).unwrap();
    object.sync(call, 0, PAGES).unwrap();
    assert_eq!(object.read(1, 1), page);
    assert_eq!(object.read(2, 1), [2; PAGE]);
    drop((object, store));
    let store = FileStore::open(folder.path(), &small()).unwrap();
    assert_eq!(client(&store, "object", PAGES).unwrap().read(1, 1), page);
    drop(store);
    assert_eq!(verify(folder.path()).unwrap().problems, []);
}

/// What the first time changed is back as it was the third time, when the second changed something else.
#[test]
fn a_page_that_comes_back_three_times_counts_as_it_came_last() {
    let folder = tempfile::tempdir().unwrap();
    let store = FileStore::open(folder.path(), &small()).unwrap();
    let object = client(&store, "object", PAGES).unwrap();
    let call = Client::call();
    let mut page = vec![0; PAGE];
    for (front, back) in [(1, 0), (1, 1), (0, 1)] {
        (page[0], page[PAGE - 1]) = (front, back);
        object.give(call, 0, &page).unwrap();
    }
    object.sync(call, 0, PAGES).unwrap();
    assert_eq!(object.read(0, 1), page);
}

#[test]
fn a_large_call_spans_more_than_a_segment() {
    let folder = tempfile::tempdir().unwrap();
    let store = FileStore::open(folder.path(), &small()).unwrap();
    let pages = 300;
    let object = client(&store, "large", pages).unwrap();
    for round in 1..4 {
        let call = Client::call();
        object.give(call, 0, &vec![round; PAGE * pages as usize]).unwrap();
        object.sync(call, 0, pages).unwrap();
        store.settle_image(object.object, object.range(0, pages)).unwrap();
        assert!(object.read(0, pages).iter().all(|byte| *byte == round));
    }
    drop((object, store));
    assert_eq!(verify(folder.path()).unwrap().problems, []);
    let used: u64 = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_name().to_str().unwrap().starts_with("journal"))
        .map(|entry| entry.metadata().unwrap().len())
        .sum();
    assert!(used < 8 << 20, "{used} bytes of journal are kept");
    let store = FileStore::open(folder.path(), &small()).unwrap();
    assert!(contents(&store).unwrap()["large"].iter().all(|byte| *byte == 3));
}

#[test]
fn a_removed_object_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let store = FileStore::open(folder.path(), &small()).unwrap();
    let object = client(&store, "object", PAGES).unwrap();
    object.commit_full(0, 1);
    assert_eq!(
        store.remove_object(&name("object")).unwrap_err().kind,
        PagerErrorKind::Busy
    );
    object.close();
    store.remove_object(&name("object")).unwrap();
    assert_eq!(
        store.remove_object(&name("object")).unwrap_err().kind,
        PagerErrorKind::NotFound
    );
    assert!(store.list().is_empty());
    let again = client(&store, "object", PAGES).unwrap();
    again.assert_full(0, 0);
    again.commit_full(1, 2);
    drop((again, store));
    assert!(!folder.path().join("object-1").exists());
    assert_eq!(verify(folder.path()).unwrap().problems, []);
    let store = FileStore::open(folder.path(), &small()).unwrap();
    let found = contents(&store).unwrap();
    assert_eq!((found["object"][0], found["object"][PAGE]), (0, 2));
}

#[test]
fn a_small_store_to_a_page_is_a_small_record() {
    let folder = tempfile::tempdir().unwrap();
    let store = FileStore::open(folder.path(), &Options::default()).unwrap();
    let object = client(&store, "object", PAGES).unwrap();
    object.commit_full(0, 1);
    let before = store.stats();
    let mut page = object.read(0, 1);
    page[800..808].copy_from_slice(&77u64.to_le_bytes());
    let call = Client::call();
    object.give(call, 0, &page).unwrap();
    object.sync(call, 0, 1).unwrap();
    let after = store.stats();
    assert_eq!(
        (after.records - before.records, after.syncs - before.syncs),
        (1, 1)
    );
    let bytes = after.bytes_journaled - before.bytes_journaled;
    assert!(bytes <= 256, "{bytes} bytes for eight");
    println!("{bytes} bytes for eight");
    // What did not change costs nothing.
    let call = Client::call();
    object.give(call, 0, &page).unwrap();
    object.sync(call, 0, 1).unwrap();
    assert_eq!(store.stats().records, after.records);
    assert_eq!(store.stats().pages_returned, after.pages_returned + 1);
}

/// Each guest has an object of its own, as a rule.
#[test]
fn calls_of_many_objects_take_one_sync_each() {
    const OBJECTS: usize = 400;
    let options = Options {
        segment_bytes: 16 << 20,
        ..common::tiny()
    };
    let store = FileStore::open_on(Arc::new(MemoryDisk::new()), &options).unwrap();
    let objects: Vec<_> = (0..OBJECTS)
        .map(|number| client(&store, &format!("object-{number}"), 1).unwrap())
        .collect();
    let before = store.stats();
    for byte in 1..4 {
        objects.iter().for_each(|object| object.commit_full(0, byte));
    }
    let after = store.stats();
    assert_eq!(
        (after.records - before.records, after.syncs - before.syncs),
        (3 * OBJECTS as u64, 3 * OBJECTS as u64)
    );
}

#[test]
fn a_clean_close_leaves_an_empty_journal() {
    let folder = tempfile::tempdir().unwrap();
    let store = FileStore::open(folder.path(), &small()).unwrap();
    let object = client(&store, "object", PAGES).unwrap();
    let call = Client::call();
    object.give_full(call, 2, 9);
    object
        .synchronize(call, (2, 1), SynchronizeFlags::ASYNCHRONOUS)
        .unwrap();
    drop((object, store));
    let summary = inspect(folder.path()).unwrap();
    assert_eq!((summary.journal.records, summary.journal.segments), (0, 1));
    assert_eq!(summary.objects.len(), 1);
    assert_eq!(summary.page_size, PageSize::KIB_4);
    let bytes = |path: &std::path::Path| std::fs::read(path.join("STORE")).unwrap();
    let before = bytes(folder.path());
    let store = FileStore::open(folder.path(), &small()).unwrap();
    assert!(
        contents(&store).unwrap()["object"][2 * PAGE..3 * PAGE]
            .iter()
            .all(|byte| *byte == 9)
    );
    drop(store);
    assert!(
        bytes(folder.path()) == before,
        "opening and closing changes nothing"
    );
}

#[test]
fn queued_calls_are_written_within_their_delay() {
    let folder = tempfile::tempdir().unwrap();
    let store = FileStore::open(folder.path(), &small()).unwrap();
    let object = client(&store, "object", PAGES).unwrap();
    let records = store.stats().records;
    let call = Client::call();
    object.give_full(call, 0, 1);
    object
        .synchronize(call, (0, 1), SynchronizeFlags::ASYNCHRONOUS)
        .unwrap();
    let begun = std::time::Instant::now();
    while store.stats().records == records {
        assert!(begun.elapsed().as_secs() < 20, "nobody writes behind");
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    object.recorder.wait(object.range(0, 1)).unwrap();
    let _: Arc<FileStore> = store;
}
