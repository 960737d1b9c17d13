//! [`wake_all`]: tells tasks that they may go on.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    task::Waker,
};

/// Wakes each of `wakers`. An executor that panics is no business of the others, nor of who has something to tell.
pub(crate) fn wake_all(wakers: Vec<Waker>) {
    for waker in wakers {
        let woken = catch_unwind(AssertUnwindSafe(|| waker.wake()));
        if woken.is_err() {
            tracing::warn!("a task's waker has panicked");
        }
    }
}
