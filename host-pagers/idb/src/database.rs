//! The database: opening it, reading all of it, and one transaction.
//!
//! ```text
//!   objects   name -> { size, version, address (absent: none) }
//!   pages     [name, page] -> Uint8Array of a page
//! ```
//!
//! Invariant: connections and transactions stay in a table of their thread, since JavaScript's values cannot be sent.

use std::cell::RefCell;

use js_sys::{Array, Function, Object, Promise, Reflect, Uint8Array};
use vmsync_core::{PagerError, PagerErrorKind, pager::ObjectName};
use wasm_bindgen::{JsCast, JsValue, closure::Closure, prelude::wasm_bindgen};
use wasm_bindgen_futures::JsFuture;
use web_sys::{IdbDatabase, IdbFactory, IdbOpenDbRequest, IdbRequest, IdbTransaction};

use crate::mirror::{Mirror, PAGE_SIZE, Page, Stored};

#[wasm_bindgen]
extern "C" {
    /// A database, with the option of `transaction` that `web-sys` counts as unstable.
    type Durable;
    #[wasm_bindgen(method, catch)]
    fn transaction(
        this: &Durable,
        names: &Array,
        mode: &str,
        options: &Object,
    ) -> Result<IdbTransaction, JsValue>;
    /// A transaction, with the `commit` that `web-sys` means to change.
    type Complete;
    #[wasm_bindgen(method, catch)]
    fn commit(this: &Complete) -> Result<(), JsValue>;
}

const VERSION: u32 = 1;
const OBJECTS: &str = "objects";
const PAGES: &str = "pages";

/// What the end of a transaction calls.
type Ended = Box<dyn FnOnce(Result<(), PagerError>)>;

thread_local! {
    static DATABASES: RefCell<Vec<Option<IdbDatabase>>> = const { RefCell::new(Vec::new()) };
}

/// An open database; closed when dropped.
pub(crate) struct Database(usize);

/// What one transaction writes.
#[derive(Default)]
pub(crate) struct Writes {
    pub objects: Vec<(ObjectName, Stored)>,
    pub pages: Vec<(ObjectName, u64, Page)>,
}

impl Writes {
    /// Bytes of its pages.
    pub fn bytes(&self) -> usize {
        self.pages.iter().map(|(_, _, page)| page.len()).sum()
    }
}

/// An error of the browser.
fn failed(what: &str, error: &JsValue) -> PagerError {
    let text = |name: &str| {
        Reflect::get(error, &name.into())
            .ok()
            .and_then(|value| value.as_string())
    };
    let name = text("name").unwrap_or_default();
    let (kind, advice) = match name.as_str() {
        "QuotaExceededError" => (PagerErrorKind::NoSpace, ": free some space for this site"),
        "SecurityError" | "InvalidStateError" => (PagerErrorKind::Denied, ": this page may not store data"),
        _ => (PagerErrorKind::Io, ""),
    };
    let words = text("message").filter(|words| !words.is_empty()).unwrap_or(name);
    PagerError::new(kind, format!("{what}: {words}{advice}"))
}

fn factory() -> Result<IdbFactory, PagerError> {
    let factory = Reflect::get(&js_sys::global(), &"indexedDB".into());
    factory
        .ok()
        .and_then(|factory| factory.dyn_into().ok())
        .ok_or_else(|| PagerError::new(PagerErrorKind::Denied, "this page has no IndexedDB"))
}

/// Waits for a request.
async fn wait(request: &IdbRequest, what: &str) -> Result<JsValue, PagerError> {
    let promise = Promise::new(&mut |resolve, reject| {
        request.set_onsuccess(Some(&resolve));
        request.set_onerror(Some(&reject));
    });
    let done = JsFuture::from(promise).await;
    let error = || {
        request
            .error()
            .ok()
            .flatten()
            .map_or(JsValue::UNDEFINED, JsValue::from)
    };
    done.map_err(|_| failed(what, &error()))?;
    request.result().map_err(|error| failed(what, &error))
}

impl Database {
    /// Opens the database called `name`; makes it where there is none.
    pub async fn open(name: &str) -> Result<Self, PagerError> {
        let what = format!("cannot open the store \"{name}\"");
        let request: IdbOpenDbRequest = factory()?
            .open_with_u32(name, VERSION)
            .map_err(|error| failed(&what, &error))?;
        let source = request.clone();
        let upgrade = Closure::once(move || {
            // What fails here fails the opening.
            if let Ok(database) = source.result().map(JsCast::unchecked_into::<IdbDatabase>) {
                let _ = database.create_object_store(OBJECTS);
                let _ = database.create_object_store(PAGES);
            }
        });
        request.set_onupgradeneeded(Some(upgrade.as_ref().unchecked_ref()));
        let database: IdbDatabase = wait(&request, &what).await?.unchecked_into();
        Ok(DATABASES.with_borrow_mut(|table| {
            table.push(Some(database));
            Self(table.len() - 1)
        }))
    }

    fn connection(&self) -> Result<IdbDatabase, PagerError> {
        DATABASES.with_borrow(|table| {
            let database = table.get(self.0).cloned().flatten();
            database.ok_or_else(|| {
                PagerError::new(PagerErrorKind::Gone, "the database belongs to another worker")
            })
        })
    }

