//! The oracle: the contract once more, page by page and without any thought of speed.
//!
//! Tests run the same calls against [`Model`] and against the implementation and compare what both answer, what
//! memory holds, what the pagers hold and which pages are dirty. It shares no code with the implementation but the
//! newtypes of pages, flags and errors.
//!
//! ```text
//!   Model -- tasks ---> ModelTask -- pages --> ModelPage   what one page of linear memory is
//!     |  '-- objects -> ModelObject -- pages of bytes: accepted, durable
//!     '-- faults        what the pagers refuse, until it is changed
//! ```
//!
//! What it assumes of a pager: a call's pages are accepted when the call is answered and durable when the call was
//! synchronous, together with all that was accepted of its objects before; a page that was given away as precious
//! reads as [`LOST`] until it comes back.
//!
//! Not in the model: limits on the number of entries and ports, two calls at one time, stores during a call.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    vec,
    vec::Vec,
};

use crate::{
    KernReturn, PagerErrorKind,
    abi::{Behavior, Inherit, PORT_NULL, VmProt, VmSync},
    page::PageSize,
    pager::{LockRequest, ReturnPages},
    task::MapRequest,
};

/// What is read of a page whose only copy was given away.
pub const LOST: u8 = 0xee;

/// The bytes of one page.
pub type Bytes = Arc<Vec<u8>>;

/// The predicted answer of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What the guest sees.
    pub result: KernReturn,
    /// The pages that were handed to pagers, accepted or not, in this order.
    pub returned: Vec<ReturnedPage>,
}

/// One page that goes back to its pager.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReturnedPage {
    /// Index of the object.
    pub object: usize,
    /// Page of the object.
    pub page: u64,
    /// Returned as dirty.
    pub dirty: bool,
}

/// What pagers refuse, by index of object or pager.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// A `data_return` of this page of an object.
    pub returns: BTreeMap<(usize, u64), PagerErrorKind>,
    /// A `data_request` of this page of an object.
    pub supplies: BTreeMap<(usize, u64), PagerErrorKind>,
    /// The last `synchronize` of a call to this pager.
    pub synchronizes: BTreeMap<usize, PagerErrorKind>,
    /// Completions of this pager carry the error.
    pub completions: BTreeMap<usize, PagerErrorKind>,
    /// These pagers do not answer; the host gives up waiting.
    pub hangs: BTreeSet<usize>,
}

/// How stores to a page relate to the object behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// They belong to the object.
    Writer,
    /// There are none.
    Reader,
    /// They are private.
    Copy,
}

/// What a page of linear memory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Not allocated.
    Hole,
    /// Linear memory as the engine made it.
    Memory,
    /// An anonymous region.
    Anonymous,
    /// A page of an object.
    Object {
        /// Index of the object.
        object: usize,
        /// Its page.
        page: u64,
        /// What stores mean.
        share: Share,
    },
}

/// One page of linear memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelPage {
    /// What it is.
    pub kind: Kind,
    /// What it holds; nothing is said of holes.
    pub bytes: Bytes,
    /// The accesses allowed now.
    pub protection: VmProt,
    /// The most that may be allowed.
    pub max_protection: VmProt,
    /// Kept for `vm_region`.
    pub inherit: Inherit,
    /// The last advice.
    pub behavior: Behavior,
    /// How often it is wired.
    pub wired: u32,
    /// It differs, or may, from what its pager has.
    pub dirty: bool,
    /// Its pager has no copy.
    pub precious: bool,
    /// Memory holds it, not the pager's image.
    pub resident: bool,
}

/// An object that a task has open.
#[derive(Clone, Debug)]
struct ModelPort {
    object: usize,
    rights: VmProt,
    closed: bool,
    pending: Option<KernReturn>,
}

/// A task.
#[derive(Clone, Debug)]
pub struct ModelTask {
    /// Its linear memory.
    pub pages: Vec<ModelPage>,
    address_end: u64,
    ports: BTreeMap<u32, ModelPort>,
}

