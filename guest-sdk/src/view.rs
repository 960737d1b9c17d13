//! A region's bytes as typed data.
//!
//! Built on [`bytemuck`]: a type is viewed in place if every bit pattern is a value of it and it has no padding.
//! That holds for integers, floats, arrays of them, and structs that implement [`bytemuck::Pod`].

use bytemuck::{AnyBitPattern, NoUninit, PodCastError};

use crate::error::{Error, Result};
use crate::region::Region;

impl Region {
    /// The value at the start of the region.
    ///
    /// # Errors
    /// [`Error::OutOfRange`].
    pub fn view<T: AnyBitPattern>(&self) -> Result<&T> {
        self.view_at(0)
    }

    /// The value at the start of the region, for stores.
    ///
    /// # Errors
    /// [`Error::OutOfRange`], [`Error::ReadOnly`].
    pub fn view_mut<T: AnyBitPattern + NoUninit>(&mut self) -> Result<&mut T> {
        self.view_mut_at(0)
    }

    /// The value at `offset` bytes.
    ///
    /// # Errors
    /// [`Error::OutOfRange`]: it ends outside the region or is not aligned.
    pub fn view_at<T: AnyBitPattern>(&self, offset: usize) -> Result<&T> {
        let (size, len) = (size_of::<T>(), self.len());
        let error = Error::OutOfRange { offset, size, len };
        let end = offset.checked_add(size).ok_or(error)?;
        let bytes = self.as_slice().get(offset..end).ok_or(error)?;
        bytemuck::try_from_bytes(bytes).map_err(|_: PodCastError| error)
    }

    /// The value at `offset` bytes, for stores.
    ///
    /// # Errors
    /// [`Error::ReadOnly`], else as [`Region::view_at`].
    pub fn view_mut_at<T: AnyBitPattern + NoUninit>(&mut self, offset: usize) -> Result<&mut T> {
        let (size, len) = (size_of::<T>(), self.len());
        let error = Error::OutOfRange { offset, size, len };
        if !self.is_writable() {
            return Err(Error::ReadOnly);
        }
        let end = offset.checked_add(size).ok_or(error)?;
        let bytes = self.as_mut_slice().get_mut(offset..end).ok_or(error)?;
        bytemuck::try_from_bytes_mut(bytes).map_err(|_: PodCastError| error)
    }

    /// As many values as the region has room for.
    pub fn view_slice<T: AnyBitPattern>(&self) -> &[T] {
        bytemuck::cast_slice(self.whole_values::<T>(self.as_slice()))
    }

    /// As many values as the region has room for, for stores.
    ///
    /// # Errors
    /// [`Error::ReadOnly`].
    pub fn view_mut_slice<T: AnyBitPattern + NoUninit>(&mut self) -> Result<&mut [T]> {
        if !self.is_writable() {
            return Err(Error::ReadOnly);
        }
        let end = self.len() - self.len() % size_of::<T>().max(1);
        Ok(bytemuck::cast_slice_mut(&mut self.as_mut_slice()[..end]))
    }

    fn whole_values<'a, T>(&self, bytes: &'a [u8]) -> &'a [u8] {
        &bytes[..bytes.len() - bytes.len() % size_of::<T>().max(1)]
    }
}
