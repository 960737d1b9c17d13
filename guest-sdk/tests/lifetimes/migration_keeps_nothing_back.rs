//! What a migration takes out of the old root goes into the new one, or nowhere.

use vmsync_guest::{Error, Heap, PVec, Region, Result};

fn upgrade(region: Region) -> Result<Region> {
    let mut kept = None;
    Heap::<PVec<'static, u64>>::migrate::<u64, Error>(region, |old, _| {
        kept = Some(old);
        Ok(0)
    })
}

fn main() {}