    /// Everything in it.
    pub async fn read(&self) -> Result<Mirror, PagerError> {
        let what = "cannot read the store";
        let database = self.connection()?;
        let names = Array::of2(&OBJECTS.into(), &PAGES.into());
        let transaction = database
            .transaction_with_str_sequence(&names)
            .map_err(|error| failed(what, &error))?;
        let mut all = Vec::new();
        for name in [OBJECTS, PAGES] {
            let store = transaction
                .object_store(name)
                .map_err(|error| failed(what, &error))?;
            let keys = store.get_all_keys().map_err(|error| failed(what, &error))?;
            let values = store.get_all().map_err(|error| failed(what, &error))?;
            all.push((keys, values));
        }
        let mut mirror = Mirror::default();
        for (index, (keys, values)) in all.into_iter().enumerate() {
            let (keys, values) = (
                Array::from(&wait(&keys, what).await?),
                Array::from(&wait(&values, what).await?),
            );
            for (key, value) in keys.iter().zip(values.iter()) {
                let taken = if index == 0 {
                    take_object(&mut mirror, &key, &value)
                } else {
                    take_page(&mut mirror, &key, &value)
                };
                taken.ok_or_else(|| {
                    PagerError::new(PagerErrorKind::Damaged, "the store has an entry that is not ours")
                })?;
            }
        }
        Ok(mirror)
    }

    /// Writes all of `writes` or nothing, and calls `ended` when it is on stable storage, or failed.
    pub fn write(&self, writes: &Writes, ended: Ended) -> Result<(), PagerError> {
        let cannot = |error: JsValue| failed("cannot write the store", &error);
        let names = Array::of2(&OBJECTS.into(), &PAGES.into());
        let options = Object::new();
        Reflect::set(&options, &"durability".into(), &"strict".into()).map_err(cannot)?;
        let database: Durable = self.connection()?.unchecked_into();
        let transaction = database
            .transaction(&names, "readwrite", &options)
            .map_err(cannot)?;
        if let Err(error) = put_all(&transaction, writes) {
            // Nothing of it is to stay; the answer is the error.
            let _ = transaction.abort();
            return Err(cannot(error));
        }
        listen(&transaction, ended);
        // Without it the browser waits whether more requests come.
        let _ = transaction.unchecked_into::<Complete>().commit();
        Ok(())
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let closed = DATABASES.try_with(|table| table.borrow_mut().get_mut(self.0).and_then(Option::take));
        if let Ok(Some(database)) = closed {
            database.close();
        }
    }
}

fn put_all(transaction: &IdbTransaction, writes: &Writes) -> Result<(), JsValue> {
    let store = transaction.object_store(OBJECTS)?;
    for (name, stored) in &writes.objects {
        let entry = Object::new();
        Reflect::set(&entry, &"size".into(), &(stored.size as f64).into())?;
        Reflect::set(&entry, &"version".into(), &(stored.version as f64).into())?;
        if let Some(address) = stored.address {
            Reflect::set(&entry, &"address".into(), &(address as f64).into())?;
        }
        store.put_with_key(&entry, &name.as_str().into())?;
    }
    let store = transaction.object_store(PAGES)?;
    for (name, page, bytes) in &writes.pages {
        let key = Array::of2(&name.as_str().into(), &(*page as f64).into());
        store.put_with_key(&Uint8Array::from(&**bytes), &key)?;
    }
    Ok(())
}

/// Calls `ended` once, with how the transaction ended.
fn listen(transaction: &IdbTransaction, ended: Ended) {
    let source = transaction.clone();
    // One function for both events: one of the two comes, and the function goes with it.
    let finish = Closure::once_into_js(move |event: JsValue| {
        let kind = Reflect::get(&event, &"type".into()).ok();
        ended(if kind.is_some_and(|kind| kind == "complete") {
            Ok(())
        } else {
            let error = source.error().map_or(JsValue::UNDEFINED, JsValue::from);
            Err(failed("the store did not take the changes", &error))
        });
    });
    let finish = Some(finish.unchecked_ref::<Function>());
    transaction.set_oncomplete(finish);
    transaction.set_onabort(finish);
}

/// A number as [`put_all`] writes it: whole, and one that JavaScript can tell from the next.
fn whole(value: &JsValue) -> Option<u64> {
    let number = value.as_f64()?;
    let exact = number.fract() == 0.0 && (0.0..=js_sys::Number::MAX_SAFE_INTEGER).contains(&number);
    exact.then_some(number as u64)
}

fn take_object(mirror: &mut Mirror, key: &JsValue, value: &JsValue) -> Option<()> {
    let field = |name: &str| Reflect::get(value, &name.into()).ok();
    let name = ObjectName::new(&key.as_string()?).ok()?;
    let stored = mirror.objects.entry(name).or_default();
    stored.size = whole(&field("size")?)?;
    stored.version = whole(&field("version")?)?;
    let address = field("address")?;
    if !address.is_undefined() {
        stored.address = Some(whole(&address)?);
    }
    PAGE_SIZE.is_aligned(stored.size).then_some(())
}

fn take_page(mirror: &mut Mirror, key: &JsValue, value: &JsValue) -> Option<()> {
    let key = Array::from(key);
    let name = ObjectName::new(&key.get(0).as_string()?).ok()?;
    let page = whole(&key.get(1))?;
    let bytes: Page = value.dyn_ref::<Uint8Array>()?.to_vec().into();
    let stored = mirror.objects.get_mut(&name)?;
    let fits = bytes.len() as u64 == PAGE_SIZE.bytes() && page < PAGE_SIZE.page_of(stored.size);
    stored.pages.insert(page, bytes);
    fits.then_some(())
}
