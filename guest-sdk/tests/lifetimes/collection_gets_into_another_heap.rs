//! A collection that got into another heap would dangle after a restart.

use vmsync_guest::{Heap, PRing, PVec};

fn mix(a: &mut Heap<PVec<'static, PRing<'static, u64, 8>>>, b: &mut Heap<u64>) {
    a.update(|root, _| b.update(|_, alloc| root.push(PRing::new_in(alloc))).unwrap());
}

fn main() {}
