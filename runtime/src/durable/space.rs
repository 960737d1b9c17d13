//! [`Space`]: the objects of one instance, mapped over its linear memory and its state pages, and committed together.
//!
//! Invariants:
//! - everything in `[0, mapped)` of linear memory, and every state page, shows an object;
//! - one call commits all of it, because all objects belong to one pager;
//! - the objects' claims are given back when this is dropped, and what was not committed is forgotten.

use vmsync_core::{
    ByteRange, KernReturn, PageSize, PagerError,
    abi::{Inherit, OpenFlags, VmProt, VmSync},
    memory::TaskMemory,
    msync::Msync,
    object::ObjectHandle,
    pager::InitRequest,
    task::{MapRequest, Task},
};

use super::{
    DurableError,
    extents::{Extent, Extents},
    memory::{DurableMemory, STATE_AT, StatePages},
};
use crate::{
    Grant, Host, Stats,
    limits::DURABLE_STATE_BYTES_MAX,
    memory::GuestMemory,
    object::Object,
    writeback::{Waiter, drive, finished, serve_lock_requests},
};

pub(super) struct Space {
    host: Host,
    grant: Grant,
    task: Task<Object>,
    memory: DurableMemory,
    /// Linear memory's objects, and how much of it shows them.
    linear: Extents,
    mapped: u64,
    state: Extents,
    stats: Stats,
}

impl Space {
    /// The space of the instance whose objects' names begin with that of `grant`. `memory` is `bytes` large at first and
    /// at most `bytes_max`. Nothing is mapped yet but the first state page.
    pub fn open(
        host: &Host,
        grant: &Grant,
        memory: GuestMemory,
        (bytes, bytes_max): (u64, u64),
    ) -> Result<Self, DurableError> {
        let page_size = host.options().page_size;
        if !grant.rights.contains(OpenFlags::KNOWN) {
            let object = grant.object.to_string();
            let why = "a durable instance needs the rights to write and to create";
            return Err(DurableError::Grant { object, why });
        }
        let page = page_size.bytes();
        let mut space = Self {
            host: host.clone(),
            grant: grant.clone(),
            task: Task::new(page_size, u64::MAX),
            memory: DurableMemory {
                linear: memory,
                state: StatePages::new(page_size),
            },
            // A memory that is empty at first has a first object all the same.
            linear: Extents::new(format!("{}.memory", grant.object), bytes.max(1 << 16), bytes_max),
            mapped: 0,
            state: Extents::new(format!("{}.state", grant.object), page, DURABLE_STATE_BYTES_MAX),
            stats: Stats::default(),
        };
        space.map_state(page)?;
        Ok(space)
    }

    /// The state's bytes, at least `bytes` of them.
    pub fn state(&mut self, bytes: u64) -> Result<&[u8], DurableError> {
        self.map_state(bytes)?;
        Ok(self.memory.state.bytes())
    }

    /// Replaces the state's first bytes.
    pub fn set_state(&mut self, bytes: &[u8]) -> Result<(), DurableError> {
        self.map_state(bytes.len() as u64)?;
        self.memory.state.set(bytes);
        Ok(())
    }

    /// Maps the objects of the state until `bytes` of it are there.
    fn map_state(&mut self, bytes: u64) -> Result<(), DurableError> {
        if bytes > DURABLE_STATE_BYTES_MAX {
            let bytes_max = DURABLE_STATE_BYTES_MAX;
            return Err(DurableError::StateTooLarge { bytes, bytes_max });
        }
        let mapped = self.memory.state.bytes().len() as u64;
        if bytes <= mapped {
            return Ok(());
        }
        for extent in self.holding(&self.state, ByteRange::new(mapped, bytes))? {
            let part = extent.range;
            self.memory.state.grow(part.end as usize);
            self.task.observe_size(self.memory.size());
            self.map(&extent, part, STATE_AT + part.start)?;
        }
        Ok(())
    }

    /// Lets linear memory up to `size` show what is stored.
    pub fn restore(&mut self, size: u64) -> Result<(), DurableError> {
        let part = ByteRange::new(self.mapped, size);
        for extent in self.holding(&self.linear, part)? {
            let part = intersection(extent.range, part);
            self.map(&extent, part, part.start)?;
        }
        self.mapped = size;
        Ok(())
    }

    /// Linear memory has grown to `size` with what the guest put there: maps objects over it and stores the same bytes
    /// into them.
    pub fn adopt(&mut self, size: u64) -> Result<(), DurableError> {
        let grown = ByteRange::new(self.mapped, size);
        if grown.is_empty() {
            return Ok(());
        }
        let kept = self.written_pages(grown);
        self.restore(size)?;
        for (offset, bytes) in kept {
            self.memory.linear.write(offset, &bytes);
            let range = ByteRange::new(offset, offset + bytes.len() as u64);
            self.task.note_store(range);
        }
        Ok(())
    }

