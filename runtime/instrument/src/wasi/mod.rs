//! Functions of WASI write guest memory, and do not mark cards: a function is added around each that does.
//!
//! ```text
//!   call $fd_read  -->  call $around_fd_read:  the list of buffers is looked at
//!                                              marks of all that it may write
//!                                              call $fd_read, whose results stay on the stack
//!                                              the same marks
//! ```
//!
//! The one around has the same type and takes its place wherever the module uses it: in calls, references, tables, exports. Marks
//! come before the call, because it may end in a trap, and the guest be interrupted for good behind it; and after it, because the
//! host may collect in it. They do not depend on its result: a call that fails may have written a part. [`table`] says what each
//! function may write.
//!
//! A list of buffers is read again after the call. Where that could find another list (a result is written over it, or it is
//! longer than any host takes), the whole memory is marked, which is also what happens where nothing tells how much is written.
//!
//! Not here:
//! - What a thread changes in such a list while the host reads it: that thread loses its own marks.
//! - A host that collects in a call which then ends the guest: what it wrote afterwards has no marks.
//!
//! Invariants:
//! - what is done for a list has a bound that the guest does not choose;
//! - if the marks exhaust the stack, nothing is written;
//! - a function of another type than WASI's is left alone: no host could link it.

mod table;

use crate::ahead::{MarkerFunction, MarkerFunctions, TOP, memory_bytes};
use crate::limits;
use crate::marks::Marker;
use table::Out;
use wasm_encoder::{BlockType, Function, InstructionSink, MemArg, ValType};
use wasmparser::{Import, TypeRef};

/// The name of the export that WASI's functions take for the guest's memory. It has 32-bit addresses.
pub(crate) const MEMORY: &str = "memory";

/// What an imported function writes, if it is one of WASI's.
fn outs(import: &Import<'_>) -> Option<&'static [Out]> {
    let known = table::FUNCTIONS.binary_search_by_key(&import.name, |&(name, _)| name);
    let (_, outs) = table::FUNCTIONS[known.ok()?];
    (import.module == table::MODULE).then_some(outs)
}

/// Whether an import is one of WASI's functions. Hosts add others to its module, of which nothing is known.
pub(crate) fn is_function(import: &Import<'_>) -> bool {
    matches!(import.ty, TypeRef::Func(_) | TypeRef::FuncExact(_)) && outs(import).is_some()
}

/// Bytes of an `iovec`: an address and a length.
const IOVEC_BYTES: i64 = 8;

/// An imported function that gets one around it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wrapped {
    /// Indices of the function and of its type.
    pub function: u32,
    pub ty: u32,
    parameters: u32,
    outs: &'static [Out],
}

impl Wrapped {
    /// The import with this index, if it is a function of WASI that writes guest memory.
    pub fn of(
        import: &Import<'_>,
        function: u32,
        ty: u32,
        parameters: &[wasmparser::ValType],
    ) -> Option<Self> {
        let outs = outs(import)?;
        let mut read = outs.iter().flat_map(|out| out.parameters());
        let fits = read.all(|at| parameters.get(at as usize) == Some(&wasmparser::ValType::I32));
        (fits && !outs.is_empty()).then_some(Self {
            function,
            ty,
            parameters: parameters.len() as u32,
            outs,
        })
    }

    /// The function around it.
    pub fn around(&self, marker: &Marker<'_>, functions: &mut MarkerFunctions) -> Function {
        let around = Around {
            marker,
            between: marker
                .plan
                .marker_function(functions.number(MarkerFunction::Between)),
            cursor: self.parameters,
            end: self.parameters + 1,
            whole: self.parameters + 2,
        };
        let mut function = Function::new([(2, ValType::I64), (1, ValType::I32)]);
        let sink = &mut function.instructions();
        for &out in self.outs {
            if let Out::Buffers { list, count } = out {
                around.look(sink, self.outs, list, count);
            }
        }
        for &out in self.outs {
            around.mark(sink, out);
        }
        for parameter in 0..self.parameters {
            sink.local_get(parameter);
        }
        sink.call(self.function);
        for &out in self.outs {
            around.mark(sink, out);
        }
        sink.end();
        function
    }
}

/// What a function around another is made with: indices of a function and of locals.
struct Around<'a> {
    marker: &'a Marker<'a>,
    /// Marks from one address to another.
    between: u32,
    /// Of type i64: the place in a list, and its end.
    cursor: u32,
    end: u32,
    /// Of type i32: whether the whole memory is to be marked.
    whole: u32,
}

