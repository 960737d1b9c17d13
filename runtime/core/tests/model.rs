//! Random calls against the implementation and against the oracle of `vmsync_core::model`, compared after each step.
//!
//! Two tasks share four objects of three pagers: one that copies, one that gives its only copies away, one whose image
//! is mapped. `SEED=` repeats a run; `PROPTEST_CASES=` makes it longer.

mod harness;

use std::{env, sync::Arc};

use proptest::{
    prelude::*,
    sample::select,
    test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner},
};
use vmsync_core::{
    ByteRange, KernReturn, PagerErrorKind,
    abi::{Behavior, Inherit, OpenFlags, VmProt, VmSync},
    model::{Faults, Kind, Model, Outcome, ReturnedPage, Share},
    msync::Msync,
    object::ObjectHandle,
    pager::{LockRequest, MemoryObjectControl, ReturnPages},
    task::MapRequest,
};

use harness::{Guest, Object, P, PAGE, TestPager, guest::call, memory::Images, object::error};

/// Pages of a task's memory at first.
const PAGES: u64 = 20;
/// Pages that memory grows to at most.
const PAGES_MAX: u64 = 28;
/// Steps of one case.
const STEPS_MAX: usize = 60;
/// Cases where the environment does not say.
const CASES: u32 = 250;
/// Name, pager and pages of each object.
const OBJECTS: [(char, usize, u64); 4] = [('a', 0, 6), ('b', 0, 4), ('c', 1, 5), ('d', 2, 6)];
/// The pager that gives its only copies away, and the one with images.
const MOVER: usize = 1;
const MAPPER: usize = 2;
/// One behind the highest address of each task.
const ENDS: [u64; 2] = [u64::MAX, 1 << 32];

/// What a pager can ask for.
const WHICH: [ReturnPages; 4] = [
    ReturnPages::None,
    ReturnPages::Dirty,
    ReturnPages::All,
    ReturnPages::Anything,
];

/// A range as a guest would give it.
#[derive(Clone, Copy, Debug)]
struct Span {
    address: u64,
    size: u64,
}

#[derive(Clone, Debug)]
enum Step {
    Store {
        address: u64,
        length: u64,
        byte: u8,
    },
    Msync {
        span: Span,
        flags: u32,
        narrow: bool,
    },
    Map {
        span: Span,
        port: usize,
        offset: u64,
        flags: u8,
        protection: u32,
        maximum: u32,
    },
    Open {
        object: usize,
        rights: u32,
    },
    Close {
        port: usize,
    },
    Deallocate {
        span: Span,
    },
    Protect {
        span: Span,
        maximum: bool,
        protection: u32,
    },
    Wire {
        span: Span,
        wired: bool,
    },
    Behave {
        span: Span,
        behavior: i32,
    },
    Evict {
        span: Span,
    },
    LockRequest {
        object: usize,
        pages: (u64, u64),
        which: u8,
        flush: bool,
        prohibit: Option<u32>,
    },
    Grow {
        pages: u64,
    },
    Place {
        size: u64,
        mask: u64,
    },
    Fault {
        which: u8,
        object: usize,
        page: u64,
        kind: u8,
    },
    Heal,
    FlushQueue {
        pager: usize,
    },
    FailQueue {
        object: usize,
        kind: u8,
    },
    Overwrite {
        object: usize,
        page: u64,
        byte: u8,
    },
    Destroy {
        object: usize,
    },
    Terminate,
    Crash,
    /// A call that is left to wait for `pager`.
    Begin {
        span: Span,
        flags: u32,
        pager: usize,
    },
    /// The task's call ends: with the pagers' answers, or without.
    End {
        answered: bool,
    },
}

fn edges() -> impl Strategy<Value = u64> {
    select(vec![
        0,
        1,
        P - 1,
        P,
        PAGES * P - 1,
        PAGES * P,
        (1 << 32) - P - 1,
        (1 << 32) - P,
        (1 << 32) - P + 1,
        (1 << 32) - 1,
        1 << 32,
        1 << 63,
        u64::MAX - P,
        u64::MAX - P + 1,
        u64::MAX - P + 2,
        u64::MAX - 1,
        u64::MAX,
    ])
}

