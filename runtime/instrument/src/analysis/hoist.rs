//! Marks ahead of counted loops.
//!
//! A loop without an inner loop and without a point of collection marks, before it begins, every page that its stores can
//! begin on. For that the address has to be a sum of values that the loop does not change and of *inductions*: locals to which
//! each iteration adds the same. How often the loop goes on is bounded by a comparison of an induction with something that does
//! not change.
//!
//! ```text
//!   first = address in the first iteration        last = first + stride * (how often the loop goes on)
//!   mark page(first) ..= page(last)               up to the end of the memory, if the bound bounds nothing
//! ```
//!
//! Over-marking is sound; what would cost is over-marking much. So only stores that run in every full iteration are taken, and
//! only loops that are left through their test; strides over a page are marked one by one. A loop then has marks only where it
//! stores if it gets to its end, and at most one stride further where its test comes before the store.
//!
//! Invariants:
//! - the range is computed in 64 bits from 32-bit operands, and cannot overflow there;
//! - nothing is assumed of a bound but what the loop's own test establishes.

use crate::ahead::{Ahead, Shape, Span, Step, Sum, TripKind};
use crate::analysis::Fate;
use crate::analysis::coalesce::reach;
use crate::analysis::values::{Atom, Linear, Value};
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
        let mut spans = Vec::new();
        let mut given_up: Vec<Linear> = Vec::new();
        let members = &members[..members.len().min(limits::HOISTED_MAX)];
        for &number in members {
            let linear = trace.sites[number].address.linear;
            if fates[number] != Fate::Open || given_up.contains(&linear) || spans.len() == limits::SPANS_MAX {
                continue;
            }
            match view.take(number, members, trip.as_ref(), fates) {
                Some(span) => spans.push(span),
                None => given_up.push(linear),
            }
        }
        if !spans.is_empty() {
            all.push(Ahead {
                op: found.op,
                at: found.at,
                nested: found.nested,
                spans,
            });
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

/// What an iteration adds to a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stride {
    Constant(i64),
    /// A multiple of a value that the loop does not change.
    Multiple {
        of: Atom,
        by: i64,
    },
}

/// A value of the loop, at its begin and from iteration to iteration.
struct Moving {
    begin: Sum,
    stride: Stride,
}

/// How often the loop goes on.
struct Trip {
    kind: TripKind,
    moving: Sum,
    bound: Sum,
    /// Of the moving value.
    stride: Stride,
}

