//! Each layer, and stacks of them, against the conformance suite.

use std::sync::Arc;

use vmsync_core::{PageSize, pager::Pager};
use vmsync_pager_conformance::{Fixture, run};
use vmsync_pager_file::FileStore;
use vmsync_pager_layers::{Cache, Compress, Counted, Encrypt, Key, Pages};
use vmsync_pager_memory::MemoryPager;

const KIB_4: PageSize = PageSize::KIB_4;
const KIB_16: PageSize = PageSize::KIB_16;
const KIB_64: PageSize = PageSize::KIB_64;

/// Runs the suite over `layers` on a file store with pages of 4 KiB.
fn conforms(name: &str, page_size: PageSize, layers: fn(Arc<dyn Pager>) -> Arc<dyn Pager>) {
    run(name, || {
        let folder = tempfile::tempdir().unwrap();
        let open = move || layers(FileStore::open(folder.path(), &Default::default()).unwrap());
        Fixture::durable(open).with_page_size(page_size)
    });
}

fn key() -> Vec<Key> {
    vec![Key::new([1; 32])]
}

#[test]
fn counted_conforms() {
    conforms("counted", KIB_4, |below| Arc::new(Counted::over(below)));
}

#[test]
fn compress_conforms() {
    conforms("compress", KIB_64, |below| {
        Arc::new(Compress::over(below, Pages::new(KIB_64, KIB_4)))
    });
}

#[test]
fn encrypt_conforms() {
    conforms("encrypt, 4 KiB", KIB_4, |below| {
        Arc::new(Encrypt::over(below, Pages::new(KIB_4, KIB_4), key()))
    });
    conforms("encrypt, 16 KiB", KIB_16, |below| {
        Arc::new(Encrypt::over(below, Pages::new(KIB_16, KIB_4), key()))
    });
}

#[test]
fn stacks_conform() {
    conforms("counted, compress, encrypt", KIB_64, |below| {
        let sealed = Encrypt::over(below, Pages::new(KIB_16, KIB_4), key());
        let small = Compress::over(Arc::new(sealed), Pages::new(KIB_64, KIB_16));
        Arc::new(Counted::over(Arc::new(small)))
    });
    conforms("encrypt, counted, compress", KIB_64, |below| {
        let small = Compress::over(below, Pages::new(KIB_16, KIB_4));
        Arc::new(Encrypt::over(
            Arc::new(Counted::over(Arc::new(small))),
            Pages::new(KIB_64, KIB_16),
            key(),
        ))
    });
}

#[test]
fn cache_conforms() {
    run("cache", || {
        let [remote, local] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        Fixture::durable(move || {
            let [remote, local] =
                [&remote, &local].map(|folder| FileStore::open(folder.path(), &Default::default()).unwrap());
            Arc::new(Cache::over(remote, local, "test"))
        })
    });
    // A copy that is lost with each end.
    conforms("compress, encrypt, cache", KIB_64, |below| {
        let cache = Cache::over(below, Arc::new(MemoryPager::default()), "test");
        let sealed = Encrypt::over(Arc::new(cache), Pages::new(KIB_16, KIB_4), key());
        Arc::new(Compress::over(Arc::new(sealed), Pages::new(KIB_64, KIB_16)))
    });
}
