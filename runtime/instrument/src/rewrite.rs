//! The module around the functions: sections are copied, except for those that get an entry more.
//!
//! Invariants:
//! - the input has validated as a whole before the first byte is written, the output before it is returned;
//! - sections keep their order, and those that are not named here keep their bytes.

use crate::ahead::{MarkerFunction, MarkerFunctions};
use crate::custom::{self, Bodies, Kept};
use crate::error::InstrumentError;
use crate::function;
use crate::limits;
use crate::marks::Marker;
use crate::options::Options;
use crate::plan::{self, Plan};
use crate::redirect;
use crate::report::{CARDS_EXPORT, Instrumented, Report, Stamp};
use crate::section;
use crate::store::StoreKind;
use crate::verify;
use alloc::string::ToString;
use alloc::vec::Vec;
use core::ops::Range;
use wasm_encoder::{
    CodeSection, CustomSection, Encode, ExportKind, ExportSection, Function, MemorySection, MemoryType,
    Module, RawSection, SectionId, TypeSection,
};
use wasmparser::{BinaryReader, FuncValidatorAllocations, Parser, Payload, ValidPayload, Validator};

/// Rewrites a module; `without` leaves the marks of one kind of store out.
pub(crate) fn instrument(
    wasm: &[u8],
    options: &Options,
    without: Option<StoreKind>,
) -> Result<Instrumented, InstrumentError> {
    let mut plan = plan::plan(wasm, options)?;
    if without == Some(StoreKind::Wasi) {
        plan.wrapped.clear();
    }
    let mut report = Report {
        bytes_in: wasm.len() as u64,
        ..Report::default()
    };
    let mut markers = MarkerFunctions::default();
    let bodies = functions(wasm, &plan, without, &mut markers, &mut report)?;
    let marker = Marker { plan: &plan };
    let around = plan
        .wrapped
        .iter()
        .map(|wrapped| wrapped.around(&marker, &mut markers));
    let around: Vec<Function> = around.collect();
    report.wrapped = around.len() as u64;
    let mut assembly = Assembly {
        wasm,
        plan: &plan,
        bodies: &bodies,
        around: &around,
        markers: &markers,
        module: Module::new(),
        done: Done::default(),
    };
    assembly.sections(&mut report)?;
    report.shadow_stack = plan.shadow_stack.clone().filter(|_| report.skipped_stack > 0);
    if plan.own_cards {
        let stamp = Stamp {
            page_size_shift: plan.cards.page_size_shift,
            stack_end: report.stack_end(),
            suspect_bytes: plan.cards.suspect_bytes,
            tracked: plan.cards.tracked,
        };
        assembly.module.section(&CustomSection {
            name: CARDS_EXPORT.into(),
            data: stamp.encode().into(),
        });
    }
    let out = assembly.module.finish();
    verify::output(&out)?;
    report.bytes_out = out.len() as u64;
    Ok(Instrumented {
        wasm: out,
        cards: plan.cards,
        report,
    })
}

/// Validates the module, and rewrites its functions on the way.
fn functions(
    wasm: &[u8],
    plan: &Plan,
    without: Option<StoreKind>,
    markers: &mut MarkerFunctions,
    report: &mut Report,
) -> Result<Bodies, InstrumentError> {
    let mut validator = Validator::new_with_features(verify::features());
    let mut allocations = FuncValidatorAllocations::default();
    let mut bodies = Bodies::default();
    for payload in Parser::new(0).parse_all(wasm) {
        let ValidPayload::Func(function, body) = validator.payload(&payload?)? else {
            continue;
        };
        if bodies.bodies.is_empty() {
            bodies.first = function.index;
        }
        let mut function = function.into_validator(allocations);
        let rewritten = function::rewrite(plan, &mut function, &body, without, markers, report)?;
        report.functions_changed += u64::from(rewritten.is_some());
        bodies.bodies.push(rewritten);
        allocations = function.into_allocations();
    }
    report.functions = bodies.bodies.len() as u64;
    Ok(bodies)
}

/// Which of the sections that get an entry were written.
#[derive(Debug, Default)]
struct Done {
    functions: bool,
    memories: bool,
    exports: bool,
    code: bool,
}

struct Assembly<'a> {
    wasm: &'a [u8],
    plan: &'a Plan,
    bodies: &'a Bodies,
    /// The functions around those of [`Plan::wrapped`].
    around: &'a [Function],
    markers: &'a MarkerFunctions,
    module: Module,
    done: Done,
}

impl<'a> Assembly<'a> {
    fn sections(&mut self, report: &mut Report) -> Result<(), InstrumentError> {
        for payload in Parser::new(0).parse_all(self.wasm) {
            let payload = payload?;
            match &payload {
                Payload::CustomSection(section) => {
                    match custom::keep(self.plan, section, self.bodies) {
                        Kept::Same => self.raw(SectionId::Custom as u8, section.range()),
                        Kept::Dropped => report.dropped_sections.push(section.name().to_string()),
                        Kept::Data(data) => {
                            self.module.section(&CustomSection {
                                name: section.name().into(),
                                data: (&data).into(),
                            });
                        }
                    };
                }
                Payload::CodeSectionEntry(_) | Payload::Version { .. } => {}
                Payload::End(_) => self.missing(None)?,
                _ => {
                    let Some((id, range)) = payload.as_section() else {
                        continue;
                    };
                    self.missing(Some(id))?;
                    self.section(id, range)?;
                }
            }
        }
        Ok(())
    }

    fn raw(&mut self, id: u8, range: Range<usize>) {
        self.module.section(&RawSection {
            id,
            data: &self.wasm[range],
        });
    }

