//! Calls that fail after somebody else may have read what they returned: an engine that refuses.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};
use std::time::Duration;

use vmsync_core::{
    PageSize, PagerError, PagerErrorKind,
    pager::{InitRequest, SynchronizeFlags},
};
use vmsync_pager_conformance::Client;
use vmsync_pager_group::{Batch, Contents, Engine, Options, Place, Result, Store};

/// Pages of zeroes, and no room.
#[derive(Default)]
struct Full(AtomicBool);

impl Engine for Full {
    fn page_size(&self) -> PageSize {
        PageSize::KIB_4
    }

    fn name(&self) -> &str {
        "a full one"
    }

    fn load(&self) -> Result<Contents> {
        Ok(Contents::default())
    }

    fn read(&self, _: Place, buffer: &mut [u8]) -> Result<bool> {
        buffer.fill(0);
        Ok(true)
    }

    fn commit(&self, _: &Batch) -> Result<()> {
        if self.0.load(Ordering::Relaxed) {
            return Err(PagerError::new(PagerErrorKind::NoSpace, "it is full"));
        }
        Ok(())
    }
}

fn open(store: &Arc<Store<Full>>, name: &str, write: bool) -> Client {
    let request = InitRequest {
        page_size: PageSize::KIB_4,
        size_min: if write { 2 * 4096 } else { 0 },
        create: write,
        write,
    };
    Client::open_with(store.clone(), name, request).unwrap()
}

#[test]
fn who_may_have_read_a_call_that_fails_is_told() {
    for synchronous in [true, false] {
        let options = Options {
            read_only: false,
            write_behind_delay: Duration::from_secs(30),
            group_bytes_max: 1 << 20,
        };
        let store = Store::start(Full::default(), options).unwrap();
        let (writer, other) = (open(&store, "object", true), open(&store, "other", true));
        let call = Client::call();
        writer.give_full(call, 1, 1);
        store.engine().0.store(true, Ordering::Relaxed);
        let reader;
        if synchronous {
            reader = open(&store, "object", false);
            assert!(writer.sync(call, 1, 1).is_err());
        } else {
            let flags = SynchronizeFlags {
                synchronous,
                more: false,
                nowait: false,
            };
            writer.synchronize(call, (1, 1), flags).unwrap();
            writer.recorder.wait(writer.range(1, 1)).unwrap();
            // Whoever comes next reads what is queued.
            writer.close();
            reader = open(&store, "object", false);
            reader.assert_full(1, 1);
            let _ = store.flush();
        }
        reader.assert_full(1, 0);
        let told = reader.recorder.take_write_behind_failures();
        let told: Vec<_> = told
            .into_iter()
            .map(|(range, error)| (range, error.kind))
            .collect();
        assert_eq!(told, [(reader.range(1, 1), PagerErrorKind::NoSpace)]);
        assert!(other.recorder.take_write_behind_failures().is_empty());
    }
}