fn span() -> impl Strategy<Value = Span> {
    let pages = (0..PAGES + 2, 0..9u64).prop_map(|(page, pages)| (page * P, pages * P));
    let bytes = (0..PAGES * P, 0..4 * P);
    prop_oneof![10 => pages, 4 => bytes, 1 => (edges(), edges()), 1 => (0..PAGES * P, edges())]
        .prop_map(|(address, size)| Span { address, size })
}

/// The flags that mean something, often; any bits, sometimes.
fn sync_flags() -> impl Strategy<Value = u32> {
    prop_oneof![
        12 => select(vec![0x01, 0x01, 0x02, 0x04, 0x05, 0x06, 0x22, 0x26]),
        3 => 0..0x80u32,
        1 => any::<u32>(),
    ]
}

fn protection() -> impl Strategy<Value = u32> {
    prop_oneof![12 => Just(3u32), 3 => 0..4u32, 1 => any::<u32>()]
}

/// Protection and maximum of a mapping: writers, readers, anything.
fn access() -> impl Strategy<Value = (u32, u32)> {
    prop_oneof![
        6 => Just((3, 3)),
        3 => Just((1, 1)),
        1 => Just((1, 3)),
        1 => (protection(), protection()),
    ]
}

/// Where a mapping goes: a few pages, as a rule.
fn window() -> impl Strategy<Value = Span> {
    let few = (0..PAGES, 1..4u64).prop_map(|(page, pages)| Span {
        address: page * P,
        size: pages * P,
    });
    prop_oneof![4 => few, 1 => span()]
}

/// A call over much that may wait for a pager.
fn begun() -> impl Strategy<Value = (Span, u32, usize)> {
    let all = Just(Span {
        address: 0,
        size: PAGES * P,
    });
    let flags = select(vec![0x01, 0x02, 0x02, 0x06, 0x05]);
    (prop_oneof![4 => all, 1 => span()], flags, 0..3usize)
}

fn calls() -> impl Strategy<Value = Step> {
    let offset = prop_oneof![6 => (0..5u64).prop_map(|page| page * P), 1 => edges()];
    let map = (window(), 0..6usize, offset, any::<u8>(), access());
    prop_oneof![
        12 => (0..PAGES * P, 1..40u64, 1..255u8)
            .prop_map(|(address, length, byte)| Step::Store { address, length, byte }),
        10 => (span(), sync_flags(), any::<bool>())
            .prop_map(|(span, flags, narrow)| Step::Msync { span, flags, narrow }),
        8 => map.prop_map(|(span, port, offset, flags, (protection, maximum))| Step::Map {
            span, port, offset, flags, protection, maximum,
        }),
        3 => (0..OBJECTS.len(), select(vec![3, 3, 3, 1, 2, 0]))
            .prop_map(|(object, rights)| Step::Open { object, rights }),
        2 => (0..6usize).prop_map(|port| Step::Close { port }),
        2 => span().prop_map(|span| Step::Deallocate { span }),
        6 => begun().prop_map(|(span, flags, pager)| Step::Begin { span, flags, pager }),
        4 => prop::bool::weighted(0.7).prop_map(|answered| Step::End { answered }),
        2 => (span(), any::<bool>(), protection())
            .prop_map(|(span, maximum, protection)| Step::Protect { span, maximum, protection }),
        2 => (span(), any::<bool>()).prop_map(|(span, wired)| Step::Wire { span, wired }),
        2 => (span(), select(vec![0, 1, 2, 4, 5, 6, 12, 12, 12]))
            .prop_map(|(span, behavior)| Step::Behave { span, behavior }),
    ]
}

