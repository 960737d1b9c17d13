//! Calls of `vm_msync`, one message after the other, up to what came of them.

use std::collections::BTreeMap;

use vmsync_core::{
    ByteRange, PagerError,
    pager::{CallId, MemoryObjectControl, Pager, ReturnFlags, Run, SynchronizeFlags},
};

use super::{Broken, World, judge::same_bytes, lost, mixed, pages::scribble};
use crate::{
    canary::Canary,
    history::{Contents, print},
    limits::{AGAIN_ONCE_IN, TRY_AGAIN_ONCE_IN},
    task::Call,
};

impl World {
    /// Begins a call with all pages of `task` that are dirty, or some.
    pub(super) fn start_call(&mut self, task: usize) {
        let random = &mut self.random;
        let all = random.once_in(2);
        let pages = self.tasks[task].capture(|| all || !random.once_in(4));
        let synchronous = !random.once_in(4);
        self.begin_call(task, pages, synchronous);
    }

    fn begin_call(&mut self, task: usize, pages: Vec<(String, usize, Vec<u8>)>, synchronous: bool) {
        let mut objects: Vec<String> = pages.iter().map(|(name, ..)| name.clone()).collect();
        objects.dedup();
        if objects.is_empty() {
            objects.extend(self.tasks[task].open.keys().next().cloned());
        }
        let id = CallId(self.number());
        self.tasks[task].call = Some(Call {
            id,
            synchronous,
            invalidate: self.random.once_in(4),
            pages,
            returned: 0,
            failed: self.disk.failed(),
            addresses: BTreeMap::new(),
            objects,
            synchronized: 0,
        });
    }

    /// Sends all messages of the call that `task` is in, while nobody else has a turn.
    pub(super) fn send(&mut self, task: usize) -> Result<(), Broken> {
        while self.tasks[task].call.is_some() && !self.disk.is_frozen() {
            self.go_on(task)?;
        }
        Ok(())
    }

    /// What a task may do when a call failed: it calls with nothing, which must not say that what is lost is safe; then with all
    /// that is dirty, and what the failed call returned is committed as if it had not been returned before.
    fn try_again(&mut self, task: usize) -> Result<(), Broken> {
        for dirty in [false, true] {
            if !self.disk.is_frozen() {
                let pages = self.tasks[task].capture(|| dirty);
                self.begin_call(task, pages, true);
                self.send(task)?;
            }
        }
        Ok(())
    }

    /// Sends the next message of the call that `task` is in.
    pub(super) fn go_on(&mut self, task: usize) -> Result<(), Broken> {
        let mut call = self.tasks[task].call.take().expect("only then it goes on");
        let store = self.store();
        if self.random.once_in(40) {
            return self.abort(task, &call);
        }
        if call.synchronized == 0 && self.random.once_in(AGAIN_ONCE_IN) {
            self.tasks[task].call = Some(call);
            return self.grow(task);
        }
        if call.synchronized == 0 && call.returned > 0 && self.random.once_in(AGAIN_ONCE_IN) {
            return self.return_again(task, call);
        }
        if let Some((name, ..)) = call.pages.get(call.returned) {
            let flags = ReturnFlags {
                dirty: true,
                kernel_copy: !call.invalidate,
            };
            let object = self.tasks[task].open[name].object;
            // One page, or all of this object at once.
            let rest = call.pages[call.returned..].iter();
            let of_object = rest.take_while(|(other, ..)| other == name).count();
            let count = if self.random.once_in(2) { of_object } else { 1 };
            let pages = &call.pages[call.returned..][..count];
            let joined: Vec<(usize, Vec<u8>)> = pages
                .chunk_by(|last, next| last.1 + 1 == next.1)
                .map(|run| {
                    (
                        run[0].1,
                        run.iter().flat_map(|(.., bytes)| bytes).copied().collect(),
                    )
                })
                .collect();
            let page_bytes = self.shape.page();
            let runs: Vec<Run<'_>> = joined
                .iter()
                .map(|(page, bytes)| Run {
                    offset: (page * page_bytes) as u64,
                    pages: bytes,
                    flags,
                })
                .collect();
            let failed = self.disk.failed();
            if let Err(error) = store.data_return_runs(call.id, object, &runs) {
                self.read_refused(failed, &error, &format!("returning {count} pages of {name}"))?;
                return self.abort(task, &call);
            }
            let name = name.clone();
            self.tasks[task].note_address(&mut call, &name);
            call.returned += count;
            self.tasks[task].call = Some(call);
            return Ok(());
        }
        let name = &call.objects[call.synchronized];
        call.synchronized += 1;
        let more = call.synchronized < call.objects.len();
        let flags = SynchronizeFlags {
            synchronous: call.synchronous,
            more,
            nowait: false,
        };
        let (object, range) = (self.tasks[task].open[name].object, self.range(name));
        let start = self.disk.position();
        let is_unasked = self.bug == Some(Canary::EmptyUnasked)
            && call.pages.is_empty()
            && same_bytes(&self.firm, &self.supplied);
        let answer = match is_unasked {
            true => {
                let _ = self.tasks[task].open[name]
                    .ear
                    .synchronize_completed(range, Ok(()));
                Ok(())
            }
            false => store.synchronize(call.id, object, range, flags),
        };
        if more {
            answer.map_err(|error| lost(format!("a synchronize with more to come: {error}")))?;
            self.tasks[task].call = Some(call);
            return Ok(());
        }
        self.conclude(task, &call, start, answer)
    }

