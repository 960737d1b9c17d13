//! Marks that cover several stores.
//!
//! Invariants:
//! - to come.

use crate::analysis::Fate;
use crate::plan::Plan;
use crate::trace::Site;
use alloc::vec::Vec;

/// The marks that one store needs by itself, as distances from its address operand.
pub(crate) fn alone(plan: &Plan, site: &Site) -> Vec<i64> {
    let first = site.write.offset as i64;
    let mut marks = Vec::from([first]);
    if site.width > plan.cards.suspect_bytes + 1 {
        marks.push(first.wrapping_add(i64::from(site.width) - 1));
    }
    marks
}

/// Gives every store that is still open its own marks.
pub(crate) fn rest(plan: &Plan, sites: &[Site], fates: &mut [Fate]) {
    for (site, fate) in sites.iter().zip(fates) {
        if *fate == Fate::Open {
            *fate = Fate::Marks(alone(plan, site));
        }
    }
}