fn world_events() -> impl Strategy<Value = Step> {
    let object = 0..OBJECTS.len();
    let prohibit = prop::option::weighted(0.3, 0..4u32);
    let request = (
        object.clone(),
        (0..7u64, 0..7u64),
        0..4u8,
        any::<bool>(),
        prohibit,
    );
    let fault = (select(vec![0, 1, 1, 2, 3, 4]), object.clone(), 0..6u64, 0..4u8);
    prop_oneof![
        3 => span().prop_map(|span| Step::Evict { span }),
        4 => request.prop_map(|(object, pages, which, flush, prohibit)| Step::LockRequest {
            object, pages, which, flush, prohibit,
        }),
        1 => (0..PAGES_MAX).prop_map(|pages| Step::Grow { pages }),
        1 => (prop_oneof![3 => 0..6 * P, 1 => edges()], select(vec![0, P - 1, 4 * P - 1, 5, 1 << 62, u64::MAX / 2, u64::MAX]))
            .prop_map(|(size, mask)| Step::Place { size, mask }),
        4 => fault.prop_map(|(which, object, page, kind)| Step::Fault { which, object, page, kind }),
        4 => Just(Step::Heal),
        1 => (0..3usize).prop_map(|pager| Step::FlushQueue { pager }),
        4 => (object.clone(), 0..4u8).prop_map(|(object, kind)| Step::FailQueue { object, kind }),
        1 => (object.clone(), 0..6u64, any::<u8>())
            .prop_map(|(object, page, byte)| Step::Overwrite { object, page, byte }),
        1 => prop_oneof![
            2 => object.prop_map(|object| Step::Destroy { object }),
            1 => Just(Step::Terminate),
            2 => Just(Step::Crash),
        ],
    ]
}

/// Which objects each task maps at first, and the steps.
fn run() -> impl Strategy<Value = (u8, Vec<(usize, Step)>)> {
    let step = prop_oneof![3 => calls(), 1 => world_events()];
    (
        any::<u8>(),
        prop::collection::vec((0..2usize, step), 1..STEPS_MAX),
    )
}

/// The implementation and the oracle.
struct World {
    model: Model,
    pagers: [Arc<TestPager>; 3],
    images: Images,
    objects: Vec<Object>,
    /// By the oracle's index of the task.
    guests: Vec<Guest>,
    /// The two tasks that are alive.
    slots: [usize; 2],
    /// Ports that were ever opened, by slot.
    ports: [Vec<u32>; 2],
    /// Objects that each task maps at first, a bit for each.
    mapped: [u8; 2],
    /// The call of each slot's task that waits for pagers; until it ends the task does nothing else.
    calls: [Option<Msync<Object>>; 2],
}

impl World {
    fn new(mapped: u8) -> Self {
        let images = Images::default();
        let pagers = [
            TestPager::new(),
            TestPager::new(),
            TestPager::with_images(Some(images.clone())),
        ];
        let mut model = Model::new(PAGE);
        for (_, pager, pages) in OBJECTS {
            model.add_object(pager, pages, pager == MOVER, pager == MAPPER);
        }
        let mut world = Self {
            model,
            pagers,
            images,
            objects: Vec::new(),
            guests: Vec::new(),
            slots: [0; 2],
            ports: Default::default(),
            mapped: [mapped & 0xf, mapped >> 4],
            calls: [None, None],
        };
        world.boot();
        world
    }

    /// Objects are opened anew, and each task begins with its mappings.
    fn boot(&mut self) {
        self.guests.clear();
        self.objects = OBJECTS
            .map(|(name, pager, pages)| Object::new(&self.pagers[pager], name, pages))
            .to_vec();
        for (object, (_, pager, _)) in self.objects.iter().zip(OBJECTS) {
            if pager == MOVER {
                self.pagers[pager].script(|script| _ = script.moves.insert(object.id()));
            }
        }
        for slot in 0..2 {
            self.start_task(slot);
        }
    }

    fn start_task(&mut self, slot: usize) {
        let guest = Guest::with_end(PAGES, ENDS[slot], self.images.clone());
        self.guests.push(guest);
        self.slots[slot] = self.model.add_task(PAGES, ENDS[slot]);
        self.ports[slot].clear();
        assert_eq!(self.slots[slot] + 1, self.guests.len());
        for (object, (_, _, pages)) in OBJECTS.into_iter().enumerate() {
            self.open(slot, object, 3);
            if self.mapped[slot] >> object & 1 == 0 {
                continue;
            }
            // The first task writes the lower half of each object, the second the upper one.
            let half = pages / 2;
            let span = Span {
                address: (2 + 4 * object as u64) * P,
                size: half * P,
            };
            self.map(slot, span, (object, slot as u64 * half * P), 0, (3, 3));
        }
    }

