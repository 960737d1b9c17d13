//! [`Recoding`]: each page becomes a slot of pages of the pager below, encoded by a [`Codec`].
//!
//! ```text
//!   page i of P bytes   --encode-->   slot i: length (4 bytes), what the codec made, zeroes up to whole pages below
//! ```
//!
//! Invariants:
//! - a slot that was never written reads as zero below, so its length is 0, and the page reads as zero;
//! - ranges are checked here, for what is whole pages above may be none below.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use vmsync_core::{
    ByteRange, KernReturn, PageSize, PagerError, PagerErrorKind,
    abi::VmProt,
    pager::{
        Attributes, CallId, DataSupply, InitRequest, LockRequest, MemoryObjectControl, ObjectId, ObjectName,
        Pager, ReturnFlags, SynchronizeFlags,
    },
};

const LENGTH_BYTES: usize = 4;

/// Turns pages into other bytes, and back.
pub trait Codec: Send + Sync {
    /// The most that a page grows by, in bytes.
    const OVERHEAD_MAX: usize;

    /// Appends what becomes of page `page` of object `name`: at least one byte, at most the page's and
    /// [`Codec::OVERHEAD_MAX`].
    ///
    /// # Errors
    /// What the codec needs and does not have.
    fn encode(
        &self,
        name: &ObjectName,
        page: u64,
        bytes: &[u8],
        slot: &mut Vec<u8>,
    ) -> Result<(), PagerError>;

    /// Fills `bytes` with the page that `encoded` was.
    ///
    /// # Errors
    /// Of kind [`PagerErrorKind::Damaged`] where `encoded` is not what was written there.
    fn decode(
        &self,
        name: &ObjectName,
        page: u64,
        encoded: &[u8],
        bytes: &mut [u8],
    ) -> Result<(), PagerError>;
}

/// The pages above a layer and those below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pages {
    above: PageSize,
    below: PageSize,
}

impl Pages {
    /// Pages of `above` are kept in pages of `below`.
    pub const fn new(above: PageSize, below: PageSize) -> Self {
        Self { above, below }
    }
}

/// A pager over `P`; see the head of this file.
pub struct Recoding<C> {
    below: Arc<dyn Pager>,
    codec: C,
    scale: Scale,
    opened: Mutex<HashMap<ObjectId, Opened>>,
}

#[derive(Clone)]
struct Opened {
    name: ObjectName,
    /// Above, in bytes.
    size: u64,
}

/// Offsets above and below.
#[derive(Clone, Copy)]
struct Scale {
    pages: Pages,
    /// Bytes below of one page above.
    slot: u64,
}

impl Scale {
    fn new(pages: Pages, overhead: usize) -> Self {
        let slot = pages.above.bytes() + (LENGTH_BYTES + overhead) as u64;
        let slot = pages.below.round_up(slot).expect("a few pages");
        Self { pages, slot }
    }

    /// What lies at whole pages above; `None` where it lies too far.
    fn down(self, offset: u64) -> Option<u64> {
        self.pages.above.page_of(offset).checked_mul(self.slot)
    }

    /// The page above that has a part at `offset` below, in bytes.
    fn up(self, offset: u64) -> u64 {
        (offset / self.slot) * self.pages.above.bytes()
    }

    fn attributes(self, below: Attributes) -> Attributes {
        Attributes {
            size: self.up(below.size),
            ..below
        }
    }
}

