//! The card table of an instrumented guest, read through JavaScript.
//!
//! The rule of `vmsync-instrument`: a page whose card is set may have changed; of the page behind it the first 16 bytes
//! may have, so they are compared with those that were there when the page was last reported.
//!
//! Invariants: those of `vmsync-tracker`'s barrier, of which this is the copy without pointers:
//! - a mark is taken together with what it means for the next page; what lies outside a collected range stays pending;
//! - a page whose head is not known is reported.

use std::collections::HashMap;

use js_sys::Uint8Array;
use vmsync_core::{PageRange, PageSet};
use wasm_bindgen::{JsCast, JsValue};

use crate::{limits::CARDS_CHUNK_BYTES, memory::view};

/// The start of a page, as far as a straddling store can reach.
pub(crate) type Head = [u8; 16];

/// Where the table is: a memory, the first card's address in it, and how many there are.
pub(crate) struct Cards {
    memory: JsValue,
    offset: u64,
    count: u64,
    attached: PageSet,
    pending: PageSet,
    heads: HashMap<u64, Head>,
}

impl Cards {
    pub fn new(memory: JsValue, offset: u64, count: u64) -> Self {
        Self {
            memory,
            offset,
            count,
            attached: PageSet::new(),
            pending: PageSet::new(),
            heads: HashMap::new(),
        }
    }

    /// How many pages have a card.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Watches `pages` from now on; all of them count as clean.
    pub fn attach(&mut self, pages: PageRange, head: impl Fn(u64) -> Head) {
        self.attached.remove(pages);
        self.clear(pages, head);
        self.attached.insert(pages);
    }

    /// Stops watching `pages`.
    pub fn detach(&mut self, pages: PageRange, head: impl Fn(u64) -> Head) {
        let pages = pages.intersect(PageRange::new(0, self.count));
        for run in self.attached.within(pages).runs() {
            self.attached.remove(*run);
            self.clear(*run, &head);
        }
    }

    /// Everything in `pages` is clean: its marks are dropped, but not what they mean for pages outside.
    pub fn clear(&mut self, pages: PageRange, head: impl Fn(u64) -> Head) {
        self.drain(pages, head);
        self.pending.remove(pages);
        self.heads.retain(|page, _| !pages.contains(*page));
    }

    /// Adds the pages that were stored to since the last look to `dirty`.
    pub fn collect(&mut self, pages: PageRange, dirty: &mut PageSet, head: impl Fn(u64) -> Head) {
        for run in self.attached.within(pages).runs() {
            self.drain(*run, &head);
        }
        let found = self.pending.within(pages);
        for page in found.pages() {
            self.heads.insert(page, head(page));
        }
        self.pending.remove(pages);
        dirty.union(&found);
    }

    /// The pages of `pages` that look dirty, without changing anything. For pictures: suspects are left out.
    pub fn peek(&self, pages: PageRange) -> PageSet {
        let mut marked = self.attached.within(pages);
        let mut clean = PageSet::from(pages);
        self.read(pages, |page| clean.remove(PageRange::new(page, page + 1)));
        marked.subtract(&clean);
        marked.union(&self.pending.within(pages));
        marked
    }

    /// Moves what the cards say of `pages` to `pending`.
    fn drain(&mut self, pages: PageRange, head: impl Fn(u64) -> Head) {
        let pages = PageRange::new(pages.start.saturating_sub(1), pages.end);
        let mut marked = PageSet::new();
        self.read(pages, |page| marked.insert(PageRange::new(page, page + 1)));
        for run in marked.runs() {
            self.wipe(*run);
            self.pending.union(&self.attached.within(*run));
            let next = run.end;
            if self.attached.contains(next) && self.heads.get(&next) != Some(&head(next)) {
                self.pending.insert(PageRange::new(next, next + 1));
            }
        }
    }

    /// Hands on the pages of `pages` whose card is set, ascending.
    fn read(&self, pages: PageRange, mut found: impl FnMut(u64)) {
        let pages = pages.intersect(PageRange::new(0, self.count));
        let mut bytes = Vec::new();
        let mut start = pages.start;
        while start < pages.end {
            let end = pages.end.min(start + CARDS_CHUNK_BYTES);
            bytes.resize((end - start) as usize, 0);
            self.view(PageRange::new(start, end)).copy_to(&mut bytes);
            let set = bytes.iter().enumerate().filter(|(_, card)| **card != 0);
            set.for_each(|(index, _)| found(start + index as u64));
            start = end;
        }
    }

    fn wipe(&self, pages: PageRange) {
        let view = self.view(pages);
        view.fill(0, 0, view.length());
    }

    /// The cards of `pages`.
    fn view(&self, pages: PageRange) -> Uint8Array {
        let cards = view(&self.memory, self.offset + pages.start, pages.len());
        cards.expect("the table is inside its memory, which does not shrink")
    }
}

/// Whether `value` is a memory.
pub(crate) fn is_memory(value: &JsValue) -> bool {
    value.is_instance_of::<js_sys::WebAssembly::Memory>()
}