    fn open(&mut self, slot: usize, object: usize, rights: u32) {
        let task = self.slots[slot];
        let port = self.guests[task]
            .task
            .open_object(self.objects[object].clone(), OpenFlags(rights))
            .expect("ports are not used up");
        self.model.open(task, port, object, VmProt(rights & 3));
        self.ports[slot].push(port);
    }

    fn map(&mut self, slot: usize, span: Span, (port, offset): (usize, u64), flags: u8, access: (u32, u32)) {
        let task = self.slots[slot];
        let request = MapRequest {
            address: span.address,
            size: span.size,
            overwrite: flags & 1 == 1,
            port: self.ports[slot].get(port).copied().unwrap_or(0),
            offset,
            copy: flags & 0x1c == 0x1c,
            protection: VmProt(access.0),
            max_protection: VmProt(access.1),
            inherit: if flags & 0x20 == 0 {
                Inherit::Copy
            } else {
                Inherit::Share
            },
        };
        let found: KernReturn = self.guests[task].map_with(&request).into();
        assert_eq!(found, self.model.map(task, &request), "{request:?}");
    }

    fn check(&mut self, outcome: &Outcome, found: KernReturn) {
        assert_eq!(found, outcome.result);
        self.check_returned(&outcome.returned);
    }

    fn check_returned(&mut self, expected: &[ReturnedPage]) {
        let mut expected: Vec<_> = expected
            .iter()
            .map(|page| (self.objects[page.object].id(), page.page, page.dirty))
            .collect();
        expected.sort_unstable();
        let mut returned: Vec<_> = self
            .pagers
            .iter()
            .flat_map(|pager| pager.take_returned())
            .collect();
        returned.sort_unstable();
        assert_eq!(returned, expected, "pages returned");
    }

    fn step(&mut self, slot: usize, step: &Step) {
        match *step {
            Step::End { answered } => return self.end(slot, answered),
            // Whoever takes a task down drops its call.
            Step::Terminate => self.end(slot, false),
            Step::Crash => (0..2).for_each(|slot| self.end(slot, false)),
            Step::Fault { .. }
            | Step::Heal
            | Step::FlushQueue { .. }
            | Step::FailQueue { .. }
            | Step::Overwrite { .. }
            | Step::Destroy { .. } => {}
            _ if self.calls[slot].is_some() => return,
            _ => {}
        }
        let task = self.slots[slot];
        let guest = &mut self.guests[task];
        match *step {
            Step::Store {
                address,
                length,
                byte,
            } => {
                let bytes = vec![byte; length as usize];
                let stored = guest.memory.store(address, &bytes);
                assert_eq!(stored, self.model.store(task, address, &bytes));
            }
            Step::Map {
                span,
                port,
                offset,
                flags,
                protection,
                maximum,
            } => {
                self.map(slot, span, (port, offset), flags, (protection, maximum));
            }
            Step::Open { object, rights } => self.open(slot, object, rights),
            Step::Close { port } => {
                let port = self.ports[slot].get(port).copied().unwrap_or(7);
                let closed: KernReturn = guest.task.close_object(port).into();
                assert_eq!(closed, self.model.close(task, port));
            }
            Step::Protect {
                span,
                maximum,
                protection,
            } => {
                let set = guest.task.protect(
                    span.address,
                    span.size,
                    maximum,
                    VmProt(protection),
                    &mut guest.memory,
                );
                let expected = self
                    .model
                    .protect(task, span.address, span.size, maximum, VmProt(protection));
                assert_eq!(KernReturn::from(set), expected);
            }
            Step::Wire { span, wired } => {
                let set: KernReturn = guest.task.wire(span.address, span.size, wired).into();
                assert_eq!(set, self.model.wire(task, span.address, span.size, wired));
            }
            Step::Behave { span, behavior } => {
                let behavior = Behavior::from_code(behavior).expect("one of the codes");
                let set = guest
                    .task
                    .behavior_set(span.address, span.size, behavior, &mut guest.memory);
                let expected = self.model.behavior_set(task, span.address, span.size, behavior);
                assert_eq!(KernReturn::from(set), expected);
            }
            _ => self.step_of_pagers(slot, step),
        }
    }

