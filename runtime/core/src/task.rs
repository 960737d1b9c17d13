//! [`Task`]: a guest's address space, its ports, and every call of the contract except the waiting.
//!
//! A host keeps one `Task` per instance and calls it with the instance's [`TaskMemory`]. Calls that need no pager to
//! commit answer at once; `vm_msync`, `vm_deallocate` and a pager's `lock_request` answer with an [`Msync`] for the
//! host to drive, and [`Task::conclude`] then turns its result into what the guest sees.
//!
//! Invariants:
//! - arguments are the guest's: each is checked before anything changes;
//! - a call that fails has changed nothing, unless it says so;
//! - while an [`Msync`] waits, the host lets nothing map over or take away its range: a guest has one thread.

use alloc::vec::Vec;

use indexmap::IndexMap;
use rustc_hash::FxBuildHasher;

use crate::{
    KernReturn, PagerError,
    abi::{
        Behavior, Inherit, ObjectInfo, ObjectInfoFlags, OpenFlags, PORT_NULL, RegionInfo, TASK_SELF, VmFlags,
        VmProt, VmSync,
    },
    limits::OPEN_OBJECTS_MAX,
    map::{EntryBacking, Sharing, VmMap, VmMapEntry},
    memory::{MemoryError, TaskMemory},
    msync::{Cleaning, Msync, Segment},
    object::{ErrorCursor, ObjectHandle},
    page::{ByteRange, PageRange, PageSize},
    pager::{CallId, LockRequest},
    supply::{Before, Place, supply},
};

/// The first port that names an object; smaller ones are tasks.
const FIRST_OBJECT_PORT: u32 = 0x100;

/// An object that the task has open.
#[derive(Debug)]
struct OpenObject<O> {
    object: O,
    rights: VmProt,
    errors: ErrorCursor,
    /// The guest gave the port back; it stays for the sake of its mappings' errors.
    closed: bool,
}

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

/// The part of an object that a new region shows.
struct Source<O> {
    object: O,
    pages: PageRange,
    sharing: Sharing,
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

/// A guest's address space and ports.
#[derive(Debug)]
pub struct Task<O> {
    page_size: PageSize,
    /// One behind the highest address, in bytes: 2^32 for a 32-bit memory.
    address_end: u64,
    map: VmMap<O>,
    objects: IndexMap<u32, OpenObject<O>, FxBuildHasher>,
    next_port: u32,
    alive: bool,
}

impl<O: ObjectHandle> Task<O> {
    /// A task whose addresses end at `address_end` bytes (`u64::MAX` for a 64-bit memory).
    pub fn new(page_size: PageSize, address_end: u64) -> Self {
        Self {
            page_size,
            address_end,
            map: VmMap::new(),
            objects: IndexMap::with_hasher(FxBuildHasher),
            next_port: FIRST_OBJECT_PORT,
            alive: true,
        }
    }

    /// Its page size.
    pub fn page_size(&self) -> PageSize {
        self.page_size
    }

    /// Its map.
    pub fn map(&self) -> &VmMap<O> {
        &self.map
    }

    /// Tells the task how large linear memory is now. To be called before every other call, because a guest grows
    /// its memory without asking.
    pub fn observe_size(&mut self, bytes: u64) {
        self.map.extend(self.page_size.page_of(bytes));
    }

    /// Whether `port` names this task.
    pub fn check_task(&self, port: u32) -> Result<(), KernReturn> {
        if self.alive && port == TASK_SELF {
            Ok(())
        } else {
            Err(KernReturn::InvalidTask)
        }
    }

    /// The task is over: its claims and ports are given back, and every later call answers `INVALID_TASK`. What was
    /// not committed is forgotten.
    pub fn terminate(&mut self) {
        self.alive = false;
        let everything = PageRange::new(0, self.map.end());
        self.leave(everything);
        self.map.remove(everything);
        self.objects.clear();
    }

    // --- objects ---------------------------------------------------------------------------------------------

