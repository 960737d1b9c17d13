//! Which modules are accepted, and the check that what came out is one.
//!
//! Invariants:
//! - a feature is in [`features`] only if the instrumenter knows every instruction of it that can write a memory, and every
//!   one that can run the host.

use crate::error::InstrumentError;
use wasmparser::{Validator, WasmFeatures};

/// Wasm 3.0, threads, custom page sizes, wide arithmetic and the compact import encoding.
pub(crate) fn features() -> WasmFeatures {
    WasmFeatures::WASM3
        .union(WasmFeatures::THREADS)
        .union(WasmFeatures::CUSTOM_PAGE_SIZES)
        .union(WasmFeatures::WIDE_ARITHMETIC)
        .union(WasmFeatures::COMPACT_IMPORTS)
}

/// Checks the module that was made.
pub(crate) fn output(wasm: &[u8]) -> Result<(), InstrumentError> {
    Validator::new_with_features(features())
        .validate_all(wasm)
        .map(drop)
        .map_err(|error| InstrumentError::output(&error))
}
