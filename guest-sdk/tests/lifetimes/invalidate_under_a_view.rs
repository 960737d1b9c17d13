//! Undoing changes bytes that a view promises not to change.

use vmsync_guest::{Region, Result};

fn main() -> Result<()> {
    let mut region = Region::map("counter", 4096)?;
    let view = region.view::<u64>()?;
    region.invalidate()?;
    assert_eq!(*view, 0);
    Ok(())
}
