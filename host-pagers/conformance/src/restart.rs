//! A pager's server that is killed and started again while a task commits.

use std::{
    fs,
    path::Path,
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use crate::{Client, limits::COMPLETION_WAIT};

/// Commits page 0 of `client` with rising bytes, from 1 on, while the server whose process number is in `pid_file` is
/// killed; whoever started it starts it again. Goes on until `behind`, which is to commit something else, has returned.
/// Answers with the last byte; each was one call.
///
/// # Panics
/// When a call fails, or nobody starts the server again.
pub fn commit_over_restart(client: &Client, pid_file: &Path, behind: impl FnOnce()) -> u8 {
    client.commit_full(0, 1);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut last = 1;
            while !stop.load(Ordering::Relaxed) && last < 250 {
                last += 1;
                client.commit_full(0, last);
                thread::sleep(Duration::from_millis(5));
            }
            last
        });
        thread::sleep(Duration::from_millis(100));
        kill(pid_file);
        behind();
        stop.store(true, Ordering::Relaxed);
        writer.join().expect("every call commits")
    })
}

fn kill(pid_file: &Path) {
    let number = || fs::read_to_string(pid_file).expect("the server's number");
    let pid = number();
    let killed = Command::new("kill").args(["-KILL", &pid]).status();
    assert!(killed.expect("there is such a program").success());
    let deadline = Instant::now() + COMPLETION_WAIT;
    while number() == pid {
        assert!(Instant::now() < deadline, "nobody started the server again");
        thread::sleep(Duration::from_millis(20));
    }
}
