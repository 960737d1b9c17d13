//! What the store does while whoever it answers does something with it.

use std::{
    mem,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::Duration,
};

use vmsync_core::{
    ByteRange, KernReturn, PageSize, PagerError, PagerErrorKind,
    pager::{
        Attributes, CallId, InitRequest, LockRequest, MemoryObjectControl, ObjectId, ObjectName, Pager,
        ReturnFlags, SynchronizeFlags,
    },
};
use vmsync_pager_group::{Batch, Contents, Engine, Options, Pages, Place, Result, Store};

const WAIT: Duration = Duration::from_secs(30);
const PAGE: u64 = 4096;

/// Pages in memory, that others see too; full when it is told so.
#[derive(Clone, Default)]
struct Memory {
    pages: Arc<Mutex<Pages>>,
    full: Arc<AtomicBool>,
}

impl Engine for Memory {
    fn page_size(&self) -> PageSize {
        PageSize::KIB_4
    }

    fn name(&self) -> &str {
        "one in memory"
    }

    fn load(&self) -> Result<Contents> {
        Ok(Contents::default())
    }

    fn read(&self, _: Place, _: &mut [u8]) -> Result<bool> {
        Ok(false)
    }

    fn commit(&self, batch: &Batch) -> Result<()> {
        if self.full.load(Ordering::Relaxed) {
            return Err(PagerError::new(PagerErrorKind::NoSpace, "it is full"));
        }
        self.pages.lock().unwrap().extend(batch.pages.clone());
        Ok(())
    }
}

/// Does what it was given when it is answered first, and keeps what it is told.
#[derive(Default)]
struct Control {
    within: Mutex<Option<Box<dyn FnOnce() + Send>>>,
    answers: Mutex<Vec<Result<()>>>,
    lost: Mutex<Vec<ByteRange>>,
}

impl MemoryObjectControl for Control {
    fn synchronize_completed(&self, _: ByteRange, result: Result<()>) -> std::result::Result<(), KernReturn> {
        let within = mem::take(&mut *self.within.lock().unwrap());
        if let Some(within) = within {
            within();
        }
        self.answers.lock().unwrap().push(result);
        Ok(())
    }

    fn write_behind_failed(&self, range: ByteRange, _: PagerError) {
        self.lost.lock().unwrap().push(range);
    }

    fn lock_request(&self, _: LockRequest) -> std::result::Result<(), KernReturn> {
        Ok(())
    }

    fn change_attributes(&self, _: Attributes) {}

    fn destroy(&self, _: PagerError) {}
}

/// A store whose thread commits asynchronous calls after half a minute.
fn start(engine: &Memory) -> Arc<Store<Memory>> {
    let options = Options {
        read_only: false,
        write_behind_delay: WAIT,
        group_bytes_max: 1 << 20,
    };
    Store::start(engine.clone(), options).unwrap()
}

/// Object `id` of one page.
fn open(store: &Store<Memory>, id: u64) -> Arc<Control> {
    let control = Arc::new(Control::default());
    let request = InitRequest {
        page_size: PageSize::KIB_4,
        size_min: PAGE,
        create: true,
        write: true,
    };
    let name = ObjectName::new(&format!("object-{id}")).unwrap();
    store.init(ObjectId(id), &name, request, control.clone()).unwrap();
    control
}

/// One call that returns the page of each object and synchronizes it.
fn call(store: &Store<Memory>, number: u64, objects: &[u64], synchronous: bool) {
    let flags = ReturnFlags {
        dirty: true,
        kernel_copy: true,
    };
    for id in objects {
        let page = [number as u8; PAGE as usize];
        store
            .data_return(CallId(number), ObjectId(*id), 0, &page, flags)
            .unwrap();
    }
    for (index, id) in objects.iter().enumerate() {
        let flags = SynchronizeFlags {
            synchronous,
            more: index + 1 < objects.len(),
            // The store's thread commits it.
            nowait: synchronous,
        };
        let range = ByteRange::new(0, PAGE);
        store
            .synchronize(CallId(number), ObjectId(*id), range, flags)
            .unwrap();
    }
}

/// Row E3: were it told later, the sync of a task that has nothing else to sync could succeed before.
#[test]
fn a_loss_is_told_before_the_call_was_told_that_it_is_queued() {
    let engine = Memory::default();
    let store = start(&engine);
    let control = open(&store, 1);
    let (own_store, own_control) = (store.clone(), control.clone());
    engine.full.store(true, Ordering::Relaxed);
    *control.within.lock().unwrap() = Some(Box::new(move || {
        own_store.flush().unwrap_err();
        assert_eq!(*own_control.lost.lock().unwrap(), [ByteRange::new(0, PAGE)]);
    }));
    call(&store, 1, &[1], false);
    assert_eq!(*control.answers.lock().unwrap(), [Ok(())]);
    assert_eq!(control.lost.lock().unwrap().len(), 1, "once");
}

#[test]
fn a_store_that_is_let_go_of_on_its_own_thread_answers_and_writes_the_rest() {
    let engine = Memory::default();
    let store = start(&engine);
    let [first, second, queued] = [1, 2, 3].map(|id| open(&store, id));
    let (answered, answers) = mpsc::channel();
    let (let_go, lets_go) = mpsc::channel::<()>();
    let last = store.clone();
    *first.within.lock().unwrap() = Some(Box::new(move || {
        answered.send(()).unwrap();
        lets_go.recv_timeout(WAIT).unwrap();
        drop(last);
    }));
    let (also_answered, also_answers) = mpsc::channel();
    *second.within.lock().unwrap() = Some(Box::new(move || also_answered.send(()).unwrap()));
    call(&store, 1, &[1, 2], true);
    answers.recv_timeout(WAIT).unwrap();
    call(&store, 2, &[3], false);
    assert_eq!(*queued.answers.lock().unwrap(), [Ok(())]);
    drop(store);
    let_go.send(()).unwrap();
    also_answers
        .recv_timeout(WAIT)
        .expect("the other object has its answer");
    // The thread holds the last engine but this one, until it ends.
    let mut wait = WAIT;
    while Arc::strong_count(&engine.pages) > 1 && !wait.is_zero() {
        std::thread::sleep(Duration::from_millis(1));
        wait = wait.saturating_sub(Duration::from_millis(1));
    }
    let pages = engine.pages.lock().unwrap();
    let found: Vec<u8> = pages.values().map(|bytes| bytes[0]).collect();
    assert_eq!(found, [1, 1, 2]);
}
