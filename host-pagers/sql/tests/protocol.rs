//! The pager against the conformance suite, on a real server.

mod common;

use vmsync_core::PageSize;
use vmsync_pager_conformance::{Fixture, run};
use vmsync_pager_sql::{Options, open};

fn conforms(name: &str, options: &Options) {
    let Some(server) = common::server() else { return };
    run(name, || {
        let (url, options) = (common::fresh(&server), options.clone());
        let page_size = options.page_size;
        Fixture::durable(move || open(&url, &options).unwrap() as _).with_page_size(page_size)
    });
}

#[test]
fn conforms_with_defaults() {
    conforms("sql", &Options::default());
}

#[test]
fn conforms_with_large_pages() {
    let options = Options {
        page_size: PageSize::KIB_64,
        ..Options::default()
    };
    conforms("sql, 64 KiB", &options);
}