impl View<'_> {
    /// Takes one store, with all others off the same base, if their range is known.
    fn take(
        &self,
        number: usize,
        members: &[usize],
        trip: Option<&Trip>,
        fates: &mut [Fate],
    ) -> Option<Span> {
        let site = &self.trace.sites[number];
        let moving = self.moving(site.address)?;
        let (mut low, mut high) = self.extent(site, site)?;
        let mut taken = Vec::new();
        for &member in members {
            let other = &self.trace.sites[member];
            if other.address.linear != site.address.linear || fates[member] != Fate::Open {
                continue;
            }
            let Some((begin, end)) = self.extent(site, other) else {
                continue;
            };
            if high.max(end) - low.min(begin) <= self.plan.page_bytes() {
                (low, high) = (low.min(begin), high.max(end));
                taken.push(member);
            }
        }
        let span = self.span(moving, low, high, trip)?;
        for member in taken {
            fates[member] = Fate::Hoisted;
        }
        Some(span)
    }

    fn span(&self, address: Moving, low: i64, high: i64, trip: Option<&Trip>) -> Option<Span> {
        if address.stride == Stride::Constant(0) {
            return Some(Span::Fixed {
                begin: address.begin,
                low,
                high,
            });
        }
        let trip = trip?;
        let mut step = Sum::default();
        let (up, kind_of_step, stride) = match (trip.stride, address.stride) {
            (Stride::Constant(by), Stride::Constant(stride)) => (by > 0, Step::Constant(by.abs()), stride),
            (Stride::Multiple { of, by }, Stride::Multiple { of: also, by: stride }) if of == also => {
                self.fixed(&[(of, 1)], &mut step)?;
                (by > 0, Step::Value, stride)
            }
            _ => return None,
        };
        if stride.abs() > limits::STRIDE_BYTES_MAX {
            return None;
        }
        let shape = Shape {
            kind: trip.kind,
            up,
            step: kind_of_step,
            stride,
            low,
            high,
        };
        let (moving, bound) = (trip.moving.clone(), trip.bound.clone());
        Some(Span::Moving {
            shape,
            moving,
            bound,
            begin: address.begin,
            step,
        })
    }

    /// First byte, and last byte whose page needs a mark, of `other`, relative to the address operand of `site`. The operands
    /// are at most a page apart: where one of them leaves the address space, the other is near its end.
    fn extent(&self, site: &Site, other: &Site) -> Option<(i64, i64)> {
        let shift = self
            .plan
            .wrap(other.address.constant.wrapping_sub(site.address.constant));
        // Static offsets do not wrap.
        let low = shift + other.write.offset as i64;
        (shift.abs() <= self.plan.page_bytes()).then_some((low, low + reach(self.plan, other)))
    }

    /// How a value begins and moves, if it is made of inductions and of what the loop does not change.
    fn moving(&self, value: Value) -> Option<Moving> {
        let mut begin = Sum {
            terms: Vec::new(),
            constant: value.constant,
        };
        let mut constant = 0i64;
        let mut multiple = None;
        let mut fixed = Vec::new();
        for &(atom, coefficient) in self.trace.values.terms(value.linear) {
            if atom < self.found.first_atom {
                fixed.push((atom, coefficient));
                continue;
            }
            let (local, stride) = self.induction(atom)?;
            match self.found.entry.get(local as usize) {
                Some(entry) if entry.is_constant() => {
                    begin.add_constant(coefficient.wrapping_mul(entry.constant))
                }
                _ => begin.terms.push((local, coefficient)),
            }
            match stride {
                Stride::Constant(by) => constant = constant.wrapping_add(coefficient.wrapping_mul(by)),
                Stride::Multiple { of, by } if multiple.is_none() => {
                    multiple = Some((of, self.plan.wrap(coefficient.wrapping_mul(by))));
                }
                Stride::Multiple { .. } => return None,
            }
        }
        self.fixed(&fixed, &mut begin)?;
        let stride = match (multiple, self.plan.wrap(constant)) {
            (None, by) => Stride::Constant(by),
            (Some((of, by)), 0) => Stride::Multiple { of, by },
            _ => return None,
        };
        Some(Moving { begin, stride })
    }

    /// The local of an atom that is an induction of the loop, and what an iteration adds to it.
    fn induction(&self, atom: Atom) -> Option<(u32, Stride)> {
        let at = self.found.phis.binary_search_by_key(&atom, |phi| phi.atom).ok()?;
        let phi = &self.found.phis[at];
        let next = phi.next.filter(|_| self.found.back_edges == 1)?;
        let stride = match *self.trace.values.terms(next.linear) {
            [(one, 1)] if one == atom => Stride::Constant(next.constant),
            [(of, by), (one, 1)] if one == atom && of < self.found.first_atom && next.constant == 0 => {
                Stride::Multiple { of, by }
            }
            _ => return None,
        };
        Some((phi.local, stride))
    }

    /// Adds what does not change to a sum over locals, as they are when the loop is entered.
    fn fixed(&self, terms: &[(Atom, i64)], sum: &mut Sum) -> Option<()> {
        let entry = || self.found.entry.iter().take(limits::HOLDERS_MAX);
        let holder =
            |wanted: &[(Atom, i64)]| entry().position(|held| self.trace.values.terms(held.linear) == wanted);
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
        let still = Stride::Constant(0);
        let left_moves = match (left.stride == still, right.stride == still) {
            (false, true) => true,
            (true, false) => false,
            _ => return None,
        };
        let (moving, bound) = if left_moves { (left, right) } else { (right, left) };
        let (by, constant) = match moving.stride {
            Stride::Constant(by) => (by, true),
            Stride::Multiple { by, .. } => (by, false),
        };
        let towards = (by > 0) == left_moves;
        let kind = |signed, inclusive| towards.then_some(TripKind::While { signed, inclusive });
        let kind = match condition.relation {
            Relation::Different => constant.then_some(TripKind::Until),
            Relation::LessSigned => kind(true, false),
            Relation::LessUnsigned => kind(false, false),
            Relation::LessEqualSigned => kind(true, true),
            Relation::LessEqualUnsigned => kind(false, true),
            Relation::Equal => None,
        }?;
        let known = if constant {
            by.abs() <= limits::STRIDE_BYTES_MAX
        } else {
            by.abs() == 1
        };
        known.then_some(Trip {
            kind,
            moving: moving.begin,
            bound: bound.begin,
            stride: moving.stride,
        })
    }
}
