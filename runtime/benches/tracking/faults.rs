//! What a first store to a page costs, beside the kernel's own minor fault.
//!
//! | case | the page | the kernel's own fault |
//! |---|---|---|
//! | fresh | never touched, anonymous | allocates a page of zeros |
//! | of a file | of a private mapping, in the page cache | copies the page |
//! | again | stored to, collected, stored to again | opens a page that it had write-protected itself, after a fork |
//!
//! *Again* is what a long-lived guest pays after every sync, and so what the summary tells of. Stores go to every page in
//! order, or *scattered*: to one page of each 64 KiB, in an order without a pattern, where each store is alone:
//! `mprotect` cannot join mappings then, and 64 KiB blocks do not share faults.

use std::fs::File;

use anyhow::{Result, ensure};
use vmsync_core::tracker::{Backing, TrackerKind};

use crate::{
    mapping::{Mapping, PAGE},
    peer::{BLOCK, TwoFaults},
    table::Table,
};

/// How many pages are stored to.
const STORES: usize = 8192;
/// Pages of a block: scattered stores are at least so far apart.
const BLOCK_PAGES: usize = BLOCK / PAGE;

pub const KERNEL: &str = "kernel alone";
pub const TWO_FAULTS: &str = "two faults, 64 KiB";
/// The cases of the summary.
pub const AGAIN: [&str; 2] = ["first store, again, in order", "first store, again, scattered"];
const UNIT: &str = "ns";

/// In which order pages are stored to.
#[derive(Clone, Copy)]
enum Order {
    InOrder,
    Scattered,
}

impl Order {
    fn name(self) -> &'static str {
        match self {
            Self::InOrder => "in order",
            Self::Scattered => "scattered",
        }
    }

    fn pages_mapped(self) -> usize {
        match self {
            Self::InOrder => STORES,
            Self::Scattered => STORES * BLOCK_PAGES,
        }
    }

    fn pages(self) -> impl ExactSizeIterator<Item = usize> {
        // An odd multiplier runs through every block of a power of two once.
        (0..STORES).map(move |index| match self {
            Self::InOrder => index,
            Self::Scattered => {
                let block = index * 0x9e37_79b1 % STORES;
                block * BLOCK_PAGES + block % BLOCK_PAGES
            }
        })
    }
}

/// One round of every case.
pub fn measure(kinds: &[TrackerKind], file: &File, table: &mut Table) -> Result<()> {
    for order in [Order::InOrder, Order::Scattered] {
        anonymous(kinds, order, table)?;
    }
    let name = "first store, of a file, in order";
    let order = Order::InOrder;
    table.add(
        name,
        UNIT,
        KERNEL,
        Mapping::new(Some(file), STORES)?.store(order.pages()),
    );
    for kind in kinds {
        let mapping = Mapping::new(Some(file), STORES)?;
        let _tracked = mapping.track(*kind, Backing::PrivateFile)?;
        table.add(name, UNIT, kind.name(), mapping.store(order.pages()));
    }
    Ok(())
}

fn anonymous(kinds: &[TrackerKind], order: Order, table: &mut Table) -> Result<()> {
    let fresh = format!("first store, fresh, {}", order.name());
    let again = format!("first store, again, {}", order.name());
    let mapping = Mapping::new(None, order.pages_mapped())?;
    table.add(&fresh, UNIT, KERNEL, mapping.store(order.pages()));
    mapping.share_with_a_child();
    table.add(&again, UNIT, KERNEL, mapping.store(order.pages()));
    for kind in kinds {
        let mapping = Mapping::new(None, order.pages_mapped())?;
        let mut tracked = mapping.track(*kind, Backing::Anonymous)?;
        table.add(&fresh, UNIT, kind.name(), mapping.store(order.pages()));
        tracked.collect()?;
        table.add(&again, UNIT, kind.name(), mapping.store(order.pages()));
        let (_, dirty) = tracked.collect()?;
        ensure!(dirty == STORES as u64, "{kind} saw {dirty} of {STORES} stores");
    }
    let mapping = Mapping::new(None, order.pages_mapped())?;
    let peer = TwoFaults::new(&mapping)?;
    table.add(&fresh, UNIT, TWO_FAULTS, mapping.store(order.pages()));
    peer.arm()?;
    table.add(&again, UNIT, TWO_FAULTS, mapping.store(order.pages()));
    let blocks = match order {
        Order::InOrder => STORES / BLOCK_PAGES,
        Order::Scattered => STORES,
    };
    ensure!(
        peer.dirty() == blocks,
        "the peer saw {} of {blocks} blocks",
        peer.dirty()
    );
    Ok(())
}
