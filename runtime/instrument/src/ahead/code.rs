//! The instructions that compute a range from where a loop's values begin.
//!
//! Invariants:
//! - every sum of 32-bit operands is widened before it is multiplied, divided or compared;
//! - `low` is the lowest and `high` the highest address once [`Code::edges`] has run; before that they are scratch.

use crate::ahead::{
    Locals, MarkerFunction, MarkerFunctions, Shape, Step, Sum, TOP, TripKind, UNBOUNDED, or_everything,
};
use crate::limits;
use crate::marks::Marker;
use wasm_encoder::{BlockType, InstructionSink};

/// A shape with what it is made of.
pub(super) struct Code<'a> {
    pub shape: &'a Shape,
    pub moving: &'a Sum,
    pub bound: &'a Sum,
    pub begin: &'a Sum,
    /// The local that holds the step, if that is a value.
    pub step: Option<u32>,
    pub locals: Locals,
}

impl Code<'_> {
    /// How often the loop goes on, or [`UNBOUNDED`], if that does not depend on a local.
    fn known_steps(&self) -> Option<i64> {
        match (self.moving.known(), self.bound.known(), self.shape.step) {
            (Some(moving), Some(bound), Step::Constant(step)) => {
                Some(self.shape.known_steps(moving, bound, step))
            }
            _ => None,
        }
    }

    /// Computes how often the loop goes on, or [`UNBOUNDED`], if that is not known.
    pub fn steps(&self, sink: &mut InstructionSink<'_>) {
        if self.known_steps().is_some() {
            return;
        }
        match self.shape.kind {
            TripKind::Until => self.until(sink),
            TripKind::While { signed, inclusive } => self.while_before(sink, signed, inclusive),
        }
        sink.local_set(self.locals.steps);
    }

    /// The distance, divided by the step; if that leaves a rest, the bound is jumped over.
    fn until(&self, sink: &mut InstructionSink<'_>) {
        let (from, to) = if self.shape.up {
            (self.moving, self.bound)
        } else {
            (self.bound, self.moving)
        };
        to.push(sink, 0);
        if *from != Sum::default() {
            from.push(sink, 0);
            sink.i32_sub();
        }
        sink.i64_extend_i32_u();
        let Step::Constant(step) = self.shape.step else {
            unreachable!("the step of a loop that ends on equality is a constant")
        };
        if step == 1 {
            return;
        }
        let distance = self.locals.low;
        sink.local_set(distance).i64_const(UNBOUNDED).local_get(distance);
        divide(sink, step);
        sink.local_get(distance)
            .i64_const(step)
            .i64_rem_u()
            .i64_const(0)
            .i64_ne()
            .select();
    }

    /// The distance, divided by the step and rounded up; none if the bound lies behind. A bound so near to the end of the
    /// number range that a step may wrap bounds nothing.
    fn while_before(&self, sink: &mut InstructionSink<'_>, signed: bool, inclusive: bool) {
        let (end, distance) = (self.locals.high, self.locals.low);
        let wide = |sink: &mut InstructionSink<'_>, sum: &Sum| {
            sum.push(sink, 0);
            if signed {
                sink.i64_extend_i32_s()
            } else {
                sink.i64_extend_i32_u()
            };
        };
        // The first value that ends the loop.
        wide(sink, self.bound);
        if inclusive {
            sink.i64_const(if self.shape.up { 1 } else { -1 }).i64_add();
        }
        if self.shape.up {
            sink.local_tee(end);
            wide(sink, self.moving);
        } else {
            sink.local_set(end);
            wide(sink, self.moving);
            sink.local_get(end);
        }
        sink.i64_sub().local_set(distance);
        let may_wrap = inclusive || self.shape.step != Step::Constant(1);
        if may_wrap {
            self.wraps(sink, signed);
            sink.i64_const(UNBOUNDED);
        }
        sink.local_get(distance);
        self.rounded_up(sink);
        sink.i64_const(0)
            .local_get(distance)
            .i64_const(0)
            .i64_gt_s()
            .select();
        if may_wrap {
            sink.local_get(self.locals.flag).select();
        }
    }

    /// Sets the flag if a step from before the bound may wrap. The step is then 1, as [`UNBOUNDED`] steps are assumed.
    fn wraps(&self, sink: &mut InstructionSink<'_>, signed: bool) {
        let (lowest, highest) = if signed {
            (i64::from(i32::MIN), i64::from(i32::MAX))
        } else {
            (0, TOP)
        };
        let flag = self.locals.flag;
        sink.local_get(self.locals.high);
        match (self.shape.step, self.shape.up) {
            (Step::Constant(step), true) => sink.i64_const(highest - (step - 1)).i64_gt_s(),
            (Step::Constant(step), false) => sink.i64_const(lowest + (step - 1)).i64_lt_s(),
            (Step::Value, true) => {
                sink.i64_const(highest + 1);
                self.push_step(sink);
                sink.i64_sub().i64_gt_s()
            }
            (Step::Value, false) => {
                sink.i64_const(lowest - 1);
                self.push_step(sink);
                sink.i64_add().i64_lt_s()
            }
        };
        sink.local_set(flag);
        if let Some(step) = self.step {
            sink.i32_const(1)
                .local_get(step)
                .local_get(flag)
                .select()
                .local_set(step);
        }
    }

    /// Pushes the step, of type i64.
    fn push_step(&self, sink: &mut InstructionSink<'_>) {
        match (self.shape.step, self.step) {
            (Step::Constant(step), _) => sink.i64_const(step),
            (Step::Value, Some(step)) => sink.local_get(step).i64_extend_i32_u(),
            (Step::Value, None) => unreachable!("a step that is a value is a parameter"),
        };
    }

    /// Divides the distance on the stack by the step, and rounds up. A step of 0 counts as 1: the address does not move.
    fn rounded_up(&self, sink: &mut InstructionSink<'_>) {
        match self.shape.step {
            Step::Constant(1) => {}
            Step::Constant(step) => {
                sink.i64_const(step - 1).i64_add();
                divide(sink, step);
            }
            Step::Value => {
                self.push_step(sink);
                sink.i64_const(-1).i64_add().i64_add();
                self.push_step(sink);
                self.push_step(sink);
                sink.i64_eqz().i64_extend_i32_u().i64_or().i64_div_u();
            }
        }
    }

    /// Computes the lowest and the highest address.
    pub fn edges(&self, sink: &mut InstructionSink<'_>) {
        let (near, near_edge, far, far_edge) = self.directed();
        self.begin.push(sink, 0);
        sink.i64_extend_i32_u();
        if near_edge == 0 {
            sink.local_tee(near);
        } else {
            sink.i64_const(near_edge).i64_add().local_tee(near);
        }
        match self.known_steps() {
            Some(steps) => sink
                .i64_const(steps * self.shape.stride + (far_edge - near_edge))
                .i64_add(),
            None => {
                sink.local_get(self.locals.steps);
                self.push_stride(sink);
                sink.i64_mul().i64_add();
                sink.i64_const(far_edge - near_edge).i64_add()
            }
        };
        sink.local_set(far);
    }

    /// The local and the edge of the first iteration, then those of the last.
    fn directed(&self) -> (u32, i64, u32, i64) {
        let (low, high) = (
            (self.locals.low, self.shape.low),
            (self.locals.high, self.shape.high),
        );
        let (near, far) = if self.shape.stride > 0 {
            (low, high)
        } else {
            (high, low)
        };
        (near.0, near.1, far.0, far.1)
    }

    /// Pushes what an iteration adds to the address.
    fn push_stride(&self, sink: &mut InstructionSink<'_>) {
        sink.i64_const(self.shape.stride);
        if self.shape.step == Step::Value {
            self.push_step(sink);
            sink.i64_mul();
        }
    }

    /// Marks the two pages, if they are no more, and leaves the rest to a function.
    pub fn two_pages(
        &self,
        marker: &Marker<'_>,
        functions: &mut MarkerFunctions,
        sink: &mut InstructionSink<'_>,
    ) {
        let Locals { low, high, .. } = self.locals;
        let shift = marker.plan.cards.page_size_shift;
        let cards = limits::MEMORY32_BYTES as i64 >> shift;
        let card = |sink: &mut InstructionSink<'_>, address: u32| {
            sink.local_get(address).i64_const(i64::from(shift)).i64_shr_u();
        };
        // If the higher card exists, the lower one does too, or the distance is not 0 or 1.
        card(sink, high);
        card(sink, low);
        sink.i64_sub().i64_const(1).i64_gt_u();
        sink.local_get(high).i64_const(cards << shift).i64_ge_u().i32_or();
        sink.if_(BlockType::Empty);
        sink.local_get(low).local_get(high);
        sink.call(marker.plan.functions + functions.number(MarkerFunction::Between));
        sink.else_();
        for address in [low, high] {
            card(sink, address);
            sink.i32_wrap_i64();
            marker.card_at_top(sink);
        }
        sink.end();
    }

    /// Marks all pages from the lowest address to the highest, or one by one where strides are longer than a page.
    pub fn all_pages(&self, marker: &Marker<'_>, sink: &mut InstructionSink<'_>, last: u32) {
        let Locals {
            low,
            high,
            flag: first,
            ..
        } = self.locals;
        or_everything(sink, low, high);
        sink.else_();
        self.one_by_one(marker, sink);
        sink.end();
        for (address, card) in [(low, first), (high, last)] {
            marker.card_of_wide(sink, address, card);
        }
        marker.between(sink, first, last);
    }

    /// If the stride is longer than a page: marks what each iteration begins on, and returns.
    fn one_by_one(&self, marker: &Marker<'_>, sink: &mut InstructionSink<'_>) {
        let page = marker.plan.page_bytes();
        let (near, near_edge, far, far_edge) = self.directed();
        match self.shape.step {
            Step::Constant(_) => sink.i32_const(i32::from(self.shape.stride.abs() > page)),
            Step::Value => {
                self.push_step(sink);
                sink.i64_const(self.shape.stride.abs())
                    .i64_mul()
                    .i64_const(page)
                    .i64_gt_u()
            }
        };
        sink.if_(BlockType::Empty).loop_(BlockType::Empty);
        marker.card_of_wide(sink, near, self.locals.flag);
        if far_edge != near_edge {
            sink.local_get(near)
                .i64_const(far_edge - near_edge)
                .i64_add()
                .local_set(far);
            marker.card_of_wide(sink, far, self.locals.flag);
        }
        sink.local_get(near);
        self.push_stride(sink);
        sink.i64_add().local_set(near);
        sink.local_get(self.locals.steps)
            .i64_const(-1)
            .i64_add()
            .local_tee(self.locals.steps);
        sink.i64_const(0).i64_ge_s().br_if(0).end();
        sink.return_().end();
    }
}

fn divide(sink: &mut InstructionSink<'_>, step: i64) {
    if step.count_ones() == 1 {
        sink.i64_const(i64::from(step.trailing_zeros())).i64_shr_u();
    } else {
        sink.i64_const(step).i64_div_u();
    }
}