impl Around<'_> {
    /// Looks at a list of buffers before the call: can it be relied on after it?
    fn look(&self, sink: &mut InstructionSink<'_>, outs: &[Out], list: u32, count: u32) {
        wide(sink, list);
        wide(sink, count);
        sink.i64_const(IOVEC_BYTES)
            .i64_mul()
            .i64_add()
            .local_tee(self.end);
        memory_bytes(self.marker, sink);
        sink.i64_gt_u();
        sink.local_get(count).i32_const(limits::BUFFERS_MAX).i32_gt_u();
        sink.i32_or();
        for &out in outs {
            if let Out::Bytes { at, len } = out {
                self.meets(
                    sink,
                    list,
                    |sink| wide(sink, at),
                    |sink| {
                        sink.i64_const(len.into());
                    },
                );
                sink.i32_or();
            }
        }
        sink.local_tee(self.whole).i32_eqz().if_(BlockType::Empty);
        self.each(sink, list, |sink| {
            sink.local_get(self.whole);
            self.meets(sink, list, |sink| self.field(sink, 0), |sink| self.field(sink, 4));
            sink.i32_or().local_set(self.whole);
        });
        sink.end();
    }

    /// Pushes whether a range shares a byte with the list.
    fn meets(
        &self,
        sink: &mut InstructionSink<'_>,
        list: u32,
        at: impl Fn(&mut InstructionSink<'_>),
        len: impl Fn(&mut InstructionSink<'_>),
    ) {
        at(sink);
        sink.local_get(self.end).i64_lt_u();
        at(sink);
        len(sink);
        sink.i64_add();
        wide(sink, list);
        sink.i64_gt_u().i32_and();
    }

    /// Marks what may have been written.
    fn mark(&self, sink: &mut InstructionSink<'_>, out: Out) {
        match out {
            Out::Bytes { at, len } => self.range(
                sink,
                |sink| wide(sink, at),
                |sink| {
                    sink.i64_const(len.into());
                },
            ),
            Out::Array { at, count, unit } => self.range(
                sink,
                |sink| wide(sink, at),
                |sink| {
                    wide(sink, count);
                    sink.i64_const(unit.into()).i64_mul();
                },
            ),
            Out::Buffers { list, .. } => {
                sink.local_get(self.whole).if_(BlockType::Empty);
                self.everything(sink);
                sink.else_();
                self.each(sink, list, |sink| {
                    self.range(sink, |sink| self.field(sink, 0), |sink| self.field(sink, 4))
                });
                sink.end();
            }
            Out::Anything => self.everything(sink),
        }
    }

    fn everything(&self, sink: &mut InstructionSink<'_>) {
        sink.i64_const(0).i64_const(TOP).call(self.between);
    }

    /// Marks a range of addresses, as far as it lies in the memory.
    fn range(
        &self,
        sink: &mut InstructionSink<'_>,
        at: impl Fn(&mut InstructionSink<'_>),
        len: impl Fn(&mut InstructionSink<'_>),
    ) {
        at(sink);
        at(sink);
        len(sink);
        sink.i64_add().i64_const(1).i64_sub().call(self.between);
    }

    /// Does something for each buffer of a list.
    fn each(&self, sink: &mut InstructionSink<'_>, list: u32, body: impl Fn(&mut InstructionSink<'_>)) {
        wide(sink, list);
        sink.local_set(self.cursor);
        sink.block(BlockType::Empty).loop_(BlockType::Empty);
        sink.local_get(self.cursor)
            .local_get(self.end)
            .i64_ge_u()
            .br_if(1);
        body(sink);
        sink.local_get(self.cursor)
            .i64_const(IOVEC_BYTES)
            .i64_add()
            .local_set(self.cursor);
        sink.br(0).end().end();
    }

    /// Pushes the field at an offset of the buffer at the cursor, of type i64.
    fn field(&self, sink: &mut InstructionSink<'_>, offset: u64) {
        sink.local_get(self.cursor).i32_wrap_i64().i64_load32_u(MemArg {
            offset,
            align: 2,
            memory_index: self.marker.plan.cards.tracked,
        });
    }
}

/// Pushes a parameter as a number of 64 bits.
fn wide(sink: &mut InstructionSink<'_>, parameter: u32) {
    sink.local_get(parameter).i64_extend_i32_u();
}
