//! Stores all over memory look at their card before they set it.
//!
//! A store waits in the processor's queue until its line is there, and all that follow wait behind it. A loop that stores to one
//! distant place after the other is as fast as that queue is long, and marks take every second place in it. A load takes
//! none, and the branch is predicted: a card that is set stays so until the host collects.
//!
//! Taken are stores to an address that an iteration computes anew, other than by adding to what was there: from what it
//! loads, a hash, a random number.
//!
//! Invariants:
//! - the memory is not shared: else another thread may clear a card while the store that it was seen for is in the queue.

use crate::plan::Plan;
use crate::trace::{Site, Trace};
use alloc::vec::Vec;

/// Which stores' marks look first.
pub(crate) fn find(plan: &Plan, trace: &Trace) -> Vec<bool> {
    let computed = |site: &Site| {
        let Some(within) = site.in_loop.filter(|_| plan.analyses.scatter) else {
            return false;
        };
        let found = &trace.loops[within as usize];
        let anew = |atom| {
            let carried = found.phis.binary_search_by_key(&atom, |phi| phi.atom).is_ok();
            atom >= found.first_atom && !carried
        };
        let terms = trace.values.terms(site.address.linear);
        terms.iter().any(|&(atom, _)| anew(atom))
    };
    trace.sites.iter().map(computed).collect()
}
