//! The cases of the heap.

use std::ops::Bound;

use vmsync_guest::{Error, Heap, PMap, PString, PVec, persist};

const NAME: &str = "smoke-heap";
const BYTES: usize = 1 << 20;

persist! {
    /// What the cases keep.
    struct Root<'h> {
        runs: u64,
        words: PMap<'h, PString<'h>, PVec<'h, u64>>,
    }

    /// Another one.
    struct Other { runs: u64, more: u64 }
}

fn open<'any>() -> Heap<Root<'any>> {
    Heap::map(NAME, BYTES).expect("the object is granted")
}

fn add(root: &mut Root<'_>, word: &str, value: u64) -> Result<(), Error> {
    let new = |alloc| Ok((PString::new_in(alloc, word)?, PVec::new_in(alloc)));
    root.words.get_or_insert_with(word, new)?.push(value)
}

pub fn a_map_outlives_the_mapping() {
    let mut heap = open();
    let runs = heap.update(|root, _| {
        root.runs += 1;
        for number in 0..500 {
            add(root, &format!("word {number}"), root.runs).unwrap();
        }
        root.runs
    });
    heap.flush().unwrap();
    heap.update(|root, _| root.words.clear());
    drop(heap);
    let heap = open();
    heap.read(|root| {
        assert_eq!((root.runs, root.words.len()), (runs, 500));
        let all = 1..=runs;
        assert!(
            root.words
                .iter()
                .all(|(_, values)| values.iter().copied().eq(all.clone()))
        );
        let bounds = (Bound::Included("word 10"), Bound::Excluded("word 11"));
        let first = root
            .words
            .range::<str, _>(bounds)
            .map(|(word, _)| word.to_string());
        assert_eq!(first.take(2).collect::<Vec<_>>(), ["word 10", "word 100"]);
    });
}

pub fn a_failed_transaction_leaves_no_trace() {
    let mut heap = open();
    let before = heap.stats();
    let failed = heap.transaction(|root, _| {
        root.words.clear();
        add(root, "gone", 1)?;
        Err::<(), _>(Error::ReadOnly)
    });
    assert_eq!(failed, Err(Error::ReadOnly));
    assert_eq!(heap.stats(), before);
    assert!(heap.read(|root| !root.words.contains_key("gone")));
}

pub fn another_root_is_refused() {
    drop(open());
    let error = Heap::<Other>::map(NAME, BYTES)
        .map(|_| ())
        .expect_err("the root is another");
    assert!(matches!(error, Error::HeapSchema { .. }), "{error}");
}
