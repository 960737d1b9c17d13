//! The heap over an ordinary buffer: against `BTreeMap`, over restarts, undone, full, and damaged.
//!
//! Random tests are proptest's: a failure prints its seed.

extern crate std;

mod collections;
mod migration;

use std::collections::BTreeMap;
use std::format;
use std::ops::Bound;
use std::ptr::NonNull;
use std::string::String;
use std::vec::Vec;

use proptest::prelude::*;

use super::header::Header;
use super::{Heap, HeapMemory, PMap, PString, PVec, Root, Undo};
use crate::error::{Error, Result};
use crate::persist;

/// A buffer that plays the region: `durable` is what a restart finds. 16-byte words, for the alignment.
struct Buffer {
    live: NonNull<u128>,
    words: usize,
    durable: Vec<u128>,
    /// How many more flushes succeed.
    flushes: u32,
    writable: bool,
}

impl Buffer {
    fn new(bytes: usize) -> Self {
        let words = bytes / 16;
        let live = NonNull::from(std::vec![0_u128; words].leak()).cast();
        Self {
            live,
            words,
            durable: std::vec![0; words],
            flushes: u32::MAX,
            writable: true,
        }
    }

    fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: `live` is a leaked buffer of as many bytes, and no heap is open in it while it is borrowed.
        unsafe { core::slice::from_raw_parts_mut(self.live.cast().as_ptr(), self.words * 16) }
    }

    fn live(&mut self) -> &mut [u128] {
        // SAFETY: as for `bytes`.
        unsafe { core::slice::from_raw_parts_mut(self.live.as_ptr(), self.words) }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: leaked in `new`, and freed once.
        drop(unsafe { std::boxed::Box::from_raw(self.live()) });
    }
}

// SAFETY: a leaked buffer of 16-byte words.
unsafe impl HeapMemory for Buffer {
    fn base(&self) -> NonNull<u8> {
        self.live.cast()
    }

    fn size(&self) -> usize {
        self.words * 16
    }

    fn is_writable(&self) -> bool {
        self.writable
    }

    fn flush(&mut self) -> Result<()> {
        self.flushes = self.flushes.checked_sub(1).ok_or(Error::Host {
            call: "vm_msync",
            result: vmsync_abi::KernReturn::Failure,
        })?;
        self.durable = self.live().to_vec();
        Ok(())
    }

    fn undo(&mut self) -> Result<()> {
        let durable = core::mem::take(&mut self.durable);
        self.live().copy_from_slice(&durable);
        self.durable = durable;
        Ok(())
    }

    fn check_undo(&self) -> Result<()> {
        Ok(())
    }
}

// SAFETY: as for the buffer itself, which is borrowed for as long as this lives.
unsafe impl HeapMemory for &mut Buffer {
    fn base(&self) -> NonNull<u8> {
        (**self).base()
    }

    fn size(&self) -> usize {
        (**self).size()
    }

    fn is_writable(&self) -> bool {
        (**self).is_writable()
    }

    fn flush(&mut self) -> Result<()> {
        (**self).flush()
    }

    fn undo(&mut self) -> Result<()> {
        (**self).undo()
    }

    fn check_undo(&self) -> Result<()> {
        (**self).check_undo()
    }
}

/// Ends the program and starts it again: what was not flushed is gone, the address is the same.
fn restart<R: Root>(heap: Heap<R, Buffer>) -> Heap<R, Buffer> {
    let mut memory = heap.memory;
    memory.live().fill(u128::MAX);
    memory.undo().unwrap();
    Heap::open(memory).unwrap()
}

persist! {
    /// A word and how often it was seen.
    #[derive(Clone, Copy, Debug, PartialEq)]
    struct Seen { file: u32, line: u32 }

    /// A root with every kind of collection.
    struct Index<'h> {
        files: u64,
        flags: [bool; 3],
        places: PMap<'h, PString<'h>, PVec<'h, Seen>>,
        numbers: PMap<'h, u32, u64>,
    }

    /// The same fields in another order.
    struct Reordered<'h> {
        flags: [bool; 3],
        files: u64,
        places: PMap<'h, PString<'h>, PVec<'h, Seen>>,
        numbers: PMap<'h, u32, u64>,
    }
}

fn index(bytes: usize) -> Heap<Index<'static>, Buffer> {
    Heap::open(Buffer::new(bytes)).unwrap()
}

fn error_of<R: Root>(memory: Buffer) -> Error {
    Heap::<R, Buffer>::open(memory).err().expect("it is refused")
}

