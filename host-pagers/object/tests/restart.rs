//! A server that is killed and started again. Alone in its program: other tests need the server.

mod common;

use std::{
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use common::{address, bucket, client, commit, location, prefix, server, store};

/// Kills the server; who started it starts it again.
fn kill(pid_file: &str) {
    let pid = std::fs::read_to_string(pid_file).unwrap();
    assert!(
        Command::new("kill")
            .args(["-KILL", &pid])
            .status()
            .unwrap()
            .success()
    );
    let deadline = Instant::now() + Duration::from_secs(20);
    while std::fs::read_to_string(pid_file).unwrap() == pid {
        assert!(Instant::now() < deadline, "nobody started the server again");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn commits_go_on_over_a_restart() {
    let (Some(server), Ok(pid_file)) = (server(), std::env::var("VMSYNC_S3_PID")) else {
        return;
    };
    let location = location(&bucket(&server, address(&server)), &prefix());
    let storage = store(&location);
    let one = client(&storage, "object", 4);
    commit(&one, 0, 1).unwrap();
    let stop = AtomicBool::new(false);
    let last = thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut last = 1u8;
            while !stop.load(Ordering::Relaxed) && last < 250 {
                last += 1;
                commit(&one, 0, last).unwrap();
                thread::sleep(Duration::from_millis(5));
            }
            last
        });
        thread::sleep(Duration::from_millis(100));
        kill(&pid_file);
        // Until a commit has been through the new one.
        commit(&client(&storage, "other", 1), 0, 1).unwrap();
        stop.store(true, Ordering::Relaxed);
        writer.join().unwrap()
    });
    one.assert_full(0, last);
    one.close();
    drop(storage);
    client(&store(&location), "object", 4).assert_full(0, last);
}
