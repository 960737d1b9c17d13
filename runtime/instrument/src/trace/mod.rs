//! What one function does, as far as marks depend on it: its stores with their symbolic addresses, the points at which the
//! host may collect, and its loops.
//!
//! ```text
//!   [shape]  one quick pass: where frames end, which locals they assign
//!   [walk]   validates the body instruction by instruction and follows values  -->  [Trace]
//! ```
//!
//! Invariants:
//! - a body that does not validate yields an error, so everything in a trace obeys the validation rules;
//! - sites are in the order of the code, and none lies in code that validation knows to be unreachable.

pub(crate) mod shape;
pub(crate) mod walk;

use crate::analysis::values::{Atom, Value, Values};
use crate::marks::Anchor;
use crate::store::Write;
use alloc::vec::Vec;
use core::ops::Range;
use wasmparser::ValType;

/// How the address of a store can be had after the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Base {
    /// It is there anyway.
    Anchor(Anchor),
    /// The instruction that ends at this byte of the body leaves it on top of the stack: a copy can be kept there. `op` is
    /// the instruction's number.
    Tee { op: u32, at: usize },
    /// All operands have to be taken off the stack before the store.
    Spill,
}

/// One instruction that writes the tracked memory.
#[derive(Clone, Debug)]
pub(crate) struct Site {
    /// Number of the instruction in its function.
    pub op: u32,
    /// Where it begins and ends, in bytes from the begin of the body.
    pub at: usize,
    pub end: usize,
    pub write: Write,
    /// Bytes written, where that is known; at most a page and one.
    pub width: u32,
    /// The address operand, without the static offset.
    pub address: Value,
    pub base: Base,
    /// Types of the operands, the address first.
    pub operands: [Option<ValType>; 4],
    /// Number of the loop whose own frame the store is in before a back edge, if any: it runs in each full iteration.
    pub in_loop: Option<u32>,
}

/// What happens, in the order of the code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// The store with this number.
    Store(u32),
    /// The host may collect.
    Collect,
    /// A frame opens, and the code goes on in it.
    Block,
    /// A frame opens, and the code may go on in it.
    If,
    /// A loop opens: its body is also reached from its end.
    Loop,
    /// The innermost frame goes on with its other arm.
    Else,
    /// The innermost frame closes; its end may be reached from elsewhere inside it.
    Close,
}

/// How two numbers of 32 bits relate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Relation {
    Equal,
    Different,
    LessSigned,
    LessUnsigned,
    LessEqualSigned,
    LessEqualUnsigned,
}

/// A comparison of two values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Condition {
    pub relation: Relation,
    pub left: Value,
    pub right: Value,
}

impl Condition {
    /// The condition that holds when this one does not.
    pub fn negated(self) -> Self {
        use Relation::*;
        let (relation, swap) = match self.relation {
            Equal => (Different, false),
            Different => (Equal, false),
            LessSigned => (LessEqualSigned, true),
            LessUnsigned => (LessEqualUnsigned, true),
            LessEqualSigned => (LessSigned, true),
            LessEqualUnsigned => (LessUnsigned, true),
        };
        let (left, right) = if swap {
            (self.right, self.left)
        } else {
            (self.left, self.right)
        };
        Self {
            relation,
            left,
            right,
        }
    }
}

/// A local whose value at the loop's head is an atom of its own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Phi {
    pub local: u32,
    pub atom: Atom,
    /// The value that the loop's only back edge brings.
    pub next: Option<Value>,
}

/// One loop that has no loop in it and no point at which the host may collect.
#[derive(Clone, Debug)]
pub(crate) struct Loop {
    /// Number of the `loop` instruction, and where it begins in the body.
    pub op: u32,
    pub at: usize,
    /// Whether it lies in another loop.
    pub nested: bool,
    /// Atoms from this number on are born in the loop.
    pub first_atom: Atom,
    /// Locals that the loop assigns.
    pub phis: Vec<Phi>,
    /// What each local holds when the loop is entered.
    pub entry: Vec<Value>,
    /// Branches to the loop's head.
    pub back_edges: u32,
    /// What holds whenever the loop goes on: of the back edge, and of exits in the loop's own frame.
    pub goes_on_while: Vec<Condition>,
    /// Branches out of the loop, other than those in `goes_on_while`.
    pub exits: u32,
}

/// An instruction that names a function in whose place another is used.
#[derive(Clone, Debug)]
pub(crate) struct Redirect {
    /// Where the function's index begins and ends in the body.
    pub index: Range<usize>,
    /// The function to use.
    pub function: u32,
}

/// The result of the walk.
#[derive(Debug)]
pub(crate) struct Trace {
    pub values: Values,
    pub sites: Vec<Site>,
    pub events: Vec<Event>,
    pub loops: Vec<Loop>,
    /// Atoms that are values of the shadow stack's pointer, ascending.
    pub stack_pointers: Vec<Atom>,
    /// In the order of the code, also where it is unreachable.
    pub redirects: Vec<Redirect>,
    /// Locals and parameters of the function.
    pub locals: u32,
}
