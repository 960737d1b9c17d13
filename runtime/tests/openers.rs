//! Guests that open and give up an object at the same time, while its pager takes its time.

mod harness;

use std::{
    sync::{Arc, Condvar, Mutex, mpsc},
    thread,
    time::Duration,
};

use harness::{Guest, P, Width, rig::name};
use vmsync::{
    Grant, KernReturn, Pager, PagerError, PagerErrorKind, Sandbox,
    abi::VmProt,
    pager::{
        Attributes, CallId, DataSupply, InitRequest, MemoryObjectControl, ObjectId, ObjectName, ReturnFlags,
        SynchronizeFlags,
    },
};
use vmsync_core::ByteRange;
use vmsync_pager_memory::MemoryPager;

/// Longer than any of this takes; a test that needs it has failed.
const FOREVER: Duration = Duration::from_secs(60);
/// For what should not happen meanwhile.
const A_WHILE: Duration = Duration::from_millis(50);

/// A pager that opens and closes objects when it is let to.
#[derive(Default)]
struct Slow {
    inner: MemoryPager,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    shut: Option<Gate>,
    /// Calls at the gate, and openings so far.
    waiting: usize,
    opened: usize,
    /// The next opening fails.
    fails: bool,
    /// It says that the object has one byte more than it has.
    lies: bool,
    closed: usize,
}

/// What waits.
#[derive(Clone, Copy, PartialEq)]
enum Gate {
    Init,
    Terminate,
}

impl Slow {
    fn shut(&self, gate: Gate) {
        self.state.lock().expect("no panic").shut = Some(gate);
    }

    fn let_go(&self) {
        self.state.lock().expect("no panic").shut = None;
        self.changed.notify_all();
    }

    /// Waits until a call waits.
    fn await_call(&self) {
        let state = self.state.lock().expect("no panic");
        let waited = self
            .changed
            .wait_timeout_while(state, FOREVER, |state| state.waiting == 0);
        assert!(!waited.expect("no panic").1.timed_out(), "nobody calls");
    }

    fn pass(&self, gate: Gate) {
        let mut state = self.state.lock().expect("no panic");
        state.waiting += 1;
        self.changed.notify_all();
        let waited = self
            .changed
            .wait_timeout_while(state, FOREVER, |state| state.shut == Some(gate));
        waited.expect("no panic").0.waiting -= 1;
    }
}

impl Pager for Slow {
    fn init(
        &self,
        object: ObjectId,
        name: &ObjectName,
        request: InitRequest,
        control: Arc<dyn MemoryObjectControl>,
    ) -> Result<Attributes, PagerError> {
        self.pass(Gate::Init);
        let mut state = self.state.lock().expect("no panic");
        if std::mem::take(&mut state.fails) {
            return Err(PagerError::new(PagerErrorKind::Io, "as the test says"));
        }
        state.opened += 1;
        let mut attributes = self.inner.init(object, name, request, control)?;
        attributes.size += u64::from(std::mem::take(&mut state.lies));
        Ok(attributes)
    }

    fn data_request(
        &self,
        object: ObjectId,
        offset: u64,
        access: VmProt,
        pages: &mut [u8],
    ) -> Result<DataSupply, PagerError> {
        self.inner.data_request(object, offset, access, pages)
    }

    fn data_return(
        &self,
        call: CallId,
        object: ObjectId,
        offset: u64,
        pages: &[u8],
        flags: ReturnFlags,
    ) -> Result<(), PagerError> {
        self.inner.data_return(call, object, offset, pages, flags)
    }

    fn synchronize(
        &self,
        call: CallId,
        object: ObjectId,
        range: ByteRange,
        flags: SynchronizeFlags,
    ) -> Result<(), PagerError> {
        self.inner.synchronize(call, object, range, flags)
    }

    fn abort(&self, call: CallId) {
        self.inner.abort(call);
    }

    fn terminate(&self, object: ObjectId) {
        self.pass(Gate::Terminate);
        self.state.lock().expect("no panic").closed += 1;
        self.inner.terminate(object);
    }

    fn attributes(&self, object: ObjectId) -> Result<Attributes, PagerError> {
        self.inner.attributes(object)
    }
}

/// Grants `slow` and `other` of a pager each.
fn sandbox(pager_time_out: Duration) -> (Arc<Slow>, Sandbox) {
    let pager = Arc::new(Slow::default());
    let sandbox = Sandbox::builder()
        .pager_time_out(pager_time_out)
        .grant("slow", Grant::new(pager.clone(), name("slow")))
        .grant(
            "other",
            Grant::new(Arc::new(MemoryPager::default()), name("other")),
        )
        .build();
    (pager, sandbox.expect("an engine"))
}

