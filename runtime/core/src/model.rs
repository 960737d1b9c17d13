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
//! Not in the model: limits on the number of entries and ports, stores of a task during its own call.

mod map;
mod msync;

use alloc::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    vec,
    vec::Vec,
};

use crate::{
    KernReturn, PagerErrorKind,
    abi::{Behavior, Inherit, VmProt},
    model::msync::Call,
    page::PageSize,
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
    /// The task whose call waits for the answer.
    waiter: Option<usize>,
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
    /// Calls that have begun, by task.
    calls: BTreeMap<usize, Call>,
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
            calls: BTreeMap::new(),
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
        self.make_dirty(object, &lost);
        self.lose_under_way(object, &lost);
        self.record(object, kind.write_back());
    }

    /// Pages are dirty again where someone still writes them.
    fn make_dirty(&mut self, object: usize, lost: &BTreeSet<u64>) {
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
            let error = self.faults.completions.get(&pager).copied();
            if error.is_none() {
                self.commit(&held);
            }
            if let Some(task) = held.waiter {
                let objects = held.asked.iter().map(|(object, _)| *object).collect();
                self.answer(task, &objects, error);
            }
            for (object, pages) in &held.asked {
                if error.is_some() && held.waiter.is_none() {
                    self.make_dirty(*object, &pages.iter().copied().collect());
                }
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
        let tasks: Vec<usize> = self.calls.keys().copied().collect();
        for task in tasks {
            self.answer(task, &BTreeSet::from([object]), Some(PagerErrorKind::Gone));
        }
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
        self.calls.clear();
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

fn refused(result: KernReturn) -> Outcome {
    Outcome {
        result,
        returned: Vec::new(),
    }
}
