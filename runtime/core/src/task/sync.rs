//! `vm_msync` of a task, and what else cleans its pages: what is asked for becomes an [`Msync`].

use alloc::vec::Vec;

use crate::{
    KernReturn,
    abi::VmSync,
    map::{EntryBacking, Sharing},
    memory::TaskMemory,
    msync::{Cleaning, Msync},
    object::ObjectHandle,
    page::{ByteRange, PageRange},
    pager::{CallId, LockRequest},
    task::Task,
};

impl<O: ObjectHandle> Task<O> {
    /// `vm_msync` and `mach_vm_msync`; `word_end` is one behind the highest address that the call's words can hold
    /// (2^32 for `vm_msync` of a 32-bit memory, else `u64::MAX`).
    pub fn msync(
        &mut self,
        address: u64,
        size: u64,
        flags: VmSync,
        word_end: u64,
        call: CallId,
        memory: &mut dyn TaskMemory,
    ) -> Result<Msync<O>, KernReturn> {
        if flags.has_unknown() || flags.contains(VmSync::ASYNCHRONOUS | VmSync::SYNCHRONOUS) {
            return Err(KernReturn::InvalidArgument);
        }
        if size == 0 {
            return Ok(Msync::new(
                call,
                self.page_size,
                Cleaning::EVICT,
                Vec::new(),
                KernReturn::Success,
            ));
        }
        let pages = self.sync_range(address, size, word_end)?;
        let covered = self.map.covered(pages);
        if covered == 0 {
            return Err(KernReturn::InvalidAddress);
        }
        if flags.contains(VmSync::KILLPAGES) {
            let range = ByteRange::at(address, size).ok_or(KernReturn::InvalidAddress)?;
            self.kill(self.page_size.shrink(range), memory)?;
        }
        if flags.contains(VmSync::DEACTIVATE) {
            for (_, pages) in self.map.overlapping(pages).filter(|(entry, _)| entry.wired == 0) {
                memory.deactivate(self.page_size.byte_range(pages));
            }
        }
        let holes = covered < pages.len();
        let verdict = if holes && flags.contains(VmSync::CONTIGUOUS) {
            KernReturn::InvalidAddress
        } else {
            KernReturn::Success
        };
        let (cleaning, segments) = match Cleaning::from_flags(flags) {
            Some(cleaning) => (cleaning, self.segments(pages)),
            None => (Cleaning::EVICT, Vec::new()),
        };
        Ok(Msync::new(call, self.page_size, cleaning, segments, verdict))
    }

    /// What the guest sees of a finished call: its own result or, once, an earlier error of an asynchronous call. An
    /// error of its own write-back stands for the earlier ones too, as that of `fsync` does: the pages of all of them are
    /// dirty. Of several objects' errors it is that of the lowest address.
    pub fn conclude(&mut self, msync: &Msync<O>, result: KernReturn) -> KernReturn {
        let mut earlier: Option<(usize, KernReturn)> = None;
        for (place, object) in msync.objects() {
            for open in self.objects.values_mut().filter(|open| open.object == *object) {
                let error = open.object.with(|object| object.errors.check(&mut open.errors));
                if let Some(error) = error
                    && earlier.is_none_or(|(before, _)| place < before)
                {
                    earlier = Some((place, error));
                }
            }
        }
        match earlier {
            Some((_, error)) if msync.is_written_back() => error,
            _ => result,
        }
    }

    /// Carries out a pager's request over the pages of `object` that this task writes. Where a region cannot be split, because the
    /// task has as many as it may or the memory no room, all of it loses the access.
    pub fn lock_request(
        &mut self,
        object: &O,
        request: &LockRequest,
        call: CallId,
        memory: &mut dyn TaskMemory,
    ) -> Result<Msync<O>, KernReturn> {
        let everything = PageRange::new(0, self.map.end());
        let wanted = self
            .page_size
            .widen(request.range)
            .ok_or(KernReturn::InvalidArgument)?;
        let mut segments = Vec::new();
        for mut segment in self.segments(everything) {
            let part = segment.object_pages.intersect(wanted);
            if segment.object != *object || segment.sharing != Sharing::Writer || part.is_empty() {
                continue;
            }
            segment.address_page += part.start - segment.object_pages.start;
            segment.object_pages = part;
            if let Some(prohibit) = request.prohibit {
                let mut pages = part.rebase(part.start, segment.address_page);
                if self.make_room(memory).is_err() {
                    pages = self.map.whole_entries(pages);
                }
                let page_size = self.page_size;
                self.map.update(pages, |entry| {
                    entry.protection = entry.protection.without(prohibit);
                    // Memory may be left with more access, as by `vm_protect`; what is asked for is returned all the same.
                    let _ = memory.protect(page_size.byte_range(entry.pages), entry.protection);
                });
            }
            segments.push(segment);
        }
        let cleaning = Cleaning::from_lock_request(request.should_return, request.flush);
        Ok(Msync::new(
            call,
            self.page_size,
            cleaning,
            segments,
            KernReturn::Success,
        ))
    }

    /// Gives up memory of a range: clean pages are dropped, precious ones returned first.
    pub fn evict(&mut self, address: u64, size: u64, call: CallId) -> Result<Msync<O>, KernReturn> {
        let pages = self.sync_range(address, size, self.address_end)?;
        let segments = self.segments(pages);
        Ok(Msync::new(
            call,
            self.page_size,
            Cleaning::EVICT,
            segments,
            KernReturn::Success,
        ))
    }

    /// KILLPAGES: anonymous memory reads as zero from now on; stops at the first hole (row H4).
    fn kill(&mut self, pages: PageRange, memory: &mut dyn TaskMemory) -> Result<(), KernReturn> {
        let mut next = pages.start;
        for entry in self.map.entries_in(pages) {
            if entry.pages.start != next {
                break;
            }
            next = entry.pages.end;
            if matches!(entry.backing, EntryBacking::Anonymous { .. }) && entry.wired == 0 {
                self.replace(&entry, memory)?;
            }
        }
        Ok(())
    }
}
