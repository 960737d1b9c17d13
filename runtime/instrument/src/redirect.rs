//! Sections that name functions, with other functions in the place of those that got one around them.

use crate::error::InstrumentError;
use crate::plan::Plan;
use core::convert::Infallible;
use wasm_encoder::reencode::{Error, Reencode};
use wasm_encoder::{
    ElementSection, ExportSection, GlobalSection, Module, SectionId, StartSection, TableSection,
};
use wasmparser::{BinaryReader, FromReader, SectionLimited};

struct Redirect<'a>(&'a Plan);

impl Reencode for Redirect<'_> {
    type Error = Infallible;

    fn function_index(&mut self, function: u32) -> Result<u32, Error> {
        Ok(self.0.redirected(function))
    }
}

/// Writes a section that names functions, other than exports and code; `false`: it is none.
pub(crate) fn section(
    plan: &Plan,
    id: u8,
    content: &[u8],
    module: &mut Module,
) -> Result<bool, InstrumentError> {
    let redirect = &mut Redirect(plan);
    if id == SectionId::Table as u8 {
        let mut section = TableSection::new();
        redirect.parse_table_section(&mut section, reader(content)?)?;
        module.section(&section);
    } else if id == SectionId::Global as u8 {
        let mut section = GlobalSection::new();
        redirect.parse_global_section(&mut section, reader(content)?)?;
        module.section(&section);
    } else if id == SectionId::Element as u8 {
        let mut section = ElementSection::new();
        redirect.parse_element_section(&mut section, reader(content)?)?;
        module.section(&section);
    } else if id == SectionId::Start as u8 {
        let function = BinaryReader::new(content, 0).read_var_u32()?;
        let function_index = plan.redirected(function);
        module.section(&StartSection { function_index });
    } else {
        return Ok(false);
    }
    Ok(true)
}

/// The entries of an export section.
pub(crate) fn exports(plan: &Plan, content: &[u8]) -> Result<ExportSection, InstrumentError> {
    let mut section = ExportSection::new();
    Redirect(plan).parse_export_section(&mut section, reader(content)?)?;
    Ok(section)
}

fn reader<'a, T: FromReader<'a>>(content: &'a [u8]) -> Result<SectionLimited<'a, T>, wasmparser::Error> {
    SectionLimited::new(BinaryReader::new(content, 0))
}