#[test]
fn a_new_heap_has_an_empty_root_and_keeps_what_is_flushed() {
    let mut heap = index(1 << 16);
    heap.update(|root, alloc| {
        assert_eq!((root.files, root.flags, root.places.len()), (0, [false; 3], 0));
        root.files = 7;
        let mut places = PVec::new_in(alloc);
        places.push(Seen { file: 1, line: 2 }).unwrap();
        root.places
            .insert(PString::new_in(alloc, "main").unwrap(), places)
            .unwrap();
    });
    heap.flush().unwrap();
    heap.update(|root, _| root.files = 8);
    let heap = restart(heap);
    heap.read(|root| {
        assert_eq!(root.files, 7);
        assert_eq!(
            &root.places.get("main").unwrap()[..],
            &[Seen { file: 1, line: 2 }]
        );
        assert!(!root.places.contains_key("other"));
    });
}

#[test]
fn another_root_type_is_refused() {
    let mut heap = index(1 << 16);
    heap.flush().unwrap();
    assert!(matches!(
        error_of::<Reordered>(heap.memory),
        Error::HeapSchema { .. }
    ));
}

#[test]
fn another_address_is_refused() {
    let mut heap = index(1 << 16);
    heap.flush().unwrap();
    let mut elsewhere = Buffer::new(1 << 16);
    elsewhere.live().copy_from_slice(&heap.memory.durable);
    let error = error_of::<Index>(elsewhere);
    assert!(matches!(error, Error::HeapMoved { .. }), "{error}");
    assert!(format!("{error}").contains("--global-base"));
}

#[test]
fn what_is_no_heap_is_refused() {
    let mut memory = Buffer::new(1 << 16);
    memory.bytes()[..5].copy_from_slice(b"hello");
    assert_eq!(error_of::<Index>(memory), Error::NotAHeap);
    assert!(matches!(
        error_of::<Index>(Buffer::new(64)),
        Error::HeapFull { .. }
    ));
    let mut memory = Buffer::new(1 << 16);
    memory.writable = false;
    assert_eq!(error_of::<Index>(memory), Error::ReadOnly);
}

#[test]
fn a_heap_that_does_not_fit_is_not_begun() {
    persist! { struct Large { words: [u64; 4096] } }
    let memory = Buffer::new(8192);
    assert!(matches!(error_of::<Large>(memory), Error::HeapFull { .. }));
}

#[test]
fn memory_that_grew_is_used() {
    let mut heap = Heap::<PVec<u64>, _>::open(Buffer::new(1 << 16)).unwrap();
    // Half of the buffer was not there when the heap was made.
    // SAFETY: the header is not borrowed.
    unsafe { (*heap.header().as_ptr()).len = 1 << 15 };
    assert!(matches!(
        heap.update(|root, _| root.reserve(5000)),
        Err(Error::HeapFull { .. })
    ));
    heap.flush().unwrap();
    let mut heap = restart(heap);
    heap.update(|root, _| root.reserve(5000)).unwrap();
}

#[test]
fn a_failed_transaction_is_undone() {
    let mut heap = index(1 << 16);
    heap.update(|root, _| root.files = 1);
    let add = |root: &mut Index<'_>| root.numbers.insert(1, 10).map(|_| root.files += 1);
    heap.transaction(|root, _| add(root)).unwrap();
    let failed = heap.transaction(|root, alloc| {
        root.numbers.clear();
        root.files = 99;
        drop(PString::new_in(alloc, "gone")?);
        Err::<(), Error>(Error::ReadOnly)
    });
    assert_eq!(failed, Err(Error::ReadOnly));
    heap.read(|root| assert_eq!((root.files, root.numbers.get(&1)), (2, Some(&10))));

    heap.memory.flushes = 0;
    let not_durable = heap.update(|root, _| root.files).pow(0);
    assert_eq!(not_durable, 1);
    assert!(
        heap.transaction(|root, _| add(root)).is_err(),
        "the flush before it fails"
    );
    heap.memory.flushes = u32::MAX;
    let heap = restart(heap);
    heap.read(|root| assert_eq!(root.files, 2));
}

#[test]
fn what_changed_before_it_was_opened_is_flushed_as_well() {
    let mut heap = index(1 << 16);
    heap.flush().unwrap();
    heap.update(|root, _| root.files = 1);
    let mut heap = Heap::<Index, _>::open(heap.into_memory()).unwrap();
    heap.flush().unwrap();
    let mut heap = restart(heap);
    heap.read(|root| assert_eq!(root.files, 1));

    heap.update(|root, _| root.files = 2);
    let mut heap = Heap::<Index, _>::open(heap.into_memory()).unwrap();
    let failed = heap.transaction(|_, _| Err::<(), _>(Error::ReadOnly));
    assert_eq!(failed, Err(Error::ReadOnly));
    heap.read(|root| assert_eq!(root.files, 2));

    heap.update(|root, _| root.files = 3);
    let mut memory = heap.into_memory();
    memory.writable = false;
    let mut heap = Heap::<Index, _>::open(memory).unwrap();
    heap.flush().unwrap();
    restart(heap).read(|root| assert_eq!(root.files, 3));
}

