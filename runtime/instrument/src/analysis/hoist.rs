//! Marks ahead of counted loops.
//!
//! A loop without an inner loop and without a point of collection marks, before it begins, every page that its stores can
//! begin on. For that the address has to be a sum of values that the loop does not change and of *inductions*: locals that each
//! iteration changes by a constant. How often the loop goes on is bounded by a comparison of an induction with something that
//! does not change.
//!
//! ```text
//!   first = address in the first iteration        last = first + stride * (how often the loop goes on)
//!   mark page(first) ..= page(last)               all pages, if that range leaves the address space or the bound wraps
//! ```
//!
//! Over-marking is sound; what would cost is over-marking much. So only stores that run in every full iteration are taken, only
//! strides up to a page, and only loops that are left through their test.
//!
//! Invariants:
//! - the range is computed in 64 bits from 32-bit operands, and cannot overflow there;
//! - nothing is assumed of a bound but what the loop's own test establishes.

use crate::ahead::{Ahead, Span, Sum, Trip, TripKind};
use crate::analysis::Fate;
use crate::analysis::coalesce::reach;
use crate::analysis::values::{Linear, Value};
use crate::limits;
use crate::plan::Plan;
use crate::trace::{Condition, Loop, Relation, Site, Trace};
use alloc::vec::Vec;

/// Settles the stores that marks ahead of their loop cover, and returns those marks.
pub(crate) fn settle(plan: &Plan, trace: &Trace, fates: &mut [Fate]) -> Vec<Ahead> {
    let mut by_loop: Vec<Vec<usize>> = Vec::new();
    by_loop.resize_with(trace.loops.len(), Vec::new);
    for (number, site) in trace.sites.iter().enumerate() {
        if let Some(within) = site
            .in_loop
            .filter(|_| fates[number] == Fate::Open && site.width > 0)
        {
            by_loop[within as usize].push(number);
        }
    }
    let mut all = Vec::new();
    for (found, members) in trace.loops.iter().zip(&by_loop) {
        if members.is_empty() || found.back_edges == 0 {
            continue;
        }
        let view = View { plan, trace, found };
        let trip = view.trip();
        let mut ahead = Ahead {
            op: found.op,
            at: found.at,
            trip: None,
            spans: Vec::new(),
        };
        let mut seen: Vec<Linear> = Vec::new();
        let members = &members[..members.len().min(limits::HOISTED_MAX)];
        for &number in members {
            view.take(number, members, trip.as_ref(), &mut ahead, &mut seen, fates);
        }
        if !ahead.spans.is_empty() {
            ahead.trip = trip.filter(|_| ahead.spans.iter().any(|span| span.stride != 0));
            all.push(ahead);
        }
    }
    all
}

/// One loop, looked at.
struct View<'a> {
    plan: &'a Plan,
    trace: &'a Trace,
    found: &'a Loop,
}

/// A value of the loop, at its begin and from iteration to iteration.
struct Moving {
    begin: Sum,
    stride: i64,
}

