//! A server that is killed and started again. Alone in its program: other tests need the server.

mod common;

use common::{client, commits, fresh, server, store};
use vmsync_pager_conformance::commit_over_restart;

#[test]
fn commits_go_on_over_a_restart() {
    let (Some(server), Ok(pid_file)) = (server(), std::env::var("VMSYNC_PG_PID")) else {
        return;
    };
    let url = fresh(&server);
    let storage = store(&url);
    let one = client(&storage, "object", 4);
    let before = commits(&url);
    let last = commit_over_restart(&one, pid_file.as_ref(), || {
        client(&storage, "other", 1).commit_full(0, 1);
    });
    one.assert_full(0, last);
    one.close();
    drop(storage);
    // Two of the other object: it was made, and written once. Either may have shared a transaction with a call.
    let (after, calls) = (commits(&url), i64::from(last));
    assert!(
        (before + calls..=before + calls + 2).contains(&after),
        "{calls} calls, and two of the other object, took place once each: {before} commits, then {after}"
    );
    client(&store(&url), "object", 4).assert_full(0, last);
}
