//! Why an instance cannot be kept, opened or committed.

use vmsync_core::{KernReturn, PagerError};

/// An error of a durable instance.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DurableError {
    /// The module has state that cannot be kept, or is not a module.
    #[error(transparent)]
    Module(#[from] vmsync_instrument::expose::ExposeError),
    /// The barrier's marks could not be put into the module.
    #[error(transparent)]
    Instrument(#[from] vmsync_instrument::InstrumentError),
    /// What is stored is the state of another module.
    #[error(
        "the stored instance is of another module ({found:032x}, this one is {given:032x}): run the module that made it, \
         or choose another object for this one"
    )]
    OtherModule {
        /// The identity that is stored.
        found: u128,
        /// The identity of the module.
        given: u128,
    },
    /// What is stored has another format.
    #[error(
        "the stored instance has format {found}, this version reads {expected}: use the version of vmsync that wrote it"
    )]
    Version {
        /// What is stored.
        found: u32,
        /// What this version writes.
        expected: u32,
    },
    /// What is stored contradicts itself or the module.
    #[error("the stored instance is damaged: {what}; restore the store from a copy")]
    Damaged {
        /// What is wrong.
        what: String,
    },
    /// A table or global holds a function that is not the module's.
    #[error("{place} holds a function of another instance or of the host, which cannot be kept")]
    ForeignFunction {
        /// Where.
        place: String,
    },
    /// The state beside the memory is too large.
    #[error("tables and globals take {bytes} bytes: at most {bytes_max} can be kept")]
    StateTooLarge {
        /// What they take.
        bytes: u64,
        /// The limit.
        bytes_max: u64,
    },
    /// The grant does not allow to store, or not as much.
    #[error("the grant of \"{object}\" does not allow this: {why}")]
    Grant {
        /// The object.
        object: String,
        /// What is missing.
        why: &'static str,
    },
    /// The pager hands out its only copy of a page, so that a failed call could not be undone.
    #[error(
        "the pager of \"{object}\" keeps no copy of pages that are in use, so that a failed call could not be undone: use another pager"
    )]
    KeepsNoCopy {
        /// The object.
        object: String,
    },
    /// Another instance has the objects open.
    #[error("\"{object}\" is open as another instance in this process: close that one first")]
    InUse {
        /// The object.
        object: String,
    },
    /// The objects could not be put into memory, or the changes not be made durable. The instance is as before the call,
    /// unless the pager did not answer (`ABORTED`): then it is as before or as after it.
    #[error("{step}: {result}{}", pager.as_ref().map(|error| format!(": {error}")).unwrap_or_default())]
    Storage {
        /// What was tried.
        step: &'static str,
        /// The result.
        result: KernReturn,
        /// The pager's words.
        pager: Option<PagerError>,
    },
}
