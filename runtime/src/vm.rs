//! [`Vm`]: the virtual memory of one guest instance, kept in the data of its Wasmtime store.
//!
//! ```text
//!   Store<T> { data: T { vm: Vm } }
//!      |  add_to_linker(&mut linker, |data| &mut data.vm)
//!      v
//!   imports.rs -- decode --> Vm -- Task (core) --> GuestMemory
//!                             \--- drive (writeback.rs) --> pagers
//! ```
//!
//! A `Vm` attaches itself to the memory that the instance exports as `memory` at the guest's first call.
//!
//! Invariants:
//! - one `Vm` serves one memory: a call that comes from another is an error of the host application;
//! - a guest's arguments never panic the host;
//! - what is refused to a guest is told at the level `debug`: it can ask as often as it likes.

use indexmap::IndexMap;
use vmsync_core::{
    ByteRange, KernReturn, PageRange, PagerError,
    abi::{Behavior, ObjectInfo, OpenFlags, PORT_NULL, VmProt, VmSync},
    limits::OBJECT_BYTES_MAX,
    msync::Msync,
    page::PageSize,
    pager::InitRequest,
    task::{Deallocation, MapRequest, Placement, Region, Task, behavior_flags},
    tracker::TrackerKind,
};
use wasmtime::{AsContext, AsContextMut, Instance, Memory};

use crate::{
    Error, Grant, Host, Stats,
    imports::MEMORY_EXPORT,
    limits::GRANTS_MAX,
    memory::GuestMemory,
    object::Object,
    prepare::{CARDS_EXPORT, Marks},
    writeback::{Waiter, drive, finished, serve_lock_requests},
};

/// The virtual memory of one guest.
pub struct Vm {
    host: Host,
    grants: IndexMap<String, Grant>,
    grant_with: Option<GrantWith>,
    attached: Option<Attached>,
    marks: Option<Marks>,
    stats: Stats,
    last_error: Option<PagerError>,
    on_msync: Option<OnMsync>,
}

/// What a host has to do after every call.
type OnMsync = Box<dyn FnMut(&Stats) + Send + Sync>;

/// What a host grants for a name.
type GrantWith = Box<dyn Fn(&str) -> Option<Grant> + Send + Sync>;

struct Attached {
    task: Task<Object>,
    memory: GuestMemory,
}

/// Collects the grants of a [`Vm`].
pub struct VmBuilder {
    host: Host,
    grants: IndexMap<String, Grant>,
    grant_with: Option<GrantWith>,
    marks: Option<Marks>,
    on_msync: Option<OnMsync>,
}

impl VmBuilder {
    /// Lets the guest open what `grant` says under `name`.
    #[must_use]
    pub fn grant(mut self, name: impl Into<String>, grant: Grant) -> Self {
        self.grants.insert(name.into(), grant);
        self
    }

    /// Asks `find` about every name that no [`VmBuilder::grant`] stands for: the guest may open what it answers.
    #[must_use]
    pub fn grant_with(mut self, find: impl Fn(&str) -> Option<Grant> + Send + Sync + 'static) -> Self {
        self.grant_with = Some(Box::new(find));
        self
    }

    /// Tracks the guest by its marks: what [`crate::Prepared::marks`] says of it. A guest's own word is not taken for that it has
    /// cards: they may be for pages of another size.
    #[must_use]
    pub fn marks(mut self, marks: Option<Marks>) -> Self {
        self.marks = marks;
        self
    }

    /// Calls `observer` with the counts after every `vm_msync`, before the guest goes on: what it writes down then
    /// holds for every call whose result the guest has seen, also where the process is killed.
    #[must_use]
    pub fn on_msync(mut self, observer: impl FnMut(&Stats) + Send + Sync + 'static) -> Self {
        self.on_msync = Some(Box::new(observer));
        self
    }

    /// The `Vm`, for one instance.
    ///
    /// # Errors
    /// More grants than the limit.
    pub fn build(self) -> Result<Vm, Error> {
        if self.grants.len() > GRANTS_MAX {
            return Err(Error::Config(format!(
                "more than {GRANTS_MAX} grants for one guest"
            )));
        }
        Ok(Vm {
            host: self.host,
            grants: self.grants,
            grant_with: self.grant_with,
            attached: None,
            marks: self.marks,
            stats: Stats::default(),
            last_error: None,
            on_msync: self.on_msync,
        })
    }
}

impl Vm {
    /// Begins a `Vm` for a guest of `host`.
    pub fn builder(host: &Host) -> VmBuilder {
        VmBuilder {
            host: host.clone(),
            grants: IndexMap::new(),
            grant_with: None,
            marks: None,
            on_msync: None,
        }
    }

