//! [`Vm`]: the virtual memory of one guest instance. `calls.rs` has what the guest imports.
//!
//! ```text
//!   engine.js: new Vm(host) -> imports -> WebAssembly.instantiate -> vm.attach(memory, cards)
//! ```
//!
//! Invariants:
//! - before `attach` and after `close` every call answers `INVALID_TASK`;
//! - one call at a time waits for a pager: the guest has one thread.

use std::rc::Rc;

use vmsync_core::{
    ByteRange, KernReturn, PageRange, PageSet, PagerError,
    abi::VmSync,
    map::EntryBacking,
    memory::TaskMemory,
    msync::{Msync, Poll},
    object::ObjectHandle,
    task::{MapRequest, Task},
};
use wasm_bindgen::{JsValue, prelude::wasm_bindgen};

use crate::{
    Prepared,
    cards::{Cards, is_memory},
    error::{error, of_call},
    host::{Host, PAGE_SIZE, Shared},
    limits::PICTURE_PAGES_MAX,
    memory::GuestMemory,
    object::Object,
};

/// What a call answers that waits for a pager: await the store, then `poll`.
pub const PENDING: i32 = -1;

/// What a picture shows of a page. None stays absent here, for a page cannot load memory on demand: [`Vm::evicted`] tells of
/// those that were, inside a call. None is precious, for every store here keeps what it supplies.
mod picture {
    pub const CLEAN: u8 = 1;
    pub const DIRTY: u8 = 2;
    pub const ANONYMOUS: u8 = 3;
}

/// The virtual memory of one guest.
#[wasm_bindgen]
pub struct Vm {
    pub(crate) host: Rc<Shared>,
    pub(crate) attached: Option<Attached>,
    pub(crate) stack_end: u64,
    pub(crate) last_error: Option<PagerError>,
    pending: Option<Msync<Object>>,
    pages_returned: u64,
}

pub(crate) struct Attached {
    pub task: Task<Object>,
    pub memory: GuestMemory,
}

#[wasm_bindgen]
impl Vm {
    /// The virtual memory of a guest of `host` that is about to be instantiated.
    #[wasm_bindgen(constructor)]
    pub fn new(host: &Host) -> Self {
        Self {
            host: host.shared.clone(),
            attached: None,
            stack_end: 0,
            last_error: None,
            pending: None,
            pages_returned: 0,
        }
    }

    /// Takes the memory of the instance, and its card memory where it has one.
    ///
    /// # Errors
    /// A `VmsyncError` when they are not what `prepared` says.
    pub fn attach(&mut self, prepared: &Prepared, memory: JsValue, cards: JsValue) -> Result<(), JsValue> {
        let holder = if prepared.cards_inline {
            memory.clone()
        } else {
            cards
        };
        if !is_memory(&memory) || !is_memory(&holder) {
            return Err(error("invalid", "the instance is not one of the prepared module"));
        }
        let cards = Cards::new(holder, prepared.cards_offset, prepared.cards_count);
        let mut memory = GuestMemory::new(memory, cards, PAGE_SIZE);
        let mut task = Task::new(PAGE_SIZE, 1 << 32);
        task.observe_size(memory.size());
        if prepared.cards_inline {
            occupy(&mut task, &mut memory, prepared).map_err(|result| of_call("vm_allocate", result))?;
        }
        self.stack_end = prepared.stack_end;
        self.attached = Some(Attached { task, memory });
        Ok(())
    }

    /// The guest is gone: what it has not synced is forgotten, and others may write what it wrote.
    pub fn close(&mut self) {
        self.pending = None;
        if let Some(mut attached) = self.attached.take() {
            attached.task.terminate();
        }
    }

    /// `vm_msync` by the page, while the guest is not running: a `kern_return`, or [`PENDING`].
    pub fn sync(&mut self, address: f64, size: f64, flags: u32) -> i32 {
        self.msync(address as u64, size as u64, VmSync(flags), u64::MAX)
    }

    /// Goes on with a call that answered [`PENDING`].
    pub fn poll(&mut self) -> i32 {
        let Some(Attached { task, memory }) = &mut self.attached else {
            return KernReturn::InvalidTask.code();
        };
        let Some(msync) = &mut self.pending else {
            return KernReturn::Failure.code();
        };
        match msync.poll(memory) {
            Poll::Blocked(_) => PENDING,
            Poll::Done(result) => {
                let result = task.conclude(msync, result);
                self.finish();
                result.code()
            }
        }
    }

    /// Gives up on a call that answered [`PENDING`]: its pages stay dirty.
    #[wasm_bindgen(js_name = timeOut)]
    pub fn time_out(&mut self) -> i32 {
        let (Some(Attached { task, memory }), Some(msync)) = (&mut self.attached, &mut self.pending) else {
            return KernReturn::Failure.code();
        };
        let result = msync.time_out(memory);
        let result = task.conclude(msync, result);
        self.finish();
        result.code()
    }

