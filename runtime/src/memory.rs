//! Linear memories of the host's own, and what the VM does to them. The unsafe wall of this crate.
//!
//! ```text
//!   Engine --new_memory--> Reservations --owns--> Reservation: [ accessible | reserved ... | guard ]
//!                                                     |  Arc
//!   Vm ------------------------------------------> GuestMemory: TaskMemory + Tracker over the same addresses
//! ```
//!
//! A memory is one private anonymous reservation that never moves; growing makes more of it accessible. Regions are
//! mapped over parts of it with `MAP_FIXED`, so that the engine's guards, its bounds checks and the guest's pointers
//! stay as they are.
//!
//! Invariants:
//! - a reservation outlives both the engine's memory and the [`GuestMemory`] that works on it;
//! - `MAP_FIXED` is used only inside the accessible part of a reservation;
//! - a [`GuestMemory`] is used only while its guest is suspended in a call to the host, or not running: the `Vm` that
//!   owns it is reached through the guest's store only, and checks that it is that guest's;
//! - pages of object regions are always readable, so that they can be returned to their pagers.

use std::{
    ptr::NonNull,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU8, AtomicUsize, Ordering},
    },
};

use rustix::{
    fd::BorrowedFd,
    fs::SeekFrom,
    mm::{Advice, MapFlags, MprotectFlags, ProtFlags, madvise, mmap, mmap_anonymous, mprotect, munmap},
};
use vmsync_core::{
    ByteRange, PageRange, PageSet, PageSize,
    abi::VmProt,
    memory::{MemoryError, TaskMemory},
    pager::Image,
    tracker::{Backing, Tracker, TrackerError, TrackerKind},
};
use vmsync_tracker::{Barrier, CardTable, HostAccessGuard, LinearRange};
use wasmtime::{LinearMemory, MemoryCreator, MemoryType};

use crate::{limits::MEMORY64_RESERVED_BYTES_MAX, mappings::Mappings};

/// Every linear memory that this host has made for an engine and that still exists.
#[derive(Default)]
pub(crate) struct Reservations {
    live: Mutex<Vec<Weak<Reservation>>>,
}

impl Reservations {
    /// The reservation whose memory begins at `base`.
    pub fn find(&self, base: *const u8) -> Option<Arc<Reservation>> {
        let live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        live.iter()
            .filter_map(Weak::upgrade)
            .find(|reservation| reservation.base.as_ptr().addr() == base.addr())
    }
}

// SAFETY: what `new_memory` returns is zero-filled, never moves, and has its guard behind the reserved size.
unsafe impl MemoryCreator for Reservations {
    fn new_memory(
        &self,
        ty: MemoryType,
        minimum: usize,
        maximum: Option<usize>,
        reserved_bytes: Option<usize>,
        guard_bytes: usize,
    ) -> Result<Box<dyn LinearMemory>, String> {
        if ty.is_shared() {
            return Err("shared memories are not supported: compile the guest without threads".into());
        }
        let mut capacity = reserved_bytes.unwrap_or(0).max(minimum);
        if ty.is_64() {
            // The engine checks every access of a 64-bit memory: reserve what it may ever grow to, within the limit.
            let wanted = maximum
                .unwrap_or(MEMORY64_RESERVED_BYTES_MAX)
                .min(MEMORY64_RESERVED_BYTES_MAX);
            capacity = capacity.max(wanted);
        }
        let reservation = Arc::new(Reservation::new(capacity, guard_bytes)?);
        let mut memory = Linear {
            reservation: reservation.clone(),
        };
        memory.grow_to(minimum).map_err(|error| format!("{error:#}"))?;
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        live.retain(|other| other.strong_count() > 0);
        live.push(Arc::downgrade(&reservation));
        Ok(Box::new(memory))
    }
}

/// Address space of one linear memory.
pub(crate) struct Reservation {
    base: NonNull<u8>,
    /// What the memory can grow to, in bytes.
    capacity: usize,
    /// With the guard behind it, in bytes.
    length: usize,
    /// Accessible bytes.
    size: AtomicUsize,
    guard: HostAccessGuard,
}

// SAFETY: the pointer is an address; who may access what is behind it is settled by the engine and `GuestMemory`.
unsafe impl Send for Reservation {}
// SAFETY: as above.
unsafe impl Sync for Reservation {}