    /// Begins a call; it waits where `pager` has to do with it, or another that hangs.
    fn begin(&mut self, slot: usize, span: Span, flags: VmSync, pager: usize) {
        let task = self.slots[slot];
        let hung = !self.model.faults.hangs.insert(pager);
        self.pagers[pager].script(|script| script.hold = true);
        let guest = &mut self.guests[task];
        let started = guest.start_bytes(span.address, span.size, flags);
        let begun = self
            .model
            .begin_msync(task, span.address, span.size, flags, u64::MAX);
        match (started, begun) {
            (Ok(mut msync), Ok(returned)) if self.model.waits(task) => {
                assert!(guest.blocks(&mut msync), "it does not wait");
                self.check_returned(&returned);
                self.calls[slot] = Some(msync);
            }
            (started, begun) => {
                let found =
                    started.map_or_else(|error| error, |mut msync| guest.finish_impatient(&mut msync));
                let outcome = begun.map_or_else(|outcome| outcome, |_| self.model.end_msync(task));
                self.check(&outcome, found);
            }
        }
        if !hung {
            self.model.faults.hangs.remove(&pager);
            self.pagers[pager].script(|script| script.hold = false);
        }
    }

    /// Ends the call of the slot's task, if there is one.
    fn end(&mut self, slot: usize, answered: bool) {
        let Some(mut msync) = self.calls[slot].take() else {
            return;
        };
        if answered {
            for (index, pager) in self.pagers.iter().enumerate() {
                pager.release();
                self.model.answer_late(index);
            }
        }
        let task = self.slots[slot];
        let guest = &mut self.guests[task];
        let found = if answered {
            guest.finish(&mut msync)
        } else {
            guest.finish_impatient(&mut msync)
        };
        let outcome = self.model.end_msync(task);
        assert_eq!(found, outcome.result, "the call that has begun before");
    }

    /// Calls that a pager takes part in.
    fn step_of_pagers(&mut self, slot: usize, step: &Step) {
        let task = self.slots[slot];
        let guest = &mut self.guests[task];
        match *step {
            Step::Msync { span, flags, narrow } => {
                let word_end = if narrow { ENDS[slot] } else { u64::MAX };
                let flags = VmSync(flags);
                let started = guest.task.msync(
                    span.address,
                    span.size,
                    flags,
                    word_end,
                    call(),
                    &mut guest.memory,
                );
                let found = match started {
                    Ok(mut msync) => guest.finish_impatient(&mut msync),
                    Err(error) => error,
                };
                let outcome = self.model.msync(task, span.address, span.size, flags, word_end);
                self.check(&outcome, found);
            }
            Step::Begin { span, flags, pager } => self.begin(slot, span, VmSync(flags), pager),
            Step::Deallocate { span } => {
                let begun = guest
                    .task
                    .deallocate(span.address, span.size, call(), &mut guest.memory);
                let found = match begun {
                    Err(error) => error,
                    Ok(mut deallocation) => {
                        guest.finish_impatient(&mut deallocation.returns);
                        guest
                            .task
                            .finish_deallocate(&deallocation, &mut guest.memory)
                            .into()
                    }
                };
                let outcome = self.model.deallocate(task, span.address, span.size);
                self.check(&outcome, found);
            }
            Step::Evict { span } => {
                let found = match guest.task.evict(span.address, span.size, call()) {
                    Ok(mut msync) => guest.finish_impatient(&mut msync),
                    Err(error) => error,
                };
                let outcome = self.model.evict(task, span.address, span.size);
                self.check(&outcome, found);
            }
            Step::LockRequest {
                object,
                pages,
                which,
                flush,
                prohibit,
            } => {
                let (first, last) = (pages.0.min(pages.1), pages.0.max(pages.1));
                let request = LockRequest {
                    range: ByteRange::new(first * P, last * P),
                    should_return: WHICH[usize::from(which)],
                    flush,
                    prohibit: prohibit.map(VmProt),
                };
                self.lock_request(task, object, &request);
            }
            _ => self.event(slot, step),
        }
    }

