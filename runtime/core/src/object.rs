//! [`MemoryObject`]: what the VM knows of one object, shared by every task that has it open.
//!
//! Invariants:
//! - ranges that are outstanding to the pager never overlap;
//! - a page is in `dirty` from the moment its mark was read from the tracker until the pager made it durable, so a
//!   failed write-back needs no undoing;
//! - an error of an asynchronous call is told to each task exactly once ([`ErrorSequence`]).

use alloc::{collections::VecDeque, vec::Vec};

use crate::{
    KernReturn, PagerError, PagerErrorKind,
    limits::LOCK_REQUESTS_MAX,
    page::{ByteRange, PageRange, PageSize},
    page_bitmap::PageBitmap,
    page_set::PageSet,
    pager::{Attributes, CallId, LockRequest, ObjectId, Pager},
};

/// Which pager an object belongs to; the pages that one call returns to one pager commit together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PagerId(pub u32);

/// A host's shared handle of an object. Equality is identity.
pub trait ObjectHandle: Clone + PartialEq {
    /// The object's number.
    fn id(&self) -> ObjectId;
    /// Its pager's number.
    fn pager_id(&self) -> PagerId;
    /// Its pager.
    fn pager(&self) -> &dyn Pager;
    /// Runs `access` on the shared state.
    fn with<R>(&self, access: impl FnOnce(&mut MemoryObject) -> R) -> R;
}

/// The `errseq_t` rule of Linux: an error is seen once through every cursor that existed when it happened, and by
/// a cursor made later only if nobody has seen it before.
#[derive(Clone, Copy, Debug, Default)]
pub struct ErrorSequence {
    count: u64,
    seen: bool,
    last: Option<KernReturn>,
}

/// How far one task has read an [`ErrorSequence`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ErrorCursor(u64);

impl ErrorCursor {
    /// Where both have read what each has.
    pub fn behind(self, other: Self) -> Self {
        Self(self.0.min(other.0))
    }
}

impl ErrorSequence {
    /// An error happened.
    pub fn record(&mut self, error: KernReturn) {
        self.count += 1;
        self.seen = false;
        self.last = Some(error);
    }

    /// A cursor for a task that attaches now.
    pub fn sample(&self) -> ErrorCursor {
        ErrorCursor(if self.seen { self.count } else { 0 })
    }

    /// The newest error that `cursor` has not seen, marking it as seen.
    pub fn check(&mut self, cursor: &mut ErrorCursor) -> Option<KernReturn> {
        if cursor.0 == self.count {
            return None;
        }
        cursor.0 = self.count;
        self.seen = true;
        self.last
    }
}

/// Where an outstanding range is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Stage {
    /// Its call holds the range; the pager has not been asked yet.
    Reserved,
    /// The pager owes a completion.
    Sent,
    /// The pager owes a completion, but the caller gave up waiting: the range stays taken, so that a late completion
    /// is never mistaken for that of a newer request.
    Abandoned,
    /// The pager has answered.
    Completed(Result<(), PagerError>),
}

#[derive(Clone, Debug)]
struct Outstanding {
    call: CallId,
    range: ByteRange,
    stage: Stage,
    /// Why the pager has lost what it took to be queued, some of it at least.
    lost: Option<PagerError>,
}

/// The shared state of a memory object.
#[derive(Debug)]
pub struct MemoryObject {
    /// What the pager said of it last.
    pub attributes: Attributes,
    /// Its page size.
    pub page_size: PageSize,
    /// Pages whose marks were read and which are not durable yet.
    pub dirty: PageSet,
    /// Pages that the host stored to for the guest since their marks were last read: marks that no tracker has.
    pub stored: PageSet,
    /// Pages of which the pager keeps no copy.
    pub precious: PageSet,
    /// Pages that the writer's memory holds.
    pub resident: PageBitmap,
    /// Errors of asynchronous calls.
    pub errors: ErrorSequence,
    /// The part that a task maps for writing; one task writes a page at a time.
    pub written_by: PageSet,
    /// By offset.
    outstanding: Vec<Outstanding>,
    /// Each with the pages for which it has not been carried out.
    lock_requests: VecDeque<(LockRequest, PageSet)>,
    destroyed: Option<PagerError>,
    events: u64,
}

