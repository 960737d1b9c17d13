//! What a mark is made of: the instructions that set cards.
//!
//! Invariants:
//! - what is emitted leaves the operand stack as it was, and assigns scratch locals only;
//! - nothing emitted traps: for a 32-bit memory every 32-bit address has a card; for a 64-bit one a mark is only made for an
//!   address at which a store has succeeded, or that was found to be in the memory.

use crate::ahead::memory_bytes;
use crate::plan::Plan;
use alloc::vec::Vec;
use wasm_encoder::{BlockType, InstructionSink, MemArg};

/// A base address that is still there after the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Anchor {
    /// The address is a constant.
    Constant(i64),
    /// This local plus so many bytes is the address operand.
    Local { local: u32, delta: i64 },
}

/// Emits marks for one module.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Marker<'a> {
    pub plan: &'a Plan,
}

impl Marker<'_> {
    fn card(&self) -> MemArg {
        MemArg {
            offset: self.plan.cards.offset,
            align: 0,
            memory_index: self.plan.cards.memory,
        }
    }

    /// Turns the address on the stack into the index of its card.
    fn index(&self, sink: &mut InstructionSink<'_>) {
        let shift = self.plan.cards.page_size_shift;
        if self.plan.is_64() {
            sink.i64_const(i64::from(shift)).i64_shr_u().i32_wrap_i64();
        } else {
            sink.i32_const(shift as i32).i32_shr_u();
        }
    }

    /// Pushes `local + delta`.
    fn address(&self, sink: &mut InstructionSink<'_>, local: u32, delta: i64) {
        sink.local_get(local);
        match (self.plan.wrap(delta), self.plan.is_64()) {
            (0, _) => sink,
            (delta, true) => sink.i64_const(delta).i64_add(),
            (delta, false) => sink.i32_const(delta as i32).i32_add(),
        };
    }

    /// Marks the card of the address that lies `distance` bytes from the anchor's.
    pub fn one(&self, out: &mut Vec<u8>, anchor: Anchor, distance: i64) {
        let sink = &mut InstructionSink::new(out);
        if self.push_card(sink, anchor, distance) {
            sink.i32_const(1).i32_store8(self.card());
        }
    }

    /// The same, with a look at the card first: it is set only if it is clear.
    pub fn one_if_clear(&self, out: &mut Vec<u8>, anchor: Anchor, distance: i64) {
        if self.push_card(&mut InstructionSink::new(out), anchor, distance) {
            let sink = &mut InstructionSink::new(out);
            sink.i32_load8_u(self.card()).i32_eqz().if_(BlockType::Empty);
            self.one(out, anchor, distance);
            InstructionSink::new(out).end();
        }
    }

    /// Pushes the index of that card; `false`: there is none.
    fn push_card(&self, sink: &mut InstructionSink<'_>, anchor: Anchor, distance: i64) -> bool {
        match anchor {
            Anchor::Constant(address) => {
                let address = address.wrapping_add(distance) as u64;
                let address = if self.plan.is_64() {
                    address
                } else {
                    u64::from(address as u32)
                };
                let card = self.plan.cards.card_of(address);
                if card >= self.plan.cards.len {
                    return false;
                }
                sink.i32_const(card as u32 as i32);
            }
            Anchor::Local { local, delta } => {
                self.address(sink, local, delta.wrapping_add(distance));
                self.index(sink);
            }
        }
        true
    }

    /// Marks the cards of `len` bytes from `address` on, all three being locals; nothing for no bytes. `len_is_64` tells the
    /// type of `len`; `first` and `last` are scratch of type i32.
    pub fn range(&self, out: &mut Vec<u8>, address: u32, len: u32, len_is_64: bool, first: u32, last: u32) {
        let sink = &mut InstructionSink::new(out);
        sink.local_get(len);
        if len_is_64 {
            sink.i64_const(0).i64_ne();
        }
        sink.if_(BlockType::Empty);
        sink.local_get(address);
        self.index(sink);
        sink.local_tee(first).i32_const(1).i32_store8(self.card());
        sink.local_get(address).local_get(len);
        match (self.plan.is_64(), len_is_64) {
            (true, true) => sink.i64_add().i64_const(-1).i64_add(),
            (true, false) => sink.i64_extend_i32_u().i64_add().i64_const(-1).i64_add(),
            (false, _) => sink.i32_add().i32_const(-1).i32_add(),
        };
        self.index(sink);
        sink.local_tee(last).i32_const(1).i32_store8(self.card());
        self.between(sink, first, last);
        sink.end();
    }

    /// The same before the bytes are stored: nothing if they are not all in the memory, as the bulk store then writes nothing.
    pub fn range_ahead(
        &self,
        out: &mut Vec<u8>,
        address: u32,
        len: u32,
        len_is_64: bool,
        first: u32,
        last: u32,
    ) {
        let sink = &mut InstructionSink::new(out);
        wide(sink, len, len_is_64);
        memory_bytes(self, sink);
        sink.i64_le_u().if_(BlockType::Empty);
        wide(sink, address, self.plan.is_64());
        memory_bytes(self, sink);
        wide(sink, len, len_is_64);
        sink.i64_sub().i64_le_u().if_(BlockType::Empty);
        self.range(out, address, len, len_is_64, first, last);
        InstructionSink::new(out).end().end();
    }

    /// Marks the card of the address on the stack.
    pub fn card_of_top(&self, sink: &mut InstructionSink<'_>) {
        self.index(sink);
        sink.i32_const(1).i32_store8(self.card());
    }

    /// Marks the card of a 32-bit address in a local of type i64, and keeps the card's index.
    pub fn card_of_wide(&self, sink: &mut InstructionSink<'_>, address: u32, card: u32) {
        sink.local_get(address)
            .i64_const(i64::from(self.plan.cards.page_size_shift))
            .i64_shr_u()
            .i32_wrap_i64();
        sink.local_tee(card).i32_const(1).i32_store8(self.card());
    }

    /// Marks the cards between two that are marked: locals of type i32, `first <= last`.
    pub fn between(&self, sink: &mut InstructionSink<'_>, first: u32, last: u32) {
        sink.local_get(last)
            .local_get(first)
            .i32_sub()
            .i32_const(1)
            .i32_gt_u()
            .if_(BlockType::Empty);
        sink.local_get(first)
            .i32_const((self.plan.cards.offset + 1) as u32 as i32)
            .i32_add();
        sink.i32_const(1);
        sink.local_get(last)
            .local_get(first)
            .i32_sub()
            .i32_const(-1)
            .i32_add();
        sink.memory_fill(self.plan.cards.memory);
        sink.end();
    }
}

/// Pushes a local as a number of 64 bits.
fn wide(sink: &mut InstructionSink<'_>, local: u32, is_64: bool) {
    sink.local_get(local);
    if !is_64 {
        sink.i64_extend_i32_u();
    }
}
