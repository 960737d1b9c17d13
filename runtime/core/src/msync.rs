//! One call of `vm_msync` as a state machine that never blocks.
//!
//! ```text
//!   reserve -> capture -> return -> synchronize -> wait -> settle -> done
//!      |     (read marks)  (data_return)              |    (drop pages, forget marks)
//!      +-- blocked until another call's range is free +-- blocked until the pager completes
//! ```
//!
//! [`Msync::poll`] goes on as far as it can and says `Blocked` where it cannot; the host waits for the object to
//! change, or gives up with [`Msync::time_out`]. The same machine carries out a pager's `lock_request`, an eviction
//! and the return of precious pages before the last unmap: each is a [`Cleaning`] of some pages.
//!
//! Invariants:
//! - ranges are reserved in the order of object number and offset, so that two calls cannot wait for each other;
//! - marks are read, and so cleared, before a page is handed to the pager;
//! - every `data_return` precedes the first `synchronize`, every `synchronize` the first wait;
//! - when anything fails at a pager, nothing that the call returned to this pager counts as durable: the pages stay
//!   in [`MemoryObject::dirty`](crate::object::MemoryObject::dirty), where they were put when their marks were read.

use alloc::{collections::BTreeMap, format, vec::Vec};

use crate::{
    KernReturn, PagerError, PagerErrorKind,
    abi::VmSync,
    limits::RETURN_BYTES_MAX,
    map::Sharing,
    memory::TaskMemory,
    object::{MemoryObject, ObjectHandle, PagerId},
    page::{ByteRange, PageRange, PageSize},
    page_set::PageSet,
    pager::{CallId, ObjectId, ReturnFlags, ReturnPages, Run, SynchronizeFlags},
    supply::{Before, Place, supply},
};

/// What a call does to the pages of its ranges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cleaning {
    /// Which pages go to the pager.
    pub returned: Returned,
    /// What is dropped from memory afterwards.
    pub flushed: Flushed,
    /// Wait until the pager has made them durable, not just queued them.
    pub synchronous: bool,
    /// Ask the pager to synchronize even if nothing is returned; synchronously also what a reader maps, as another task may
    /// have queued it.
    pub synchronize: bool,
}

/// Which resident pages are returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Returned {
    /// None, except precious ones that a flush would lose.
    Nothing,
    /// Dirty ones, and precious ones that a flush would lose.
    Dirty,
    /// Dirty and precious ones.
    DirtyAndPrecious,
    /// Every resident page.
    Resident,
}

/// Which pages are dropped from memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flushed {
    /// None.
    Nothing,
    /// Clean ones that are not wired.
    Clean,
    /// All that are not wired.
    All,
    /// All, because memory is about to be unmapped: nothing is brought back in their place.
    Unmapped,
}

impl Cleaning {
    /// Gives up memory without writing back early: clean pages go, precious ones to their pager first (row P1).
    pub const EVICT: Self = Self {
        returned: Returned::Nothing,
        flushed: Flushed::Clean,
        synchronous: true,
        synchronize: false,
    };

    /// The last mapping goes: precious pages are returned, other dirty ones were never committed and are dropped.
    pub const UNMAP: Self = Self {
        flushed: Flushed::Unmapped,
        ..Self::EVICT
    };

    /// The cleaning that `flags` ask for; `None` where they touch no page of an object.
    pub fn from_flags(flags: VmSync) -> Option<Self> {
        let sync = flags.intersects(VmSync::SYNCHRONOUS | VmSync::ASYNCHRONOUS);
        let invalidate = flags.contains(VmSync::INVALIDATE);
        if (!sync && !invalidate) || flags.contains(VmSync::KILLPAGES) {
            return None;
        }
        Some(Self {
            returned: if sync {
                Returned::DirtyAndPrecious
            } else {
                Returned::Nothing
            },
            flushed: if invalidate {
                Flushed::All
            } else {
                Flushed::Nothing
            },
            synchronous: !flags.contains(VmSync::ASYNCHRONOUS),
            synchronize: sync,
        })
    }

