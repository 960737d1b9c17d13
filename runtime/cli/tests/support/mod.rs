//! Running the command as a user would, and reading what it says. Each test program uses a part of it.
#![allow(dead_code)]

use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// What a run said.
pub struct Said {
    /// The exit code; `None` after a signal.
    pub code: Option<i32>,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

/// Runs `vmsync` with `arguments`.
pub fn vmsync(arguments: &[&str]) -> Said {
    let output = Command::new(env!("CARGO_BIN_EXE_vmsync"))
        .args(arguments)
        .env("RUST_BACKTRACE", "0")
        .output()
        .expect("the command starts");
    Said {
        code: output.status.code(),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

impl Said {
    /// Asserts success and hands out the trimmed output.
    pub fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "out: {}\nerr: {}", self.out, self.err);
        self.out.trim().to_string()
    }

    /// Asserts failure with `code` and a message that holds every one of `parts`.
    pub fn fails(self, code: i32, parts: &[&str]) {
        assert_eq!(self.code, Some(code), "out: {}\nerr: {}", self.out, self.err);
        for part in parts {
            assert!(self.err.contains(part), "\"{part}\" is not in: {}", self.err);
        }
    }
}

/// The folder of the built guests; `None`, loudly, where nobody has built them.
pub fn guests() -> Option<PathBuf> {
    let folder = std::env::var_os("VMSYNC_GUESTS").map(PathBuf::from);
    if folder.is_none() {
        eprintln!(
            "SKIPPED: set VMSYNC_GUESTS to the folder that `cargo xtask guests` builds, or use `cargo xtask test`"
        );
    }
    folder
}

/// A path as an argument.
pub fn text(path: &Path) -> &str {
    path.to_str().expect("a path of this test is text")
}