    /// Copies of the pages that are not zero.
    fn written_pages(&mut self, range: ByteRange) -> Vec<(u64, Box<[u8]>)> {
        let page_bytes = self.page_size().bytes();
        let pages = self.memory.linear.pages(range).chunks(page_bytes as usize);
        (range.start..)
            .step_by(page_bytes as usize)
            .zip(pages)
            .filter(|(_, bytes)| bytes.iter().any(|byte| *byte != 0))
            .map(|(offset, bytes)| (offset, bytes.into()))
            .collect()
    }

    /// Makes every change durable, all or nothing.
    pub fn commit(&mut self) -> Result<(), DurableError> {
        let call = self.host.next_call();
        let (task, memory) = (&mut self.task, &mut self.memory);
        let size = memory.size();
        let failed = |result, pager| DurableError::Storage {
            step: "committing what the call changed",
            result,
            pager,
        };
        let mut msync = task
            .msync(0, size, VmSync::SYNCHRONOUS, u64::MAX, call, memory)
            .map_err(|result| failed(result, None))?;
        let result = finished(drive(&mut msync, memory, &self.host, Waiter::Thread));
        let result = task.conclude(&msync, result);
        self.stats.msyncs += 1;
        self.count(&msync);
        if result != KernReturn::Success {
            self.stats.msyncs_failed += 1;
            return Err(failed(result, msync.error().cloned()));
        }
        self.serve_lock_requests();
        Ok(())
    }

    /// What a pager asks for is carried out where nothing is dirty: any sooner it would drop, or commit alone, a part of what a call
    /// has changed. Whether it succeeds or not, the commit stands.
    fn serve_lock_requests(&mut self) {
        let (task, memory) = (&mut self.task, &mut self.memory);
        let served = finished(serve_lock_requests(task, memory, &self.host, Waiter::Thread));
        served.iter().for_each(|msync| self.count(msync));
    }

    fn count(&mut self, msync: &Msync<Object>) {
        self.stats.pages_returned += msync.stats().pages_returned;
        self.stats.pages_flushed += msync.stats().pages_flushed;
    }

    pub fn stats(&self) -> Stats {
        self.stats
    }

    pub fn tracker(&self) -> vmsync_core::tracker::TrackerKind {
        self.memory.linear.tracker_kind()
    }

    fn page_size(&self) -> PageSize {
        self.host.options().page_size
    }

    fn holding(&self, extents: &Extents, part: ByteRange) -> Result<Vec<Extent>, DurableError> {
        extents
            .holding(part)
            .map_err(|error| storage("naming the instance's objects", error))
    }

    /// Opens the object of `extent`, made where there is none, and maps `part` of it at `address`.
    fn map(&mut self, extent: &Extent, part: ByteRange, address: u64) -> Result<(), DurableError> {
        let object = self.grant.object.to_string();
        if part.end > self.grant.size_max {
            let why = "the memory has grown above the size that it allows";
            return Err(DurableError::Grant { object, why });
        }
        let request = InitRequest {
            page_size: self.page_size(),
            size_min: extent.range.len(),
            create: true,
            write: true,
        };
        let opened = self.host.open_object(&self.grant.pager, &extent.name, request);
        let opened = opened.map_err(|error| storage("opening the instance's objects", error))?;
        if opened.with(|object| object.attributes.precious) {
            return Err(DurableError::KeepsNoCopy { object });
        }
        let map = |task: &mut Task<Object>, memory: &mut DurableMemory| {
            let port = task.open_object(opened, OpenFlags::KNOWN)?;
            let request = MapRequest {
                address,
                size: part.len(),
                overwrite: false,
                port,
                offset: part.start - extent.range.start,
                copy: false,
                protection: VmProt::READ_WRITE,
                max_protection: VmProt::READ_WRITE,
                inherit: Inherit::default(),
            };
            let mapped = task.map_region(&request, memory);
            // The mapping keeps the object open.
            task.close_object(port)?;
            mapped
        };
        self.task.observe_size(self.memory.size());
        match map(&mut self.task, &mut self.memory) {
            Ok(()) => Ok(()),
            Err(KernReturn::NoAccess) => Err(DurableError::InUse { object }),
            Err(result) => Err(DurableError::Storage {
                step: "mapping the instance's objects",
                result,
                pager: None,
            }),
        }
    }
}

fn storage(step: &'static str, error: PagerError) -> DurableError {
    DurableError::Storage {
        step,
        result: error.kind.open(),
        pager: Some(error),
    }
}

fn intersection(left: ByteRange, right: ByteRange) -> ByteRange {
    ByteRange::new(left.start.max(right.start), left.end.min(right.end))
}

impl Drop for Space {
    fn drop(&mut self) {
        self.task.terminate();
    }
}