impl MemoryObject {
    /// An object as its pager described it, which has whole pages.
    pub fn new(attributes: Attributes, page_size: PageSize) -> Self {
        Self {
            attributes,
            page_size,
            dirty: PageSet::new(),
            stored: PageSet::new(),
            precious: PageSet::new(),
            resident: PageBitmap::new(),
            errors: ErrorSequence::default(),
            written_by: PageSet::new(),
            outstanding: Vec::new(),
            lock_requests: VecDeque::new(),
            destroyed: None,
            events: 0,
        }
    }

    /// Counts what a blocked call may be waiting for: a completion, a range that was given back, the object's end.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// Why the object is gone, if it is.
    pub fn destroyed(&self) -> Option<&PagerError> {
        self.destroyed.as_ref()
    }

    /// The marks of `pages`: those that the tracker just gave up, and the host's own. They are dirty from now on.
    pub fn take_marks(&mut self, pages: PageRange, tracked: PageSet) -> PageSet {
        let mut marks = tracked;
        marks.append(self.stored.take(pages));
        self.dirty.union(&marks);
        self.resident.union(&marks);
        marks
    }

    /// Takes `range` for `call`; `false` while another call's range overlaps.
    pub fn reserve(&mut self, call: CallId, range: ByteRange) -> bool {
        let index = self.first_outstanding(range);
        let free = !self
            .outstanding
            .get(index)
            .is_some_and(|other| other.range.overlaps(range));
        if free {
            let entry = Outstanding {
                call,
                range,
                stage: Stage::Reserved,
                lost: None,
            };
            self.outstanding.insert(index, entry);
        }
        free
    }

    /// The pager is about to be asked to synchronize `range`.
    pub fn mark_sent(&mut self, call: CallId, range: ByteRange) {
        let index = self.first_outstanding(range);
        if let Some(entry) = self.outstanding.get_mut(index)
            && (entry.call, entry.range) == (call, range)
        {
            entry.stage = Stage::Sent;
        }
    }

    /// The pager's answer to `call`'s request for `range`, once it is there. From an object that is gone none will
    /// come: that is the answer.
    pub fn completed(&self, call: CallId, range: ByteRange) -> Option<Result<(), PagerError>> {
        let entry = self.outstanding_of(call, range)?;
        match &entry.stage {
            Stage::Completed(result) => Some(result.clone()),
            _ => self.destroyed.clone().map(Err),
        }
    }

    /// Why the pager has lost some of what it had of `range` since `call` reserved it, if it has.
    pub fn lost(&self, call: CallId, range: ByteRange) -> Option<&PagerError> {
        self.outstanding_of(call, range)?.lost.as_ref()
    }

    /// Gives back every range of `call`; those the pager still owes an answer for stay taken until it comes.
    pub fn release(&mut self, call: CallId) {
        self.events += 1;
        self.outstanding.retain_mut(|entry| {
            if entry.call == call && entry.stage == Stage::Sent {
                entry.stage = Stage::Abandoned;
            }
            entry.call != call || entry.stage == Stage::Abandoned
        });
    }

    /// Gives back every range of `call`, also those the pager was asked about: it has just been told to forget them.
    pub fn release_aborted(&mut self, call: CallId) {
        self.events += 1;
        self.outstanding.retain(|entry| entry.call != call);
    }

    /// The pager answers a request, matched by exactly its range.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` when no such request is outstanding (rows S3).
    pub fn synchronize_completed(
        &mut self,
        range: ByteRange,
        result: Result<(), PagerError>,
    ) -> Result<(), KernReturn> {
        let index = self.first_outstanding(range);
        let entry = self.outstanding.get_mut(index);
        let entry = entry
            .filter(|entry| entry.range == range)
            .ok_or(KernReturn::InvalidArgument)?;
        match entry.stage {
            Stage::Sent => entry.stage = Stage::Completed(result),
            Stage::Abandoned => {
                self.outstanding.remove(index);
                // Its caller may have gone since, and another task have been supplied with what was on its way.
                if result.is_err() {
                    self.make_dirty(range);
                }
            }
            Stage::Reserved | Stage::Completed(_) => return Err(KernReturn::InvalidArgument),
        }
        self.events += 1;
        Ok(())
    }