    /// Pages that the last call handed to the pager.
    #[wasm_bindgen(getter, js_name = pagesReturned)]
    pub fn pages_returned(&self) -> f64 {
        self.pages_returned as f64
    }

    /// The pages that the last call dropped from memory; the store has supplied them again.
    #[wasm_bindgen(getter)]
    pub fn evicted(&self) -> Vec<u32> {
        let supplied = self
            .attached
            .iter()
            .flat_map(|attached| attached.memory.supplied().pages());
        supplied.map(|page| page as u32).collect()
    }

    /// The words of the pager for the last call that failed: a guest sees only a number.
    #[wasm_bindgen(getter, js_name = lastError)]
    pub fn last_error(&self) -> Option<String> {
        self.last_error.as_ref().map(|error| error.message.clone())
    }

    /// A byte for each of `count` pages from page `first` on: 0 not a region, 1 clean, 2 dirty, 3 anonymous.
    pub fn picture(&mut self, first: u32, count: u32) -> Vec<u8> {
        let mut bytes = vec![0; count.min(PICTURE_PAGES_MAX) as usize];
        let Some(Attached { task, memory }) = &mut self.attached else {
            return bytes;
        };
        task.observe_size(memory.size());
        let window = PageRange::new(first.into(), u64::from(first) + bytes.len() as u64);
        let mut paint = |pages: &PageSet, value: u8| {
            for page in pages.within(window).pages() {
                bytes[(page - window.start) as usize] = value;
            }
        };
        for entry in task.map().entries_in(window).filter(|entry| entry.is_region()) {
            let pages = PageSet::from(entry.pages);
            let EntryBacking::Object {
                object, first_page, ..
            } = &entry.backing
            else {
                paint(&pages, picture::ANONYMOUS);
                continue;
            };
            let object_pages = entry.pages.rebase(entry.pages.start, *first_page);
            let (mut dirty, stored) = object.with(|object| {
                (
                    object.dirty.within(object_pages),
                    object.stored.within(object_pages),
                )
            });
            dirty.union(&stored);
            paint(&pages, picture::CLEAN);
            paint(
                &dirty.rebase(object_pages.start, entry.pages.start),
                picture::DIRTY,
            );
            paint(&memory.peek(entry.pages), picture::DIRTY);
        }
        bytes
    }

    /// The regions: first page, pages, first page of the object, for each in turn.
    pub fn regions(&self) -> Vec<u32> {
        let mut regions = Vec::new();
        let entries = self
            .attached
            .iter()
            .flat_map(|attached| attached.task.map().entries());
        for entry in entries.filter(|entry| entry.is_region()) {
            let offset = match &entry.backing {
                EntryBacking::Object { first_page, .. } => *first_page,
                EntryBacking::Anonymous { .. } => 0,
            };
            regions.extend([entry.pages.start, entry.pages.len(), offset].map(|pages| pages as u32));
        }
        regions
    }

    /// The page has stored to the guest's memory: those pages are dirty.
    #[wasm_bindgen(js_name = noteStore)]
    pub fn note_store(&mut self, address: u32, length: u32) {
        if let Some(attached) = &mut self.attached {
            let start = u64::from(address);
            attached
                .task
                .note_store(ByteRange::new(start, start + u64::from(length)));
        }
    }
}

impl Vm {
    pub(crate) fn attached(&mut self) -> Result<&mut Attached, KernReturn> {
        let attached = self.attached.as_mut().ok_or(KernReturn::InvalidTask)?;
        attached.task.observe_size(attached.memory.size());
        Ok(attached)
    }

    pub(crate) fn msync(&mut self, address: u64, size: u64, flags: VmSync, word_end: u64) -> i32 {
        let call = self.host.next_call();
        let Ok(Attached { task, memory }) = self.attached() else {
            return KernReturn::InvalidTask.code();
        };
        memory.forget_supplied();
        match task.msync(address, size, flags, word_end, call, memory) {
            Ok(msync) => self.pending = Some(msync),
            Err(error) => return error.code(),
        }
        self.poll()
    }

    /// The call in `pending` is over.
    fn finish(&mut self) {
        if let Some(msync) = self.pending.take() {
            self.pages_returned = msync.stats().pages_returned;
            if let Some(error) = msync.error() {
                self.last_error = Some(error.clone());
            }
        }
    }

    /// Drives a call that has to end now: one that waits for a pager is given up.
    pub(crate) fn drive(&mut self, msync: &mut Msync<Object>) {
        let Ok(Attached { memory, .. }) = self.attached() else {
            return;
        };
        if msync.poll(memory) != Poll::Done(KernReturn::Success) {
            msync.time_out(memory);
            self.last_error = msync.error().cloned().or(self.last_error.take());
        }
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        self.close();
    }
}

/// Takes the place of the card table in the guest's own memory out of its hands.
fn occupy(task: &mut Task<Object>, memory: &mut GuestMemory, prepared: &Prepared) -> Result<(), KernReturn> {
    let request = MapRequest::allocate(prepared.cards_offset, prepared.cards_count);
    task.map_region(&request, memory)
}
