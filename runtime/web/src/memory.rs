//! [`GuestMemory`]: a guest's `WebAssembly.Memory` with its card table, as core sees a linear memory.
//!
//! Invariants:
//! - it is used only while the guest is in a call to the host, or not running: there is one thread;
//! - the memory's buffer is asked for at every access, because growing replaces it;
//! - what this module copies, [`TaskMemory::pages`] keeps until the next call.

use js_sys::{ArrayBuffer, Function, Object, Reflect, Uint8Array, WebAssembly::Memory};
use vmsync_core::{
    ByteRange, PageRange, PageSet, PageSize,
    abi::VmProt,
    memory::{MemoryError, TaskMemory},
    pager::Image,
};
use wasm_bindgen::{JsCast, JsValue, prelude::wasm_bindgen};

use crate::cards::{Cards, Head};

#[wasm_bindgen]
extern "C" {
    /// The bytes of a memory, with their number: that of `js-sys` has 32 bits, and is 0 for a memory of 4 GiB.
    #[wasm_bindgen(extends = ArrayBuffer, extends = Object)]
    type Buffer;
    #[wasm_bindgen(method, getter, js_name = byteLength)]
    fn byte_length(this: &Buffer) -> f64;
}

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

fn buffer(memory: &JsValue) -> Option<Buffer> {
    memory
        .dyn_ref::<Memory>()
        .map(|memory| memory.buffer().unchecked_into())
}

/// `length` bytes of a memory from `offset` on; an error where they are not all inside.
pub(crate) fn view(memory: &JsValue, offset: u64, length: u64) -> Result<Uint8Array, MemoryError> {
    let find = || {
        let buffer = buffer(memory)?;
        let inside = offset.checked_add(length)? <= buffer.byte_length() as u64;
        let (offset, length) = (u32::try_from(offset).ok()?, u32::try_from(length).ok()?);
        inside.then(|| Uint8Array::new_with_byte_offset_and_length(&buffer, offset, length))
    };
    find().ok_or_else(|| {
        let message = format!("{length} bytes at {offset} are not inside the guest's memory");
        MemoryError { message }
    })
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

    /// Copies out.
    pub fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<(), MemoryError> {
        view(&self.memory, offset, bytes.len() as u64).map(|view| view.copy_to(bytes))
    }

    /// Copies in.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), MemoryError> {
        view(&self.memory, offset, bytes.len() as u64).map(|view| view.copy_from(bytes))
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

    fn pages_of(&self, range: ByteRange) -> PageRange {
        self.page_size.shrink(range)
    }

    fn zero(&self, range: ByteRange) -> Result<(), MemoryError> {
        let view = view(&self.memory, range.start, range.len())?;
        view.fill(0, 0, view.length());
        Ok(())
    }

    /// Runs `change` on the cards, with a way to read the heads of pages.
    fn with_cards<T>(&mut self, change: impl FnOnce(&mut Cards, &dyn Fn(u64) -> Head) -> T) -> T {
        let (memory, page_size) = (&self.memory, self.page_size);
        let head = |page: u64| {
            let mut head = Head::default();
            let at = page_size.byte_range(PageRange::new(page, page + 1)).start;
            // A page outside has no bytes that could change.
            if let Ok(view) = view(memory, at, head.len() as u64) {
                view.copy_to(&mut head);
            }
            head
        };
        change(&mut self.cards, &head)
    }
}

impl TaskMemory for GuestMemory {
    fn size(&self) -> u64 {
        buffer(&self.memory).map_or(0, |buffer| buffer.byte_length() as u64)
    }

    fn is_addressable(&self) -> bool {
        false
    }

    fn pages(&mut self, range: ByteRange) -> &[u8] {
        let view = view(&self.memory, range.start, range.len());
        // Anything else in their place would become durable.
        let view = view.expect("regions are inside the memory, which does not shrink");
        self.copy.resize(view.length() as usize, 0);
        view.copy_to(&mut self.copy);
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
        self.zero(range)?;
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
        self.write(offset, bytes)?;
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
