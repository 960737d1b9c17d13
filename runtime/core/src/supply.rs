//! Bringing an object's pages from its pager into memory that cannot map the pager's image.

use alloc::{format, vec};

use crate::{
    PagerError, PagerErrorKind,
    abi::VmProt,
    limits::RETURN_BYTES_MAX,
    memory::TaskMemory,
    object::ObjectHandle,
    page::{ByteRange, PageRange},
    page_set::PageSet,
    pager::DataSupply,
};

/// What the memory holds before the pages arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Before {
    /// Zeroes: what the pager does not have needs no work.
    Zeroes,
    /// Anything.
    Anything,
}

/// Copies `object_pages` to the memory's pages from `address_page` on, and tells which of them are precious.
///
/// # Errors
/// The pager's own; what was copied before stays.
pub fn supply<O: ObjectHandle>(
    object: &O,
    memory: &mut dyn TaskMemory,
    object_pages: PageRange,
    address_page: u64,
    before: Before,
) -> Result<PageSet, PagerError> {
    let page_size = object.with(|object| object.page_size);
    let source = page_size.byte_range(object_pages);
    let target = page_size
        .byte_range(PageRange::new(address_page, address_page))
        .start;
    let chunk_bytes = source.len().min(RETURN_BYTES_MAX);
    let mut buffer = vec![0; usize::try_from(chunk_bytes).unwrap_or(0)];
    let mut precious_pages = PageSet::new();
    let mut offset = source.start;
    while offset < source.end {
        let chunk = ByteRange::new(offset, source.end.min(offset + chunk_bytes));
        let bytes = &mut buffer[..usize::try_from(chunk.len()).unwrap_or(0)];
        let supplied = object
            .pager()
            .data_request(object.id(), offset, VmProt::READ_WRITE, bytes)?;
        match supplied {
            DataSupply::Supplied { precious } => {
                if precious {
                    precious_pages.insert(page_size.shrink(chunk));
                }
            }
            DataSupply::Unavailable => bytes.fill(0),
        }
        if supplied != DataSupply::Unavailable || before == Before::Anything {
            let place = target + (offset - source.start);
            memory.fill(place, bytes).map_err(|error| {
                PagerError::new(
                    PagerErrorKind::Unavailable,
                    format!("cannot place a page: {error}"),
                )
            })?;
        }
        offset = chunk.end;
    }
    Ok(precious_pages)
}
