//! [`FileStore`] as a [`Pager`].
//!
//! Invariants:
//! - what a call returned is in `calls` until its last `synchronize` queues it, or `abort` drops it;
//! - nothing panics on bad input.

use std::sync::{Arc, MutexGuard, PoisonError, atomic::Ordering};

use vmsync_core::{
    ByteRange, PagerError, PagerErrorKind,
    abi::VmProt,
    pager::{
        Attributes, CallId, DataSupply, Image, InitRequest, MemoryObjectControl, ObjectId, ObjectName, Pager,
        ReturnFlags, Run, SynchronizeFlags,
    },
};

use crate::{
    call::{Answer, Call, Prepared},
    disk::{Access, Result},
    error::invalid,
    layout::{entry::CatalogChange, image_name},
    limits::{CALL_BYTES_MAX, OBJECT_BYTES_MAX, OBJECTS_MAX, WAIT_MAX},
    object::Object,
    queue::Queue,
    stats::count,
    store::{FileStore, Handle, Opening, Shared, attributes, lock},
};

impl Shared {
    /// Looks at what the runtime has open as `object`.
    fn with_handle<R>(&self, object: ObjectId, look: impl FnOnce(&Handle) -> Result<R>) -> Result<R> {
        let handles = self.handles.read().unwrap_or_else(PoisonError::into_inner);
        let handle = handles.get(&object);
        look(handle.ok_or_else(|| invalid(format!("object {} is not open in this store", object.0)))?)
    }

    /// The store's object that the runtime has open as `object`.
    fn object(&self, object: ObjectId) -> Result<Arc<Object>> {
        self.with_handle(object, |handle| Ok(handle.object.clone()))
    }

    /// Whether `length` bytes at `offset` are whole pages of `object`.
    fn check_range(&self, object: &Object, offset: u64, length: u64) -> Result<()> {
        let size = object.size();
        let aligned = self.page_size.is_aligned(offset) && self.page_size.is_aligned(length);
        if aligned && offset.checked_add(length).is_some_and(|end| end <= size) {
            return Ok(());
        }
        Err(invalid(format!(
            "{length} bytes at {offset} are not whole pages of {} bytes inside \"{}\" of {size} bytes",
            self.page_size.bytes(),
            object.name
        )))
    }

    /// Queues `call`: its ticket, and the queue as it is with it; or whom to tell why not.
    fn enqueue(
        &self,
        mut call: Call,
        write_behind: bool,
    ) -> std::result::Result<(MutexGuard<'_, Queue>, u64), (Vec<Answer>, PagerError)> {
        match self.lock_if_fresh(&mut call.delta) {
            Ok(mut queue) => {
                let mut prepared = self.prepare(&queue, call);
                prepared.write_behind = write_behind;
                let ticket = queue.enqueue(prepared);
                Ok((queue, ticket))
            }
            Err(error) => Err((call.answers, error)),
        }
    }

    fn prepare(&self, queue: &Queue, call: Call) -> Prepared {
        let changed = &call.delta.changed;
        count(&self.counters.pages_changed, changed.len() as u64);
        let mut changes = Vec::new();
        for (object, returned) in call.objects {
            let known = queue.address(object);
            let is_changed = || changed.iter().any(|changed| changed.object.id == object);
            if let Some(address) = returned
                .address
                .filter(|address| known != Some(*address) && is_changed())
            {
                changes.push(CatalogChange::Address { object, address });
            }
        }
        Prepared::new(call.delta, changes, call.answers)
    }

    /// Waits until there is room in the queue.
    fn wait_for_room(&self) -> Result<()> {
        let queue = lock(&self.queue);
        if !queue.is_full() {
            return Ok(());
        }
        let ticket = queue.queued;
        drop(queue);
        self.lead(ticket);
        let mut queue = lock(&self.queue);
        queue.room_waiters += 1;
        let (mut queue, outcome) = self
            .drained
            .wait_timeout_while(queue, WAIT_MAX, |queue| queue.is_full())
            .unwrap_or_else(PoisonError::into_inner);
        queue.room_waiters -= 1;
        drop(queue);
        if outcome.timed_out() {
            let message = "the disk does not keep up: return the pages again later";
            return Err(PagerError::new(PagerErrorKind::TimedOut, message));
        }
        Ok(())
    }
}

