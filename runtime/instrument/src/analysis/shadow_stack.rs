//! Stores to LLVM's shadow stack need no marks: nothing is ever mapped over it.
//!
//! A function takes its frame by subtracting a constant from the stack pointer. A store that lies wholly between the stack
//! pointer's value and [`limits::FRAME_BYTES_MAX`] below it is a store to this function's frame. The address has to be that
//! very sum: one that went through memory, a call, or a choice between two pointers is another value and gets its mark.
//!
//! Invariants:
//! - a skipped store's whole width lies below a value that the stack pointer had in this call of the function.

use crate::analysis::Fate;
use crate::limits;
use crate::plan::Plan;
use crate::trace::Trace;

/// Settles the stores to the frame. Returns how many.
pub(crate) fn settle(plan: &Plan, trace: &Trace, fates: &mut [Fate]) -> u64 {
    let mut skipped = 0;
    for (site, fate) in trace.sites.iter().zip(fates) {
        if *fate != Fate::Open || site.width == 0 {
            continue;
        }
        let [(atom, 1)] = trace.values.terms(site.address.linear) else {
            continue;
        };
        if trace.stack_pointers.binary_search(atom).is_err() {
            continue;
        }
        let low = plan.wrap(site.address.constant);
        let Ok(offset) = i64::try_from(site.write.offset) else {
            continue;
        };
        let high = low + offset + i64::from(site.width);
        if (-limits::FRAME_BYTES_MAX..0).contains(&low) && high <= 0 {
            *fate = Fate::Stack;
            skipped += 1;
        }
    }
    skipped
}
