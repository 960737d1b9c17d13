//! Ranges of addresses: what of them can be stored to, and marking it.
//!
//! A range is computed in 64 bits from where a loop begins and how often it goes on. What lies outside the memory cannot be
//! stored to: the loop ends there in a trap. Only a stride that leads over everything that is no memory would come back into
//! it at the other end of the address space.
//!
//! Invariants:
//! - every card that a [`Range`] sets stands for a page of the memory as large as it is now: it does not grow in a loop with marks
//!   ahead.

use crate::ahead::TOP;
use crate::limits;
use crate::marks::Marker;
use wasm_encoder::{BlockType, Function, InstructionSink, ValType};

/// A range in locals of type i64, and one for the end of the memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Range {
    pub low: u32,
    pub high: u32,
    pub end: u32,
}

/// The marker function that marks from one address to another, both of iterations at most a page apart. Short ranges, which are
/// most, take the short way.
pub(super) fn between(marker: &Marker<'_>) -> Function {
    let range = Range {
        low: 0,
        high: 1,
        end: 2,
    };
    let mut function = Function::new([(1, ValType::I64), (2, ValType::I32)]);
    let sink = &mut function.instructions();
    let page = marker.plan.page_bytes();
    sink.local_get(range.high).local_get(range.low).i64_sub();
    sink.i64_const(page).i64_le_u().if_(BlockType::Empty);
    // Of an address outside the 32-bit ones, that of another page is marked: a store to it traps.
    for address in [range.low, range.high] {
        sink.local_get(address).i32_wrap_i64();
        marker.card_of_top(sink);
    }
    sink.return_().end();
    range.may_come_back(marker, sink, |sink| {
        sink.i64_const(page);
    });
    sink.if_(BlockType::Empty);
    range.widen(sink);
    sink.end();
    range.mark(marker, sink, 3, 4);
    sink.end();
    function
}

/// The marker function that marks the pages of so many bytes from an address on, modulo the address space: if they are not all in
/// the memory, the bulk store writes nothing and traps.
pub(super) fn bytes(marker: &Marker<'_>) -> Function {
    let (address, len) = (0, 1);
    let mut function = Function::new([]);
    let sink = &mut function.instructions();
    let page = marker.plan.page_bytes() as i32;
    sink.local_get(len).if_(BlockType::Empty);
    sink.local_get(address);
    marker.card_of_top(sink);
    sink.local_get(address).local_get(len).i32_add();
    sink.i32_const(1).i32_sub();
    marker.card_of_top(sink);
    // The pages between. A fill would be a call.
    sink.block(BlockType::Empty).loop_(BlockType::Empty);
    sink.local_get(len).i32_const(page).i32_le_u().br_if(1);
    sink.local_get(len).i32_const(page).i32_sub().local_set(len);
    sink.local_get(address)
        .i32_const(page)
        .i32_add()
        .local_tee(address);
    marker.card_of_top(sink);
    sink.br(0).end().end();
    sink.end().end();
    function
}

/// Pushes the size of the memory in bytes, of type i64.
pub(crate) fn memory_bytes(marker: &Marker<'_>, sink: &mut InstructionSink<'_>) {
    let unit_log2 = marker.plan.tracked_type.page_size_log2;
    sink.memory_size(marker.plan.cards.tracked);
    if !marker.plan.is_64() {
        sink.i64_extend_i32_u();
    }
    sink.i64_const(unit_log2.unwrap_or(limits::WASM_PAGE_LOG2).into())
        .i64_shl();
}

impl Range {
    /// Sets `end`, and pushes whether the range leaves the address space and may come back into the memory at its other end.
    /// `stride` pushes the distance of two iterations; to it comes that of the stores of one, which is a page.
    pub fn may_come_back(
        self,
        marker: &Marker<'_>,
        sink: &mut InstructionSink<'_>,
        stride: impl FnOnce(&mut InstructionSink<'_>),
    ) {
        // Below the address space is above it in unsigned numbers.
        sink.local_get(self.high).i64_const(TOP).i64_gt_u();
        sink.local_get(self.low).i64_const(0).i64_lt_s().i32_or();
        memory_bytes(marker, sink);
        sink.local_tee(self.end);
        stride(sink);
        sink.i64_add()
            .i64_const(limits::MEMORY32_BYTES as i64 - marker.plan.page_bytes())
            .i64_gt_s();
        sink.i32_and();
    }

    /// Widens the range to the whole address space.
    pub fn widen(self, sink: &mut InstructionSink<'_>) {
        sink.i64_const(0).local_set(self.low);
        sink.i64_const(TOP).local_set(self.high);
    }

    /// Marks what of the range lies in the memory, and returns. `first` and `last` are scratch of type i32.
    pub fn mark(self, marker: &Marker<'_>, sink: &mut InstructionSink<'_>, first: u32, last: u32) {
        let Self { low, high, end } = self;
        sink.local_get(low).i64_const(0);
        sink.local_get(low)
            .i64_const(0)
            .i64_gt_s()
            .select()
            .local_tee(low);
        sink.local_get(end)
            .i64_const(1)
            .i64_sub()
            .local_tee(end)
            .local_get(high);
        sink.local_get(end)
            .local_get(high)
            .i64_lt_s()
            .select()
            .local_tee(high);
        sink.i64_le_s().if_(BlockType::Empty);
        for (address, card) in [(low, first), (high, last)] {
            marker.card_of_wide(sink, address, card);
        }
        marker.between(sink, first, last);
        sink.end();
    }
}
