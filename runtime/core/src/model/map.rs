//! Regions of the model: laid, taken away, protected, described, wired.

use alloc::vec::Vec;

use super::{
    Kind, LOST, MODEL_PAGES_MAX, Model, ModelPage, Outcome, Share, is_writer, msync::UNMAP, refused,
};
use crate::{
    KernReturn, PagerErrorKind,
    abi::{Behavior, PORT_NULL, VmProt},
    task::MapRequest,
};

impl Model {
    /// The pages that hold a byte of the range; the error where it leaves the address space.
    fn widen(
        &self,
        address: u64,
        size: u64,
        end: u64,
        memory_end: Option<u64>,
    ) -> Result<Vec<u64>, KernReturn> {
        if size == 0 {
            return Ok(Vec::new());
        }
        let page = u128::from(self.page_size.bytes());
        let behind = u128::from(address) + u128::from(size);
        let rounded = behind.div_ceil(page) * page;
        // In a word of 64 bits the end must be expressible; so must it in one of 32, but for the end of all memory.
        let limit = if end == u64::MAX { 1 << 64 } else { u128::from(end) };
        if rounded > limit || (rounded == limit && memory_end != Some(end)) {
            return Err(KernReturn::InvalidAddress);
        }
        let first = address / self.page_size.bytes();
        Ok((first..(rounded / page) as u64).take(MODEL_PAGES_MAX).collect())
    }

    /// The pages of a call on `task`, and whether all of them are allocated.
    pub(super) fn allocated(
        &self,
        task: usize,
        address: u64,
        size: u64,
        word_end: u64,
    ) -> Result<(Vec<u64>, bool), KernReturn> {
        let state = &self.tasks[task];
        let memory_end = state.pages.len() as u64 * self.page_size.bytes();
        let own_words = word_end == state.address_end;
        let pages = self.widen(address, size, word_end, own_words.then_some(memory_end))?;
        let exists = |page: &u64| {
            usize::try_from(*page)
                .ok()
                .and_then(|page| state.pages.get(page))
                .is_some_and(|page| page.kind != Kind::Hole)
        };
        let there: Vec<u64> = pages.iter().copied().filter(exists).collect();
        let whole = there.len() == pages.len();
        Ok((there, whole))
    }

    /// The pages of which every byte is in the range.
    pub(super) fn shrink(&self, address: u64, size: u64) -> Vec<u64> {
        let page = self.page_size.bytes();
        let behind = u128::from(address) + u128::from(size);
        let last = (behind / u128::from(page)) as u64;
        (address.div_ceil(page)..last).take(MODEL_PAGES_MAX).collect()
    }

    /// `vm_map` and `vm_allocate` at a fixed address.
    pub fn map(&mut self, task: usize, request: &MapRequest) -> KernReturn {
        match self.try_map(task, request) {
            Ok(()) => KernReturn::Success,
            Err(error) => error,
        }
    }

    fn try_map(&mut self, task: usize, request: &MapRequest) -> Result<(), KernReturn> {
        let page = self.page_size.bytes();
        if request.size == 0 || !request.address.is_multiple_of(page) {
            return Err(KernReturn::InvalidArgument);
        }
        let count = u128::from(request.size).div_ceil(u128::from(page));
        let first = request.address / page;
        if u128::from(first) + count > self.tasks[task].pages.len() as u128 {
            return Err(KernReturn::InvalidAddress);
        }
        let pages: Vec<u64> = (first..first + count as u64).collect();
        let known = !request.protection.has_unknown() && !request.max_protection.has_unknown();
        if !known || !request.max_protection.contains(request.protection) {
            return Err(KernReturn::InvalidArgument);
        }
        let is_region =
            |page: &u64| matches!(self.page(task, *page).kind, Kind::Anonymous | Kind::Object { .. });
        let replaces = pages.iter().any(is_region);
        if replaces && !request.overwrite {
            return Err(KernReturn::NoSpace);
        }
        let source = self.source(task, request, count as u64)?;
        if let Some((object, first, Share::Writer)) = source {
            let wanted = first..first + count as u64;
            if self.is_written(object, &wanted, (task, &pages)) {
                if replaces {
                    self.make_zero(task, &pages, Kind::Memory);
                }
                return Err(KernReturn::NoAccess);
            }
        }
        self.make_zero(
            task,
            &pages,
            if source.is_none() {
                Kind::Anonymous
            } else {
                Kind::Memory
            },
        );
        if let Some((object, first, share)) = source {
            self.show(task, &pages, object, first, share)?;
        }
        for page in &pages {
            let page = self.page_mut(task, *page);
            page.protection = request.protection;
            page.max_protection = request.max_protection;
            page.inherit = request.inherit;
        }
        self.forget_closed(task);
        Ok(())
    }

