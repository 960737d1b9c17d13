//! Custom sections: names get the card memory, code metadata gets new offsets, what cannot be kept right is dropped.
//!
//! Invariants:
//! - a custom section never makes a module fail: one that does not parse is kept as it is, or dropped if it would lie.

use crate::function::Rewritten;
use crate::plan::Plan;
use crate::report::{CARDS_EXPORT, Stamp};
use alloc::vec::Vec;
use wasm_encoder::Encode;
use wasmparser::{BinaryReader, CustomSectionReader};

/// Code metadata, branch hints among it: offsets into functions, in one format for all.
const CODE_METADATA: &str = "metadata.code.";

/// Number of the subsection that names memories.
const MEMORY_NAMES: u8 = 6;

/// Number of the subsection that names labels, by their position among a function's blocks: marks add blocks.
const LABEL_NAMES: u8 = 3;

/// The functions that were rewritten.
#[derive(Debug, Default)]
pub(crate) struct Bodies {
    /// Index of the first function that has a body.
    pub first: u32,
    /// By position in the code section; `None` stays as it was.
    pub bodies: Vec<Option<Rewritten>>,
}

impl Bodies {
    /// What moved in the function with this index.
    fn moved(&self, function: u32) -> &[(usize, i64)] {
        let at = function.checked_sub(self.first).map(|at| at as usize);
        let body = at.and_then(|at| self.bodies.get(at)).and_then(Option::as_ref);
        body.map_or(&[], |body| &body.moved)
    }

    fn any_changed(&self) -> bool {
        self.bodies.iter().any(Option::is_some)
    }
}

/// What becomes of a custom section.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    /// It stays as it is.
    Same,
    /// It gets this content.
    Data(Vec<u8>),
    /// It goes.
    Dropped,
}

/// Decides about one custom section.
pub(crate) fn keep(plan: &Plan, section: &CustomSectionReader<'_>, bodies: &Bodies) -> Kept {
    let name = section.name();
    if name == CARDS_EXPORT {
        return Kept::Dropped;
    }
    if name == "name" {
        return renamed(plan, section.data(), bodies).map_or(Kept::Same, Kept::Data);
    }
    if name.starts_with(CODE_METADATA) && bodies.any_changed() {
        return remapped(section.data(), bodies).map_or(Kept::Dropped, Kept::Data);
    }
    let has_code_offsets =
        name.starts_with(".debug_") || matches!(name, "sourceMappingURL" | "external_debug_info");
    if has_code_offsets && bodies.any_changed() {
        Kept::Dropped
    } else {
        Kept::Same
    }
}

impl Stamp {
    /// Its section's content.
    pub(crate) fn encode(self) -> Vec<u8> {
        let mut out = Vec::new();
        self.page_size_shift.encode(&mut out);
        self.stack_end.encode(&mut out);
        self.suspect_bytes.encode(&mut out);
        self.tracked.encode(&mut out);
        out
    }

    /// What [`Stamp::encode`] made.
    pub(crate) fn decode(data: &[u8]) -> Option<Self> {
        let mut reader = BinaryReader::new(data, 0);
        let stamp = Self {
            page_size_shift: reader.read_var_u32().ok()?,
            stack_end: reader.read_var_u64().ok()?,
            suspect_bytes: reader.read_var_u32().ok()?,
            tracked: reader.read_var_u32().ok()?,
        };
        reader.eof().then_some(stamp)
    }
}

/// The name section with a name for the card memory, if it names memories at all, and without labels.
fn renamed(plan: &Plan, data: &[u8], bodies: &Bodies) -> Option<Vec<u8>> {
    let mut reader = BinaryReader::new(data, 0);
    let mut out = Vec::new();
    while !reader.eof() {
        let id = reader.read_u8().ok()?;
        let len = reader.read_var_u32().ok()?;
        let content = reader.read_bytes(len as usize).ok()?;
        match id {
            LABEL_NAMES if bodies.any_changed() => {}
            MEMORY_NAMES if plan.own_cards => {
                out.push(id);
                with_card_memory(plan, content)?.as_slice().encode(&mut out);
            }
            _ => {
                out.push(id);
                content.encode(&mut out);
            }
        }
    }
    Some(out)
}

/// Names of memories, one more of them.
fn with_card_memory(plan: &Plan, content: &[u8]) -> Option<Vec<u8>> {
    let mut names = BinaryReader::new(content, 0);
    let count = names.read_var_u32().ok()?;
    let mut out = Vec::new();
    count.checked_add(1)?.encode(&mut out);
    out.extend_from_slice(&content[names.original_position()..]);
    plan.cards.memory.encode(&mut out);
    CARDS_EXPORT.encode(&mut out);
    Some(out)
}

/// Code metadata with the offsets that the instructions have now.
fn remapped(data: &[u8], bodies: &Bodies) -> Option<Vec<u8>> {
    let mut reader = BinaryReader::new(data, 0);
    let mut out = Vec::new();
    let functions = reader.read_var_u32().ok()?;
    functions.encode(&mut out);
    for _ in 0..functions {
        let function = reader.read_var_u32().ok()?;
        function.encode(&mut out);
        let count = reader.read_var_u32().ok()?;
        count.encode(&mut out);
        let moved = bodies.moved(function);
        let (mut added, mut next) = (0i64, 0);
        for _ in 0..count {
            let offset = reader.read_var_u32().ok()?;
            while let Some(&(_, len)) = moved.get(next).filter(|&&(at, _)| at <= offset as usize) {
                added += len;
                next += 1;
            }
            u32::try_from(i64::from(offset) + added).ok()?.encode(&mut out);
            let len = reader.read_var_u32().ok()?;
            reader.read_bytes(len as usize).ok()?.encode(&mut out);
        }
    }
    reader.eof().then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_reads_as_it_was_written() {
        let stamp = Stamp {
            page_size_shift: 14,
            stack_end: 1 << 40,
            suspect_bytes: 16,
            tracked: 1,
        };
        let mut bytes = stamp.encode();
        assert_eq!(Stamp::decode(&bytes), Some(stamp));
        bytes.push(0);
        assert_eq!(Stamp::decode(&bytes), None);
        assert_eq!(Stamp::decode(&[]), None);
    }

    #[test]
    fn metadata_moves_with_its_instruction() {
        let moved = Vec::from([(1, 2), (10, 5), (20, 7)]);
        let bodies = Bodies {
            first: 3,
            bodies: Vec::from([Some(Rewritten {
                bytes: Vec::new(),
                moved,
            })]),
        };
        // Two functions: 0, untouched; 3, with hints at 4, 10 and 19.
        let data = [2, 0, 1, 9, 1, 1, 3, 3, 4, 1, 0, 10, 1, 1, 19, 1, 0];
        let expected = [2, 0, 1, 9, 1, 1, 3, 3, 6, 1, 0, 17, 1, 1, 26, 1, 0];
        assert_eq!(remapped(&data, &bodies).as_deref(), Some(&expected[..]));
        assert_eq!(remapped(&data[..8], &bodies), None);
    }
}
