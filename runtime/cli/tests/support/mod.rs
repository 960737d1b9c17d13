//! Running the command as a user would, and reading what it says. Each test program uses a part of it.
#![allow(dead_code)]

use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// A guest that counts.
const COUNTER: &str = r#"(module
  (import "vmsync1" "memory_object_open" (func $open (param i32 i32 i64 i32 i32) (result i32)))
  (import "vmsync1" "vm_map" (func $map (param i32 i32 i32 i32 i32 i32 i64 i32 i32 i32 i32) (result i32)))
  (import "vmsync1" "vm_msync" (func $msync (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 2)
  (data (i32.const 0) "counter")
  (func (export "add") (param $by i32) (result i32)
    (local $result i32)
    (local.set $result (call $open (i32.const 0) (i32.const 7) (i64.const 4096) (i32.const 7) (i32.const 16)))
    (if (local.get $result) (then (return (i32.sub (i32.const 0) (local.get $result)))))
    (i32.store (i32.const 20) (i32.const 65536))
    (local.set $result (call $map (i32.const 1) (i32.const 20) (i32.const 4096) (i32.const 0) (i32.const 0)
      (i32.load (i32.const 16)) (i64.const 0) (i32.const 0) (i32.const 3) (i32.const 3) (i32.const 1)))
    (if (local.get $result) (then (return (i32.sub (i32.const 0) (local.get $result)))))
    (i32.store (i32.const 65536) (i32.add (i32.load (i32.const 65536)) (local.get $by)))
    (local.set $result (call $msync (i32.const 1) (i32.const 65536) (i32.const 4096) (i32.const 2)))
    (if (local.get $result) (then (return (i32.sub (i32.const 0) (local.get $result)))))
    (i32.load (i32.const 65536)))
  (func (export "trap") unreachable))"#;

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

/// A folder of a test, with a guest `counter.wat` whose `add` counts in the store `store`.
pub struct Place {
    pub folder: tempfile::TempDir,
}

impl Place {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("counter.wat"), COUNTER).unwrap();
        Self { folder }
    }

    /// A path in it.
    pub fn path(&self, name: &str) -> String {
        text(&self.folder.path().join(name)).to_string()
    }

    /// Adds `by`; what it says is the count.
    pub fn add(&self, by: &str, more: &[&str]) -> Said {
        let map = format!("counter={}", self.path("store"));
        let module = self.path("counter.wat");
        let mut arguments = vec!["run", "--invoke", "add", "--map", &map];
        arguments.extend(more);
        arguments.extend([module.as_str(), "--", by]);
        vmsync(&arguments)
    }
}
