//! Root types that change from release to release.

extern crate std;

use super::{Buffer, restart};
use crate::error::Error;
use crate::heap::{Heap, PMap, PString, PVec};
use crate::persist;

persist! {
    struct First<'h> { words: PVec<'h, PString<'h>> }
    struct Second<'h> { words: PVec<'h, PString<'h>>, count: u64 }
    struct Third<'h> { by_length: PMap<'h, u64, PString<'h>>, count: u64, padding: [u64; 100] }
}

fn first() -> Heap<First<'static>, Buffer> {
    let mut heap = Heap::<First, _>::open(Buffer::new(1 << 16)).unwrap();
    heap.update(|root, alloc| {
        for word in ["a", "bcd", "ef"] {
            root.words.push(PString::new_in(alloc, word).unwrap()).unwrap();
        }
    });
    heap.flush().unwrap();
    heap
}

/// What the newest program does when it starts, whatever it finds.
fn newest(memory: Buffer) -> Heap<Third<'static>, Buffer> {
    let memory = Heap::<First, _>::migrate::<Second, Error>(memory, |old, _| {
        let count = old.words.len() as u64;
        Ok(Second {
            words: old.words,
            count,
        })
    });
    let memory = Heap::<Second, _>::migrate::<Third, Error>(memory.unwrap(), |mut old, alloc| {
        let mut by_length = PMap::new_in(alloc);
        while let Some(word) = old.words.pop() {
            by_length.insert(word.len() as u64, word)?;
        }
        Ok(Third {
            by_length,
            count: old.count,
            padding: [7; 100],
        })
    });
    Heap::open(memory.unwrap()).unwrap()
}

fn assert_migrated(heap: &Heap<Third<'static>, Buffer>) {
    heap.read(|root| {
        assert_eq!((root.count, root.padding[99], root.by_length.len()), (3, 7, 3));
        assert_eq!(&**root.by_length.get(&3).unwrap(), "bcd");
    });
}

#[test]
fn every_former_root_becomes_the_newest() {
    let heap = newest(first().memory);
    assert_migrated(&heap);
    // It is durable at once, and happens once.
    let heap = restart(heap);
    assert_migrated(&heap);
    assert_migrated(&newest(heap.into_memory()));
    let second = Heap::<First, _>::migrate::<Second, Error>(first().memory, |old, _| {
        Ok(Second {
            words: old.words,
            count: 3,
        })
    });
    assert_migrated(&newest(second.unwrap()));
    // New memory begins with the newest.
    let heap = newest(Buffer::new(1 << 16));
    heap.read(|root| assert_eq!((root.count, root.by_length.len()), (0, 0)));
}

#[test]
fn nothing_of_the_old_root_is_lost_or_left_over() {
    let heap = newest(first().memory);
    let mut same = Heap::<Third, _>::open(Buffer::new(1 << 16)).unwrap();
    same.update(|root, alloc| {
        for word in ["ef", "bcd", "a"] {
            root.by_length
                .insert(word.len() as u64, PString::new_in(alloc, word).unwrap())
                .unwrap();
        }
    });
    assert_eq!(heap.stats().live, same.stats().live);
}

#[test]
fn a_migration_that_fails_is_undone() {
    let mut memory = first().memory;
    let lost = Heap::<First, _>::migrate::<Second, Error>(&mut memory, |old, _| {
        drop(old);
        Err(Error::NotAHeap)
    });
    assert_eq!(lost.err(), Some(Error::NotAHeap));
    memory.flushes = 1;
    let lost = Heap::<First, _>::migrate::<Second, Error>(&mut memory, |old, _| {
        Ok(Second {
            words: old.words,
            count: 0,
        })
    });
    assert!(matches!(lost.err(), Some(Error::Host { .. })));
    memory.flushes = u32::MAX;
    assert_migrated(&newest(memory));
}

#[test]
fn a_migration_that_fails_keeps_what_was_changed_before() {
    let mut heap = first();
    heap.update(|root, _| root.words.truncate(1));
    let mut memory = heap.into_memory();
    let lost = Heap::<First, _>::migrate::<Second, Error>(&mut memory, |_, _| Err(Error::NotAHeap));
    assert_eq!(lost.err(), Some(Error::NotAHeap));
    let heap = Heap::<First, _>::open(memory).unwrap();
    heap.read(|root| assert_eq!(root.words.len(), 1));
}

#[test]
fn a_root_that_was_never_there_is_still_refused() {
    let memory =
        Heap::<Second, _>::migrate::<Third, Error>(first().memory, |_, _| Err(Error::NotAHeap)).unwrap();
    let error = Heap::<Third, _>::open(memory).err().unwrap();
    assert!(matches!(error, Error::HeapSchema { .. }));
    assert!(std::format!("{error}").contains("Heap::migrate"), "{error}");
    let mut memory = first().memory;
    memory.writable = false;
    let refused = Heap::<First, _>::migrate::<Second, Error>(memory, |_, _| Err(Error::NotAHeap));
    assert_eq!(refused.err(), Some(Error::ReadOnly));
}
