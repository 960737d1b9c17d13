//! Looking at a guest before it is compiled: what is refused with a reason, and the barrier's marks.

use std::borrow::Cow;

use vmsync_core::tracker::TrackerKind;
use vmsync_instrument::{InstrumentError, Options, instrument};

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
/// are already.
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
        Err(InstrumentError::AlreadyInstrumented { .. }) => return Ok(Prepared { wasm, stack_end: 0 }),
        done => done.map_err(|error| Error::Guest(format!("{error}")))?,
    };
    let stack_end = done
        .report
        .shadow_stack
        .and_then(|stack| stack.high)
        .map_or(0, u64::from);
    Ok(Prepared {
        wasm: Cow::Owned(done.wasm),
        stack_end,
    })
}
