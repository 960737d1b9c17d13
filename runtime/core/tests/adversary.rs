//! A guest, a pager and an operating system that mean no good.
//!
//! Whatever the arguments are, the VM answers with an error and keeps its promises: no panic, no claim or range that is
//! never given back, no map that grows without a bound, no page that counts as clean while it is not durable.

mod harness;

use std::panic::{AssertUnwindSafe, catch_unwind};

use vmsync_core::{
    ByteRange, KernReturn, PageRange, PageSet, PageSize, PagerErrorKind,
    abi::{Behavior, Inherit, OpenFlags, VmProt, VmSync},
    limits::{MAP_ENTRIES_MAX, OPEN_OBJECTS_MAX},
    memory::{MemoryError, TaskMemory},
    object::ObjectHandle,
    pager::{Image, LockRequest, MemoryObjectControl, ReturnPages},
    task::{MapRequest, Task},
};

use harness::{
    Guest, Object, P, PAGE, TestPager,
    guest::{call, request},
    memory::Images,
};

const SYNC: VmSync = VmSync::SYNCHRONOUS;

/// Numbers at which arithmetic goes wrong.
const EDGES: [u64; 22] = [
    0,
    1,
    P - 1,
    P,
    P + 1,
    7 * P,
    8 * P - 1,
    8 * P,
    8 * P + 1,
    12 * P,
    (1 << 32) - P,
    (1 << 32) - 1,
    1 << 32,
    (1 << 32) + 1,
    1 << 52,
    1 << 63,
    (1 << 63) + P,
    u64::MAX - 2 * P + 1,
    u64::MAX - P,
    u64::MAX - P + 1,
    u64::MAX - 1,
    u64::MAX,
];

/// Memory that remembers nothing but its size.
struct Nothing {
    pages: u64,
}

impl TaskMemory for Nothing {
    fn size(&self) -> u64 {
        self.pages * P
    }

    fn is_addressable(&self) -> bool {
        true
    }

    fn pages(&mut self, _range: ByteRange) -> &[u8] {
        &[]
    }

    fn map_image(&mut self, _range: ByteRange, _image: Image, _track: bool) -> Result<bool, MemoryError> {
        Ok(false)
    }

    fn map_zero(&mut self, _range: ByteRange, _track: bool) -> Result<(), MemoryError> {
        Ok(())
    }

    fn unmap(&mut self, _range: ByteRange) -> Result<(), MemoryError> {
        Ok(())
    }

    fn fill(&mut self, _offset: u64, _bytes: &[u8]) -> Result<(), MemoryError> {
        Ok(())
    }

    fn discard(&mut self, _range: ByteRange) -> Result<(), MemoryError> {
        Ok(())
    }

    fn protect(&mut self, _range: ByteRange, _protection: VmProt) -> Result<(), MemoryError> {
        Ok(())
    }

    fn deactivate(&mut self, _range: ByteRange) {}

    fn will_need(&mut self, _range: ByteRange) {}

    fn collect(&mut self, _range: ByteRange, _dirty: &mut PageSet) -> Result<(), MemoryError> {
        Ok(())
    }
}

/// Every call with a range, on a guest that has object `port` mapped.
fn every_call(guest: &mut Guest, port: u32, address: u64, size: u64) {
    for flags in (0..0x80).chain([1 << 31, u32::MAX]) {
        for word_end in [1 << 32, u64::MAX] {
            let flags = VmSync(flags);
            let call = guest
                .task
                .msync(address, size, flags, word_end, call(), &mut guest.memory);
            if let Ok(mut msync) = call {
                guest.finish(&mut msync);
            }
        }
    }
    let Guest { task, memory } = guest;
    for behavior in [0, 1, 2, 4, 5, 6, 12] {
        let behavior = Behavior::from_code(behavior).expect("one of the codes");
        let _ = task.behavior_set(address, size, behavior, memory);
    }
    for protection in [0, 1, 3, 4, u32::MAX] {
        let _ = task.protect(address, size, false, VmProt(protection), memory);
    }
    let _ = task.wire(address, size, true);
    let _ = task.wire(address, size, false);
    let _ = task.check_access(address, size, VmProt::WRITE);
    if let Some(range) = ByteRange::at(address, size) {
        task.note_store(range);
    }
    let _ = task.region(address);
    let _ = task.place(size, address, 0);
    let _ = task.place(address, size.wrapping_sub(1), address);
    for offset in [0, P, size, address] {
        let wanted = MapRequest {
            address,
            size,
            overwrite: true,
            port,
            offset,
            copy: offset == P,
            protection: VmProt::READ,
            max_protection: VmProt::READ,
            inherit: Inherit::Copy,
        };
        let _ = task.map_region(&wanted, memory);
    }
    if let Ok(mut msync) = task.evict(address, size, call()) {
        msync.poll(memory);
    }
    if let Ok(mut deallocation) = task.deallocate(address, size, call(), memory) {
        deallocation.returns.poll(memory);
        let _ = task.finish_deallocate(&deallocation, memory);
    }
}

