//! Regions of a task: laid, taken away, protected, described, wired.

use crate::{
    KernReturn,
    abi::{Behavior, Inherit, PORT_NULL, RegionInfo, VmFlags, VmProt, VmSync},
    map::{EntryBacking, Sharing, VmMapEntry},
    memory::TaskMemory,
    msync::{Cleaning, Msync, Segment},
    object::{MemoryObject, ObjectHandle},
    page::{ByteRange, PageRange},
    pager::CallId,
    task::{
        Task, shortage,
        source::{Claim, Source, place_object, unclaim},
    },
};

/// The arguments of `vm_map`.
#[derive(Clone, Copy, Debug)]
pub struct MapRequest {
    /// Where, in bytes; the result of [`Task::place`] for ANYWHERE.
    pub address: u64,
    /// In bytes; rounded up to pages.
    pub size: u64,
    /// FIXED may replace regions.
    pub overwrite: bool,
    /// The object's port, or null for anonymous memory.
    pub port: u32,
    /// Where in the object, in bytes; a multiple of the page size.
    pub offset: u64,
    /// Copy-on-write: stores stay private.
    pub copy: bool,
    /// The accesses allowed at first.
    pub protection: VmProt,
    /// The most that may be allowed.
    pub max_protection: VmProt,
    /// Kept for `vm_region`.
    pub inherit: Inherit,
}

impl MapRequest {
    /// The arguments of `vm_allocate`: anonymous memory, read and written.
    pub fn allocate(address: u64, size: u64) -> Self {
        Self {
            address,
            size,
            overwrite: false,
            port: PORT_NULL,
            offset: 0,
            copy: false,
            protection: VmProt::READ_WRITE,
            max_protection: VmProt::READ_WRITE,
            inherit: Inherit::default(),
        }
    }
}

/// Where an ANYWHERE mapping goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// In bytes.
    pub address: u64,
    /// Linear memory must be at least this large first, in bytes.
    pub memory_size: u64,
}

/// What `vm_region` finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// In bytes.
    pub range: ByteRange,
    /// Its properties.
    pub info: RegionInfo,
    /// The port of its object; null where it has none, or none any more.
    pub port: u32,
}

/// What `vm_deallocate` still has to do.
#[derive(Debug)]
pub struct Deallocation<O: ObjectHandle> {
    /// Returns the precious pages; to be driven before [`Task::finish_deallocate`].
    pub returns: Msync<O>,
    pages: PageRange,
}

/// What the arguments of a `vm_map` that may begin stand for.
struct Checked<O> {
    range: ByteRange,
    pages: PageRange,
    /// There are regions in the range.
    replaces: bool,
    source: Option<Source<O>>,
}

impl<O: ObjectHandle> Task<O> {
    /// Where ANYWHERE puts `size` bytes at a multiple of `mask + 1`: the lowest hole that does not begin below the address
    /// `lowest`, or behind linear memory.
    pub fn place(&self, size: u64, mask: u64, lowest: u64) -> Result<Placement, KernReturn> {
        let align = mask.checked_add(1).filter(|align| align.is_power_of_two());
        let align = align
            .ok_or(KernReturn::InvalidArgument)?
            .max(self.page_size.bytes());
        let size = self.page_size.round_up(size).ok_or(KernReturn::NoSpace)?;
        let lowest = self.page_size.round_up(lowest).ok_or(KernReturn::NoSpace)?;
        let bytes = |page| self.page_size.byte_range(PageRange::new(0, page)).end;
        let align_pages = self.page_size.page_of(align);
        let [pages, first] = [size, lowest].map(|bytes| self.page_size.page_of(bytes));
        if let Some(hole) = self.map.find_hole(pages, align_pages, first) {
            let memory_size = bytes(self.map.end());
            return Ok(Placement {
                address: bytes(hole.start),
                memory_size,
            });
        }
        let address = bytes(self.map.end())
            .max(lowest)
            .checked_next_multiple_of(align)
            .ok_or(KernReturn::NoSpace)?;
        let memory_size = address.checked_add(size).ok_or(KernReturn::NoSpace)?;
        if memory_size > self.address_end {
            Err(KernReturn::NoSpace)
        } else {
            Ok(Placement { address, memory_size })
        }
    }

