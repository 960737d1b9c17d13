//! A view ends with its region.

use vmsync_guest::{Region, Result};

fn main() -> Result<()> {
    let view;
    {
        let region = Region::map("counter", 4096)?;
        view = region.view::<u64>()?;
    }
    assert_eq!(*view, 0);
    Ok(())
}
