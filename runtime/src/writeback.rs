//! Driving an [`Msync`], of a guest's call or of a pager's `lock_request`: poll, wait for the object that blocks it, give up after the
//! time-out.
//!
//! There is one way through a call, and it is asynchronous. Where a thread waits, it does so inside, so that its calls are
//! [`finished`] when they are polled once.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    task::{self, Context, Waker},
    time::Instant,
};

use vmsync_core::{
    KernReturn,
    limits::LOCK_REQUESTS_MAX,
    memory::TaskMemory,
    msync::{Msync, Poll},
    object::ObjectHandle,
    pager::LockRequest,
    task::Task,
};

use crate::{Host, limits::PAGER_TIME_OUT_MAX, object::Object};

/// Who waits for pagers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waiter {
    /// The thread that makes the call.
    Thread,
    /// The task: its thread has other work.
    Task,
}

/// Drives `msync` to its end. The time-out of `host` bounds all waiting of the call together.
pub(crate) async fn drive(
    msync: &mut Msync<Object>,
    memory: &mut impl TaskMemory,
    host: &Host,
    waiter: Waiter,
) -> KernReturn {
    let (mut deadline, mut alarm) = (None, None);
    if waiter == Waiter::Task {
        msync.set_nowait();
    }
    poll_fn(|context| {
        loop {
            let (object, events) = match step(msync, memory) {
                Ok(result) => return task::Poll::Ready(result),
                Err(blocked) => blocked,
            };
            let time_out = host.options().pager_time_out.min(PAGER_TIME_OUT_MAX);
            let deadline = *deadline.get_or_insert_with(|| Instant::now() + time_out);
            let in_time = match waiter {
                Waiter::Thread => object.0.wait(events, deadline),
                Waiter::Task if Instant::now() >= deadline => false,
                Waiter::Task => match alarm.get_or_insert_with(|| host.clock().alarm(deadline)) {
                    Some(alarm) => {
                        alarm.set(context.waker());
                        if object.0.wake_after(events, context.waker()) {
                            return task::Poll::Pending;
                        }
                        true
                    }
                    // Late for others, but not for ever.
                    None => object.0.wait(events, deadline),
                },
            };
            if !in_time {
                return task::Poll::Ready(msync.time_out(memory));
            }
        }
    })
    .await
}

/// Polls until the call is done, or has nothing to do before the object that is answered has more events than these.
fn step(msync: &mut Msync<Object>, memory: &mut dyn TaskMemory) -> Result<KernReturn, (Object, u64)> {
    loop {
        let object = match msync.poll(memory) {
            Poll::Done(result) => return Ok(result),
            Poll::Blocked(object) => object,
        };
        let events = object.with(|object| object.events());
        // What happened between the poll and this look is seen by a second poll.
        match msync.poll(memory) {
            Poll::Done(result) => return Ok(result),
            Poll::Blocked(still) if still != object => {}
            Poll::Blocked(_) => return Err((object, events)),
        }
    }
}

/// Carries out what pagers have asked for of the pages that `task` writes, and answers what was done: no more than one object's requests
/// can wait, as a pager may ask for more meanwhile. One that lets it time out is not waited for again now.
pub(crate) async fn serve_lock_requests(
    task: &mut Task<Object>,
    memory: &mut impl TaskMemory,
    host: &Host,
    waiter: Waiter,
) -> Vec<Msync<Object>> {
    let mut served = Vec::new();
    for _ in 0..LOCK_REQUESTS_MAX {
        let Some((object, request)) = task.next_lock_request() else {
            break;
        };
        if let Ok(mut msync) = task.lock_request(&object, &request, host.next_call(), memory) {
            let mut unserved = Unserved(Some((object, request)));
            let result = drive(&mut msync, memory, host, waiter).await;
            unserved.0 = None;
            served.push(msync);
            if result == KernReturn::Aborted {
                break;
            }
        }
    }
    served
}

/// A pager's request that is being carried out. Where the call is dropped before its end, the next one does it.
struct Unserved(Option<(Object, LockRequest)>);

impl Drop for Unserved {
    fn drop(&mut self) {
        if let Some((object, request)) = &self.0 {
            // One that is refused is one of too many.
            let _ = object.with(|object| object.lock_request(*request));
        }
    }
}

/// What a call answers for which [`Waiter::Thread`] waits.
pub(crate) fn finished<T>(call: impl Future<Output = T>) -> T {
    match pin!(call).poll(&mut Context::from_waker(Waker::noop())) {
        task::Poll::Ready(answer) => answer,
        task::Poll::Pending => unreachable!("a thread waits inside"),
    }
}
