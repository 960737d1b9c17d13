//! Looking at a guest before it is compiled: what is refused with a reason, and the barrier's marks.

use std::borrow::Cow;

use vmsync_core::tracker::TrackerKind;
use vmsync_instrument::{InstrumentError, Instrumented, Options, Stamp, check_uninstrumented, instrument};
use vmsync_tracker::SUSPECT_BYTES;

use crate::{Error, Host};

pub(crate) use vmsync_instrument::CARDS_EXPORT;

/// A guest that is ready to be compiled.
#[derive(Clone, Debug)]
pub struct Prepared<'a> {
    /// The module.
    pub wasm: Cow<'a, [u8]>,
    /// For [`crate::VmBuilder::marks`]; `None` where its stores mark nothing.
    pub marks: Option<Marks>,
}

/// What a host has to know of a guest whose stores mark cards: without it a [`crate::Vm`] does not look at them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marks {
    stack_end: u64,
}

impl Marks {
    /// Those of a module that was instrumented with options of the caller's own.
    ///
    /// # Errors
    /// They are not what `host` looks at: the options' page size is another, or a page may have more suspect bytes.
    pub fn of(host: &Host, done: &Instrumented) -> Result<Self, Error> {
        let cards = (done.cards.page_size_shift, done.cards.suspect_bytes);
        check_cards(cards, &options(host))?;
        let stack_end = done.report.stack_end();
        Ok(Self { stack_end })
    }

    /// Nothing is mapped below this address: stores to the shadow stack have no marks.
    pub fn stack_end(self) -> u64 {
        self.stack_end
    }
}

/// Makes `wasm` (binary or text) ready to run under `host`: with the `barrier` tracker its stores are instrumented. A guest
/// that was instrumented before stays as it is, for pages of the size that this host has; its marks are what any host goes by.
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
    let options = options(host);
    let done = if host.tracker() == TrackerKind::Barrier {
        instrument(&wasm, &options).map(Some)
    } else {
        match check_uninstrumented(&wasm) {
            Err(error @ InstrumentError::AlreadyInstrumented { .. }) => Err(error),
            // What else may be wrong with it the engine says.
            _ => Ok(None),
        }
    };
    let (wasm, stack_end) = match done {
        Ok(None) => return Ok(Prepared { wasm, marks: None }),
        Ok(Some(done)) => (Cow::Owned(done.wasm), done.report.stack_end()),
        Err(InstrumentError::AlreadyInstrumented { stamp, .. }) => (wasm, check_stamp(stamp, &options)?),
        Err(error) => return Err(Error::Guest(format!("{error}"))),
    };
    let marks = Some(Marks { stack_end });
    Ok(Prepared { wasm, marks })
}

/// How guests are instrumented for `host`.
fn options(host: &Host) -> Options {
    Options {
        page_size_shift: host.options().page_size.shift(),
        suspect_bytes: SUSPECT_BYTES as u32,
        ..Options::default()
    }
}

/// The end of the shadow stack of a guest that was instrumented before.
fn check_stamp(stamp: Option<Stamp>, options: &Options) -> Result<u64, Error> {
    let Some(stamp) = stamp else {
        let message = format!(
            "the module exports `{CARDS_EXPORT}` and has no custom section of that name which says what the cards of its `memory` \
             are: instrument it again, and keep that section"
        );
        return Err(Error::Guest(message));
    };
    check_cards((stamp.page_size_shift, stamp.suspect_bytes), options)?;
    Ok(stamp.stack_end)
}

/// Cards for pages of another size would leave stores out. Of fewer suspect bytes than are looked at, none is missed.
fn check_cards((page_size_shift, suspect_bytes): (u32, u32), options: &Options) -> Result<(), Error> {
    if page_size_shift == options.page_size_shift && suspect_bytes <= options.suspect_bytes {
        return Ok(());
    }
    let bytes = |shift: u32| 1u64.checked_shl(shift).unwrap_or(0);
    let message = format!(
        "the module was instrumented for pages of {} bytes with {suspect_bytes} suspect ones, and this host has pages of {} with \
         {}: give it the module as it was before",
        bytes(page_size_shift),
        bytes(options.page_size_shift),
        options.suspect_bytes
    );
    Err(Error::Guest(message))
}
