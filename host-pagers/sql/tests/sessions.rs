//! Sessions that the server ends. Alone in its program: it ends those of every store on the server.

mod common;

use common::{client, commits, fresh, server, store, with_client};

#[test]
fn a_session_that_the_server_ends_is_made_again() {
    let Some(server) = server() else { return };
    let url = fresh(&server);
    let store = store(&url);
    let client = client(&store, "object", 4);
    let before = commits(&url);
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE application_name LIKE 'vmsync %' AND query LIKE '%vmsync%' AND pid <> pg_backend_pid()";
    for byte in 1..6 {
        client.commit_full(2, byte);
        with_client(&url, async |client| client.batch_execute(end).await.unwrap());
        client.assert_full(2, byte);
    }
    assert_eq!(commits(&url), before + 5);
    client.close();
}