/// Opening objects.
impl Shared {
    fn init(
        &self,
        object: ObjectId,
        name: &ObjectName,
        request: InitRequest,
        control: Arc<dyn MemoryObjectControl>,
    ) -> Result<Attributes> {
        self.check_request(request)?;
        let mut opening = self.opening()?;
        self.check_handles(object, name, request)?;
        let found = lock(&self.queue)
            .catalog
            .find(name)
            .map(|(id, entry)| (id, entry.size));
        let opened = match found {
            Some((id, size)) => {
                let known = opening.objects.get(&id).and_then(std::sync::Weak::upgrade);
                let opened = known.map_or_else(|| self.open_object(id, name, size), Ok)?;
                if request.size_min > size && !request.write {
                    return Err(small_and_read_only(&opened));
                }
                self.grow(&mut opening, &opened, request.size_min)?;
                opened
            }
            None if request.create => self.create(&mut opening, name, request.size_min)?,
            None => {
                let message = format!("no object \"{name}\" in this store: ask for it to be created");
                return Err(PagerError::new(PagerErrorKind::NotFound, message));
            }
        };
        opening.objects.retain(|_, object| object.strong_count() > 0);
        opening.objects.insert(opened.id, Arc::downgrade(&opened));
        let entry = lock(&self.queue).catalog.get(opened.id).map(attributes);
        let handle = Handle {
            object: opened,
            write: request.write,
            control,
            address: None,
        };
        self.handles
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(object, handle);
        Ok(entry.expect("an object that was opened is in the catalog"))
    }

    fn check_request(&self, request: InitRequest) -> Result<()> {
        if request.page_size != self.page_size {
            return Err(invalid(format!(
                "the store has pages of {} bytes, not {}",
                self.page_size.bytes(),
                request.page_size.bytes()
            )));
        }
        self.check_size(request.size_min)?;
        if request.write {
            self.require_writable()
        } else {
            Ok(())
        }
    }

    fn check_size(&self, size: u64) -> Result<()> {
        if !self.page_size.is_aligned(size) {
            return Err(invalid(format!(
                "size {size} is not a multiple of the page size {}",
                self.page_size.bytes()
            )));
        }
        if size > OBJECT_BYTES_MAX {
            return Err(invalid(format!(
                "size {size} is above the limit of {OBJECT_BYTES_MAX} bytes"
            )));
        }
        Ok(())
    }

    fn check_handles(&self, object: ObjectId, name: &ObjectName, request: InitRequest) -> Result<()> {
        let handles = self.handles.read().unwrap_or_else(PoisonError::into_inner);
        if handles.contains_key(&object) {
            return Err(invalid(format!("object {} is open already", object.0)));
        }
        let taken = |handle: &Handle| handle.write && handle.object.name == *name;
        if request.write && handles.values().any(taken) {
            let message = format!("\"{name}\" has a writer: close it there");
            return Err(PagerError::new(PagerErrorKind::Busy, message));
        }
        Ok(())
    }

    fn open_object(&self, id: u64, name: &ObjectName, size: u64) -> Result<Arc<Object>> {
        let access = if self.options.read_only {
            Access::Read
        } else {
            Access::Write
        };
        let file = image_name(id);
        let image = match self.disk.open(&file, access) {
            Err(error) if error.kind == PagerErrorKind::NotFound => {
                return Err(crate::error::damaged(
                    &file,
                    0,
                    format!("the image of \"{name}\" is missing"),
                ));
            }
            opened => opened?,
        };
        let length = image.length()?;
        if length < size {
            let what = format!("the image of \"{name}\" has {length} bytes of {size}");
            return Err(crate::error::damaged(&file, length, what));
        }
        Ok(Arc::new(Object::new(id, name, image, size, self.page_size)))
    }

    fn create(&self, opening: &mut Opening, name: &ObjectName, size: u64) -> Result<Arc<Object>> {
        self.require_writable()?;
        let id = {
            let mut queue = lock(&self.queue);
            if queue.catalog.len() >= OBJECTS_MAX {
                return Err(invalid(format!(
                    "the store has {OBJECTS_MAX} objects: remove some"
                )));
            }
            queue.catalog.take_id()
        };
        // An image beside a superblock whose name did not survive would count as damage. Only once: a flush under way is waited for.
        if self.undurable.load(Ordering::Acquire) {
            lock(&self.journal).make_durable()?;
            self.undurable.store(false, Ordering::Release);
        }
        let image = self.disk.open(&image_name(id), Access::Create)?;
        if let Err(error) = image.set_len(0).and_then(|()| image.set_len(size)) {
            // Were it to stay, every try would leave one until the next opening.
            let _ = self.disk.remove(&image_name(id));
            return Err(error);
        }
        let object = Arc::new(Object::new(id, name, image, size, self.page_size));
        let change = CatalogChange::Create {
            object: id,
            size,
            name: name.clone(),
        };
        // Given up and made all the same, it is this one that the journal has pages of.
        opening.objects.insert(id, Arc::downgrade(&object));
        if let Err(error) = self.change_catalog(opening, change, Some(&object)) {
            if error.kind != PagerErrorKind::TimedOut {
                let _ = self.disk.remove(&image_name(id));
            }
            return Err(error);
        }
        Ok(object)
    }

