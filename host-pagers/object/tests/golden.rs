//! A store that an earlier build has written is read by this one. `BLESS=1` writes it anew.

mod common;

use std::{fs, path::Path};

use common::{client, request};
use vmsync_core::{
    abi::VmProt,
    pager::{InitRequest, Pager},
};
use vmsync_pager_conformance::Client;
use vmsync_pager_object::{Location, Options, open};

const PAGE: usize = 4096;

/// A page that no other is like.
fn page(number: u64) -> Vec<u8> {
    (0..PAGE as u64)
        .map(|at| (at.wrapping_mul(number * 2 + 7) >> 3) as u8)
        .collect()
}

fn location(folder: &Path) -> Location {
    Location::new(&format!("file://{}", folder.display())).unwrap()
}

fn write(folder: &Path) {
    let storage = open(location(folder), &Options::default()).unwrap();
    let (left, right) = (client(&storage, "left", 40), client(&storage, "right", 2));
    storage.map(right.object, 0x1_0000, VmProt::READ);
    // Enough for a segment, with a page of zeroes in it.
    let call = Client::call();
    for number in 0..20 {
        let bytes = if number == 5 { vec![0; PAGE] } else { page(number) };
        left.give(call, number, &bytes).unwrap();
    }
    left.sync(call, 0, 40).unwrap();
    // A change of a stored page, and one of zeroes.
    let mut changed = page(3);
    changed[100..108].copy_from_slice(b"changed!");
    let call = Client::call();
    left.give(call, 3, &changed).unwrap();
    left.sync(call, 0, 40).unwrap();
    right.commit_full(1, 9);
    left.close();
    right.close();
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn a_store_of_format_1_is_read() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/format-1");
    if std::env::var_os("BLESS").is_some() {
        let _ = fs::remove_dir_all(&golden);
        write(&golden);
    }
    let folder = tempfile::tempdir().unwrap();
    copy(&golden, folder.path());
    let readers = Options {
        read_only: true,
        ..Options::default()
    };
    for options in [readers, Options::default()] {
        let storage = open(location(folder.path()), &options).unwrap();
        let request = InitRequest {
            create: false,
            write: !options.read_only,
            ..request(0)
        };
        let left = Client::open_with(storage.clone(), "left", request).unwrap();
        let right = Client::open_with(storage, "right", request).unwrap();
        assert_eq!((left.opened.size, left.opened.version), (40 * PAGE as u64, 2));
        assert_eq!((right.opened.version, right.opened.address), (3, Some(0x1_0000)));
        for number in (0..20).filter(|number| ![3, 5].contains(number)) {
            assert!(left.read(number, 1) == page(number), "page {number}");
        }
        let mut changed = page(3);
        changed[100..108].copy_from_slice(b"changed!");
        assert!(left.read(3, 1) == changed);
        left.assert_full(5, 0);
        left.assert_full(30, 0);
        right.assert_full(1, 9);
        if !options.read_only {
            left.commit_full(3, 4);
            left.assert_full(3, 4);
        }
        left.close();
        right.close();
    }
}