    /// The cleaning that a pager's `lock_request` asks for.
    pub fn from_lock_request(should_return: ReturnPages, flush: bool) -> Self {
        let returned = match should_return {
            ReturnPages::None => Returned::Nothing,
            ReturnPages::Dirty => Returned::Dirty,
            ReturnPages::All => Returned::DirtyAndPrecious,
            ReturnPages::Anything => Returned::Resident,
        };
        let flushed = if flush { Flushed::All } else { Flushed::Nothing };
        Self {
            returned,
            flushed,
            synchronous: true,
            synchronize: false,
        }
    }
}

/// One run of an object's pages that a call covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment<O> {
    /// The object.
    pub object: O,
    /// Its pages.
    pub object_pages: PageRange,
    /// The first of them in linear memory.
    pub address_page: u64,
    /// Only a writer's pages are returned; a reader's can be dropped.
    pub sharing: Sharing,
    /// Wired pages are kept.
    pub wired: bool,
    /// Memory shows the pager's image here.
    pub image: bool,
}

impl<O: ObjectHandle> Segment<O> {
    /// Whether `next` continues this segment; then it is taken in.
    pub fn absorb(&mut self, next: &Self) -> bool {
        let length = self.object_pages.len();
        let continues = next.object_pages.start == self.object_pages.end
            && next.address_page == self.address_page + length
            && next.object == self.object
            && (next.sharing, next.wired, next.image) == (self.sharing, self.wired, self.image);
        if continues {
            self.object_pages.end = next.object_pages.end;
        }
        continues
    }

    fn to_address(&self, pages: PageRange) -> PageRange {
        pages.rebase(self.object_pages.start, self.address_page)
    }

    /// The part of it that shows `pages`, which are in it.
    fn part(&self, pages: PageRange) -> Self {
        Self {
            address_page: self.to_address(pages).start,
            object_pages: pages,
            ..self.clone()
        }
    }
}

/// Each segment, and whether its pager is asked for it first. Readers' segments are split: of a page that a call covers several
/// times, the pager is asked once, for a writer's segment or else for the first.
fn ask_once<O: ObjectHandle>(cleaning: Cleaning, segments: Vec<Segment<O>>) -> Vec<(Segment<O>, bool)> {
    let is_written = |segment: &Segment<O>| segment.sharing == Sharing::Writer;
    let asks_readers = cleaning.synchronize && cleaning.synchronous;
    if !asks_readers || segments.iter().all(is_written) {
        let with_asks = |segment: Segment<O>| {
            let asks = cleaning.synchronize && is_written(&segment);
            (segment, asks)
        };
        return segments.into_iter().map(with_asks).collect();
    }
    let mut asked: BTreeMap<ObjectId, PageSet> = BTreeMap::new();
    for segment in segments.iter().filter(|segment| is_written(segment)) {
        let asked = asked.entry(segment.object.id()).or_default();
        asked.insert(segment.object_pages);
    }
    let mut all = Vec::new();
    for segment in segments {
        if is_written(&segment) {
            all.push((segment, true));
            continue;
        }
        let pages = segment.object_pages;
        let asked = asked.entry(segment.object.id()).or_default();
        let before = asked.within(pages);
        let mut first = PageSet::from(pages);
        first.subtract(&before);
        asked.insert(pages);
        let mut parts: Vec<(PageRange, bool)> = before.runs().iter().map(|run| (*run, false)).collect();
        parts.extend(first.runs().iter().map(|run| (*run, true)));
        parts.sort_unstable_by_key(|(run, _)| run.start);
        all.extend(parts.into_iter().map(|(run, asks)| (segment.part(run), asks)));
    }
    all
}

/// A segment and how far the call has come with it. All sets hold pages of the object.
#[derive(Debug)]
struct Work<O> {
    segment: Segment<O>,
    /// The segment's bytes in the object: what is reserved and synchronized.
    range: ByteRange,
    /// What is returned: dirty pages, and others.
    dirty: PageSet,
    clean: PageSet,
    flushed: PageSet,
    synchronize: bool,
    /// Why the segment's pages are not durable.
    error: Option<PagerError>,
    /// Why pages could not be brought back after they were to be dropped.
    supply_error: Option<PagerError>,
}

impl<O: ObjectHandle> Work<O> {
    /// Whether pages of it may be returned.
    fn is_written(&self) -> bool {
        self.segment.sharing == Sharing::Writer
    }

