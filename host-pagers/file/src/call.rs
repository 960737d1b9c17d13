//! [`Call`]: what one `vm_msync` has sent so far, and [`Prepared`]: the same ready for the journal.
//!
//! ```text
//!   data_return --compare (delta.rs)--> Call { delta, answers }
//!   synchronize --> Prepared { entries, changed, changes, answers } --> queue
//! ```

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::AtomicUsize},
};

use vmsync_core::{ByteRange, PagerError, pager::MemoryObjectControl};

use crate::{
    delta::{Changed, Delta},
    layout::entry::{CALL_HEADER_BYTES, CatalogChange, encode_call_header, encode_change},
    limits::UNREAD_BYTES_MAX,
    object::Object,
    waiter::Waiter,
};

/// A call under way.
pub(crate) struct Call {
    pub(crate) delta: Delta,
    /// Objects whose pages came back.
    pub(crate) objects: BTreeMap<u64, Returned>,
    pub(crate) answers: Vec<Answer>,
    /// Bytes that came back.
    pub(crate) bytes: usize,
    /// See [`UNREAD_BYTES_MAX`].
    pub(crate) unread_bytes_left: AtomicUsize,
}

/// An object of a call.
#[derive(Default)]
pub(crate) struct Returned {
    /// Where it was last mapped.
    pub(crate) address: Option<u64>,
    /// The page behind all that came back: they come in ascending order, as a rule.
    pub(crate) behind: u64,
}

impl Default for Call {
    fn default() -> Self {
        Self {
            delta: Delta::default(),
            objects: BTreeMap::new(),
            answers: Vec::new(),
            bytes: 0,
            unread_bytes_left: AtomicUsize::new(UNREAD_BYTES_MAX),
        }
    }
}

/// Somebody who waits for the outcome of a call.
pub(crate) enum Answer {
    /// The runtime.
    Control {
        control: Arc<dyn MemoryObjectControl>,
        range: ByteRange,
    },
    /// A thread in this crate.
    Waiter(Arc<Waiter>),
}

/// A call that can be journaled.
pub(crate) struct Prepared {
    front: [u8; CALL_HEADER_BYTES],
    /// What follows the front.
    parts: Vec<Arc<Vec<u8>>>,
    pub(crate) changed: Vec<Changed>,
    pub(crate) changes: Vec<CatalogChange>,
    /// The object that the call makes or grows.
    pub(crate) resized: Option<Arc<Object>>,
    pub(crate) answers: Vec<Answer>,
    /// Whether the answers were given when the call was queued.
    pub(crate) write_behind: bool,
}

impl Prepared {
    /// A call that changes the catalog only.
    pub(crate) fn of_changes(changes: Vec<CatalogChange>, answer: Answer) -> Self {
        Self::new(Delta::default(), changes, vec![answer])
    }

    /// The call that makes the changes of `delta` and of the catalog.
    pub(crate) fn new(mut delta: Delta, changes: Vec<CatalogChange>, answers: Vec<Answer>) -> Self {
        let (mut parts, changed) = delta.take();
        let mut entries = Vec::new();
        changes
            .iter()
            .for_each(|change| encode_change(&mut entries, change));
        if !entries.is_empty() {
            parts.push(Arc::new(entries));
        }
        let length = parts.iter().map(|part| part.len()).sum();
        let mut front = [0; CALL_HEADER_BYTES];
        encode_call_header(&mut front, length, changed.len() + changes.len());
        Self {
            front,
            parts,
            changed,
            changes,
            resized: None,
            answers,
            write_behind: false,
        }
    }

    /// Whether there is anything to journal.
    pub(crate) fn is_empty(&self) -> bool {
        self.changed.is_empty() && self.changes.is_empty()
    }

    /// Its bytes in a record, in pieces.
    pub(crate) fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        let parts = self.parts.iter().map(|part| part.as_slice());
        std::iter::once(self.front.as_slice()).chain(parts)
    }

    /// How many bytes these are.
    pub(crate) fn len(&self) -> usize {
        self.pieces().map(<[u8]>::len).sum()
    }
}

impl Answer {
    /// The same once more: a queued call is answered when it is queued, and told later if it fails.
    pub(crate) fn again(&self) -> Self {
        match self {
            Self::Control { control, range } => Self::Control {
                control: control.clone(),
                range: *range,
            },
            Self::Waiter(waiter) => Self::Waiter(waiter.clone()),
        }
    }

    /// Whether `control` gets it.
    pub(crate) fn is_for(&self, control: &Arc<dyn MemoryObjectControl>) -> bool {
        matches!(self, Self::Control { control: own, .. } if Arc::ptr_eq(own, control))
    }

    /// Tells that the call is durable.
    pub(crate) fn succeed(self) {
        match self {
            // A refusal means that the runtime gave the request up (a time-out); the commit stands.
            Self::Control { control, range } => drop(control.synchronize_completed(range, Ok(()))),
            Self::Waiter(waiter) => waiter.finish(Ok(())),
        }
    }

    /// Tells that the call failed; `write_behind`: after it was said to be queued.
    pub(crate) fn fail(self, error: PagerError, write_behind: bool) {
        match self {
            Self::Control { control, range } if write_behind => control.write_behind_failed(range, error),
            Self::Control { control, range } => drop(control.synchronize_completed(range, Err(error))),
            Self::Waiter(waiter) => waiter.finish(Err(error)),
        }
    }
}