impl Reservation {
    fn new(capacity: usize, guard_bytes: usize) -> Result<Self, String> {
        let host_page = rustix::param::page_size();
        let length = capacity
            .checked_next_multiple_of(host_page)
            .and_then(|bytes| bytes.checked_add(guard_bytes))
            .map(|bytes| bytes.max(host_page))
            .ok_or("the linear memory is larger than the address space")?;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: a new mapping at an address that the kernel chooses.
        let base = unsafe { mmap_anonymous(std::ptr::null_mut(), length, ProtFlags::empty(), flags) };
        let base = base.map_err(|error| {
            format!("cannot reserve {length} bytes of address space for a linear memory: {error}")
        })?;
        let base = NonNull::new(base.cast::<u8>()).ok_or("the kernel mapped the null page")?;
        let Some(guard) = HostAccessGuard::new(base.as_ptr(), capacity) else {
            // SAFETY: the mapping is this function's own.
            let unmapped = unsafe { munmap(base.as_ptr().cast(), length) };
            debug_assert!(unmapped.is_ok());
            return Err(
                "too many linear memories live in this process to guard another one: drop some".into(),
            );
        };
        Ok(Self {
            base,
            capacity,
            length,
            size: AtomicUsize::new(0),
            guard,
        })
    }

    fn size(&self) -> usize {
        self.size.load(Ordering::Acquire)
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.guard.set_size(0);
        // SAFETY: the mapping is this reservation's own, and nobody else holds it any more.
        let unmapped = unsafe { munmap(self.base.as_ptr().cast(), self.length) };
        debug_assert!(unmapped.is_ok());
    }
}

/// The engine's side of a reservation.
struct Linear {
    reservation: Arc<Reservation>,
}

// SAFETY: the memory never moves, `byte_size` bytes of it are accessible, and growing keeps what was there.
unsafe impl LinearMemory for Linear {
    fn byte_size(&self) -> usize {
        self.reservation.size()
    }

    fn byte_capacity(&self) -> usize {
        self.reservation.capacity
    }

    fn grow_to(&mut self, new_size: usize) -> wasmtime::Result<()> {
        let reservation = &*self.reservation;
        let old_size = reservation.size();
        if new_size > reservation.capacity {
            wasmtime::bail!(
                "the memory cannot grow beyond its reservation of {} bytes",
                reservation.capacity
            );
        }
        let host_page = rustix::param::page_size();
        let (start, end) = (
            old_size.next_multiple_of(host_page),
            new_size.next_multiple_of(host_page),
        );
        if end > start {
            // SAFETY: the range is inside the reservation and behind everything that is in use.
            unsafe {
                let at = reservation.base.as_ptr().add(start).cast();
                mprotect(at, end - start, MprotectFlags::READ | MprotectFlags::WRITE)
                    .map_err(|error| wasmtime::format_err!("cannot grow the memory: {error}"))?;
            }
        }
        reservation.size.store(new_size, Ordering::Release);
        reservation.guard.set_size(end);
        Ok(())
    }

    fn as_ptr(&self) -> *mut u8 {
        self.reservation.base.as_ptr()
    }
}

/// A guest's linear memory with its tracker.
pub(crate) struct GuestMemory {
    // Dropped in this order: the tracker lets go before the memories it looks at can be unmapped.
    tracker: Box<dyn Tracker>,
    _cards: Option<Arc<Reservation>>,
    reservation: Arc<Reservation>,
    mappings: Mappings,
    page_size: PageSize,
    /// How many pages the tracker can tell apart: a card table may be smaller than the memory.
    trackable_pages: u64,
    /// What is to be tracked, writable or not.
    tracked: PageSet,
    /// The part of `tracked` that shows a file.
    file_backed: PageSet,
    /// Pages that stores trap on.
    write_protected: PageSet,
    /// Pages that stores do not trap on and that the tracker could not take back: they count as stored to.
    unwatched: PageSet,
    /// Marks of pages that were write-protected before anybody asked for them.
    pending: PageSet,
}

