//! Calls of many threads at once: each sees its own object as if it were alone, and calls over a shared object do
//! not lose each other's pages.

use std::thread;

use crate::{Client, Fixture, limits::CONCURRENT_ROUNDS};

pub(super) fn threads_side_by_side(fixture: &mut Fixture) {
    const THREADS: u64 = 4;
    let own: Vec<Client> = (0..THREADS)
        .map(|index| Client::open(fixture, &format!("own-{index}"), 4))
        .collect();
    let shared = Client::open(fixture, "shared", THREADS);
    thread::scope(|scope| {
        for (index, client) in (0..).zip(&own) {
            let shared = &shared;
            scope.spawn(move || work(index, client, shared));
        }
    });
    let last = (CONCURRENT_ROUNDS % 251) as u8;
    for (index, client) in (0..).zip(own) {
        client.assert_full(0, last);
        shared.assert_full(index, last);
        client.close();
    }
    drop(shared);
    fixture.reopen();
    let request = Client::open(
        fixture,
        if fixture.is_durable() { "shared" } else { "other" },
        THREADS,
    );
    if fixture.is_durable() {
        (0..THREADS).for_each(|index| request.assert_full(index, last));
    }
    request.close();
}

/// Commits rounds to an object of its own and to its page of the shared one. Ranges that are outstanding on one
/// object never overlap, as the runtime has it.
fn work(index: u64, own: &Client, shared: &Client) {
    use vmsync_core::pager::SynchronizeFlags;
    for round in 1..=CONCURRENT_ROUNDS {
        let (call, byte) = (Client::call(), (round % 251) as u8);
        own.give_full(call, 0, byte);
        own.give_full(call, round % 3 + 1, byte);
        shared.give_full(call, index, byte);
        let synchronous = !round.is_multiple_of(5);
        let nowait = (index + round).is_multiple_of(2);
        own.synchronize(
            call,
            (0, 4),
            SynchronizeFlags {
                synchronous,
                more: true,
                nowait,
            },
        )
        .expect("is held");
        shared
            .synchronize(
                call,
                (index, 1),
                SynchronizeFlags {
                    synchronous,
                    more: false,
                    nowait,
                },
            )
            .expect("commits");
        own.recorder.wait(own.range(0, 4)).expect("completes");
        shared.recorder.wait(shared.range(index, 1)).expect("completes");
        own.assert_full(0, byte);
        shared.assert_full(index, byte);
    }
}