#[test]
fn no_range_makes_a_call_panic() {
    for address_end in [1 << 32, u64::MAX] {
        for images in [None, Some(Images::default())] {
            let pager = TestPager::with_images(images.clone());
            let object = Object::new(&pager, 'a', 4);
            for address in EDGES {
                for size in EDGES {
                    let mut guest = Guest::with_end(12, address_end, images.clone().unwrap_or_default());
                    let port = guest.map(&object, 8);
                    every_call(&mut guest, port, address, size);
                    guest.task.terminate();
                    every_call(&mut guest, port, address, size);
                }
            }
        }
    }
}

#[test]
fn a_task_without_memory_answers_too() {
    let pager = TestPager::new();
    let object = Object::new(&pager, 'a', 4);
    for address in EDGES {
        for size in EDGES {
            let mut guest = Guest::new(0);
            let port = guest.open(&object);
            every_call(&mut guest, port, address, size);
        }
    }
}

#[test]
fn any_page_size_and_memory_size_has_a_place() {
    for page_size in [PageSize::KIB_4, PageSize::KIB_16, PageSize::KIB_64] {
        for address_end in [1 << 32, u64::MAX] {
            for memory in EDGES.into_iter().filter(|size| *size <= address_end) {
                let mut task: Task<Object> = Task::new(page_size, address_end);
                task.observe_size(memory);
                for size in EDGES {
                    for mask in EDGES {
                        for lowest in [0, size] {
                            let Ok(place) = task.place(size, mask, lowest) else {
                                continue;
                            };
                            assert!(place.address & mask == 0 && place.memory_size <= address_end);
                            assert!(place.address + size <= place.memory_size);
                            assert!(place.address >= lowest);
                        }
                    }
                }
            }
        }
    }
}

/// A task with as many entries as a map may have.
fn full_map(memory: &mut Nothing) -> Task<Object> {
    let mut task: Task<Object> = Task::new(PAGE, u64::MAX);
    task.observe_size(memory.size());
    let mut page = 1;
    loop {
        let deallocation = match task.deallocate(page * P, P, call(), memory) {
            Ok(deallocation) => deallocation,
            Err(error) => {
                assert_eq!(error, KernReturn::ResourceShortage);
                break;
            }
        };
        task.finish_deallocate(&deallocation, memory)
            .expect("this memory does anything");
        page += 2;
        assert!(page < memory.pages, "the map has no bound");
    }
    task
}

#[test]
fn a_map_is_bounded() {
    let mut memory = Nothing {
        pages: 4 * MAP_ENTRIES_MAX as u64,
    };
    let mut task = full_map(&mut memory);
    let count = task.map().entries().count();
    assert!(count <= MAP_ENTRIES_MAX);
    let free = (memory.pages - 8) * P;
    let shortage = Err(KernReturn::ResourceShortage);
    assert_eq!(task.wire(free, P, true), shortage);
    assert_eq!(task.protect(free, P, false, VmProt::READ, &mut memory), shortage);
    assert_eq!(
        task.behavior_set(free, P, Behavior::Random, &mut memory),
        shortage
    );
    assert_eq!(
        task.map_region(&request(0, memory.pages - 8, 1), &mut memory),
        shortage
    );
    assert_eq!(
        task.map().entries().count(),
        count,
        "a refused call changes nothing"
    );
    // What takes whole entries away always works, and makes room.
    for page in [0, 2, 4] {
        let deallocation = task
            .deallocate(page * P, P, call(), &mut memory)
            .expect("a whole entry");
        task.finish_deallocate(&deallocation, &mut memory)
            .expect("this memory does anything");
    }
    assert_eq!(task.wire(free, P, true), Ok(()));
}

