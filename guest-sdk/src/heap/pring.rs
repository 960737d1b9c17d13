//! A ring log in a heap: the newest `N` values.
//!
//! Invariants: `items` is null until the first push, then a block with room for `N` values; the values in the log are the
//! `len` ones from `start` on, going round at `N`; `start` is below `N`.

use core::ptr::NonNull;

use super::alloc::{Alloc, check_type};
use super::persist::{Persist, Root, schema};
use crate::error::Result;

/// A log that keeps its newest `N` values: the next one takes the place of the oldest. Appending dirties one page or two,
/// however long it is.
#[repr(C)]
pub struct PRing<'h, T: Persist<'h>, const N: usize> {
    alloc: Alloc<'h>,
    items: *mut T,
    start: usize,
    len: usize,
}

// SAFETY: `repr(C)` over words; points into its own heap alone, as `T` does.
unsafe impl<'h, T: Persist<'h>, const N: usize> Persist<'h> for PRing<'h, T, N> {
    const SCHEMA: u64 = schema("PRing", &[("", T::SCHEMA), ("", N as u64)]);

    fn empty_in(alloc: Alloc<'h>) -> Self {
        Self::new_in(alloc)
    }
}

impl<'any, T: Root + Persist<'any>, const N: usize> Root for PRing<'any, T, N> {
    type In<'h> = PRing<'h, T::In<'h>, N>;
}

impl<'h, T: Persist<'h>, const N: usize> PRing<'h, T, N> {
    /// Room for all values, in bytes.
    const BYTES: usize = match size_of::<T>().checked_mul(N) {
        Some(bytes) if N > 0 && bytes <= isize::MAX as usize => bytes,
        _ => panic!("a ring log has room for at least one value, and fits the address space"),
    };

    /// An empty log; allocates nothing.
    pub fn new_in(alloc: Alloc<'h>) -> Self {
        const {
            check_type::<T>();
            assert!(Self::BYTES > 0);
        }
        Self {
            alloc,
            items: core::ptr::null_mut(),
            start: 0,
            len: 0,
        }
    }

    /// The number of values.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many there can be.
    pub const fn capacity(&self) -> usize {
        N
    }

    /// Appends `value`; the oldest one, if it had to go.
    ///
    /// # Errors
    /// [`Error::HeapFull`](crate::Error::HeapFull), at the first push only; `value` is dropped then.
    pub fn push(&mut self, value: T) -> Result<Option<T>> {
        if self.items.is_null() {
            self.items = self.alloc.allocate(Self::BYTES)?.cast().as_ptr();
        }
        let evicted = if self.len == N { self.pop_oldest() } else { None };
        // SAFETY: the place behind the newest value is free, and in the block.
        unsafe { self.items.add(Self::place(self.start, self.len)).write(value) };
        self.len += 1;
        Ok(evicted)
    }

    /// Takes the oldest value.
    pub fn pop_oldest(&mut self) -> Option<T> {
        self.len = self.len.checked_sub(1)?;
        // SAFETY: the oldest value is initialised, and not the log's any more.
        let value = unsafe { self.items.add(self.start).read() };
        self.start = Self::place(self.start, 1);
        Some(value)
    }

    /// The value at `index`, counted from the oldest.
    pub fn get(&self, index: usize) -> Option<&T> {
        if index >= self.len {
            return None;
        }
        // SAFETY: one of the values in the log, borrowed as it is.
        Some(unsafe { &*self.items.add(Self::place(self.start, index)) })
    }

    /// The newest value.
    pub fn newest(&self) -> Option<&T> {
        self.get(self.len.checked_sub(1)?)
    }

    /// The values from the oldest to the newest, in two parts.
    pub fn as_slices(&self) -> (&[T], &[T]) {
        let Some(items) = NonNull::new(self.items) else {
            return (&[], &[]);
        };
        let first = self.len.min(N - self.start);
        // SAFETY: the values in the log, before and after the end of the block, borrowed as it is.
        unsafe {
            (
                core::slice::from_raw_parts(items.as_ptr().add(self.start), first),
                core::slice::from_raw_parts(items.as_ptr(), self.len - first),
            )
        }
    }

    /// The values from the oldest to the newest.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &T> {
        let (first, second) = self.as_slices();
        first.iter().chain(second)
    }

    /// Drops every value.
    pub fn clear(&mut self) {
        while self.pop_oldest().is_some() {}
    }

    /// `count` places after `from`, where neither is above `N`.
    fn place(from: usize, count: usize) -> usize {
        let left = N - from;
        if count < left { from + count } else { count - left }
    }
}

impl<'h, T: Persist<'h>, const N: usize> Drop for PRing<'h, T, N> {
    fn drop(&mut self) {
        self.clear();
        if let Some(items) = NonNull::new(self.items) {
            // SAFETY: the block was allocated with these bytes.
            unsafe { self.alloc.free(items.cast(), Self::BYTES) };
        }
    }
}

impl<'h, T: Persist<'h> + core::fmt::Debug, const N: usize> core::fmt::Debug for PRing<'h, T, N> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}
