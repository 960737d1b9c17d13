//! Guests that are called asynchronously: their syncs leave the thread to others.

use std::{
    cell::Cell,
    future::Future,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
};

thread_local! {
    static TASKS: Cell<bool> = const { Cell::new(false) };
}

/// Runs `body`; guests that this thread makes meanwhile are asynchronous.
pub fn with_tasks(body: impl FnOnce()) {
    TASKS.set(true);
    body();
    TASKS.set(false);
}

/// Whether this thread is in [`with_tasks`].
pub fn wanted() -> bool {
    TASKS.get()
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Sleeps until `future` is ready.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(answer) => return answer,
            Poll::Pending => thread::park(),
        }
    }
}