#[test]
fn a_transaction_that_cannot_be_made_durable_is_undone() {
    let mut heap = Heap::<u64, _>::open(Buffer::new(1 << 16)).unwrap();
    heap.memory.flushes = 1;
    let failed = heap.transaction(|root, _| {
        *root = 5;
        Ok::<_, Error>(())
    });
    assert!(matches!(failed, Err(Error::Host { .. })));
    assert_eq!(heap.read(|root| *root), 0);
}

/// Leaves a transaction as a trap does: nothing of the program runs after `work`.
fn trap(heap: &mut Heap<Index<'static>, Buffer>, work: impl for<'h> FnOnce(&mut Index<'h>)) {
    let undo = Undo::begin(heap).unwrap();
    undo.heap.change(|root, _| work(root));
    core::mem::forget(undo);
}

#[test]
fn a_transaction_that_traps_is_undone_by_the_next_call() {
    let calls: [fn(&mut Heap<Index<'static>, Buffer>); 3] = [
        |heap| heap.flush().unwrap(),
        |heap| heap.update(|root, _| root.flags[0] = true),
        |heap| heap.transaction(|_, _| Ok::<_, Error>(())).unwrap(),
    ];
    for call in calls {
        let mut heap = index(1 << 16);
        heap.update(|root, _| root.numbers.insert(1, 10)).unwrap();
        trap(&mut heap, |root| {
            root.numbers.clear();
            root.files = 99;
        });
        call(&mut heap);
        heap.flush().unwrap();
        let heap = restart(heap);
        heap.read(|root| assert_eq!((root.files, root.numbers.get(&1)), (0, Some(&10))));
    }
    let mut heap = index(1 << 16);
    trap(&mut heap, |root| root.files = 99);
    let heap = Heap::<Index, _>::open(heap.into_memory()).unwrap();
    heap.read(|root| assert_eq!(root.files, 0));
}

#[test]
#[should_panic(expected = "`flush` undoes it")]
fn a_transaction_that_traps_cannot_be_read() {
    let mut heap = index(1 << 16);
    trap(&mut heap, |root| root.files = 99);
    heap.read(|root| root.files);
}

#[test]
fn a_full_heap_says_so_and_stays_whole() {
    let mut heap = index(1 << 15);
    let mut inserted = 0_u32;
    let error = loop {
        let result = heap.update(|root, alloc| {
            let word = PString::new_in(alloc, &format!("word {inserted}"))?;
            root.places.insert(word, PVec::new_in(alloc)).map(|_| ())
        });
        match result {
            Ok(()) => inserted += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::HeapFull { .. }));
    assert!(inserted > 100);
    heap.read(|root| root.places.check());
    assert_eq!(heap.read(|root| root.places.len()), inserted as usize);
    // What is freed serves other sizes as well.
    heap.update(|root, _| root.places.clear());
    heap.update(|root, _| (0..200).try_for_each(|key| root.numbers.insert(key, 0).map(|_| ())))
        .unwrap();
    heap.read(|root| root.numbers.check());
}

#[test]
fn dropping_everything_frees_everything() {
    let mut heap = index(1 << 18);
    let before = heap.stats();
    heap.update(|root, alloc| {
        for number in 0..1000 {
            let word = format!("word {}", number % 200);
            let new = |alloc| Ok((PString::new_in(alloc, &word)?, PVec::new_in(alloc)));
            let places = root.places.get_or_insert_with(word.as_str(), new).unwrap();
            places
                .push(Seen {
                    file: number,
                    line: 1,
                })
                .unwrap();
        }
        assert_eq!(root.places.len(), 200);
        assert!(root.places.iter().all(|(_, places)| places.len() == 5));
        assert!(alloc.stats().live > before.live);
        root.places = PMap::new_in(alloc);
    });
    assert_eq!(heap.stats().live, before.live);
}

#[test]
fn arrays_and_strings_are_like_the_usual_ones() {
    let mut heap = Heap::<PVec<u64>, _>::open(Buffer::new(1 << 16)).unwrap();
    heap.update(|root, alloc| {
        root.extend_from_slice(&[1, 2, 3]).unwrap();
        root.insert(0, 0).unwrap();
        assert_eq!((root.remove(1), root.pop(), root.len()), (1, Some(3), 2));
        root.sort_by(|left, right| right.cmp(left));
        assert_eq!(&root[..], &[2, 0]);
        root.truncate(1);
        assert_eq!(format!("{root:?}"), "[2]");
        let mut string = PString::new_in(alloc, "grüß").unwrap();
        core::fmt::Write::write_fmt(&mut string, format_args!(" {}", 5)).unwrap();
        assert_eq!(
            (&*string, format!("{string}")),
            ("grüß 5", String::from("grüß 5"))
        );
        assert_eq!(
            root.reserve(usize::MAX),
            Err(Error::HeapFull { wanted: usize::MAX })
        );
        assert!(root.capacity() >= 1);
        let mut none = PVec::<PString>::new_in(alloc);
        none.clear();
        drop(none);
    });
}

#[derive(Clone, Debug)]
enum Step {
    Insert(u16, u64),
    Remove(u16),
    Range(u16, u16),
    Flush,
    Restart,
    Undo(Vec<u16>),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    // Few enough keys that they meet, enough of them that the tree has three levels.
    let key = 0_u16..700;
    let step = prop_oneof![
        12 => (key.clone(), any::<u64>()).prop_map(|(key, value)| Step::Insert(key, value)),
        8 => key.clone().prop_map(Step::Remove),
        2 => (key.clone(), key.clone()).prop_map(|(start, end)| Step::Range(start, end)),
        1 => Just(Step::Flush),
        1 => Just(Step::Restart),
        1 => prop::collection::vec(key, 0..40).prop_map(Step::Undo),
    ];
    prop::collection::vec(step, 1..1500)
}

fn bounds(start: u16, end: u16) -> [(Bound<u32>, Bound<u32>); 4] {
    let (low, high) = (u32::from(start.min(end)), u32::from(start.max(end)));
    [
        (Bound::Included(low), Bound::Excluded(high)),
        (Bound::Included(low), Bound::Included(high)),
        (Bound::Excluded(low), Bound::Included(high)),
        (Bound::Excluded(low), Bound::Unbounded),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_map_is_like_btreemap_and_a_restart_finds_the_last_flush(steps in steps()) {
        let mut heap = index(1 << 18);
        let mut model = BTreeMap::<u32, u64>::new();
        heap.flush().unwrap();
        let mut durable = model.clone();
        for step in steps {
            match step {
                Step::Insert(key, value) => {
                    let old = heap.update(|root, _| root.numbers.insert(key.into(), value)).unwrap();
                    prop_assert_eq!(old, model.insert(key.into(), value));
                }
                Step::Remove(key) => {
                    let old = heap.update(|root, _| root.numbers.remove(&u32::from(key)));
                    prop_assert_eq!(old, model.remove(&u32::from(key)));
                }
                Step::Range(start, end) => for range in bounds(start, end) {
                    let found: Vec<_> = heap.read(|root| {
                        root.numbers.range::<u32, _>(range).map(|(key, value)| (*key, *value)).collect()
                    });
                    let expected: Vec<_> = model.range(range).map(|(key, value)| (*key, *value)).collect();
                    prop_assert_eq!(found, expected);
                },
                Step::Flush => {
                    heap.flush().unwrap();
                    durable = model.clone();
                }
                Step::Restart => {
                    heap = restart(heap);
                    model = durable.clone();
                }
                Step::Undo(keys) => {
                    durable = model.clone();
                    let undone: core::result::Result<(), Error> = heap.transaction(|root, _| {
                        keys.iter().for_each(|key| { root.numbers.remove(&u32::from(*key)); });
                        Err(Error::NotAHeap)
                    });
                    prop_assert_eq!(undone, Err(Error::NotAHeap));
                }
            }
            heap.read(|root| root.numbers.check());
        }
        let found: Vec<_> = heap.read(|root| root.numbers.iter().map(|(key, value)| (*key, *value)).collect());
        prop_assert_eq!(found, model.into_iter().collect::<Vec<_>>());
    }

    #[test]
    fn a_damaged_header_is_an_error_or_harmless(at in 0..size_of::<Header>(), bits in 1_u8..) {
        let mut heap = index(1 << 16);
        heap.update(|root, alloc| {
            for word in ["a", "b", "c"] {
                root.places.insert(PString::new_in(alloc, word).unwrap(), PVec::new_in(alloc)).unwrap();
            }
            root.places.remove("b");
        });
        heap.flush().unwrap();
        let mut memory = heap.memory;
        memory.bytes()[at] ^= bits;
        if let Ok(heap) = Heap::<Index, _>::open(memory) {
            let _ = heap.stats();
        }
    }
}