#[test]
fn empty_ranges_split_nothing() {
    let mut guest = Guest::new(16);
    guest.allocate(4..8);
    let before = guest.task.map().entries().count();
    for address in (0..16 * P).step_by(P as usize / 2) {
        guest.task.wire(address, 0, true).expect("nothing to do");
        guest
            .task
            .behavior_set(address, 0, Behavior::Random, &mut guest.memory)
            .expect("nothing to do");
        guest
            .task
            .protect(address, 0, true, VmProt::NONE, &mut guest.memory)
            .expect("nothing to do");
    }
    assert_eq!(guest.task.map().entries().count(), before);
}

#[test]
fn ports_are_bounded_and_not_used_again() {
    let pager = TestPager::new();
    let object = Object::new(&pager, 'a', 4);
    let mut guest = Guest::new(16);
    let ports: Vec<u32> = (0..OPEN_OBJECTS_MAX).map(|_| guest.open(&object)).collect();
    assert_eq!(
        guest.task.open_object(object.clone(), OpenFlags::READ),
        Err(KernReturn::ResourceShortage)
    );
    guest.task.close_object(ports[0]).expect("open");
    let next = guest.open(&object);
    assert!(!ports.contains(&next));
    // A port that was closed maps nothing, though its object is still mapped.
    guest.map_with(&request(next, 4, 4)).expect("free");
    guest.task.close_object(next).expect("open");
    assert_eq!(
        guest.map_with(&request(next, 8, 4)),
        Err(KernReturn::InvalidObject)
    );
    assert_eq!(guest.deallocate(4..8), KernReturn::Success);
    assert!(
        guest.task.port_of(&object).is_some(),
        "other ports of it are open"
    );
}

#[test]
fn a_pager_that_panics_in_a_mapping_leaves_no_claim() {
    let pager = TestPager::new();
    let [before, object] = ['a', 'b'].map(|name| Object::new(&pager, name, 4));
    for replaces in [false, true] {
        let mut guest = Guest::new(16);
        let port = guest.open(&object);
        if replaces {
            guest.map(&before, 4);
        }
        pager.script(|script| _ = script.supplies_panic.insert((object.id(), 2)));
        let over = MapRequest {
            overwrite: replaces,
            ..request(port, 4, 4)
        };
        let mapped = catch_unwind(AssertUnwindSafe(|| guest.map_with(&over)));
        assert!(mapped.is_err(), "the pager has panicked");
        pager.script(|script| script.supplies_panic.clear());
        // Another task writes both, and what becomes of the first is nothing to it.
        let mut other = Guest::new(16);
        other.map(&object, 4);
        other.map(&before, 8);
        guest.task.terminate();
        other.store(4..12, 7);
        assert_eq!(other.msync(4..12, SYNC), KernReturn::Success);
        for object in [&object, &before] {
            assert_eq!(pager.durable(object.id(), 3)[0], 7);
            assert!(object.with(|object| object.written_by.contains(3)), "its own");
        }
        assert_eq!(other.deallocate(4..12), KernReturn::Success);
    }
}

#[test]
fn a_pager_that_cannot_supply_leaves_no_claim() {
    for images in [None, Some(Images::default())] {
        let pager = TestPager::with_images(images.clone());
        let object = Object::new(&pager, 'a', 4);
        let mut guests = [(); 2].map(|()| Guest::with_images(16, images.clone().unwrap_or_default()));
        let ports = [0, 1].map(|index| guests[index].open(&object));
        pager.script(|script| {
            _ = script
                .supplies_fail
                .insert((object.id(), 2), PagerErrorKind::Unavailable)
        });
        let failed = guests[0].map_with(&request(ports[0], 4, 4));
        assert_eq!(failed, Err(KernReturn::MemoryError));
        pager.script(|script| script.supplies_fail.clear());
        assert_eq!(guests[1].map_with(&request(ports[1], 4, 4)), Ok(()));
        assert_eq!(
            guests[0].map_with(&request(ports[0], 4, 4)),
            Err(KernReturn::NoAccess)
        );
        assert!((0..16).all(|page| guests[0].read(page) == 0));
    }
}