impl GuestMemory {
    /// The memory of `reservation`, tracked by the rung `kind`. `cards` is the card table of an instrumented guest.
    pub fn new(
        reservation: Arc<Reservation>,
        kind: TrackerKind,
        page_size: PageSize,
        cards: Option<Arc<Reservation>>,
    ) -> Result<Self, TrackerError> {
        let range = LinearRange {
            base: reservation.base.as_ptr(),
            bytes_reserved: reservation.capacity as u64,
        };
        let tracker: Box<dyn Tracker> = match (kind, &cards) {
            (TrackerKind::Barrier, Some(cards)) => {
                let first = cards.base.as_ptr().cast::<AtomicU8>();
                let table = CardTable {
                    first,
                    cards: cards.size() as u64,
                };
                // SAFETY: the card memory's reservation is kept beside the tracker; nothing collects while the guest
                // runs. Attached ranges are mapped readable.
                Box::new(unsafe { Barrier::new(table, range, page_size) })
            }
            (TrackerKind::Barrier, None) => {
                return Err(TrackerError {
                    kind,
                    message: "the module has no card table: give it to `vmsync::prepare` first, and its marks to `VmBuilder::marks`".into(),
                });
            }
            // SAFETY: the reservation outlives the tracker, attached ranges are private mappings of this value, and
            // only this value changes their protection while they are attached.
            _ => unsafe { vmsync_tracker::new_tracker(kind, range, page_size)? },
        };
        let start = reservation.base.as_ptr().addr();
        let mappings = Mappings::new(start..start + reservation.length);
        let trackable_pages = cards.as_ref().map_or(u64::MAX, |cards| cards.size() as u64);
        Ok(Self {
            tracker,
            _cards: cards,
            reservation,
            mappings,
            trackable_pages,
            page_size,
            tracked: PageSet::new(),
            file_backed: PageSet::new(),
            write_protected: PageSet::new(),
            unwatched: PageSet::new(),
            pending: PageSet::new(),
        })
    }

    /// Whether the memory is the one that begins at `base`.
    pub fn is_at(&self, base: *const u8) -> bool {
        self.reservation.base.as_ptr().addr() == base.addr()
    }

    /// The rung in use.
    pub fn tracker_kind(&self) -> TrackerKind {
        self.tracker.kind()
    }

    /// Whether more pages than were stored to may count as dirty.
    pub fn reports_superset(&self) -> bool {
        self.tracker.reports_superset()
    }

    /// Where `range` is, and how long. An empty range may be anywhere: a guest names it.
    fn pointer(&self, range: ByteRange) -> (*mut std::ffi::c_void, usize) {
        if range.is_empty() {
            return (self.reservation.base.as_ptr().cast(), 0);
        }
        assert!(
            range.end <= self.reservation.size() as u64,
            "{range} leaves the linear memory"
        );
        let (start, length) = (range.start as usize, range.len() as usize);
        // SAFETY: the offset is inside the reservation.
        (
            unsafe { self.reservation.base.as_ptr().add(start) }.cast(),
            length,
        )
    }

    fn page_range(&self, range: ByteRange) -> PageRange {
        assert!(self.page_size.is_aligned(range.start) && self.page_size.is_aligned(range.end));
        self.page_size.shrink(range)
    }

    /// Forgets everything about `pages`, whose mapping has just been replaced.
    fn forget(&mut self, range: ByteRange) {
        let pages = self.page_range(range);
        self.tracker.detach(range);
        self.reservation.guard.open(addresses(range));
        for set in [
            &mut self.tracked,
            &mut self.file_backed,
            &mut self.write_protected,
            &mut self.unwatched,
            &mut self.pending,
        ] {
            set.remove(pages);
        }
    }

    fn track(&mut self, range: ByteRange, backing: Backing) -> Result<(), MemoryError> {
        let pages = self.page_range(range);
        if pages.end > self.trackable_pages {
            let message = "the module's card table does not reach this far: instrument it again".into();
            return Err(MemoryError { message });
        }
        self.tracker.attach(range, backing)?;
        self.tracked.insert(pages);
        if backing == Backing::PrivateFile {
            self.file_backed.insert(pages);
        }
        Ok(())
    }

    /// Replaces the mapping of `range` by fresh anonymous memory.
    fn map_anonymous(&mut self, range: ByteRange, protection: ProtFlags) -> Result<(), MemoryError> {
        let (at, length) = self.pointer(range);
        if length == 0 {
            return Ok(());
        }
        let flags = MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::NORESERVE;
        // SAFETY: the range lies in the accessible part of this reservation; see the module's invariants.
        unsafe { mmap_anonymous(at, length, protection, flags) }
            .map_err(|error| failed("map memory", error))?;
        self.forget(range);
        self.mappings.may_have_joined();
        Ok(())
    }

