//! [`ScriptedPager`]: a pager in front of another one that fails, hangs or answers late where a test says so, and
//! that logs what it was sent. For tests of the runtime's side of the protocol.
//!
//! ```text
//!   runtime --> ScriptedPager (faults, log) --> inner pager
//!   runtime <------ Relay (holds completions until released) <---'
//! ```
//!
//! Invariants:
//! - a call that is made to fail is aborted in the inner pager, so that nothing of it shows;
//! - nothing is called while the lock is held.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use vmsync_core::{
    ByteRange, KernReturn, PagerError,
    abi::VmProt,
    pager::{
        Attributes, CallId, DataSupply, Image, InitRequest, LockRequest, MemoryObjectControl, ObjectId,
        ObjectName, Pager, ReturnFlags, SynchronizeFlags,
    },
};

/// What a [`ScriptedPager`] was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Event {
    Init {
        object: ObjectId,
        name: ObjectName,
    },
    DataRequest {
        object: ObjectId,
        range: ByteRange,
    },
    DataReturn {
        call: CallId,
        object: ObjectId,
        range: ByteRange,
        flags: ReturnFlags,
    },
    Synchronize {
        call: CallId,
        object: ObjectId,
        range: ByteRange,
        flags: SynchronizeFlags,
    },
    Abort {
        call: CallId,
    },
    Map {
        object: ObjectId,
        address: u64,
    },
    LastUnmap {
        object: ObjectId,
    },
    Terminate {
        object: ObjectId,
    },
}

/// What goes wrong. Each is used up by the first request of its kind; `None` in a queue lets one request pass.
#[derive(Clone, Debug)]
pub enum Fault {
    /// A `data_return` is refused.
    Return(Option<PagerError>),
    /// A `data_request` is refused.
    Supply(Option<PagerError>),
    /// A last `synchronize` is refused at once; its call is aborted.
    Synchronize(Option<PagerError>),
    /// A last `synchronize` is accepted, and its completions carry the error.
    Completion(Option<PagerError>),
}

/// A pager that does as it is told.
pub struct ScriptedPager {
    inner: Arc<dyn Pager>,
    shared: Arc<Mutex<Script>>,
}

#[derive(Default)]
struct Script {
    log: Vec<Event>,
    returns: VecDeque<Option<PagerError>>,
    supplies: VecDeque<Option<PagerError>>,
    synchronizes: VecDeque<Option<PagerError>>,
    completions: VecDeque<Option<PagerError>>,
    hold: bool,
    held: Vec<Answer>,
    controls: HashMap<ObjectId, Arc<dyn MemoryObjectControl>>,
    more: HashMap<CallId, Vec<(ObjectId, ByteRange)>>,
}

/// A completion on its way to the runtime.
struct Answer {
    control: Arc<dyn MemoryObjectControl>,
    range: ByteRange,
    result: Result<(), PagerError>,
}

/// The control that the inner pager sees.
struct Relay {
    control: Arc<dyn MemoryObjectControl>,
    shared: Arc<Mutex<Script>>,
}

fn lock(shared: &Mutex<Script>) -> MutexGuard<'_, Script> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ScriptedPager {
    /// A pager in front of `inner`, without faults so far.
    pub fn new(inner: Arc<dyn Pager>) -> Self {
        Self {
            inner,
            shared: Arc::default(),
        }
    }

    /// Queues `fault` behind earlier ones of its kind.
    pub fn inject(&self, fault: Fault) {
        let mut script = lock(&self.shared);
        match fault {
            Fault::Return(error) => script.returns.push_back(error),
            Fault::Supply(error) => script.supplies.push_back(error),
            Fault::Synchronize(error) => script.synchronizes.push_back(error),
            Fault::Completion(error) => script.completions.push_back(error),
        }
    }

    /// From now on completions stay here until [`ScriptedPager::release`]: a pager that hangs, or answers later.
    pub fn hold_completions(&self) {
        lock(&self.shared).hold = true;
    }

    /// Sends what was held, on the caller's thread, and holds no more. Returns what the runtime answered to each.
    pub fn release(&self) -> Vec<Result<(), KernReturn>> {
        let held = {
            let mut script = lock(&self.shared);
            script.hold = false;
            std::mem::take(&mut script.held)
        };
        held.into_iter().map(Answer::send).collect()
    }

    /// How many completions are held.
    pub fn held(&self) -> usize {
        lock(&self.shared).held.len()
    }

    /// What `object` was opened with, to send what a pager should not: wrong or repeated completions, `destroy`,
    /// `lock_request`.
    pub fn control(&self, object: ObjectId) -> Option<Arc<dyn MemoryObjectControl>> {
        lock(&self.shared).controls.get(&object).cloned()
    }

    /// What was sent since the last look.
    pub fn take_log(&self) -> Vec<Event> {
        std::mem::take(&mut lock(&self.shared).log)
    }

    fn log(&self, event: Event) {
        lock(&self.shared).log.push(event);
    }

    fn fault(&self, queue: impl Fn(&mut Script) -> &mut VecDeque<Option<PagerError>>) -> Option<PagerError> {
        queue(&mut lock(&self.shared)).pop_front().flatten()
    }

    /// Aborts `call` below, and answers all its requests with `error`.
    fn fail_call(&self, call: CallId, last: (ObjectId, ByteRange), error: &PagerError) {
        self.inner.abort(call);
        let answers: Vec<Answer> = {
            let mut script = lock(&self.shared);
            let mut asked = script.more.remove(&call).unwrap_or_default();
            asked.push(last);
            let answer = |(object, range)| {
                let control = script.controls.get(&object)?.clone();
                Some(Answer {
                    control,
                    range,
                    result: Err(error.clone()),
                })
            };
            asked.into_iter().filter_map(answer).collect()
        };
        for answer in answers {
            deliver(&self.shared, answer);
        }
    }
}