    /// The object, first page and meaning of stores that a mapping asks for.
    fn source(
        &self,
        task: usize,
        request: &MapRequest,
        count: u64,
    ) -> Result<Option<(usize, u64, Share)>, KernReturn> {
        if request.port == PORT_NULL {
            return Ok(None);
        }
        let port = self.tasks[task].ports.get(&request.port);
        let port = port
            .filter(|port| !port.closed)
            .ok_or(KernReturn::InvalidObject)?;
        if self.objects[port.object].gone {
            return Err(KernReturn::MemoryFailure);
        }
        let page = self.page_size.bytes();
        let behind = u128::from(request.offset / page) + u128::from(count);
        let inside = behind <= self.objects[port.object].accepted.len() as u128;
        if !request.offset.is_multiple_of(page) || !inside {
            return Err(KernReturn::InvalidArgument);
        }
        let (wants, share) = if request.copy {
            (VmProt::READ, Share::Copy)
        } else if request.max_protection.contains(VmProt::WRITE) {
            (request.max_protection, Share::Writer)
        } else {
            (request.max_protection, Share::Reader)
        };
        if !port.rights.contains(wants) {
            return Err(KernReturn::ProtectionFailure);
        }
        Ok(Some((port.object, request.offset / page, share)))
    }

    /// Whether anyone writes one of the pages of the object, leaving out what is about to be replaced.
    fn is_written(&self, object: usize, wanted: &core::ops::Range<u64>, replaced: (usize, &[u64])) -> bool {
        self.tasks.iter().enumerate().any(|(index, task)| {
            (0..).zip(&task.pages).any(|(address, page)| {
                let writes = matches!(page.kind, Kind::Object { object: other, page, share: Share::Writer }
                    if other == object && wanted.contains(&page));
                writes && !(index == replaced.0 && replaced.1.contains(&address))
            })
        })
    }

    fn make_zero(&mut self, task: usize, pages: &[u64], kind: Kind) {
        for page in pages {
            *self.page_mut(task, *page) = self.zero_page(kind);
        }
    }

    /// Pages become those of an object, as its pager supplies them.
    fn show(
        &mut self,
        task: usize,
        pages: &[u64],
        object: usize,
        first: u64,
        share: Share,
    ) -> Result<(), KernReturn> {
        let wanted: Vec<u64> = (first..).take(pages.len()).collect();
        if let Some(kind) = self.supply_fault(object, &wanted) {
            return Err(kind.supply());
        }
        for (address, page) in pages.iter().zip(wanted) {
            self.page_mut(task, *address).kind = Kind::Object { object, page, share };
            self.fetch(task, *address);
        }
        Ok(())
    }

    pub(super) fn supply_fault(&self, object: usize, pages: &[u64]) -> Option<PagerErrorKind> {
        pages
            .iter()
            .find_map(|page| self.faults.supplies.get(&(object, *page)).copied())
    }

    /// One page of an object as its pager supplies it now.
    pub(super) fn fetch(&mut self, task: usize, address: u64) {
        let Kind::Object { object, page, share } = self.page(task, address).kind else {
            return;
        };
        let lost = self.full(LOST);
        let state = &mut self.objects[object];
        let bytes = if state.given_away.contains(&page) {
            lost
        } else {
            state.accepted[page as usize].clone()
        };
        let precious = state.moves && share == Share::Writer;
        if precious {
            state.given_away.insert(page);
        }
        let resident = !state.image;
        let target = self.page_mut(task, address);
        target.bytes = bytes;
        target.dirty = false;
        target.precious = precious;
        target.resident = resident;
    }

    /// `vm_deallocate`: precious pages are returned, then the range becomes a hole. It stays where one could not be, of an object
    /// that is not gone.
    pub fn deallocate(&mut self, task: usize, address: u64, size: u64) -> Outcome {
        let (pages, _) = match self.allocated(task, address, size, self.tasks[task].address_end) {
            Ok(found) => found,
            Err(error) => return refused(error),
        };
        let runs = self.runs(task, &pages);
        let ended = self.clean(task, runs, UNMAP);
        let is_kept = |address: &u64| {
            let page = self.page(task, *address);
            matches!(page.kind, Kind::Object { object, .. } if page.precious && !self.objects[object].gone)
        };
        if ended.error.is_some() && pages.iter().any(is_kept) {
            return ended.into();
        }
        self.make_zero(task, &pages, Kind::Hole);
        self.forget_closed(task);
        Outcome {
            result: KernReturn::Success,
            returned: ended.returned,
        }
    }

    /// `vm_protect`.
    pub fn protect(
        &mut self,
        task: usize,
        address: u64,
        size: u64,
        set_maximum: bool,
        protection: VmProt,
    ) -> KernReturn {
        if protection.has_unknown() {
            return KernReturn::InvalidArgument;
        }
        let pages = match self.whole(task, address, size) {
            Ok(pages) => pages,
            Err(error) => return error,
        };
        let allowed = |page: &u64| self.page(task, *page).max_protection.contains(protection);
        if !pages.iter().all(allowed) {
            return KernReturn::ProtectionFailure;
        }
        for page in pages {
            let page = self.page_mut(task, page);
            if set_maximum {
                page.max_protection = protection;
                page.protection = page.protection & protection;
            } else {
                page.protection = protection;
            }
        }
        KernReturn::Success
    }