    fn section(&mut self, id: u8, range: Range<usize>) -> Result<(), InstrumentError> {
        let markers = self.markers.all();
        if id == SectionId::Type as u8 && !markers.is_empty() {
            self.longer(id, range, &marker_types(), MarkerFunction::TYPES.len() as u32)
        } else if id == SectionId::Function as u8 && !markers.is_empty() {
            self.added_functions(Some(range))
        } else if id == SectionId::Memory as u8 {
            self.memories(Some(range))
        } else if id == SectionId::Export as u8 {
            self.exports(Some(range))
        } else if id == SectionId::Code as u8 {
            self.code(Some(range))
        } else {
            let content = &self.wasm[range.clone()];
            if self.around.is_empty() || !redirect::section(self.plan, id, content, &mut self.module)? {
                self.raw(id, range);
            }
            Ok(())
        }
    }

    /// The types of the functions, and of those that are added.
    fn added_functions(&mut self, range: Option<Range<usize>>) -> Result<(), InstrumentError> {
        let mut entries = Vec::new();
        for wrapped in &self.plan.wrapped {
            wrapped.ty.encode(&mut entries);
        }
        for marker in self.markers.all() {
            (self.plan.types + marker.ty()).encode(&mut entries);
        }
        let count = self.plan.wrapped.len() + self.markers.all().len();
        self.done.functions = true;
        let range = range.unwrap_or(0..0);
        self.longer(SectionId::Function as u8, range, &entries, count as u32)
    }

    /// Writes the sections that get an entry and that the module does not have, before section `next`.
    fn missing(&mut self, next: Option<u8>) -> Result<(), InstrumentError> {
        let past =
            |last: SectionId| next.is_none_or(|next| section::order(next) > section::order(last as u8));
        if !self.around.is_empty() && !self.done.functions && past(SectionId::Function) {
            self.added_functions(None)?;
        }
        if self.plan.own_cards && !self.done.memories && past(SectionId::Memory) {
            self.memories(None)?;
        }
        if self.plan.own_cards && !self.done.exports && past(SectionId::Export) {
            self.exports(None)?;
        }
        if !self.around.is_empty() && !self.done.code && past(SectionId::Code) {
            self.code(None)?;
        }
        Ok(())
    }

    /// The memories, the tracked one with its new maximum, and the cards.
    fn memories(&mut self, range: Option<Range<usize>>) -> Result<(), InstrumentError> {
        let mut section = MemorySection::new();
        let mut index = self.plan.imported_memories;
        if let Some(range) = range {
            let reader = BinaryReader::new(&self.wasm[range.clone()], range.start);
            for memory in wasmparser::MemorySectionReader::new(reader)? {
                let memory = memory?;
                let tracked = index == self.plan.cards.tracked;
                section.memory(memory_type(if tracked {
                    &self.plan.tracked_type
                } else {
                    &memory
                }));
                index += 1;
            }
        }
        if self.plan.own_cards {
            let pages = self.plan.cards.pages();
            section.memory(MemoryType {
                minimum: pages,
                maximum: Some(pages),
                memory64: false,
                shared: self.plan.tracked_type.shared,
                page_size_log2: None,
            });
        }
        self.done.memories = true;
        self.module.section(&section);
        Ok(())
    }

    /// The exports, and the cards.
    fn exports(&mut self, range: Option<Range<usize>>) -> Result<(), InstrumentError> {
        let mut section = match range {
            Some(range) => redirect::exports(self.plan, &self.wasm[range])?,
            None => ExportSection::new(),
        };
        if self.plan.own_cards {
            section.export(CARDS_EXPORT, ExportKind::Memory, self.plan.cards.memory);
        }
        self.done.exports = true;
        self.module.section(&section);
        Ok(())
    }

    /// A section that is a list, with entries appended.
    fn longer(
        &mut self,
        id: u8,
        range: Range<usize>,
        entries: &[u8],
        count: u32,
    ) -> Result<(), InstrumentError> {
        let data = section::append(&self.wasm[range], entries, count)?;
        self.module.section(&RawSection { id, data: &data });
        Ok(())
    }

    fn code(&mut self, range: Option<Range<usize>>) -> Result<(), InstrumentError> {
        let mut section = CodeSection::new();
        if let Some(range) = range {
            let reader = BinaryReader::new(&self.wasm[range.clone()], range.start);
            let bodies = wasmparser::CodeSectionReader::new(reader)?;
            for (body, rewritten) in bodies.into_iter().zip(&self.bodies.bodies) {
                let body = body?;
                section.raw(
                    rewritten
                        .as_ref()
                        .map_or(body.as_bytes(), |rewritten| &rewritten.bytes),
                );
            }
        }
        self.done.code = true;
        let marker = Marker { plan: self.plan };
        for function in self.around {
            section.function(function);
        }
        for function in self.markers.all() {
            section.function(&function.body(&marker));
        }
        self.module.section(&section);
        Ok(())
    }
}

/// The types of marker functions, as entries of a type section.
fn marker_types() -> Vec<u8> {
    let mut section = TypeSection::new();
    for parameters in MarkerFunction::TYPES {
        section.ty().function(parameters.iter().copied(), []);
    }
    let mut bytes = Vec::new();
    section.encode(&mut bytes);
    // Without the length and the number of entries, of a byte each.
    bytes.split_off(2)
}

fn memory_type(ty: &wasmparser::MemoryType) -> MemoryType {
    MemoryType {
        minimum: ty.initial,
        maximum: ty.maximum,
        memory64: ty.memory64,
        shared: ty.shared,
        page_size_log2: ty.page_size_log2,
    }
}

const _: () = assert!(limits::MEMORY64_BYTES_MAX >> limits::PAGE_SIZE_SHIFT_MIN <= limits::MEMORY32_BYTES);
