//! Making a guest ready: its stores mark cards, and what cannot run here is refused with a reason.
//!
//! Invariant: whatever the bytes are, the answer is a module or an error.

use vmsync_core::PageSize;
use vmsync_instrument::{Analyses, Cards, Options, instrument};
use wasm_bindgen::{JsValue, prelude::wasm_bindgen};
use wasm_encoder::reencode::{Reencode, RoundtripReencoder};
use wasmparser::{ExternalKind, MemoryType, Parser, Payload, TypeRef};

use crate::error::error;

/// Wasm pages of the card table of a 32-bit memory: a byte for each of 2^20 VM pages.
const CARDS_WASM_PAGES: u64 = 16;

/// A guest that is ready to be compiled.
#[wasm_bindgen]
pub struct Prepared {
    wasm: Vec<u8>,
    /// Nothing may be mapped below this address.
    pub(crate) stack_end: u64,
    /// The card table's first byte and length; inside the guest's memory unless `cards_export` names another.
    pub(crate) cards_offset: u64,
    pub(crate) cards_count: u64,
    pub(crate) cards_inline: bool,
}

#[wasm_bindgen]
impl Prepared {
    /// The module.
    #[wasm_bindgen(getter)]
    pub fn wasm(&self) -> Vec<u8> {
        self.wasm.clone()
    }

    /// The export that is its card table; `undefined` where the table lies in its memory.
    #[wasm_bindgen(getter, js_name = cardsExport)]
    pub fn cards_export(&self) -> Option<String> {
        (!self.cards_inline).then(|| vmsync_instrument::CARDS_EXPORT.into())
    }
}

/// Instruments `wasm`. With `inline` the card table goes behind the guest's initial memory, for engines without
/// multi-memory.
///
/// # Errors
/// A `VmsyncError` with the code `bad-module`, saying what is wrong.
#[wasm_bindgen]
pub fn prepare(wasm: &[u8], inline: bool) -> Result<Prepared, JsValue> {
    let refuse = |message: String| error("bad-module", &message);
    let memory = exported_memory(wasm).map_err(refuse)?;
    let (wasm, cards) = if inline {
        let first = memory.initial * memory_page(&memory);
        let offset = u32::try_from(first).map_err(|_| {
            refuse("the memory is too large for a card table in it: use a newer engine".into())
        })?;
        (grown(wasm).map_err(refuse)?, Cards::Inline { offset })
    } else {
        (wasm.to_vec(), Cards::Own)
    };
    let options = Options {
        cards,
        page_size_shift: PageSize::KIB_4.shift(),
        // Marks ahead of a loop may cover much more than it stores to, and each page that is marked is read and compared.
        analyses: Analyses {
            hoist: false,
            ..Analyses::ALL
        },
        ..Options::default()
    };
    let done = instrument(&wasm, &options).map_err(|error| refuse(format!("{error}")))?;
    Ok(Prepared {
        stack_end: done.report.stack_end(),
        wasm: done.wasm,
        cards_offset: done.cards.offset,
        cards_count: done.cards.len,
        cards_inline: done.cards.export.is_none(),
    })
}

fn memory_page(memory: &MemoryType) -> u64 {
    1 << memory.page_size_log2.unwrap_or(16)
}

/// The memory that the module exports as `memory`, if it is one that can be served here.
fn exported_memory(wasm: &[u8]) -> Result<MemoryType, String> {
    let (mut memories, mut exported) = (Vec::new(), None);
    for payload in Parser::new(0).parse_all(wasm) {
        match payload.map_err(|error| format!("not a valid core module: {error}"))? {
            Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    let import = import.map_err(|error| format!("{error}"))?;
                    if matches!(import.ty, TypeRef::Memory(_)) {
                        return Err("the module imports its memory: let it define and export it".into());
                    }
                }
            }
            Payload::MemorySection(section) => {
                for memory in section {
                    memories.push(memory.map_err(|error| format!("{error}"))?);
                }
            }
            Payload::ExportSection(section) => {
                for export in section {
                    let export = export.map_err(|error| format!("{error}"))?;
                    if export.name == "memory" && export.kind == ExternalKind::Memory {
                        exported = Some(export.index);
                    }
                }
            }
            _ => {}
        }
    }
    let memory = exported.and_then(|index| memories.get(index as usize).copied());
    let memory = memory.ok_or("the module exports no memory named \"memory\": export it")?;
    if memory.memory64 {
        return Err("64-bit memories are not supported here: compile the guest for wasm32".into());
    }
    if memory.shared {
        return Err("shared memories are not supported: compile the guest without threads".into());
    }
    Ok(memory)
}

/// The module with room for a card table behind its initial memory.
fn grown(wasm: &[u8]) -> Result<Vec<u8>, String> {
    struct Grow;
    impl Reencode for Grow {
        type Error = std::convert::Infallible;
        fn memory_type(
            &mut self,
            memory: MemoryType,
        ) -> Result<wasm_encoder::MemoryType, wasm_encoder::reencode::Error<Self::Error>> {
            let mut grown = RoundtripReencoder
                .memory_type(memory)
                .map_err(|_| wasm_encoder::reencode::Error::InvalidConstExpr)?;
            grown.minimum += CARDS_WASM_PAGES;
            grown.maximum = grown
                .maximum
                .map(|maximum| (maximum + CARDS_WASM_PAGES).min(1 << 16));
            Ok(grown)
        }
    }
    let mut module = wasm_encoder::Module::new();
    Grow.parse_core_module(&mut module, Parser::new(0), wasm)
        .map_err(|error| format!("not a valid core module: {error}"))?;
    Ok(module.finish())
}
