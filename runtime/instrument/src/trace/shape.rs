//! The shape of a body: where its frames end, which locals they assign, what is in them.
//!
//! Invariants:
//! - frames are numbered in the order in which they open, which is the order in which the walk meets them;
//! - a body that is not well formed gives some shape; the walk's validation refuses it.

use crate::store::is_collection_point;
use alloc::vec::Vec;
use core::ops::Range;
use wasmparser::{FunctionBody, Operator};

/// Numbers of instructions, ascending.
type Positions = Vec<u32>;

/// What a quick pass over a body finds.
#[derive(Debug, Default)]
pub(crate) struct Shape {
    /// For each frame, the number of its first instruction and of its `end`.
    frames: Vec<Range<u32>>,
    /// Every assignment: number of the instruction, and the local.
    assigned: Vec<(u32, u32)>,
    collects: Positions,
    loops: Positions,
}

impl Shape {
    /// Reads a body.
    pub fn read(body: &FunctionBody<'_>) -> Result<Self, wasmparser::Error> {
        let mut shape = Self::default();
        let mut open: Vec<usize> = Vec::new();
        let mut reader = body.get_operators_reader()?;
        let mut op = 0u32;
        while !reader.eof() {
            let operator = reader.read()?;
            match operator {
                Operator::Loop { .. } => {
                    shape.loops.push(op);
                    open.push(shape.open(op));
                }
                Operator::Block { .. } | Operator::If { .. } | Operator::TryTable { .. } => {
                    open.push(shape.open(op))
                }
                Operator::End => {
                    if let Some(frame) = open.pop() {
                        shape.frames[frame].end = op;
                    }
                }
                Operator::LocalSet { local_index } | Operator::LocalTee { local_index } => {
                    shape.assigned.push((op, local_index));
                }
                _ if is_collection_point(&operator) => shape.collects.push(op),
                _ => {}
            }
            op += 1;
        }
        Ok(shape)
    }

    fn open(&mut self, op: u32) -> usize {
        self.frames.push(op..u32::MAX);
        self.frames.len() - 1
    }

    /// The instructions of a frame.
    pub fn frame(&self, frame: usize) -> Range<u32> {
        self.frames.get(frame).cloned().unwrap_or(0..u32::MAX)
    }

    /// Locals that are assigned within a frame, with repetitions.
    pub fn assigned(&self, frame: &Range<u32>) -> &[(u32, u32)] {
        let begin = self.assigned.partition_point(|&(op, _)| op < frame.start);
        let end = self.assigned.partition_point(|&(op, _)| op < frame.end);
        &self.assigned[begin..end]
    }

    /// Whether the host may collect within a frame.
    pub fn collects(&self, frame: &Range<u32>) -> bool {
        any_within(&self.collects, frame)
    }

    /// Whether a loop's frame has another loop in it.
    pub fn has_inner_loop(&self, frame: &Range<u32>) -> bool {
        any_within(&self.loops, &(frame.start + 1..frame.end))
    }
}

fn any_within(positions: &Positions, range: &Range<u32>) -> bool {
    let at = positions.partition_point(|&op| op < range.start);
    positions.get(at).is_some_and(|&op| op < range.end)
}