    /// The pages of a range without holes.
    fn whole(&self, task: usize, address: u64, size: u64) -> Result<Vec<u64>, KernReturn> {
        match self.allocated(task, address, size, self.tasks[task].address_end)? {
            (pages, true) => Ok(pages),
            (_, false) => Err(KernReturn::InvalidAddress),
        }
    }

    /// Wires or unwires.
    pub fn wire(&mut self, task: usize, address: u64, size: u64, wired: bool) -> KernReturn {
        match self.whole(task, address, size) {
            Err(error) => error,
            Ok(pages) => {
                for page in pages {
                    let page = self.page_mut(task, page);
                    page.wired = if wired {
                        page.wired + 1
                    } else {
                        page.wired.saturating_sub(1)
                    };
                }
                KernReturn::Success
            }
        }
    }

    /// `vm_behavior_set`, except DONTNEED and FREE.
    pub fn behavior_set(&mut self, task: usize, address: u64, size: u64, behavior: Behavior) -> KernReturn {
        let pages = match self.whole(task, address, size) {
            Ok(pages) => pages,
            Err(error) => return error,
        };
        match behavior {
            Behavior::Default | Behavior::Random | Behavior::Sequential => {
                for page in pages {
                    self.page_mut(task, page).behavior = behavior;
                }
            }
            Behavior::WillNeed => {}
            Behavior::Zero => {
                let writable = |page: &u64| self.page(task, *page).protection.contains(VmProt::WRITE);
                if !pages.iter().all(writable) {
                    return KernReturn::ProtectionFailure;
                }
                let zeroes = self.zeroes();
                for page in self.shrink(address, size) {
                    let page = self.page_mut(task, page);
                    page.bytes = zeroes.clone();
                    if is_writer(page.kind) {
                        page.dirty = true;
                        page.resident = true;
                    }
                }
            }
            Behavior::DontNeed | Behavior::Free => return KernReturn::InvalidArgument,
        }
        KernReturn::Success
    }

    /// `vm_region`: first and last page of the first region at or above `address`.
    pub fn region(&self, task: usize, address: u64) -> Option<(u64, u64)> {
        let pages = &self.tasks[task].pages;
        let wanted = usize::try_from(address / self.page_size.bytes()).ok()?;
        let found = (wanted..pages.len()).find(|page| pages[*page].kind != Kind::Hole)?;
        let mut first = found;
        while first > 0 && continues(&pages[first - 1], &pages[first]) {
            first -= 1;
        }
        let mut last = found;
        while last + 1 < pages.len() && continues(&pages[last], &pages[last + 1]) {
            last += 1;
        }
        Some((first as u64, last as u64))
    }

    /// Where ANYWHERE puts `size` bytes: the address and how large memory must be.
    pub fn place(&self, task: usize, size: u64, mask: u64) -> Result<(u64, u64), KernReturn> {
        let page = u128::from(self.page_size.bytes());
        let align = u128::from(mask) + 1;
        if !align.is_power_of_two() || align > u128::from(u64::MAX) {
            return Err(KernReturn::InvalidArgument);
        }
        let align = align.max(page);
        let count = u128::from(size).div_ceil(page);
        if count * page > u128::from(u64::MAX) {
            return Err(KernReturn::NoSpace);
        }
        let state = &self.tasks[task];
        let end = state.pages.len() as u128 * page;
        let is_hole = |at: u128| {
            let first = (at / page) as usize;
            at + count * page <= end
                && (first..first + count as usize).all(|page| state.pages[page].kind == Kind::Hole)
        };
        let mut at = 0;
        while at < end {
            if is_hole(at) {
                return Ok((at as u64, end as u64));
            }
            at += align;
        }
        let at = end.div_ceil(align) * align;
        if at + count * page > u128::from(state.address_end) {
            return Err(KernReturn::NoSpace);
        }
        Ok((at as u64, (at + count * page) as u64))
    }

    /// The task is over.
    pub fn terminate(&mut self, task: usize) {
        let all: Vec<u64> = (0..self.tasks[task].pages.len() as u64).collect();
        self.make_zero(task, &all, Kind::Hole);
        self.tasks[task].ports.clear();
    }
}

/// Whether two adjacent pages belong to one region.
fn continues(page: &ModelPage, next: &ModelPage) -> bool {
    let kinds = match (page.kind, next.kind) {
        (Kind::Hole, _) => false,
        (
            Kind::Object { object, page, share },
            Kind::Object {
                object: other,
                page: next,
                share: and,
            },
        ) => object == other && page + 1 == next && share == and,
        (kind, next) => kind == next,
    };
    let properties = |page: &ModelPage| {
        let protections = (page.protection, page.max_protection);
        (protections, page.inherit, page.behavior, page.wired)
    };
    kinds && properties(page) == properties(next)
}
