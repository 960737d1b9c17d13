//! Marks that cover several stores.
//!
//! Stores whose addresses differ by a constant and that run one after the other, with nothing between them that lets the host
//! collect, share marks. All marks of such a *cluster* are made after its first store: some are then made before their
//! stores, which is sound, because nothing reads the cards in between, and a store that traps has a mark too many.
//!
//! ```text
//!   span of first bytes              marks
//!   fits in the suspect head + 1     the lowest address
//!   at most a page                   the lowest and the highest address: there is no page between theirs
//! ```
//!
//! A mark is remembered as a *fact* until the host may collect; a later store in its reach needs none.
//!
//! Invariants:
//! - a fact is only used where every path to the store has passed its mark since the last point of collection;
//! - addresses are compared modulo the address width, and one mark stands for a span only if the span cannot wrap.

use crate::analysis::Fate;
use crate::analysis::values::Linear;
use crate::limits;
use crate::plan::Plan;
use crate::trace::{Event, Site, Trace};
use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;

/// How many later stores off the same base are looked at for a cluster: bounds the time for a hostile function.
const LOOK_AHEAD: usize = 64;

/// The marks that one store needs by itself, as distances from its address operand.
pub(crate) fn alone(plan: &Plan, site: &Site) -> Vec<i64> {
    let first = site.write.offset as i64;
    let mut marks = vec![first];
    if reach(plan, site) > 0 {
        marks.push(first.wrapping_add(reach(plan, site)));
    }
    marks
}

/// Distance from the first byte to the last byte whose page needs a mark: 0, unless the store is longer than what the next
/// page's suspect head absorbs.
pub(crate) fn reach(plan: &Plan, site: &Site) -> i64 {
    if site.width > plan.cards.suspect_bytes + 1 {
        i64::from(site.width) - 1
    } else {
        0
    }
}

/// Gives every store that is still open its own marks.
pub(crate) fn rest(plan: &Plan, sites: &[Site], fates: &mut [Fate]) {
    for (site, fate) in sites.iter().zip(fates) {
        if *fate == Fate::Open {
            *fate = Fate::Marks(alone(plan, site));
        }
    }
}

/// Gives every store that is still open marks, or a mark that covers it. Returns how many got none of their own.
pub(crate) fn settle(plan: &Plan, trace: &Trace, fates: &mut [Fate]) -> u64 {
    let mut pass = Pass {
        plan,
        sites: &trace.sites,
        runs: runs(trace),
        facts: Facts::default(),
        covered: 0,
    };
    for event in &trace.events {
        match *event {
            Event::Store(site) => pass.store(site as usize, fates),
            Event::Collect => pass.facts.forget(),
            Event::Loop => {
                pass.facts.forget();
                pass.facts.open();
            }
            Event::Block | Event::If => pass.facts.open(),
            Event::Else => pass.facts.reopen(),
            Event::Close => pass.facts.close(),
        }
    }
    pass.covered
}

/// Stores off one base that run one after the other, in the order of the code, and each store's place among them.
#[derive(Debug)]
struct Runs {
    members: Vec<Vec<usize>>,
    of: Vec<(usize, usize)>,
}

fn runs(trace: &Trace) -> Runs {
    let mut runs = Runs {
        members: Vec::new(),
        of: Vec::with_capacity(trace.sites.len()),
    };
    let mut current: BTreeMap<Linear, usize> = BTreeMap::new();
    for event in &trace.events {
        let Event::Store(site) = *event else {
            if *event != Event::Block {
                current.clear();
            }
            continue;
        };
        let run = *current
            .entry(trace.sites[site as usize].address.linear)
            .or_insert_with(|| {
                runs.members.push(Vec::new());
                runs.members.len() - 1
            });
        runs.of.push((run, runs.members[run].len()));
        runs.members[run].push(site as usize);
    }
    runs
}

/// Marks that are set: of the first bytes `low..=low + span`, at most a page apart.
#[derive(Clone, Copy, Debug)]
struct Fact {
    linear: Linear,
    /// Distance of the lowest marked address from the sum of the terms.
    low: i64,
    span: i64,
    /// The operand's constant, if every address of the cluster was made from one operand.
    operand: Option<i64>,
}

/// Facts by nesting: what is learnt inside a frame is forgotten at its end.
#[derive(Debug, Default)]
struct Facts {
    known: Vec<Fact>,
    frames: Vec<(u64, usize)>,
    generation: u64,
}

impl Facts {
    fn forget(&mut self) {
        self.known.clear();
        self.generation += 1;
    }

    fn open(&mut self) {
        self.frames.push((self.generation, self.known.len()));
    }

    fn reopen(&mut self) {
        if let Some(frame) = self.frames.pop() {
            self.restore(frame);
            self.open();
        }
    }

