//! [`Shelf`]: the copy of one object, in an object of the local store.
//!
//! ```text
//!   page 0            "VMSYNCCA"   format: 2 (4)   length of the source (4)   version (8)   sum of groups (8)   source
//!   then groups of    1 page: a sum (8) for each of the next pages, 0 where it is not here
//!                     page size / 8 pages
//! ```
//!
//! The local store writes behind: it may lose a call and make the next one durable before anybody is told. So a call says
//! what all calls before it have written, and whoever reads compares.
//!
//! Invariants:
//! - a page that has its sum is the object's, as of the version in page 0, where the groups have the sum in page 0;
//! - sums, pages and version change together, in one call of the local store.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use twox_hash::XxHash3_64;
use vmsync_core::{
    ByteRange, KernReturn, PageSize, PagerError,
    abi::VmProt,
    pager::{
        Attributes, CallId, DataSupply, InitRequest, LockRequest, MemoryObjectControl, ObjectId, ObjectName,
        Pager, ReturnFlags, SynchronizeFlags,
    },
};

use super::ledger::Touched;
use crate::limits::COPIED_BYTES_MAX;

const MAGIC: &[u8; 8] = b"VMSYNCCA";
const FORMAT: u32 = 2;
const VERSION_AT: usize = 16;
const GROUPS_SUM_AT: usize = 24;
const SOURCE_AT: usize = 32;

/// A version that no object has: the copy is worth nothing.
const NO_VERSION: u64 = u64::MAX;

/// See the head of this file.
pub(super) struct Shelf {
    local: Arc<dyn Pager>,
    object: ObjectId,
    page_size: PageSize,
    /// Page 0.
    head: Vec<u8>,
    /// Those that have pages here.
    groups: BTreeMap<u64, Group>,
    usable: bool,
    health: Arc<Health>,
}

/// The sums of a group's pages.
struct Group {
    sums: Vec<u8>,
    /// What it adds to the sum in page 0.
    sum: u64,
}

/// Never 0, which stands for a page that is not here.
fn sum_of(place: u64, bytes: &[u8]) -> u64 {
    XxHash3_64::oneshot_with_seed(place, bytes).max(1)
}

