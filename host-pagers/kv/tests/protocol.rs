//! The store against the conformance suite.

use vmsync_core::PageSize;
use vmsync_pager_conformance::{Fixture, run};
use vmsync_pager_kv::{Check, Options, open};

fn conforms(name: &str, options: &Options) {
    run(name, || {
        let (folder, options) = (tempfile::tempdir().unwrap(), options.clone());
        let page_size = options.page_size;
        let open = move || open(&folder.path().join("store"), &options).unwrap() as _;
        Fixture::durable(open).with_page_size(page_size)
    });
}

#[test]
fn conforms_with_defaults() {
    conforms("kv", &Options::default());
}

#[test]
fn conforms_with_large_pages_and_no_check() {
    let options = Options {
        page_size: PageSize::KIB_64,
        check: Check::AfterCrash,
        ..Options::default()
    };
    conforms("kv, 64 KiB", &options);
}
