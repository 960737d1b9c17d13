//! What a module has, and what will be done to it.
//!
//! The plan is made from a first, unvalidated reading of the sections; nothing is written before validation has passed over
//! the same bytes.
//!
//! Invariants:
//! - the card memory is the last memory, so every index of the input stays what it was;
//! - every address that a store to the tracked memory can succeed at has a card.

use crate::error::InstrumentError;
use crate::limits;
use crate::options::{Analyses, Cards, MemoryChoice, Options};
use crate::report::{CARDS_EXPORT, CardsLocation, ShadowStack, Stamp};
use crate::wasi::{self, Wrapped};
use alloc::format;
use alloc::vec::Vec;
use wasmparser::{
    CompositeInnerType, ConstExpr, Encoding, ExternalKind, KnownCustom, MemoryType, Name, NameSectionReader,
    Operator, Parser, Payload, SubType, TypeRef, ValType,
};

/// The name that LLVM gives to the shadow stack's pointer.
const STACK_POINTER: &str = "__stack_pointer";

/// What is done to a module.
#[derive(Debug)]
pub(crate) struct Plan {
    pub cards: CardsLocation,
    /// Whether the card memory is added by this rewrite.
    pub own_cards: bool,
    /// The tracked memory's type, after a lower maximum was given to it.
    pub tracked_type: MemoryType,
    /// Memories that are imported: the first indices.
    pub imported_memories: u32,
    /// The analyses that are sound for this module.
    pub analyses: Analyses,
    /// Set if stores to the shadow stack are looked for.
    pub shadow_stack: Option<ShadowStack>,
    /// Whether marks may be set before their stores.
    pub marks_ahead: bool,
    /// Types and functions of the input, imported ones included: added ones come after them.
    pub types: u32,
    pub functions: u32,
    /// Imported functions that get one around them: the first that are added, in this order.
    pub wrapped: Vec<Wrapped>,
}

impl Plan {
    /// Whether addresses are 64 bits wide.
    pub fn is_64(&self) -> bool {
        self.tracked_type.memory64
    }

    /// Bytes of a VM page.
    pub fn page_bytes(&self) -> i64 {
        1 << self.cards.page_size_shift
    }

    /// Index of the marker function with this number.
    pub fn marker_function(&self, number: u32) -> u32 {
        self.functions + self.wrapped.len() as u32 + number
    }

    /// Index of the function that takes a function's place.
    pub fn redirected(&self, function: u32) -> u32 {
        let at = self
            .wrapped
            .binary_search_by_key(&function, |wrapped| wrapped.function);
        at.map_or(function, |at| self.functions + at as u32)
    }

    /// An address difference as it is in the tracked memory's address arithmetic.
    pub fn wrap(&self, difference: i64) -> i64 {
        if self.is_64() {
            difference
        } else {
            i64::from(difference as i32)
        }
    }
}

/// What the first reading found.
#[derive(Debug, Default)]
struct Contents<'a> {
    /// The parameters of each type that is a function's.
    types: Vec<Option<Vec<ValType>>>,
    functions: u32,
    wrapped: Vec<Wrapped>,
    memories: Vec<MemoryType>,
    imported_memories: u32,
    memory_exports: Vec<(&'a str, u32)>,
    globals: Vec<Global>,
    stack_pointer: Option<u32>,
    /// Whether the module has a card table already, and what is said of it.
    instrumented: bool,
    stamp: Option<Stamp>,
}

#[derive(Debug)]
struct Global {
    mutable_i32: bool,
    initial: Option<u32>,
}

