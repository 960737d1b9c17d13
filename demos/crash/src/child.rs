//! [`Child`]: a process whose output is read line by line, and which ends with us.
//!
//! Invariants:
//! - what was written before the end is read, whatever ended the process: the end comes after the last line;
//! - a line that the end cut off is not reported;
//! - dropping a child kills it and waits for it.

use std::{
    io::{BufRead, BufReader, Read},
    os::unix::process::CommandExt,
    process::{self, Command, ExitStatus, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

use crate::interrupt;

/// How often a waiting thread looks for an interrupt.
const INTERRUPT_PERIOD: Duration = Duration::from_millis(50);

/// A line of output.
pub enum Line {
    Out(String),
    Error(String),
}

/// What came next.
pub enum Event {
    Line(Line),
    /// The time given is reached.
    TimeReached,
    /// All output is read; call [`Child::end`].
    Closed,
}

/// How a process ended.
pub struct End {
    pub status: ExitStatus,
    /// Bytes that it sent to the storage, where the system counts them.
    pub bytes_written: Option<u64>,
}

/// All that a process said.
pub struct Output {
    pub status: ExitStatus,
    pub out: Vec<String>,
    pub errors: Vec<String>,
}

pub struct Child {
    process: process::Child,
    lines: Receiver<Line>,
}

impl Child {
    pub fn spawn(command: &mut Command) -> Result<Self> {
        // A group of its own: Ctrl-C in a terminal reaches us alone, and we end it.
        let mut process = command
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", command.get_program().display()))?;
        let (sender, lines) = channel();
        let out = process.stdout.take().expect("piped");
        let errors = process.stderr.take().expect("piped");
        forward(out, sender.clone(), Line::Out);
        forward(errors, sender, Line::Error);
        Ok(Self { process, lines })
    }

    /// Waits for the next line, until `time` at the latest.
    ///
    /// # Errors
    /// [`interrupt::Interrupted`].
    pub fn next(&mut self, time: Option<Instant>) -> Result<Event> {
        loop {
            interrupt::check()?;
            let left = time.map_or(INTERRUPT_PERIOD, |time| {
                time.saturating_duration_since(Instant::now())
            });
            if left.is_zero() {
                return Ok(Event::TimeReached);
            }
            match self.lines.recv_timeout(left.min(INTERRUPT_PERIOD)) {
                Ok(line) => return Ok(Event::Line(line)),
                Err(RecvTimeoutError::Disconnected) => return Ok(Event::Closed),
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// Sends SIGKILL.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill().context("cannot kill the process")
    }

    /// Waits for the end.
    pub fn end(mut self) -> Result<End> {
        // While it is a zombie its counts can still be read, and they do not change any more.
        let pid = Pid::from_child(&self.process);
        waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT)
            .context("cannot wait for the process")?;
        let bytes_written = bytes_written(pid);
        let status = self.process.wait().context("cannot wait for the process")?;
        Ok(End {
            status,
            bytes_written,
        })
    }

    /// Runs `command` to its end.
    pub fn output(command: &mut Command) -> Result<Output> {
        let mut child = Self::spawn(command)?;
        let (mut out, mut errors) = (Vec::new(), Vec::new());
        loop {
            match child.next(None)? {
                Event::Line(Line::Out(line)) => out.push(line),
                Event::Line(Line::Error(line)) => errors.push(line),
                Event::TimeReached => {}
                Event::Closed => break,
            }
        }
        let status = child.end()?.status;
        Ok(Output { status, out, errors })
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // It may have ended already, and then nothing is left to do.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn forward(stream: impl Read + Send + 'static, sender: Sender<Line>, wrap: fn(String) -> Line) {
    thread::spawn(move || {
        let mut stream = BufReader::new(stream);
        let mut bytes = Vec::new();
        while stream.read_until(b'\n', &mut bytes).is_ok() && bytes.pop() == Some(b'\n') {
            let line = String::from_utf8_lossy(&bytes).into_owned();
            if sender.send(wrap(line)).is_err() {
                break;
            }
            bytes.clear();
        }
    });
}

/// What proc(5) calls `write_bytes`: writes that reached the storage layer, without those that were cancelled there.
fn bytes_written(pid: Pid) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{}/io", pid.as_raw_nonzero())).ok()?;
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().parse::<u64>().ok()
    };
    Some(value("write_bytes:")?.saturating_sub(value("cancelled_write_bytes:")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn both_streams_are_read_to_the_end() {
        let output = Child::output(&mut shell("echo a; echo b >&2; echo c; printf cut; exit 3")).unwrap();
        assert_eq!(
            (output.out, output.errors),
            (vec!["a".into(), "c".into()], vec!["b".into()])
        );
        assert_eq!(output.status.code(), Some(3));
    }

    #[test]
    fn what_was_said_before_a_kill_is_heard() {
        let folder = tempfile::tempdir().unwrap();
        let said = folder.path().join("said");
        let mut child = Child::spawn(shell("echo a; : > \"$0\"; exec sleep 60").arg(&said)).unwrap();
        let time = Instant::now() + Duration::from_secs(60);
        while !said.exists() {
            assert!(Instant::now() < time, "the shell does not start");
            thread::sleep(Duration::from_millis(1));
        }
        child.kill().unwrap();
        let mut heard = Vec::new();
        loop {
            match child.next(None).unwrap() {
                Event::Line(Line::Out(line)) => heard.push(line),
                Event::Line(Line::Error(line)) => panic!("{line}"),
                Event::TimeReached => panic!("no time was given"),
                Event::Closed => break,
            }
        }
        assert!(!child.end().unwrap().status.success());
        assert_eq!(heard, ["a"]);
    }
}