    /// `vm_map`, and `vm_allocate` with a null port: lays a region over `[address, address + size)`.
    ///
    /// When the pager cannot supply the object or memory cannot be changed, the range is left as zero-filled memory;
    /// so is one whose regions were to be replaced, when another task writes the object. Every other error leaves
    /// everything as it was. What is replaced is forgotten: where precious pages may be among it, ask [`Task::check_map`] first,
    /// drive the returns of [`Task::deallocate`], and ask [`Task::check_returned`].
    pub fn map_region(
        &mut self,
        request: &MapRequest,
        memory: &mut dyn TaskMemory,
    ) -> Result<(), KernReturn> {
        let Checked {
            range,
            pages,
            replaces,
            source,
        } = self.checked(request, memory)?;
        // What is replaced may be this very object's region: it gives its pages up first.
        self.leave(pages);
        if replaces {
            // Also where the pager panics: what was given up is not given up once more.
            self.map.enter(VmMapEntry::anonymous(pages, false));
        }
        let writes = source.as_ref().filter(|source| source.sharing == Sharing::Writer);
        let claim = match writes.map(Claim::take) {
            Some(None) => {
                if replaces {
                    self.reset(pages, memory)?;
                }
                return Err(KernReturn::NoAccess);
            }
            Some(claim) => claim,
            None => None,
        };
        match self.place_region(request, range, source.as_ref(), memory) {
            Ok(backing) => {
                self.map.enter(VmMapEntry {
                    backing,
                    protection: request.protection,
                    max_protection: request.max_protection,
                    inherit: request.inherit,
                    ..VmMapEntry::anonymous(pages, true)
                });
                if let Some(claim) = claim {
                    claim.keep();
                }
                self.forget_closed();
                Ok(())
            }
            Err(error) => {
                drop(claim);
                self.reset(pages, memory)?;
                Err(error)
            }
        }
    }

    /// Whether [`Task::map_region`] would begin: to be asked before precious pages are returned for its sake.
    pub fn check_map(&self, request: &MapRequest, memory: &mut dyn TaskMemory) -> Result<(), KernReturn> {
        self.checked(request, memory).map(drop)
    }

    /// Everything that can be checked before anything changes.
    fn checked(&self, request: &MapRequest, memory: &mut dyn TaskMemory) -> Result<Checked<O>, KernReturn> {
        let range = self.region_range(request.address, request.size)?;
        let pages = self.page_size.shrink(range);
        self.make_room(memory)?;
        if request.protection.has_unknown() || request.max_protection.has_unknown() {
            return Err(KernReturn::InvalidArgument);
        }
        if !request.max_protection.contains(request.protection) {
            return Err(KernReturn::InvalidArgument);
        }
        let replaces = self.map.entries_in(pages).any(|entry| entry.is_region());
        if replaces && !request.overwrite {
            return Err(KernReturn::NoSpace);
        }
        let source = match request.port {
            PORT_NULL => None,
            _ => Some(self.check_source(request, range)?),
        };
        Ok(Checked {
            range,
            pages,
            replaces,
            source,
        })
    }

    /// Checks the object of a mapping, the part of it, and the right to map it so.
    fn check_source(&self, request: &MapRequest, range: ByteRange) -> Result<Source<O>, KernReturn> {
        let (object, rights) = self.object(request.port)?;
        let (size, gone) = object.with(|object| (object.attributes.size, object.destroyed().is_some()));
        if gone {
            return Err(KernReturn::MemoryFailure);
        }
        let bytes = ByteRange::at(request.offset, range.len()).ok_or(KernReturn::InvalidArgument)?;
        if bytes.end > size || !self.page_size.is_aligned(request.offset) {
            return Err(KernReturn::InvalidArgument);
        }
        let wants = if request.copy {
            VmProt::READ
        } else {
            request.max_protection
        };
        if !rights.contains(wants) {
            return Err(KernReturn::ProtectionFailure);
        }
        let sharing = match (request.copy, request.max_protection.contains(VmProt::WRITE)) {
            (true, _) => Sharing::Copy,
            (false, true) => Sharing::Writer,
            (false, false) => Sharing::Reader,
        };
        Ok(Source {
            object: object.clone(),
            pages: self.page_size.shrink(bytes),
            sharing,
        })
    }

