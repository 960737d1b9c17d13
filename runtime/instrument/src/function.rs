//! One function: from the body that came in to the body that goes out.
//!
//! The body's own bytes are copied; marks are inserted between instructions. Scratch locals are appended to the function's, so
//! no index changes.
//!
//! Invariants:
//! - instructions of the input keep their bytes and their order, but for the indices of functions that get one around them;
//! - two scratch locals that hold something at the same time are not the same local.

use crate::ahead::{Ahead, Locals, MarkerFunction, MarkerFunctions};
use crate::analysis::{Fate, coalesce, hoist, scatter, shadow_stack};
use crate::error::InstrumentError;
use crate::marks::{Anchor, Marker};
use crate::plan::Plan;
use crate::report::Report;
use crate::store::StoreKind;
use crate::trace::{Base, Site, Trace, walk};
use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;
use wasm_encoder::{Encode, InstructionSink};
use wasmparser::{FuncValidator, FunctionBody, ValType, ValidatorResources};

/// Where something is inserted, relative to what else is inserted at the same byte: a copy directly behind the instruction that
/// made the value, then the marks of the store that ends there, then marks ahead of the loop that begins there, then the
/// spilling for the store that begins there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rank {
    Copy,
    Marks,
    Ahead,
    Spill,
}

/// A rewritten body.
#[derive(Debug)]
pub(crate) struct Rewritten {
    /// Locals and instructions, without the length before them.
    pub bytes: Vec<u8>,
    /// For each insertion the byte of the old body before which it was made, and by how many bytes it moved: ascending.
    pub moved: Vec<(usize, i64)>,
}

/// Validates a body and gives it its marks. `None`: the body stays as it is.
pub(crate) fn rewrite(
    plan: &Plan,
    validator: &mut FuncValidator<ValidatorResources>,
    body: &FunctionBody<'_>,
    without: Option<StoreKind>,
    functions: &mut MarkerFunctions,
    report: &mut Report,
) -> Result<Option<Rewritten>, InstrumentError> {
    let trace = walk::walk(plan, validator, body)?;
    if trace.sites.is_empty() && trace.redirects.is_empty() {
        return Ok(None);
    }
    report.stores += trace.sites.len() as u64;
    report.bulk_stores += trace.sites.iter().filter(|site| site.write.is_bulk()).count() as u64;
    let mut fates = vec![Fate::Open; trace.sites.len()];
    if plan.analyses.shadow_stack && without.is_none() {
        report.skipped_stack += shadow_stack::settle(plan, &trace, &mut fates);
    }
    let mut ahead = Vec::new();
    if plan.analyses.hoist && without.is_none() {
        ahead = hoist::settle(plan, &trace, &mut fates);
        report.hoisted += fates.iter().filter(|fate| **fate == Fate::Hoisted).count() as u64;
        report.loops += ahead.len() as u64;
    }
    if plan.analyses.coalesce && without.is_none() {
        report.coalesced += coalesce::settle(plan, &trace, &mut fates);
    }
    coalesce::rest(plan, &trace.sites, &mut fates);
    if let Some(kind) = without {
        for (site, fate) in trace.sites.iter().zip(&mut fates) {
            if site.write.kind == kind {
                *fate = Fate::Covered;
            }
        }
    }
    let mut edit = Edit::new(plan, &trace);
    edit.redirect();
    edit.place(&fates, &ahead, functions, report)?;
    edit.finish(body).map(Some)
}

/// A stretch of the code in which a scratch local is in use. Times are twice the number of an instruction, plus one for what
/// comes after it.
#[derive(Debug)]
struct Lease {
    from: u32,
    to: u32,
    ty: ValType,
}

/// Scratch locals, handed out so that those in use at one time differ.
#[derive(Debug)]
struct Scratch {
    first: u32,
    types: Vec<ValType>,
}

impl Scratch {
    /// Gives each lease a local: its index, in the order of the leases.
    fn assign(&mut self, leases: &[Lease]) -> Vec<u32> {
        let mut order: Vec<usize> = (0..leases.len()).collect();
        order.sort_by_key(|&lease| leases[lease].from);
        let mut given = vec![0; leases.len()];
        let mut busy: BTreeMap<(u32, u32), ValType> = BTreeMap::new();
        let mut free: Vec<(ValType, u32)> = Vec::new();
        for lease in order {
            let Lease { from, to, ty } = leases[lease];
            while let Some(entry) = busy.first_entry().filter(|entry| entry.key().0 < from) {
                let ((_, local), ty) = entry.remove_entry();
                free.push((ty, local));
            }
            let local = match free.iter().rposition(|&(free, _)| free == ty) {
                Some(at) => free.swap_remove(at).1,
                None => {
                    self.types.push(ty);
                    self.first + self.types.len() as u32 - 1
                }
            };
            busy.insert((to, local), ty);
            given[lease] = local;
        }
        given
    }
}

struct Insertion {
    /// What of the body it replaces: nothing, but for indices of functions.
    at: Range<usize>,
    rank: Rank,
    bytes: Range<usize>,
}

