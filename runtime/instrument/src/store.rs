//! Which instructions write a memory, and what their operands are.
//!
//! Invariants:
//! - every instruction that writes linear memory is in [`Write::of`] (a test walks the whole instruction set);
//! - every instruction at which the host may run and read cards is in [`is_collection_point`].

use wasmparser::{MemArg, Operator};

/// The kinds of store, as far as marking them differs.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StoreKind {
    /// `i32.store` and its like, plain `v128.store` included.
    Plain,
    /// `v128.store8_lane` and its like.
    Lane,
    /// Atomic stores and read-modify-writes.
    Atomic,
    /// `memory.fill`
    Fill,
    /// `memory.copy`
    Copy,
    /// `memory.init`
    Init,
    /// What an imported function of WASI writes.
    Wasi,
}

impl StoreKind {
    /// Every kind.
    pub const ALL: [Self; 7] = [
        Self::Plain,
        Self::Lane,
        Self::Atomic,
        Self::Fill,
        Self::Copy,
        Self::Init,
        Self::Wasi,
    ];
}

/// One instruction that writes one memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Write {
    pub kind: StoreKind,
    /// The memory that is written.
    pub memory: u32,
    /// Static offset in bytes; 0 for bulk instructions.
    pub offset: u64,
    /// Bytes written; 0 for bulk instructions, whose length is an operand.
    pub width: u32,
    /// Operands on the stack, the address the deepest of them.
    pub operands: u32,
}

impl Write {
    /// The write that an instruction does, if any.
    pub fn of(op: &Operator<'_>) -> Option<Self> {
        plain(op)
            .or_else(|| lane(op))
            .or_else(|| atomic(op))
            .or_else(|| bulk(op))
    }

    /// Whether the length is an operand.
    pub fn is_bulk(&self) -> bool {
        self.width == 0
    }
}

fn store(kind: StoreKind, memarg: &MemArg, width: u32, operands: u32) -> Option<Write> {
    Some(Write {
        kind,
        memory: memarg.memory,
        offset: memarg.offset,
        width,
        operands,
    })
}

fn plain(op: &Operator<'_>) -> Option<Write> {
    use Operator::*;
    let (memarg, width) = match op {
        I32Store8 { memarg } | I64Store8 { memarg } => (memarg, 1),
        I32Store16 { memarg } | I64Store16 { memarg } => (memarg, 2),
        I32Store { memarg } | F32Store { memarg } | I64Store32 { memarg } => (memarg, 4),
        I64Store { memarg } | F64Store { memarg } => (memarg, 8),
        V128Store { memarg } => (memarg, 16),
        _ => return None,
    };
    store(StoreKind::Plain, memarg, width, 2)
}

fn lane(op: &Operator<'_>) -> Option<Write> {
    use Operator::*;
    let (memarg, width) = match op {
        V128Store8Lane { memarg, .. } => (memarg, 1),
        V128Store16Lane { memarg, .. } => (memarg, 2),
        V128Store32Lane { memarg, .. } => (memarg, 4),
        V128Store64Lane { memarg, .. } => (memarg, 8),
        _ => return None,
    };
    store(StoreKind::Lane, memarg, width, 2)
}

