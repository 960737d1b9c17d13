//! Hash maps and ring logs against the standard library's, over restarts.

extern crate std;

use std::collections::{HashMap, VecDeque};
use std::format;
use std::string::String;
use std::vec::Vec;

use proptest::prelude::*;

use super::{Buffer, restart};
use crate::error::{Error, Result};
use crate::heap::{Heap, PHashMap, PRing, PString, StableHash, StableHasher};
use crate::persist;

persist! {
    /// Text by text, and the newest numbers.
    struct Root<'h> {
        words: PHashMap<'h, PString<'h>, u64>,
        pairs: PHashMap<'h, [u16; 2], PString<'h>>,
        log: PRing<'h, PString<'h>, 5>,
    }
}

fn open(bytes: usize) -> Heap<Root<'static>, Buffer> {
    Heap::open(Buffer::new(bytes)).unwrap()
}

#[test]
fn a_hash_map_is_like_the_usual_one() {
    let mut heap = open(1 << 18);
    let before = heap.stats().live;
    heap.update(|root, alloc| {
        assert_eq!(root.words.get("a"), None);
        assert_eq!(root.words.remove("a"), None);
        for number in 0..500_u64 {
            let word = format!("word {}", number % 100);
            let new = |alloc| Ok((PString::new_in(alloc, &word)?, 0));
            *root.words.get_or_insert_with(word.as_str(), new).unwrap() += number;
        }
        assert_eq!((root.words.len(), root.words.iter().count()), (100, 100));
        *root.words.get_mut("word 7").unwrap() += 1;
        let text = PString::new_in(alloc, "x").unwrap();
        assert!(root.pairs.insert([1, 2], text).unwrap().is_none());
        assert!(root.pairs.contains_key(&[1, 2]) && !root.pairs.contains_key(&[2, 1]));
        assert_eq!(format!("{:?}", root.pairs), r#"{[1, 2]: "x"}"#);
    });
    heap.flush().unwrap();
    let mut heap = restart(heap);
    heap.update(|root, alloc| {
        assert_eq!(root.words.get("word 7"), Some(&(7 + 107 + 207 + 307 + 407 + 1)));
        root.words.clear();
        assert!(root.words.is_empty() && root.words.get("word 7").is_none());
        root.words = PHashMap::new_in(alloc);
        root.pairs = PHashMap::new_in(alloc);
    });
    assert_eq!(heap.stats().live, before);
}

/// A key whose hash is bad: entries meet, go round the end, and close gaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Clumsy(u16);

// SAFETY: has the layout of the number that it is, as a `repr(C)` struct of the macro has.
unsafe impl<'h> crate::heap::Persist<'h> for Clumsy {
    const SCHEMA: u64 = 1;

    fn empty_in(_alloc: crate::heap::Alloc<'h>) -> Self {
        Self(0)
    }
}

impl crate::heap::Root for Clumsy {
    type In<'h> = Self;
}

impl StableHash for Clumsy {
    fn hash_stably(&self, hasher: &mut StableHasher) {
        hasher.word(u64::from(self.0 % 3));
    }
}

#[derive(Clone, Debug)]
enum Step {
    Insert(u16, u32),
    Remove(u16),
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let key = 0_u16..60;
    let step = prop_oneof![
        10 => (key.clone(), any::<u32>()).prop_map(|(key, value)| Step::Insert(key, value)),
        8 => key.prop_map(Step::Remove),
        1 => Just(Step::Restart),
    ];
    prop::collection::vec(step, 1..400)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn keys_that_meet_are_told_apart(steps in steps()) {
        let mut heap = Heap::<PHashMap<Clumsy, u32>, _>::open(Buffer::new(1 << 16)).unwrap();
        let mut model = HashMap::new();
        for step in steps {
            match step {
                Step::Insert(key, value) => {
                    let old = heap.update(|root, _| root.insert(Clumsy(key), value)).unwrap();
                    prop_assert_eq!(old, model.insert(Clumsy(key), value));
                }
                Step::Remove(key) => {
                    let old = heap.update(|root, _| root.remove(&Clumsy(key)));
                    prop_assert_eq!(old, model.remove(&Clumsy(key)));
                }
                Step::Restart => {
                    heap.flush().unwrap();
                    heap = restart(heap);
                }
            }
            heap.read(|root| {
                prop_assert_eq!(root.len(), model.len());
                for key in (0..60).map(Clumsy) {
                    prop_assert_eq!(root.get(&key), model.get(&key));
                }
                Ok(())
            })?;
        }
    }

    #[test]
    fn a_ring_log_keeps_the_newest(words in prop::collection::vec(prop::option::weighted(0.9, "[a-z]{0,40}"), 0..60)) {
        let mut heap = open(1 << 16);
        let before = heap.stats().live;
        let mut model = VecDeque::<String>::new();
        for word in words {
            let Some(word) = word else {
                prop_assert_eq!(heap.update(|root, _| root.log.pop_oldest().map(|it| String::from(&*it))), model.pop_front());
                continue;
            };
            let evicted = heap.update(|root, alloc| -> Result<_> {
                let evicted = root.log.push(PString::new_in(alloc, &word)?)?;
                Ok(evicted.map(|it| String::from(&*it)))
            });
            prop_assert_eq!(evicted.unwrap(), if model.len() == 5 { model.pop_front() } else { None });
            model.push_back(word);
            heap.flush().unwrap();
            heap = restart(heap);
            heap.read(|root| {
                let found: Vec<_> = root.log.iter().map(|word| String::from(&**word)).collect();
                prop_assert_eq!(&found, &Vec::from(model.clone()));
                prop_assert_eq!(root.log.newest().map(|word| &**word), model.back().map(String::as_str));
                Ok(())
            })?;
        }
        heap.update(|root, alloc| root.log = PRing::new_in(alloc));
        prop_assert_eq!(heap.stats().live, before);
    }
}

#[test]
fn a_full_heap_leaves_a_hash_map_and_a_log_as_they_were() {
    let mut heap = Heap::<PHashMap<u64, u64>, _>::open(Buffer::new(1 << 14)).unwrap();
    let mut inserted = 0;
    let error = loop {
        match heap.update(|root, _| root.insert(inserted, !inserted)) {
            Ok(_) => inserted += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::HeapFull { .. }), "{error}");
    heap.read(|root| {
        assert_eq!(root.len() as u64, inserted);
        assert!((0..inserted).all(|key| root.get(&key) == Some(&!key)));
    });
    let mut heap = Heap::<PRing<u64, 100_000>, _>::open(Buffer::new(1 << 14)).unwrap();
    assert!(matches!(
        heap.update(|root, _| root.push(1)),
        Err(Error::HeapFull { .. })
    ));
    assert!(heap.read(|root| root.is_empty()));
}
