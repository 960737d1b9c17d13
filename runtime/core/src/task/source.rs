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

/// The right to write what a source shows; one task writes a page at a time. Given back when dropped, also where a pager panics.
pub(super) struct Claim<'a, O: ObjectHandle>(&'a Source<O>);

impl<'a, O: ObjectHandle> Claim<'a, O> {
    /// Takes the pages of `source`; `None` where somebody else writes one of them.
    pub fn take(source: &'a Source<O>) -> Option<Self> {
        source.object.with(|object| {
            let is_free = object.written_by.within(source.pages).is_empty();
            is_free.then(|| {
                object.written_by.insert(source.pages);
                Self(source)
            })
        })
    }

    /// The task's map has a region of it now, and [`unclaim`] gives it back.
    pub fn keep(self) {
        core::mem::forget(self);
    }
}

impl<O: ObjectHandle> Drop for Claim<'_, O> {
    fn drop(&mut self) {
        unclaim(&self.0.object, self.0.pages);
    }
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