impl Group {
    fn sum_of(group: u64, sums: &[u8]) -> u64 {
        let empty = sums.iter().all(|byte| *byte == 0);
        if empty { 0 } else { sum_of(group, sums) }
    }
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
        head[VERSION_AT..GROUPS_SUM_AT].copy_from_slice(&NO_VERSION.to_le_bytes());
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
            groups: BTreeMap::new(),
            usable: opened.is_ok(),
            health,
        };
        if let Ok(attributes) = opened {
            shelf.load(attributes.size);
        }
        shelf
    }

    /// Takes over the sums that are stored. Unless they are what the last call has left, they are of no version.
    fn load(&mut self, size: u64) {
        let mut stored = vec![0; self.head.len()];
        if !self.read_local(0, &mut stored) {
            return self.give_up();
        }
        let mut groups_sum = 0_u64;
        let pages = self.page_size.page_of(size) - 1;
        for group in 0..pages.div_ceil(self.group_pages() + 1) {
            let mut sums = vec![0; self.head.len()];
            if !self.read_local(self.group_page(group), &mut sums) {
                return self.give_up();
            }
            let sum = Group::sum_of(group, &sums);
            groups_sum = groups_sum.wrapping_add(sum);
            if sum != 0 {
                self.groups.insert(group, Group { sums, sum });
            }
        }
        let version = stored[VERSION_AT..GROUPS_SUM_AT].to_vec();
        self.set_groups_sum(groups_sum);
        self.head[VERSION_AT..GROUPS_SUM_AT].copy_from_slice(&version);
        if stored != self.head {
            self.set_version(NO_VERSION);
        }
    }

    fn version(&self) -> u64 {
        let bytes = self.head[VERSION_AT..GROUPS_SUM_AT].try_into();
        bytes.map_or(NO_VERSION, u64::from_le_bytes)
    }

    /// Pages that one page of sums is for.
    fn group_pages(&self) -> u64 {
        self.page_size.bytes() / 8
    }

    /// The page of a group's sums.
    fn group_page(&self, group: u64) -> u64 {
        1 + group * (self.group_pages() + 1)
    }

    fn local_page(&self, page: u64) -> u64 {
        let group = self.group_pages();
        self.group_page(page / group) + 1 + page % group
    }

    /// The group of `page`, and where in it the sum is.
    fn place(&self, page: u64) -> (u64, Range<usize>) {
        let at = 8 * (page % self.group_pages()) as usize;
        (page / self.group_pages(), at..at + 8)
    }

    /// 0 where `page` is not here.
    fn sum(&self, page: u64) -> u64 {
        let (group, at) = self.place(page);
        let group = self.groups.get(&group);
        let bytes = group.and_then(|group| group.sums[at].try_into().ok());
        bytes.map_or(0, u64::from_le_bytes)
    }

    /// Makes room for an object of `size` bytes.
    pub(super) fn fit(&mut self, size: u64) {
        let pages = self.page_size.page_of(size);
        let groups = pages.div_ceil(self.group_pages());
        let bytes = (1 + pages + groups).checked_mul(self.page_size.bytes());
        let Some(bytes) = bytes.filter(|_| self.is_usable()) else {
            return;
        };
        if size > COPIED_BYTES_MAX {
            return self.give_up();
        }
        let known = self
            .local
            .attributes(self.object)
            .map(|attributes| attributes.size);
        let grown = match known {
            Ok(known) if known >= bytes => Ok(()),
            _ => self.local.grow(self.object, bytes).map(drop),
        };
        if grown.is_err() {
            self.give_up();
        }
    }

    /// Forgets everything unless it is of `version`; answers whether it does.
    pub(super) fn require_version(&mut self, version: u64) -> bool {
        if self.version() == version || !self.is_usable() {
            return false;
        }
        for group in self.groups.values_mut() {
            group.sums.fill(0);
        }
        self.set_version(version);
        let groups = self.groups.keys().copied().collect();
        self.write(&Touched::new(), groups);
        self.groups.clear();
        true
    }

    fn set_version(&mut self, version: u64) {
        self.head[VERSION_AT..GROUPS_SUM_AT].copy_from_slice(&version.to_le_bytes());
    }

    fn groups_sum(&self) -> u64 {
        let bytes = self.head[GROUPS_SUM_AT..SOURCE_AT].try_into();
        bytes.map_or(0, u64::from_le_bytes)
    }

    fn set_groups_sum(&mut self, sum: u64) {
        self.head[GROUPS_SUM_AT..SOURCE_AT].copy_from_slice(&sum.to_le_bytes());
    }

    /// Fills `pages` from `first` on; false where not all are here.
    pub(super) fn read(&mut self, first: u64, pages: &mut [u8]) -> bool {
        let page_bytes = self.head.len();
        let count = (pages.len() / page_bytes) as u64;
        if !self.is_usable() || (first..first + count).any(|page| self.sum(page) == 0) {
            return false;
        }
        let is_read = self.read_runs(first, pages);
        let mut found = (first..).zip(pages.chunks_exact(page_bytes));
        let is_whole = is_read && found.all(|(page, bytes)| sum_of(page, bytes) == self.sum(page));
        if !is_whole {
            // What the remote store says to be zero it leaves so.
            pages.fill(0);
            self.give_up();
        }
        is_whole
    }

    fn read_runs(&self, first: u64, pages: &mut [u8]) -> bool {
        let page_bytes = self.head.len();
        let count = (pages.len() / page_bytes) as u64;
        let group = self.group_pages();
        let mut at = 0;
        while at < count {
            // Up to the end of the group: there the next sums lie.
            let run = (group - (first + at) % group).min(count - at);
            let bytes = &mut pages[at as usize * page_bytes..(at + run) as usize * page_bytes];
            if !self.read_local(self.local_page(first + at), bytes) {
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
            let (group, at) = self.place(*page);
            let sum = bytes.as_ref().map_or(0, |bytes| sum_of(*page, bytes));
            let empty = || Group {
                sums: vec![0; self.head.len()],
                sum: 0,
            };
            let known = self.groups.entry(group).or_insert_with(empty);
            known.sums[at].copy_from_slice(&sum.to_le_bytes());
            groups.insert(group);
        }
        self.write(&pages, groups);
    }

    /// Writes pages, the sums of `groups` and the head, in one call.
    fn write(&mut self, pages: &Touched, groups: BTreeSet<u64>) {
        let call = next_call();
        let mut groups_sum = self.groups_sum();
        for number in &groups {
            if let Some(group) = self.groups.get_mut(number) {
                let before = mem::replace(&mut group.sum, Group::sum_of(*number, &group.sums));
                groups_sum = groups_sum.wrapping_sub(before).wrapping_add(group.sum);
            }
        }
        self.set_groups_sum(groups_sum);
        let mut given = self.give(call, 0, &self.head);
        for (page, bytes) in pages {
            let bytes = bytes.as_ref();
            given &= bytes.is_none_or(|bytes| self.give(call, self.local_page(*page), bytes));
        }
        for number in groups {
            let group = self.groups.get(&number);
            given &= group.is_none_or(|group| self.give(call, self.group_page(number), &group.sums));
        }
        let behind = SynchronizeFlags::ASYNCHRONOUS;
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
        if supply == Ok(DataSupply::Unavailable) {
            bytes.fill(0);
        }
        supply.is_ok()
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
