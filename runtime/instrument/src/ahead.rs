//! Marks ahead of a loop: what they are, and their instructions.
//!
//! Invariants:
//! - nothing emitted traps: card indices come from addresses that were checked to be 32-bit ones;
//! - `steps` is at most [`UNBOUNDED`], so that its product with a stride fits in 64 bits.

use crate::limits;
use crate::marks::Marker;
use alloc::vec::Vec;
use wasm_encoder::{BlockType, InstructionSink};

/// Stands for a loop whose test bounds nothing: any stride times this leaves the address space.
const UNBOUNDED: i64 = 1 << 40;

const _: () = assert!(UNBOUNDED >= limits::MEMORY32_BYTES as i64);
const _: () = assert!(UNBOUNDED.checked_mul(limits::STRIDE_BYTES_MAX).is_some());

/// A sum over locals of type i32, modulo 2^32.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sum {
    /// Locals and their coefficients.
    pub terms: Vec<(u32, i64)>,
    pub constant: i64,
}

impl Sum {
    /// Adds `coefficient * (local - held)`.
    pub fn add(&mut self, local: u32, coefficient: i64, held: i64) {
        self.terms.push((local, coefficient));
        self.constant = self.constant.wrapping_sub(held.wrapping_mul(coefficient));
    }

    fn push(&self, sink: &mut InstructionSink<'_>) {
        let constant = self.constant as i32;
        if self.terms.is_empty() {
            sink.i32_const(constant);
            return;
        }
        for (number, &(local, coefficient)) in self.terms.iter().enumerate() {
            sink.local_get(local);
            match coefficient as i32 {
                1 => {}
                scale if scale > 0 && scale.count_ones() == 1 => {
                    sink.i32_const(scale.trailing_zeros() as i32).i32_shl();
                }
                scale => {
                    sink.i32_const(scale).i32_mul();
                }
            }
            if number > 0 {
                sink.i32_add();
            }
        }
        if constant != 0 {
            sink.i32_const(constant).i32_add();
        }
    }
}

/// How a loop's test bounds its iterations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TripKind {
    /// The loop goes on until the moving value meets the bound exactly.
    Until,
    /// The loop goes on while the moving value is before the bound, or at it.
    While { signed: bool, inclusive: bool },
}

/// How often a loop goes on: the moving value begins somewhere and takes steps towards the bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trip {
    pub kind: TripKind,
    /// Whether the value grows.
    pub up: bool,
    pub moving: Sum,
    pub bound: Sum,
    /// Size of a step, more than 0.
    pub step: i64,
}

/// The addresses of stores in a loop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    /// The address operand in the first iteration.
    pub begin: Sum,
    /// What an iteration adds to it.
    pub stride: i64,
    /// Lowest and highest byte to mark in one iteration, relative to the operand.
    pub low: i64,
    pub high: i64,
}

/// Marks ahead of one loop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ahead {
    /// Number of the `loop` instruction, and where it begins in the body.
    pub op: u32,
    pub at: usize,
    pub trip: Option<Trip>,
    pub spans: Vec<Span>,
}

/// Scratch locals for marks ahead of a loop.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Locals {
    /// Of type i64.
    pub steps: u32,
    pub low: u32,
    pub high: u32,
    /// Of type i32.
    pub first: u32,
    pub last: u32,
}

impl Ahead {
    /// Emits the marks.
    pub fn emit(&self, marker: &Marker<'_>, out: &mut Vec<u8>, locals: &Locals) {
        let sink = &mut InstructionSink::new(out);
        if let Some(trip) = &self.trip {
            trip.steps(sink, locals);
        }
        for span in &self.spans {
            if span.stride == 0 {
                span.fixed(marker, sink, locals);
            } else {
                span.range(marker, sink, locals);
            }
        }
    }
}

impl Trip {
    /// Computes how often the loop goes on into `steps`, or [`UNBOUNDED`].
    fn steps(&self, sink: &mut InstructionSink<'_>, locals: &Locals) {
        match self.kind {
            TripKind::Until => self.until(sink, locals),
            TripKind::While { signed, inclusive } => self.while_before(sink, locals, signed, inclusive),
        }
        sink.local_set(locals.steps);
    }

    /// The distance, divided by the step; if that leaves a rest, the bound is jumped over.
    fn until(&self, sink: &mut InstructionSink<'_>, locals: &Locals) {
        let (from, to) = if self.up {
            (&self.moving, &self.bound)
        } else {
            (&self.bound, &self.moving)
        };
        to.push(sink);
        if *from != Sum::default() {
            from.push(sink);
            sink.i32_sub();
        }
        sink.i64_extend_i32_u();
        if self.step == 1 {
            return;
        }
        sink.local_set(locals.low)
            .i64_const(UNBOUNDED)
            .local_get(locals.low);
        divide(sink, self.step);
        sink.local_get(locals.low)
            .i64_const(self.step)
            .i64_rem_u()
            .i64_eqz()
            .i32_eqz()
            .select();
    }

