//! How a range will be used.

use std::ffi::c_int;

/// A hint that loses nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(i32)]
pub enum Advice {
    /// Nothing special.
    Normal = 0,
    /// In no order: reading ahead does not help.
    Random = 1,
    /// In ascending order.
    Sequential = 2,
    /// Soon.
    WillNeed = 3,
}

/// A hint after which the range may hold something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(i32)]
pub enum UncheckedAdvice {
    /// Not needed soon; without a file the next access sees zeroes, and a copy may lose what was stored to it.
    DontNeed = 4,
    /// The contents may be dropped.
    Free = 8,
}

impl Advice {
    pub(crate) fn code(self) -> c_int {
        self as c_int
    }
}

impl UncheckedAdvice {
    pub(crate) fn code(self) -> c_int {
        self as c_int
    }
}
