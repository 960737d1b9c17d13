//! The walk over one body: validates each instruction, then follows what it does to locals, operands and frames.
//!
//! Joins are coarse. At the end of a block every local that the block assigns gets a new atom; at a loop's head every local
//! that the loop assigns does. What is known is so a function of the code's nesting alone, and no fixed point is needed.
//!
//! Invariants:
//! - the stack of entries is as high as the validator's after each instruction;
//! - an entry's value is the operand's value; what is not followed is a fresh atom.

use crate::analysis::values::{Value, Values};
use crate::error::InstrumentError;
use crate::limits;
use crate::marks::Anchor;
use crate::plan::Plan;
use crate::store::{StoreKind, Write, is_collection_point};
use crate::trace::shape::Shape;
use crate::trace::{Base, Condition, Event, Loop, Phi, Redirect, Relation, Site, Trace};
use alloc::vec::Vec;
use wasmparser::{Catch, FuncValidator, FunctionBody, Operator, ValType, ValidatorResources};

type Validator = FuncValidator<ValidatorResources>;

/// One operand.
#[derive(Clone, Copy, Debug)]
struct Entry {
    value: Value,
    /// A local that the operand was copied from or to.
    local: Option<u32>,
    /// Where the instruction that made it ends, and its number, if it left this entry on top.
    made: Option<(u32, usize)>,
    condition: Option<Condition>,
}

#[derive(Debug)]
struct Frame {
    /// Number of the frame in the [`Shape`]; `None` for the body itself.
    shape: Option<usize>,
    /// Number of the loop in the trace, if it is one that is followed.
    followed: Option<u32>,
    /// What the locals that an `if` assigns held before it.
    before: Vec<(u32, Value)>,
}

struct Walk<'a> {
    plan: &'a Plan,
    shape: Shape,
    trace: Trace,
    stack: Vec<Entry>,
    frames: Vec<Frame>,
    /// Positions in `frames` of those that are loops.
    loops: Vec<usize>,
    opened: usize,
    locals: Vec<Known>,
    /// Locals that were last known in an older generation are not known.
    generation: u32,
    work: usize,
    stack_pointer: Option<Value>,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    value: Value,
    generation: u32,
}

/// Where an instruction is.
#[derive(Clone, Copy)]
struct Place {
    op: u32,
    at: usize,
    end: usize,
}

/// Validates a body and traces it.
pub(crate) fn walk(
    plan: &Plan,
    validator: &mut Validator,
    body: &FunctionBody<'_>,
) -> Result<Trace, InstrumentError> {
    let begin = body.range().start;
    let mut locals = body.get_binary_reader();
    validator.read_locals(&mut locals)?;
    let mut walk = Walk::new(plan, Shape::read(body)?, validator);
    let mut reader = body.get_operators_reader()?;
    let mut op = 0;
    while !reader.eof() {
        let at = reader.original_position();
        let operator = reader.read()?;
        let end = reader.original_position();
        walk.instruction(
            Place {
                op,
                at: at - begin,
                end: end - begin,
            },
            validator,
            at,
            &operator,
        )?;
        op += 1;
    }
    reader.finish()?;
    Ok(walk.trace)
}

impl<'a> Walk<'a> {
    fn new(plan: &'a Plan, shape: Shape, validator: &Validator) -> Self {
        let mut values = Values::new();
        let count = validator.len_locals();
        let mut locals = Vec::with_capacity(count as usize);
        for _ in 0..count {
            locals.push(Known {
                value: values.fresh(),
                generation: 0,
            });
        }
        Self {
            plan,
            shape,
            trace: Trace {
                values,
                sites: Vec::new(),
                events: Vec::new(),
                loops: Vec::new(),
                stack_pointers: Vec::new(),
                redirects: Vec::new(),
                locals: count,
            },
            stack: Vec::new(),
            frames: Vec::from([Frame {
                shape: None,
                followed: None,
                before: Vec::new(),
            }]),
            loops: Vec::new(),
            opened: 0,
            locals,
            generation: 0,
            work: 0,
            stack_pointer: None,
        }
    }

