//! [`Store`] as a [`Pager`].
//!
//! Invariants:
//! - what a call returned is in `calls` until its last `synchronize` queues it, or `abort` drops it;
//! - what is supplied is one moment's: a read that a commit of the same object came across is repeated, and what is
//!   queued is looked at behind it, as the engine may have shown what is about to count as committed;
//! - in a store that is only read, an object is supplied as it was when it was opened, or not;
//! - nothing panics on bad input.

use std::sync::{Arc, PoisonError};

use vmsync_core::{
    ByteRange, PagerError, PagerErrorKind,
    abi::VmProt,
    pager::{
        Attributes, CallId, DataSupply, InitRequest, MemoryObjectControl, ObjectId, ObjectName, Pager,
        ReturnFlags, SynchronizeFlags,
    },
};

use crate::{
    Engine, Place, Result,
    call::{Answer, Told},
    invalid,
    limits::{OBJECT_BYTES_MAX, QUEUE_BYTES_MAX, READ_RETRIES_MAX},
    state::Opened,
    store::{Shared, Store},
};

/// Opening objects.
impl<E: Engine> Shared<E> {
    fn check_request(&self, object: ObjectId, name: &ObjectName, request: InitRequest) -> Result<()> {
        let page_size = self.engine.page_size();
        if request.page_size != page_size {
            return Err(invalid(format!(
                "the store has pages of {} bytes, not {}",
                page_size.bytes(),
                request.page_size.bytes()
            )));
        }
        self.check_size(request.size_min)?;
        if request.write {
            self.require_writable()?;
        }
        let state = self.lock();
        state.require_alive()?;
        if state.opened.contains_key(&object) {
            return Err(invalid(format!("object {} is open already", object.0)));
        }
        let taken = |opened: &Opened| opened.write && opened.name == *name;
        if request.write && state.opened.values().any(taken) {
            let message = format!("\"{name}\" has a writer: close it there");
            return Err(PagerError::new(PagerErrorKind::Busy, message));
        }
        Ok(())
    }

    fn check_size(&self, size: u64) -> Result<()> {
        let page_size = self.engine.page_size();
        if page_size.is_aligned(size) && size <= OBJECT_BYTES_MAX {
            return Ok(());
        }
        Err(invalid(format!(
            "size {size} is not a multiple of the page size {}, or above the limit of {OBJECT_BYTES_MAX} bytes",
            page_size.bytes()
        )))
    }

    /// Makes the object ready: there, and large enough.
    fn prepare(&self, name: &ObjectName, request: InitRequest) -> Result<()> {
        let (found, count) = {
            let catalog = &self.lock().contents.catalog;
            (catalog.get(name).copied(), catalog.len())
        };
        match found {
            Some(entry) if request.size_min <= entry.size => Ok(()),
            Some(_) if !request.write => Err(small_and_read_only(name)),
            None if !request.create => {
                let message = format!("no object \"{name}\" in this store: ask for it to be created");
                Err(PagerError::new(PagerErrorKind::NotFound, message))
            }
            None if count >= E::OBJECTS_MAX => {
                Err(invalid(format!("the store has {count} objects: remove some")))
            }
            _ => {
                self.require_writable()?;
                self.put_object(name, request.size_min)
            }
        }
    }

    fn supply(&self, object: ObjectId, offset: u64, buffer: &mut [u8]) -> Result<DataSupply> {
        let mut written = false;
        let told = |supplied, written| match supplied {
            // What an attempt before has left is zeroes.
            DataSupply::Unavailable if written => DataSupply::Supplied { precious: false },
            supplied => supplied,
        };
        for _ in 0..READ_RETRIES_MAX {
            let (supplied, whole) = self.supply_once(object, offset, buffer)?;
            if whole {
                return Ok(told(supplied, written));
            }
            if supplied != DataSupply::Unavailable {
                buffer.fill(0);
                written = true;
            }
        }
        let _lead = self.take_lead()?;
        Ok(told(self.supply_once(object, offset, buffer)?.0, written))
    }

    /// What is queued, over what the engine has; and whether that is one moment's.
    fn supply_once(&self, object: ObjectId, offset: u64, buffer: &mut [u8]) -> Result<(DataSupply, bool)> {
        let page_size = self.engine.page_size();
        let length = buffer.len() as u64;
        let (first, count) = (page_size.page_of(offset), page_size.page_of(length));
        let look = || {
            let state = self.lock();
            let (opened, entry) = state.checked(object, page_size, (offset, length))?;
            Ok((*entry, state.newer((entry.id, first), count), opened.version))
        };
        let (entry, mut newer, version) = look()?;
        let (mut stored, mut whole) = (false, true);
        if (newer.len() as u64) < count {
            let place = (entry.id, first);
            stored = self.read(place, version, buffer)?;
            let behind = look()?;
            whole = behind.0.version == entry.version;
            newer = behind.1;
        }
        if !stored && newer.is_empty() {
            return Ok((DataSupply::Unavailable, whole));
        }
        if !stored {
            buffer.fill(0);
        }
        for (index, target) in (0..).zip(buffer.chunks_exact_mut(page_size.bytes() as usize)) {
            if let Some(bytes) = newer.get(&index) {
                target.copy_from_slice(bytes);
            }
        }
        Ok((DataSupply::Supplied { precious: false }, whole))
    }

    /// What the engine has, where `version` is the object's when it was opened. An engine that cannot go on ends the store;
    /// an object that is not there any more ends nothing.
    fn read(&self, place: Place, version: u64, buffer: &mut [u8]) -> Result<bool> {
        let read = match self.options.read_only {
            true => self.engine.read_version(place, version, buffer),
            false => self.engine.read(place, buffer),
        };
        if let Err(error) = &read
            && error.kind == PagerErrorKind::Gone
        {
            self.end(error);
        }
        read
    }
}