    /// Whether its pager may be asked for it: what fails of that fails with all else that the call asks of this pager.
    fn takes_part(&self) -> bool {
        self.is_written() || self.synchronize
    }

    fn awaits_pager(&self) -> bool {
        self.synchronize && self.error.is_none()
    }

    /// The pager's answer, once it is there.
    fn answer(&self, call: CallId) -> Option<Result<(), PagerError>> {
        self.segment
            .object
            .with(|object| object.completed(call, self.range))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Reserve,
    Wait,
    Done,
}

/// How far a call has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Poll<O> {
    /// Waits for this object to change.
    Blocked(O),
    /// Finished.
    Done(KernReturn),
}

/// What a call has done, for statistics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MsyncStats {
    /// Pages handed to pagers.
    pub pages_returned: u64,
    /// Pages dropped from memory.
    pub pages_flushed: u64,
}

/// One call. Dropped before its end it gives its ranges back, and pagers forget what they were not asked to commit; what it
/// has not made durable stays dirty.
#[derive(Debug)]
pub struct Msync<O: ObjectHandle> {
    call: CallId,
    page_size: PageSize,
    cleaning: Cleaning,
    nowait: bool,
    phase: Phase,
    work: Vec<Work<O>>,
    /// Indices of `work` by object and offset, and how many of them are reserved.
    order: Vec<usize>,
    reserved: usize,
    /// How much of `work` needs no answer any more.
    answered: usize,
    /// Pagers that were told to forget the call.
    aborted: Vec<PagerId>,
    /// Pagers that have taken their last request: they owe their answers, whatever becomes of the call.
    asked: Vec<PagerId>,
    verdict: KernReturn,
    stats: MsyncStats,
}

impl<O: ObjectHandle> Msync<O> {
    /// A call over `segments`, which are in address order and lie in the caller's memory. It answers `verdict` when
    /// nothing fails.
    pub fn new(
        call: CallId,
        page_size: PageSize,
        cleaning: Cleaning,
        segments: Vec<Segment<O>>,
        verdict: KernReturn,
    ) -> Self {
        let segments = ask_once(cleaning, segments);
        let mut order: Vec<usize> = (0..segments.len()).collect();
        order.sort_by_key(|index| {
            let (segment, _) = &segments[*index];
            (segment.object.id(), segment.object_pages.start)
        });
        let work = segments
            .into_iter()
            .map(|(segment, synchronize)| Work {
                range: page_size.byte_range(segment.object_pages),
                dirty: PageSet::new(),
                clean: PageSet::new(),
                flushed: PageSet::new(),
                synchronize,
                error: None,
                supply_error: None,
                segment,
            })
            .collect();
        let stats = MsyncStats::default();
        Self {
            call,
            page_size,
            cleaning,
            nowait: false,
            phase: Phase::Reserve,
            work,
            order,
            reserved: 0,
            answered: 0,
            aborted: Vec::new(),
            asked: Vec::new(),
            verdict,
            stats,
        }
    }

    /// The thread that polls has other work: pagers are told so ([`SynchronizeFlags::nowait`]).
    pub fn set_nowait(&mut self) {
        self.nowait = true;
    }

    /// What the call has done so far.
    pub fn stats(&self) -> MsyncStats {
        self.stats
    }

    /// Whether nothing went wrong but in dropping pages, and with what a reader maps and no pager was asked for.
    pub fn is_written_back(&self) -> bool {
        let mut work = self.work.iter();
        work.all(|work| work.error.is_none() || !work.takes_part())
    }

    /// The first error of a pager, with its words.
    pub fn error(&self) -> Option<&PagerError> {
        self.work
            .iter()
            .find_map(|work| work.error.as_ref().or(work.supply_error.as_ref()))
    }

    /// The objects that the call asks to be durable, each once, with the place of its lowest part among all of the call's:
    /// the task is told of their earlier errors now.
    pub fn objects(&self) -> impl Iterator<Item = (usize, &O)> {
        let all = self.cleaning.synchronize;
        let parts = self.parts().filter(move |_| all);
        parts.map(|(object, parts)| (parts.iter().copied().min().unwrap_or(0), object))
    }