/// Maps object `a` over a region of object `b` in memory that fails after `changes` changes.
fn map_in_failing_memory(changes: u64, images: Option<Images>) -> Result<(), KernReturn> {
    let pager = TestPager::with_images(images.clone());
    let (a, b) = (Object::new(&pager, 'a', 4), Object::new(&pager, 'b', 4));
    let mut guest = Guest::with_images(16, images.clone().unwrap_or_default());
    guest.map(&b, 4);
    let port = guest.open(&a);
    let mut wanted = request(port, 4, 4);
    wanted.overwrite = true;
    guest.memory.changes_left = Some(changes);
    let result = guest.map_with(&wanted);
    guest.memory.changes_left = None;
    let claims = [&a, &b].map(|object| object.with(|object| !object.written_by.is_empty()));
    match result {
        Ok(()) => assert_eq!(claims, [true, false]),
        Err(error) => {
            assert!(
                [KernReturn::ResourceShortage, KernReturn::MemoryError].contains(&error),
                "{error}"
            );
            assert_eq!(claims, [false, false]);
            assert!(!guest.task.map().entries().any(|entry| entry.is_region()));
            assert_eq!(guest.map_with(&wanted), Ok(()), "it can be tried again");
        }
    }
    result
}

#[test]
fn memory_that_cannot_be_changed_leaves_no_claim() {
    for images in [None, Some(Images::default())] {
        let failures = (0..8).filter(|changes| map_in_failing_memory(*changes, images.clone()).is_err());
        assert!(failures.count() >= 2);
    }
}

#[test]
fn marks_that_cannot_be_read_are_not_lost() {
    let pager = TestPager::new();
    let object = Object::new(&pager, 'a', 4);
    let mut guest = Guest::new(16);
    guest.map(&object, 4);
    guest.store([5], 1);
    guest.memory.collect_fails = true;
    assert_eq!(guest.msync(4..8, SYNC), KernReturn::Failure);
    guest.memory.collect_fails = true;
    assert_eq!(guest.msync(4..8, VmSync::INVALIDATE), KernReturn::Failure);
    assert_eq!(guest.read(5), 1, "what may be dirty is not dropped");
    assert_eq!(guest.msync(4..8, SYNC), KernReturn::Success);
    assert_eq!(pager.durable(object.id(), 1)[0], 1);
}

#[test]
fn pages_that_cannot_be_placed_again_stay() {
    for images in [None, Some(Images::default())] {
        let pager = TestPager::with_images(images.clone());
        let object = Object::new(&pager, 'a', 4);
        let mut guest = Guest::with_images(16, images.unwrap_or_default());
        guest.map(&object, 4);
        guest.store([5], 1);
        guest.memory.changes_left = Some(0);
        assert_eq!(
            guest.msync(4..8, SYNC | VmSync::INVALIDATE),
            KernReturn::MemoryError
        );
        assert_eq!(
            pager.durable(object.id(), 1)[0],
            1,
            "it was durable before it was dropped"
        );
        guest.store([5], 2);
        assert_eq!(guest.msync(4..8, VmSync::INVALIDATE), KernReturn::MemoryError);
        assert_eq!(guest.read(5), 2);
        guest.memory.changes_left = None;
        assert_eq!(guest.msync(4..8, SYNC), KernReturn::Success);
        assert_eq!(
            pager.durable(object.id(), 1)[0],
            2,
            "still dirty after the failure"
        );
    }
}

