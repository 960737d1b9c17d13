//! Sections as bytes: appending to one that is a list, and the order that the format prescribes.

use alloc::vec::Vec;
use wasm_encoder::{Encode, SectionId};
use wasmparser::BinaryReader;

/// The content of a section that is a list, with `count` encoded `entries` behind those it has; an empty `content` is a
/// section that the module does not have.
pub(crate) fn append(content: &[u8], entries: &[u8], count: u32) -> Result<Vec<u8>, wasmparser::Error> {
    let mut reader = BinaryReader::new(content, 0);
    let before = if content.is_empty() {
        0
    } else {
        reader.read_var_u32()?
    };
    let mut data = Vec::with_capacity(content.len() + entries.len() + 5);
    before.saturating_add(count).encode(&mut data);
    data.extend_from_slice(&content[reader.original_position()..]);
    data.extend_from_slice(entries);
    Ok(data)
}

/// Sections in the order that the format prescribes, which is not that of their numbers.
pub(crate) const ORDER: [SectionId; 13] = {
    use SectionId::*;
    [
        Type, Import, Function, Table, Memory, Tag, Global, Export, Start, Element, DataCount, Code, Data,
    ]
};

/// Rank of a section in [`ORDER`].
pub(crate) fn order(id: u8) -> usize {
    ORDER
        .iter()
        .position(|&known| known as u8 == id)
        .unwrap_or(ORDER.len())
}