    /// The call's objects, each once, with the indices of its work.
    fn parts(&self) -> impl Iterator<Item = (&O, &[usize])> {
        let object = |index: usize| &self.work[index].segment.object;
        self.order
            .chunk_by(move |one, next| object(*one) == object(*next))
            .map(move |parts| (object(parts[0]), parts))
    }

    /// Goes on as far as possible without waiting.
    pub fn poll(&mut self, memory: &mut dyn TaskMemory) -> Poll<O> {
        if self.phase == Phase::Reserve {
            if let Some(object) = self.reserve() {
                return Poll::Blocked(object);
            }
            self.capture(memory);
            self.return_pages(memory);
            self.fail_lost();
            self.synchronize();
            self.phase = Phase::Wait;
        }
        if self.phase == Phase::Wait {
            if let Some(object) = self.await_completions() {
                return Poll::Blocked(object);
            }
            self.finish(memory);
        }
        Poll::Done(self.answer())
    }

    /// Gives up waiting: what has not been answered stays dirty, and the call answers `ABORTED`.
    pub fn time_out(&mut self, memory: &mut dyn TaskMemory) -> KernReturn {
        if self.phase == Phase::Done {
            return self.answer();
        }
        let reserving = self.phase == Phase::Reserve;
        let call = self.call;
        // Completions that are there count; the rest is given up.
        for work in self.work[self.answered..]
            .iter_mut()
            .filter(|work| work.error.is_none())
        {
            match work.answer(call) {
                Some(result) => work.error = result.err(),
                None if reserving || work.synchronize => {
                    let message = "the pager did not answer within the time-out: the pages stay dirty, retry";
                    work.error = Some(PagerError::new(PagerErrorKind::TimedOut, message));
                }
                None => {}
            }
        }
        self.finish(memory);
        self.answer()
    }

    /// The result, once the call has come to its end.
    pub(crate) fn answer(&self) -> KernReturn {
        let write_back = self.work.iter().find_map(|work| work.error.as_ref());
        let supply = self.work.iter().find_map(|work| work.supply_error.as_ref());
        match (write_back, supply) {
            (Some(error), _) => error.kind.write_back(),
            (None, Some(error)) => error.kind.supply(),
            (None, None) => self.verdict,
        }
    }

    /// The work on writers' pages that nothing has gone wrong with.
    fn writers(&mut self) -> impl Iterator<Item = &mut Work<O>> {
        self.work
            .iter_mut()
            .filter(|work| work.is_written() && work.error.is_none())
    }

    /// Reserves every range; the object to wait for where one is taken.
    fn reserve(&mut self) -> Option<O> {
        while let Some(index) = self.order.get(self.reserved).copied() {
            let work = &mut self.work[index];
            let range = work.range;
            let gone = work.segment.object.with(|object| object.destroyed().cloned());
            if gone.is_some() {
                // Nothing is asked of what is gone, so what only reads it fails for itself.
                (work.error, work.synchronize) = (gone, false);
            } else if work.takes_part()
                && !work
                    .segment
                    .object
                    .with(|object| object.reserve(self.call, range))
            {
                return Some(work.segment.object.clone());
            }
            self.reserved += 1;
        }
        None
    }

