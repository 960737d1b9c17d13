//! Looking at a guest before it is compiled: what is refused with a reason, and the barrier's marks.

use std::borrow::Cow;

use vmsync_core::tracker::TrackerKind;
use vmsync_instrument::{InstrumentError, Options, Stamp, instrument};

use crate::{Error, Host};

pub(crate) use vmsync_instrument::CARDS_EXPORT;

/// A guest that is ready to be compiled.
#[derive(Clone, Debug)]
pub struct Prepared<'a> {
    /// The module.
    pub wasm: Cow<'a, [u8]>,
    /// Nothing may be mapped below this address: the barrier leaves the marks of the shadow stack out. For
    /// [`crate::VmBuilder::stack_end`].
    pub stack_end: u64,
}

/// Makes `wasm` (binary or text) ready to run under `host`: with the `barrier` tracker its stores are instrumented, unless they
/// are already, for pages of the size that this host has.
///
/// An instrumented guest marks what a loop stores to before the loop begins. So [`crate::Vm::msync`] must not be called
/// from a callback that interrupts the guest (Wasmtime's epochs and fuel), only from a host function that the guest calls
/// and when it has returned or trapped.
///
/// # Errors
/// What is wrong with the module.
pub fn prepare<'a>(host: &Host, wasm: &'a [u8]) -> Result<Prepared<'a>, Error> {
    let wasm =
        wat::parse_bytes(wasm).map_err(|error| Error::Guest(format!("not a WebAssembly module: {error}")))?;
    if host.tracker() != TrackerKind::Barrier {
        return Ok(Prepared { wasm, stack_end: 0 });
    }
    let options = Options {
        page_size_shift: host.options().page_size.shift(),
        ..Options::default()
    };
    let done = match instrument(&wasm, &options) {
        Err(InstrumentError::AlreadyInstrumented { stamp, .. }) => {
            let stack_end = check_stamp(stamp, &options)?;
            return Ok(Prepared { wasm, stack_end });
        }
        done => done.map_err(|error| Error::Guest(format!("{error}")))?,
    };
    Ok(Prepared {
        stack_end: done.report.stack_end(),
        wasm: Cow::Owned(done.wasm),
    })
}

/// The end of the shadow stack of a guest that was instrumented before. Cards for pages of another size would leave stores out.
fn check_stamp(stamp: Option<Stamp>, options: &Options) -> Result<u64, Error> {
    let Some(stamp) = stamp else {
        let message = format!(
            "the module exports `{CARDS_EXPORT}` and has no custom section of that name which says what the cards of its `memory` \
             are: instrument it again, and keep that section"
        );
        return Err(Error::Guest(message));
    };
    let expected = (options.page_size_shift, options.suspect_bytes);
    if (stamp.page_size_shift, stamp.suspect_bytes) == expected {
        return Ok(stamp.stack_end);
    }
    let bytes = |shift: u32| 1u64.checked_shl(shift).unwrap_or(0);
    let message = format!(
        "the module was instrumented for pages of {} bytes with {} suspect ones, and this host has pages of {} with {}: give it \
         the module as it was before",
        bytes(stamp.page_size_shift),
        stamp.suspect_bytes,
        bytes(options.page_size_shift),
        options.suspect_bytes
    );
    Err(Error::Guest(message))
}
