//! The module with its state exported and its beginning in a function.
//!
//! A dropped segment behaves as one without bytes. So active data segments become passive ones that BEGIN copies and
//! drops, and that RESUME just drops; that a passive one was dropped is remembered in a global of its own.

use alloc::borrow::Cow;
use alloc::collections::BTreeMap;
use alloc::string::ToString;
use alloc::vec;
use alloc::vec::Vec;

use wasm_encoder::{
    BlockType, CodeSection, ConstExpr, DataSection, Encode, ExportKind, Function, GlobalSection, GlobalType,
    Instruction, MemorySection, MemoryType, Module, RawSection, SectionId, TypeSection, ValType,
};
use wasmparser::{BinaryReader, DataKind, FunctionBody, Operator, Validator};

use super::survey::{Segment, Survey};
use super::{BEGIN, ExposeError, MEMORY, RESUME, export_name};
use crate::{section, verify};

pub(super) fn write(survey: &Survey<'_>) -> Result<Vec<u8>, ExposeError> {
    let mut sections: BTreeMap<u8, Cow<'_, [u8]>> = BTreeMap::new();
    for (id, content) in &survey.sections {
        sections.insert(*id, Cow::Borrowed(content));
    }
    let mut writer = Writer { survey, sections };
    writer.add_functions()?;
    writer.add_memory();
    writer.add_globals()?;
    writer.add_exports()?;
    writer.make_data_passive();
    writer.sections.remove(&(SectionId::Start as u8));
    writer.finish()
}

struct Writer<'s, 'a> {
    survey: &'s Survey<'a>,
    sections: BTreeMap<u8, Cow<'a, [u8]>>,
}

impl Writer<'_, '_> {
    fn append(&mut self, id: SectionId, entries: &[u8], count: u32) -> Result<(), ExposeError> {
        let before = self.sections.get(&(id as u8)).map_or(&[][..], |content| content);
        let longer = section::append(before, entries, count)?;
        self.sections.insert(id as u8, Cow::Owned(longer));
        Ok(())
    }

    fn add_functions(&mut self) -> Result<(), ExposeError> {
        let mut types = TypeSection::new();
        types.ty().function([], []);
        self.append(SectionId::Type, &entries(&types), 1)?;
        let mut functions = Vec::new();
        for _ in [BEGIN, RESUME] {
            self.survey.types.encode(&mut functions);
        }
        self.append(SectionId::Function, &functions, 2)?;
        self.remember_drops()?;
        let mut bodies = Vec::new();
        self.begin().encode(&mut bodies);
        self.resume().encode(&mut bodies);
        self.append(SectionId::Code, &bodies, 2)
    }

    /// Copies the active data segments, and calls the start function.
    fn begin(&self) -> Function {
        let mut function = Function::new([]);
        for (index, data) in (0..).zip(&self.survey.data) {
            let DataKind::Active {
                memory_index,
                offset_expr,
            } = &data.kind
            else {
                continue;
            };
            let mut reader = offset_expr.get_binary_reader();
            let offset = reader.read_bytes(reader.bytes_remaining()).unwrap_or_default();
            // Without its `end`.
            function.raw(offset[..offset.len().saturating_sub(1)].iter().copied());
            function.instruction(&Instruction::I32Const(0));
            function.instruction(&Instruction::I32Const((data.data.len() as u32).cast_signed()));
            function.instruction(&Instruction::MemoryInit {
                mem: *memory_index,
                data_index: index,
            });
            function.instruction(&Instruction::DataDrop(index));
        }
        if let Some(start) = self.survey.start {
            function.instruction(&Instruction::Call(start));
        }
        function.instruction(&Instruction::End);
        function
    }

    /// Drops what was dropped.
    fn resume(&self) -> Function {
        let mut function = Function::new([]);
        for (index, data) in (0..).zip(&self.survey.data) {
            if let DataKind::Active { .. } = data.kind {
                function.instruction(&Instruction::DataDrop(index));
            }
        }
        for (segment, mark) in self.survey.drop_marks() {
            function.instruction(&Instruction::GlobalGet(mark));
            function.instruction(&Instruction::If(BlockType::Empty));
            function.instruction(&drop_instruction(segment));
            function.instruction(&Instruction::End);
        }
        function.instruction(&Instruction::End);
        function
    }

    /// Sets a segment's mark wherever the code drops it.
    fn remember_drops(&mut self) -> Result<(), ExposeError> {
        let marks: BTreeMap<Segment, u32> = self.survey.drop_marks().collect();
        if marks.is_empty() {
            return Ok(());
        }
        let mut code = CodeSection::new();
        for body in &self.survey.bodies {
            code.raw(&with_marks(body, &marks)?);
        }
        self.sections
            .insert(SectionId::Code as u8, Cow::Owned(content(&code)));
        Ok(())
    }