    fn instruction(
        &mut self,
        place: Place,
        validator: &mut Validator,
        offset: usize,
        operator: &Operator<'_>,
    ) -> Result<(), InstrumentError> {
        let live = validator
            .get_control_frame(0)
            .is_some_and(|frame| !frame.unreachable);
        let arity = operator.operator_arity(validator);
        let write = Write::of(operator).filter(|write| live && write.memory == self.plan.cards.tracked);
        let mut types = [None; 4];
        if let Some(write) = write {
            for (depth, ty) in types.iter_mut().take(write.operands as usize).rev().enumerate() {
                *ty = validator.get_operand_type(depth).flatten();
            }
        }
        validator.op(offset, operator)?;
        if let Some(write) = write {
            self.store(place, write, types);
        }
        if live {
            self.branches(operator);
        }
        self.redirect(place, operator);
        if is_collection_point(operator) {
            self.trace.events.push(Event::Collect);
            self.stack_pointer = None;
        }
        let result = if live { self.followed(operator) } else { None };
        self.restack(validator.operand_stack_height() as usize, arity, place, result);
        self.nest(place, operator);
        if let (true, Operator::LocalTee { local_index }) = (live, operator) {
            // The operand stays; from here on the local holds it too.
            self.mark_copy(*local_index);
        }
        Ok(())
    }

    /// Notes an instruction that names a function which gets another in its place.
    fn redirect(&mut self, place: Place, operator: &Operator<'_>) {
        let (Operator::Call { function_index }
        | Operator::ReturnCall { function_index }
        | Operator::RefFunc { function_index }) = *operator
        else {
            return;
        };
        let function = self.plan.redirected(function_index);
        if function != function_index {
            // Behind an opcode of one byte.
            self.trace.redirects.push(Redirect {
                index: place.at + 1..place.end,
                function,
            });
        }
    }

    /// Replaces the operands of an instruction by its results.
    fn restack(&mut self, height: usize, arity: Option<(u32, u32)>, place: Place, result: Option<Entry>) {
        let Some((pops, pushes)) = arity else {
            self.stack.clear();
            return self.fill(height);
        };
        let pushes = pushes as usize;
        let keep = height.saturating_sub(pushes);
        let exact = self.stack.len().checked_sub(pops as usize) == Some(keep);
        self.stack.truncate(keep);
        self.fill(keep);
        for index in 0..pushes.min(height) {
            let top = index + 1 == pushes;
            let made = Some((place.op, place.end)).filter(|_| top);
            let entry = match result {
                Some(entry) if exact && top && pushes == 1 => Entry { made, ..entry },
                _ => Entry {
                    value: self.trace.values.fresh(),
                    local: None,
                    made,
                    condition: None,
                },
            };
            self.stack.push(entry);
        }
    }

    fn fill(&mut self, height: usize) {
        while self.stack.len() < height {
            let value = self.trace.values.fresh();
            self.stack.push(Entry {
                value,
                local: None,
                made: None,
                condition: None,
            });
        }
    }

    fn mark_copy(&mut self, local: u32) {
        if let Some(entry) = self.stack.last_mut() {
            entry.local = Some(local);
        }
    }

    fn peek(&self, depth: usize) -> Option<Entry> {
        self.stack.len().checked_sub(depth + 1).map(|at| self.stack[at])
    }

    fn local(&mut self, local: u32) -> Value {
        let generation = self.generation;
        let values = &mut self.trace.values;
        match self.locals.get_mut(local as usize) {
            Some(known) if known.generation == generation => known.value,
            Some(known) => {
                *known = Known {
                    value: values.fresh(),
                    generation,
                };
                known.value
            }
            None => values.fresh(),
        }
    }

    fn assign(&mut self, local: u32, value: Value) {
        if let Some(known) = self.locals.get_mut(local as usize) {
            *known = Known {
                value,
                generation: self.generation,
            };
        }
    }
}

