//! How the simulator opens a store, and reads all of it.

use std::sync::Arc;

use vmsync_core::{
    PageSize, PagerError,
    abi::VmProt,
    pager::{InitRequest, ObjectId, Pager},
};
use vmsync_pager_file::{Background, FileStore, Options};

use crate::{
    history::{Contents, Entry, Object},
    task::Ear,
};

/// The smallest segments, so that a short life meets roll-overs and checkpoints.
pub fn options(page_size: PageSize) -> Options {
    Options {
        page_size,
        segment_bytes: 16 << 10,
        checkpoint_bytes: 16 << 10,
        background: Background::Caller,
        ..Options::default()
    }
}

/// Reads every object of `store`, through handles with numbers from `first` on.
///
/// # Errors
/// The store's.
pub fn contents(store: &FileStore, first: u64) -> Result<Contents, PagerError> {
    let mut found = Contents::new();
    for ((name, attributes), number) in store.list().into_iter().zip(first..) {
        let object = ObjectId(number);
        let request = InitRequest {
            page_size: store.page_size(),
            size_min: 0,
            create: false,
            write: false,
        };
        store.init(object, &name, request, Arc::new(Ear::default()))?;
        let mut bytes = vec![0; usize::try_from(attributes.size).expect("a small object")];
        let answer = store.data_request(object, 0, VmProt::READ, &mut bytes);
        store.terminate(object);
        answer?;
        let entry = Entry {
            address: Some(attributes.address),
            version: Some(attributes.version),
        };
        found.insert(name.as_str().into(), Object { bytes, entry });
    }
    Ok(found)
}
