//! [`Source`]: what a region shows of an object, and a task's claim to write it.

use crate::{
    KernReturn, PageSet, PagerError,
    map::Sharing,
    memory::TaskMemory,
    object::ObjectHandle,
    page::{ByteRange, PageRange, PageSize},
    supply::{Before, Place, supply},
    task::shortage,
};

/// The part of an object that a new region shows.
pub(super) struct Source<O> {
    pub object: O,
    pub pages: PageRange,
    pub sharing: Sharing,
}

/// Takes `pages` of the object for writing; one task writes a page at a time.
pub(super) fn claim<O: ObjectHandle>(object: &O, pages: PageRange) -> bool {
    object.with(|object| {
        let free = object.written_by.within(pages).is_empty();
        if free {
            object.written_by.insert(pages);
        }
        free
    })
}

/// Gives `pages` of the object back.
pub(super) fn unclaim<O: ObjectHandle>(object: &O, pages: PageRange) {
    object.with(|object| {
        object.written_by.remove(pages);
        object.dirty.remove(pages);
        object.stored.remove(pages);
        object.precious.remove(pages);
        object.resident.remove(pages);
    });
}

/// Puts an object's pages into memory; says whether they are its mapped image.
pub(super) fn place_object<O: ObjectHandle>(
    source: &Source<O>,
    range: ByteRange,
    page_size: PageSize,
    memory: &mut dyn TaskMemory,
) -> Result<bool, KernReturn> {
    let (object, bytes) = (&source.object, page_size.byte_range(source.pages));
    let refused = |error: PagerError| error.kind.supply();
    let track = source.sharing == Sharing::Writer;
    let mut mapped = false;
    if let Some(mut image) = object.pager().image(object.id()) {
        image.offset += bytes.start;
        object.pager().settle_image(object.id(), bytes).map_err(refused)?;
        mapped = memory.map_image(range, image, track).map_err(shortage)?;
    }
    let mut precious = PageSet::new();
    if !mapped {
        memory.map_zero(range, track).map_err(shortage)?;
        let place = Place {
            page: page_size.page_of(range.start),
            before: Before::Zeroes,
            sharing: source.sharing,
        };
        supply(object, memory, source.pages, place, &mut precious).map_err(refused)?;
    }
    if track {
        object.with(|object| {
            object.precious.union(&precious);
            if !mapped {
                object.resident.insert(source.pages);
            }
        });
    }
    Ok(mapped)
}