/// Reads the module and decides.
pub(crate) fn plan(wasm: &[u8], options: &Options) -> Result<Plan, InstrumentError> {
    options.check()?;
    let contents = Contents::read(wasm)?;
    let tracked = contents.choose(&options.memory)?;
    let mut tracked_type = contents.memories[tracked as usize];
    let covered = if tracked_type.memory64 {
        limit_memory64(
            &mut tracked_type,
            tracked < contents.imported_memories,
            options.memory64_bytes_max,
        )?
    } else {
        limits::MEMORY32_BYTES
    };
    let len = covered.div_ceil(1 << options.page_size_shift).max(1);
    let (export, memory, offset) = match options.cards {
        Cards::Own => (Some(CARDS_EXPORT), contents.memories.len() as u32, 0),
        Cards::Inline { offset } => {
            check_inline(&tracked_type, offset, len)?;
            (None, tracked, u64::from(offset))
        }
    };
    let writes_tracked = !tracked_type.memory64 && contents.memory_exports.contains(&(wasi::MEMORY, tracked));
    let marks_ahead = !tracked_type.shared && !tracked_type.memory64;
    let analyses = Analyses {
        shadow_stack: options.analyses.shadow_stack,
        coalesce: options.analyses.coalesce && !tracked_type.shared,
        hoist: options.analyses.hoist && marks_ahead,
        scatter: options.analyses.scatter && !tracked_type.shared,
    };
    Ok(Plan {
        cards: CardsLocation {
            export,
            memory,
            tracked,
            offset,
            len,
            page_size_shift: options.page_size_shift,
            suspect_bytes: options.suspect_bytes,
        },
        own_cards: export.is_some(),
        shadow_stack: contents
            .shadow_stack()
            .filter(|_| analyses.shadow_stack && !tracked_type.memory64),
        tracked_type,
        imported_memories: contents.imported_memories,
        analyses,
        marks_ahead,
        types: contents.types.len() as u32,
        functions: contents.functions,
        wrapped: if writes_tracked {
            contents.wrapped
        } else {
            Vec::new()
        },
    })
}

/// Bounds a 64-bit memory, and returns how many bytes it can have.
fn limit_memory64(ty: &mut MemoryType, imported: bool, bytes_max: u64) -> Result<u64, InstrumentError> {
    let page_log2 = ty.page_size_log2.unwrap_or(limits::WASM_PAGE_LOG2);
    let pages_max = bytes_max >> page_log2;
    if ty.initial > pages_max {
        return Err(InstrumentError::Options {
            reason: "memory64_bytes_max is below the memory's initial size",
        });
    }
    match ty.maximum {
        Some(maximum) if maximum <= pages_max => {}
        _ if imported => {
            let reason = "an imported 64-bit memory that may grow above memory64_bytes_max";
            return Err(InstrumentError::Unsupported { reason });
        }
        _ => ty.maximum = Some(pages_max),
    }
    Ok(ty.maximum.unwrap_or(pages_max) << page_log2)
}

fn check_inline(ty: &MemoryType, offset: u32, len: u64) -> Result<(), InstrumentError> {
    if ty.memory64 {
        return Err(InstrumentError::Options {
            reason: "inline cards need a 32-bit memory",
        });
    }
    let initial = ty
        .initial
        .saturating_mul(1 << ty.page_size_log2.unwrap_or(limits::WASM_PAGE_LOG2));
    if u64::from(offset) + len > initial {
        return Err(InstrumentError::Options {
            reason: "inline cards do not fit in the memory's initial size",
        });
    }
    Ok(())
}

/// See [`crate::check_uninstrumented`].
pub(crate) fn check_uninstrumented(wasm: &[u8]) -> Result<(), InstrumentError> {
    Contents::read(wasm).map(drop)
}