/// A memory object and its pager's copies.
#[derive(Clone, Debug)]
pub struct ModelObject {
    /// Index of its pager.
    pub pager: usize,
    /// What `data_request` supplies.
    pub accepted: Vec<Bytes>,
    /// What a crash leaves.
    pub durable: Vec<Bytes>,
    /// The pager gives its only copy to writers.
    pub moves: bool,
    /// Memory maps the pager's image.
    pub image: bool,
    /// Pages of which the pager has no copy.
    given_away: BTreeSet<u64>,
    /// Pages for which the pager owes an answer that nobody waits for.
    owed: BTreeSet<u64>,
    gone: bool,
    error: Option<KernReturn>,
    error_seen: bool,
}

/// What a call that was not answered has returned to one pager.
#[derive(Clone, Debug)]
struct Held {
    pager: usize,
    returns: Vec<(usize, u64, Bytes)>,
    asked: Vec<(usize, Vec<u64>)>,
    synchronous: bool,
}

/// Everything.
#[derive(Clone, Debug)]
pub struct Model {
    page_size: PageSize,
    /// The tasks.
    pub tasks: Vec<ModelTask>,
    /// The objects, in the order of their numbers.
    pub objects: Vec<ModelObject>,
    /// What goes wrong.
    pub faults: Faults,
    held: Vec<Held>,
}

/// Which pages a call drops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Drops {
    Nothing,
    Clean,
    All,
    Unmapped,
}

/// What a call does to pages.
#[derive(Clone, Copy, Debug)]
struct Effect {
    returns_dirty: bool,
    returns_precious: bool,
    returns_resident: bool,
    drops: Drops,
    /// The pager is asked even if nothing is returned.
    asks: bool,
    synchronous: bool,
}

const EVICT: Effect = Effect {
    returns_dirty: false,
    returns_precious: false,
    returns_resident: false,
    drops: Drops::Clean,
    asks: false,
    synchronous: true,
};

/// A run of one object's pages in a task's memory: what one `synchronize` covers.
#[derive(Clone, Debug)]
struct Run {
    object: usize,
    writer: bool,
    wired: bool,
    /// Pages of linear memory, ascending.
    pages: Vec<u64>,
    error: Option<PagerErrorKind>,
    supply_error: Option<PagerErrorKind>,
    returned: Vec<u64>,
    dropped: Vec<u64>,
}

impl Model {
    /// A world without tasks and objects.
    pub fn new(page_size: PageSize) -> Self {
        Self {
            page_size,
            tasks: Vec::new(),
            objects: Vec::new(),
            faults: Faults::default(),
            held: Vec::new(),
        }
    }

    /// A task with `pages` pages of linear memory, whose addresses end at `address_end`. Returns its index.
    pub fn add_task(&mut self, pages: u64, address_end: u64) -> usize {
        let memory = (0..pages).map(|_| self.zero_page(Kind::Memory)).collect();
        self.tasks.push(ModelTask {
            pages: memory,
            address_end,
            ports: BTreeMap::new(),
        });
        self.tasks.len() - 1
    }

    /// An object of `pages` zero pages. Returns its index.
    pub fn add_object(&mut self, pager: usize, pages: u64, moves: bool, image: bool) -> usize {
        let zeroes: Vec<Bytes> = (0..pages).map(|_| self.zeroes()).collect();
        self.objects.push(ModelObject {
            pager,
            accepted: zeroes.clone(),
            durable: zeroes,
            moves,
            image,
            given_away: BTreeSet::new(),
            owed: BTreeSet::new(),
            gone: false,
            error: None,
            error_seen: false,
        });
        self.objects.len() - 1
    }

    fn zeroes(&self) -> Bytes {
        self.full(0)
    }

    fn full(&self, byte: u8) -> Bytes {
        Arc::new(vec![byte; self.page_size.bytes() as usize])
    }

    fn zero_page(&self, kind: Kind) -> ModelPage {
        ModelPage {
            kind,
            bytes: self.zeroes(),
            protection: VmProt::READ_WRITE,
            max_protection: VmProt::READ_WRITE,
            inherit: Inherit::default(),
            behavior: Behavior::Default,
            wired: 0,
            dirty: false,
            precious: false,
            resident: true,
        }
    }