#[rustfmt::skip]
fn atomic(op: &Operator<'_>) -> Option<Write> {
    use Operator::*;
    let (memarg, width, operands) = match op {
        I32AtomicStore8 { memarg } | I64AtomicStore8 { memarg }
        | I32AtomicRmw8AddU { memarg } | I64AtomicRmw8AddU { memarg }
        | I32AtomicRmw8SubU { memarg } | I64AtomicRmw8SubU { memarg }
        | I32AtomicRmw8AndU { memarg } | I64AtomicRmw8AndU { memarg }
        | I32AtomicRmw8OrU { memarg } | I64AtomicRmw8OrU { memarg }
        | I32AtomicRmw8XorU { memarg } | I64AtomicRmw8XorU { memarg }
        | I32AtomicRmw8XchgU { memarg } | I64AtomicRmw8XchgU { memarg } => (memarg, 1, 2),
        I32AtomicStore16 { memarg } | I64AtomicStore16 { memarg }
        | I32AtomicRmw16AddU { memarg } | I64AtomicRmw16AddU { memarg }
        | I32AtomicRmw16SubU { memarg } | I64AtomicRmw16SubU { memarg }
        | I32AtomicRmw16AndU { memarg } | I64AtomicRmw16AndU { memarg }
        | I32AtomicRmw16OrU { memarg } | I64AtomicRmw16OrU { memarg }
        | I32AtomicRmw16XorU { memarg } | I64AtomicRmw16XorU { memarg }
        | I32AtomicRmw16XchgU { memarg } | I64AtomicRmw16XchgU { memarg } => (memarg, 2, 2),
        I32AtomicStore { memarg } | I64AtomicStore32 { memarg }
        | I32AtomicRmwAdd { memarg } | I64AtomicRmw32AddU { memarg }
        | I32AtomicRmwSub { memarg } | I64AtomicRmw32SubU { memarg }
        | I32AtomicRmwAnd { memarg } | I64AtomicRmw32AndU { memarg }
        | I32AtomicRmwOr { memarg } | I64AtomicRmw32OrU { memarg }
        | I32AtomicRmwXor { memarg } | I64AtomicRmw32XorU { memarg }
        | I32AtomicRmwXchg { memarg } | I64AtomicRmw32XchgU { memarg } => (memarg, 4, 2),
        I64AtomicStore { memarg } | I64AtomicRmwAdd { memarg } | I64AtomicRmwSub { memarg }
        | I64AtomicRmwAnd { memarg } | I64AtomicRmwOr { memarg } | I64AtomicRmwXor { memarg }
        | I64AtomicRmwXchg { memarg } => (memarg, 8, 2),
        I32AtomicRmw8CmpxchgU { memarg } | I64AtomicRmw8CmpxchgU { memarg } => (memarg, 1, 3),
        I32AtomicRmw16CmpxchgU { memarg } | I64AtomicRmw16CmpxchgU { memarg } => (memarg, 2, 3),
        I32AtomicRmwCmpxchg { memarg } | I64AtomicRmw32CmpxchgU { memarg } => (memarg, 4, 3),
        I64AtomicRmwCmpxchg { memarg } => (memarg, 8, 3),
        _ => return None,
    };
    store(StoreKind::Atomic, memarg, width, operands)
}

fn bulk(op: &Operator<'_>) -> Option<Write> {
    let (kind, memory) = match *op {
        Operator::MemoryFill { mem } => (StoreKind::Fill, mem),
        Operator::MemoryCopy { dst_mem, .. } => (StoreKind::Copy, dst_mem),
        Operator::MemoryInit { mem, .. } => (StoreKind::Init, mem),
        _ => return None,
    };
    Some(Write {
        kind,
        memory,
        offset: 0,
        width: 0,
        operands: 3,
    })
}

