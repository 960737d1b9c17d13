//! Ctrl-C while an archive is copied: noted by a signal handler, noticed by whoever reads, so that what is half made goes.
//!
//! The second signal ends the process at once, as if nobody listened.

use std::{
    io::{self, Read},
    mem,
    process::ExitCode,
    ptr,
    sync::atomic::{AtomicI32, Ordering},
};

/// The signal that was noted; 0 for none.
static NOTED: AtomicI32 = AtomicI32::new(0);

extern "C" fn note(signal: libc::c_int) {
    NOTED.store(signal, Ordering::Relaxed);
}

/// From now on SIGINT, SIGTERM and SIGHUP are noted, except those that this process was started to ignore.
pub fn listen() {
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        // SAFETY: all of a sigaction may be zero. The handler does nothing but store to a lock-free atomic.
        unsafe {
            let mut action: libc::sigaction = mem::zeroed();
            libc::sigaction(signal, ptr::null(), &mut action);
            if action.sa_sigaction != libc::SIG_IGN {
                action.sa_sigaction = note as extern "C" fn(libc::c_int) as libc::sighandler_t;
                action.sa_flags = libc::SA_RESTART | libc::SA_RESETHAND;
                libc::sigaction(signal, &action, ptr::null_mut());
            }
        }
    }
}

/// Fails once a signal has been noted.
pub fn check() -> io::Result<()> {
    match NOTED.load(Ordering::Relaxed) {
        0 => Ok(()),
        // `ErrorKind::Interrupted` would be tried again.
        _ => Err(io::Error::other("interrupted")),
    }
}

/// What the process exits with once a signal has been noted: 128 and its number, as a shell shows it.
pub fn exit_code() -> Option<ExitCode> {
    let signal = NOTED.load(Ordering::Relaxed);
    let code = u8::try_from(signal).ok().filter(|signal| *signal != 0)?;
    Some(ExitCode::from(128 + code))
}

/// A reader that fails once a signal has been noted.
pub struct Stopping<R>(pub R);

impl<R: Read> Read for Stopping<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        check()?;
        self.0.read(buffer)
    }
}
