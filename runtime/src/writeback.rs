//! Driving an [`Msync`] on a thread: poll, wait for the object that blocks it, give up after the time-out.

use std::time::{Duration, Instant};

use vmsync_core::{
    KernReturn,
    memory::TaskMemory,
    msync::{Msync, Poll},
    object::ObjectHandle,
};

use crate::{limits::PAGER_TIME_OUT_MAX, object::Object};

/// Drives `msync` to its end. `time_out` bounds all waiting of the call together.
pub(crate) fn drive(
    msync: &mut Msync<Object>,
    memory: &mut dyn TaskMemory,
    time_out: Duration,
) -> KernReturn {
    let mut deadline = None;
    loop {
        let object = match msync.poll(memory) {
            Poll::Done(result) => return result,
            Poll::Blocked(object) => object,
        };
        let events = object.with(|object| object.events());
        // What happened between the poll and this look is seen by a second poll.
        match msync.poll(memory) {
            Poll::Done(result) => return result,
            Poll::Blocked(still) if still != object => continue,
            Poll::Blocked(_) => {}
        }
        let deadline = *deadline.get_or_insert_with(|| Instant::now() + time_out.min(PAGER_TIME_OUT_MAX));
        if !object.0.wait(events, deadline) {
            return msync.time_out(memory);
        }
    }
}
