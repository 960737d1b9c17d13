//! Marks ahead of a loop: what they are, and the functions that they call. The instructions are in [`code`].
//!
//! Before the loop is computed how often it goes on, and the lowest and the highest address. A loop in another loop then marks
//! page by page: a call would put what is in registers on the stack, and loops have been seen to use it from there. For other
//! loops the rest is in *marker functions* that are added to the module, so that they become little longer; strides over a page
//! and steps that are not constants are computed there too. Bulk stores have one that is called before them.
//!
//! ```text
//!   before the loop   steps --> low, high --> in another loop: page after page
//!                       |                 --> else call between(low, high): two pages, or more
//!                       +-- stride over a page, or step not a constant: call shape(moving, bound, begin [, step])
//! ```
//!
//! Invariants:
//! - nothing emitted traps: card indices come from addresses that were checked to be 32-bit ones;
//! - the number of steps is at most [`UNBOUNDED`], so that its product with a stride fits in 64 bits;
//! - if the call of a marker function exhausts the stack, none of the stores that it is for has run.

mod code;
mod range;

use crate::limits;
use crate::marks::Marker;
use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;
use code::Code;
pub(crate) use range::memory_bytes;
use wasm_encoder::{Function, InstructionSink, ValType};

/// Stands for a loop whose test bounds nothing: any stride times this goes round the address space.
const UNBOUNDED: i64 = limits::MEMORY32_BYTES as i64;

const _: () = assert!(UNBOUNDED.checked_mul(limits::STRIDE_BYTES_MAX).is_some());
const _: () = assert!(
    (limits::MEMORY32_BYTES as i64 * 2)
        .checked_mul(limits::STRIDE_BYTES_MAX)
        .is_some()
);

/// Highest address of a 32-bit memory.
pub(crate) const TOP: i64 = limits::MEMORY32_BYTES as i64 - 1;

/// A sum over locals of type i32, modulo 2^32.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sum {
    /// Locals and their coefficients.
    pub terms: Vec<(u32, i64)>,
    pub constant: i64,
}

impl Sum {
    fn of(local: u32) -> Self {
        Self {
            terms: vec![(local, 1)],
            constant: 0,
        }
    }

    /// Adds `coefficient * (local - held)`.
    pub fn add(&mut self, local: u32, coefficient: i64, held: i64) {
        self.terms.push((local, coefficient));
        self.constant = self.constant.wrapping_sub(held.wrapping_mul(coefficient));
    }

    pub fn add_constant(&mut self, addend: i64) {
        self.constant = self.constant.wrapping_add(addend);
    }

    /// The sum, if it does not depend on a local.
    fn known(&self) -> Option<i32> {
        self.terms.is_empty().then_some(self.constant as i32)
    }

    fn push(&self, sink: &mut InstructionSink<'_>, addend: i64) {
        let constant = self.constant.wrapping_add(addend) as i32;
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum TripKind {
    /// The loop goes on until the moving value meets the bound exactly.
    Until,
    /// The loop goes on while the moving value is before the bound, or at it.
    While { signed: bool, inclusive: bool },
}

/// How far the moving value moves in each iteration, towards the bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Step {
    /// By this much, more than 0.
    Constant(i64),
    /// By what a value that the loop does not change holds, as an unsigned number.
    Value,
}

/// What is known of a range beforehand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Shape {
    pub kind: TripKind,
    /// Whether the moving value grows.
    pub up: bool,
    pub step: Step,
    /// What an iteration adds to the address, in bytes; in steps if the step is a value. Not 0.
    pub stride: i64,
    /// Lowest and highest byte to mark in one iteration, relative to the address operand.
    pub low: i64,
    pub high: i64,
}

/// What is done before a loop for stores off one base.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Span {
    /// The address does not move: these two bytes' cards are marked, or one if they are the same.
    Fixed { begin: Sum, low: i64, high: i64 },
    /// The address moves.
    Moving {
        shape: Shape,
        moving: Sum,
        bound: Sum,
        begin: Sum,
        step: Sum,
    },
}

/// Marks ahead of one loop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ahead {
    /// Number of the `loop` instruction, and where it begins in the body.
    pub op: u32,
    pub at: usize,
    /// Whether the loop lies in another one.
    pub nested: bool,
    pub spans: Vec<Span>,
}