    fn set_protection(&self, range: ByteRange, flags: MprotectFlags) -> Result<(), MemoryError> {
        let (at, length) = self.pointer(range);
        if length == 0 {
            return Ok(());
        }
        // SAFETY: as in `map_anonymous`; the pages stay mapped.
        unsafe { mprotect(at, length, flags) }.map_err(|error| failed("protect memory", error))
    }

    /// Stops stores to `range`: what was stored so far is remembered, and the tracker lets go of it. Where that fails, all is as it was.
    fn write_protect(&mut self, range: ByteRange) -> Result<(), MemoryError> {
        let pages = self.page_range(range);
        let mut open = PageSet::from(pages);
        open.subtract(&self.write_protected);
        let watched = self.watched(pages);
        for run in watched.runs() {
            self.tracker
                .collect(self.page_size.byte_range(*run), &mut self.pending)?;
        }
        for run in watched.runs() {
            self.tracker.detach(self.page_size.byte_range(*run));
        }
        if let Err(error) = self.set_protection(range, MprotectFlags::READ) {
            for run in open.runs() {
                // Some of it may be protected now. A store that still traps is not lost in silence.
                let _ = self.set_protection(
                    self.page_size.byte_range(*run),
                    MprotectFlags::READ | MprotectFlags::WRITE,
                );
            }
            watched.runs().iter().for_each(|run| self.watch(*run));
            return Err(error);
        }
        self.pending.append(self.unwatched.take(pages));
        self.write_protected.insert(pages);
        self.reservation.guard.close(addresses(range));
        Ok(())
    }

    /// Allows stores to `range` again and watches for them. What was not write-protected is left alone: its protection
    /// may be the tracker's.
    fn write_enable(&mut self, range: ByteRange) -> Result<(), MemoryError> {
        let pages = self.page_range(range);
        for run in self.write_protected.within(pages).runs() {
            let open = MprotectFlags::READ | MprotectFlags::WRITE;
            let range = self.page_size.byte_range(*run);
            self.set_protection(range, open)?;
            self.opened(*run);
        }
        Ok(())
    }

    /// Stores to `run`, which was write-protected, do not trap any more: they are watched for.
    fn opened(&mut self, run: PageRange) {
        let range = self.page_size.byte_range(run);
        self.reservation.guard.open(addresses(range));
        self.write_protected.remove(run);
        for tracked in self.tracked.within(run).runs() {
            self.watch(*tracked);
        }
    }

    /// Watches `run`, which is tracked and was let go of, from now on. Where that fails it counts as stored to whenever somebody asks.
    fn watch(&mut self, run: PageRange) {
        let range = self.page_size.byte_range(run);
        let backing = if self.file_backed.contains(run.start) {
            Backing::PrivateFile
        } else {
            Backing::Anonymous
        };
        let attached = self.tracker.attach(range, backing);
        if attached.and_then(|()| self.tracker.clear(range)).is_err() {
            self.unwatched.insert(run);
        }
    }

    /// The pages of `pages` that the tracker watches.
    fn watched(&self, pages: PageRange) -> PageSet {
        let mut watched = self.tracked.within(pages);
        watched.subtract(&self.write_protected);
        watched.subtract(&self.unwatched);
        watched
    }

    /// Everything that is watched inside `range` counts as clean.
    fn clear(&mut self, range: ByteRange) -> Result<(), MemoryError> {
        let pages = self.page_range(range);
        for run in self.watched(pages).runs() {
            self.tracker.clear(self.page_size.byte_range(*run))?;
        }
        self.pending.remove(pages);
        Ok(())
    }

    /// Copies out `buffer.len()` bytes from `offset`. The caller has checked that the range is readable memory.
    pub fn read(&self, offset: u64, buffer: &mut [u8]) {
        let range = ByteRange::at(offset, buffer.len() as u64).expect("the caller has checked the range");
        let (at, length) = self.pointer(range);
        // SAFETY: the range is mapped and readable, and the guest is suspended.
        unsafe { std::ptr::copy_nonoverlapping(at.cast::<u8>(), buffer.as_mut_ptr(), length) };
    }

    /// Copies `bytes` to `offset`, as a store of the host on the guest's behalf. The caller has checked that the range
    /// is writable memory.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) {
        let range = ByteRange::at(offset, bytes.len() as u64).expect("the caller has checked the range");
        let (at, length) = self.pointer(range);
        // SAFETY: the range is mapped and writable, and the guest is suspended.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), at.cast::<u8>(), length) };
    }
}