/// Stores.
impl Walk<'_> {
    fn store(&mut self, place: Place, write: Write, operands: [Option<ValType>; 4]) {
        let Some(address) = self.peek(write.operands as usize - 1) else {
            return;
        };
        let mut width = write.width;
        if write.is_bulk() {
            match self
                .peek(0)
                .filter(|len| len.value.is_constant())
                .map(|len| len.value.constant)
            {
                Some(0) => return,
                Some(len) if len > 0 && len <= self.plan.page_bytes() + 1 => width = len as u32,
                _ => {}
            }
        }
        let number = self.trace.sites.len() as u32;
        let base = if width == 0 {
            Base::Spill
        } else {
            self.base(&address)
        };
        let in_loop = self.frames.last().and_then(|frame| frame.followed);
        let in_loop = in_loop.filter(|number| self.trace.loops[*number as usize].back_edges == 0);
        self.trace.events.push(Event::Store(number));
        self.trace.sites.push(Site {
            op: place.op,
            at: place.at,
            end: place.end,
            write,
            width,
            address: address.value,
            base,
            operands,
            in_loop,
        });
    }

    /// How an address can be had after the instruction that takes it.
    fn base(&mut self, address: &Entry) -> Base {
        if address.value.is_constant() {
            return Base::Anchor(Anchor::Constant(address.value.constant));
        }
        if let Some(local) = address.local {
            let held = self.local(local);
            if held.linear == address.value.linear {
                let delta = address.value.constant.wrapping_sub(held.constant);
                return Base::Anchor(Anchor::Local { local, delta });
            }
        }
        match address.made {
            Some((op, at)) => Base::Tee { op, at },
            None => Base::Spill,
        }
    }
}

/// Values.
impl Walk<'_> {
    /// What an instruction with one result computes, if that is followed. Also carries out assignments.
    fn followed(&mut self, operator: &Operator<'_>) -> Option<Entry> {
        let plain = |value| {
            Some(Entry {
                value,
                local: None,
                made: None,
                condition: None,
            })
        };
        match *operator {
            Operator::I32Const { value } => plain(Value::constant(i64::from(value))),
            Operator::I64Const { value } => plain(Value::constant(value)),
            Operator::LocalGet { local_index } => {
                let value = self.local(local_index);
                Some(Entry {
                    value,
                    local: Some(local_index),
                    made: None,
                    condition: None,
                })
            }
            Operator::LocalSet { local_index } | Operator::LocalTee { local_index } => {
                let entry = self.peek(0)?;
                self.assign(local_index, entry.value);
                Some(entry)
            }
            Operator::GlobalGet { global_index } => self.get_stack_pointer(global_index),
            Operator::GlobalSet { global_index } => {
                if self.is_stack_pointer(global_index) {
                    self.stack_pointer = self.peek(0).map(|entry| entry.value);
                }
                None
            }
            Operator::I32Eqz => {
                let entry = self.peek(0)?;
                let was = entry.condition.unwrap_or(different_from_zero(entry.value));
                self.comparison(was.negated())
            }
            _ => self.compared(operator).or_else(|| self.calculated(operator)),
        }
    }

    fn calculated(&mut self, operator: &Operator<'_>) -> Option<Entry> {
        let (right, left) = (self.peek(0)?, self.peek(1)?);
        let values = &mut self.trace.values;
        let (a, b) = (left.value, right.value);
        let value = match operator {
            Operator::I32Add | Operator::I64Add => values.add(a, b),
            Operator::I32Sub | Operator::I64Sub => values.sub(a, b),
            Operator::I32Mul | Operator::I64Mul => values.mul(a, b),
            Operator::I32Shl if b.is_constant() => values.mul(a, Value::constant(1 << (b.constant & 31))),
            Operator::I64Shl if b.is_constant() => values.mul(a, Value::constant(1 << (b.constant & 63))),
            _ => return None,
        };
        let local = [left, right]
            .into_iter()
            .find(|e| e.value.linear == value.linear)
            .and_then(|e| e.local);
        Some(Entry {
            value,
            local,
            made: None,
            condition: None,
        })
    }

    fn compared(&mut self, operator: &Operator<'_>) -> Option<Entry> {
        use Relation::*;
        let (relation, swap) = match operator {
            Operator::I32Eq => (Equal, false),
            Operator::I32Ne => (Different, false),
            Operator::I32LtS => (LessSigned, false),
            Operator::I32LtU => (LessUnsigned, false),
            Operator::I32LeS => (LessEqualSigned, false),
            Operator::I32LeU => (LessEqualUnsigned, false),
            Operator::I32GtS => (LessSigned, true),
            Operator::I32GtU => (LessUnsigned, true),
            Operator::I32GeS => (LessEqualSigned, true),
            Operator::I32GeU => (LessEqualUnsigned, true),
            _ => return None,
        };
        let (right, left) = (self.peek(0)?.value, self.peek(1)?.value);
        let (left, right) = if swap { (right, left) } else { (left, right) };
        self.comparison(Condition {
            relation,
            left,
            right,
        })
    }

    fn comparison(&mut self, condition: Condition) -> Option<Entry> {
        let value = self.trace.values.fresh();
        Some(Entry {
            value,
            local: None,
            made: None,
            condition: Some(condition),
        })
    }

    fn is_stack_pointer(&self, global: u32) -> bool {
        self.plan
            .shadow_stack
            .as_ref()
            .is_some_and(|stack| stack.global == global)
    }

    fn get_stack_pointer(&mut self, global: u32) -> Option<Entry> {
        if !self.is_stack_pointer(global) {
            return None;
        }
        let value = match self.stack_pointer {
            Some(value) => value,
            None => {
                self.trace.stack_pointers.push(self.trace.values.next_atom());
                *self.stack_pointer.insert(self.trace.values.fresh())
            }
        };
        Some(Entry {
            value,
            local: None,
            made: None,
            condition: None,
        })
    }
}

