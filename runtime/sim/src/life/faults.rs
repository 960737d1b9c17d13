//! Which operations of the disk fail, and which errors of the store they excuse.

use vmsync_core::{PagerError, PagerErrorKind};

use super::{Broken, World, lost};
use crate::{
    disk::{Failure, Fault, KILLED, Place},
    limits::{FAULT_OPERATIONS_MAX, FAULTS_MAX, LASTING_ONCE_IN, LASTING_OPERATIONS},
};

impl World {
    /// Some of the next so many operations and reads will fail.
    pub(super) fn inject_faults(&mut self, operations: usize, reads: usize) {
        const FAILURES: [Failure; 4] = [Failure::Io, Failure::NoSpace, Failure::Short, Failure::FalseAlarm];
        for _ in 0..=self.random.below(FAULTS_MAX) {
            let failure = FAILURES[self.random.below(FAILURES.len())];
            self.inject_fault(failure, self.disk.operations(), operations);
        }
        for _ in 0..self.random.below(FAULTS_MAX + 1) {
            self.inject_fault(Failure::Read, self.disk.reads(), reads);
        }
    }

    /// A few in a row fail, the first of them `among` so many from `from` on; or for long, what is done to one place.
    fn inject_fault(&mut self, failure: Failure, from: u64, among: usize) {
        const PLACES: [Place; 5] = [
            Place::Files("STORE", ""),
            Place::Files("journal-", ""),
            Place::Files("object-", ""),
            Place::Files("object-", ".sums"),
            Place::Room,
        ];
        let first = from + self.random.below(among) as u64;
        let lasts = self.random.once_in(LASTING_ONCE_IN);
        let (place, count) = match lasts {
            // A read needs no room.
            true => {
                let count = PLACES.len() - usize::from(failure == Failure::Read);
                (PLACES[self.random.below(count)], LASTING_OPERATIONS)
            }
            false => (Place::Anywhere, 1 + self.random.below(FAULT_OPERATIONS_MAX)),
        };
        let failure = if place == Place::Room {
            Failure::NoSpace
        } else {
            failure
        };
        self.disk.inject(Fault {
            operations: first..first + count as u64,
            place,
            failure,
        });
    }

    /// An error must have a reason: since so many operations had failed, another one did, or the process was killed. An earlier
    /// failure is none, for what it left in doubt the store settles by itself.
    pub(super) fn refused(&self, failed: u64, error: &PagerError, what: &str) -> Result<(), Broken> {
        let killed = self.disk.is_frozen() && error.message.contains(KILLED);
        self.explained(killed || self.disk.failed() > failed, error, what)
    }

    /// The same for what only reads, which a killed process does as well.
    pub(super) fn read_refused(&self, failed: u64, error: &PagerError, what: &str) -> Result<(), Broken> {
        self.explained(self.disk.failed() > failed, error, what)
    }

    fn explained(&self, has_reason: bool, error: &PagerError, what: &str) -> Result<(), Broken> {
        match has_reason && matches!(error.kind, PagerErrorKind::Io | PagerErrorKind::NoSpace) {
            true => Ok(()),
            false => Err(lost(format!("{what}: {error}"))),
        }
    }
}