    /// Reads the marks, then decides page by page what is returned and what is dropped.
    fn capture(&mut self, memory: &mut dyn TaskMemory) {
        let (page_size, cleaning) = (self.page_size, self.cleaning);
        for work in self.writers() {
            let segment = &work.segment;
            // While another range was waited for, this object may have gone.
            if let Some(gone) = segment.object.with(|object| object.destroyed().cloned()) {
                work.error = Some(gone);
                continue;
            }
            let pages = segment.object_pages;
            let mut marks = PageSet::new();
            let addresses = page_size.byte_range(segment.to_address(pages));
            let collected = match cleaning.flushed {
                // A page too many costs the pager a comparison.
                Flushed::Nothing => memory.collect_superset(addresses, &mut marks),
                // A page too many would count as one that a store has raced, and stay.
                _ => memory.collect(addresses, &mut marks),
            };
            if let Err(error) = collected {
                work.error = Some(PagerError::new(PagerErrorKind::Io, format!("{error}")));
            }
            let marks = marks.rebase(segment.address_page, pages.start);
            let (dirty, precious) = segment.object.with(|object| {
                object.take_marks(pages, marks);
                (object.dirty.within(pages), object.precious.within(pages))
            });
            let mut flushed = PageSet::new();
            match cleaning.flushed {
                Flushed::Nothing => {}
                Flushed::Clean | Flushed::All if segment.wired => {}
                Flushed::Clean | Flushed::All | Flushed::Unmapped => flushed.insert(pages),
            }
            if cleaning.flushed == Flushed::Clean {
                flushed.subtract(&dirty);
            }
            let mut clean = match cleaning.returned {
                Returned::DirtyAndPrecious => precious,
                // A flush would lose them.
                _ => precious.intersection(&flushed),
            };
            if cleaning.returned == Returned::Resident {
                clean.union(&segment.object.with(|object| object.resident.within(pages)));
            }
            if cleaning.returned == Returned::Nothing {
                work.dirty = dirty.intersection(&clean);
                clean.subtract(&dirty);
            } else {
                clean.subtract(&dirty);
                work.dirty = dirty;
            }
            work.synchronize |= !work.dirty.is_empty() || !clean.is_empty();
            work.clean = clean;
            work.flushed = flushed;
        }
    }

    /// Hands every run to its pager, also behind one that failed.
    fn return_pages(&mut self, memory: &mut dyn TaskMemory) {
        let (call, page_size) = (self.call, self.page_size);
        let pages_max = page_size.page_of(RETURN_BYTES_MAX);
        let mut pages_returned = 0;
        for work in self.writers() {
            let mut runs: Vec<(PageRange, bool)> =
                work.dirty.runs_capped(pages_max).map(|run| (run, true)).collect();
            runs.extend(work.clean.runs_capped(pages_max).map(|run| (run, false)));
            runs.sort_unstable_by_key(|(run, _)| run.start);
            let at_once = if memory.is_addressable() { runs.len() } else { 1 };
            for runs in runs.chunks(at_once.max(1)) {
                let segment = &work.segment;
                let shown = PageRange::new(runs[0].0.start, runs[runs.len() - 1].0.end);
                let bytes = memory.pages(page_size.byte_range(segment.to_address(shown)));
                let of = |(run, dirty): &(PageRange, bool)| {
                    let place = page_size.byte_range(run.rebase(shown.start, 0));
                    Run {
                        offset: page_size.byte_range(*run).start,
                        pages: &bytes[place.start as usize..place.end as usize],
                        flags: ReturnFlags {
                            dirty: *dirty,
                            kernel_copy: work.flushed.is_empty(),
                        },
                    }
                };
                let runs: Vec<Run<'_>> = runs.iter().map(of).collect();
                let id = segment.object.id();
                match segment.object.pager().data_return_runs(call, id, &runs) {
                    Ok(()) => {
                        let bytes: usize = runs.iter().map(|run| run.pages.len()).sum();
                        pages_returned += page_size.page_of(bytes as u64);
                    }
                    Err(error) => {
                        work.error.get_or_insert(error);
                    }
                }
            }
        }
        self.stats.pages_returned += pages_returned;
        self.fail_groups();
    }

    /// What was lost since the ranges were reserved may have pages that this call did not return: committed without them it would be a
    /// mix.
    fn fail_lost(&mut self) {
        let call = self.call;
        for work in self.work.iter_mut().filter(|work| work.awaits_pager()) {
            let range = work.range;
            work.error = work
                .segment
                .object
                .with(|object| object.lost(call, range).cloned());
        }
        self.fail_groups();
    }

    /// What a pager could not take in part is not committed in part: the rest of the call fails for this pager too,
    /// and it is told to forget the call.
    fn fail_groups(&mut self) {
        for work in self.work.iter().filter(|work| work.takes_part()) {
            let (pager, object) = (work.segment.object.pager_id(), &work.segment.object);
            if work.error.is_some() && !self.aborted.contains(&pager) {
                self.aborted.push(pager);
                object.pager().abort(self.call);
            }
        }
        for (object, _) in self.parts() {
            if self.aborted.contains(&object.pager_id()) {
                object.with(|object| object.release_aborted(self.call));
            }
        }
        self.spread_errors();
    }