    fn lock_request(&mut self, task: usize, object: usize, request: &LockRequest) {
        let guest = &mut self.guests[task];
        let started = guest
            .task
            .lock_request(&self.objects[object], request, call(), &mut guest.memory);
        let found = guest.finish_impatient(&mut started.expect("the map has room"));
        let outcome = self.model.lock_request(task, object, request);
        self.check(&outcome, found);
    }

    /// What happens to memory, pagers and machines.
    fn event(&mut self, slot: usize, step: &Step) {
        let task = self.slots[slot];
        match *step {
            Step::Fault {
                which,
                object,
                page,
                kind,
            } => self.inject(which, object, page, kind_of(kind)),
            Step::Grow { pages } => {
                let guest = &mut self.guests[task];
                let size = guest.memory_size().max(pages * P);
                guest.memory.grow(PAGE.page_of(size));
                guest.task.observe_size(size);
                self.model.grow(task, pages);
            }
            Step::Place { size, mask } => {
                let place = self.guests[task].task.place(size, mask, 0);
                let found = place.map(|place| (place.address, place.memory_size));
                assert_eq!(found, self.model.place(task, size, mask));
            }
            Step::Heal => self.heal(),
            Step::FlushQueue { pager } => {
                self.pagers[pager].flush_queue();
                self.model.flush_queue(pager);
            }
            Step::FailQueue { object, kind } => {
                let pager = OBJECTS[object].1;
                self.pagers[pager].fail_queue(self.objects[object].id(), kind_of(kind));
                self.model.fail_queue(object, kind_of(kind));
            }
            Step::Overwrite { object, page, byte } => {
                let page = page % OBJECTS[object].2;
                self.pagers[OBJECTS[object].1].overwrite(self.objects[object].id(), page, byte);
                self.model.overwrite(object, page, byte);
            }
            Step::Destroy { object } => {
                let reason = error(PagerErrorKind::Io);
                self.objects[object].control().destroy(reason);
                self.model.destroy(object);
            }
            Step::Terminate => {
                self.guests[task].task.terminate();
                self.model.terminate(task);
                self.start_task(slot);
            }
            Step::Crash => {
                self.model.crash();
                for guest in &mut self.guests {
                    guest.task.terminate();
                }
                for pager in &self.pagers {
                    pager.crash();
                }
                self.boot();
            }
            _ => unreachable!("every step is carried out by one of the three"),
        }
    }

    fn inject(&mut self, which: u8, object: usize, page: u64, kind: PagerErrorKind) {
        let pager = OBJECTS[object].1;
        let key = (self.objects[object].id(), page);
        let faults = &mut self.model.faults;
        self.pagers[pager].script(|script| match which {
            0 => {
                script.returns_fail.insert(key, kind);
                faults.returns.insert((object, page), kind);
            }
            1 => {
                script.supplies_fail.insert(key, kind);
                faults.supplies.insert((object, page), kind);
            }
            2 => {
                script.synchronize_fails = Some(kind);
                faults.synchronizes.insert(pager, kind);
            }
            3 => {
                script.completion_fails = Some(kind);
                faults.completions.insert(pager, kind);
            }
            _ => {
                script.hold = true;
                faults.hangs.insert(pager);
            }
        });
    }

    /// Every pager works again, and answers what it owes.
    fn heal(&mut self) {
        self.model.faults = Faults {
            hangs: std::mem::take(&mut self.model.faults.hangs),
            ..Faults::default()
        };
        for (index, pager) in self.pagers.iter().enumerate() {
            pager.script(|script| {
                script.returns_fail.clear();
                script.supplies_fail.clear();
                script.synchronize_fails = None;
                script.completion_fails = None;
            });
            pager.release();
            self.model.answer_late(index);
        }
    }

