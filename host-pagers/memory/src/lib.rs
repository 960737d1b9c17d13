//! An ephemeral pager: objects live in the memory of the host and end with it.
//!
//! It sits beside the durable pagers and answers the same protocol (`vmsync_core::pager`), so that tests and scratch
//! objects need no disk. It is also the smallest complete pager to read before writing one.
//!
//! ```text
//!   MemoryPager -- Mutex --> State -- by name --> Stored { pages }      what is committed
//!                              |  --- by id ----> Opened { name, control }
//!                              '  --- by call --> Call { returns, held synchronizes }
//! ```
//!
//! Invariants:
//! - what a call returned stays with its call until its last `synchronize`, then moves over at once;
//! - completions are sent while no lock is held;
//! - one opener at a time writes an object;
//! - a page that is not stored reads as zero.
//!
//! Non-goals: durability, limits of its own (the runtime's quotas apply before it is called).
#![forbid(unsafe_code)]

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use vmsync_core::{
    ByteRange, PageSize, PagerError, PagerErrorKind,
    abi::VmProt,
    pager::{
        Attributes, CallId, DataSupply, InitRequest, MemoryObjectControl, ObjectId, ObjectName, Pager,
        ReturnFlags, SynchronizeFlags,
    },
};

/// What happens to the pager's copy of a page when it supplies it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Supply {
    /// It stays.
    #[default]
    Copy,
    /// It goes to whoever writes: the supplied page is precious, and until it comes back the pager has none. Whoever only
    /// reads gives none back, and gets a copy.
    Move,
}

/// How a [`MemoryPager`] behaves.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// What a supplied page leaves behind.
    pub supply: Supply,
}

/// A pager that keeps objects in memory.
#[derive(Default)]
pub struct MemoryPager {
    options: Options,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    stored: BTreeMap<ObjectName, Stored>,
    opened: HashMap<ObjectId, Opened>,
    calls: HashMap<CallId, Call>,
    commits: u64,
}

struct Stored {
    page_size: PageSize,
    size: u64,
    version: u64,
    address: Option<u64>,
    pages: BTreeMap<u64, Box<[u8]>>,
}

struct Opened {
    name: ObjectName,
    write: bool,
    control: Arc<dyn MemoryObjectControl>,
    address: Option<u64>,
}

/// What one call has sent so far.
#[derive(Default)]
struct Call {
    returns: Vec<Return>,
    held: Vec<Completion>,
}

struct Return {
    object: ObjectId,
    name: ObjectName,
    page: u64,
    bytes: Box<[u8]>,
}

struct Completion {
    control: Arc<dyn MemoryObjectControl>,
    range: ByteRange,
}

impl MemoryPager {
    /// A pager without objects.
    pub fn new(options: Options) -> Self {
        Self {
            options,
            state: Mutex::default(),
        }
    }

    /// The committed bytes of `name`, `None` where no such object was created.
    pub fn contents(&self, name: &ObjectName) -> Option<Vec<u8>> {
        let state = self.lock();
        let stored = state.stored.get(name)?;
        let mut bytes = vec![0; usize::try_from(stored.size).ok()?];
        stored.read(0, &mut bytes);
        Some(bytes)
    }

    /// Writes behind the back of whoever has `name` open, as another writer of the same storage would. Bytes outside
    /// the object are dropped.
    pub fn overwrite(&self, name: &ObjectName, offset: u64, bytes: &[u8]) {
        let mut state = self.lock();
        let Some(stored) = state.stored.get_mut(name) else {
            return;
        };
        for (position, byte) in (offset..stored.size).zip(bytes) {
            let (page_size, page) = (stored.page_size, stored.page_size.page_of(position));
            let within = to_usize(position - page_size.round_down(position));
            stored.pages.entry(page).or_insert_with(|| zeroes(page_size))[within] = *byte;
        }
    }

