//! [`Shelf`]: the copy of one object, in an object of the local store.
//!
//! ```text
//!   page 0            "VMSYNCCA"   format: 1 (4)   length of the source (4)   version (8)   source
//!   then groups of    1 page: a bit for each of the next pages that is here
//!                     8 * page size pages
//! ```
//!
//! Invariants:
//! - a page whose bit is set is the object's, as of the version in page 0;
//! - bits, pages and version change together, in one call of the local store.

use std::{
    collections::BTreeSet,
    mem,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use vmsync_core::{
    ByteRange, KernReturn, PageSize, PagerError,
    abi::VmProt,
    pager::{
        Attributes, CallId, DataSupply, InitRequest, LockRequest, MemoryObjectControl, ObjectId, ObjectName,
        Pager, ReturnFlags, SynchronizeFlags,
    },
};

use super::ledger::Touched;

const MAGIC: &[u8; 8] = b"VMSYNCCA";
const FORMAT: u32 = 1;
const VERSION_AT: usize = 16;
const SOURCE_AT: usize = 24;

/// A version that no object has: the copy is worth nothing.
const NO_VERSION: u64 = u64::MAX;

/// See the head of this file.
pub(super) struct Shelf {
    local: Arc<dyn Pager>,
    object: ObjectId,
    page_size: PageSize,
    /// Page 0.
    head: Vec<u8>,
    /// The bits, whole groups.
    bits: Vec<u8>,
    usable: bool,
    health: Arc<Health>,
}

/// The local store's answers.
#[derive(Default)]
struct Health {
    failed: AtomicBool,
}

impl MemoryObjectControl for Health {
    fn synchronize_completed(&self, _: ByteRange, result: Result<(), PagerError>) -> Result<(), KernReturn> {
        if result.is_err() {
            self.failed.store(true, Ordering::Release);
        }
        Ok(())
    }

    fn write_behind_failed(&self, _: ByteRange, _: PagerError) {
        self.failed.store(true, Ordering::Release);
    }

    fn lock_request(&self, _: LockRequest) -> Result<(), KernReturn> {
        Ok(())
    }

    fn change_attributes(&self, _: Attributes) {}

    fn destroy(&self, _: PagerError) {
        self.failed.store(true, Ordering::Release);
    }
}

/// Calls of local stores are numbered for the whole process.
fn next_call() -> CallId {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    CallId(NEXT.fetch_add(1, Ordering::Relaxed))
}

impl Shelf {
    /// Opens the copy. Where it cannot be opened, or is of another source, it is empty.
    pub(super) fn open(
        local: Arc<dyn Pager>,
        object: ObjectId,
        name: &ObjectName,
        page_size: PageSize,
        source: &str,
    ) -> Self {
        let mut head = vec![0; page_size.bytes() as usize];
        let source = &source.as_bytes()[..source.len().min(head.len() - SOURCE_AT)];
        head[..8].copy_from_slice(MAGIC);
        head[8..12].copy_from_slice(&FORMAT.to_le_bytes());
        head[12..16].copy_from_slice(&(source.len() as u32).to_le_bytes());
        head[VERSION_AT..SOURCE_AT].copy_from_slice(&NO_VERSION.to_le_bytes());
        head[SOURCE_AT..SOURCE_AT + source.len()].copy_from_slice(source);
        let health = Arc::new(Health::default());
        let request = InitRequest {
            page_size,
            size_min: page_size.bytes(),
            create: true,
            write: true,
        };
        let opened = local.init(object, name, request, health.clone());
        let mut shelf = Self {
            local,
            object,
            page_size,
            head,
            bits: Vec::new(),
            usable: opened.is_ok(),
            health,
        };
        if let Ok(attributes) = opened {
            shelf.load(attributes.size);
        }
        shelf
    }

    /// Takes over the bits that are stored.
    fn load(&mut self, size: u64) {
        let mut stored = vec![0; self.head.len()];
        if !self.read_local(0, &mut stored) || stored[..VERSION_AT] != self.head[..VERSION_AT] {
            return;
        }
        if stored[SOURCE_AT..] != self.head[SOURCE_AT..] {
            return;
        }
        self.head = stored;
        let pages = self.page_size.page_of(size) - 1;
        for group in 0..pages.div_ceil(self.group_pages() + 1) {
            let mut bits = vec![0; self.head.len()];
            if !self.read_local(self.bits_page(group), &mut bits) {
                return self.give_up();
            }
            self.bits.extend(bits);
        }
    }

    fn version(&self) -> u64 {
        let bytes = self.head[VERSION_AT..SOURCE_AT].try_into();
        bytes.map_or(NO_VERSION, u64::from_le_bytes)
    }

    /// Pages that one page of bits is for.
    fn group_pages(&self) -> u64 {
        8 * self.page_size.bytes()
    }

    fn bits_page(&self, group: u64) -> u64 {
        1 + group * (self.group_pages() + 1)
    }

    fn local_page(&self, page: u64) -> u64 {
        let group = self.group_pages();
        self.bits_page(page / group) + 1 + page % group
    }

    fn has(&self, page: u64) -> bool {
        let byte = self.bits.get((page / 8) as usize).copied().unwrap_or(0);
        byte & (1 << (page % 8)) != 0
    }

    /// Makes room for an object of `size` bytes.
    pub(super) fn fit(&mut self, size: u64) {
        let pages = self.page_size.page_of(size);
        let groups = pages.div_ceil(self.group_pages());
        let bytes = (1 + pages + groups).checked_mul(self.page_size.bytes());
        let Some(bytes) = bytes.filter(|_| self.is_usable()) else {
            return;
        };
        let known = self
            .local
            .attributes(self.object)
            .map(|attributes| attributes.size);
        let grown = match known {
            Ok(known) if known >= bytes => Ok(()),
            _ => self.local.grow(self.object, bytes).map(drop),
        };
        self.bits
            .resize(self.bits.len().max((groups * self.page_size.bytes()) as usize), 0);
        if grown.is_err() {
            self.give_up();
        }
    }

    /// Forgets everything unless it is of `version`.
    pub(super) fn require_version(&mut self, version: u64) {
        if self.version() == version || !self.is_usable() {
            return;
        }
        self.bits.fill(0);
        self.set_version(version);
        let groups = 0..(self.bits.len() / self.head.len()) as u64;
        self.write(&Touched::new(), groups.collect());
    }

    fn set_version(&mut self, version: u64) {
        self.head[VERSION_AT..SOURCE_AT].copy_from_slice(&version.to_le_bytes());
    }

    /// Fills `pages` from `first` on; false where not all are here.
    pub(super) fn read(&mut self, first: u64, pages: &mut [u8]) -> bool {
        let page_bytes = self.head.len();
        let count = (pages.len() / page_bytes) as u64;
        if !self.is_usable() || !(first..first + count).all(|page| self.has(page)) {
            return false;
        }
        let group = self.group_pages();
        let mut at = 0;
        while at < count {
            // Up to the end of the group: there the next bits lie.
            let run = (group - (first + at) % group).min(count - at);
            let bytes = &mut pages[at as usize * page_bytes..(at + run) as usize * page_bytes];
            if !self.read_local(self.local_page(first + at), bytes) {
                self.give_up();
                return false;
            }
            at += run;
        }
        true
    }

    /// Keeps `pages` that the remote store has supplied.
    pub(super) fn keep(&mut self, first: u64, pages: &[u8]) {
        let chunks = pages.chunks_exact(self.head.len());
        let pages = (first..).zip(chunks.map(|bytes| Some(bytes.into())));
        self.change(pages.collect());
    }

    /// Moves on to `version`, for which calls have touched pages.
    pub(super) fn settle(&mut self, touched: Touched, version: u64) {
        if !touched.is_empty() || self.version() != version {
            self.set_version(version);
            self.change(touched);
        }
    }

    fn change(&mut self, pages: Touched) {
        if !self.is_usable() {
            return;
        }
        let mut groups = BTreeSet::new();
        for (page, bytes) in &pages {
            // Larger objects than the copy has room for are read and written without it.
            let Some(byte) = self.bits.get_mut((page / 8) as usize) else {
                return self.give_up();
            };
            let bit = 1 << (page % 8);
            *byte = if bytes.is_some() {
                *byte | bit
            } else {
                *byte & !bit
            };
            groups.insert(page / self.group_pages());
        }
        self.write(&pages, groups);
    }

    /// Writes pages, the bits of `groups` and the head, in one call.
    fn write(&mut self, pages: &Touched, groups: BTreeSet<u64>) {
        let call = next_call();
        let known = pages
            .iter()
            .filter_map(|(page, bytes)| Some((*page, bytes.as_ref()?)));
        let mut given = self.give(call, 0, &self.head);
        for (page, bytes) in known {
            given &= self.give(call, self.local_page(page), bytes);
        }
        for group in groups {
            let start = group as usize * self.head.len();
            let bits = &self.bits[start..start + self.head.len()];
            given &= self.give(call, self.bits_page(group), bits);
        }
        let behind = SynchronizeFlags {
            synchronous: false,
            more: false,
            nowait: false,
        };
        let range = ByteRange::new(0, self.page_size.bytes());
        let asked = given && self.local.synchronize(call, self.object, range, behind).is_ok();
        if !asked {
            self.local.abort(call);
            self.give_up();
        }
    }

    fn give(&self, call: CallId, page: u64, bytes: &[u8]) -> bool {
        let flags = ReturnFlags {
            dirty: true,
            kernel_copy: false,
        };
        let offset = page * self.page_size.bytes();
        let given = self.local.data_return(call, self.object, offset, bytes, flags);
        given.is_ok()
    }

    fn read_local(&self, page: u64, bytes: &mut [u8]) -> bool {
        let offset = page * self.page_size.bytes();
        let supply = self.local.data_request(self.object, offset, VmProt::READ, bytes);
        matches!(supply, Ok(DataSupply::Supplied { .. }))
    }

    fn is_usable(&mut self) -> bool {
        if self.health.failed.load(Ordering::Acquire) {
            self.give_up();
        }
        self.usable
    }

    /// Uses the copy no more, and says so in it.
    pub(super) fn give_up(&mut self) {
        if mem::take(&mut self.usable) {
            self.set_version(NO_VERSION);
            self.write(&Touched::new(), BTreeSet::new());
        }
    }

    pub(super) fn close(self) {
        self.local.terminate(self.object);
    }
}