    fn compare(&self) {
        for (index, (object, (_, pager, pages))) in self.objects.iter().zip(OBJECTS).enumerate() {
            let expected = &self.model.objects[index];
            for page in 0..pages {
                let at = page as usize;
                let pager = &self.pagers[pager];
                assert!(
                    *expected.accepted[at] == pager.accepted(object.id(), page),
                    "accepted page {page} of {index}"
                );
                assert!(
                    *expected.durable[at] == pager.durable(object.id(), page),
                    "durable page {page} of {index}"
                );
            }
        }
        for task in self.slots {
            self.compare_task(task);
        }
    }

    fn compare_task(&self, task: usize) {
        let (guest, expected) = (&self.guests[task], &self.model.tasks[task]);
        assert_eq!(guest.memory_size(), expected.pages.len() as u64 * P);
        for (address, page) in (0..).zip(&expected.pages) {
            if page.kind == Kind::Hole {
                assert!(
                    !guest.memory.allows(address, VmProt::READ),
                    "page {address} is a hole"
                );
                continue;
            }
            assert!(
                *page.bytes == guest.memory.page(address),
                "bytes of page {address} of task {task}"
            );
            for access in [VmProt::READ, VmProt::WRITE] {
                assert_eq!(
                    guest.memory.allows(address, access),
                    page.protection.contains(access),
                    "page {address}"
                );
            }
            if let Kind::Object {
                object,
                page: number,
                share: Share::Writer,
            } = page.kind
            {
                let (known, precious) = self.objects[object].with(|object| {
                    let dirty = object.dirty.contains(number) || object.stored.contains(number);
                    (dirty, object.precious.contains(number))
                });
                let dirty = known || guest.memory.marks().contains(&address);
                assert_eq!(dirty, page.dirty, "dirty: page {address} of task {task}");
                assert_eq!(precious, page.precious, "precious: page {address} of task {task}");
            }
        }
        self.compare_regions(task);
    }

    fn compare_regions(&self, task: usize) {
        let guest = &self.guests[task];
        let mut address = 0;
        loop {
            let found = guest.task.region(address);
            let expected = self.model.region(task, address);
            let pages = found.ok().map(|region| {
                let properties = &self.model.tasks[task].pages[PAGE.page_of(region.range.start) as usize];
                assert_eq!(region.info.protection, properties.protection.0);
                assert_eq!(region.info.max_protection, properties.max_protection.0);
                assert_eq!(region.info.user_wired_count, properties.wired);
                assert_eq!(region.info.behavior, properties.behavior as i32);
                assert_eq!(region.info.inheritance, properties.inherit as i32);
                (
                    PAGE.page_of(region.range.start),
                    PAGE.page_of(region.range.end) - 1,
                )
            });
            assert_eq!(pages, expected, "region at {address:#x}");
            match pages {
                Some((_, last)) => address = (last + 1) * P,
                None => break,
            }
        }
    }
}

fn kind_of(number: u8) -> PagerErrorKind {
    [
        PagerErrorKind::Io,
        PagerErrorKind::NoSpace,
        PagerErrorKind::Unavailable,
        PagerErrorKind::Gone,
    ][usize::from(number)]
}

/// The seed of the environment, else a fresh one.
fn seed() -> u64 {
    match env::var("SEED") {
        Ok(text) => text.parse().expect("SEED is a number"),
        Err(_) => {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            now.map_or(0, |elapsed| elapsed.as_nanos() as u64)
        }
    }
}

#[test]
fn random_calls_answer_as_the_oracle_does() {
    let seed = seed();
    println!("SEED={seed}");
    let cases = match env::var("PROPTEST_CASES") {
        Ok(text) => text.parse().expect("PROPTEST_CASES is a number"),
        Err(_) => CASES,
    };
    let config = Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let random = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(config, random);
    let result = runner.run(&run(), |(mapped, steps)| {
        let mut world = World::new(mapped);
        for (slot, step) in &steps {
            world.step(*slot, step);
            world.compare();
        }
        Ok(())
    });
    match result {
        Ok(()) => {}
        Err(TestError::Fail(reason, steps)) => panic!("SEED={seed}: {reason}\nafter {steps:#?}"),
        Err(abort) => panic!("SEED={seed}: {abort}"),
    }
}