/// Whether the host may run, and so read and clear cards, before the next instruction.
///
/// Calls are the ordinary case. Growing a memory or table asks the host's limiter, waiting parks the thread, allocating may
/// collect garbage or grow a heap; an exception leaves the function.
pub(crate) fn is_collection_point(op: &Operator<'_>) -> bool {
    macro_rules! by_proposal {
        ($(@$proposal:ident $op:ident $({ $($arg:ident: $argty:ty),* })? => $visit:ident ($($ann:tt)*))*) => {
            match op {
                $(Operator::$op { .. } => by_proposal!(one $proposal $op),)*
                _ => true,
            }
        };
        (one mvp $op:ident) => {
            matches!(op, Operator::Call { .. } | Operator::CallIndirect { .. } | Operator::MemoryGrow { .. })
        };
        (one reference_types $op:ident) => { matches!(op, Operator::TableGrow { .. }) };
        (one threads $op:ident) => {
            matches!(op, Operator::MemoryAtomicWait32 { .. } | Operator::MemoryAtomicWait64 { .. })
        };
        (one exceptions $op:ident) => { !matches!(op, Operator::TryTable { .. }) };
        (one function_references $op:ident) => {
            matches!(op, Operator::CallRef { .. } | Operator::ReturnCallRef { .. })
        };
        (one sign_extension $op:ident) => { false };
        (one saturating_float_to_int $op:ident) => { false };
        (one bulk_memory $op:ident) => { false };
        (one simd $op:ident) => { false };
        (one relaxed_simd $op:ident) => { false };
        (one wide_arithmetic $op:ident) => { false };
        (one $proposal:ident $op:ident) => { true };
    }
    wasmparser::for_each_operator!(by_proposal)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::String;
    use alloc::vec::Vec;

    /// Encodings of every instruction with a memory operand: the opcode bytes, then the operand.
    fn with_memory_operand() -> Vec<(String, Vec<u8>)> {
        use alloc::format;
        let mut all = Vec::new();
        for code in 0x28..=0x3eu8 {
            all.push((format!("{code:#x}"), Vec::from([code, 0, 0])));
        }
        for code in (0..=0x0bu8).chain(0x54..=0x5d) {
            all.push((format!("fd {code:#x}"), Vec::from([0xfd, code, 0, 0, 0])));
        }
        for code in (0..=2u8).chain(0x10..=0x4e) {
            all.push((format!("fe {code:#x}"), Vec::from([0xfe, code, 0, 0])));
        }
        all
    }

    #[test]
    fn every_instruction_that_stores_is_known_by_its_name() {
        let (mut stores, mut seen) = (0, 0);
        for (name, mut bytes) in with_memory_operand() {
            bytes.push(0x0b);
            let reader = wasmparser::BinaryReader::new(&bytes, 0);
            let mut reader = wasmparser::OperatorsReader::new(reader);
            let Ok(op) = reader.read() else { continue };
            seen += 1;
            let debug = alloc::format!("{op:?}");
            let debug = debug.split(' ').next().unwrap();
            let expected = debug.contains("Store") || debug.contains("Rmw");
            assert_eq!(Write::of(&op).is_some(), expected, "{name} {debug}");
            stores += u32::from(expected);
            assert!(!expected || !is_collection_point(&op), "{debug}");
        }
        // 23 + 22 + 67 instructions have a memory operand; 9 + 5 + 49 + 7 of them store.
        assert!(seen >= 108, "{seen}");
        assert_eq!(stores, 9 + 5 + 7 + 49);
    }

    #[test]
    fn widths_follow_from_names() {
        let memarg = MemArg {
            align: 0,
            max_align: 0,
            offset: 5,
            memory: 1,
        };
        for (op, width, operands) in [
            (Operator::I64Store32 { memarg }, 4, 2),
            (Operator::V128Store { memarg }, 16, 2),
            (Operator::V128Store64Lane { memarg, lane: 1 }, 8, 2),
            (Operator::I64AtomicRmw16CmpxchgU { memarg }, 2, 3),
            (Operator::I64AtomicRmwXchg { memarg }, 8, 2),
        ] {
            let write = Write::of(&op).unwrap();
            assert_eq!(
                (write.width, write.operands, write.offset, write.memory),
                (width, operands, 5, 1)
            );
        }
    }

    #[test]
    fn the_host_may_run_at_calls_and_growth() {
        assert!(is_collection_point(&Operator::Call { function_index: 0 }));
        assert!(is_collection_point(&Operator::MemoryGrow { mem: 0 }));
        assert!(is_collection_point(&Operator::StructNew { struct_type_index: 0 }));
        assert!(!is_collection_point(&Operator::I32Add));
        assert!(!is_collection_point(&Operator::MemoryFill { mem: 0 }));
    }
}
