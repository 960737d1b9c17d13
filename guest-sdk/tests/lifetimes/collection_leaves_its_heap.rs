//! A collection that left its heap would dangle once the region is unmapped, or after an undo.

use vmsync_guest::{Heap, PVec};

fn steal(heap: &mut Heap<PVec<'static, u64>>) {
    let stolen = heap.update(|root, alloc| core::mem::replace(root, PVec::new_in(alloc)));
    drop(stolen);
}

fn main() {}
