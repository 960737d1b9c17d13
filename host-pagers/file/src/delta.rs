//! [`Delta`]: what a run of returned pages changes, and how it is found.
//!
//! Reading the base and comparing is most of what a call with many pages costs, so large calls are shared among threads.
//!
//! Invariant: deltas are computed while no lock is held, and queued only if no page of theirs changed meanwhile.

use std::{
    cell::RefCell,
    panic::resume_unwind,
    sync::{Arc, atomic::AtomicUsize},
    thread,
};

use vmsync_core::PageSize;

use crate::{
    buffer::Buffer,
    call::{Call, Run},
    difference::difference,
    disk::Result,
    layout::{Seed, entry::encode_page},
    limits::{DELTA_THREAD_PAGES, DELTA_THREADS_MAX, UNREAD_BYTES_MAX},
    object::{Object, PageBytes},
    store::Shared,
};

/// What differs from the base.
#[derive(Default)]
pub(crate) struct Delta {
    /// When the base was read.
    pub(crate) epoch: u64,
    pub(crate) entries: Vec<u8>,
    pub(crate) changed: Vec<Changed>,
}

/// A page that differs.
#[derive(Clone)]
pub(crate) struct Changed {
    pub(crate) object: Arc<Object>,
    pub(crate) page: u64,
    pub(crate) sum: u64,
    pub(crate) bytes: PageBytes,
}

impl Delta {
    /// The difference of `bytes`, pages of `object` from `first` on, and `base`, read at `epoch`.
    pub(crate) fn new(
        (seed, page_size): (Seed, PageSize),
        object: &Arc<Object>,
        first: u64,
        bytes: &Arc<Buffer>,
        (base, epoch): (&[u8], u64),
    ) -> Self {
        assert!(base.len() == bytes.len());
        let mut delta = Self {
            epoch,
            ..Self::default()
        };
        let length = page_size.bytes() as usize;
        let mut runs = Vec::new();
        for (index, (old, new)) in base
            .chunks_exact(length)
            .zip(bytes.chunks_exact(length))
            .enumerate()
        {
            difference(old, new, &mut runs);
            if runs.is_empty() {
                continue;
            }
            let page = first + index as u64;
            let sum = seed.page_sum(object.id, page, new);
            encode_page(&mut delta.entries, (object.id, page, sum), new, &runs);
            delta.changed.push(Changed {
                object: object.clone(),
                page,
                sum,
                bytes: PageBytes::new(bytes, index * length),
            });
        }
        delta
    }
}

thread_local! {
    /// What a run of pages is compared with; at most as long as the longest run.
    static BASE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl Shared {
    /// Computes the deltas of `call` that are missing.
    ///
    /// # Errors
    /// The disk's, reading the base.
    pub(crate) fn refresh(&self, call: &mut Call) -> Result<()> {
        let mut missing: Vec<&mut Run> = call.runs.iter_mut().filter(|run| run.delta.is_none()).collect();
        let bytes: usize = missing.iter().map(|run| run.bytes.len()).sum();
        let pages = self.page_size.page_of(bytes as u64) as usize;
        let threads = (pages / DELTA_THREAD_PAGES).clamp(1, self.processors.min(DELTA_THREADS_MAX));
        let allowance = &AtomicUsize::new(UNREAD_BYTES_MAX);
        if threads == 1 {
            return self.compute(&mut missing, allowance);
        }
        let share = missing.len().div_ceil(threads);
        let (own, others) = missing.split_at_mut(share);
        thread::scope(|scope| {
            let start =
                |share| thread::Builder::new().spawn_scoped(scope, move || self.compute(share, allowance));
            // Where a thread cannot be started its share is still missing below.
            let others: Vec<_> = others.chunks_mut(share).flat_map(start).collect();
            let done = self.compute(own, allowance);
            let others = others
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic)));
            others.fold(done, Result::and)
        })?;
        self.compute(&mut missing, allowance)
    }

    /// Computes those deltas of `runs` that are missing.
    fn compute(&self, runs: &mut [&mut Run], allowance: &AtomicUsize) -> Result<()> {
        BASE.with_borrow_mut(|base| {
            for run in runs.iter_mut().filter(|run| run.delta.is_none()) {
                base.resize(run.bytes.len(), 0);
                let offset = run.first * self.page_size.bytes();
                let epoch = self.read_base(&run.object, offset, (&run.bytes, base), allowance)?;
                let place = (self.seed, self.page_size);
                run.delta = Some(Delta::new(
                    place,
                    &run.object,
                    run.first,
                    &run.bytes,
                    (base, epoch),
                ));
            }
            Ok(())
        })
    }
}