#[test]
fn a_pager_may_send_any_range() {
    let pager = TestPager::new();
    let object = Object::new(&pager, 'a', 4);
    let mut guest = Guest::new(16);
    guest.map(&object, 4);
    let control = object.control();
    for start in EDGES {
        for end in EDGES {
            let range = ByteRange { start, end };
            let wanted = LockRequest {
                range,
                should_return: ReturnPages::Anything,
                flush: true,
                prohibit: Some(VmProt::NONE),
            };
            if control.lock_request(wanted).is_ok() {
                let mine = PageRange::new(0, 4).into();
                if let Some(waiting) = object.with(|object| object.next_lock_request(&mine)) {
                    guest.lock_request(&object, &waiting);
                }
            }
            guest.lock_request(&object, &wanted);
            control.write_behind_failed(range, harness::object::error(PagerErrorKind::Io));
            assert_eq!(
                control.synchronize_completed(range, Ok(())),
                Err(KernReturn::InvalidArgument)
            );
            object.with(|object| {
                let _ = object.data_supply(range, true);
                assert!(object.dirty.pages().all(|page| page < 4));
                assert!(object.precious.pages().all(|page| page < 4));
            });
        }
    }
}

#[test]
fn a_write_that_is_lost_before_its_call_ends_stays_dirty() {
    let pager = TestPager::new();
    let object = Object::new(&pager, 'a', 4);
    let mut guest = Guest::new(16);
    guest.map(&object, 4);
    guest.store([5], 1);
    pager.script(|script| script.hold = true);
    let mut msync = guest
        .start(4..8, VmSync::ASYNCHRONOUS)
        .expect("a range that is mapped");
    assert!(guest.blocks(&mut msync));
    // It was queued, and a thread of the pager's found the disk full before the call was answered.
    let range = ByteRange::new(P, 2 * P);
    let control = object.control();
    control.write_behind_failed(range, harness::object::error(PagerErrorKind::NoSpace));
    assert_eq!(pager.release(), [Ok(())]);
    assert_eq!(guest.finish(&mut msync), KernReturn::ResourceShortage, "told");
    assert_eq!(object.dirty().pages().collect::<Vec<_>>(), [1]);
    pager.take_returned();
    assert_eq!(guest.msync(4..8, SYNC), KernReturn::Success);
    assert_eq!(pager.take_returned(), [(object.id(), 1, true)], "tried again");
}

/// The only copy of it would go with the pages that are dropped.
#[test]
fn a_write_that_is_lost_while_its_page_is_dropped_stays() {
    let images = Images::default();
    let pager = TestPager::with_images(Some(images.clone()));
    let object = Object::new(&pager, 'a', 4);
    let mut guest = Guest::with_images(16, images);
    guest.map(&object, 4);
    guest.store([5], 1);
    pager.script(|script| script.settling_loses = Some(PagerErrorKind::NoSpace));
    let flags = VmSync::ASYNCHRONOUS | VmSync::INVALIDATE;
    assert_eq!(guest.msync(4..8, flags), KernReturn::ResourceShortage, "told");
    assert_eq!(guest.read(5), 1);
    assert_eq!(guest.msync(4..8, SYNC), KernReturn::Success);
    assert_eq!(pager.durable(object.id(), 1)[0], 1);
}

/// Nobody has been asked yet to commit the call, which drops the page.
#[test]
fn a_write_that_is_lost_while_a_call_over_it_returns_others_stays() {
    let pager = TestPager::new();
    let object = Object::new(&pager, 'a', 4);
    let mut guest = Guest::new(16);
    guest.map(&object, 4);
    guest.store([5], 1);
    assert_eq!(guest.msync(4..8, VmSync::ASYNCHRONOUS), KernReturn::Success);
    guest.store([6], 2);
    pager.script(|script| script.returning_loses = Some(PagerErrorKind::NoSpace));
    let result = guest.msync(4..8, SYNC | VmSync::INVALIDATE);
    assert_eq!(result, KernReturn::ResourceShortage, "told");
    assert_eq!((guest.read(5), guest.read(6)), (1, 2));
    assert_eq!(pager.durable(object.id(), 2)[0], 0, "not without the other");
    assert_eq!(guest.msync(4..8, SYNC), KernReturn::Success);
    assert_eq!(pager.durable(object.id(), 1)[0], 1);
    assert_eq!(pager.durable(object.id(), 2)[0], 2);
}

