//! Which operations of the disk fail, and which errors of the store they excuse.

use vmsync_core::{PagerError, PagerErrorKind};

use super::{Broken, World, lost};
use crate::{
    disk::{Deeds, Failure, Fault, KILLED, Place},
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

    /// A few in a row fail, the first of them `among` so many from `from` on; or for long, all that is done to one place, or its
    /// writes only, or its syncs only.
    fn inject_fault(&mut self, failure: Failure, from: u64, among: usize) {
        const PLACES: [Place; 7] = [
            Place::Files("STORE", ""),
            Place::Files("journal-", ""),
            Place::Files("object-", ""),
            Place::Files("object-", ".sums"),
            Place::Files("journal-1", ""),
            Place::Files("object-2", ""),
            Place::Room,
        ];
        const DEEDS: [Deeds; 3] = [Deeds::All, Deeds::Writes, Deeds::Syncs];
        let first = from + self.random.below(among) as u64;
        let lasts = self.random.once_in(LASTING_ONCE_IN);
        let (place, deeds, count) = match lasts {
            // A read needs no room.
            true => {
                let count = PLACES.len() - usize::from(failure == Failure::Read);
                let (place, deeds) = (self.random.below(count), self.random.below(DEEDS.len()));
                (PLACES[place], DEEDS[deeds], LASTING_OPERATIONS)
            }
            false => {
                let count = 1 + self.random.below(FAULT_OPERATIONS_MAX);
                (Place::Anywhere, Deeds::All, count)
            }
        };
        let (failure, deeds) = match place {
            Place::Room => (Failure::NoSpace, Deeds::All),
            _ => (failure, deeds),
        };
        self.disk.inject(Fault {
            operations: first..first + count as u64,
            place,
            deeds,
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