    /// Puts what a new region shows into memory.
    fn place_region(
        &self,
        request: &MapRequest,
        range: ByteRange,
        source: Option<&Source<O>>,
        memory: &mut dyn TaskMemory,
    ) -> Result<EntryBacking<O>, KernReturn> {
        let backing = match source {
            None => {
                memory.map_zero(range, false).map_err(shortage)?;
                EntryBacking::Anonymous { region: true }
            }
            Some(source) => {
                let image = place_object(source, range, self.page_size, memory)?;
                EntryBacking::Object {
                    object: source.object.clone(),
                    first_page: source.pages.start,
                    sharing: source.sharing,
                    image,
                }
            }
        };
        memory.protect(range, request.protection).map_err(shortage)?;
        if let Some(source) = source.filter(|source| source.sharing == Sharing::Writer) {
            // Where its first byte lies, or would: what is remembered is the object's place, not the part's.
            let object = &source.object;
            if let Some(address) = range.start.checked_sub(request.offset) {
                object.pager().map(object.id(), address, request.protection);
            }
        }
        Ok(backing)
    }

    /// `vm_deallocate`, first half: what has to be returned before the range can become a hole.
    pub fn deallocate(
        &mut self,
        address: u64,
        size: u64,
        call: CallId,
        memory: &mut dyn TaskMemory,
    ) -> Result<Deallocation<O>, KernReturn> {
        let pages = self.sync_range(address, size, self.address_end)?;
        let pages = pages.intersect(PageRange::new(0, self.map.end()));
        if self.map.splits(pages) {
            self.make_room(memory)?;
        }
        let segments = self.segments(pages);
        let returns = Msync::new(
            call,
            self.page_size,
            Cleaning::UNMAP,
            segments,
            KernReturn::Success,
        );
        Ok(Deallocation { returns, pages })
    }

    /// Whether all of a range may go: each of its precious pages was returned, or its object is gone. Else the range is to stay, as
    /// it holds the only copy, and the guest gets the error.
    pub fn check_returned(&self, deallocation: &Deallocation<O>) -> Result<(), KernReturn> {
        let is_left = |segment: &Segment<O>| {
            let holds_any = |object: &mut MemoryObject| {
                object.destroyed().is_none() && !object.precious.within(segment.object_pages).is_empty()
            };
            segment.sharing == Sharing::Writer && segment.object.with(holds_any)
        };
        if !self.segments(deallocation.pages).iter().any(is_left) {
            return Ok(());
        }
        match deallocation.returns.answer() {
            // What it took it has lost since.
            KernReturn::Success => Err(KernReturn::Failure),
            error => Err(error),
        }
    }

    /// `vm_deallocate`, second half: the range becomes a hole; or stays as it is, see [`Task::check_returned`].
    pub fn finish_deallocate(
        &mut self,
        deallocation: &Deallocation<O>,
        memory: &mut dyn TaskMemory,
    ) -> Result<(), KernReturn> {
        let pages = deallocation.pages;
        if pages.is_empty() {
            return Ok(());
        }
        self.check_returned(deallocation)?;
        self.leave(pages);
        self.map.remove(pages);
        self.forget_closed();
        memory.unmap(self.page_size.byte_range(pages)).map_err(shortage)
    }