/// What is supplied in place of a page that is dropped may be what is lost just then.
#[test]
fn a_write_that_is_lost_while_it_is_supplied_again_is_dirty() {
    let pager = TestPager::new();
    let object = Object::new(&pager, 'a', 4);
    let mut guest = Guest::new(16);
    guest.map(&object, 4);
    guest.store([5], 1);
    pager.script(|script| script.supplying_loses = Some(PagerErrorKind::NoSpace));
    let flags = VmSync::ASYNCHRONOUS | VmSync::INVALIDATE;
    assert_eq!(guest.msync(4..8, flags), KernReturn::ResourceShortage, "told");
    assert_eq!(guest.read(5), 1);
    assert_eq!(guest.msync(4..8, SYNC), KernReturn::Success);
    assert_eq!(pager.durable(object.id(), 1)[0], 1);
}

/// Nothing of it is returned, so nothing else fails for it.
#[test]
fn an_object_that_is_gone_does_not_fail_others_that_are_only_read_beside_it() {
    let pager = TestPager::new();
    let (gone, object) = (Object::new(&pager, 'a', 4), Object::new(&pager, 'b', 4));
    let mut guest = Guest::new(16);
    let port = guest
        .task
        .open_object(gone.clone(), OpenFlags::READ)
        .expect("a port is free");
    let mut window = request(port, 0, 4);
    (window.protection, window.max_protection) = (VmProt::READ, VmProt::READ);
    guest.map_with(&window).expect("readable");
    guest.map(&object, 4);
    guest.store([5], 1);
    gone.control()
        .destroy(harness::object::error(PagerErrorKind::Gone));
    assert_eq!(guest.msync(0..8, SYNC), KernReturn::MemoryFailure);
    assert_eq!(pager.durable(object.id(), 1)[0], 1);
}

#[test]
fn a_guest_may_open_and_close_what_it_maps_as_often_as_it_likes() {
    let pager = TestPager::new();
    let object = Object::new(&pager, 'a', 4);
    let mut guest = Guest::new(16);
    guest.map(&object, 4);
    for _ in 0..2 * OPEN_OBJECTS_MAX {
        let port = guest.open(&object);
        guest.task.close_object(port).expect("it is open");
    }
    // The ports that are gone have not taken an error along that nobody was told.
    guest.store([5], 1);
    assert_eq!(guest.msync(4..8, VmSync::ASYNCHRONOUS), KernReturn::Success);
    pager.fail_queue(object.id(), PagerErrorKind::Io);
    let late = guest.open(&object);
    guest.task.close_object(late).expect("it is open");
    assert_eq!(guest.msync(4..8, SYNC), KernReturn::Failure, "told");
    assert_eq!(guest.msync(4..8, SYNC), KernReturn::Success, "once");
}

/// A guest may not keep its pages by having no room for what the pager asks for.
#[test]
fn a_request_is_carried_out_where_there_is_no_room_to_split_a_region() {
    let pager = TestPager::new();
    let object = Object::new(&pager, 'a', 4);
    let mut guest = Guest::new(2 * MAP_ENTRIES_MAX as u64);
    guest.map(&object, 4);
    let mut page = 16;
    while guest.behave(page..page + 1, Behavior::Random).is_ok() {
        page += 2;
    }
    guest.store([5], 1);
    let wanted = LockRequest {
        range: ByteRange::new(P, 2 * P),
        should_return: ReturnPages::Dirty,
        flush: false,
        prohibit: Some(VmProt::WRITE),
    };
    pager.take_returned();
    guest.lock_request(&object, &wanted);
    assert_eq!(pager.take_returned(), [(object.id(), 1, true)]);
    let access = guest.task.check_access(5 * P, 1, VmProt::WRITE);
    assert_eq!(access, Err(KernReturn::ProtectionFailure));
}