/// Whether `length` bytes of `file` from `offset` on were never written.
fn is_hole(file: BorrowedFd<'_>, offset: u64, length: usize) -> bool {
    match rustix::fs::seek(file, SeekFrom::Data(offset)) {
        Ok(data) => data >= offset.saturating_add(length as u64),
        Err(error) => error == rustix::io::Errno::NXIO,
    }
}

/// `range` in the words of the host, from the start of the memory.
fn addresses(range: ByteRange) -> std::ops::Range<usize> {
    range.start as usize..range.end as usize
}

fn failed(what: &str, error: rustix::io::Errno) -> MemoryError {
    let hint = match error {
        rustix::io::Errno::NOMEM => ": out of memory, or of mappings (see vm.max_map_count)",
        _ => "",
    };
    MemoryError {
        message: format!("cannot {what}: {error}{hint}"),
    }
}

impl TaskMemory for GuestMemory {
    fn size(&self) -> u64 {
        self.reservation.size() as u64
    }

    fn is_addressable(&self) -> bool {
        true
    }

    fn pages(&mut self, range: ByteRange) -> &[u8] {
        let (at, length) = self.pointer(range);
        // SAFETY: the range is mapped and readable, and nothing stores to it while `self` is borrowed: the guest is
        // suspended.
        unsafe { std::slice::from_raw_parts(at.cast(), length) }
    }

    fn map_image(&mut self, range: ByteRange, image: Image, track: bool) -> Result<bool, MemoryError> {
        if !image.offset.is_multiple_of(rustix::param::page_size() as u64) {
            return Ok(false);
        }
        let (at, length) = self.pointer(range);
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::NORESERVE;
        // SAFETY: the pager keeps the descriptor open while the object is, and the range lies in the accessible part
        // of this reservation.
        unsafe {
            let file = BorrowedFd::borrow_raw(image.descriptor);
            mmap(at, length, protection, flags, file, image.offset)
                .map_err(|error| failed("map an object's image", error))?;
            if is_hole(file, image.offset, length) {
                // Reading ahead would fill the page cache with zeroes, and in large folios: a file system that looks at all
                // of one for each small write to it makes every write to this image slow.
                let _ = madvise(at, length, Advice::Random);
            }
        }
        self.forget(range);
        if track && self.track(range, Backing::PrivateFile).is_err() {
            // This rung cannot watch private file mappings: the pages are copied in instead.
            self.map_anonymous(range, protection)?;
            return Ok(false);
        }
        Ok(true)
    }

    fn make_room(&mut self, entries: usize) -> Result<(), MemoryError> {
        self.mappings.make_room(entries)
    }

    fn map_zero(&mut self, range: ByteRange, track: bool) -> Result<(), MemoryError> {
        self.map_anonymous(range, ProtFlags::READ | ProtFlags::WRITE)?;
        if track {
            self.track(range, Backing::Anonymous)
        } else {
            Ok(())
        }
    }

    fn unmap(&mut self, range: ByteRange) -> Result<(), MemoryError> {
        self.map_anonymous(range, ProtFlags::empty())?;
        // A tracker that lets go of a range may make it writable.
        self.set_protection(range, MprotectFlags::empty())?;
        self.reservation.guard.close(addresses(range));
        Ok(())
    }

    fn fill(&mut self, offset: u64, bytes: &[u8]) -> Result<(), MemoryError> {
        let range = ByteRange::new(offset, offset + bytes.len() as u64);
        let closed = self.write_protected.within(self.page_range(range));
        let mut result = Ok(());
        for run in closed.runs() {
            let open = MprotectFlags::READ | MprotectFlags::WRITE;
            result = result.and_then(|()| self.set_protection(self.page_size.byte_range(*run), open));
        }
        if result.is_ok() {
            self.write(offset, bytes);
        }
        // Also where that failed: some of it may be open.
        for run in closed.runs() {
            let protected = self.set_protection(self.page_size.byte_range(*run), MprotectFlags::READ);
            if protected.is_err() {
                self.opened(*run);
            }
            result = result.and(protected);
        }
        result?;
        self.clear(range)
    }

