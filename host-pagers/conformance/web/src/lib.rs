//! The conformance suite in a browser's worker: the file store on the origin private file system and the pager in IndexedDB
//! pass it there.
//!
//! Sits beside `vmsync-pager-conformance`; `runtime/web/tests` runs it in Chromium.
//!
//! Invariant: a check that fails panics, which ends the call with an exception; its name was logged last.
#![forbid(unsafe_code)]

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
};

use vmsync_core::pager::Pager;
use vmsync_pager_conformance::{Fixture, random, run_telling, set_pause};
use vmsync_pager_file::{Background, FileStore, Options, disk::Disk};
use vmsync_pager_idb::IdbPager;
use vmsync_pager_opfs::OpfsDisk;
use wasm_bindgen::{JsValue, prelude::wasm_bindgen};

#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(js_namespace = console)]
    fn log(message: &str);
    /// Lets the event loop run for a turn.
    #[wasm_bindgen(js_name = vmsyncPause)]
    fn pause();
}

/// Runs the suite on a pool in the folder `folder`, with the random checks drawn from `seed`. Panics go to the log.
///
/// # Errors
/// When the pool cannot be opened.
#[wasm_bindgen(js_name = checkOpfs)]
pub async fn check_opfs(folder: String, seed: u32) -> Result<(), JsValue> {
    std::panic::set_hook(Box::new(|panic| log(&format!("{panic}"))));
    random::set_seed(u64::from(seed) + 1);
    let pool = OpfsDisk::open(&folder).await.map_err(|error| error.message)?;
    pool.reserve(64).await.map_err(|error| error.message)?;
    let pool = Arc::new(pool);
    run_telling(
        || {
            empty(&pool);
            let pool = pool.clone();
            Fixture::durable(move || open(&pool))
        },
        |check| log(&format!("opfs: {check}")),
    );
    Ok(())
}

/// Runs the suite on databases whose names begin with `prefix`. To be called through `WebAssembly.promising`: the suite
/// waits, and `pause` suspends it.
#[wasm_bindgen(js_name = checkIdb)]
pub fn check_idb(seed: u32) {
    std::panic::set_hook(Box::new(|panic| log(&format!("{panic}"))));
    random::set_seed(u64::from(seed) + 1);
    set_pause(pause);
    let number = Cell::new(0);
    run_telling(
        || {
            number.set(number.get() + 1);
            let name = format!("conformance-{}", number.get());
            Fixture::durable(move || open_idb(&name))
        },
        |check| log(&format!("idb: {check}")),
    );
}

/// Opens a database, and waits for it.
fn open_idb(name: &str) -> Arc<dyn Pager> {
    let opened = Rc::new(RefCell::new(None));
    let (name, place) = (name.to_string(), opened.clone());
    wasm_bindgen_futures::spawn_local(async move {
        let pager = IdbPager::open(&name).await.expect("the database opens");
        *place.borrow_mut() = Some(Arc::new(pager));
    });
    loop {
        if let Some(pager) = opened.borrow_mut().take() {
            return pager;
        }
        pause();
    }
}

/// A store of its own for the next check.
fn empty(pool: &OpfsDisk) {
    for name in pool.list().expect("names are known") {
        pool.remove(&name).expect("a name can be taken away");
    }
    pool.sync_names().expect("names are synced");
}

fn open(pool: &Arc<OpfsDisk>) -> Arc<dyn Pager> {
    let options = Options {
        segment_bytes: 1 << 18,
        background: Background::Caller,
        ..Options::default()
    };
    FileStore::open_on(pool.clone(), &options).expect("the store opens")
}