/// Who maps a page while its write is on its way may be supplied with it, and has to commit it where the write fails.
#[test]
fn a_write_that_fails_when_its_caller_has_gone_is_dirty_for_the_next_one() {
    let pager = TestPager::new();
    let object = Object::new(&pager, 'a', 4);
    let mut guest = Guest::new(16);
    guest.map(&object, 4);
    guest.store([5], 1);
    pager.script(|script| script.hold = true);
    let mut msync = guest.start(4..8, SYNC).expect("a range that is mapped");
    assert!(guest.blocks(&mut msync));
    assert_eq!(guest.time_out(&mut msync), KernReturn::Aborted);
    drop(msync);
    guest.task.terminate();
    let mut next = Guest::new(16);
    next.map(&object, 4);
    pager.script(|script| script.completion_fails = Some(PagerErrorKind::NoSpace));
    pager.release();
    pager.script(|script| script.completion_fails = None);
    pager.take_returned();
    next.store([4], 1);
    assert_eq!(next.msync(4..8, SYNC), KernReturn::Success);
    let returned: Vec<u64> = pager
        .take_returned()
        .into_iter()
        .map(|(_, page, _)| page)
        .collect();
    assert_eq!(returned[..2], [0, 1], "the page that was lost as well");
}

#[test]
fn a_lost_write_of_a_region_that_is_gone_makes_nothing_dirty() {
    let pager = TestPager::new();
    let object = Object::new(&pager, 'a', 4);
    let mut guest = Guest::new(16);
    guest.map(&object, 4);
    guest.store([5], 1);
    assert_eq!(guest.msync(4..8, VmSync::ASYNCHRONOUS), KernReturn::Success);
    assert_eq!(guest.deallocate(4..8), KernReturn::Success);
    pager.fail_queue(object.id(), PagerErrorKind::Io);
    assert!(object.dirty().is_empty());
    guest.map(&object, 4);
    assert_eq!(guest.read(5), 0);
    assert_eq!(guest.msync(4..8, SYNC), KernReturn::Failure, "the loss is told");
}

/// No fuel and no epoch interrupts an import: its work grows with what it is asked for, not with the square of it.
#[test]
fn the_work_of_a_sync_is_bounded_by_its_parts_and_ports() {
    const PARTS: u64 = 400;
    const PORTS: u64 = 400;
    let pager = TestPager::new();
    let object = Object::new(&pager, 'a', PARTS);
    let mut guest = Guest::new(PARTS);
    let port = (0..PORTS).map(|_| guest.open(&object)).last().expect("opened");
    // No two of them are one part.
    for page in 0..PARTS {
        let mut window = request(port, page, 1);
        window.offset = (PARTS - 1 - page) * P;
        guest.map_with(&window).expect("the page is free");
    }
    guest.store(0..PARTS, 1);
    let before = object.accesses();
    assert_eq!(guest.msync(0..PARTS, SYNC), KernReturn::Success);
    let accesses = object.accesses() - before;
    assert!(accesses < 20 * (PARTS + PORTS), "{accesses} accesses");
    assert_eq!(pager.durable(object.id(), 0)[0], 1);
}

/// Ranges are taken in any order, and answered in any order.
#[test]
fn ranges_that_are_taken_never_overlap() {
    let pager = TestPager::new();
    let object = Object::new(&pager, 'a', 8);
    let range = |pages: std::ops::Range<u64>| ByteRange::new(pages.start * P, pages.end * P);
    let reserve = |number, pages| object.with(|object| object.reserve(number, range(pages)));
    let (first, second) = (call(), call());
    assert!(reserve(first, 6..7) && reserve(first, 1..3) && reserve(second, 4..5));
    for taken in [0..8, 0..2, 1..2, 1..3, 2..3, 2..4, 3..5, 4..5, 4..6, 5..7, 6..8] {
        assert!(!reserve(second, taken.clone()), "{taken:?}");
    }
    assert!(reserve(second, 3..4) && reserve(second, 0..1) && reserve(second, 7..8));
    object.with(|object| {
        object.mark_sent(first, range(1..3));
        object.mark_sent(second, range(4..5));
        // As after a time-out: what the pager owes an answer for stays taken.
        object.release(first);
    });
    assert!(reserve(second, 6..7) && !reserve(second, 2..3));
    assert_eq!(object.complete(4..5, Ok(())), Ok(()));
    assert_eq!(object.complete(1..3, Ok(())), Ok(()));
    assert!(reserve(second, 2..3));
    let completed = |number, pages| object.with(|object| object.completed(number, range(pages)));
    assert_eq!(completed(second, 4..5), Some(Ok(())));
    assert_eq!(completed(first, 4..5), None, "another call's");
    assert_eq!(completed(second, 2..3), None, "not asked for");
}