    /// `vm_protect`. Lowering the maximum lowers the current protection with it. `RESOURCE_SHORTAGE` from the memory
    /// may leave pages with more access than was asked for; what [`Task::region`] says is what was asked for.
    pub fn protect(
        &mut self,
        address: u64,
        size: u64,
        set_maximum: bool,
        protection: VmProt,
        memory: &mut dyn TaskMemory,
    ) -> Result<(), KernReturn> {
        if protection.has_unknown() {
            return Err(KernReturn::InvalidArgument);
        }
        let pages = self.sync_range(address, size, self.address_end)?;
        if !self.map.covers(pages) {
            return Err(KernReturn::InvalidAddress);
        }
        self.make_room(memory)?;
        if self
            .map
            .entries_in(pages)
            .any(|entry| !entry.max_protection.contains(protection))
        {
            return Err(KernReturn::ProtectionFailure);
        }
        let page_size = self.page_size;
        let mut result = Ok(());
        self.map.update(pages, |entry| {
            if set_maximum {
                entry.max_protection = protection;
                entry.protection = entry.protection & protection;
            } else {
                entry.protection = protection;
            }
            let set = memory.protect(page_size.byte_range(entry.pages), entry.protection);
            result = result.and(set.map_err(shortage));
        });
        result
    }

    /// `vm_region`: the first region at or above `address`. Of one that is as long as there are addresses, which the guest's words
    /// cannot say, the last page is left out.
    pub fn region(&self, address: u64) -> Result<Region, KernReturn> {
        let entry = self
            .map
            .first_at_or_above(self.page_size.page_of(address))
            .ok_or(KernReturn::InvalidAddress)?;
        let (offset, shared, port) = match &entry.backing {
            EntryBacking::Anonymous { .. } => (0, false, None),
            EntryBacking::Object {
                first_page,
                sharing,
                object,
                ..
            } => {
                let first = PageRange::new(*first_page, *first_page);
                let offset = self.page_size.byte_range(first).start;
                (offset, *sharing != Sharing::Copy, self.port_of(object))
            }
        };
        let info = RegionInfo {
            protection: entry.protection.0,
            max_protection: entry.max_protection.0,
            inheritance: entry.inherit as i32,
            shared: shared.into(),
            offset,
            behavior: entry.behavior as i32,
            user_wired_count: entry.wired,
        };
        let mut range = self.page_size.byte_range(entry.pages);
        if range.len() >= self.address_end {
            range.end -= self.page_size.bytes();
        }
        Ok(Region {
            range,
            info,
            port: port.unwrap_or(PORT_NULL),
        })
    }

    /// `vm_behavior_set`, except DONTNEED and FREE, which are [`Task::msync`] with the words of [`behavior_flags`].
    pub fn behavior_set(
        &mut self,
        address: u64,
        size: u64,
        behavior: Behavior,
        memory: &mut dyn TaskMemory,
    ) -> Result<(), KernReturn> {
        let widened = self.sync_range(address, size, self.address_end)?;
        if !self.map.covers(widened) {
            return Err(KernReturn::InvalidAddress);
        }
        let page_size = self.page_size;
        match behavior {
            Behavior::Default | Behavior::Random | Behavior::Sequential => {
                self.make_room(memory)?;
                self.map.update(widened, |entry| entry.behavior = behavior);
            }
            Behavior::WillNeed => memory.will_need(page_size.byte_range(widened)),
            Behavior::Zero => {
                let range = ByteRange::at(address, size).ok_or(KernReturn::InvalidAddress)?;
                if self
                    .map
                    .entries_in(widened)
                    .any(|entry| !entry.protection.contains(VmProt::WRITE))
                {
                    return Err(KernReturn::ProtectionFailure);
                }
                self.zero(page_size.shrink(range), memory)?;
            }
            Behavior::DontNeed | Behavior::Free => return Err(KernReturn::InvalidArgument),
        }
        Ok(())
    }

    /// Wires or unwires whole pages: wired pages are never dropped.
    pub fn wire(&mut self, address: u64, size: u64, wired: bool) -> Result<(), KernReturn> {
        let pages = self.sync_range(address, size, self.address_end)?;
        if !self.map.covers(pages) {
            return Err(KernReturn::InvalidAddress);
        }
        self.map.has_room()?;
        self.map.update(pages, |entry| {
            entry.wired = if wired {
                entry.wired.saturating_add(1)
            } else {
                entry.wired.saturating_sub(1)
            };
        });
        Ok(())
    }

