//! The pager against the conformance suite: in memory, in a folder, and on a real server.

mod common;

use vmsync_core::PageSize;
use vmsync_pager_conformance::{Fixture, run};
use vmsync_pager_object::{Location, Options, open};

fn conforms(name: &str, options: &Options, location: impl Fn() -> Location) {
    run(name, || {
        let (location, options) = (location(), options.clone());
        let page_size = options.page_size;
        Fixture::durable(move || open(location.clone(), &options).unwrap() as _).with_page_size(page_size)
    });
}

#[test]
fn conforms_in_memory() {
    conforms("object, memory", &Options::default(), common::in_memory);
}

#[test]
fn conforms_with_large_pages() {
    let options = Options {
        page_size: PageSize::KIB_64,
        ..Options::default()
    };
    conforms("object, 64 KiB", &options, common::in_memory);
}

#[test]
fn conforms_in_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let number = std::cell::Cell::new(0);
    conforms("object, folder", &Options::default(), || {
        number.set(number.get() + 1);
        Location::new(&format!("file://{}/{}", folder.path().display(), number.get())).unwrap()
    });
}

#[test]
fn conforms_on_a_server() {
    let Some(server) = common::server() else { return };
    let bucket = common::bucket(&server, common::address(&server));
    conforms("object, S3", &Options::default(), || {
        common::location(&bucket, &common::prefix())
    });
}