    fn close(&mut self) {
        if let Some(frame) = self.frames.pop() {
            self.restore(frame);
        }
    }

    /// What was known when the frame opened is still known, unless everything was forgotten since: then what is known now was
    /// learnt inside.
    fn restore(&mut self, (generation, len): (u64, usize)) {
        self.known
            .truncate(if generation == self.generation { len } else { 0 });
    }

    fn learn(&mut self, fact: Fact) {
        if self.known.len() == limits::FACTS_MAX {
            self.forget();
        }
        self.known.push(fact);
    }
}

struct Pass<'a> {
    plan: &'a Plan,
    sites: &'a [Site],
    runs: Runs,
    facts: Facts,
    covered: u64,
}

impl Pass<'_> {
    fn store(&mut self, number: usize, fates: &mut [Fate]) {
        if fates[number] != Fate::Open {
            return;
        }
        let site = &self.sites[number];
        if site.width == 0 {
            fates[number] = Fate::Marks(Vec::new());
            return;
        }
        if self.facts.known.iter().any(|fact| self.covers(fact, site)) {
            fates[number] = Fate::Covered;
            self.covered += 1;
            return;
        }
        let cluster = self.cluster(number, fates);
        for &member in &cluster.members {
            if member != number {
                fates[member] = Fate::Covered;
                self.covered += 1;
            }
        }
        let from_operand = |constant: i64| constant.wrapping_sub(site.address.constant);
        let mut marks = vec![from_operand(cluster.fact.low)];
        if cluster.fact.span > 0 {
            marks.push(from_operand(cluster.fact.low.wrapping_add(cluster.fact.span)));
        }
        fates[number] = Fate::Marks(marks);
        self.facts.learn(cluster.fact);
    }

    /// Distance of a store's first byte from the sum of its terms.
    fn first(&self, site: &Site) -> i64 {
        site.address.constant.wrapping_add(site.write.offset as i64)
    }

    fn covers(&self, fact: &Fact, site: &Site) -> bool {
        if fact.linear != site.address.linear {
            return false;
        }
        let begin = self.plan.wrap(self.first(site).wrapping_sub(fact.low));
        if begin < 0 {
            return false;
        }
        if begin + reach(self.plan, site) <= fact.span {
            return true;
        }
        let suspect = i64::from(self.plan.cards.suspect_bytes);
        let past = begin.saturating_add(i64::from(site.width)) - 1 - fact.span;
        fact.operand == Some(self.plan.wrap(site.address.constant)) && begin >= fact.span && past <= suspect
    }

    /// The stores from this one on that share its marks.
    fn cluster(&self, number: usize, fates: &[Fate]) -> Cluster {
        let site = &self.sites[number];
        let origin = self.first(site);
        let operand = Some(self.plan.wrap(site.address.constant));
        let mut window = Window {
            low: 0,
            high: reach(self.plan, site),
            end: i64::from(site.width),
            one_operand: true,
        };
        let mut members = vec![number];
        let (run, at) = self.runs.of[number];
        let later = self.runs.members[run].iter().skip(at + 1).take(LOOK_AHEAD);
        for &member in later.filter(|_| self.plan.marks_ahead) {
            let other = &self.sites[member];
            if fates[member] != Fate::Open || other.width == 0 {
                continue;
            }
            let begin = self.plan.wrap(self.first(other).wrapping_sub(origin));
            let same = operand == Some(self.plan.wrap(other.address.constant));
            let wider = window.with(begin, reach(self.plan, other), other.width, same);
            if wider.high - wider.low <= self.plan.page_bytes() {
                window = wider;
                members.push(member);
            }
        }
        let suspect = i64::from(self.plan.cards.suspect_bytes);
        let single = window.one_operand && window.end - window.low <= suspect + 1;
        Cluster {
            fact: Fact {
                linear: site.address.linear,
                low: origin.wrapping_add(window.low),
                span: if single { 0 } else { window.high - window.low },
                operand: operand.filter(|_| window.one_operand),
            },
            members,
        }
    }
}

struct Cluster {
    fact: Fact,
    members: Vec<usize>,
}

/// Addresses relative to the cluster's first store.
#[derive(Clone, Copy, Debug)]
struct Window {
    /// Lowest first byte.
    low: i64,
    /// Highest byte whose page needs a mark.
    high: i64,
    /// End of the last byte.
    end: i64,
    /// Whether all addresses are one operand plus static offsets, which do not wrap.
    one_operand: bool,
}

impl Window {
    fn with(self, begin: i64, reach: i64, width: u32, same_operand: bool) -> Self {
        Self {
            low: self.low.min(begin),
            high: self.high.max(begin.saturating_add(reach)),
            end: self.end.max(begin.saturating_add(i64::from(width))),
            one_operand: self.one_operand && same_operand,
        }
    }
}
