//! `vm_msync` of the model, and what else cleans pages.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec,
    vec::Vec,
};

use super::{Held, Kind, Model, Outcome, ReturnedPage, Share, refused};
use crate::{
    KernReturn, PagerErrorKind,
    abi::VmSync,
    pager::{LockRequest, ReturnPages},
};

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
pub(super) struct Effect {
    returns_dirty: bool,
    returns_precious: bool,
    returns_resident: bool,
    drops: Drops,
    synchronous: bool,
}

const EVICT: Effect = Effect {
    returns_dirty: false,
    returns_precious: false,
    returns_resident: false,
    drops: Drops::Clean,
    synchronous: true,
};

/// The last mapping goes: precious pages are returned, the rest is forgotten.
pub(super) const UNMAP: Effect = Effect {
    drops: Drops::Unmapped,
    ..EVICT
};

/// A run of one object's pages in a task's memory: what one `synchronize` covers.
#[derive(Clone, Debug)]
pub(super) struct Run {
    object: usize,
    writer: bool,
    /// The pager is asked even if nothing is returned.
    asks: bool,
    wired: bool,
    /// Pages of linear memory, ascending.
    pages: Vec<u64>,
    error: Option<PagerErrorKind>,
    supply_error: Option<PagerErrorKind>,
    returned: Vec<u64>,
    dropped: Vec<u64>,
    /// No other call may have to do with its pages.
    holds: bool,
    /// Its pager owes the answer.
    waits: bool,
    /// The pager has lost some of what it had of it since the call began.
    lost: bool,
}

impl Run {
    /// Its pager may be asked for it.
    fn takes_part(&self) -> bool {
        self.writer || self.asks
    }
}

/// How a call has ended.
pub(super) struct Ended {
    /// What the caller sees of it.
    pub error: Option<KernReturn>,
    /// Nothing went wrong but in dropping pages, and with what takes no part.
    is_written_back: bool,
    /// What went to pagers.
    pub returned: Vec<ReturnedPage>,
}

impl From<Ended> for Outcome {
    fn from(ended: Ended) -> Self {
        Self {
            result: ended.error.unwrap_or(KernReturn::Success),
            returned: ended.returned,
        }
    }
}

/// What one call has begun to do to pages of a task.
#[derive(Clone, Debug)]
struct Begun {
    task: usize,
    runs: Vec<Run>,
    effect: Effect,
    returned: Vec<ReturnedPage>,
    /// An earlier call's range is in the way.
    blocked: bool,
}

/// A `vm_msync` that has begun: the task that called is at rest until it has ended.
#[derive(Clone, Debug)]
pub(super) struct Call {
    begun: Begun,
    /// It is SYNC or ASYNC.
    asks: bool,
    /// The answer where nothing fails.
    good: KernReturn,
}

impl Model {
    /// `vm_msync`; `word_end` is one behind the highest address that the call's words can hold.
    pub fn msync(&mut self, task: usize, address: u64, size: u64, flags: VmSync, word_end: u64) -> Outcome {
        match self.begin_msync(task, address, size, flags, word_end) {
            Ok(_) => self.end_msync(task),
            Err(outcome) => outcome,
        }
    }

    /// The same up to where it would wait: what it has returned, or its outcome where it has nothing to do with pagers.
    ///
    /// # Errors
    /// The outcome.
    pub fn begin_msync(
        &mut self,
        task: usize,
        address: u64,
        size: u64,
        flags: VmSync,
        word_end: u64,
    ) -> Result<Vec<ReturnedPage>, Outcome> {
        let both = VmSync::ASYNCHRONOUS | VmSync::SYNCHRONOUS;
        if flags.has_unknown() || flags.contains(both) {
            return Err(refused(KernReturn::InvalidArgument));
        }
        if size == 0 {
            return Err(refused(KernReturn::Success));
        }
        let (pages, whole) = self.allocated(task, address, size, word_end).map_err(refused)?;
        if pages.is_empty() {
            return Err(refused(KernReturn::InvalidAddress));
        }
        let good = if !whole && flags.contains(VmSync::CONTIGUOUS) {
            KernReturn::InvalidAddress
        } else {
            KernReturn::Success
        };
        if flags.contains(VmSync::KILLPAGES) {
            self.kill(task, address, size);
            return Err(refused(good));
        }
        let asks = flags.intersects(both);
        let invalidate = flags.contains(VmSync::INVALIDATE);
        if !asks && !invalidate {
            return Err(refused(good));
        }
        let effect = Effect {
            returns_dirty: asks,
            returns_precious: asks,
            returns_resident: false,
            drops: if invalidate { Drops::All } else { Drops::Nothing },
            synchronous: !flags.contains(VmSync::ASYNCHRONOUS),
        };
        let mut runs = self.runs(task, &pages);
        if asks {
            runs.iter_mut().for_each(|run| run.asks = run.writer);
            if effect.synchronous {
                runs = self.ask_for_readers(task, runs);
            }
        }
        let begun = self.begin(task, runs, effect);
        let returned = begun.returned.clone();
        self.calls.insert(task, Call { begun, asks, good });
        Ok(returned)
    }