struct Edit<'a> {
    marker: Marker<'a>,
    trace: &'a Trace,
    insertions: Vec<Insertion>,
    text: Vec<u8>,
    scratch: Scratch,
}

impl<'a> Edit<'a> {
    fn new(plan: &'a Plan, trace: &'a Trace) -> Self {
        Self {
            marker: Marker { plan },
            trace,
            insertions: Vec::new(),
            text: Vec::new(),
            scratch: Scratch {
                first: trace.locals,
                types: Vec::new(),
            },
        }
    }

    fn insert(&mut self, at: usize, rank: Rank, write: impl FnOnce(&Marker<'a>, &mut Vec<u8>)) {
        let begin = self.text.len();
        write(&self.marker, &mut self.text);
        self.insertions.push(Insertion {
            at: at..at,
            rank,
            bytes: begin..self.text.len(),
        });
    }

    /// Calls and references of functions that got one around them.
    fn redirect(&mut self) {
        let trace = self.trace;
        for redirect in &trace.redirects {
            let begin = self.text.len();
            redirect.function.encode(&mut self.text);
            self.insertions.push(Insertion {
                at: redirect.index.clone(),
                rank: Rank::Copy,
                bytes: begin..self.text.len(),
            });
        }
    }

    fn place(
        &mut self,
        fates: &[Fate],
        ahead: &[Ahead],
        functions: &mut MarkerFunctions,
        report: &mut Report,
    ) -> Result<(), InstrumentError> {
        let sites = &self.trace.sites;
        let scattered = scatter::find(self.marker.plan, self.trace);
        let marked = || {
            sites
                .iter()
                .zip(fates)
                .zip(&scattered)
                .filter(|((_, fate), _)| matches!(fate, Fate::Marks(_)))
        };
        let mut leases = Vec::new();
        for ((site, _), _) in marked() {
            lease(self.marker.plan, site, &mut leases)?;
        }
        for marks in ahead {
            leases.extend(Locals::TYPES.map(|ty| Lease {
                from: 2 * marks.op,
                to: 2 * marks.op,
                ty,
            }));
        }
        let locals = self.scratch.assign(&leases);
        let mut next = locals.iter().copied();
        for ((site, fate), &scattered) in marked() {
            let Fate::Marks(marks) = fate else { continue };
            if site.width == 0 {
                self.dynamic(site, &mut next, functions);
                continue;
            }
            let anchor = self.anchor(site, &mut next);
            self.insert(site.end, Rank::Marks, |marker, out| {
                for &distance in marks {
                    if scattered {
                        marker.one_if_clear(out, anchor, distance);
                    } else {
                        marker.one(out, anchor, distance);
                    }
                }
            });
            report.marks += marks.len() as u64;
            report.scattered += u64::from(scattered);
        }
        for marks in ahead {
            let [steps, low, high, flag] = core::array::from_fn(|_| take(&mut next));
            let locals = Locals {
                steps,
                low,
                high,
                flag,
            };
            self.insert(marks.at, Rank::Ahead, |marker, out| {
                marks.emit(marker, functions, locals, out)
            });
        }
        Ok(())
    }

    /// Makes the address operand available after the store.
    fn anchor(&mut self, site: &Site, locals: &mut impl Iterator<Item = u32>) -> Anchor {
        match site.base {
            Base::Anchor(anchor) => anchor,
            Base::Tee { at, .. } => {
                let local = take(locals);
                self.insert(at, Rank::Copy, |_, out| {
                    InstructionSink::new(out).local_tee(local);
                });
                Anchor::Local { local, delta: 0 }
            }
            Base::Spill => {
                let spilled = self.spill(site, locals);
                Anchor::Local {
                    local: spilled[0],
                    delta: 0,
                }
            }
        }
    }

    /// Copies all operands of a store to locals, and puts them back.
    fn spill(&mut self, site: &Site, locals: &mut impl Iterator<Item = u32>) -> [u32; 4] {
        let mut spilled = [0; 4];
        let count = site.write.operands as usize;
        for local in spilled.iter_mut().take(count) {
            *local = take(locals);
        }
        self.insert(site.at, Rank::Spill, |_, out| {
            let sink = &mut InstructionSink::new(out);
            for &local in spilled[1..count].iter().rev() {
                sink.local_set(local);
            }
            sink.local_tee(spilled[0]);
            for &local in &spilled[1..count] {
                sink.local_get(local);
            }
        });
        spilled
    }

    /// Marks for a bulk store whose length is known at run time only. They come before it: setting many cards takes a loop or a
    /// fill, in which a guest may be interrupted for good. Nothing that could collect is between the two, but for another thread.
    fn dynamic(
        &mut self,
        site: &Site,
        locals: &mut impl Iterator<Item = u32>,
        functions: &mut MarkerFunctions,
    ) {
        let spilled = self.spill(site, locals);
        let (address, len) = (spilled[0], spilled[2]);
        if self.marker.plan.marks_ahead {
            let number = functions.number(MarkerFunction::Bytes);
            self.insert(site.at, Rank::Spill, |marker, out| {
                let sink = &mut InstructionSink::new(out);
                sink.local_get(address).local_get(len);
                sink.call(marker.plan.marker_function(number));
            });
            return;
        }
        let (first, last) = (take(locals), take(locals));
        let len_is_64 = walk::len_is_64(site);
        self.insert(site.at, Rank::Spill, |marker, out| {
            marker.range_ahead(out, address, len, len_is_64, first, last);
        });
        if self.marker.plan.tracked_type.shared {
            self.insert(site.end, Rank::Marks, |marker, out| {
                marker.range(out, address, len, len_is_64, first, last);
            });
        }
    }

    /// Puts the body together.
    fn finish(mut self, body: &FunctionBody<'_>) -> Result<Rewritten, InstrumentError> {
        // Stable: of one rank, in the order of the code.
        self.insertions
            .sort_by_key(|insertion| (insertion.at.start, insertion.rank));
        let old = body.as_bytes();
        let begin = body.range().start;
        let declared = body.get_locals_reader()?;
        let groups_at = declared.original_position() - begin;
        let code_at = body.get_binary_reader_for_operators()?.original_position() - begin;
        let mut bytes = Vec::with_capacity(old.len() + self.text.len() + 16);
        let added = runs(&self.scratch.types);
        (declared.get_count() + added.len() as u32).encode(&mut bytes);
        bytes.extend_from_slice(&old[groups_at..code_at]);
        for (count, ty) in added {
            count.encode(&mut bytes);
            encoded(ty).encode(&mut bytes);
        }
        let mut moved = Vec::from([(code_at, bytes.len() as i64 - code_at as i64)]);
        let mut from = code_at;
        for insertion in &self.insertions {
            let Range { start, end } = insertion.at;
            bytes.extend_from_slice(&old[from..start]);
            bytes.extend_from_slice(&self.text[insertion.bytes.clone()]);
            moved.push((end, insertion.bytes.len() as i64 - (end - start) as i64));
            from = end;
        }
        bytes.extend_from_slice(&old[from..]);
        Ok(Rewritten { bytes, moved })
    }
}

fn take(locals: &mut impl Iterator<Item = u32>) -> u32 {
    locals.next().expect("a lease was taken for every scratch local")
}

/// The scratch locals of one store, in the order in which they are used.
fn lease(plan: &Plan, site: &Site, leases: &mut Vec<Lease>) -> Result<(), InstrumentError> {
    let (before, after) = (2 * site.op, 2 * site.op + 1);
    match site.base {
        Base::Anchor(_) => {}
        Base::Tee { op, .. } => leases.push(Lease {
            from: 2 * op + 1,
            to: after,
            ty: operand(site, 0)?,
        }),
        Base::Spill => {
            for index in 0..site.write.operands as usize {
                leases.push(Lease {
                    from: before,
                    to: after,
                    ty: operand(site, index)?,
                });
            }
            if site.width == 0 && !plan.marks_ahead {
                for _ in 0..2 {
                    leases.push(Lease {
                        from: before,
                        to: after,
                        ty: ValType::I32,
                    });
                }
            }
        }
    }
    Ok(())
}

fn operand(site: &Site, index: usize) -> Result<ValType, InstrumentError> {
    match site.operands[index] {
        Some(ty) if !ty.is_reference_type() => Ok(ty),
        _ => Err(InstrumentError::Unsupported {
            reason: "a store whose operands have no known types",
        }),
    }
}

fn encoded(ty: ValType) -> wasm_encoder::ValType {
    match ty {
        ValType::I32 => wasm_encoder::ValType::I32,
        ValType::I64 => wasm_encoder::ValType::I64,
        ValType::F32 => wasm_encoder::ValType::F32,
        ValType::F64 => wasm_encoder::ValType::F64,
        ValType::V128 => wasm_encoder::ValType::V128,
        ValType::Ref(_) => unreachable!("scratch locals hold operands of stores, which are numbers"),
    }
}

/// Runs of equal types, as locals are declared.
fn runs(types: &[ValType]) -> Vec<(u32, ValType)> {
    let mut runs: Vec<(u32, ValType)> = Vec::new();
    for &ty in types {
        match runs.last_mut() {
            Some((count, last)) if *last == ty => *count += 1,
            _ => runs.push((1, ty)),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_that_meet_get_different_locals() {
        let lease = |from, to, ty| Lease { from, to, ty };
        let mut scratch = Scratch {
            first: 10,
            types: Vec::new(),
        };
        let given = scratch.assign(&[
            lease(1, 9, ValType::I32),
            lease(3, 5, ValType::I32),
            lease(5, 6, ValType::I32),
            lease(7, 9, ValType::I32),
            lease(7, 9, ValType::F64),
        ]);
        assert_eq!(given, [10, 11, 12, 12, 13]);
        assert_eq!(runs(&scratch.types), [(3, ValType::I32), (1, ValType::F64)]);
    }
}
