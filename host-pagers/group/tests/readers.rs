//! A store that is only read, while a writer elsewhere goes on: an engine whose contents change.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use vmsync_core::{
    PageSize, PagerErrorKind,
    abi::VmProt,
    pager::{InitRequest, ObjectName},
};
use vmsync_pager_conformance::Client;
use vmsync_pager_group::{Batch, Contents, Engine, Entry, Options, Place, Result, Store};

/// Objects full of their number.
#[derive(Default)]
struct Elsewhere(Mutex<Contents>);

impl Elsewhere {
    fn put(&self, name: &str) {
        let mut contents = self.0.lock().unwrap();
        contents.object_next += 1;
        let entry = Entry {
            id: contents.object_next,
            size: 4096,
            version: 1,
            address: None,
        };
        contents.catalog.insert(ObjectName::new(name).unwrap(), entry);
    }

    fn remove(&self, name: &str) {
        let name = ObjectName::new(name).unwrap();
        self.0.lock().unwrap().catalog.remove(&name);
    }
}

impl Engine for Elsewhere {
    fn page_size(&self) -> PageSize {
        PageSize::KIB_4
    }

    fn name(&self) -> &str {
        "one elsewhere"
    }

    fn load(&self) -> Result<Contents> {
        Ok(self.0.lock().unwrap().clone())
    }

    fn read(&self, (id, _): Place, buffer: &mut [u8]) -> Result<bool> {
        buffer.fill(id as u8);
        Ok(true)
    }

    fn commit(&self, _: &Batch) -> Result<()> {
        unreachable!("it is only read")
    }
}

fn open(store: &Arc<Store<Elsewhere>>, name: &str) -> Client {
    let request = InitRequest {
        page_size: PageSize::KIB_4,
        size_min: 0,
        create: false,
        write: false,
    };
    Client::open_with(store.clone(), name, request).unwrap()
}

#[test]
fn an_object_that_is_removed_takes_no_other_one_with_it() {
    let options = Options {
        read_only: true,
        write_behind_delay: Duration::ZERO,
        group_bytes_max: 0,
    };
    let store = Store::start(Elsewhere::default(), options).unwrap();
    for name in ["first", "second", "third"] {
        store.engine().put(name);
    }
    let (removed, stays) = (open(&store, "first"), open(&store, "second"));
    store.engine().remove("first");
    let opened_later = open(&store, "third");
    let pager = removed.pager();
    let answer = pager.data_request(removed.object, 0, VmProt::READ, &mut [0; 4096]);
    assert_eq!(answer.unwrap_err().kind, PagerErrorKind::Gone);
    stays.assert_full(0, 2);
    opened_later.assert_full(0, 3);
    assert_eq!(stays.recorder.destroyed(), None);
    open(&store, "third").close();
    removed.close();
}
