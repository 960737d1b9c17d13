//! Errors as JavaScript sees them: an `Error` with a `code` for programs and a message for people.

use js_sys::Reflect;
use vmsync_core::{KernReturn, PagerError, PagerErrorKind};
use wasm_bindgen::{JsValue, prelude::wasm_bindgen};

#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(js_namespace = console, js_name = error)]
    fn console_error(message: &str);
}

/// Writes to the console, for mistakes of vmsync itself.
pub(crate) fn log(message: &str) {
    console_error(message);
}

/// An error called `code`.
pub(crate) fn error(code: &str, message: &str) -> JsValue {
    let error = js_sys::Error::new(message);
    error.set_name("VmsyncError");
    // A fresh object takes every property.
    let _ = Reflect::set(&error, &"code".into(), &code.into());
    error.into()
}

/// The error of a pager.
pub(crate) fn of_pager(pager: &PagerError) -> JsValue {
    error(code(pager.kind), &pager.message)
}

/// The error of a call that the page made for the guest.
pub(crate) fn of_call(call: &str, result: KernReturn) -> JsValue {
    error("call", &format!("{call}: {result}"))
}

fn code(kind: PagerErrorKind) -> &'static str {
    match kind {
        PagerErrorKind::NotFound => "not-found",
        PagerErrorKind::Invalid => "invalid",
        PagerErrorKind::Denied => "denied",
        PagerErrorKind::Busy => "busy",
        PagerErrorKind::NoSpace => "no-space",
        PagerErrorKind::Io => "io",
        PagerErrorKind::Unavailable => "unavailable",
        PagerErrorKind::TimedOut => "timed-out",
        PagerErrorKind::Damaged => "damaged",
        PagerErrorKind::Version => "version",
        PagerErrorKind::Gone => "gone",
        PagerErrorKind::Unsupported => "unsupported",
    }
}