    /// Pages that were reported as queued were lost: those that a task still writes are dirty again, and every task is
    /// told once. A call that is still under way leaves its pages dirty, too.
    pub fn write_behind_failed(&mut self, range: ByteRange, error: &PagerError) {
        self.make_dirty(range);
        for entry in &mut self.outstanding {
            if entry.range.overlaps(range) {
                entry.lost.get_or_insert_with(|| error.clone());
            }
        }
        self.errors.record(error.kind.write_back());
    }

    /// The pages of `range` that a task writes are dirty again.
    fn make_dirty(&mut self, range: ByteRange) {
        if let Some(pages) = self.page_size.widen(range) {
            self.dirty.union(&self.written_by.within(pages));
        }
    }

    /// The pager says what its object is like now. An object does not shrink under its mappings.
    pub fn change_attributes(&mut self, attributes: Attributes) {
        if self.page_size.is_aligned(attributes.size) && attributes.size >= self.attributes.size {
            self.attributes = attributes;
        }
    }

    /// The pager asks for pages.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for a range outside the object, `RESOURCE_SHORTAGE` when too many requests wait.
    pub fn lock_request(&mut self, request: LockRequest) -> Result<(), KernReturn> {
        let range = request.range;
        let pages = self.page_size.widen(range);
        let pages = pages.filter(|_| range.start <= range.end && range.end <= self.attributes.size);
        let pages = pages.ok_or(KernReturn::InvalidArgument)?;
        if self.written_by.within(pages).is_empty() {
            // Nobody would carry it out, but who maps the pages later.
            return Ok(());
        }
        if self.lock_requests.len() >= LOCK_REQUESTS_MAX {
            return Err(KernReturn::ResourceShortage);
        }
        self.lock_requests.push_back((request, pages.into()));
        Ok(())
    }

    /// Whether a request waits.
    pub fn has_lock_requests(&self) -> bool {
        !self.lock_requests.is_empty()
    }

    /// The oldest request that waits for a task which writes `mine`: it carries it out for these pages. It goes on waiting for
    /// those who write others.
    pub fn next_lock_request(&mut self, mine: &PageSet) -> Option<LockRequest> {
        let mut next = None;
        self.lock_requests.retain_mut(|(request, left)| {
            if next.is_none() && !left.intersection(mine).is_empty() {
                next = Some(*request);
                left.subtract(mine);
            }
            !left.intersection(&self.written_by).is_empty()
        });
        next
    }

    /// Checks an unasked `data_supply` of the pager: which pages it may place.
    ///
    /// # Errors
    /// `MEMORY_PRESENT` with the offset of the first resident page (row P4).
    pub fn data_supply(&mut self, range: ByteRange, precious: bool) -> Result<PageRange, (KernReturn, u64)> {
        let aligned = self.page_size.is_aligned(range.start) && self.page_size.is_aligned(range.end);
        if range.end > self.attributes.size || !aligned {
            return Err((KernReturn::InvalidArgument, range.start));
        }
        let pages = self.page_size.shrink(range);
        let present = self.resident.within(pages);
        if let Some(run) = present.runs().first() {
            let offset = self.page_size.byte_range(*run).start;
            return Err((KernReturn::MemoryPresent, offset));
        }
        self.resident.insert(pages);
        if precious {
            self.precious.insert(pages);
        }
        Ok(pages)
    }

    /// The object is gone: every request that waits is answered with `reason`.
    pub fn destroy(&mut self, reason: PagerError) {
        self.events += 1;
        let reason = PagerError::new(PagerErrorKind::Gone, reason.message);
        self.outstanding.retain(|entry| entry.stage != Stage::Abandoned);
        for entry in &mut self.outstanding {
            if entry.stage == Stage::Sent {
                entry.stage = Stage::Completed(Err(reason.clone()));
            }
        }
        self.destroyed = Some(reason);
    }

    /// The index of the first outstanding range that ends behind the start of `range`: the only one that can be the same, and
    /// the first that can overlap.
    fn first_outstanding(&self, range: ByteRange) -> usize {
        self.outstanding
            .partition_point(|entry| entry.range.end <= range.start)
    }

    fn outstanding_of(&self, call: CallId, range: ByteRange) -> Option<&Outstanding> {
        let entry = self.outstanding.get(self.first_outstanding(range))?;
        ((entry.call, entry.range) == (call, range)).then_some(entry)
    }
}
