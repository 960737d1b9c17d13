//! Two views to store through would be two `&mut` to the same bytes.

use vmsync_guest::{Region, Result};

fn main() -> Result<()> {
    let mut region = Region::map("counter", 4096)?;
    let first = region.view_mut::<u64>()?;
    let second = region.view_mut_at::<u64>(0)?;
    *first += *second;
    Ok(())
}