    fn discard(&mut self, range: ByteRange) -> Result<(), MemoryError> {
        let (at, length) = self.pointer(range);
        if length > 0 {
            // SAFETY: the range is a private file mapping of this reservation; it goes on showing the file.
            unsafe { madvise(at, length, Advice::LinuxDontNeed) }
                .map_err(|error| failed("drop an object's pages", error))?;
        }
        self.clear(range)
    }

    fn protect(&mut self, range: ByteRange, protection: VmProt) -> Result<(), MemoryError> {
        if protection.contains(VmProt::WRITE) {
            self.write_enable(range)
        } else {
            self.write_protect(range)
        }
    }

    fn deactivate(&mut self, range: ByteRange) {
        self.advise(range, Advice::LinuxCold);
    }

    fn will_need(&mut self, range: ByteRange) {
        self.advise(range, Advice::WillNeed);
    }

    fn collect(&mut self, range: ByteRange, dirty: &mut PageSet) -> Result<(), MemoryError> {
        for run in self.take_pending(range, dirty).runs() {
            self.tracker.collect(self.page_size.byte_range(*run), dirty)?;
        }
        Ok(())
    }

    fn collect_superset(&mut self, range: ByteRange, dirty: &mut PageSet) -> Result<(), MemoryError> {
        for run in self.take_pending(range, dirty).runs() {
            self.tracker
                .collect_superset(self.page_size.byte_range(*run), dirty)?;
        }
        Ok(())
    }
}

impl GuestMemory {
    /// Moves the marks that are kept of `range` to `dirty`; the pages of it that the tracker watches.
    fn take_pending(&mut self, range: ByteRange, dirty: &mut PageSet) -> PageSet {
        let pages = self.page_range(range);
        dirty.append(self.pending.take(pages));
        if self.tracker.kind() == TrackerKind::Mprotect {
            // It protects again what it finds.
            self.mappings.may_have_joined();
        }
        if !self.unwatched.is_empty() {
            dirty.union(&self.unwatched.within(pages));
        }
        self.watched(pages)
    }

    /// Advice may be ignored, so may its failure.
    fn advise(&mut self, range: ByteRange, advice: Advice) {
        let (at, length) = self.pointer(range);
        if length > 0 {
            // SAFETY: the advice does not change what the memory holds.
            let _ = unsafe { madvise(at, length, advice) };
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    const P: u64 = 4096;

    /// What the kernel allows at `address`, as `/proc/self/maps` spells it.
    fn access(address: usize) -> String {
        let text = std::fs::read_to_string("/proc/self/maps").expect("Linux tells");
        let access = text.lines().find_map(|line| {
            let (ends, rest) = line.split_once(' ')?;
            let (start, end) = ends.split_once('-')?;
            let [start, end] = [start, end].map(|end| usize::from_str_radix(end, 16).expect("hexadecimal"));
            (start..end).contains(&address).then(|| rest[..3].to_owned())
        });
        access.unwrap_or_default()
    }

    #[test]
    fn pages_that_could_not_be_filled_are_read_only_again() {
        let pages = |start: u64, end: u64| ByteRange::new(start * P, end * P);
        let reservation = Arc::new(Reservation::new(8 * P as usize, 0).expect("address space"));
        let mut linear = Linear {
            reservation: reservation.clone(),
        };
        linear.grow_to(8 * P as usize).expect("it is reserved");
        let page_size = PageSize::new(P).expect("a page");
        let memory = GuestMemory::new(reservation.clone(), TrackerKind::Compare, page_size, None);
        let mut memory = memory.expect("it works everywhere");
        memory.map_zero(pages(0, 8), true).expect("memory");
        memory.map_zero(pages(3, 4), false).expect("memory");
        for page in [1, 3, 5] {
            memory
                .protect(pages(page, page + 1), VmProt::READ)
                .expect("mappings");
        }
        // Where nothing is mapped, nothing can be opened.
        let (at, length) = memory.pointer(pages(3, 4));
        // SAFETY: a page of this test's memory, which nobody uses.
        unsafe { munmap(at, length) }.expect("it is there");
        assert!(memory.fill(0, &[1; 8 * P as usize]).is_err());
        let base = reservation.base.as_ptr().addr();
        let found = [1, 2, 5].map(|page| access(base + page * P as usize));
        assert_eq!(found, ["r--", "rw-", "r--"]);
        let mut dirty = PageSet::new();
        memory.collect(pages(0, 3), &mut dirty).expect("it compares");
        assert!(dirty.is_empty(), "nothing was stored: {dirty:?}");
    }
}