/// A function that is added to the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum MarkerFunction {
    /// From two addresses: marks their pages and those between.
    Between,
    /// From where a loop's values begin: marks what its stores can begin on.
    Shape(Shape),
    /// From the address and the length of a bulk store: marks its pages.
    Bytes,
}

/// The marker functions of a module.
#[derive(Debug, Default)]
pub(crate) struct MarkerFunctions {
    numbers: BTreeMap<MarkerFunction, u32>,
    all: Vec<MarkerFunction>,
}

impl MarkerFunctions {
    /// All of them, in the order of their indices.
    pub fn all(&self) -> &[MarkerFunction] {
        &self.all
    }

    /// The number of a function among them; it is added if it is not there yet.
    pub fn number(&mut self, function: MarkerFunction) -> u32 {
        *self.numbers.entry(function).or_insert_with(|| {
            self.all.push(function);
            self.all.len() as u32 - 1
        })
    }
}

impl MarkerFunction {
    /// Parameters of each type of marker function.
    pub const TYPES: [&[ValType]; 4] = [
        &[ValType::I64; 2],
        &[ValType::I32; 3],
        &[ValType::I32; 4],
        &[ValType::I32; 2],
    ];

    /// Number of the function's type in [`MarkerFunction::TYPES`].
    pub fn ty(&self) -> u32 {
        match self {
            Self::Between => 0,
            Self::Bytes => 3,
            Self::Shape(shape) if shape.step == Step::Value => 2,
            Self::Shape(_) => 1,
        }
    }

    /// The function.
    pub fn body(&self, marker: &Marker<'_>) -> Function {
        match self {
            Self::Between => range::between(marker),
            Self::Shape(shape) => shape.function(marker),
            Self::Bytes => range::bytes(marker),
        }
    }
}

/// Scratch locals. `flag` is of type i32, the others of type i64.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Locals {
    pub steps: u32,
    pub low: u32,
    pub high: u32,
    pub flag: u32,
}

impl Locals {
    /// Their types, in the order of the fields.
    pub const TYPES: [wasmparser::ValType; 4] = [
        wasmparser::ValType::I64,
        wasmparser::ValType::I64,
        wasmparser::ValType::I64,
        wasmparser::ValType::I32,
    ];
}

impl Ahead {
    /// Emits what comes before the loop.
    pub fn emit(
        &self,
        marker: &Marker<'_>,
        functions: &mut MarkerFunctions,
        locals: Locals,
        out: &mut Vec<u8>,
    ) {
        let sink = &mut InstructionSink::new(out);
        let mut counted = false;
        for span in &self.spans {
            match span {
                Span::Fixed { begin, low, high } => {
                    begin.push(sink, *low);
                    marker.card_of_top(sink);
                    if high > low {
                        begin.push(sink, *high);
                        marker.card_of_top(sink);
                    }
                }
                Span::Moving {
                    shape,
                    moving,
                    bound,
                    begin,
                    ..
                } if shape.is_short(marker) => {
                    let code = Code {
                        shape,
                        moving,
                        bound,
                        begin,
                        step: None,
                        locals,
                    };
                    // All spans of a loop move as often.
                    if !counted {
                        code.steps(sink);
                        counted = true;
                    }
                    if self.nested && shape.stride.abs() <= limits::WALKED_STRIDE_MAX {
                        code.walk(marker, sink);
                    } else {
                        code.edges(sink);
                        sink.call(
                            marker
                                .plan
                                .marker_function(functions.number(MarkerFunction::Between)),
                        );
                    }
                }
                Span::Moving {
                    shape,
                    moving,
                    bound,
                    begin,
                    step,
                } => {
                    moving.push(sink, 0);
                    bound.push(sink, 0);
                    begin.push(sink, 0);
                    if shape.step == Step::Value {
                        step.push(sink, 0);
                    }
                    sink.call(
                        marker
                            .plan
                            .marker_function(functions.number(MarkerFunction::Shape(*shape))),
                    );
                }
            }
        }
    }
}

/// Lowest and highest number of 32 bits.
fn limits_of(signed: bool) -> (i64, i64) {
    if signed {
        (i64::from(i32::MIN), i64::from(i32::MAX))
    } else {
        (0, TOP)
    }
}

impl Shape {
    /// Whether the range is marked before the loop, without a function of its own.
    fn is_short(&self, marker: &Marker<'_>) -> bool {
        self.step != Step::Value && self.stride.abs() <= marker.plan.page_bytes()
    }

