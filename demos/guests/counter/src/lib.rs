//! The smallest guest: a number that survives. `vmsync run counter.wasm --invoke add --map counter=STORE`.
//!
//! A negative result is a negated `kern_return_t`.

use vmsync_guest::{Error, Region};

fn change(by: i64) -> Result<i64, Error> {
    let mut region = Region::map("counter", 4096)?;
    let count = region.view_mut::<i64>()?;
    *count += by;
    let now = *count;
    region.flush()?;
    Ok(now)
}

fn or_code(result: Result<i64, Error>) -> i64 {
    result.unwrap_or_else(|error| -error.kern_return().map_or(1000, |code| code.code().into()))
}

/// Adds one, makes it durable, and returns the count.
#[unsafe(no_mangle)]
pub extern "C" fn add() -> i64 {
    or_code(change(1))
}

/// Returns the count.
#[unsafe(no_mangle)]
pub extern "C" fn get() -> i64 {
    or_code(change(0))
}