    /// The distance, divided by the step and rounded up; none if the bound lies behind. A bound so near to the end of the
    /// number range that a step may wrap bounds nothing.
    fn while_before(&self, sink: &mut InstructionSink<'_>, locals: &Locals, signed: bool, inclusive: bool) {
        let (lowest, highest) = if signed {
            (i64::from(i32::MIN), i64::from(i32::MAX))
        } else {
            (0, i64::from(u32::MAX))
        };
        let further = if inclusive { 1 } else { 0 };
        let wide = |sink: &mut InstructionSink<'_>, sum: &Sum| {
            sum.push(sink);
            if signed {
                sink.i64_extend_i32_s()
            } else {
                sink.i64_extend_i32_u()
            };
        };
        // `high` is the bound that is not reached, `low` the distance to it.
        wide(sink, &self.bound);
        if inclusive {
            sink.i64_const(if self.up { 1 } else { -1 }).i64_add();
        }
        sink.local_set(locals.high);
        if self.up {
            sink.local_get(locals.high);
            wide(sink, &self.moving);
        } else {
            wide(sink, &self.moving);
            sink.local_get(locals.high);
        }
        sink.i64_sub().local_set(locals.low);
        let may_wrap = self.step + further > 1;
        if may_wrap {
            sink.i64_const(UNBOUNDED);
        }
        sink.local_get(locals.low);
        if self.step > 1 {
            sink.i64_const(self.step - 1).i64_add();
            divide(sink, self.step);
        }
        sink.i64_const(0)
            .local_get(locals.low)
            .i64_const(0)
            .i64_gt_s()
            .select();
        if may_wrap {
            sink.local_get(locals.high);
            if self.up {
                sink.i64_const(highest - (self.step - 1)).i64_gt_s();
            } else {
                sink.i64_const(lowest + (self.step - 1)).i64_lt_s();
            }
            sink.select();
        }
    }
}

fn divide(sink: &mut InstructionSink<'_>, step: i64) {
    if step.count_ones() == 1 {
        sink.i64_const(i64::from(step.trailing_zeros())).i64_shr_u();
    } else {
        sink.i64_const(step).i64_div_u();
    }
}

impl Span {
    /// Marks for an address that does not move.
    fn fixed(&self, marker: &Marker<'_>, sink: &mut InstructionSink<'_>, locals: &Locals) {
        self.begin.push(sink);
        sink.local_set(locals.first);
        marker.card_of(sink, locals.first, self.low);
        if self.high > self.low {
            marker.card_of(sink, locals.first, self.high);
        }
    }

    /// Marks for all pages from the lowest address to the highest.
    fn range(&self, marker: &Marker<'_>, sink: &mut InstructionSink<'_>, locals: &Locals) {
        let top = limits::MEMORY32_BYTES as i64 - 1;
        let (from_begin, from_end) = if self.stride > 0 {
            (self.low, self.high)
        } else {
            (self.high, self.low)
        };
        let (near, far) = if self.stride > 0 {
            (locals.low, locals.high)
        } else {
            (locals.high, locals.low)
        };
        self.begin.push(sink);
        sink.i64_extend_i32_u().local_tee(near);
        sink.local_get(locals.steps);
        times(sink, self.stride);
        sink.i64_add();
        plus(sink, from_end);
        sink.local_set(far);
        if from_begin != 0 {
            sink.local_get(near);
            plus(sink, from_begin);
            sink.local_set(near);
        }
        // Below the address space is above it in unsigned numbers.
        sink.local_get(locals.high).i64_const(top).i64_gt_u();
        if self.stride < 0 || self.low < 0 {
            sink.local_get(locals.low).i64_const(0).i64_lt_s().i32_or();
        }
        sink.if_(BlockType::Empty);
        sink.i64_const(0)
            .local_set(locals.low)
            .i64_const(top)
            .local_set(locals.high);
        sink.end();
        for (address, card) in [(locals.low, locals.first), (locals.high, locals.last)] {
            marker.card_of_wide(sink, address, card);
        }
        marker.between(sink, locals.first, locals.last);
    }
}

fn times(sink: &mut InstructionSink<'_>, factor: i64) {
    if factor > 0 && factor.count_ones() == 1 {
        if factor > 1 {
            sink.i64_const(i64::from(factor.trailing_zeros())).i64_shl();
        }
    } else {
        sink.i64_const(factor).i64_mul();
    }
}

fn plus(sink: &mut InstructionSink<'_>, addend: i64) {
    if addend != 0 {
        sink.i64_const(addend).i64_add();
    }
}