    /// A panic of another thread cannot leave the state half changed: nothing here panics between two changes that
    /// belong together.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn opened(&self, object: ObjectId) -> Result<&Opened, PagerError> {
        self.opened.get(&object).ok_or_else(|| {
            PagerError::new(
                PagerErrorKind::Invalid,
                format!("object {} is not open here", object.0),
            )
        })
    }

    /// The stored object behind an open one, if `offset` and `length` are whole pages of it.
    fn checked(&self, object: ObjectId, offset: u64, length: u64) -> Result<(&Opened, &Stored), PagerError> {
        let opened = self.opened(object)?;
        let stored = self.stored.get(&opened.name).expect("an open object is stored");
        let aligned = stored.page_size.is_aligned(offset) && stored.page_size.is_aligned(length);
        if !aligned || offset.checked_add(length).is_none_or(|end| end > stored.size) {
            return Err(PagerError::new(
                PagerErrorKind::Invalid,
                format!(
                    "{length} bytes at {offset} are not whole pages of {} bytes inside \"{}\" of {} bytes",
                    stored.page_size.bytes(),
                    opened.name,
                    stored.size
                ),
            ));
        }
        Ok((opened, stored))
    }

    /// Moves what `call` returned over to the objects.
    fn commit(&mut self, call: &mut Call) {
        if call.returns.is_empty() {
            return;
        }
        self.commits += 1;
        for Return {
            object,
            name,
            page,
            bytes,
        } in call.returns.drain(..)
        {
            let stored = self.stored.get_mut(&name).expect("objects are never removed");
            if let Some(address) = self.opened.get(&object).and_then(|opened| opened.address) {
                stored.address = Some(address);
            }
            stored.version = self.commits;
            stored.pages.insert(page, bytes);
        }
    }
}

impl Stored {
    fn new(page_size: PageSize) -> Self {
        Self {
            page_size,
            size: 0,
            version: 0,
            address: None,
            pages: BTreeMap::new(),
        }
    }

    fn attributes(&self, options: Options) -> Attributes {
        Attributes {
            size: self.size,
            version: self.version,
            precious: options.supply == Supply::Move,
            address: self.address,
        }
    }

    /// Fills `buffer` from `offset` on, both whole pages; where no page is stored, leaves it alone and says so.
    fn read(&self, offset: u64, buffer: &mut [u8]) -> bool {
        let first = self.page_size.page_of(offset);
        let behind = first + self.page_size.page_of(buffer.len() as u64);
        if self.pages.range(first..behind).next().is_none() {
            return false;
        }
        for (page, target) in (first..).zip(buffer.chunks_mut(to_usize(self.page_size.bytes()))) {
            match self.pages.get(&page) {
                Some(bytes) => target.copy_from_slice(bytes),
                None => target.fill(0),
            }
        }
        true
    }
}

impl Pager for MemoryPager {
    fn init(
        &self,
        object: ObjectId,
        name: &ObjectName,
        request: InitRequest,
        control: Arc<dyn MemoryObjectControl>,
    ) -> Result<Attributes, PagerError> {
        let refuse = |kind, message| Err(PagerError::new(kind, message));
        let mut state = self.lock();
        let state = &mut *state;
        if state.opened.contains_key(&object) {
            return refuse(
                PagerErrorKind::Invalid,
                format!("object {} is open already", object.0),
            );
        }
        if !request.page_size.is_aligned(request.size_min) {
            return refuse(
                PagerErrorKind::Invalid,
                format!(
                    "size {} is not a multiple of the page size {}",
                    request.size_min,
                    request.page_size.bytes()
                ),
            );
        }
        if request.write
            && state
                .opened
                .values()
                .any(|opened| opened.write && opened.name == *name)
        {
            return refuse(
                PagerErrorKind::Busy,
                format!("\"{name}\" has a writer: close it there"),
            );
        }
        if !state.stored.contains_key(name) {
            if !request.create {
                return refuse(
                    PagerErrorKind::NotFound,
                    format!("no object \"{name}\": ask for it to be created"),
                );
            }
            state.stored.insert(name.clone(), Stored::new(request.page_size));
        }
        let stored = state.stored.get_mut(name).expect("found or inserted above");
        if stored.page_size != request.page_size {
            return refuse(
                PagerErrorKind::Invalid,
                format!(
                    "\"{name}\" has pages of {} bytes, not {}",
                    stored.page_size.bytes(),
                    request.page_size.bytes()
                ),
            );
        }
        stored.size = stored.size.max(request.size_min);
        let attributes = stored.attributes(self.options);
        let opened = Opened {
            name: name.clone(),
            write: request.write,
            control,
            address: None,
        };
        state.opened.insert(object, opened);
        Ok(attributes)
    }

