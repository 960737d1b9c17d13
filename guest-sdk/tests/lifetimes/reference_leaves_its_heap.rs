//! A reference into a heap ends with the closure that got it.

use vmsync_guest::{Heap, PHashMap, PString};

fn keep(heap: &Heap<PHashMap<'static, u64, PString<'static>>>) -> Option<&str> {
    heap.read(|root| root.get(&1).map(|text| &**text))
}

fn main() {}