/// Sends or holds.
fn deliver(shared: &Mutex<Script>, answer: Answer) {
    {
        let mut script = lock(shared);
        if script.hold {
            return script.held.push(answer);
        }
    }
    let _ = answer.send();
}

impl Answer {
    fn send(self) -> Result<(), KernReturn> {
        self.control.synchronize_completed(self.range, self.result)
    }
}

/// The bytes from `offset` on that `pages` covers; saturating, for a log must not judge its input.
fn range_at(offset: u64, pages: &[u8]) -> ByteRange {
    ByteRange::new(offset, offset.saturating_add(pages.len() as u64))
}

impl Pager for ScriptedPager {
    fn init(
        &self,
        object: ObjectId,
        name: &ObjectName,
        request: InitRequest,
        control: Arc<dyn MemoryObjectControl>,
    ) -> Result<Attributes, PagerError> {
        self.log(Event::Init {
            object,
            name: name.clone(),
        });
        let relay = Arc::new(Relay {
            control: control.clone(),
            shared: self.shared.clone(),
        });
        let attributes = self.inner.init(object, name, request, relay)?;
        lock(&self.shared).controls.insert(object, control);
        Ok(attributes)
    }

    fn data_request(
        &self,
        object: ObjectId,
        offset: u64,
        access: VmProt,
        pages: &mut [u8],
    ) -> Result<DataSupply, PagerError> {
        self.log(Event::DataRequest {
            object,
            range: range_at(offset, pages),
        });
        match self.fault(|script| &mut script.supplies) {
            Some(error) => Err(error),
            None => self.inner.data_request(object, offset, access, pages),
        }
    }

    fn image(&self, object: ObjectId) -> Option<Image> {
        self.inner.image(object)
    }

    fn grow(&self, object: ObjectId, size: u64) -> Result<Attributes, PagerError> {
        self.inner.grow(object, size)
    }

    fn settle_image(&self, object: ObjectId, range: ByteRange) -> Result<(), PagerError> {
        self.inner.settle_image(object, range)
    }

    fn data_return(
        &self,
        call: CallId,
        object: ObjectId,
        offset: u64,
        pages: &[u8],
        flags: ReturnFlags,
    ) -> Result<(), PagerError> {
        self.log(Event::DataReturn {
            call,
            object,
            range: range_at(offset, pages),
            flags,
        });
        match self.fault(|script| &mut script.returns) {
            Some(error) => Err(error),
            None => self.inner.data_return(call, object, offset, pages, flags),
        }
    }

    fn synchronize(
        &self,
        call: CallId,
        object: ObjectId,
        range: ByteRange,
        flags: SynchronizeFlags,
    ) -> Result<(), PagerError> {
        self.log(Event::Synchronize {
            call,
            object,
            range,
            flags,
        });
        if flags.more {
            self.inner.synchronize(call, object, range, flags)?;
            lock(&self.shared)
                .more
                .entry(call)
                .or_default()
                .push((object, range));
            return Ok(());
        }
        if let Some(error) = self.fault(|script| &mut script.synchronizes) {
            self.abort(call);
            return Err(error);
        }
        if let Some(error) = self.fault(|script| &mut script.completions) {
            self.fail_call(call, (object, range), &error);
            return Ok(());
        }
        self.inner.synchronize(call, object, range, flags)?;
        lock(&self.shared).more.remove(&call);
        Ok(())
    }

    fn abort(&self, call: CallId) {
        self.log(Event::Abort { call });
        lock(&self.shared).more.remove(&call);
        self.inner.abort(call);
    }

    fn map(&self, object: ObjectId, address: u64, access: VmProt) {
        self.log(Event::Map { object, address });
        self.inner.map(object, address, access);
    }

    fn last_unmap(&self, object: ObjectId) {
        self.log(Event::LastUnmap { object });
        self.inner.last_unmap(object);
    }

    fn terminate(&self, object: ObjectId) {
        self.log(Event::Terminate { object });
        lock(&self.shared).controls.remove(&object);
        self.inner.terminate(object);
    }

    fn attributes(&self, object: ObjectId) -> Result<Attributes, PagerError> {
        self.inner.attributes(object)
    }
}

impl MemoryObjectControl for Relay {
    fn synchronize_completed(
        &self,
        range: ByteRange,
        result: Result<(), PagerError>,
    ) -> Result<(), KernReturn> {
        deliver(
            &self.shared,
            Answer {
                control: self.control.clone(),
                range,
                result,
            },
        );
        Ok(())
    }

    fn write_behind_failed(&self, range: ByteRange, error: PagerError) {
        self.control.write_behind_failed(range, error);
    }

    fn lock_request(&self, request: LockRequest) -> Result<(), KernReturn> {
        self.control.lock_request(request)
    }

    fn change_attributes(&self, attributes: Attributes) {
        self.control.change_attributes(attributes);
    }

    fn destroy(&self, reason: PagerError) {
        self.control.destroy(reason);
    }
}