    /// How often a loop goes on that moves from one number to another.
    fn known_steps(&self, moving: i32, bound: i32, step: i64) -> i64 {
        let (from, to) = if self.up { (moving, bound) } else { (bound, moving) };
        let TripKind::While { signed, inclusive } = self.kind else {
            let distance = i64::from(to.wrapping_sub(from) as u32);
            return if distance % step == 0 {
                distance / step
            } else {
                UNBOUNDED
            };
        };
        let wide = |value: i32| {
            if signed {
                i64::from(value)
            } else {
                i64::from(value as u32)
            }
        };
        let distance = wide(to) - wide(from) + i64::from(inclusive);
        let steps = (distance.max(0) + step - 1) / step;
        let (lowest, highest) = limits_of(signed);
        let last = wide(moving) + if self.up { steps * step } else { -steps * step };
        if (lowest..=highest).contains(&last) {
            steps
        } else {
            UNBOUNDED
        }
    }

    /// The marker function: from `moving`, `bound`, `begin`, and `step` where that is a value.
    fn function(&self, marker: &Marker<'_>) -> Function {
        let parameters = MarkerFunction::TYPES[MarkerFunction::Shape(*self).ty() as usize].len() as u32;
        let mut function = Function::new([(4, ValType::I64), (2, ValType::I32)]);
        let code = Code {
            shape: self,
            moving: &Sum::of(0),
            bound: &Sum::of(1),
            begin: &Sum::of(2),
            step: (self.step == Step::Value).then_some(3),
            locals: Locals {
                steps: parameters,
                low: parameters + 1,
                high: parameters + 2,
                flag: parameters + 4,
            },
        };
        let sink = &mut function.instructions();
        code.steps(sink);
        code.edges(sink);
        sink.local_set(code.locals.high).local_set(code.locals.low);
        code.all_pages(marker, sink, parameters + 3, parameters + 5);
        sink.end();
        function
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts by running the loop.
    fn counted(kind: TripKind, up: bool, from: i32, bound: i32, step: i64) -> Option<i64> {
        let mut value = from;
        for steps in 0..10_000 {
            let before = match kind {
                TripKind::Until => value != bound,
                TripKind::While { signed, inclusive } => {
                    let wide = |v: i32| if signed { i64::from(v) } else { i64::from(v as u32) };
                    let (a, b) = if up {
                        (wide(value), wide(bound))
                    } else {
                        (wide(bound), wide(value))
                    };
                    a < b || (inclusive && a == b)
                }
            };
            if !before {
                return Some(steps);
            }
            value = value.wrapping_add(if up { step as i32 } else { -step as i32 });
        }
        None
    }

    #[test]
    fn known_steps_are_those_of_the_loop_or_unbounded() {
        let edges = [
            i32::MIN,
            i32::MIN + 1,
            i32::MIN + 9,
            -20,
            -1,
            0,
            1,
            7,
            20,
            i32::MAX - 9,
            i32::MAX,
        ];
        let mut kinds = vec![TripKind::Until];
        for (signed, inclusive) in [(true, true), (true, false), (false, true), (false, false)] {
            kinds.push(TripKind::While { signed, inclusive });
        }
        let mut exact = 0;
        for (&from, &bound) in edges
            .iter()
            .flat_map(|from| edges.iter().map(move |bound| (from, bound)))
        {
            for (&kind, up, step) in kinds
                .iter()
                .flat_map(|kind| [true, false].map(|up| (kind, up)))
                .flat_map(|(kind, up)| [1, 2, 3, 8, 10].map(|step| (kind, up, step)))
            {
                let shape = Shape {
                    kind,
                    up,
                    step: Step::Constant(step),
                    stride: 1,
                    low: 0,
                    high: 0,
                };
                let known = shape.known_steps(from, bound, step);
                match counted(kind, up, from, bound, step) {
                    Some(steps) => {
                        assert!(
                            known >= steps,
                            "{shape:?} from {from} to {bound}: {known} < {steps}"
                        );
                        exact += u32::from(known == steps);
                    }
                    None => assert!(known >= 10_000, "{shape:?} from {from} to {bound}: {known}"),
                }
            }
        }
        assert!(exact > 2000, "{exact}");
    }
}