/// Another thread's guest opens the object; what it answers, and the guest.
fn open_aside(sandbox: &Sandbox, object: &'static str) -> mpsc::Receiver<(KernReturn, Guest)> {
    let mut guest = Guest::new(sandbox, Width::Bits32);
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let (result, _) = guest.try_open(object.as_bytes(), P, 7);
        let _ = sender.send((result, guest));
    });
    receiver
}

#[test]
fn an_object_that_is_being_closed_is_opened_again() {
    let (pager, sandbox) = sandbox(FOREVER);
    let mut last = Guest::new(&sandbox, Width::Bits32);
    last.open("slow", 1);
    pager.shut(Gate::Terminate);
    let closer = thread::spawn(move || drop(last));
    pager.await_call();
    let opener = open_aside(&sandbox, "slow");
    assert!(opener.recv_timeout(A_WHILE).is_err(), "it waits");
    pager.let_go();
    let (result, _guest) = opener.recv_timeout(FOREVER).expect("an answer");
    assert_eq!(result, KernReturn::Success);
    closer.join().expect("no panic");
}

#[test]
fn a_slow_pager_keeps_nobody_from_the_objects_of_others() {
    let (pager, sandbox) = sandbox(FOREVER);
    pager.shut(Gate::Init);
    let opener = open_aside(&sandbox, "slow");
    pager.await_call();
    let other = open_aside(&sandbox, "other").recv_timeout(FOREVER);
    assert_eq!(other.expect("it does not wait").0, KernReturn::Success);
    pager.let_go();
    assert_eq!(
        opener.recv_timeout(FOREVER).expect("an answer").0,
        KernReturn::Success
    );
}

#[test]
fn guests_that_open_an_object_at_the_same_time_share_it() {
    let (pager, sandbox) = sandbox(FOREVER);
    pager.shut(Gate::Init);
    let openers = [(); 4].map(|()| open_aside(&sandbox, "slow"));
    pager.await_call();
    pager.let_go();
    let guests = openers.map(|opener| opener.recv_timeout(FOREVER).expect("an answer"));
    assert!(guests.iter().all(|(result, _)| *result == KernReturn::Success));
    assert_eq!(pager.state.lock().expect("no panic").opened, 1);
}

#[test]
fn whoever_waits_for_an_opening_that_fails_tries_itself() {
    let (pager, sandbox) = sandbox(FOREVER);
    pager.shut(Gate::Init);
    pager.state.lock().expect("no panic").fails = true;
    let first = open_aside(&sandbox, "slow");
    pager.await_call();
    let second = open_aside(&sandbox, "slow");
    assert!(second.recv_timeout(A_WHILE).is_err(), "it waits");
    pager.let_go();
    let [first, second] = [first, second].map(|opener| opener.recv_timeout(FOREVER).expect("an answer").0);
    assert_eq!([first, second], [KernReturn::MemoryError, KernReturn::Success]);
}

#[test]
fn a_pager_whose_object_has_no_whole_pages_closes_it_again() {
    let (pager, sandbox) = sandbox(FOREVER);
    pager.state.lock().expect("no panic").lies = true;
    let mut guest = Guest::new(&sandbox, Width::Bits32);
    assert_eq!(guest.try_open(b"slow", P, 7).0, KernReturn::InvalidArgument);
    let words = guest.inner.last_error().map(ToString::to_string);
    assert!(words.is_some_and(|words| words.contains("4097 bytes")));
    assert_eq!(pager.state.lock().expect("no panic").closed, 1);
    assert_eq!(guest.try_open(b"slow", P, 7).0, KernReturn::Success);
}

#[test]
fn an_opening_is_waited_for_no_longer_than_a_pager() {
    let (pager, sandbox) = sandbox(A_WHILE);
    pager.shut(Gate::Init);
    let first = open_aside(&sandbox, "slow");
    pager.await_call();
    let mut second = Guest::new(&sandbox, Width::Bits32);
    assert_eq!(second.try_open(b"slow", P, 7).0, KernReturn::Aborted);
    let words = second.inner.last_error().map(ToString::to_string);
    assert!(words.is_some_and(|words| words.contains("slow")));
    pager.let_go();
    assert_eq!(
        first.recv_timeout(FOREVER).expect("an answer").0,
        KernReturn::Success
    );
    assert_eq!(second.try_open(b"slow", P, 7).0, KernReturn::Success);
}
