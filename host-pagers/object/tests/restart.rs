//! A server that is killed and started again. Alone in its program: other tests need the server.

mod common;

use common::{address, bucket, client, location, prefix, server, store};
use vmsync_pager_conformance::commit_over_restart;

#[test]
fn commits_go_on_over_a_restart() {
    let (Some(server), Ok(pid_file)) = (server(), std::env::var("VMSYNC_S3_PID")) else {
        return;
    };
    let location = location(&bucket(&server, address(&server)), &prefix());
    let storage = store(&location);
    let one = client(&storage, "object", 4);
    let last = commit_over_restart(&one, pid_file.as_ref(), || {
        client(&storage, "other", 1).commit_full(0, 1);
    });
    one.assert_full(0, last);
    one.close();
    drop(storage);
    client(&store(&location), "object", 4).assert_full(0, last);
}