    /// Whether the task's call waits for a pager's answer.
    pub fn waits(&self, task: usize) -> bool {
        let call = self.calls.get(&task);
        call.is_some_and(|call| call.begun.runs.iter().any(|run| run.waits))
    }

    /// The task's call comes to its end: where pagers have not answered yet, the host gives up.
    ///
    /// # Panics
    /// When it has begun none.
    pub fn end_msync(&mut self, task: usize) -> Outcome {
        let Call { begun, asks, good } = self.calls.remove(&task).expect("a call has begun");
        let order: Vec<usize> = begun.runs.iter().map(|run| run.object).collect();
        let objects: BTreeSet<usize> = order.iter().copied().collect();
        let ended = self.end(begun);
        let mut result = ended.error.unwrap_or(good);
        if asks {
            let told = self.tell(task, &objects, &order);
            if ended.is_written_back {
                result = told.unwrap_or(result);
            }
        }
        Outcome {
            result,
            returned: ended.returned,
        }
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
        self.clean(task, runs, EVICT).into()
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
            synchronous: true,
        };
        let runs = self.runs(task, &wanted);
        self.clean(task, runs, effect).into()
    }

    /// The runs of objects' pages among `pages`, which are ascending.
    pub(super) fn runs(&self, task: usize, pages: &[u64]) -> Vec<Run> {
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
                    asks: false,
                    wired: page.wired > 0,
                    pages: vec![*address],
                    error: None,
                    supply_error: None,
                    returned: Vec::new(),
                    dropped: Vec::new(),
                    holds: false,
                    waits: false,
                    lost: false,
                }),
            }
        }
        runs
    }

    /// Splits readers' runs: each page of an object is asked for once, for a writer's run or else for the first that shows it.
    fn ask_for_readers(&self, task: usize, runs: Vec<Run>) -> Vec<Run> {
        let place = |run: &Run, address: u64| (run.object, self.object_page(task, address));
        let writers = runs.iter().filter(|run| run.writer);
        let mut asked: BTreeSet<(usize, u64)> = writers
            .flat_map(|run| run.pages.iter().map(|address| place(run, *address)))
            .collect();
        let mut all = Vec::new();
        for run in runs {
            if run.writer {
                all.push(run);
                continue;
            }
            let pages = run.pages.iter();
            let pages: Vec<(u64, bool)> = pages
                .map(|address| (*address, asked.insert(place(&run, *address))))
                .collect();
            all.extend(pages.chunk_by(|one, next| one.1 == next.1).map(|part| Run {
                asks: part[0].1,
                pages: part.iter().map(|(address, _)| *address).collect(),
                ..run.clone()
            }));
        }
        all
    }

    fn object_page(&self, task: usize, address: u64) -> u64 {
        match self.page(task, address).kind {
            Kind::Object { page, .. } => page,
            _ => u64::MAX,
        }
    }

    /// Returns, waits, drops.
    pub(super) fn clean(&mut self, task: usize, runs: Vec<Run>, effect: Effect) -> Ended {
        let begun = self.begin(task, runs, effect);
        self.end(begun)
    }

    /// Returns, and asks the pagers.
    fn begin(&mut self, task: usize, mut runs: Vec<Run>, effect: Effect) -> Begun {
        let blocked = self.is_blocked(task, &mut runs);
        let mut returned = Vec::new();
        if !blocked {
            returned = self.return_pages(task, &mut runs, effect);
            self.spread(&mut runs);
            for run in &mut runs {
                run.holds = run.takes_part() && run.error.is_none();
            }
            let pagers: BTreeSet<usize> = runs.iter().map(|run| self.objects[run.object].pager).collect();
            for pager in pagers {
                let forgets = self.ask(task, pager, &mut runs, effect);
                for run in runs
                    .iter_mut()
                    .filter(|run| self.objects[run.object].pager == pager)
                {
                    run.holds &= !forgets;
                }
            }
        }
        Begun {
            task,
            runs,
            effect,
            returned,
            blocked,
        }
    }

    /// Gives up what was not answered, and drops.
    fn end(&mut self, begun: Begun) -> Ended {
        let Begun {
            task,
            mut runs,
            effect,
            returned,
            blocked,
        } = begun;
        if blocked {
            let error = runs.iter().find_map(|run| run.error);
            return Ended {
                error: error.map(PagerErrorKind::write_back),
                is_written_back: false,
                returned,
            };
        }
        for run in runs.iter_mut().filter(|run| run.waits) {
            run.error = Some(PagerErrorKind::TimedOut);
        }
        for held in self.held.iter_mut().filter(|held| held.waiter == Some(task)) {
            held.waiter = None;
        }
        self.spread(&mut runs);
        if !effect.synchronous {
            for run in &runs {
                if let Some(kind) = run.error {
                    self.record(run.object, kind.write_back());
                }
            }
        }
        for run in runs.iter_mut().filter(|run| run.error.is_none() && !run.lost) {
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
        Ended {
            error: write_back.or(supply),
            is_written_back: !runs.iter().any(|run| run.takes_part() && run.error.is_some()),
            returned,
        }
    }

    /// Marks runs of objects that are gone. Whether the call waits in vain for another, or for a pager's answer to an earlier one.
    fn is_blocked(&self, task: usize, runs: &mut [Run]) -> bool {
        let mut held = BTreeSet::new();
        for begun in self.calls.values().map(|call| &call.begun) {
            for run in begun.runs.iter().filter(|run| run.holds) {
                let pages = run.pages.iter();
                held.extend(pages.map(|address| (run.object, self.object_page(begun.task, *address))));
            }
        }
        let mut order: Vec<usize> = (0..runs.len()).collect();
        order.sort_by_key(|index| (runs[*index].object, self.object_page(task, runs[*index].pages[0])));
        for index in order {
            let run = &mut runs[index];
            let object = &self.objects[run.object];
            let (number, owed) = (run.object, &object.owed);
            let is_taken = |address: &u64| {
                let page = self.object_page(task, *address);
                owed.contains(&page) || held.contains(&(number, page))
            };
            if object.gone {
                (run.error, run.asks) = (Some(PagerErrorKind::Gone), false);
            } else if run.takes_part() && run.pages.iter().any(is_taken) {
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

    /// What fails for one run that takes part fails for every such run that goes to the same pager.
    fn spread(&self, runs: &mut [Run]) {
        let mut first = BTreeMap::new();
        for run in runs.iter().filter(|run| run.takes_part()) {
            if let Some(kind) = run.error {
                first.entry(self.objects[run.object].pager).or_insert(kind);
            }
        }
        for run in runs.iter_mut().filter(|run| run.takes_part()) {
            if let Some(kind) = first.get(&self.objects[run.object].pager) {
                run.error.get_or_insert(*kind);
            }
        }
    }

    /// One pager is asked to commit what it was given. Whether it refuses, and so is told to forget the call.
    fn ask(&mut self, task: usize, pager: usize, runs: &mut [Run], effect: Effect) -> bool {
        let mut asked: Vec<&mut Run> = runs
            .iter_mut()
            .filter(|run| self.objects[run.object].pager == pager && run.error.is_none())
            .filter(|run| run.asks || !run.returned.is_empty())
            .collect();
        if asked.is_empty() {
            return false;
        }
        let fault = self.faults.synchronizes.get(&pager).copied();
        let hangs = self.faults.hangs.contains(&pager);
        let hangs = hangs && fault.is_none();
        let failure = fault.or(self.faults.completions.get(&pager).copied().filter(|_| !hangs));
        for run in &mut asked {
            run.error = failure;
            run.waits = hangs;
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
            waiter: Some(task),
        };
        for run in &asked {
            held.asked.push((run.object, numbers(&run.pages)));
            let pages = numbers(&run.returned)
                .into_iter()
                .zip(run.returned.iter().map(bytes_of));
            held.returns
                .extend(pages.map(|(page, bytes)| (run.object, page, bytes)));
        }
        if hangs {
            for (object, pages) in &held.asked {
                self.objects[*object].owed.extend(pages);
            }
            self.held.push(held);
        } else if failure.is_none() {
            self.commit(&held);
        }
        fault.is_some()
    }

    /// What the pager of `task`'s call answers, for all objects or one.
    pub(super) fn answer(&mut self, task: usize, objects: &BTreeSet<usize>, error: Option<PagerErrorKind>) {
        let Some(call) = self.calls.get_mut(&task) else {
            return;
        };
        let runs = call.begun.runs.iter_mut();
        for run in runs.filter(|run| run.waits && objects.contains(&run.object)) {
            (run.waits, run.error) = (false, error);
        }
    }

    /// A pager has lost `pages`, of which calls may be under way.
    pub(super) fn lose_under_way(&mut self, object: usize, pages: &BTreeSet<u64>) {
        let mut calls = core::mem::take(&mut self.calls);
        for call in calls.values_mut() {
            let task = call.begun.task;
            for run in call.begun.runs.iter_mut().filter(|run| run.object == object) {
                let of_run = |address: &u64| pages.contains(&self.object_page(task, *address));
                run.lost |= run.pages.iter().any(of_run);
            }
        }
        self.calls = calls;
    }

    pub(super) fn commit(&mut self, held: &Held) {
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
            let page = self.page_mut(task, *address);
            page.dirty = false;
            page.precious &= effect.drops != Drops::Unmapped;
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
    pub(super) fn record(&mut self, object: usize, error: KernReturn) {
        self.objects[object].error = Some(error);
        self.objects[object].error_seen = false;
        for task in &mut self.tasks {
            for port in task.ports.values_mut().filter(|port| port.object == object) {
                port.pending = Some(error);
            }
        }
    }
}