/// Frames and branches.
impl Walk<'_> {
    fn nest(&mut self, place: Place, operator: &Operator<'_>) {
        match operator {
            Operator::Block { .. } | Operator::TryTable { .. } => {
                self.trace.events.push(Event::Block);
                self.open();
            }
            Operator::If { .. } => {
                self.trace.events.push(Event::If);
                self.open();
                self.keep_for_else();
            }
            Operator::Loop { .. } => {
                self.trace.events.push(Event::Loop);
                self.open_loop(place);
            }
            Operator::Else => {
                self.trace.events.push(Event::Else);
                self.stack_pointer = None;
                let before = self
                    .frames
                    .last_mut()
                    .map(|frame| core::mem::take(&mut frame.before));
                if before.as_ref().is_none_or(|before| before.is_empty()) {
                    self.forget_assigned();
                }
                for (local, value) in before.into_iter().flatten() {
                    self.assign(local, value);
                }
            }
            Operator::End => {
                self.trace.events.push(Event::Close);
                self.stack_pointer = None;
                self.forget_assigned();
                self.frames.pop();
                if self.loops.last() == Some(&self.frames.len()) {
                    self.loops.pop();
                }
            }
            _ => {}
        }
    }

    fn open(&mut self) {
        self.frames.push(Frame {
            shape: Some(self.opened),
            followed: None,
            before: Vec::new(),
        });
        self.opened += 1;
    }

    fn innermost_assigned(&mut self) -> Vec<u32> {
        let Some(shape) = self.frames.last().and_then(|frame| frame.shape) else {
            return Vec::new();
        };
        let assigned = self.shape.assigned(&self.shape.frame(shape));
        self.work += assigned.len();
        let mut locals: Vec<u32> = assigned.iter().map(|&(_, local)| local).collect();
        locals.sort_unstable();
        locals.dedup();
        locals
    }

    /// Gives new atoms to the locals that the innermost frame assigns.
    fn forget_assigned(&mut self) {
        if self.work > limits::JOIN_WORK_MAX {
            self.generation += 1;
            return;
        }
        for local in self.innermost_assigned() {
            let value = self.trace.values.fresh();
            self.assign(local, value);
        }
    }

    fn keep_for_else(&mut self) {
        if self.work > limits::JOIN_WORK_MAX {
            return;
        }
        let kept = self
            .innermost_assigned()
            .into_iter()
            .map(|local| (local, self.local(local)))
            .collect();
        if let Some(frame) = self.frames.last_mut() {
            frame.before = kept;
        }
    }

    fn open_loop(&mut self, place: Place) {
        self.stack_pointer = None;
        let range = self.shape.frame(self.opened);
        self.open();
        self.loops.push(self.frames.len() - 1);
        let follow = (self.plan.analyses.hoist || self.plan.analyses.scatter)
            && self.work + self.locals.len() <= limits::JOIN_WORK_MAX
            && !self.shape.collects(&range)
            && !self.shape.has_inner_loop(&range);
        if !follow {
            return self.forget_assigned();
        }
        self.work += self.locals.len();
        let entry: Vec<Value> = (0..self.trace.locals).map(|local| self.local(local)).collect();
        let first_atom = self.trace.values.next_atom();
        let mut phis = Vec::new();
        for local in self.innermost_assigned() {
            let atom = self.trace.values.next_atom();
            let value = self.trace.values.fresh();
            self.assign(local, value);
            phis.push(Phi {
                local,
                atom,
                next: None,
            });
        }
        if let Some(frame) = self.frames.last_mut() {
            frame.followed = Some(self.trace.loops.len() as u32);
        }
        self.trace.loops.push(Loop {
            op: place.op,
            at: place.at,
            nested: self.loops.len() > 1,
            first_atom,
            phis,
            entry,
            back_edges: 0,
            goes_on_while: Vec::new(),
            exits: 0,
        });
    }

    /// Notes what a branch means for the followed loops that it goes on with or leaves.
    fn branches(&mut self, operator: &Operator<'_>) {
        match operator {
            Operator::Br { relative_depth } => self.branch(*relative_depth, None),
            Operator::BrIf { relative_depth } => {
                let condition = self
                    .peek(0)
                    .map(|entry| entry.condition.unwrap_or(different_from_zero(entry.value)));
                self.branch(*relative_depth, condition);
            }
            Operator::BrTable { targets } => {
                for depth in targets.targets().flatten().chain([targets.default()]) {
                    self.branch(depth, None);
                }
            }
            Operator::BrOnNull { relative_depth }
            | Operator::BrOnNonNull { relative_depth }
            | Operator::BrOnCast { relative_depth, .. }
            | Operator::BrOnCastFail { relative_depth, .. } => self.branch(*relative_depth, None),
            Operator::TryTable { try_table } => {
                for catch in &try_table.catches {
                    let (Catch::One { label, .. }
                    | Catch::OneRef { label, .. }
                    | Catch::All { label }
                    | Catch::AllRef { label }) = *catch;
                    self.branch(label, None);
                }
            }
            Operator::Return => self.branch(self.frames.len() as u32 - 1, None),
            _ => {}
        }
    }

    fn branch(&mut self, depth: u32, condition: Option<Condition>) {
        let Some(target) = self.frames.len().checked_sub(depth as usize + 1) else {
            return;
        };
        // A followed loop has no loop in it: it is the innermost loop or none is.
        let Some(&at) = self.loops.last() else { return };
        let Some(followed) = self.frames[at].followed else {
            return;
        };
        let own_frame = at + 1 == self.frames.len();
        if target > at {
            return;
        }
        if target == at {
            self.back_edge(followed, condition);
        }
        let found = &mut self.trace.loops[followed as usize];
        if target == at {
            // What skips a back edge within a block runs on to the loop's end: that leaves it without the test.
            found.exits += u32::from(!own_frame);
            return;
        }
        match condition {
            // A test behind the back edge is not on the way to it.
            Some(condition) if own_frame && found.back_edges == 0 => {
                found.goes_on_while.push(condition.negated())
            }
            _ => found.exits += 1,
        }
    }

    fn back_edge(&mut self, followed: u32, condition: Option<Condition>) {
        if self.trace.loops[followed as usize].back_edges == 0 {
            let mut phis = core::mem::take(&mut self.trace.loops[followed as usize].phis);
            for phi in &mut phis {
                phi.next = Some(self.local(phi.local));
            }
            self.trace.loops[followed as usize].phis = phis;
        }
        let found = &mut self.trace.loops[followed as usize];
        found.back_edges += 1;
        found.goes_on_while.extend(condition);
    }
}

fn different_from_zero(left: Value) -> Condition {
    Condition {
        relation: Relation::Different,
        left,
        right: Value::constant(0),
    }
}

/// Types of a bulk instruction's length operand that are 64 bits wide.
pub(crate) fn len_is_64(site: &Site) -> bool {
    debug_assert!(matches!(
        site.write.kind,
        StoreKind::Fill | StoreKind::Copy | StoreKind::Init
    ));
    site.operands[2] == Some(ValType::I64)
}