impl View<'_> {
    /// Takes one store, with all others off the same base that are not settled, if their range is known.
    fn take(
        &self,
        number: usize,
        members: &[usize],
        trip: Option<&Trip>,
        ahead: &mut Ahead,
        seen: &mut Vec<Linear>,
        fates: &mut [Fate],
    ) {
        let site = &self.trace.sites[number];
        if fates[number] != Fate::Open || seen.contains(&site.address.linear) {
            return;
        }
        seen.push(site.address.linear);
        let Some(moving) = self.moving(site.address) else {
            return;
        };
        if moving.stride != 0 && (trip.is_none() || moving.stride.abs() > limits::STRIDE_BYTES_MAX) {
            return;
        }
        let mut span = Span {
            begin: moving.begin,
            stride: moving.stride,
            low: 0,
            high: 0,
        };
        let mut taken = Vec::new();
        for &member in members {
            let other = &self.trace.sites[member];
            if other.address.linear != site.address.linear || fates[member] != Fate::Open {
                continue;
            }
            let (low, high) = self.extent(site, other);
            let wider = Span {
                low: span.low.min(low),
                high: span.high.max(high),
                ..span.clone()
            };
            if taken.is_empty() {
                span = Span { low, high, ..span };
            } else if wider.high - wider.low <= self.plan.page_bytes() {
                span = wider;
            } else {
                continue;
            }
            taken.push(member);
        }
        for member in taken {
            fates[member] = Fate::Hoisted;
        }
        ahead.spans.push(span);
    }

    /// First byte, and last byte whose page needs a mark, of `other`, relative to the address operand of `site`.
    fn extent(&self, site: &Site, other: &Site) -> (i64, i64) {
        let shift = other.address.constant.wrapping_sub(site.address.constant);
        let low = self.plan.wrap(shift.wrapping_add(other.write.offset as i64));
        (low, low + reach(self.plan, other))
    }

    /// How a value begins and moves, if it is made of inductions and of what the loop does not change.
    fn moving(&self, value: Value) -> Option<Moving> {
        let mut begin = Sum {
            terms: Vec::new(),
            constant: value.constant,
        };
        let mut stride = 0i64;
        let mut fixed = Vec::new();
        for &(atom, coefficient) in self.trace.values.terms(value.linear) {
            if atom < self.found.first_atom {
                fixed.push((atom, coefficient));
                continue;
            }
            let phi = self.found.phis.binary_search_by_key(&atom, |phi| phi.atom).ok()?;
            let phi = &self.found.phis[phi];
            let next = phi.next.filter(|_| self.found.back_edges == 1)?;
            if self.trace.values.terms(next.linear) != [(atom, 1)] {
                return None;
            }
            stride = stride.wrapping_add(coefficient.wrapping_mul(next.constant));
            begin.terms.push((phi.local, coefficient));
        }
        self.fixed(&fixed, &mut begin)?;
        Some(Moving {
            begin,
            stride: self.plan.wrap(stride),
        })
    }

    /// Adds what does not change to a sum over locals, as they are when the loop is entered.
    fn fixed(&self, terms: &[(u32, i64)], sum: &mut Sum) -> Option<()> {
        let holder = |wanted: &[(u32, i64)]| {
            self.found
                .entry
                .iter()
                .take(limits::HOLDERS_MAX)
                .position(|held| self.trace.values.terms(held.linear) == wanted)
        };
        if terms.is_empty() {
            return Some(());
        }
        if let Some(local) = holder(terms) {
            sum.add(local as u32, 1, self.found.entry[local].constant);
            return Some(());
        }
        for &(atom, coefficient) in terms {
            let local = holder(&[(atom, 1)])?;
            sum.add(local as u32, coefficient, self.found.entry[local].constant);
        }
        Some(())
    }

    /// How often the loop goes on, if one test says so and nothing else leaves the loop.
    fn trip(&self) -> Option<Trip> {
        if self.found.back_edges != 1 || self.found.exits != 0 {
            return None;
        }
        match self.found.goes_on_while[..] {
            [condition] => self.bounded(condition),
            _ => None,
        }
    }

    fn bounded(&self, condition: Condition) -> Option<Trip> {
        let (left, right) = (self.moving(condition.left)?, self.moving(condition.right)?);
        let left_moves = match (left.stride, right.stride) {
            (0, 0) => return None,
            (_, 0) => true,
            (0, _) => false,
            _ => return None,
        };
        let (moving, bound) = if left_moves { (left, right) } else { (right, left) };
        let (signed, inclusive) = match condition.relation {
            Relation::Different => (false, false),
            Relation::LessSigned => (true, false),
            Relation::LessUnsigned => (false, false),
            Relation::LessEqualSigned => (true, true),
            Relation::LessEqualUnsigned => (false, true),
            Relation::Equal => return None,
        };
        let up = moving.stride > 0;
        let kind = match condition.relation {
            Relation::Different => TripKind::Until,
            _ if up == left_moves => TripKind::While { signed, inclusive },
            _ => return None,
        };
        let step = moving.stride.unsigned_abs();
        if step > limits::STRIDE_BYTES_MAX as u64 {
            return None;
        }
        Some(Trip {
            kind,
            up,
            moving: moving.begin,
            bound: bound.begin,
            step: step as i64,
        })
    }
}