impl<'a> Contents<'a> {
    fn read(wasm: &'a [u8]) -> Result<Self, InstrumentError> {
        let mut contents = Self::default();
        for payload in Parser::new(0).parse_all(wasm) {
            match payload? {
                Payload::Version {
                    encoding: Encoding::Component,
                    ..
                } => return Err(InstrumentError::Component),
                Payload::TypeSection(reader) => {
                    for group in reader {
                        contents.types.extend(group?.types().map(parameters));
                    }
                }
                Payload::ImportSection(reader) => contents.imports(reader)?,
                Payload::FunctionSection(reader) => {
                    contents.functions = contents.functions.saturating_add(reader.count())
                }
                Payload::MemorySection(reader) => {
                    for memory in reader {
                        contents.memories.push(memory?);
                    }
                }
                Payload::GlobalSection(reader) => {
                    for global in reader {
                        let global = global?;
                        let mutable_i32 = global.ty.mutable && global.ty.content_type == ValType::I32;
                        contents.globals.push(Global {
                            mutable_i32,
                            initial: constant_i32(&global.init_expr),
                        });
                    }
                }
                Payload::ExportSection(reader) => contents.exports(reader)?,
                Payload::CustomSection(section) => {
                    if matches!(section.name(), "linking" | "reloc.CODE") {
                        return Err(InstrumentError::Unsupported {
                            reason: "a relocatable object: link it first",
                        });
                    }
                    if section.name() == CARDS_EXPORT {
                        contents.stamp = Stamp::decode(section.data());
                    }
                    if let KnownCustom::Name(names) = section.as_known() {
                        contents.names(names);
                    }
                }
                _ => {}
            }
        }
        if contents.instrumented {
            // Hosts take the memory of this name.
            let memories = &contents.memory_exports;
            let of_memory = |stamp: &Stamp| memories.contains(&(wasi::MEMORY, stamp.tracked));
            return Err(InstrumentError::AlreadyInstrumented {
                export: CARDS_EXPORT,
                stamp: contents.stamp.filter(of_memory),
            });
        }
        Ok(contents)
    }