    /// Gives the task a port for `object`.
    pub fn open_object(&mut self, object: O, rights: OpenFlags) -> Result<u32, KernReturn> {
        if self.objects.len() >= OPEN_OBJECTS_MAX || self.next_port == u32::MAX {
            return Err(KernReturn::ResourceShortage);
        }
        let port = self.next_port;
        self.next_port += 1;
        let errors = object.with(|object| object.errors.sample());
        let rights = VmProt(rights.0) & VmProt::READ_WRITE;
        self.objects.insert(
            port,
            OpenObject {
                object,
                rights,
                errors,
                closed: false,
            },
        );
        Ok(port)
    }

    /// The object and rights behind `port`.
    pub fn object(&self, port: u32) -> Result<(&O, VmProt), KernReturn> {
        let open = self
            .objects
            .get(&port)
            .filter(|open| !open.closed)
            .ok_or(KernReturn::InvalidObject)?;
        Ok((&open.object, open.rights))
    }

    /// `memory_object_info`: what the object's pager says of it now.
    pub fn object_info(&self, port: u32) -> Result<ObjectInfo, KernReturn> {
        let (object, rights) = self.object(port)?;
        if let Some(reason) = object.with(|object| object.destroyed().cloned()) {
            return Err(reason.kind.supply());
        }
        let attributes = object.pager().attributes(object.id());
        let attributes = attributes.map_err(|error| error.kind.supply())?;
        object.with(|object| object.attributes = attributes);
        let mut flags = 0;
        if attributes.precious {
            flags |= ObjectInfoFlags::PRECIOUS.0;
        }
        if rights.contains(VmProt::WRITE) {
            flags |= ObjectInfoFlags::WRITABLE.0;
        }
        Ok(ObjectInfo {
            size: attributes.size,
            version: attributes.version,
            address: attributes.address.unwrap_or(0),
            page_size: u32::try_from(self.page_size.bytes()).unwrap_or(u32::MAX),
            flags,
        })
    }

    /// Gives a port back. Mappings of the object stay.
    pub fn close_object(&mut self, port: u32) -> Result<(), KernReturn> {
        self.object(port)?;
        if let Some(open) = self.objects.get_mut(&port) {
            open.closed = true;
        }
        self.forget_closed();
        Ok(())
    }

    /// Lets go of closed ports whose object is no longer mapped.
    fn forget_closed(&mut self) {
        let map = &self.map;
        let maps = |object: &O| {
            map.entries().any(|entry| {
                matches!(&entry.backing, EntryBacking::Object { object: other, .. } if other == object)
            })
        };
        self.objects.retain(|_, open| !open.closed || maps(&open.object));
    }

    /// The objects that regions show, each once.
    pub fn mapped_objects(&self) -> Vec<O> {
        let mut objects: Vec<O> = Vec::new();
        for entry in self.map.entries() {
            if let EntryBacking::Object { object, .. } = &entry.backing
                && !objects.contains(object)
            {
                objects.push(object.clone());
            }
        }
        objects
    }

    /// A port of the task for `object`.
    pub fn port_of(&self, object: &O) -> Option<u32> {
        self.objects
            .iter()
            .find(|(_, open)| !open.closed && open.object == *object)
            .map(|(port, _)| *port)
    }

    /// Whether the task may access every byte of the range.
    pub fn check_access(&self, address: u64, size: u64, access: VmProt) -> Result<(), KernReturn> {
        let pages = self.sync_range(address, size, self.address_end)?;
        if !self.map.covers(pages) {
            return Err(KernReturn::InvalidAddress);
        }
        if self
            .map
            .entries_in(pages)
            .any(|entry| !entry.protection.contains(access))
        {
            return Err(KernReturn::ProtectionFailure);
        }
        Ok(())
    }

    /// Host code has stored to the range: its pages are dirty, whether or not the tracker saw it.
    pub fn note_store(&mut self, range: ByteRange) {
        let Some(pages) = self.page_size.widen(range) else {
            return;
        };
        for segment in self.segments(pages) {
            if segment.sharing == Sharing::Writer {
                segment
                    .object
                    .with(|object| object.stored.insert(segment.object_pages));
            }
        }
    }

    // --- address space ---------------------------------------------------------------------------------------