    /// What the guest's calls have done so far.
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// The words of the pager for the last call that failed: a guest sees only a number.
    pub fn last_error(&self) -> Option<&PagerError> {
        self.last_error.as_ref()
    }

    /// The rung in use, once the guest has made its first call.
    pub fn tracker(&self) -> Option<TrackerKind> {
        self.attached
            .as_ref()
            .map(|attached| attached.memory.tracker_kind())
    }

    /// Whether more pages than the guest stored to may count as dirty.
    pub fn reports_superset(&self) -> bool {
        self.attached
            .as_ref()
            .is_some_and(|attached| attached.memory.reports_superset())
    }

    /// `vm_msync` on the guest's behalf, while it is not running: not from a callback of Wasmtime's epochs, in which an
    /// instrumented guest may have marked pages that it has yet to store to.
    ///
    /// # Errors
    /// What the guest would see; [`Error::Config`] when `instance` exports no memory named `memory`.
    pub fn msync<T: 'static>(
        store: &mut impl AsContextMut<Data = T>,
        instance: &Instance,
        get: impl Fn(&mut T) -> &mut Vm,
        range: ByteRange,
        flags: VmSync,
    ) -> Result<(), Error> {
        finished(Self::msync_of(
            store,
            instance,
            get,
            (range, flags),
            Waiter::Thread,
        ))
    }

    /// [`Vm::msync`] for tasks: the thread goes on with others meanwhile.
    ///
    /// # Errors
    /// As [`Vm::msync`].
    pub async fn msync_async<T: 'static>(
        store: &mut impl AsContextMut<Data = T>,
        instance: &Instance,
        get: impl Fn(&mut T) -> &mut Vm,
        range: ByteRange,
        flags: VmSync,
    ) -> Result<(), Error> {
        Self::msync_of(store, instance, get, (range, flags), Waiter::Task).await
    }

    async fn msync_of<T: 'static>(
        store: &mut impl AsContextMut<Data = T>,
        instance: &Instance,
        get: impl Fn(&mut T) -> &mut Vm,
        (range, flags): (ByteRange, VmSync),
        waiter: Waiter,
    ) -> Result<(), Error> {
        Self::enter_from_outside(store, instance, &get)?;
        let mut context = store.as_context_mut();
        let vm = get(context.data_mut());
        let call = vm.vm_msync(waiter, range.start, range.len(), flags, u64::MAX);
        call.await.ok().map_err(|result| Error::Call {
            call: "vm_msync",
            result,
        })
    }

    /// [`Vm::enter`] where no guest calls.
    fn enter_from_outside<T: 'static>(
        store: &mut impl AsContextMut<Data = T>,
        instance: &Instance,
        get: impl Fn(&mut T) -> &mut Vm,
    ) -> Result<(), Error> {
        let memory = instance
            .get_memory(&mut *store, MEMORY_EXPORT)
            .ok_or_else(|| Error::Config(format!("the guest exports no memory named \"{MEMORY_EXPORT}\"")))?;
        // It may be the first call for this guest: the marks of an instrumented one are found as its own calls do.
        let cards = instance.get_memory(&mut *store, CARDS_EXPORT);
        let place = MemoryPlace::of(&memory, &*store, cards);
        get(store.as_context_mut().data_mut()).enter(&place)
    }

    /// Tells the VM that host code has stored to `range` of the guest's memory. Needed only with the `barrier`
    /// tracker, which sees the guest's own stores and those of `wasi_snapshot_preview1`.
    pub fn note_store(&mut self, range: ByteRange) {
        if let Some(attached) = &mut self.attached {
            attached.task.note_store(range);
        }
    }

    // --- for the imports -------------------------------------------------------------------------------------

    /// Whether [`Vm::enter`] has seen the memory, and its cards, before.
    pub(crate) fn is_attached(&self) -> bool {
        self.attached.is_some()
    }

    /// Attaches to the memory at the first call, checks that it is the same at every other, and looks at its size.
    pub(crate) fn enter(&mut self, place: &MemoryPlace) -> Result<(), Error> {
        if let Some(attached) = &mut self.attached {
            if !attached.memory.is_at(place.base) {
                return Err(Error::Config(
                    "a Vm serves one instance: this call comes from the memory of another".into(),
                ));
            }
            attached.task.observe_size(place.size);
            return Ok(());
        }
        let reservation = self.host.reservations().find(place.base).ok_or_else(|| {
            Error::Config(
                "the guest's memory was not made by this vmsync host: pass the engine's Config to \
                 Host::configure, use the on-demand allocator, and let the module define its memory (a memory that \
                 is imported from the host is not supported)"
                    .into(),
            )
        })?;
        let cards = place.cards.filter(|_| self.marks.is_some());
        let cards = cards.and_then(|base| self.host.reservations().find(base));
        let kind = if cards.is_some() {
            TrackerKind::Barrier
        } else {
            self.host.tracker()
        };
        let page_size = self.host.options().page_size;
        let memory = GuestMemory::new(reservation, kind, page_size, cards)?;
        let address_end = if place.is_64 { u64::MAX } else { 1 << 32 };
        let mut task = Task::new(page_size, address_end);
        task.observe_size(place.size);
        self.attached = Some(Attached { task, memory });
        Ok(())
    }

    fn attached(&mut self) -> Result<&mut Attached, KernReturn> {
        self.attached.as_mut().ok_or(KernReturn::InvalidTask)
    }

    pub(crate) fn check_task(&mut self, port: u32) -> Result<(), KernReturn> {
        self.attached()?.task.check_task(port)
    }

    pub(crate) async fn vm_msync(
        &mut self,
        waiter: Waiter,
        address: u64,
        size: u64,
        flags: VmSync,
        word_end: u64,
    ) -> KernReturn {
        self.serve_lock_requests(waiter).await;
        let call = self.host.next_call();
        let Some(Attached { task, memory }) = &mut self.attached else {
            return KernReturn::InvalidTask;
        };
        let mut msync = match task.msync(address, size, flags, word_end, call, memory) {
            Ok(msync) => msync,
            Err(error) => return error,
        };
        let result = drive(&mut msync, memory, &self.host, waiter).await;
        let result = task.conclude(&msync, result);
        self.count(&msync);
        self.stats.msyncs += 1;
        self.stats.msyncs_failed += u64::from(result != KernReturn::Success);
        if let Some(observer) = &mut self.on_msync {
            observer(&self.stats);
        }
        result
    }

    fn count(&mut self, msync: &Msync<Object>) {
        self.stats.pages_returned += msync.stats().pages_returned;
        self.stats.pages_flushed += msync.stats().pages_flushed;
        if let Some(error) = msync.error() {
            tracing::warn!(%error, "a pager failed");
            self.last_error = Some(error.clone());
        }
    }

    async fn serve_lock_requests(&mut self, waiter: Waiter) {
        let Some(Attached { task, memory }) = &mut self.attached else {
            return;
        };
        let served = serve_lock_requests(task, memory, &self.host, waiter).await;
        served.iter().for_each(|msync| self.count(msync));
    }

    /// Where ANYWHERE puts a region of the object `port`.
    pub(crate) fn place(&mut self, size: u64, mask: u64, port: u32) -> Result<Placement, KernReturn> {
        let lowest = self.lowest(port);
        self.attached()?.task.place(size, mask, lowest)
    }

    /// Below it no region of the object `port` may begin: nobody sees an instrumented guest's stores to its shadow stack.
    fn lowest(&self, port: u32) -> u64 {
        let marks = self.marks.filter(|_| port != PORT_NULL);
        marks.map_or(0, Marks::stack_end)
    }

    pub(crate) fn vm_map(&mut self, request: &MapRequest) -> Result<(), KernReturn> {
        if request.address < self.lowest(request.port) {
            tracing::debug!("a mapping over the shadow stack of an instrumented guest was refused");
            return Err(KernReturn::NoSpace);
        }
        if request.overwrite {
            let Attached { task, memory } = self.attached()?;
            task.check_map(request, memory)?;
            self.return_precious(request.address, request.size)?;
        }
        let Attached { task, memory } = self.attached()?;
        task.map_region(request, memory)
    }

    /// Hands the precious pages of a range back, before its regions go. An error where they may not go.
    fn return_precious(&mut self, address: u64, size: u64) -> Result<Deallocation<Object>, KernReturn> {
        let call = self.host.next_call();
        let Attached { task, memory } = self.attached.as_mut().ok_or(KernReturn::InvalidTask)?;
        let mut deallocation = task.deallocate(address, size, call, memory)?;
        let returns = &mut deallocation.returns;
        finished(drive(returns, memory, &self.host, Waiter::Thread));
        let checked = task.check_returned(&deallocation);
        self.count(&deallocation.returns);
        checked.map(|()| deallocation)
    }

    pub(crate) fn vm_deallocate(&mut self, address: u64, size: u64) -> Result<(), KernReturn> {
        let deallocation = self.return_precious(address, size)?;
        let Attached { task, memory } = self.attached()?;
        task.finish_deallocate(&deallocation, memory)
    }

    pub(crate) fn vm_protect(
        &mut self,
        address: u64,
        size: u64,
        set_maximum: bool,
        protection: VmProt,
    ) -> Result<(), KernReturn> {
        let Attached { task, memory } = self.attached()?;
        task.protect(address, size, set_maximum, protection, memory)
    }

    pub(crate) fn vm_region(&mut self, address: u64) -> Result<Region, KernReturn> {
        self.attached()?.task.region(address)
    }

    pub(crate) async fn vm_behavior_set(
        &mut self,
        waiter: Waiter,
        address: u64,
        size: u64,
        behavior: Behavior,
    ) -> KernReturn {
        match behavior_flags(behavior) {
            Some(flags) => self.vm_msync(waiter, address, size, flags, u64::MAX).await,
            None => self
                .attached()
                .and_then(|Attached { task, memory }| task.behavior_set(address, size, behavior, memory))
                .into(),
        }
    }

    pub(crate) fn memory_object_open(
        &mut self,
        name: &str,
        size: u64,
        flags: OpenFlags,
    ) -> Result<u32, KernReturn> {
        if flags.has_unknown() || !flags.intersects(OpenFlags::READ | OpenFlags::WRITE) {
            return Err(KernReturn::InvalidArgument);
        }
        let page_size: PageSize = self.host.options().page_size;
        let size_min = page_size.round_up(size).ok_or(KernReturn::InvalidArgument)?;
        let found = self.grants.get(name).cloned();
        let found = found.or_else(|| self.grant_with.as_ref()?(name));
        let grant = found.ok_or(KernReturn::NoAccess)?;
        if !grant.rights.contains(flags.without(OpenFlags::CREATE)) {
            return Err(KernReturn::NoAccess);
        }
        if size_min > grant.size_max.min(OBJECT_BYTES_MAX) {
            return Err(KernReturn::ResourceShortage);
        }
        let request = InitRequest {
            page_size,
            size_min: if grant.rights.contains(OpenFlags::WRITE) {
                size_min
            } else {
                0
            },
            create: flags.contains(OpenFlags::CREATE) && grant.rights.contains(OpenFlags::CREATE),
            write: grant.rights.contains(OpenFlags::WRITE),
        };
        self.attached()?.task.has_port()?;
        let opened = self.host.open_object(&grant.pager, &grant.object, request);
        let object = opened.map_err(|error| {
            tracing::debug!(name, %error, "a memory object could not be opened");
            let result = error.kind.open();
            self.last_error = Some(error);
            result
        })?;
        self.attached()?.task.open_object(object, flags)
    }

    pub(crate) fn memory_object_close(&mut self, port: u32) -> Result<(), KernReturn> {
        self.attached()?.task.close_object(port)
    }

    pub(crate) fn memory_object_info(&mut self, port: u32) -> Result<ObjectInfo, KernReturn> {
        self.attached()?.task.object_info(port)
    }

    /// Copies guest memory out, if the guest itself could load it.
    pub(crate) fn read_guest(&mut self, address: u64, buffer: &mut [u8]) -> Result<(), KernReturn> {
        let Attached { task, memory } = self.attached()?;
        task.check_access(address, buffer.len() as u64, VmProt::READ)?;
        memory.read(address, buffer);
        Ok(())
    }

    /// Copies into guest memory, if the guest itself could store there.
    pub(crate) fn write_guest(&mut self, address: u64, bytes: &[u8]) -> Result<(), KernReturn> {
        let Attached { task, memory } = self.attached()?;
        task.check_access(address, bytes.len() as u64, VmProt::WRITE)?;
        memory.write(address, bytes);
        if let Some(range) = ByteRange::at(address, bytes.len() as u64) {
            task.note_store(range);
        }
        Ok(())
    }

    /// Checks that the guest could store there, before anything is done that a failing result would hide.
    pub(crate) fn check_writable(&mut self, address: u64, length: u64) -> Result<(), KernReturn> {
        self.attached()?.task.check_access(address, length, VmProt::WRITE)
    }
}

/// The instance is gone: precious pages go back, what else was not committed is forgotten, and others may write what
/// this task wrote.
impl Drop for Vm {
    fn drop(&mut self) {
        let Some(attached) = &self.attached else { return };
        let pages = PageRange::new(0, attached.task.map().end());
        let everything = attached.task.page_size().byte_range(pages);
        // Whether the pager took them or not, the memory goes.
        let _ = self.return_precious(0, everything.len());
        if let Some(attached) = &mut self.attached {
            attached.task.terminate();
        }
    }
}

/// Where the calling instance's memory is.
pub(crate) struct MemoryPlace {
    base: *const u8,
    size: u64,
    is_64: bool,
    cards: Option<*const u8>,
}

impl MemoryPlace {
    pub fn of(memory: &Memory, store: &impl AsContext, cards: Option<Memory>) -> Self {
        Self {
            base: memory.data_ptr(store),
            size: memory.data_size(store) as u64,
            is_64: memory.ty(store).is_64(),
            cards: cards.map(|cards| cards.data_ptr(store).cast_const()),
        }
    }
}