    fn page(&self, task: usize, page: u64) -> &ModelPage {
        &self.tasks[task].pages[page as usize]
    }

    fn page_mut(&mut self, task: usize, page: u64) -> &mut ModelPage {
        &mut self.tasks[task].pages[page as usize]
    }

    // --- the guest -------------------------------------------------------------------------------------------

    /// Linear memory grows to `pages` pages.
    pub fn grow(&mut self, task: usize, pages: u64) {
        while (self.tasks[task].pages.len() as u64) < pages {
            let page = self.zero_page(Kind::Memory);
            self.tasks[task].pages.push(page);
        }
    }

    /// The guest stores; `false` where that traps, and then nothing is stored.
    pub fn store(&mut self, task: usize, address: u64, bytes: &[u8]) -> bool {
        let size = self.page_size.bytes();
        let end = self.tasks[task].pages.len() as u64 * size;
        if address
            .checked_add(bytes.len() as u64)
            .is_none_or(|behind| behind > end)
        {
            return false;
        }
        let allowed = (address..address + bytes.len() as u64).all(|at| {
            let page = self.page(task, at / size);
            page.kind != Kind::Hole && page.protection.contains(VmProt::WRITE)
        });
        if !allowed {
            return false;
        }
        for (at, byte) in (address..).zip(bytes) {
            let page = self.page_mut(task, at / size);
            Arc::make_mut(&mut page.bytes)[(at % size) as usize] = *byte;
            if is_writer(page.kind) {
                page.dirty = true;
                page.resident = true;
            }
        }
        true
    }

    // --- ports -----------------------------------------------------------------------------------------------

    /// The task gets `port` for an object.
    pub fn open(&mut self, task: usize, port: u32, object: usize, rights: VmProt) {
        let state = &self.objects[object];
        let pending = if state.error_seen { None } else { state.error };
        self.tasks[task].ports.insert(
            port,
            ModelPort {
                object,
                rights,
                closed: false,
                pending,
            },
        );
    }

    /// The task gives `port` back.
    pub fn close(&mut self, task: usize, port: u32) -> KernReturn {
        match self.tasks[task].ports.get_mut(&port) {
            Some(open) if !open.closed => open.closed = true,
            _ => return KernReturn::InvalidObject,
        }
        self.forget_closed(task);
        KernReturn::Success
    }

    /// A closed port lives on as long as its object is mapped, for the sake of errors that are to be told.
    fn forget_closed(&mut self, task: usize) {
        let task = &mut self.tasks[task];
        let mapped: BTreeSet<usize> = task
            .pages
            .iter()
            .filter_map(|page| match page.kind {
                Kind::Object { object, .. } => Some(object),
                _ => None,
            })
            .collect();
        task.ports
            .retain(|_, port| !port.closed || mapped.contains(&port.object));
    }