impl<C: Codec> Recoding<C> {
    /// The pager that keeps `pages` in `below`.
    pub(crate) fn new(below: Arc<dyn Pager>, pages: Pages, codec: C) -> Self {
        Self {
            below,
            codec,
            scale: Scale::new(pages, C::OVERHEAD_MAX),
            opened: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ObjectId, Opened>> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The open object, and the range below of whole pages of it.
    fn checked(&self, object: ObjectId, range: ByteRange) -> Result<(Opened, ByteRange), PagerError> {
        let invalid = |message: String| PagerError::new(PagerErrorKind::Invalid, message);
        let opened = self.lock().get(&object).cloned();
        let opened = opened.ok_or_else(|| invalid(format!("object {} is not open here", object.0)))?;
        let above = self.scale.pages.above;
        let whole = above.is_aligned(range.start) && above.is_aligned(range.end) && range.end <= opened.size;
        let below = whole.then(|| {
            Some(ByteRange::new(
                self.scale.down(range.start)?,
                self.scale.down(range.end)?,
            ))
        });
        let below = below.flatten().ok_or_else(|| {
            let (name, size, bytes) = (&opened.name, opened.size, above.bytes());
            invalid(format!(
                "{range} are not whole pages of {bytes} bytes inside \"{name}\" of {size} bytes"
            ))
        })?;
        Ok((opened, below))
    }

    /// What an object of `size` bytes takes below.
    fn size_below(&self, size: u64) -> Result<u64, PagerError> {
        let aligned = self.scale.pages.above.is_aligned(size);
        self.scale.down(size).filter(|_| aligned).ok_or_else(|| {
            let message = format!("size {size} cannot be: choose whole pages");
            PagerError::new(PagerErrorKind::Invalid, message)
        })
    }

    /// The slot that a page becomes.
    fn slot(&self, name: &ObjectName, page: u64, bytes: &[u8]) -> Result<Vec<u8>, PagerError> {
        let mut slot = vec![0; LENGTH_BYTES];
        self.codec.encode(name, page, bytes, &mut slot)?;
        let length = (slot.len() - LENGTH_BYTES) as u32;
        slot[..LENGTH_BYTES].copy_from_slice(&length.to_le_bytes());
        assert!(
            slot.len() as u64 <= self.scale.slot,
            "a codec keeps to its overhead"
        );
        slot.resize(self.scale.slot as usize, 0);
        Ok(slot)
    }

    fn decode(&self, name: &ObjectName, page: u64, slot: &[u8], bytes: &mut [u8]) -> Result<(), PagerError> {
        let damaged = || {
            let message = format!("page {page} of \"{name}\" has a length that cannot be: restore the store");
            PagerError::new(PagerErrorKind::Damaged, message)
        };
        let (length, encoded) = slot.split_first_chunk::<LENGTH_BYTES>().ok_or_else(damaged)?;
        let length = u32::from_le_bytes(*length) as usize;
        if length == 0 {
            bytes.fill(0);
            return Ok(());
        }
        self.codec
            .decode(name, page, encoded.get(..length).ok_or_else(damaged)?, bytes)
    }
}

/// The runtime's side for the pager below.
struct Translated {
    above: Arc<dyn MemoryObjectControl>,
    scale: Scale,
}

impl Translated {
    /// The pages above that have a part in `range`.
    fn up(&self, range: ByteRange) -> ByteRange {
        let end = range.end.saturating_add(self.scale.slot - 1);
        ByteRange::new(self.scale.up(range.start), self.scale.up(end))
    }
}

impl MemoryObjectControl for Translated {
    fn synchronize_completed(
        &self,
        range: ByteRange,
        result: Result<(), PagerError>,
    ) -> Result<(), KernReturn> {
        self.above.synchronize_completed(self.up(range), result)
    }

    fn write_behind_failed(&self, range: ByteRange, error: PagerError) {
        self.above.write_behind_failed(self.up(range), error);
    }

    fn lock_request(&self, request: LockRequest) -> Result<(), KernReturn> {
        let range = self.up(request.range);
        self.above.lock_request(LockRequest { range, ..request })
    }

    fn change_attributes(&self, attributes: Attributes) {
        self.above.change_attributes(self.scale.attributes(attributes));
    }

    fn destroy(&self, reason: PagerError) {
        self.above.destroy(reason);
    }
}

impl<C: Codec> Pager for Recoding<C> {
    fn init(
        &self,
        object: ObjectId,
        name: &ObjectName,
        request: InitRequest,
        control: Arc<dyn MemoryObjectControl>,
    ) -> Result<Attributes, PagerError> {
        let above = self.scale.pages.above;
        if request.page_size != above {
            let (ours, asked) = (above.bytes(), request.page_size.bytes());
            let message = format!("the layer has pages of {ours} bytes, not {asked}");
            return Err(PagerError::new(PagerErrorKind::Invalid, message));
        }
        let below = InitRequest {
            page_size: self.scale.pages.below,
            size_min: self.size_below(request.size_min)?,
            ..request
        };
        let scale = self.scale;
        let control = Arc::new(Translated {
            above: control,
            scale,
        });
        let attributes = self.below.init(object, name, below, control)?;
        let attributes = scale.attributes(attributes);
        let (name, size) = (name.clone(), attributes.size);
        self.lock().insert(object, Opened { name, size });
        // One page now tells a wrong key before anything rests on it; where it was never written, each page tells when it
        // is read.
        if size > 0 {
            let mut page = vec![0; above.bytes() as usize];
            if let Err(error) = self.data_request(object, 0, VmProt::READ, &mut page)
                && error.kind == PagerErrorKind::Denied
            {
                self.terminate(object);
                return Err(error);
            }
        }
        Ok(attributes)
    }

    fn data_request(
        &self,
        object: ObjectId,
        offset: u64,
        access: VmProt,
        pages: &mut [u8],
    ) -> Result<DataSupply, PagerError> {
        let range = ByteRange::new(offset, offset.saturating_add(pages.len() as u64));
        let (opened, below) = self.checked(object, range)?;
        let mut slots = vec![0; below.len() as usize];
        let supply = self.below.data_request(object, below.start, access, &mut slots)?;
        if supply == DataSupply::Unavailable {
            return Ok(supply);
        }
        let above = self.scale.pages.above;
        let (slots, pages) = (
            slots.chunks_exact(self.scale.slot as usize),
            pages.chunks_exact_mut(above.bytes() as usize),
        );
        for (page, (slot, bytes)) in (above.page_of(offset)..).zip(slots.zip(pages)) {
            self.decode(&opened.name, page, slot, bytes)?;
        }
        Ok(supply)
    }

    fn data_return(
        &self,
        call: CallId,
        object: ObjectId,
        offset: u64,
        pages: &[u8],
        flags: ReturnFlags,
    ) -> Result<(), PagerError> {
        let range = ByteRange::new(offset, offset.saturating_add(pages.len() as u64));
        let (opened, below) = self.checked(object, range)?;
        let above = self.scale.pages.above;
        let mut slots = Vec::with_capacity(below.len() as usize);
        for (page, bytes) in (above.page_of(offset)..).zip(pages.chunks_exact(above.bytes() as usize)) {
            slots.extend(self.slot(&opened.name, page, bytes)?);
        }
        self.below.data_return(call, object, below.start, &slots, flags)
    }

    fn synchronize(
        &self,
        call: CallId,
        object: ObjectId,
        range: ByteRange,
        flags: SynchronizeFlags,
    ) -> Result<(), PagerError> {
        let (_, below) = self.checked(object, range)?;
        self.below.synchronize(call, object, below, flags)
    }

    fn abort(&self, call: CallId) {
        self.below.abort(call);
    }

    fn map(&self, object: ObjectId, address: u64, access: VmProt) {
        self.below.map(object, address, access);
    }

    fn last_unmap(&self, object: ObjectId) {
        self.below.last_unmap(object);
    }

    fn terminate(&self, object: ObjectId) {
        self.lock().remove(&object);
        self.below.terminate(object);
    }

    fn grow(&self, object: ObjectId, size: u64) -> Result<Attributes, PagerError> {
        let below = self.size_below(size)?;
        let attributes = self.scale.attributes(self.below.grow(object, below)?);
        if let Some(opened) = self.lock().get_mut(&object) {
            opened.size = attributes.size;
        }
        Ok(attributes)
    }

    fn attributes(&self, object: ObjectId) -> Result<Attributes, PagerError> {
        self.below
            .attributes(object)
            .map(|attributes| self.scale.attributes(attributes))
    }
}