fn small_and_read_only(name: &ObjectName) -> PagerError {
    let message = format!("\"{name}\" is smaller, and was not opened for writing");
    PagerError::new(PagerErrorKind::Denied, message)
}

impl<E: Engine> Pager for Store<E> {
    fn init(
        &self,
        object: ObjectId,
        name: &ObjectName,
        request: InitRequest,
        control: Arc<dyn MemoryObjectControl>,
    ) -> Result<Attributes> {
        let shared = &self.shared;
        let opening = shared.opening.lock().unwrap_or_else(PoisonError::into_inner);
        shared.check_request(object, name, request)?;
        if shared.options.read_only {
            // The writer is elsewhere: what it has added since is of use here.
            let contents = shared.engine.load()?;
            shared.lock().contents = contents;
        }
        shared.prepare(name, request)?;
        let mut state = shared.lock();
        let opened = Opened {
            name: name.clone(),
            write: request.write,
            control,
            address: None,
            version: state.contents.catalog.get(name).map_or(0, |entry| entry.version),
        };
        state.opened.insert(object, opened);
        let attributes = state.opened(object).map(|(_, entry)| entry.attributes());
        drop(state);
        drop(opening);
        attributes
    }

    fn data_request(
        &self,
        object: ObjectId,
        offset: u64,
        _access: VmProt,
        pages: &mut [u8],
    ) -> Result<DataSupply> {
        self.shared.supply(object, offset, pages)
    }

    fn data_return(
        &self,
        call: CallId,
        object: ObjectId,
        offset: u64,
        pages: &[u8],
        _flags: ReturnFlags,
    ) -> Result<()> {
        let page_size = self.page_size();
        let mut state = self.shared.lock();
        let (opened, entry) = state.checked(object, page_size, (offset, pages.len() as u64))?;
        if !opened.write {
            let message = format!("\"{}\" was opened for reading: open it for writing", opened.name);
            return Err(PagerError::new(PagerErrorKind::Denied, message));
        }
        if pages.is_empty() {
            return Ok(());
        }
        let (id, name, address) = (entry.id, opened.name.clone(), opened.address);
        let call = state.calls.entry(call).or_default();
        if call.bytes + pages.len() > E::CALL_BYTES_MAX {
            return Err(invalid(format!(
                "a call returns more than {} bytes: sync smaller ranges",
                E::CALL_BYTES_MAX
            )));
        }
        call.objects.insert(name, address);
        let chunks = pages.chunks_exact(page_size.bytes() as usize);
        for (page, bytes) in (page_size.page_of(offset)..).zip(chunks) {
            if call.pages.insert((id, page), bytes.into()).is_none() {
                call.bytes += bytes.len();
            }
        }
        Ok(())
    }

    fn synchronize(
        &self,
        call: CallId,
        object: ObjectId,
        range: ByteRange,
        flags: SynchronizeFlags,
    ) -> Result<()> {
        let shared = &self.shared;
        let mut state = shared.lock();
        let (opened, _) = state.checked(object, self.page_size(), (range.start, range.len()))?;
        let control = opened.control.clone();
        let answer = Answer::Control { control, range };
        if flags.more {
            state.calls.entry(call).or_default().answers.push(answer);
            return Ok(());
        }
        let mut call = state.calls.remove(&call).unwrap_or_default();
        let lost = call.lost.as_ref().or(state.losing.as_ref());
        if let Some(error) = lost.filter(|_| !call.pages.is_empty()) {
            return Err(error.clone().behind());
        }
        call.answers.push(answer);
        // Rather than wait for room, an asynchronous call is answered when it is durable.
        if flags.synchronous || (flags.nowait && state.queued_bytes() > QUEUE_BYTES_MAX) {
            let ticket = state.enqueue(call, Told::Done);
            let handed_over = flags.nowait && state.hand_over();
            drop(state);
            if handed_over {
                shared.work.notify_one();
            } else {
                shared.commit_until(ticket);
            }
            return Ok(());
        }
        let answers = call.answers.clone();
        let ticket = state.enqueue(call, Told::Queued);
        let full = state.queued_bytes() > QUEUE_BYTES_MAX;
        drop(state);
        for answer in answers {
            answer.complete(Ok(()));
        }
        if full && !flags.nowait {
            shared.commit_until(ticket);
        } else {
            shared.work.notify_one();
        }
        Ok(())
    }

    fn abort(&self, call: CallId) {
        let dropped = self.shared.lock().calls.remove(&call);
        drop(dropped);
    }

    fn map(&self, object: ObjectId, address: u64, _access: VmProt) {
        if let Some(opened) = self.shared.lock().opened.get_mut(&object) {
            opened.address = Some(address);
        }
    }

    fn terminate(&self, object: ObjectId) {
        let closed = self.shared.lock().opened.remove(&object);
        drop(closed);
    }

    fn grow(&self, object: ObjectId, size: u64) -> Result<Attributes> {
        let shared = &self.shared;
        shared.check_size(size)?;
        let opening = shared.opening.lock().unwrap_or_else(PoisonError::into_inner);
        let (name, write, have) = {
            let state = shared.lock();
            let (opened, entry) = state.opened(object)?;
            (opened.name.clone(), opened.write, entry.size)
        };
        if !write {
            return Err(small_and_read_only(&name));
        }
        if size > have {
            shared.put_object(&name, size)?;
        }
        drop(opening);
        self.attributes(object)
    }

    fn attributes(&self, object: ObjectId) -> Result<Attributes> {
        let state = self.shared.lock();
        Ok(state.opened(object)?.1.attributes())
    }
}
