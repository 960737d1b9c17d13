//! [`GuestMemory`]: a guest's `WebAssembly.Memory` with its card table, as core sees a linear memory.
//!
//! Invariants:
//! - it is used only while the guest is in a call to the host, or not running: there is one thread;
//! - the memory's buffer is asked for at every access, because growing replaces it;
//! - what this module copies, [`TaskMemory::pages`] keeps until the next call.

use js_sys::{ArrayBuffer, Function, Reflect, Uint8Array, WebAssembly::Memory};
use vmsync_core::{
    ByteRange, PageRange, PageSet, PageSize,
    abi::VmProt,
    memory::{MemoryError, TaskMemory},
    pager::Image,
};
use wasm_bindgen::{JsCast, JsValue};

use crate::cards::{Cards, Head};

/// Wasm's own page, by which a memory grows.
const WASM_PAGE_BYTES: u64 = 1 << 16;

/// See the head of the file.
pub(crate) struct GuestMemory {
    memory: JsValue,
    cards: Cards,
    page_size: PageSize,
    copy: Vec<u8>,
    supplied: PageSet,
}

/// The bytes of a memory.
pub(crate) fn buffer(memory: &JsValue) -> Option<ArrayBuffer> {
    memory
        .dyn_ref::<Memory>()
        .map(|memory| memory.buffer().unchecked_into())
}

impl GuestMemory {
    pub fn new(memory: JsValue, cards: Cards, page_size: PageSize) -> Self {
        Self {
            memory,
            cards,
            page_size,
            copy: Vec::new(),
            supplied: PageSet::new(),
        }
    }

    /// Grows to at least `bytes`; `false` where the engine refuses.
    pub fn grow_to(&mut self, bytes: u64) -> bool {
        let missing = bytes.saturating_sub(self.size()).div_ceil(WASM_PAGE_BYTES);
        if missing == 0 {
            return true;
        }
        // The generated binding lets the engine's exception fly through this module; this one catches it.
        let grow = Reflect::get(&self.memory, &"grow".into()).and_then(JsCast::dyn_into::<Function>);
        grow.and_then(|grow| grow.call1(&self.memory, &JsValue::from_f64(missing as f64)))
            .is_ok()
    }

    /// Copies out. The caller has checked that the range is inside.
    pub fn read(&self, offset: u64, bytes: &mut [u8]) {
        if let Some(view) = self.view(offset, bytes.len() as u64) {
            view.copy_to(bytes);
        }
    }

    /// Copies in. The caller has checked that the range is inside.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) {
        if let Some(view) = self.view(offset, bytes.len() as u64) {
            view.copy_from(bytes);
        }
    }

    /// The pages that look dirty, for a picture.
    pub fn peek(&self, pages: PageRange) -> PageSet {
        self.cards.peek(pages)
    }

    /// The pages that a pager has supplied since [`GuestMemory::forget_supplied`].
    pub fn supplied(&self) -> &PageSet {
        &self.supplied
    }

    pub fn forget_supplied(&mut self) {
        self.supplied = PageSet::new();
    }

    fn view(&self, offset: u64, length: u64) -> Option<Uint8Array> {
        let buffer = buffer(&self.memory)?;
        let inside = offset.checked_add(length)? <= u64::from(buffer.byte_length());
        inside.then(|| Uint8Array::new_with_byte_offset_and_length(&buffer, offset as u32, length as u32))
    }

    fn pages_of(&self, range: ByteRange) -> PageRange {
        self.page_size.shrink(range)
    }

    fn zero(&self, range: ByteRange) {
        if let Some(view) = self.view(range.start, range.len()) {
            view.fill(0, 0, view.length());
        }
    }

    /// Runs `change` on the cards, with a way to read the heads of pages.
    fn with_cards<T>(&mut self, change: impl FnOnce(&mut Cards, &dyn Fn(u64) -> Head) -> T) -> T {
        let (memory, page_size) = (&self.memory, self.page_size);
        let head = |page: u64| {
            let mut head = Head::default();
            let at = page_size.byte_range(PageRange::new(page, page + 1)).start;
            if let Some(buffer) = buffer(memory)
                && at + head.len() as u64 <= u64::from(buffer.byte_length())
            {
                Uint8Array::new_with_byte_offset_and_length(&buffer, at as u32, head.len() as u32)
                    .copy_to(&mut head);
            }
            head
        };
        change(&mut self.cards, &head)
    }
}

impl TaskMemory for GuestMemory {
    fn size(&self) -> u64 {
        buffer(&self.memory).map_or(0, |buffer| u64::from(buffer.byte_length()))
    }

    fn is_addressable(&self) -> bool {
        false
    }

    fn pages(&mut self, range: ByteRange) -> &[u8] {
        let length = usize::try_from(range.len()).unwrap_or(0);
        let mut copy = std::mem::take(&mut self.copy);
        copy.resize(length, 0);
        self.read(range.start, &mut copy);
        self.copy = copy;
        &self.copy
    }

    fn map_image(&mut self, _: ByteRange, _: Image, _: bool) -> Result<bool, MemoryError> {
        Ok(false)
    }

    fn map_zero(&mut self, range: ByteRange, track: bool) -> Result<(), MemoryError> {
        let pages = self.pages_of(range);
        if track && pages.end > self.cards.count() {
            let message = "the module's card table does not reach this far: instrument it again".into();
            return Err(MemoryError { message });
        }
        self.zero(range);
        self.with_cards(|cards, head| {
            cards.detach(pages, head);
            if track {
                cards.attach(pages, head);
            }
        });
        Ok(())
    }

    fn unmap(&mut self, range: ByteRange) -> Result<(), MemoryError> {
        self.map_zero(range, false)
    }

    fn fill(&mut self, offset: u64, bytes: &[u8]) -> Result<(), MemoryError> {
        self.write(offset, bytes);
        let pages = self.pages_of(ByteRange::new(offset, offset + bytes.len() as u64));
        self.supplied.insert(pages);
        self.with_cards(|cards, head| cards.clear(pages, head));
        Ok(())
    }

    fn discard(&mut self, _: ByteRange) -> Result<(), MemoryError> {
        let message = "nothing is mapped in a page".into();
        Err(MemoryError { message })
    }

    /// A page cannot protect memory: what is asked for is kept by the map, and the guest keeps to it or not.
    fn protect(&mut self, _: ByteRange, _: VmProt) -> Result<(), MemoryError> {
        Ok(())
    }

    fn deactivate(&mut self, _: ByteRange) {}

    fn will_need(&mut self, _: ByteRange) {}

    fn collect(&mut self, range: ByteRange, dirty: &mut PageSet) -> Result<(), MemoryError> {
        let pages = self.pages_of(range);
        self.with_cards(|cards, head| cards.collect(pages, dirty, head));
        Ok(())
    }
}
