//! The smallest guest: a number that survives. `vmsync run counter.wasm --invoke add --map counter=STORE`.

use vmsync_guest::{Error, Region};

fn add_one() -> Result<u64, Error> {
    let mut region = Region::map("counter", 4096)?;
    let count = region.view_mut::<u64>()?;
    *count += 1;
    let now = *count;
    region.flush()?;
    Ok(now)
}

/// Adds one, makes it durable, and returns the count.
#[unsafe(no_mangle)]
pub extern "C" fn add() -> u64 {
    add_one().expect("the counter is mapped and flushed")
}

/// Returns the durable count.
#[unsafe(no_mangle)]
pub extern "C" fn get() -> u64 {
    let region = Region::map("counter", 4096).expect("the counter is mapped");
    *region.view::<u64>().expect("the region has room for it")
}
