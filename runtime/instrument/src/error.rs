//! Why a module was not instrumented. The kind says what the caller does next.
//!
//! Invariants:
//! - no input bytes make this crate panic: every refusal is a value of this type;
//! - an error leaves nothing behind: there is no partly instrumented module.

use crate::report::Stamp;
use alloc::string::{String, ToString};
use wasm_encoder::reencode;

/// What the caller does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InstrumentErrorKind {
    /// The bytes are not a valid core module: reject the guest.
    BadModule,
    /// The options do not fit this module: choose others.
    BadOptions,
    /// The module is valid and uses something that is refused: run it with another tracker.
    Unsupported,
    /// The rewritten module did not validate: most often the input was at a limit of the format. Run the guest with
    /// another tracker, and report the module.
    Internal,
}

/// A refusal to instrument a module.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InstrumentError {
    /// The input does not parse or validate.
    #[error("not a valid core module: {message} (at byte {offset:#x})")]
    Invalid {
        /// What the validator said.
        message: String,
        /// Byte offset in the input.
        offset: usize,
    },
    /// The input is a component, not a core module.
    #[error("a component was given; instrument the core modules inside it")]
    Component,
    /// The memory to track does not exist.
    #[error("the module has no memory {wanted}")]
    NoMemory {
        /// The choice that failed.
        wanted: String,
    },
    /// The module exports a card table already.
    #[error("the module is already instrumented: it exports `{export}`")]
    AlreadyInstrumented {
        /// Name of the export found.
        export: &'static str,
        /// What was said of the table when it was made; `None` where the section that says so was removed since, or where it is of
        /// another memory than the exported `memory`.
        stamp: Option<Stamp>,
    },
    /// An option is out of its range, or does not fit the module.
    #[error("bad option: {reason}")]
    Options {
        /// Which option and why.
        reason: &'static str,
    },
    /// The module is valid, and refused.
    #[error("unsupported module: {reason}")]
    Unsupported {
        /// What is not supported.
        reason: &'static str,
    },
    /// The output does not validate.
    #[error("the rewritten module is invalid: {message} (at byte {offset:#x})")]
    Output {
        /// What the validator said.
        message: String,
        /// Byte offset in the output.
        offset: usize,
    },
}

impl InstrumentError {
    /// What the caller does next.
    pub fn kind(&self) -> InstrumentErrorKind {
        match self {
            Self::Invalid { .. } | Self::Component => InstrumentErrorKind::BadModule,
            Self::NoMemory { .. } | Self::Options { .. } => InstrumentErrorKind::BadOptions,
            Self::AlreadyInstrumented { .. } | Self::Unsupported { .. } => InstrumentErrorKind::Unsupported,
            Self::Output { .. } => InstrumentErrorKind::Internal,
        }
    }

    pub(crate) fn output(error: &wasmparser::Error) -> Self {
        Self::Output {
            message: error.message().to_string(),
            offset: error.offset(),
        }
    }
}

impl From<wasmparser::Error> for InstrumentError {
    fn from(error: wasmparser::Error) -> Self {
        Self::Invalid {
            message: error.message().to_string(),
            offset: error.offset(),
        }
    }
}

impl From<reencode::Error> for InstrumentError {
    fn from(error: reencode::Error) -> Self {
        match error {
            reencode::Error::ParseError(error) => error.into(),
            other => Self::Output {
                message: other.to_string(),
                offset: 0,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kind_tells_whose_fault_it_is() {
        assert_eq!(InstrumentError::Component.kind(), InstrumentErrorKind::BadModule);
        let error = InstrumentError::Options { reason: "x" };
        assert_eq!(error.kind(), InstrumentErrorKind::BadOptions);
    }
}