    /// Makes the object at least `size` bytes large.
    fn grow(&self, opening: &mut Opening, object: &Arc<Object>, size: u64) -> Result<()> {
        if size <= object.size() {
            return Ok(());
        }
        {
            // A checkpoint may set the length of an image again, to what it was a moment ago.
            let _images = lock(&self.images);
            object.image.set_len(size)?;
        }
        let change = CatalogChange::Grow {
            object: object.id,
            size,
        };
        self.change_catalog(opening, change, Some(object))
    }
}

fn small_and_read_only(object: &Object) -> PagerError {
    let message = format!("\"{}\" is smaller, and was not opened for writing", object.name);
    PagerError::new(PagerErrorKind::Denied, message)
}

impl Pager for FileStore {
    fn init(
        &self,
        object: ObjectId,
        name: &ObjectName,
        request: InitRequest,
        control: Arc<dyn MemoryObjectControl>,
    ) -> Result<Attributes> {
        self.shared.init(object, name, request, control)
    }

    fn data_request(
        &self,
        object: ObjectId,
        offset: u64,
        _access: VmProt,
        pages: &mut [u8],
    ) -> Result<DataSupply> {
        let object = self.shared.object(object)?;
        self.shared.check_range(&object, offset, pages.len() as u64)?;
        self.shared.read_supplied(&object, offset, pages)?;
        Ok(DataSupply::Supplied { precious: false })
    }

    fn image(&self, object: ObjectId) -> Option<Image> {
        let object = self.shared.object(object).ok()?;
        let stale = self.shared.options.read_only
            && lock(&self.shared.queue)
                .ahead
                .durable_in((object.id, 0)..(object.id + 1, 0))
                .next()
                .is_some();
        let descriptor = object.image.descriptor().filter(|_| !stale)?;
        Some(Image {
            descriptor,
            offset: 0,
        })
    }

    fn settle_image(&self, object: ObjectId, range: ByteRange) -> Result<()> {
        let shared = &self.shared;
        let id = shared.object(object)?.id;
        let Some(pages) = shared.page_size.widen(range) else {
            return Err(invalid(format!("the range {range} leaves 64 bits")));
        };
        let (queued, flushing) = {
            let queue = lock(&shared.queue);
            (queue.ahead.is_queued(id, pages), queue.flushing)
        };
        // Also where somebody flushes: that may have just failed, and not been told yet.
        if queued || flushing {
            let flushed = shared.flush();
            if queued {
                // Where it fails, what the guest has may be all that is left of what was queued.
                flushed?;
            }
        }
        let waiting = (id, pages.start)..(id, pages.end);
        if lock(&shared.queue)
            .ahead
            .durable_in(waiting.clone())
            .next()
            .is_none()
        {
            return Ok(());
        }
        shared.require_writable()?;
        shared.apply_all(waiting)
    }

    fn data_return(
        &self,
        call: CallId,
        object: ObjectId,
        offset: u64,
        pages: &[u8],
        flags: ReturnFlags,
    ) -> Result<()> {
        let run = Run { offset, pages, flags };
        self.data_return_runs(call, object, &[run])
    }

