//! A growable array in a heap.
//!
//! Derefs to a slice; grows by doubling, in place where its block ends at untouched memory.
//!
//! Invariants: `pointer` is null while `capacity` is 0, else a block of `capacity * size_of::<T>()` bytes whose
//! first `len` values are initialised.

use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;

use super::alloc::{Alloc, check_type};
use super::persist::{Persist, Root, schema};
use crate::error::{Error, Result};

/// `Vec`, in a heap. What may run out of room returns an error and changes nothing then.
#[repr(C)]
pub struct PVec<'h, T: Persist<'h>> {
    alloc: Alloc<'h>,
    pointer: *mut T,
    len: usize,
    capacity: usize,
}

// SAFETY: `repr(C)` over words; points into its own heap alone, as `T` does.
unsafe impl<'h, T: Persist<'h>> Persist<'h> for PVec<'h, T> {
    const SCHEMA: u64 = schema("PVec", &[("", T::SCHEMA)]);

    fn empty_in(alloc: Alloc<'h>) -> Self {
        Self::new_in(alloc)
    }
}

impl<'any, T: Root + Persist<'any>> Root for PVec<'any, T> {
    type In<'h> = PVec<'h, T::In<'h>>;
}

impl<'h, T: Persist<'h>> PVec<'h, T> {
    /// An empty array; allocates nothing.
    pub fn new_in(alloc: Alloc<'h>) -> Self {
        const { check_type::<T>() };
        Self {
            alloc,
            pointer: core::ptr::null_mut(),
            len: 0,
            capacity: 0,
        }
    }

    /// How many values fit without another allocation.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Makes room for `additional` more values.
    ///
    /// # Errors
    /// [`Error::HeapFull`].
    pub fn reserve(&mut self, additional: usize) -> Result<()> {
        let wanted = self
            .len
            .checked_add(additional)
            .ok_or(Error::HeapFull { wanted: usize::MAX })?;
        if wanted <= self.capacity {
            return Ok(());
        }
        let least = wanted.max(self.capacity.saturating_mul(2));
        let bytes = least
            .checked_mul(size_of::<T>())
            .filter(|bytes| isize::try_from(*bytes).is_ok());
        let bytes = bytes.ok_or(Error::HeapFull { wanted: usize::MAX })?;
        let block = match NonNull::new(self.pointer) {
            None => self.alloc.allocate(bytes)?,
            Some(pointer) => {
                let old = self.capacity * size_of::<T>();
                // SAFETY: the block was allocated with room for `capacity` values.
                unsafe { self.alloc.reallocate(pointer.cast(), old, bytes)? }
            }
        };
        self.pointer = block.cast().as_ptr();
        self.capacity = Alloc::usable(bytes) / size_of::<T>();
        Ok(())
    }

    /// Appends `value`.
    ///
    /// # Errors
    /// [`Error::HeapFull`]; `value` is dropped then.
    pub fn push(&mut self, value: T) -> Result<()> {
        self.reserve(1)?;
        // SAFETY: there is room for a value at `len`.
        unsafe { self.pointer.add(self.len).write(value) };
        self.len += 1;
        Ok(())
    }

    /// Takes the last value.
    pub fn pop(&mut self) -> Option<T> {
        self.len = self.len.checked_sub(1)?;
        // SAFETY: the value at the old end is initialised and not the array's any more.
        Some(unsafe { self.pointer.add(self.len).read() })
    }

    /// Inserts `value` before the one at `index`.
    ///
    /// # Panics
    /// Where `index` is above the length.
    ///
    /// # Errors
    /// [`Error::HeapFull`].
    pub fn insert(&mut self, index: usize, value: T) -> Result<()> {
        assert!(
            index <= self.len,
            "index {index} is above the length {}",
            self.len
        );
        self.reserve(1)?;
        // SAFETY: the values from `index` move up by one, into the room that was just made.
        unsafe {
            let hole = self.pointer.add(index);
            core::ptr::copy(hole, hole.add(1), self.len - index);
            hole.write(value);
        }
        self.len += 1;
        Ok(())
    }

    /// Takes the value at `index`; the later ones move down.
    ///
    /// # Panics
    /// Where there is none.
    pub fn remove(&mut self, index: usize) -> T {
        assert!(
            index < self.len,
            "index {index} is not below the length {}",
            self.len
        );
        self.len -= 1;
        // SAFETY: the value is read out once, and those above it move down over it.
        unsafe {
            let hole = self.pointer.add(index);
            let value = hole.read();
            core::ptr::copy(hole.add(1), hole, self.len - index);
            value
        }
    }

    /// Appends copies of `values`.
    ///
    /// # Errors
    /// [`Error::HeapFull`].
    pub fn extend_from_slice(&mut self, values: &[T]) -> Result<()>
    where
        T: Copy,
    {
        self.reserve(values.len())?;
        // SAFETY: there is room for them, and `values` cannot be in this array's unused part.
        unsafe {
            self.pointer
                .add(self.len)
                .copy_from_nonoverlapping(values.as_ptr(), values.len())
        };
        self.len += values.len();
        Ok(())
    }

    /// Drops all values from `len` on.
    pub fn truncate(&mut self, len: usize) {
        // Dropping in place, be it no values at all, wants a pointer that is not null.
        let Some(excess) = self.len.checked_sub(len).filter(|excess| *excess > 0) else {
            return;
        };
        self.len = len;
        // SAFETY: the values from `len` on are initialised and not the array's any more.
        unsafe { core::ptr::slice_from_raw_parts_mut(self.pointer.add(len), excess).drop_in_place() };
    }

    /// Drops all values; the capacity stays.
    pub fn clear(&mut self) {
        self.truncate(0);
    }
}

impl<'h, T: Persist<'h>> Deref for PVec<'h, T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        let pointer = NonNull::new(self.pointer).unwrap_or(NonNull::dangling());
        // SAFETY: the invariants.
        unsafe { core::slice::from_raw_parts(pointer.as_ptr(), self.len) }
    }
}

impl<'h, T: Persist<'h>> DerefMut for PVec<'h, T> {
    fn deref_mut(&mut self) -> &mut [T] {
        let pointer = NonNull::new(self.pointer).unwrap_or(NonNull::dangling());
        // SAFETY: the invariants.
        unsafe { core::slice::from_raw_parts_mut(pointer.as_ptr(), self.len) }
    }
}

impl<'h, T: Persist<'h>> Drop for PVec<'h, T> {
    fn drop(&mut self) {
        self.clear();
        if let Some(pointer) = NonNull::new(self.pointer) {
            // SAFETY: the block was allocated with room for `capacity` values.
            unsafe { self.alloc.free(pointer.cast(), self.capacity * size_of::<T>()) };
        }
    }
}

impl<'a, 'h, T: Persist<'h>> IntoIterator for &'a PVec<'h, T> {
    type Item = &'a T;
    type IntoIter = core::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<'h, T: Persist<'h> + core::fmt::Debug> core::fmt::Debug for PVec<'h, T> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<'h, T: Persist<'h> + PartialEq> PartialEq for PVec<'h, T> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl<'h, T: Persist<'h> + Eq> Eq for PVec<'h, T> {}

impl<'h, T: Persist<'h> + PartialOrd> PartialOrd for PVec<'h, T> {
    fn partial_cmp(&self, other: &Self) -> Option<core::cmp::Ordering> {
        (**self).partial_cmp(&**other)
    }
}

impl<'h, T: Persist<'h> + Ord> Ord for PVec<'h, T> {
    fn cmp(&self, other: &Self) -> core::cmp::Ordering {
        (**self).cmp(&**other)
    }
}
