//! [`Task`]: a guest's address space, its ports, and every call of the contract except the waiting.
//!
//! ```text
//!   Task: ports of objects --- regions.rs   vm_map, vm_deallocate, vm_protect, vm_region, vm_behavior_set
//!                         |--- source.rs    what a region shows of an object, and who writes it
//!                         '--- sync.rs      vm_msync, lock_request, eviction
//! ```
//!
//! A host keeps one `Task` per instance and calls it with the instance's [`TaskMemory`].
//! Calls that need no pager to commit answer at once; `vm_msync`, `vm_deallocate` and a pager's `lock_request` answer
//! with an [`Msync`](crate::msync::Msync) for the host to drive, and [`Task::conclude`] then turns its result into what
//! the guest sees.
//!
//! Invariants:
//! - arguments are the guest's: each is checked before anything changes;
//! - a call that fails has changed nothing, unless it says so;
//! - while an `Msync` waits, the host lets nothing map over or take away its range: a guest has one thread.

mod regions;
mod source;
mod sync;

use alloc::vec::Vec;

use indexmap::IndexMap;
use rustc_hash::FxBuildHasher;

pub use self::regions::{Deallocation, MapRequest, Placement, Region, behavior_flags, check_placement_flags};
use crate::{
    KernReturn,
    abi::{ObjectInfo, ObjectInfoFlags, OpenFlags, TASK_SELF, VmProt},
    limits::OPEN_OBJECTS_MAX,
    map::{EntryBacking, Sharing, VmMap},
    memory::{MemoryError, TaskMemory},
    msync::Segment,
    object::{ErrorCursor, ObjectHandle},
    page::{ByteRange, PageRange, PageSize},
    page_set::PageSet,
    pager::LockRequest,
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

    /// Whether the task has a port left: to be asked before a pager is asked to open, or make, an object.
    pub fn has_port(&self) -> Result<(), KernReturn> {
        if self.objects.len() >= OPEN_OBJECTS_MAX || self.next_port == u32::MAX {
            Err(KernReturn::ResourceShortage)
        } else {
            Ok(())
        }
    }

    /// Gives the task a port for `object`.
    pub fn open_object(&mut self, object: O, rights: OpenFlags) -> Result<u32, KernReturn> {
        self.has_port()?;
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
        // A growth may have come first.
        object.with(|object| object.change_attributes(attributes));
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

    /// Gives a port back. Mappings of the object stay; what was not read of its errors is left to another port of it.
    pub fn close_object(&mut self, port: u32) -> Result<(), KernReturn> {
        self.object(port)?;
        let Some(mut open) = self.objects.shift_remove(&port) else {
            return Err(KernReturn::InvalidObject);
        };
        let other = self
            .objects
            .values_mut()
            .find(|other| other.object == open.object);
        if let Some(other) = other {
            other.errors = other.errors.behind(open.errors);
        } else {
            open.closed = true;
            self.objects.insert(port, open);
            self.forget_closed();
        }
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

    /// What a pager has asked for of an object's pages that the task writes: others are left to who writes them.
    pub fn next_lock_request(&self) -> Option<(O, LockRequest)> {
        let mut last = None;
        self.written().find_map(|(object, _)| {
            // Regions of one object lie side by side, as a rule.
            if last.replace(object) == Some(object) || !object.with(|object| object.has_lock_requests()) {
                return None;
            }
            let mut mine = PageSet::new();
            for (_, pages) in self.written().filter(|(other, _)| *other == object) {
                mine.insert(pages);
            }
            let request = object.with(|object| object.next_lock_request(&mine))?;
            Some((object.clone(), request))
        })
    }

    /// The objects' pages that the task writes, in address order.
    fn written(&self) -> impl Iterator<Item = (&O, PageRange)> {
        self.map.entries().filter_map(|entry| match &entry.backing {
            EntryBacking::Object {
                object,
                first_page,
                sharing: Sharing::Writer,
                ..
            } => Some((object, entry.pages.rebase(entry.pages.start, *first_page))),
            _ => None,
        })
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
            .overlapping(pages)
            .any(|(entry, _)| !entry.protection.contains(access))
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

    /// Makes room for one more entry of the map.
    fn make_room(&self, memory: &mut dyn TaskMemory) -> Result<(), KernReturn> {
        self.map.has_room()?;
        memory.make_room(self.map.entry_count()).map_err(shortage)
    }

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

    /// The runs of objects' pages inside `pages`, in address order.
    fn segments(&self, pages: PageRange) -> Vec<Segment<O>> {
        let mut segments: Vec<Segment<O>> = Vec::new();
        for (entry, pages) in self.map.overlapping(pages) {
            let EntryBacking::Object {
                object,
                first_page,
                sharing,
                image,
            } = &entry.backing
            else {
                continue;
            };
            if *sharing == Sharing::Copy {
                continue;
            }
            let segment = Segment {
                object: object.clone(),
                object_pages: pages.rebase(entry.pages.start, *first_page),
                address_page: pages.start,
                sharing: *sharing,
                wired: entry.wired > 0,
                image: *image,
            };
            if !segments.last_mut().is_some_and(|last| last.absorb(&segment)) {
                segments.push(segment);
            }
        }
        segments
    }
}

/// The memory could not be changed: the operating system's limits, as a rule.
fn shortage(_: MemoryError) -> KernReturn {
    KernReturn::ResourceShortage
}