    // --- the map ---------------------------------------------------------------------------------------------

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
    fn allocated(
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
    fn shrink(&self, address: u64, size: u64) -> Vec<u64> {
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

    fn supply_fault(&self, object: usize, pages: &[u64]) -> Option<PagerErrorKind> {
        pages
            .iter()
            .find_map(|page| self.faults.supplies.get(&(object, *page)).copied())
    }

    /// One page of an object as its pager supplies it now.
    fn fetch(&mut self, task: usize, address: u64) {
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

    /// `vm_deallocate`: precious pages are returned, whether that works or not the range becomes a hole.
    pub fn deallocate(&mut self, task: usize, address: u64, size: u64) -> Outcome {
        let (pages, _) = match self.allocated(task, address, size, self.tasks[task].address_end) {
            Ok(found) => found,
            Err(error) => return refused(error),
        };
        let effect = Effect {
            drops: Drops::Unmapped,
            ..EVICT
        };
        let runs = self.runs(task, &pages);
        let (_, returned) = self.clean(task, runs, effect);
        self.make_zero(task, &pages, Kind::Hole);
        self.forget_closed(task);
        Outcome {
            result: KernReturn::Success,
            returned,
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

    // --- vm_msync and its kin --------------------------------------------------------------------------------

    /// `vm_msync`; `word_end` is one behind the highest address that the call's words can hold.
    pub fn msync(&mut self, task: usize, address: u64, size: u64, flags: VmSync, word_end: u64) -> Outcome {
        let both = VmSync::ASYNCHRONOUS | VmSync::SYNCHRONOUS;
        if flags.has_unknown() || flags.contains(both) {
            return refused(KernReturn::InvalidArgument);
        }
        if size == 0 {
            return refused(KernReturn::Success);
        }
        let (pages, whole) = match self.allocated(task, address, size, word_end) {
            Ok(found) => found,
            Err(error) => return refused(error),
        };
        if pages.is_empty() {
            return refused(KernReturn::InvalidAddress);
        }
        let good = if !whole && flags.contains(VmSync::CONTIGUOUS) {
            KernReturn::InvalidAddress
        } else {
            KernReturn::Success
        };
        if flags.contains(VmSync::KILLPAGES) {
            self.kill(task, address, size);
            return refused(good);
        }
        let asks = flags.intersects(both);
        let invalidate = flags.contains(VmSync::INVALIDATE);
        if !asks && !invalidate {
            return refused(good);
        }
        let effect = Effect {
            returns_dirty: asks,
            returns_precious: asks,
            returns_resident: false,
            drops: if invalidate { Drops::All } else { Drops::Nothing },
            asks,
            synchronous: !flags.contains(VmSync::ASYNCHRONOUS),
        };
        let runs = self.runs(task, &pages);
        let objects: BTreeSet<usize> = runs.iter().map(|run| run.object).collect();
        let order: Vec<usize> = runs.iter().map(|run| run.object).collect();
        let (error, returned) = self.clean(task, runs, effect);
        let mut result = error.unwrap_or(good);
        if asks {
            let told = self.tell(task, &objects, &order);
            if error.is_none() {
                result = told.unwrap_or(result);
            }
        }
        Outcome { result, returned }
    }

    /// Earlier errors of asynchronous calls that the task has not been told of: the first in address order.
    fn tell(&mut self, task: usize, objects: &BTreeSet<usize>, order: &[usize]) -> Option<KernReturn> {
        let mut told = BTreeMap::new();
        for port in self.tasks[task].ports.values_mut() {
            if objects.contains(&port.object)
                && let Some(error) = port.pending.take()
            {
                self.objects[port.object].error_seen = true;
                told.entry(port.object).or_insert(error);
            }
        }
        order.iter().find_map(|object| told.get(object).copied())
    }

    /// KILLPAGES: up to the first hole, anonymous memory that is not wired reads as zero.
    fn kill(&mut self, task: usize, address: u64, size: u64) {
        let zeroes = self.zeroes();
        for page in self.shrink(address, size) {
            if page as usize >= self.tasks[task].pages.len() || self.page(task, page).kind == Kind::Hole {
                return;
            }
            let page = self.page_mut(task, page);
            if matches!(page.kind, Kind::Memory | Kind::Anonymous) && page.wired == 0 {
                page.bytes = zeroes.clone();
            }
        }
    }

    /// Memory is given up.
    pub fn evict(&mut self, task: usize, address: u64, size: u64) -> Outcome {
        let (pages, _) = match self.allocated(task, address, size, self.tasks[task].address_end) {
            Ok(found) => found,
            Err(error) => return refused(error),
        };
        let runs = self.runs(task, &pages);
        let (error, returned) = self.clean(task, runs, EVICT);
        Outcome {
            result: error.unwrap_or(KernReturn::Success),
            returned,
        }
    }

    /// A pager's request over what `task` writes of `object`.
    pub fn lock_request(&mut self, task: usize, object: usize, request: &LockRequest) -> Outcome {
        let first = request.range.start / self.page_size.bytes();
        let behind = request.range.end.div_ceil(self.page_size.bytes());
        let all = 0..self.tasks[task].pages.len() as u64;
        let wanted: Vec<u64> = all
            .filter(|address| {
                matches!(self.page(task, *address).kind, Kind::Object { object: other, page, share: Share::Writer }
                    if other == object && page >= first && page < behind)
            })
            .collect();
        if let Some(prohibit) = request.prohibit {
            for page in &wanted {
                let page = self.page_mut(task, *page);
                page.protection = page.protection.without(prohibit);
            }
        }
        let which = request.should_return;
        let effect = Effect {
            returns_dirty: which != ReturnPages::None,
            returns_precious: matches!(which, ReturnPages::All | ReturnPages::Anything),
            returns_resident: which == ReturnPages::Anything,
            drops: if request.flush { Drops::All } else { Drops::Nothing },
            asks: false,
            synchronous: true,
        };
        let runs = self.runs(task, &wanted);
        let (error, returned) = self.clean(task, runs, effect);
        Outcome {
            result: error.unwrap_or(KernReturn::Success),
            returned,
        }
    }

    /// The runs of objects' pages among `pages`, which are ascending.
    fn runs(&self, task: usize, pages: &[u64]) -> Vec<Run> {
        let mut runs: Vec<Run> = Vec::new();
        let mut previous: Option<(u64, Kind, bool)> = None;
        for address in pages {
            let page = self.page(task, *address);
            let Kind::Object {
                object,
                page: number,
                share,
            } = page.kind
            else {
                continue;
            };
            if share == Share::Copy {
                continue;
            }
            let before = number
                .checked_sub(1)
                .map(|page| Kind::Object { object, page, share });
            let goes_on = previous.is_some_and(|(last, kind, wired)| {
                last + 1 == *address && Some(kind) == before && wired == (page.wired > 0)
            });
            previous = Some((*address, page.kind, page.wired > 0));
            match runs.last_mut() {
                Some(run) if goes_on => run.pages.push(*address),
                _ => runs.push(Run {
                    object,
                    writer: share == Share::Writer,
                    wired: page.wired > 0,
                    pages: vec![*address],
                    error: None,
                    supply_error: None,
                    returned: Vec::new(),
                    dropped: Vec::new(),
                }),
            }
        }
        runs
    }

    fn object_page(&self, task: usize, address: u64) -> u64 {
        match self.page(task, address).kind {
            Kind::Object { page, .. } => page,
            _ => u64::MAX,
        }
    }

    /// Returns, waits, drops. The error that the caller sees, and what was returned.
    fn clean(
        &mut self,
        task: usize,
        mut runs: Vec<Run>,
        effect: Effect,
    ) -> (Option<KernReturn>, Vec<ReturnedPage>) {
        if self.is_blocked(task, &mut runs) {
            return (
                runs.iter()
                    .find_map(|run| run.error)
                    .map(PagerErrorKind::write_back),
                Vec::new(),
            );
        }
        let returned = self.return_pages(task, &mut runs, effect);
        self.spread(&mut runs);
        let pagers: BTreeSet<usize> = runs.iter().map(|run| self.objects[run.object].pager).collect();
        for pager in pagers {
            self.ask(task, pager, &mut runs, effect);
        }
        self.spread(&mut runs);
        if !effect.synchronous {
            for run in &runs {
                if let Some(kind) = run.error {
                    self.record(run.object, kind.write_back());
                }
            }
        }
        for run in runs.iter_mut().filter(|run| run.error.is_none()) {
            self.drop_pages(task, run, effect);
        }
        let write_back = runs
            .iter()
            .find_map(|run| run.error)
            .map(PagerErrorKind::write_back);
        let supply = runs
            .iter()
            .find_map(|run| run.supply_error)
            .map(PagerErrorKind::supply);
        (write_back.or(supply), returned)
    }

    /// Marks runs of objects that are gone. Whether the call waits in vain for a pager's answer to an earlier one.
    fn is_blocked(&self, task: usize, runs: &mut [Run]) -> bool {
        let mut order: Vec<usize> = (0..runs.len()).collect();
        order.sort_by_key(|index| (runs[*index].object, self.object_page(task, runs[*index].pages[0])));
        for index in order {
            let run = &mut runs[index];
            let object = &self.objects[run.object];
            let owed = |page: &u64| object.owed.contains(&self.object_page(task, *page));
            if object.gone {
                run.error = Some(PagerErrorKind::Gone);
            } else if run.writer && run.pages.iter().any(owed) {
                for run in runs.iter_mut() {
                    run.error.get_or_insert(PagerErrorKind::TimedOut);
                }
                return true;
            }
        }
        false
    }

    /// Decides about each page, and hands over what is to be returned.
    fn return_pages(&self, task: usize, runs: &mut [Run], effect: Effect) -> Vec<ReturnedPage> {
        let mut all = Vec::new();
        for run in runs.iter_mut().filter(|run| run.writer && run.error.is_none()) {
            for address in run.pages.clone() {
                let page = self.page(task, address);
                let number = self.object_page(task, address);
                let dropped = match effect.drops {
                    Drops::Nothing => false,
                    Drops::Clean => page.wired == 0 && !page.dirty,
                    Drops::All => page.wired == 0,
                    Drops::Unmapped => true,
                };
                let returned = (page.dirty && effect.returns_dirty)
                    || (page.precious && (effect.returns_precious || dropped))
                    || ((page.resident || page.dirty) && effect.returns_resident);
                if dropped {
                    run.dropped.push(address);
                }
                if !returned {
                    continue;
                }
                run.returned.push(address);
                all.push(ReturnedPage {
                    object: run.object,
                    page: number,
                    dirty: page.dirty,
                });
                if let Some(kind) = self.faults.returns.get(&(run.object, number)) {
                    run.error.get_or_insert(*kind);
                }
            }
        }
        all
    }

    /// What fails for one run fails for every run that goes to the same pager.
    fn spread(&self, runs: &mut [Run]) {
        let mut first = BTreeMap::new();
        for run in runs.iter() {
            if let Some(kind) = run.error {
                first.entry(self.objects[run.object].pager).or_insert(kind);
            }
        }
        for run in runs.iter_mut().filter(|run| run.writer) {
            if let Some(kind) = first.get(&self.objects[run.object].pager) {
                run.error.get_or_insert(*kind);
            }
        }
    }

    /// One pager is asked to commit what it was given.
    fn ask(&mut self, task: usize, pager: usize, runs: &mut [Run], effect: Effect) {
        let mut asked: Vec<&mut Run> = runs
            .iter_mut()
            .filter(|run| self.objects[run.object].pager == pager && run.writer && run.error.is_none())
            .filter(|run| effect.asks || !run.returned.is_empty())
            .collect();
        if asked.is_empty() {
            return;
        }
        let fault = self.faults.synchronizes.get(&pager).copied();
        let hangs = self.faults.hangs.contains(&pager);
        let failure = fault.or(if hangs {
            Some(PagerErrorKind::TimedOut)
        } else {
            self.faults.completions.get(&pager).copied()
        });
        for run in &mut asked {
            run.error = failure;
        }
        let bytes_of = |address: &u64| self.page(task, *address).bytes.clone();
        let numbers = |pages: &[u64]| -> Vec<u64> {
            pages
                .iter()
                .map(|address| self.object_page(task, *address))
                .collect()
        };
        let mut held = Held {
            pager,
            returns: Vec::new(),
            asked: Vec::new(),
            synchronous: effect.synchronous,
        };
        for run in &asked {
            held.asked.push((run.object, numbers(&run.pages)));
            let pages = numbers(&run.returned)
                .into_iter()
                .zip(run.returned.iter().map(bytes_of));
            held.returns
                .extend(pages.map(|(page, bytes)| (run.object, page, bytes)));
        }
        if fault.is_none() && hangs {
            for (object, pages) in &held.asked {
                self.objects[*object].owed.extend(pages);
            }
            self.held.push(held);
        } else if failure.is_none() {
            self.commit(&held);
        }
    }

    fn commit(&mut self, held: &Held) {
        for (object, page, bytes) in &held.returns {
            let object = &mut self.objects[*object];
            object.accepted[*page as usize] = bytes.clone();
            object.given_away.remove(page);
        }
        if held.synchronous {
            for (object, _) in &held.asked {
                let object = &mut self.objects[*object];
                object.durable.clone_from(&object.accepted);
            }
        }
    }

    /// What was returned is clean; what is dropped shows the pager's copy.
    fn drop_pages(&mut self, task: usize, run: &mut Run, effect: Effect) {
        for address in &run.returned {
            self.page_mut(task, *address).dirty = false;
        }
        if effect.drops == Drops::Nothing || effect.drops == Drops::Unmapped {
            return;
        }
        if !run.writer && !run.wired {
            run.dropped.clone_from(&run.pages);
        }
        let mut rest = &run.dropped[..];
        while let Some(first) = rest.first() {
            let length = (*first..)
                .zip(rest)
                .take_while(|(page, other)| page == *other)
                .count();
            let (together, others) = rest.split_at(length);
            rest = others;
            let wanted: Vec<u64> = together
                .iter()
                .map(|page| self.object_page(task, *page))
                .collect();
            if let Some(kind) = self.supply_fault(run.object, &wanted) {
                run.supply_error.get_or_insert(kind);
                continue;
            }
            for address in together {
                self.fetch(task, *address);
            }
        }
    }

    /// An error that every task of the object is to be told once.
    fn record(&mut self, object: usize, error: KernReturn) {
        self.objects[object].error = Some(error);
        self.objects[object].error_seen = false;
        for task in &mut self.tasks {
            for port in task.ports.values_mut().filter(|port| port.object == object) {
                port.pending = Some(error);
            }
        }
    }

    // --- pagers and the machine ------------------------------------------------------------------------------

    /// What is accepted becomes durable.
    pub fn flush_queue(&mut self, pager: usize) {
        for object in self.objects.iter_mut().filter(|object| object.pager == pager) {
            object.durable.clone_from(&object.accepted);
        }
    }

    /// What is accepted and not durable is lost: it is dirty again where someone still writes it.
    pub fn fail_queue(&mut self, object: usize, kind: PagerErrorKind) {
        let state = &mut self.objects[object];
        let pairs = (0..).zip(state.accepted.iter().zip(&state.durable));
        let lost: BTreeSet<u64> = pairs
            .filter(|(_, (accepted, durable))| accepted != durable)
            .map(|(page, _)| page)
            .collect();
        state.accepted.clone_from(&state.durable);
        if lost.is_empty() {
            return;
        }
        for page in self.tasks.iter_mut().flat_map(|task| &mut task.pages) {
            if let Kind::Object {
                object: other,
                page: number,
                share: Share::Writer,
            } = page.kind
                && other == object
                && lost.contains(&number)
            {
                page.dirty = true;
            }
        }
        self.record(object, kind.write_back());
    }

    /// A pager that hung answers what it was asked, and everything from now on.
    pub fn answer_late(&mut self, pager: usize) {
        self.faults.hangs.remove(&pager);
        let (answered, rest) = core::mem::take(&mut self.held)
            .into_iter()
            .partition(|held| held.pager == pager);
        self.held = rest;
        let answered: Vec<Held> = answered;
        for held in answered {
            if !self.faults.completions.contains_key(&pager) {
                self.commit(&held);
            }
            for (object, pages) in &held.asked {
                for page in pages {
                    self.objects[*object].owed.remove(page);
                }
            }
        }
    }

    /// The object is gone for good.
    pub fn destroy(&mut self, object: usize) {
        self.objects[object].gone = true;
        self.objects[object].owed.clear();
    }

    /// The pager changes a page behind everybody's back.
    pub fn overwrite(&mut self, object: usize, page: u64, byte: u8) {
        let bytes = self.full(byte);
        self.objects[object].accepted[page as usize] = bytes.clone();
        self.objects[object].durable[page as usize] = bytes;
    }

    /// The machine stops: tasks are gone, objects are as durable, and pagers work again.
    pub fn crash(&mut self) {
        self.tasks.clear();
        self.held.clear();
        self.faults = Faults::default();
        for object in &mut self.objects {
            object.accepted.clone_from(&object.durable);
            object.given_away.clear();
            object.owed.clear();
            object.gone = false;
            object.error = None;
            object.error_seen = false;
        }
    }
}

/// No test's memory has more pages; a range may.
const MODEL_PAGES_MAX: usize = 1 << 12;

fn is_writer(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Object {
            share: Share::Writer,
            ..
        }
    )
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

fn refused(result: KernReturn) -> Outcome {
    Outcome {
        result,
        returned: Vec::new(),
    }
}