    /// A pager has panicked in the midst of the call: all that have not taken their last request forget it.
    fn forget(&mut self) {
        for work in self.work.iter_mut().filter(|work| work.awaits_pager()) {
            if !self.asked.contains(&work.segment.object.pager_id()) {
                let message = "the call has ended before it was committed";
                work.error = Some(PagerError::new(PagerErrorKind::Io, message));
            }
        }
        self.fail_groups();
    }

    /// An error of one range that takes part is the error of every such range that goes to the same pager.
    fn spread_errors(&mut self) {
        let mut failed: Vec<(PagerId, PagerError)> = Vec::new();
        for work in self.work.iter().filter(|work| work.takes_part()) {
            let pager = work.segment.object.pager_id();
            if let Some(error) = &work.error
                && !failed.iter().any(|(other, _)| *other == pager)
            {
                failed.push((pager, error.clone()));
            }
        }
        for work in self.work.iter_mut().filter(|work| work.takes_part()) {
            let pager = work.segment.object.pager_id();
            if let Some((_, error)) = failed.iter().find(|(other, _)| *other == pager) {
                work.error.get_or_insert_with(|| error.clone());
            }
        }
    }

    /// A failed asynchronous call is told to every task of the object, to the caller by its own result (row E3).
    fn record_errors(&self) {
        if self.cleaning.synchronous || self.phase == Phase::Reserve {
            return;
        }
        for work in &self.work {
            if let Some(error) = &work.error {
                let code = error.kind.write_back();
                work.segment.object.with(|object| object.errors.record(code));
            }
        }
    }

    /// Asks each pager to commit; the last request of a pager says that no more follow.
    fn synchronize(&mut self) {
        for index in 0..self.work.len() {
            if !self.work[index].awaits_pager() {
                continue;
            }
            let pager = self.work[index].segment.object.pager_id();
            let more = self.work[index + 1..]
                .iter()
                .any(|work| work.awaits_pager() && work.segment.object.pager_id() == pager);
            let flags = SynchronizeFlags {
                synchronous: self.cleaning.synchronous,
                more,
                nowait: self.nowait,
            };
            let work = &mut self.work[index];
            let (object, range) = (&work.segment.object, work.range);
            object.with(|object| object.mark_sent(self.call, range));
            match object.pager().synchronize(self.call, object.id(), range, flags) {
                Ok(()) if more => {}
                Ok(()) => self.asked.push(pager),
                Err(error) => {
                    work.error = Some(error);
                    self.fail_groups();
                }
            }
        }
    }

    /// Takes the answers that are there, up to the first that is missing: its object is to be waited for.
    fn await_completions(&mut self) -> Option<O> {
        while let Some(work) = self.work.get_mut(self.answered) {
            if work.awaits_pager() {
                let Some(result) = work.answer(self.call) else {
                    return Some(work.segment.object.clone());
                };
                work.error = result.err();
            }
            self.answered += 1;
        }
        None
    }

    /// Forgets the marks of what is durable, drops what is to be dropped, and lets the next call in.
    fn finish(&mut self, memory: &mut dyn TaskMemory) {
        self.spread_errors();
        self.record_errors();
        for work in self.work.iter_mut().filter(|work| work.error.is_none()) {
            let (call, range, pages) = (self.call, work.range, work.segment.object_pages);
            let lost = work.segment.object.with(|object| {
                let lost = object.lost(call, range).is_some();
                if !lost {
                    object.dirty.subtract(&work.dirty);
                }
                lost
            });
            // The pager told so before this call came to its end: nothing is forgotten, and nothing dropped.
            if lost {
                continue;
            }
            if self.cleaning.flushed == Flushed::Unmapped {
                work.segment.object.with(|object| {
                    object.precious.subtract(&work.dirty);
                    object.precious.subtract(&work.clean);
                });
                continue;
            }
            match work.segment.sharing {
                Sharing::Copy => continue,
                Sharing::Reader if self.cleaning.flushed == Flushed::Nothing || work.segment.wired => {
                    continue;
                }
                Sharing::Reader => work.flushed.insert(pages),
                Sharing::Writer => {
                    if work.flushed.is_empty() {
                        continue;
                    }
                    // A store that raced the return is newer than what the pager has: its page stays (row D8).
                    match collect_raced(work, memory, self.page_size) {
                        Ok(raced) => work.flushed.subtract(&raced),
                        Err(error) => {
                            work.supply_error.get_or_insert(error);
                            continue;
                        }
                    }
                }
            }
            let runs = work.flushed.clone();
            if let Err(error) = settle_image(&work.segment, &runs, self.page_size) {
                work.supply_error.get_or_insert(error);
                continue;
            }
            for run in runs.runs() {
                match drop_run(work, *run, memory, self.page_size, call) {
                    Ok(true) => self.stats.pages_flushed += run.len(),
                    Ok(false) => {}
                    Err(error) => {
                        work.supply_error.get_or_insert(error);
                    }
                }
            }
        }
        for (object, _) in self.parts() {
            object.with(|object| object.release(self.call));
        }
        self.phase = Phase::Done;
    }
}