    /// The bytes of a region to be made: it must lie in linear memory.
    fn region_range(&self, address: u64, size: u64) -> Result<ByteRange, KernReturn> {
        if size == 0 || !self.page_size.is_aligned(address) {
            return Err(KernReturn::InvalidArgument);
        }
        let size = self.page_size.round_up(size).ok_or(KernReturn::InvalidAddress)?;
        let range = ByteRange::at(address, size).ok_or(KernReturn::InvalidAddress)?;
        if self.page_size.page_of(range.end) > self.map.end() {
            return Err(KernReturn::InvalidAddress);
        }
        Ok(range)
    }

    /// Puts zero-filled memory in the place of anonymous memory; what may be done with it stays.
    pub(super) fn replace(
        &self,
        entry: &VmMapEntry<O>,
        memory: &mut dyn TaskMemory,
    ) -> Result<(), KernReturn> {
        let range = self.page_size.byte_range(entry.pages);
        memory.map_zero(range, false).map_err(shortage)?;
        memory.protect(range, entry.protection).map_err(shortage)
    }

    /// Stores zeroes, as the guest would: an object's pages become dirty. Anonymous memory is replaced, which costs the
    /// same for a page as for a terabyte.
    fn zero(&mut self, pages: PageRange, memory: &mut dyn TaskMemory) -> Result<(), KernReturn> {
        let page_size = self.page_size;
        let zeroes = alloc::vec![0; usize::try_from(page_size.bytes()).unwrap_or(0)];
        for entry in self.map.entries_in(pages) {
            let EntryBacking::Object {
                object,
                first_page,
                sharing,
                ..
            } = &entry.backing
            else {
                self.replace(&entry, memory)?;
                continue;
            };
            if *sharing == Sharing::Writer {
                let object_pages = entry.pages.rebase(entry.pages.start, *first_page);
                object.with(|object| object.stored.insert(object_pages));
            }
            for page in entry.pages.start..entry.pages.end {
                let offset = page_size.byte_range(PageRange::new(page, page)).start;
                memory.fill(offset, &zeroes).map_err(shortage)?;
            }
        }
        Ok(())
    }

    /// Makes `pages` ordinary zero-filled linear memory.
    fn reset(&mut self, pages: PageRange, memory: &mut dyn TaskMemory) -> Result<(), KernReturn> {
        self.map.enter(VmMapEntry::anonymous(pages, false));
        memory
            .map_zero(self.page_size.byte_range(pages), false)
            .map_err(shortage)
    }

    /// Ends the writer's claims on objects inside `pages`; what was not committed is forgotten.
    pub(super) fn leave(&mut self, pages: PageRange) {
        for segment in self.segments(pages) {
            if segment.sharing == Sharing::Writer {
                unclaim(&segment.object, segment.object_pages);
            }
        }
    }
}

/// The flags of the `vm_msync` that a behavior stands for; `None` for those of [`Task::behavior_set`].
pub fn behavior_flags(behavior: Behavior) -> Option<VmSync> {
    match behavior {
        Behavior::DontNeed => Some(VmSync::DEACTIVATE | VmSync::CONTIGUOUS),
        Behavior::Free => Some(VmSync::KILLPAGES | VmSync::CONTIGUOUS),
        _ => None,
    }
}

/// Flags of `vm_allocate` and `vm_map` that have no meaning here.
///
/// # Errors
/// `INVALID_ARGUMENT` for unknown bits, `NOT_SUPPORTED` for PURGABLE.
pub fn check_placement_flags(flags: VmFlags) -> Result<(), KernReturn> {
    if flags.has_unknown() {
        return Err(KernReturn::InvalidArgument);
    }
    if flags.contains(VmFlags::PURGABLE) {
        return Err(KernReturn::NotSupported);
    }
    Ok(())
}