    fn data_request(
        &self,
        object: ObjectId,
        offset: u64,
        access: VmProt,
        pages: &mut [u8],
    ) -> Result<DataSupply, PagerError> {
        let mut state = self.lock();
        let (opened, stored) = state.checked(object, offset, pages.len() as u64)?;
        if !stored.read(offset, pages) {
            return Ok(DataSupply::Unavailable);
        }
        let precious = self.options.supply == Supply::Move && access.contains(VmProt::WRITE);
        if precious {
            let (name, page_size) = (opened.name.clone(), stored.page_size);
            let stored = state.stored.get_mut(&name).expect("checked above");
            let first = page_size.page_of(offset);
            for page in first..first + page_size.page_of(pages.len() as u64) {
                stored.pages.remove(&page);
            }
        }
        Ok(DataSupply::Supplied { precious })
    }

    fn data_return(
        &self,
        call: CallId,
        object: ObjectId,
        offset: u64,
        pages: &[u8],
        _flags: ReturnFlags,
    ) -> Result<(), PagerError> {
        let mut state = self.lock();
        let (opened, stored) = state.checked(object, offset, pages.len() as u64)?;
        if !opened.write {
            return Err(PagerError::new(
                PagerErrorKind::Denied,
                format!("\"{}\" was opened for reading: open it for writing", opened.name),
            ));
        }
        let (name, page_size) = (opened.name.clone(), stored.page_size);
        let returns = &mut state.calls.entry(call).or_default().returns;
        let first = page_size.page_of(offset);
        for (page, bytes) in (first..).zip(pages.chunks_exact(to_usize(page_size.bytes()))) {
            returns.push(Return {
                object,
                name: name.clone(),
                page,
                bytes: bytes.into(),
            });
        }
        Ok(())
    }

    fn synchronize(
        &self,
        call: CallId,
        object: ObjectId,
        range: ByteRange,
        flags: SynchronizeFlags,
    ) -> Result<(), PagerError> {
        let held = {
            let mut state = self.lock();
            let control = state.checked(object, range.start, range.len())?.0.control.clone();
            let entry = state.calls.entry(call).or_default();
            entry.held.push(Completion { control, range });
            if flags.more {
                return Ok(());
            }
            let mut entry = state.calls.remove(&call).expect("inserted above");
            state.commit(&mut entry);
            entry.held
        };
        for Completion { control, range } in held {
            // A refusal means that the runtime gave the request up (a time-out); the commit stands.
            let _ = control.synchronize_completed(range, Ok(()));
        }
        Ok(())
    }

    fn abort(&self, call: CallId) {
        self.lock().calls.remove(&call);
    }

    fn map(&self, object: ObjectId, address: u64, _access: VmProt) {
        if let Some(opened) = self.lock().opened.get_mut(&object) {
            opened.address = Some(address);
        }
    }

    fn terminate(&self, object: ObjectId) {
        self.lock().opened.remove(&object);
    }

    fn grow(&self, object: ObjectId, size: u64) -> Result<Attributes, PagerError> {
        let mut state = self.lock();
        let opened = state.opened(object)?;
        let (name, write) = (opened.name.clone(), opened.write);
        if !write {
            let message = format!("\"{name}\" was opened for reading: open it for writing");
            return Err(PagerError::new(PagerErrorKind::Denied, message));
        }
        let stored = state.stored.get_mut(&name).expect("an open object is stored");
        if !stored.page_size.is_aligned(size) {
            let message = format!(
                "size {size} is not a multiple of the page size {}",
                stored.page_size.bytes()
            );
            return Err(PagerError::new(PagerErrorKind::Invalid, message));
        }
        stored.size = stored.size.max(size);
        Ok(stored.attributes(self.options))
    }

    fn attributes(&self, object: ObjectId) -> Result<Attributes, PagerError> {
        let state = self.lock();
        Ok(state.checked(object, 0, 0)?.1.attributes(self.options))
    }
}

fn zeroes(page_size: PageSize) -> Box<[u8]> {
    vec![0; to_usize(page_size.bytes())].into()
}

/// For lengths of buffers in memory, which fit by their nature.
fn to_usize(length: u64) -> usize {
    usize::try_from(length).expect("the length of a buffer in memory")
}