/// The pages that were stored to since their marks were read. Where they cannot be looked at, any may have been.
fn collect_raced<O: ObjectHandle>(
    work: &Work<O>,
    memory: &mut dyn TaskMemory,
    page_size: PageSize,
) -> Result<PageSet, PagerError> {
    let segment = &work.segment;
    let pages = segment.object_pages;
    let mut marks = PageSet::new();
    let collected = memory.collect(page_size.byte_range(segment.to_address(pages)), &mut marks);
    let marks = marks.rebase(segment.address_page, pages.start);
    // What was found before a failure is dirty, too: no other look finds it again.
    let raced = segment.object.with(|object| object.take_marks(pages, marks));
    collected
        .map(|()| raced)
        .map_err(|error| PagerError::new(PagerErrorKind::Unavailable, format!("{error}")))
}

/// Has the image show what the pager would supply of `pages`; once for all of them, as a pager may wait for its disk.
fn settle_image<O: ObjectHandle>(
    segment: &Segment<O>,
    pages: &PageSet,
    page_size: PageSize,
) -> Result<(), PagerError> {
    match (pages.runs().first(), pages.runs().last()) {
        (Some(first), Some(last)) if segment.image => {
            let range = page_size.byte_range(PageRange::new(first.start, last.end));
            segment.object.pager().settle_image(segment.object.id(), range)
        }
        _ => Ok(()),
    }
}

/// Makes memory show the pager's copy of `run` again, of a settled image; `false` where some of what the pager had was lost meanwhile,
/// and the pages stay.
fn drop_run<O: ObjectHandle>(
    work: &Work<O>,
    run: PageRange,
    memory: &mut dyn TaskMemory,
    page_size: PageSize,
    call: CallId,
) -> Result<bool, PagerError> {
    let segment = &work.segment;
    let addresses = segment.to_address(run);
    let lost = |object: &MemoryObject| object.lost(call, work.range).is_some();
    if segment.object.with(|object| lost(object)) {
        return Ok(false);
    }
    let mut precious = PageSet::new();
    let result = if segment.image {
        memory
            .discard(page_size.byte_range(addresses))
            .map_err(|error| PagerError::new(PagerErrorKind::Unavailable, format!("{error}")))
    } else {
        let place = Place {
            page: addresses.start,
            before: Before::Anything,
            sharing: segment.sharing,
        };
        supply(&segment.object, memory, run, place, &mut precious)
    };
    if segment.sharing == Sharing::Writer {
        segment.object.with(|object| {
            if result.is_ok() {
                // What was lost since may be what memory shows now.
                if !lost(object) {
                    object.dirty.remove(run);
                }
                object.precious.remove(run);
                object.resident.remove(run);
                if !segment.image {
                    object.resident.insert(run);
                }
            }
            object.precious.union(&precious);
        });
    }
    result.map(|()| true)
}

impl<O: ObjectHandle> Drop for Msync<O> {
    fn drop(&mut self) {
        if self.phase == Phase::Done {
            return;
        }
        if self.phase == Phase::Reserve && self.reserved == self.order.len() {
            self.forget();
        }
        for (object, _) in self.parts() {
            object.with(|object| object.release(self.call));
        }
    }
}
