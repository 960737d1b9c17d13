//! [`Counted`]: a pager that counts what passes.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use vmsync_core::{
    ByteRange, PagerError,
    abi::VmProt,
    pager::{
        Attributes, CallId, DataSupply, Image, InitRequest, MemoryObjectControl, ObjectId, ObjectName, Pager,
        ReturnFlags, Run, SynchronizeFlags,
    },
};

/// What has passed so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Objects opened.
    pub inits: u64,
    /// Requests for pages.
    pub requests: u64,
    /// Bytes that they asked for.
    pub bytes_requested: u64,
    /// Runs of pages handed back.
    pub returns: u64,
    /// Bytes in them.
    pub bytes_returned: u64,
    /// Ranges synchronized.
    pub synchronizes: u64,
    /// Calls dropped.
    pub aborts: u64,
    /// Answers that were errors.
    pub errors: u64,
}

#[derive(Default)]
struct Counters {
    inits: AtomicU64,
    requests: AtomicU64,
    bytes_requested: AtomicU64,
    returns: AtomicU64,
    bytes_returned: AtomicU64,
    synchronizes: AtomicU64,
    aborts: AtomicU64,
    errors: AtomicU64,
}

/// See the head of this file.
pub struct Counted {
    below: Arc<dyn Pager>,
    counters: Counters,
}

fn add(counter: &AtomicU64, count: usize) {
    counter.fetch_add(count as u64, Ordering::Relaxed);
}

impl Counted {
    /// Counts what passes to `below`.
    pub fn over(below: Arc<dyn Pager>) -> Self {
        let counters = Counters::default();
        Self { below, counters }
    }

    /// The counts so far.
    pub fn counts(&self) -> Counts {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            inits: load(&self.counters.inits),
            requests: load(&self.counters.requests),
            bytes_requested: load(&self.counters.bytes_requested),
            returns: load(&self.counters.returns),
            bytes_returned: load(&self.counters.bytes_returned),
            synchronizes: load(&self.counters.synchronizes),
            aborts: load(&self.counters.aborts),
            errors: load(&self.counters.errors),
        }
    }

    fn answer<T>(&self, answer: Result<T, PagerError>) -> Result<T, PagerError> {
        answer.inspect_err(|_| add(&self.counters.errors, 1))
    }
}

impl Pager for Counted {
    fn init(
        &self,
        object: ObjectId,
        name: &ObjectName,
        request: InitRequest,
        control: Arc<dyn MemoryObjectControl>,
    ) -> Result<Attributes, PagerError> {
        add(&self.counters.inits, 1);
        self.answer(self.below.init(object, name, request, control))
    }

    fn data_request(
        &self,
        object: ObjectId,
        offset: u64,
        access: VmProt,
        pages: &mut [u8],
    ) -> Result<DataSupply, PagerError> {
        add(&self.counters.requests, 1);
        add(&self.counters.bytes_requested, pages.len());
        self.answer(self.below.data_request(object, offset, access, pages))
    }

    fn image(&self, object: ObjectId) -> Option<Image> {
        self.below.image(object)
    }

    fn settle_image(&self, object: ObjectId, range: ByteRange) -> Result<(), PagerError> {
        self.answer(self.below.settle_image(object, range))
    }

    fn data_return(
        &self,
        call: CallId,
        object: ObjectId,
        offset: u64,
        pages: &[u8],
        flags: ReturnFlags,
    ) -> Result<(), PagerError> {
        add(&self.counters.returns, 1);
        add(&self.counters.bytes_returned, pages.len());
        self.answer(self.below.data_return(call, object, offset, pages, flags))
    }

    fn data_return_runs(&self, call: CallId, object: ObjectId, runs: &[Run<'_>]) -> Result<(), PagerError> {
        add(&self.counters.returns, runs.len());
        runs.iter()
            .for_each(|run| add(&self.counters.bytes_returned, run.pages.len()));
        self.answer(self.below.data_return_runs(call, object, runs))
    }

    fn synchronize(
        &self,
        call: CallId,
        object: ObjectId,
        range: ByteRange,
        flags: SynchronizeFlags,
    ) -> Result<(), PagerError> {
        add(&self.counters.synchronizes, 1);
        self.answer(self.below.synchronize(call, object, range, flags))
    }

    fn abort(&self, call: CallId) {
        add(&self.counters.aborts, 1);
        self.below.abort(call);
    }

    fn map(&self, object: ObjectId, address: u64, access: VmProt) {
        self.below.map(object, address, access);
    }

    fn last_unmap(&self, object: ObjectId) {
        self.below.last_unmap(object);
    }

    fn terminate(&self, object: ObjectId) {
        self.below.terminate(object);
    }

    fn grow(&self, object: ObjectId, size: u64) -> Result<Attributes, PagerError> {
        self.answer(self.below.grow(object, size))
    }

    fn attributes(&self, object: ObjectId) -> Result<Attributes, PagerError> {
        self.answer(self.below.attributes(object))
    }
}
