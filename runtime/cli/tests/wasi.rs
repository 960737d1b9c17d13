//! WASI's functions and regions: a file that is read straight into one is in the store, whatever tracker is used and however the
//! process ends.

mod support;

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

use support::{text, vmsync};

/// Maps 64 KiB at 1 MiB. `load` reads 9000 bytes of a file into it from the end of its first page on, syncs, says so, and never
/// returns; `show` prints these bytes.
const GUEST: &str = r#"(module
  (import "vmsync1" "memory_object_open" (func $open (param i32 i32 i64 i32 i32) (result i32)))
  (import "vmsync1" "vm_map" (func $map (param i32 i32 i32 i32 i32 i32 i64 i32 i32 i32 i32) (result i32)))
  (import "vmsync1" "vm_msync" (func $msync (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_open"
    (func $path_open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 32)
  (data (i32.const 0) "region") (data (i32.const 8) "input") (data (i32.const 14) "synced\n")
  (func $check (param i32) (if (local.get 0) (then unreachable)))
  (func $list (param i32 i32)
    (i32.store (i32.const 64) (local.get 0)) (i32.store (i32.const 68) (local.get 1)))
  (func $region
    (call $check (call $open (i32.const 0) (i32.const 6) (i64.const 0x10000) (i32.const 7) (i32.const 32)))
    (i32.store (i32.const 36) (i32.const 0x100000))
    (call $check (call $map (i32.const 1) (i32.const 36) (i32.const 0x10000) (i32.const 0) (i32.const 0)
      (i32.load (i32.const 32)) (i64.const 0) (i32.const 0) (i32.const 3) (i32.const 3) (i32.const 1))))
  (func (export "load")
    (call $region)
    (call $check (call $path_open (i32.const 3) (i32.const 0) (i32.const 8) (i32.const 5) (i32.const 0)
      (i64.const 2) (i64.const 0) (i32.const 0) (i32.const 40)))
    (call $list (i32.const 0x100ff0) (i32.const 9000))
    (call $check (call $read (i32.load (i32.const 40)) (i32.const 64) (i32.const 1) (i32.const 72)))
    (call $check (call $msync (i32.const 1) (i32.const 0x100000) (i32.const 0x10000) (i32.const 2)))
    (call $list (i32.const 14) (i32.const 7))
    (call $check (call $write (i32.const 1) (i32.const 64) (i32.const 1) (i32.const 72)))
    (loop (br 0)))
  (func (export "show")
    (call $region)
    (call $list (i32.const 0x100ff0) (i32.const 9000))
    (call $check (call $write (i32.const 1) (i32.const 64) (i32.const 1) (i32.const 72)))))"#;

#[test]
fn a_file_that_is_read_into_a_region_survives_kill_9() {
    let input: String = (0..1800).map(|number| format!("{number:04} ")).collect();
    for rung in vmsync::probe().into_iter().filter(|rung| rung.available.is_ok()) {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| text(&folder.path().join(name)).to_string();
        std::fs::write(path("guest.wat"), GUEST).unwrap();
        std::fs::write(path("input"), &input).unwrap();
        let (map, dir, guest) = (
            format!("region={}", path("store")),
            format!("{}::/", path("")),
            path("guest.wat"),
        );
        let words = |function| {
            let tracker = rung.kind.name();
            [
                "run",
                "--wasi",
                "--dir",
                &dir,
                "--map",
                &map,
                "--tracker",
                tracker,
                "--invoke",
                function,
                &guest,
            ]
        };
        let mut child = Command::new(env!("CARGO_BIN_EXE_vmsync"))
            .args(words("load"))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        let out = child.stdout.take().unwrap();
        BufReader::new(out).read_line(&mut said).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(said, "synced\n", "{}", rung.kind);
        // `mprotect` refuses what a system call stores to a page that the guest did not store to.
        assert_eq!(vmsync(&words("show")).ok(), input.trim(), "{}", rung.kind);
    }
}
