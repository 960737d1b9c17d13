//! What state a module has, and which part of it its code may change.
//!
//! Invariant: the module has validated before this looks at it, so that indices are in range.

use alloc::collections::BTreeSet;
use alloc::string::ToString;
use alloc::vec::Vec;

use twox_hash::XxHash3_128;
use wasmparser::{
    AbstractHeapType, CompositeInnerType, ConstExpr, Data, DataKind, ElementItems, ElementKind, Encoding,
    Error, ExternalKind, FunctionBody, HeapType, MemoryType, Operator, Parser, Payload, RefType, TableInit,
    TypeRef, ValType, Validator,
};

use super::{EXPORT_PREFIX, ExposeError, ExposedMemory, Refusal};
use crate::{verify, wasi};

/// Bytes of a page of Wasm.
const WASM_PAGE_BYTES: u64 = 64 << 10;

/// A segment, by its index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Segment {
    Data(u32),
    Element(u32),
}

/// The module, and what was found in it.
#[derive(Default)]
pub(super) struct Survey<'a> {
    /// Sections in the order of the module, by number and content; custom ones are left out but for the names.
    pub sections: Vec<(u8, &'a [u8])>,
    pub names: Option<&'a [u8]>,
    pub types: u32,
    pub functions: u32,
    imported_functions: u32,
    /// Of these, WASI's.
    wasi_functions: u32,
    pub memory: Option<MemoryType>,
    memories: u32,
    pub global_count: u32,
    /// Globals that may change.
    globals: Vec<u32>,
    has_function_globals: bool,
    tables: u32,
    changed_tables: BTreeSet<u32>,
    /// Functions that something refers to.
    referred: BTreeSet<u32>,
    pub data: Vec<Data<'a>>,
    passive_elements: BTreeSet<u32>,
    pub bodies: Vec<FunctionBody<'a>>,
    /// Passive segments that the code drops.
    dropped: BTreeSet<Segment>,
    pub start: Option<u32>,
}

/// Reads the module; refuses what cannot be kept.
pub(super) fn survey(wasm: &[u8]) -> Result<Survey<'_>, ExposeError> {
    if Parser::is_component(wasm) {
        return Err(Refusal::Component.into());
    }
    Validator::new_with_features(verify::features()).validate_all(wasm)?;
    let mut survey = Survey::default();
    for payload in Parser::new(0).parse_all(wasm) {
        let payload = payload?;
        survey.keep_bytes(wasm, &payload)?;
        survey.payload(payload)?;
    }
    if survey.memories > 1 {
        return Err(Refusal::SeveralMemories {
            count: survey.memories,
        }
        .into());
    }
    let mut dropped = core::mem::take(&mut survey.dropped);
    dropped.retain(|segment| survey.is_passive(*segment));
    survey.dropped = dropped;
    Ok(survey)
}

impl<'a> Survey<'a> {
    /// Whether a drop of the segment has an effect.
    fn is_passive(&self, segment: Segment) -> bool {
        match segment {
            Segment::Data(index) => {
                matches!(
                    self.data.get(index as usize),
                    Some(Data {
                        kind: DataKind::Passive,
                        ..
                    })
                )
            }
            Segment::Element(index) => self.passive_elements.contains(&index),
        }
    }