    /// Where ANYWHERE puts `size` bytes at a multiple of `mask + 1`: the lowest hole, or behind linear memory.
    pub fn place(&self, size: u64, mask: u64) -> Result<Placement, KernReturn> {
        let align = mask.checked_add(1).filter(|align| align.is_power_of_two());
        let align = align
            .ok_or(KernReturn::InvalidArgument)?
            .max(self.page_size.bytes());
        let size = self.page_size.round_up(size).ok_or(KernReturn::NoSpace)?;
        let bytes = |page| self.page_size.byte_range(PageRange::new(0, page)).end;
        let align_pages = self.page_size.page_of(align);
        if let Some(hole) = self.map.find_hole(self.page_size.page_of(size), align_pages) {
            let memory_size = bytes(self.map.end());
            return Ok(Placement {
                address: bytes(hole.start),
                memory_size,
            });
        }
        let address = bytes(self.map.end())
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
    /// everything as it was. What is replaced is forgotten as [`Task::finish_deallocate`] does: drive the returns of
    /// [`Task::deallocate`] first where precious pages may be among it.
    pub fn map_region(
        &mut self,
        request: &MapRequest,
        memory: &mut dyn TaskMemory,
    ) -> Result<(), KernReturn> {
        let range = self.region_range(request.address, request.size)?;
        let pages = self.page_size.shrink(range);
        self.map.has_room()?;
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
        // What is replaced may be this very object's region: it gives its pages up first.
        self.leave(pages);
        if let Some(source) = &source
            && source.sharing == Sharing::Writer
            && !claim(&source.object, source.pages)
        {
            if replaces {
                self.reset(pages, memory)?;
            }
            return Err(KernReturn::NoAccess);
        }
        match self.place_region(request, range, source.as_ref(), memory) {
            Ok(backing) => {
                self.map.enter(VmMapEntry {
                    backing,
                    protection: request.protection,
                    max_protection: request.max_protection,
                    inherit: request.inherit,
                    ..VmMapEntry::anonymous(pages, true)
                });
                self.forget_closed();
                Ok(())
            }
            Err(error) => {
                if let Some(source) = source.filter(|source| source.sharing == Sharing::Writer) {
                    unclaim(&source.object, source.pages);
                }
                self.reset(pages, memory)?;
                Err(error)
            }
        }
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
    ) -> Result<Deallocation<O>, KernReturn> {
        let pages = self.sync_range(address, size, self.address_end)?;
        let pages = pages.intersect(PageRange::new(0, self.map.end()));
        self.map.has_room_for_hole(pages)?;
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

    /// `vm_deallocate`, second half: the range becomes a hole. `memory` of what was returned is gone already.
    pub fn finish_deallocate(
        &mut self,
        deallocation: &Deallocation<O>,
        memory: &mut dyn TaskMemory,
    ) -> Result<(), KernReturn> {
        let pages = deallocation.pages;
        if pages.is_empty() {
            return Ok(());
        }
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
        self.map.has_room()?;
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

    /// `vm_region`: the first region at or above `address`.
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
        Ok(Region {
            range: self.page_size.byte_range(entry.pages),
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
                self.map.has_room()?;
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

    // --- vm_msync --------------------------------------------------------------------------------------------

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
        let entries: Vec<_> = self.map.entries_in(pages).collect();
        let covered: u64 = entries.iter().map(|entry| entry.pages.len()).sum();
        if covered == 0 {
            return Err(KernReturn::InvalidAddress);
        }
        if flags.contains(VmSync::KILLPAGES) {
            let range = ByteRange::at(address, size).ok_or(KernReturn::InvalidAddress)?;
            self.kill(self.page_size.shrink(range), memory)?;
        }
        if flags.contains(VmSync::DEACTIVATE) {
            for entry in &entries {
                memory.deactivate(self.page_size.byte_range(entry.pages));
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
    /// error of its own stands for the earlier ones too, as that of `fsync` does: the pages of all of them are dirty.
    pub fn conclude(&mut self, msync: &Msync<O>, result: KernReturn) -> KernReturn {
        let mut earlier = None;
        for object in msync.objects() {
            for open in self.objects.values_mut().filter(|open| open.object == *object) {
                let error = open.object.with(|object| object.errors.check(&mut open.errors));
                earlier = earlier.or(error);
            }
        }
        match (result, earlier) {
            (KernReturn::Success | KernReturn::InvalidAddress, Some(error)) => error,
            _ => result,
        }
    }

    /// Carries out a pager's request over the pages of `object` that this task writes.
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
                self.map.has_room()?;
                let pages = part.rebase(part.start, segment.address_page);
                let page_size = self.page_size;
                let mut result = Ok(());
                self.map.update(pages, |entry| {
                    entry.protection = entry.protection.without(prohibit);
                    let set = memory.protect(page_size.byte_range(entry.pages), entry.protection);
                    result = result.and(set.map_err(shortage));
                });
                result?;
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

    // --- parts -----------------------------------------------------------------------------------------------

    /// The pages that hold a byte of the range; none for size 0.
    fn sync_range(&self, address: u64, size: u64, word_end: u64) -> Result<PageRange, KernReturn> {
        if size == 0 {
            let page = self.page_size.page_of(address);
            return Ok(PageRange::new(page, page));
        }
        let range = ByteRange::at(address, size).ok_or(KernReturn::InvalidAddress)?;
        let pages = self.page_size.widen(range).ok_or(KernReturn::InvalidAddress)?;
        // In a word of 32 bits the rounded end 2^32 is 0, in one of 64 bits `widen` has refused it.
        if self.page_size.byte_range(pages).end >= word_end && word_end != u64::MAX {
            let last_page_of_memory = word_end == self.address_end && pages.end == self.map.end();
            if !last_page_of_memory || range.end > word_end {
                return Err(KernReturn::InvalidAddress);
            }
        }
        Ok(pages)
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

    /// The runs of objects' pages inside `pages`, in address order.
    fn segments(&self, pages: PageRange) -> Vec<Segment<O>> {
        let mut segments: Vec<Segment<O>> = Vec::new();
        for entry in self.map.entries_in(pages) {
            let EntryBacking::Object {
                object,
                first_page,
                sharing,
                image,
            } = entry.backing
            else {
                continue;
            };
            if sharing == Sharing::Copy {
                continue;
            }
            let segment = Segment {
                object,
                object_pages: entry.pages.rebase(entry.pages.start, first_page),
                address_page: entry.pages.start,
                sharing,
                wired: entry.wired > 0,
                image,
            };
            if !segments.last_mut().is_some_and(|last| last.absorb(&segment)) {
                segments.push(segment);
            }
        }
        segments
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

    /// Puts zero-filled memory in the place of anonymous memory; what may be done with it stays.
    fn replace(&self, entry: &VmMapEntry<O>, memory: &mut dyn TaskMemory) -> Result<(), KernReturn> {
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
    fn leave(&mut self, pages: PageRange) {
        for segment in self.segments(pages) {
            if segment.sharing == Sharing::Writer {
                unclaim(&segment.object, segment.object_pages);
            }
        }
    }
}

/// Takes `pages` of the object for writing; one task writes a page at a time.
fn claim<O: ObjectHandle>(object: &O, pages: PageRange) -> bool {
    object.with(|object| {
        let free = !object.written_by.iter().any(|other| other.overlaps(pages));
        if free {
            object.written_by.push(pages);
        }
        free
    })
}

/// Gives `pages` of the object back.
fn unclaim<O: ObjectHandle>(object: &O, pages: PageRange) {
    object.with(|object| {
        let mut rest: Vec<PageRange> = Vec::new();
        for claim in object.written_by.drain(..) {
            let mut left = crate::PageSet::from(claim);
            left.remove(pages);
            rest.extend(left.runs());
        }
        object.written_by = rest;
        object.dirty.remove(pages);
        object.stored.remove(pages);
        object.precious.remove(pages);
        object.resident.remove(pages);
    });
}

/// Puts an object's pages into memory; says whether they are its mapped image.
fn place_object<O: ObjectHandle>(
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
    let mut precious = crate::PageSet::new();
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

/// The memory could not be changed: the operating system's limits, as a rule.
fn shortage(_: MemoryError) -> KernReturn {
    KernReturn::ResourceShortage
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