    /// Returns a page once more, which the task has stored to meanwhile.
    fn return_again(&mut self, task: usize, mut call: Call) -> Result<(), Broken> {
        let (name, page, bytes) = &mut call.pages[self.random.below(call.returned)];
        scribble(&mut self.random, bytes);
        let flags = ReturnFlags {
            dirty: true,
            kernel_copy: !call.invalidate,
        };
        let (name, offset) = (name.clone(), (*page * bytes.len()) as u64);
        let open = self.tasks[task].open.get_mut(&name).expect("open objects stay");
        if let Some(resident) = open.resident.get_mut(page).filter(|resident| !resident.dirty) {
            resident.bytes.clone_from(bytes);
        }
        let (object, failed) = (open.object, self.disk.failed());
        if let Err(error) = self.store().data_return(call.id, object, offset, bytes, flags) {
            self.read_refused(failed, &error, &format!("returning page {page} of {name} again"))?;
            return self.abort(task, &call);
        }
        self.tasks[task].note_address(&mut call, &name);
        self.tasks[task].call = Some(call);
        Ok(())
    }

    fn abort(&mut self, task: usize, call: &Call) -> Result<(), Broken> {
        self.store().abort(call.id);
        self.tasks[task].mark_dirty(&call.pages);
        self.compare("abort")
    }

    fn range(&self, name: &str) -> ByteRange {
        ByteRange::new(0, self.supplied[name].bytes.len() as u64)
    }

    /// What is supplied after `call`.
    fn with(&self, call: &Call) -> Contents {
        let mut would = self.supplied.clone();
        for (name, page, bytes) in &call.pages {
            let object = would.get_mut(name).expect("open objects stay");
            object.bytes[page * bytes.len()..(page + 1) * bytes.len()].copy_from_slice(bytes);
            object.entry.version = None;
        }
        for (name, address) in &call.addresses {
            let object = would.get_mut(name).expect("open objects stay");
            let address = Some(Some(*address));
            if object.bytes != self.supplied[name].bytes {
                object.entry.address = address;
            } else if object.entry.address != address {
                // It goes with changed pages only, and pages that changed and changed back are such.
                object.entry.address = None;
            }
        }
        would
    }

    /// The call was sent: takes its completions, which all say the same, and brings the model up to date.
    fn conclude(
        &mut self,
        task: usize,
        call: &Call,
        start: usize,
        answer: Result<(), PagerError>,
    ) -> Result<(), Broken> {
        let mut outcomes = vec![];
        for name in &call.objects {
            let completed = self.tasks[task].open[name].ear.take_completed();
            if answer.is_ok() && (completed.len() != 1 || completed[0].0 != self.range(name)) {
                return Err(lost(format!(
                    "{} completions for {name} instead of one",
                    completed.len()
                )));
            }
            outcomes.extend(completed.into_iter().map(|(_, outcome)| outcome));
        }
        outcomes.push(answer.and_then(|()| outcomes.first().cloned().unwrap_or(Ok(()))));
        if outcomes.iter().any(Result::is_ok) != outcomes.iter().all(Result::is_ok) {
            return Err(mixed("one call's completions contradict each other"));
        }
        let kind = if call.synchronous { "SYNC" } else { "ASYNC" };
        let what = format!(
            "{kind} of {} pages of {}",
            call.pages.len(),
            call.objects.join(" and ")
        );
        let would = self.with(call);
        if let Some(Err(error)) = outcomes.pop() {
            // What was lost meanwhile, the call may rest on.
            self.refused(call.failed, &error, &what)?;
            self.tasks[task].mark_dirty(&call.pages);
            self.failed(start, &would, &what)?;
            return match self.random.once_in(TRY_AGAIN_ONCE_IN) {
                true => self.try_again(task),
                false => Ok(()),
            };
        }
        self.supplied = would;
        if call.invalidate {
            self.tasks[task].invalidate(&call.pages);
        }
        if call.synchronous {
            return self.promised(start, &what);
        }
        let state = print(&self.supplied);
        self.step(start, false, state, what.clone());
        self.compare(&what)
    }
}