    /// A memory that nobody uses, so that there is always one.
    fn add_memory(&mut self) {
        if self.survey.memory.is_none() {
            let mut memories = MemorySection::new();
            memories.memory(MemoryType {
                minimum: 1,
                maximum: Some(1),
                memory64: false,
                shared: false,
                page_size_log2: None,
            });
            self.sections
                .insert(SectionId::Memory as u8, Cow::Owned(content(&memories)));
        }
    }

    fn add_globals(&mut self) -> Result<(), ExposeError> {
        let count = self.survey.drop_marks().count();
        if count == 0 {
            return Ok(());
        }
        let mut globals = GlobalSection::new();
        for _ in 0..count {
            let ty = GlobalType {
                val_type: ValType::I32,
                mutable: true,
                shared: false,
            };
            globals.global(ty, &ConstExpr::i32_const(0));
        }
        self.append(SectionId::Global, &entries(&globals), count as u32)
    }

    fn add_exports(&mut self) -> Result<(), ExposeError> {
        let survey = self.survey;
        let mut exports = vec![
            (MEMORY.to_string(), ExportKind::Memory, 0),
            (BEGIN.to_string(), ExportKind::Func, survey.functions),
            (RESUME.to_string(), ExportKind::Func, survey.functions + 1),
        ];
        for index in survey.saved_globals() {
            exports.push((export_name("global", index), ExportKind::Global, index));
        }
        for index in survey.saved_tables() {
            exports.push((export_name("table", index), ExportKind::Table, index));
        }
        for index in survey.functions_to_name() {
            exports.push((export_name("function", index), ExportKind::Func, index));
        }
        let mut bytes = Vec::new();
        for (name, kind, index) in &exports {
            name.as_str().encode(&mut bytes);
            kind.encode(&mut bytes);
            index.encode(&mut bytes);
        }
        self.append(SectionId::Export, &bytes, exports.len() as u32)
    }

    fn make_data_passive(&mut self) {
        if self.survey.data.is_empty() {
            return;
        }
        let mut section = DataSection::new();
        for data in &self.survey.data {
            section.passive(data.data.iter().copied());
        }
        let mut count = Vec::new();
        (self.survey.data.len() as u32).encode(&mut count);
        self.sections
            .insert(SectionId::DataCount as u8, Cow::Owned(count));
        self.sections
            .insert(SectionId::Data as u8, Cow::Owned(content(&section)));
    }

    fn finish(self) -> Result<Vec<u8>, ExposeError> {
        let mut module = Module::new();
        for id in section::ORDER {
            if let Some(data) = self.sections.get(&(id as u8)) {
                module.section(&RawSection { id: id as u8, data });
            }
        }
        if let Some(names) = self.survey.names {
            module.section(&wasm_encoder::CustomSection {
                name: "name".into(),
                data: names.into(),
            });
        }
        let out = module.finish();
        match Validator::new_with_features(verify::features()).validate_all(&out) {
            Ok(_) => Ok(out),
            Err(error) => Err(ExposeError::Output {
                message: error.message().to_string(),
                offset: error.offset(),
            }),
        }
    }
}

fn drop_instruction(segment: Segment) -> Instruction<'static> {
    match segment {
        Segment::Data(index) => Instruction::DataDrop(index),
        Segment::Element(index) => Instruction::ElemDrop(index),
    }
}

/// The bytes of `body` with `global.set` before each drop that has a mark.
fn with_marks(body: &FunctionBody<'_>, marks: &BTreeMap<Segment, u32>) -> Result<Vec<u8>, ExposeError> {
    let (bytes, start) = (body.as_bytes(), body.range().start);
    let mut out = Vec::with_capacity(bytes.len());
    let mut copied = 0;
    for operator in body.get_operators_reader()?.into_iter_with_offsets() {
        let (segment, offset) = match operator? {
            (Operator::DataDrop { data_index }, offset) => (Segment::Data(data_index), offset),
            (Operator::ElemDrop { elem_index }, offset) => (Segment::Element(elem_index), offset),
            _ => continue,
        };
        let Some(mark) = marks.get(&segment) else { continue };
        out.extend_from_slice(&bytes[copied..offset - start]);
        copied = offset - start;
        Instruction::I32Const(1).encode(&mut out);
        Instruction::GlobalSet(*mark).encode(&mut out);
    }
    out.extend_from_slice(&bytes[copied..]);
    Ok(out)
}

/// A section without its number and length.
fn content(section: &impl Encode) -> Vec<u8> {
    let mut bytes = Vec::new();
    section.encode(&mut bytes);
    without_number(&bytes)
}

/// A section that is a list, without its number, length and count.
fn entries(section: &impl Encode) -> Vec<u8> {
    without_number(&content(section))
}

fn without_number(bytes: &[u8]) -> Vec<u8> {
    let mut reader = BinaryReader::new(bytes, 0);
    // What was encoded just now begins with a number.
    let _ = reader.read_var_u32();
    bytes[reader.original_position()..].to_vec()
}