    fn data_return_runs(&self, call: CallId, object: ObjectId, runs: &[Run<'_>]) -> Result<()> {
        let shared = &self.shared;
        let (object, address) = shared.with_handle(object, |handle| {
            if !handle.write {
                let name = &handle.object.name;
                let message = format!("\"{name}\" was opened for reading: open it for writing");
                return Err(PagerError::new(PagerErrorKind::Denied, message));
            }
            Ok((handle.object.clone(), handle.address))
        })?;
        for run in runs {
            shared.check_range(&object, run.offset, run.pages.len() as u64)?;
        }
        let bytes: usize = runs.iter().map(|run| run.pages.len()).sum();
        if bytes == 0 {
            return Ok(());
        }
        count(
            &shared.counters.pages_returned,
            shared.page_size.page_of(bytes as u64),
        );
        let call = lock(&shared.calls).entry(call).or_default().clone();
        let mut call = lock(&call);
        if call.bytes + bytes > CALL_BYTES_MAX {
            return Err(invalid(format!(
                "a call returns more than {CALL_BYTES_MAX} bytes: sync smaller ranges"
            )));
        }
        call.bytes += bytes;
        call.objects.entry(object.id).or_default().address = address;
        shared.compare(&mut call, &object, runs)
    }

    fn synchronize(
        &self,
        call: CallId,
        object: ObjectId,
        range: ByteRange,
        flags: SynchronizeFlags,
    ) -> Result<()> {
        let shared = &self.shared;
        let answer = shared.with_handle(object, |handle| {
            shared.check_range(&handle.object, range.start, range.len())?;
            Ok(Answer::Control {
                control: handle.control.clone(),
                range,
            })
        })?;
        let taken = {
            let mut calls = lock(&shared.calls);
            let entry = calls.entry(call).or_default().clone();
            let mut entry = lock(&entry);
            entry.answers.push(answer);
            if flags.more {
                return Ok(());
            }
            calls.remove(&call);
            std::mem::take(&mut *entry)
        };
        if shared.options.read_only {
            // Nothing is queued, and nothing could be written.
            taken.answers.into_iter().for_each(Answer::succeed);
            return Ok(());
        }
        // Rather than wait for room, an asynchronous call is answered when it is durable.
        if flags.synchronous || (flags.nowait && lock(&shared.queue).is_full()) {
            shared.commit_call(taken, flags.nowait)
        } else {
            shared.queue_call(taken)
        }
    }

    fn abort(&self, call: CallId) {
        let dropped = lock(&self.shared.calls).remove(&call);
        drop(dropped);
    }

    fn map(&self, object: ObjectId, address: u64, _access: VmProt) {
        let mut handles = self
            .shared
            .handles
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(handle) = handles.get_mut(&object) {
            handle.address = Some(address);
        }
    }

    fn terminate(&self, object: ObjectId) {
        let mut handles = self
            .shared
            .handles
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let closed = handles.remove(&object);
        drop(handles);
        drop(closed);
    }

    fn grow(&self, object: ObjectId, size: u64) -> Result<Attributes> {
        let shared = &self.shared;
        let opened = shared.with_handle(object, |handle| match handle.write {
            true => Ok(handle.object.clone()),
            false => Err(small_and_read_only(&handle.object)),
        })?;
        shared.check_size(size)?;
        let mut opening = shared.opening()?;
        shared.grow(&mut opening, &opened, size)?;
        drop(opening);
        self.attributes(object)
    }

    fn attributes(&self, object: ObjectId) -> Result<Attributes> {
        let id = self.shared.object(object)?.id;
        let queue = lock(&self.shared.queue);
        let entry = queue.catalog.get(id);
        entry
            .map(attributes)
            .ok_or_else(|| invalid(format!("object {} was removed", object.0)))
    }
}

impl Shared {
    /// Commits a call, or lets the thread that flushes now do it; with `nowait` the store's own thread.
    fn commit_call(&self, call: Call, nowait: bool) -> Result<()> {
        match self.enqueue(call, false) {
            Ok((queue, ticket)) => {
                if !self.hand_over(queue, nowait) {
                    self.lead(ticket);
                }
            }
            Err((answers, error)) => fail(answers, &error),
        }
        Ok(())
    }

    /// Leaves what was just queued to the thread that flushes, or, with `nowait`, to the store's own; `false` where there is none.
    /// The lock is that of the queueing: were the call flushed in between, whoever comes next would
    /// take the thread for woken.
    fn hand_over(&self, mut queue: MutexGuard<'_, Queue>, nowait: bool) -> bool {
        if queue.flushing {
            return true;
        }
        if !nowait || !queue.has_flusher {
            return false;
        }
        let woken = std::mem::replace(&mut queue.urgent, true);
        drop(queue);
        if !woken {
            self.work.notify_one();
        }
        true
    }

    /// Queues an asynchronous call and says so.
    fn queue_call(&self, call: Call) -> Result<()> {
        let answers: Vec<Answer> = call.answers.iter().map(Answer::again).collect();
        let queued = match self.wait_for_room() {
            Ok(()) => self.enqueue(call, true),
            Err(error) => Err((call.answers, error)),
        };
        match queued {
            Ok((queue, _)) => {
                drop(queue);
                self.work.notify_one();
                answers.into_iter().for_each(Answer::succeed);
            }
            Err((answers, error)) => fail(answers, &error),
        }
        Ok(())
    }
}

fn fail(answers: Vec<Answer>, error: &PagerError) {
    answers
        .into_iter()
        .for_each(|answer| answer.fail(error.clone(), false));
}