    fn imports(&mut self, reader: wasmparser::ImportSectionReader<'a>) -> Result<(), InstrumentError> {
        for import in reader.into_imports() {
            let import = import?;
            match import.ty {
                TypeRef::Memory(ty) => {
                    self.memories.push(ty);
                    self.imported_memories += 1;
                }
                TypeRef::Global(ty) => {
                    if import.name == STACK_POINTER {
                        self.stack_pointer = Some(self.globals.len() as u32);
                    }
                    let mutable_i32 = ty.mutable && ty.content_type == ValType::I32;
                    self.globals.push(Global {
                        mutable_i32,
                        initial: None,
                    });
                }
                TypeRef::Func(ty) | TypeRef::FuncExact(ty) => {
                    let parameters = self.types.get(ty as usize).and_then(Option::as_ref);
                    let wrapped = parameters
                        .and_then(|parameters| Wrapped::of(&import, self.functions, ty, parameters));
                    self.wrapped.extend(wrapped);
                    self.functions += 1;
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn exports(&mut self, reader: wasmparser::ExportSectionReader<'a>) -> Result<(), InstrumentError> {
        for export in reader {
            let export = export?;
            self.instrumented |= export.name == CARDS_EXPORT;
            match export.kind {
                ExternalKind::Memory => self.memory_exports.push((export.name, export.index)),
                ExternalKind::Global if export.name == STACK_POINTER => {
                    self.stack_pointer = Some(export.index)
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Names are hints: one that does not parse is none.
    fn names(&mut self, names: NameSectionReader<'a>) {
        for subsection in names.into_iter().flatten() {
            let Name::Global(map) = subsection else { continue };
            for naming in map.into_iter().flatten() {
                if naming.name == STACK_POINTER {
                    self.stack_pointer = Some(naming.index);
                }
            }
        }
    }

    fn choose(&self, choice: &MemoryChoice) -> Result<u32, InstrumentError> {
        let found = match choice {
            MemoryChoice::Export(name) => self
                .memory_exports
                .iter()
                .find(|(export, _)| export == name)
                .map(|&(_, index)| index),
            MemoryChoice::Index(index) => Some(*index),
        };
        match found {
            Some(index) if (index as usize) < self.memories.len() => Ok(index),
            _ => Err(InstrumentError::NoMemory {
                wanted: match choice {
                    MemoryChoice::Export(name) => format!("exported as `{name}`"),
                    MemoryChoice::Index(index) => format!("number {index}"),
                },
            }),
        }
    }

    /// The shadow stack, where it is known at which address it ends: a host maps nothing below.
    fn shadow_stack(&self) -> Option<ShadowStack> {
        let global = self.stack_pointer?;
        let found = self.globals.get(global as usize);
        let high = found.filter(|found| found.mutable_i32)?.initial?;
        Some(ShadowStack { global, high })
    }
}

fn parameters(ty: &SubType) -> Option<Vec<ValType>> {
    match &ty.composite_type.inner {
        CompositeInnerType::Func(ty) => Some(ty.params().to_vec()),
        _ => None,
    }
}

/// The value of an expression that is a constant and nothing else.
fn constant_i32(expression: &ConstExpr<'_>) -> Option<u32> {
    let mut operators = expression.get_operators_reader();
    match (operators.read(), operators.read()) {
        (Ok(Operator::I32Const { value }), Ok(Operator::End)) => Some(value as u32),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan_wat(text: &str, options: &Options) -> Result<Plan, InstrumentError> {
        plan(&wat::parse_str(text).unwrap(), options)
    }

    #[test]
    fn the_card_table_covers_a_32_bit_memory() {
        let plan = plan_wat(r#"(module (memory (export "memory") 1))"#, &Options::default()).unwrap();
        assert_eq!(
            (plan.cards.memory, plan.cards.len, plan.cards.pages()),
            (1, 1 << 20, 16)
        );
    }

    #[test]
    fn a_64_bit_memory_is_bounded() {
        let text = r#"(module (memory (export "memory") i64 1))"#;
        let plan = plan_wat(text, &Options::default()).unwrap();
        assert_eq!(plan.tracked_type.maximum, Some(1 << 18));
        assert_eq!(plan.cards.len, 1 << 22);
        let imported = r#"(module (import "m" "m" (memory i64 1)) (export "memory" (memory 0)))"#;
        let error = plan_wat(imported, &Options::default()).unwrap_err();
        assert!(matches!(error, InstrumentError::Unsupported { .. }));
    }

    #[test]
    fn the_memory_is_chosen_by_name_or_index() {
        let text = r#"(module (memory 1) (memory (export "memory") 1))"#;
        assert_eq!(plan_wat(text, &Options::default()).unwrap().cards.tracked, 1);
        let first = Options {
            memory: MemoryChoice::Index(0),
            ..Options::default()
        };
        assert_eq!(plan_wat(text, &first).unwrap().cards.tracked, 0);
        let third = Options {
            memory: MemoryChoice::Index(2),
            ..Options::default()
        };
        assert!(matches!(
            plan_wat(text, &third),
            Err(InstrumentError::NoMemory { .. })
        ));
    }

    #[test]
    fn what_is_instrumented_stays_so() {
        let text = r#"(module (memory (export "memory") 1) (memory (export "vmsync1:cards") 16))"#;
        let error = plan_wat(text, &Options::default()).unwrap_err();
        assert!(matches!(
            error,
            InstrumentError::AlreadyInstrumented { stamp: None, .. }
        ));
    }

    /// A host maps nothing below the end of a stack whose stores have no marks, so it has to be known.
    #[test]
    fn a_stack_that_ends_nobody_knows_where_is_memory_like_any_other() {
        let sum = "(i32.add (i32.const 1000) (i32.const 1000))";
        let own = |initial: &str| {
            format!(r#"(global (export "__stack_pointer") (mut i32) {initial}) (memory (export "memory") 1)"#)
        };
        let imported = r#"(import "env" "__stack_pointer" (global (mut i32))) (memory (export "memory") 1)"#;
        for (text, end) in [
            (own("(i32.const 2000)"), Some(2000)),
            (own(sum), None),
            (imported.into(), None),
        ] {
            let plan = plan_wat(&format!("(module {text})"), &Options::default()).unwrap();
            assert_eq!(plan.shadow_stack.map(|stack| stack.high), end, "{text}");
        }
    }

    #[test]
    fn inline_cards_need_room() {
        let inline = Options {
            cards: Cards::Inline { offset: 65536 },
            ..Options::default()
        };
        let small = r#"(module (memory (export "memory") 16))"#;
        assert!(matches!(
            plan_wat(small, &inline),
            Err(InstrumentError::Options { .. })
        ));
        let large = r#"(module (memory (export "memory") 17))"#;
        assert_eq!(plan_wat(large, &inline).unwrap().cards.export, None);
    }
}
