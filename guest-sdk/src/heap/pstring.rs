//! A string in a heap.
//!
//! Invariant: the bytes are UTF-8.

use core::borrow::Borrow;
use core::fmt;
use core::ops::Deref;

use super::alloc::Alloc;
use super::persist::{Persist, Root, schema};
use super::pvec::PVec;
use crate::error::Result;

/// `String`, in a heap. As a map's key it is looked up by `&str`.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
#[repr(transparent)]
pub struct PString<'h> {
    bytes: PVec<'h, u8>,
}

// SAFETY: transparent over a `Persist` type.
unsafe impl<'h> Persist<'h> for PString<'h> {
    const SCHEMA: u64 = schema("PString", &[]);

    fn empty_in(alloc: Alloc<'h>) -> Self {
        Self {
            bytes: PVec::new_in(alloc),
        }
    }
}

impl Root for PString<'_> {
    type In<'h> = PString<'h>;
}

impl<'h> PString<'h> {
    /// A copy of `text`.
    ///
    /// # Errors
    /// [`Error::HeapFull`](crate::Error::HeapFull).
    pub fn new_in(alloc: Alloc<'h>, text: &str) -> Result<Self> {
        let mut string = Self::empty_in(alloc);
        string.push_str(text)?;
        Ok(string)
    }

    /// Appends `text`.
    ///
    /// # Errors
    /// [`Error::HeapFull`](crate::Error::HeapFull).
    pub fn push_str(&mut self, text: &str) -> Result<()> {
        self.bytes.extend_from_slice(text.as_bytes())
    }

    /// Makes it empty; the capacity stays.
    pub fn clear(&mut self) {
        self.bytes.clear();
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        // SAFETY: the invariant.
        unsafe { core::str::from_utf8_unchecked(&self.bytes) }
    }
}

impl Deref for PString<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl Borrow<str> for PString<'_> {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Display for PString<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.as_str(), f)
    }
}

impl fmt::Debug for PString<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Write for PString<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.push_str(text).map_err(|_| fmt::Error)
    }
}