    /// The segments that may be dropped, each with a global, behind those of the module, that remembers it.
    pub fn drop_marks(&self) -> impl Iterator<Item = (Segment, u32)> + '_ {
        self.dropped.iter().copied().zip(self.global_count..)
    }

    /// Globals that have to be saved.
    pub fn saved_globals(&self) -> Vec<u32> {
        let marks = self.drop_marks().map(|(_, global)| global);
        self.globals.iter().copied().chain(marks).collect()
    }

    /// Tables that have to be saved.
    pub fn saved_tables(&self) -> Vec<u32> {
        self.changed_tables.iter().copied().collect()
    }

    /// Functions that can be found in a saved table or global.
    pub fn functions_to_name(&self) -> Vec<u32> {
        if self.changed_tables.is_empty() && !self.has_function_globals {
            return Vec::new();
        }
        self.referred.iter().copied().collect()
    }

    /// Whether there is a function whose stores to the memory have no marks: of WASI's there is none in 32-bit memories.
    pub fn calls_host(&self) -> bool {
        let is_64 = self.memory.is_some_and(|memory| memory.memory64);
        self.imported_functions > if is_64 { 0 } else { self.wasi_functions }
    }

    pub fn memory_size(&self) -> ExposedMemory {
        let Some(memory) = self.memory else {
            return ExposedMemory {
                bytes: WASM_PAGE_BYTES,
                bytes_max: WASM_PAGE_BYTES,
            };
        };
        let pages_max = if memory.memory64 { 1 << 48 } else { 1 << 16 };
        let bytes = |pages: u64| pages.saturating_mul(WASM_PAGE_BYTES);
        ExposedMemory {
            bytes: bytes(memory.initial),
            bytes_max: bytes(memory.maximum.unwrap_or(pages_max)),
        }
    }

    pub fn identity(&self) -> u128 {
        let mut hash = XxHash3_128::new();
        for (id, content) in &self.sections {
            hash.write(&[*id]);
            hash.write(&(content.len() as u64).to_le_bytes());
            hash.write(content);
        }
        hash.finish_128()
    }

    fn keep_bytes(&mut self, wasm: &'a [u8], payload: &Payload<'a>) -> Result<(), ExposeError> {
        if let Payload::CustomSection(section) = payload {
            match section.name() {
                "name" => self.names = Some(section.data()),
                "linking" | "reloc.CODE" => return Err(Refusal::Relocatable.into()),
                _ => {}
            }
        } else if let Some((id, range)) = payload.as_section() {
            self.sections.push((id, &wasm[range]));
        }
        Ok(())
    }

    fn payload(&mut self, payload: Payload<'a>) -> Result<(), ExposeError> {
        match payload {
            Payload::Version {
                encoding: Encoding::Component,
                ..
            } => return Err(Refusal::Component.into()),
            Payload::TypeSection(reader) => {
                for group in reader {
                    for ty in group?.types() {
                        self.types += 1;
                        match ty.composite_type.inner {
                            CompositeInnerType::Func(_) => {}
                            CompositeInnerType::Cont(_) => return Err(Refusal::Continuations.into()),
                            _ => return Err(Refusal::GarbageCollected.into()),
                        }
                    }
                }
            }
            Payload::ImportSection(reader) => {
                for import in reader.into_imports() {
                    let import = import?;
                    if import.module == "vmsync1" {
                        return Err(Refusal::OwnRegions.into());
                    }
                    self.wasi_functions += u32::from(wasi::is_function(&import));
                    self.import(import.ty)?;
                }
            }
            Payload::FunctionSection(reader) => self.functions += reader.count(),
            Payload::TableSection(reader) => {
                for table in reader {
                    let table = table?;
                    self.table(table.ty.element_type)?;
                    if let TableInit::Expr(init) = &table.init {
                        self.constant(init)?;
                    }
                }
            }
            Payload::MemorySection(reader) => {
                for memory in reader {
                    self.memory(memory?)?;
                }
            }
            Payload::GlobalSection(reader) => {
                for global in reader {
                    let global = global?;
                    if global.ty.mutable {
                        self.global(global.ty.content_type)?;
                    }
                    self.constant(&global.init_expr)?;
                    self.global_count += 1;
                }
            }
            Payload::ExportSection(reader) => {
                for export in reader {
                    let export = export?;
                    self.export(export.name, export.kind, export.index)?;
                }
            }
            Payload::StartSection { func, .. } => self.start = Some(func),
            Payload::ElementSection(reader) => self.elements(reader)?,
            Payload::DataSection(reader) => {
                for data in reader {
                    self.data.push(data?);
                }
            }
            Payload::CodeSectionEntry(body) => self.body(body)?,
            _ => {}
        }
        Ok(())
    }

    fn import(&mut self, ty: TypeRef) -> Result<(), ExposeError> {
        match ty {
            TypeRef::Func(_) | TypeRef::FuncExact(_) => {
                self.functions += 1;
                self.imported_functions += 1;
            }
            TypeRef::Memory(_) => return Err(Refusal::ImportedMemory { index: self.memories }.into()),
            TypeRef::Table(_) => return Err(Refusal::ImportedTable { index: self.tables }.into()),
            TypeRef::Global(ty) => {
                if ty.mutable {
                    return Err(Refusal::ImportedGlobal {
                        index: self.global_count,
                    }
                    .into());
                }
                self.global_count += 1;
            }
            TypeRef::Tag(_) => {}
        }
        Ok(())
    }

    fn memory(&mut self, memory: MemoryType) -> Result<(), ExposeError> {
        let index = self.memories;
        self.memories += 1;
        if memory.shared {
            return Err(Refusal::SharedMemory { index }.into());
        }
        if memory.page_size_log2.is_some_and(|log2| log2 != 16) {
            return Err(Refusal::PageSize { index }.into());
        }
        self.memory = Some(memory);
        Ok(())
    }

    fn table(&mut self, elements: RefType) -> Result<(), ExposeError> {
        let index = self.tables;
        self.tables += 1;
        if is_function(elements) {
            return Ok(());
        }
        let ty = elements.to_string();
        Err(Refusal::TableOfReferences { index, ty }.into())
    }

    fn global(&mut self, ty: ValType) -> Result<(), ExposeError> {
        if let ValType::Ref(reference) = ty {
            if !is_function(reference) {
                let (index, ty) = (self.global_count, reference.to_string());
                return Err(Refusal::GlobalReference { index, ty }.into());
            }
            self.has_function_globals = true;
        }
        self.globals.push(self.global_count);
        Ok(())
    }

    fn export(&mut self, name: &str, kind: ExternalKind, index: u32) -> Result<(), ExposeError> {
        if name.starts_with(EXPORT_PREFIX) {
            return Err(Refusal::Reserved {
                export: name.to_string(),
            }
            .into());
        }
        match kind {
            ExternalKind::Func if name == "_start" => return Err(Refusal::Command.into()),
            ExternalKind::Func => {
                self.referred.insert(index);
            }
            // The host may set its elements.
            ExternalKind::Table => {
                self.changed_tables.insert(index);
            }
            _ => {}
        }
        Ok(())
    }

    fn elements(&mut self, reader: wasmparser::ElementSectionReader<'a>) -> Result<(), ExposeError> {
        for (index, element) in (0..).zip(reader) {
            let element = element?;
            if let ElementKind::Passive = element.kind {
                self.passive_elements.insert(index);
            }
            match element.items {
                ElementItems::Functions(functions) => {
                    for function in functions {
                        self.referred.insert(function?);
                    }
                }
                ElementItems::Expressions(_, expressions) => {
                    for expression in expressions {
                        self.constant(&expression?)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn constant(&mut self, expression: &ConstExpr<'a>) -> Result<(), Error> {
        for operator in expression.get_operators_reader() {
            if let Operator::RefFunc { function_index } = operator? {
                self.referred.insert(function_index);
            }
        }
        Ok(())
    }

    fn body(&mut self, body: FunctionBody<'a>) -> Result<(), Error> {
        for operator in body.get_operators_reader()? {
            match operator? {
                Operator::RefFunc { function_index } => {
                    self.referred.insert(function_index);
                }
                Operator::TableSet { table }
                | Operator::TableGrow { table }
                | Operator::TableFill { table }
                | Operator::TableInit { table, .. }
                | Operator::TableCopy { dst_table: table, .. } => {
                    self.changed_tables.insert(table);
                }
                Operator::DataDrop { data_index } => {
                    self.dropped.insert(Segment::Data(data_index));
                }
                Operator::ElemDrop { elem_index } => {
                    self.dropped.insert(Segment::Element(elem_index));
                }
                _ => {}
            }
        }
        self.bodies.push(body);
        Ok(())
    }
}

/// Whether a reference is to a function. A type of the module is one: others are refused.
fn is_function(ty: RefType) -> bool {
    match ty.heap_type() {
        HeapType::Abstract { ty, .. } => matches!(ty, AbstractHeapType::Func | AbstractHeapType::NoFunc),
        HeapType::Concrete(_) | HeapType::Exact(_) => true,
    }
}
