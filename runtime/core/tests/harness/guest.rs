//! [`Guest`]: a task with its memory, and calls in units of pages.

use std::{
    ops::Range,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use vmsync_core::{
    KernReturn,
    abi::{Behavior, Inherit, OpenFlags, PORT_NULL, VmProt, VmSync},
    memory::TaskMemory,
    msync::{Msync, Poll},
    object::ObjectHandle,
    pager::{CallId, LockRequest},
    task::{MapRequest, Task},
};

use super::{
    Object, P, PAGE,
    memory::{Images, TestMemory},
};

/// Bytes that [`Guest::store`] stores and [`Guest::read`] looks at.
const PROBE_BYTES: usize = 16;

static CALLS: AtomicU64 = AtomicU64::new(1);

/// A fresh number for a call.
pub fn call() -> CallId {
    CallId(CALLS.fetch_add(1, Ordering::Relaxed))
}

/// A task and its linear memory.
pub struct Guest {
    pub task: Task<Object>,
    pub memory: TestMemory,
}

impl Guest {
    /// A 64-bit guest with `pages` pages of linear memory.
    pub fn new(pages: u64) -> Self {
        Self::with_images(pages, Images::default())
    }

    /// The same, able to map `images`.
    pub fn with_images(pages: u64, images: Images) -> Self {
        Self::with_end(pages, u64::MAX, images)
    }

    /// A guest whose addresses end at `address_end`.
    pub fn with_end(pages: u64, address_end: u64, images: Images) -> Self {
        let mut task = Task::new(PAGE, address_end);
        task.observe_size(pages * P);
        Self {
            task,
            memory: TestMemory::new(pages, images),
        }
    }

    /// Opens `object` for loads and stores.
    pub fn open(&mut self, object: &Object) -> u32 {
        let rights = OpenFlags::READ | OpenFlags::WRITE;
        self.task
            .open_object(object.clone(), rights)
            .expect("a port is free")
    }

    /// Maps all of `object`, from page `at` on, for loads and stores.
    pub fn map(&mut self, object: &Object, at: u64) -> u32 {
        let pages = object.with(|object| object.attributes.size) / P;
        let port = self.open(object);
        self.map_with(&request(port, at, pages))
            .expect("the object can be mapped");
        port
    }

    /// `vm_map` with every argument.
    pub fn map_with(&mut self, request: &MapRequest) -> Result<(), KernReturn> {
        self.task.map_region(request, &mut self.memory)
    }

    /// An anonymous region.
    pub fn allocate(&mut self, pages: Range<u64>) {
        let request = request(PORT_NULL, pages.start, pages.end - pages.start);
        self.map_with(&request).expect("the range is free");
    }

    /// Deallocates, returning what must be.
    pub fn deallocate(&mut self, pages: Range<u64>) -> KernReturn {
        let (address, size) = bytes(pages);
        let mut deallocation = match self.task.deallocate(address, size, call(), &mut self.memory) {
            Ok(deallocation) => deallocation,
            Err(error) => return error,
        };
        let returned = self.finish(&mut deallocation.returns);
        match self.task.finish_deallocate(&deallocation, &mut self.memory) {
            Ok(()) => returned,
            Err(error) => error,
        }
    }

    /// Begins a `vm_msync` over whole pages.
    pub fn start(&mut self, pages: Range<u64>, flags: VmSync) -> Result<Msync<Object>, KernReturn> {
        let (address, size) = bytes(pages);
        self.start_bytes(address, size, flags)
    }

    /// Begins a `mach_vm_msync`.
    pub fn start_bytes(
        &mut self,
        address: u64,
        size: u64,
        flags: VmSync,
    ) -> Result<Msync<Object>, KernReturn> {
        self.task
            .msync(address, size, flags, u64::MAX, call(), &mut self.memory)
    }

    /// A `vm_msync` over whole pages that must not have to wait.
    pub fn msync(&mut self, pages: Range<u64>, flags: VmSync) -> KernReturn {
        let (address, size) = bytes(pages);
        self.msync_bytes(address, size, flags)
    }

    /// A `vm_msync` that must not have to wait.
    pub fn msync_bytes(&mut self, address: u64, size: u64, flags: VmSync) -> KernReturn {
        match self.start_bytes(address, size, flags) {
            Ok(mut msync) => self.finish(&mut msync),
            Err(error) => error,
        }
    }

    /// Goes on with a call.
    pub fn poll(&mut self, msync: &mut Msync<Object>) -> Poll<Object> {
        msync.poll(&mut self.memory)
    }

    /// Whether the call waits now.
    pub fn blocks(&mut self, msync: &mut Msync<Object>) -> bool {
        matches!(self.poll(msync), Poll::Blocked(_))
    }

    /// Drives a call to its end; it must not have to wait.
    pub fn finish(&mut self, msync: &mut Msync<Object>) -> KernReturn {
        match self.poll(msync) {
            Poll::Done(result) => self.task.conclude(msync, result),
            Poll::Blocked(object) => panic!("the call waits for {object:?}"),
        }
    }

    /// Drives a call to its end; where it would have to wait, the host gives up at once.
    pub fn finish_impatient(&mut self, msync: &mut Msync<Object>) -> KernReturn {
        match self.poll(msync) {
            Poll::Done(result) => self.task.conclude(msync, result),
            Poll::Blocked(_) => self.time_out(msync),
        }
    }

    /// Drives a call as a host with threads would: waits for the object to change, at most `time_out`.
    pub fn finish_blocking(&mut self, msync: &mut Msync<Object>, time_out: Duration) -> KernReturn {
        let deadline = Instant::now() + time_out;
        let result = loop {
            let object = match self.poll(msync) {
                Poll::Done(result) => break result,
                Poll::Blocked(object) => object,
            };
            let events = object.with(|object| object.events());
            // What happened between the poll and this look is seen by a second poll.
            match self.poll(msync) {
                Poll::Done(result) => break result,
                Poll::Blocked(still) if still != object => continue,
                Poll::Blocked(_) => {}
            }
            if !object.wait(events, deadline) {
                break msync.time_out(&mut self.memory);
            }
        };
        self.task.conclude(msync, result)
    }

    /// The host gives up waiting.
    pub fn time_out(&mut self, msync: &mut Msync<Object>) -> KernReturn {
        let result = msync.time_out(&mut self.memory);
        self.task.conclude(msync, result)
    }

    /// Gives up clean memory.
    pub fn evict(&mut self, pages: Range<u64>) -> KernReturn {
        let (address, size) = bytes(pages);
        let mut msync = self.task.evict(address, size, call()).expect("a good range");
        self.finish(&mut msync)
    }

    /// Carries out a pager's request.
    pub fn lock_request(&mut self, object: &Object, request: &LockRequest) -> KernReturn {
        let msync = self.task.lock_request(object, request, call(), &mut self.memory);
        match msync {
            Ok(mut msync) => self.finish(&mut msync),
            Err(error) => error,
        }
    }

    /// Wires or unwires.
    pub fn wire(&mut self, pages: Range<u64>, wired: bool) -> Result<(), KernReturn> {
        let (address, size) = bytes(pages);
        self.task.wire(address, size, wired)
    }

    /// `vm_protect` of the current protection.
    pub fn protect(&mut self, pages: Range<u64>, protection: VmProt) -> Result<(), KernReturn> {
        let (address, size) = bytes(pages);
        self.task
            .protect(address, size, false, protection, &mut self.memory)
    }

    /// `vm_behavior_set`.
    pub fn behave(&mut self, pages: Range<u64>, behavior: Behavior) -> Result<(), KernReturn> {
        let (address, size) = bytes(pages);
        self.task.behavior_set(address, size, behavior, &mut self.memory)
    }

    /// The guest stores `byte` to the beginning of each page.
    pub fn store(&mut self, pages: impl IntoIterator<Item = u64>, byte: u8) {
        for page in pages {
            assert!(
                self.memory.store(page * P, &[byte; PROBE_BYTES]),
                "the store to page {page} trapped"
            );
        }
    }

    /// Bytes of linear memory.
    pub fn memory_size(&self) -> u64 {
        self.memory.size()
    }

    /// What the beginning of a page holds.
    pub fn read(&self, page: u64) -> u8 {
        let bytes = &self.memory.page(page)[..PROBE_BYTES];
        assert!(
            bytes.iter().all(|byte| *byte == bytes[0]),
            "page {page}: {bytes:?}"
        );
        bytes[0]
    }
}

/// A whole object of `pages` pages at page `at`, for loads and stores.
pub fn request(port: u32, at: u64, pages: u64) -> MapRequest {
    MapRequest {
        address: at * P,
        size: pages * P,
        overwrite: false,
        port,
        offset: 0,
        copy: false,
        protection: VmProt::READ_WRITE,
        max_protection: VmProt::READ_WRITE,
        inherit: Inherit::default(),
    }
}

fn bytes(pages: Range<u64>) -> (u64, u64) {
    (pages.start * P, (pages.end - pages.start) * P)
}
