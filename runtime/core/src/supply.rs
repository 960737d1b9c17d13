//! Bringing an object's pages from its pager into memory that cannot map the pager's image.

use alloc::{format, vec};

use crate::{
    PagerError, PagerErrorKind,
    abi::VmProt,
    limits::RETURN_BYTES_MAX,
    map::Sharing,
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

/// Where pages go.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// The memory's page for the first of them.
    pub page: u64,
    /// What it holds.
    pub before: Before,
    /// How the mapping's stores relate to the object: only a writer's pages ever go back.
    pub sharing: Sharing,
}

/// Copies `object_pages` to `place`, and adds those that the pager gave its only copy of to `precious_pages`.
///
/// # Errors
/// The pager's own; what was copied before stays.
pub fn supply<O: ObjectHandle>(
    object: &O,
    memory: &mut dyn TaskMemory,
    object_pages: PageRange,
    place: Place,
    precious_pages: &mut PageSet,
) -> Result<(), PagerError> {
    let access = match place.sharing {
        Sharing::Writer => VmProt::READ_WRITE,
        Sharing::Reader | Sharing::Copy => VmProt::READ,
    };
    let page_size = object.with(|object| object.page_size);
    let source = page_size.byte_range(object_pages);
    let target = page_size.byte_range(PageRange::new(place.page, place.page)).start;
    let chunk_bytes = source.len().min(RETURN_BYTES_MAX);
    let mut buffer = vec![0; usize::try_from(chunk_bytes).unwrap_or(0)];
    let mut offset = source.start;
    while offset < source.end {
        let chunk = ByteRange::new(offset, source.end.min(offset + chunk_bytes));
        let bytes = &mut buffer[..usize::try_from(chunk.len()).unwrap_or(0)];
        let supplied = object.pager().data_request(object.id(), offset, access, bytes)?;
        match supplied {
            DataSupply::Supplied { precious } => {
                if precious {
                    precious_pages.insert(page_size.shrink(chunk));
                }
            }
            DataSupply::Unavailable => bytes.fill(0),
        }
        if supplied != DataSupply::Unavailable || place.before == Before::Anything {
            let address = target + (offset - source.start);
            memory.fill(address, bytes).map_err(|error| {
                PagerError::new(
                    PagerErrorKind::Unavailable,
                    format!("cannot place a page: {error}"),
                )
            })?;
        }
        offset = chunk.end;
    }
    Ok(())
}
