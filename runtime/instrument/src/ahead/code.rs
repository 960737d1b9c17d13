//! The instructions that compute a range from where a loop's values begin.
//!
//! Invariants:
//! - every sum of 32-bit operands is widened before it is multiplied, divided or compared;
//! - `low` and `high` are scratch until the lowest and the highest address are put there.

use crate::ahead::{Locals, Shape, Step, Sum, TripKind, UNBOUNDED, limits_of, range::Range};
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

    /// The distance, divided by the step and rounded up; none if the bound lies behind. If the last step wraps, the bound
    /// bounds nothing.
    fn while_before(&self, sink: &mut InstructionSink<'_>, signed: bool, inclusive: bool) {
        let (near, far) = if self.shape.up {
            (self.moving, self.bound)
        } else {
            (self.bound, self.moving)
        };
        wide(sink, far, signed);
        wide(sink, near, signed);
        sink.i64_sub();
        if inclusive {
            sink.i64_const(1).i64_add();
        }
        let distance = self.locals.low;
        sink.local_set(distance);
        let may_wrap = inclusive || self.shape.step != Step::Constant(1);
        if may_wrap {
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
            sink.local_tee(self.locals.steps);
            self.wraps(sink, signed);
            sink.select();
        }
    }

    /// Pushes whether the last of the steps wraps. Where the step is a value, it is kept in the flag.
    fn wraps(&self, sink: &mut InstructionSink<'_>, signed: bool) {
        let (lowest, highest) = limits_of(signed);
        wide(sink, self.moving, signed);
        sink.local_get(self.locals.steps);
        self.push_step(sink);
        sink.i64_mul();
        if self.shape.up {
            sink.i64_add().i64_const(highest).i64_gt_s();
        } else {
            sink.i64_sub().i64_const(lowest).i64_lt_s();
        }
        if self.step.is_some() {
            sink.local_tee(self.locals.flag);
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

    /// Pushes the lowest and the highest address.
    pub fn edges(&self, sink: &mut InstructionSink<'_>) {
        let near = self.near(sink);
        if self.shape.stride > 0 {
            sink.local_get(near);
        }
        self.add_way(sink);
        if self.shape.stride < 0 {
            sink.local_get(near);
        }
    }

    /// Pushes the address that the first iteration begins at, and keeps it in the local that is returned.
    fn near(&self, sink: &mut InstructionSink<'_>) -> u32 {
        let (near, near_edge, _, _) = self.directed();
        self.begin.push(sink, 0);
        sink.i64_extend_i32_u();
        if near_edge != 0 {
            sink.i64_const(near_edge).i64_add();
        }
        sink.local_tee(near);
        near
    }

    /// Adds the way from the first iteration to the end of the last.
    fn add_way(&self, sink: &mut InstructionSink<'_>) {
        let (_, near_edge, _, far_edge) = self.directed();
        let width = far_edge - near_edge;
        if let Some(steps) = self.known_steps() {
            sink.i64_const(steps * self.shape.stride + width).i64_add();
            return;
        }
        sink.local_get(self.locals.steps);
        self.push_stride(sink, self.shape.stride);
        sink.i64_mul().i64_add();
        if width != 0 {
            sink.i64_const(width).i64_add();
        }
    }

    /// Marks from the first iteration's page to the last one's, modulo the address space: as no stride is longer than a page, no
    /// page is between two marks.
    pub fn walk(&self, marker: &Marker<'_>, sink: &mut InstructionSink<'_>) {
        let (near, _, far, _) = self.directed();
        let mark = |sink: &mut InstructionSink<'_>, address| {
            sink.local_get(address).i32_wrap_i64();
            marker.card_of_top(sink);
        };
        self.near(sink);
        self.add_way(sink);
        sink.local_set(far).loop_(BlockType::Empty);
        mark(sink, near);
        let page = marker.plan.page_bytes() * self.shape.stride.signum();
        sink.local_get(near).i64_const(page).i64_add();
        sink.local_tee(near).local_get(far);
        if self.shape.stride > 0 {
            sink.i64_lt_s();
        } else {
            sink.i64_gt_s();
        }
        sink.br_if(0).end();
        mark(sink, far);
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

    /// Pushes `stride`, in bytes also where it is one in steps.
    fn push_stride(&self, sink: &mut InstructionSink<'_>, stride: i64) {
        sink.i64_const(stride);
        if self.shape.step == Step::Value {
            self.push_step(sink);
            sink.i64_mul();
        }
    }

    /// Marks all pages from the lowest address to the highest, or one by one where strides are longer than a page. `end` is
    /// scratch of type i64, `last` of type i32.
    pub fn all_pages(&self, marker: &Marker<'_>, sink: &mut InstructionSink<'_>, end: u32, last: u32) {
        let Locals { low, high, flag, .. } = self.locals;
        let range = Range { low, high, end };
        range.may_come_back(marker, sink, |sink| {
            self.push_stride(sink, self.shape.stride.abs())
        });
        if self.step.is_some() {
            // The number of steps is not known, nor is then their product with the stride.
            sink.local_get(flag).i32_or();
        }
        sink.if_(BlockType::Empty);
        range.widen(sink);
        sink.else_();
        self.one_by_one(marker, sink, end);
        sink.end();
        range.mark(marker, sink, flag, last);
    }

    /// If the stride is longer than a page: marks what each iteration begins on, and returns.
    fn one_by_one(&self, marker: &Marker<'_>, sink: &mut InstructionSink<'_>, end: u32) {
        let (near, near_edge, far, far_edge) = self.directed();
        self.push_stride(sink, self.shape.stride.abs());
        sink.i64_const(marker.plan.page_bytes()).i64_gt_s();
        sink.if_(BlockType::Empty).loop_(BlockType::Empty);
        sink.local_get(near)
            .i64_const(far_edge - near_edge)
            .i64_add()
            .local_set(far);
        for address in [near, far] {
            sink.local_get(address)
                .local_get(end)
                .i64_lt_u()
                .if_(BlockType::Empty);
            marker.card_of_wide(sink, address, self.locals.flag);
            sink.end();
        }
        // Once the near edge is past the memory, there is nothing to come.
        sink.local_get(near);
        if self.shape.stride > 0 {
            sink.local_get(end).i64_lt_s();
        } else {
            sink.i64_const(0).i64_ge_s();
        }
        sink.local_get(near);
        self.push_stride(sink, self.shape.stride);
        sink.i64_add().local_set(near);
        sink.local_get(self.locals.steps)
            .i64_const(-1)
            .i64_add()
            .local_tee(self.locals.steps);
        sink.i64_const(0).i64_ge_s().i32_and().br_if(0).end();
        sink.return_().end();
    }
}

/// Pushes a sum of 32 bits as a number of 64.
fn wide(sink: &mut InstructionSink<'_>, sum: &Sum, signed: bool) {
    sum.push(sink, 0);
    if signed {
        sink.i64_extend_i32_s();
    } else {
        sink.i64_extend_i32_u();
    }
}

fn divide(sink: &mut InstructionSink<'_>, step: i64) {
    if step.count_ones() == 1 {
        sink.i64_const(i64::from(step.trailing_zeros())).i64_shr_u();
    } else {
        sink.i64_const(step).i64_div_u();
    }
}
