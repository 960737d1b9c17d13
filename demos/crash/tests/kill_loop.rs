//! The whole loop, small: with the real command and guest where they are given, and with one that lies.
//!
//! `cargo xtask test` builds both and sets `VMSYNC_CLI` (the command) and `VMSYNC_GUESTS` (the folder with the
//! guests' modules). `SEED` repeats a run.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

fn crash() -> Command {
    Command::new(env!("CARGO_BIN_EXE_vmsync-crash"))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The real command and guest, if they are given.
fn real() -> Option<Command> {
    let (Some(command), Some(guests)) = (std::env::var_os("VMSYNC_CLI"), std::env::var_os("VMSYNC_GUESTS"))
    else {
        eprintln!("SKIPPED: VMSYNC_CLI and VMSYNC_GUESTS are not set; `cargo xtask test` sets them");
        return None;
    };
    let mut crash = crash();
    crash.arg("--vmsync").arg(command);
    crash
        .arg("--guest")
        .arg(Path::new(&guests).join("codesearch.wasm"));
    Some(crash)
}

/// Some dozens of source files.
fn sources() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for number in 0..60 {
        let lines =
            (0..200).map(|line| format!("let name_{} = unsafe {{ file_{number} }};\n", line * number));
        let name = format!("file_{number:02}.rs");
        fs::write(folder.path().join(name), lines.collect::<String>()).unwrap();
    }
    folder
}

#[test]
fn an_index_survives_its_kills() {
    let Some(mut crash) = real() else { return };
    let input = sources();
    let output = crash
        .args([
            "--kills",
            "6",
            "--sync-every",
            "2",
            "--query",
            "unsafe",
            "--json",
            "--input",
        ])
        .arg(input.path())
        .output()
        .unwrap();
    let (out, errors) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{errors}");
    let report: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(report["kills"], 6, "{report}");
    assert_eq!(report["files"], 60, "{report}");
    // Once on each of 200 lines of 60 files.
    assert_eq!(report["queries"][0]["places"], 12_000, "{report}");
    assert!(report["pages_dirty"].as_u64().unwrap() > 0, "{report}");
    assert!(
        report["bytes_journaled"].as_u64() > report["pages_dirty"].as_u64(),
        "{report}"
    );
}

/// A `vmsync` that is a shell script: `index` syncs 2 of 60 files, five times, and then does what is given; `check` and
/// `verify` do what is given. It knows no tracker, and writes the number of the process of `index` beside itself.
struct Fake {
    folder: TempDir,
    input: TempDir,
}

impl Fake {
    /// `index` waits.
    fn new(check: &str, verify: &str) -> Self {
        Self::ending(check, verify, "exec sleep 60")
    }

    fn ending(check: &str, verify: &str, end: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let script = format!(
            "#!/bin/sh\n\
             case \"$*\" in *--tracker*) echo \"error: invalid value 'magic'\" >&2; exit 2 ;; esac\n\
             [ \"$1\" = verify ] && {{ {verify}; exit; }}\n\
             for word; do case \"$word\" in codesearch=*) store=${{word#*=}}; mkdir -p \"${{store%:*}}\" ;; esac; done\n\
             case \"$*\" in\n\
             *' check '*) {check} ;;\n\
             *' index '*) echo $$ > \"$0.pid\"; echo resumed 0 60; for i in 1 2 3 4 5; do echo synced $((2*i)) 60 ${{i}}0 ${{i}}00 1; done; {end} ;;\n\
             esac\n"
        );
        // Nobody can run a file that anybody has open for writing, as a child has for a moment that is forked just now. So
        // another process writes the program.
        let (text, path) = (folder.path().join("text"), folder.path().join("vmsync"));
        fs::write(&text, script).unwrap();
        let copied = Command::new("install")
            .args(["-m", "755"])
            .args([text, path])
            .status();
        assert!(copied.unwrap().success());
        Self {
            folder,
            input: sources(),
        }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("vmsync")
    }

    fn command(&self) -> Command {
        let mut crash = crash();
        // The script is not Wasm, but nothing looks.
        crash
            .arg("--vmsync")
            .arg(self.path())
            .arg("--guest")
            .arg(self.path());
        crash
            .args(["--sync-every", "2", "--input"])
            .arg(self.input.path());
        crash
    }

    /// One kill, behind the fifth sync: with this seed.
    fn run(&self) -> (Output, PathBuf) {
        let store = self.folder.path().join("work");
        let output = self
            .command()
            .args(["--kills", "1", "--seed", "26", "--store"])
            .arg(&store)
            .output()
            .unwrap();
        (output, store)
    }
}

#[track_caller]
fn assert_violation(check: &str, verify: &str, expected: &str) {
    let fake = Fake::new(check, verify);
    let (output, store) = fake.run();
    let errors = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(errors.contains(expected), "{errors}");
    assert!(errors.contains("kept in"), "{errors}");
    assert!(store.join("files.txt").exists());
}

#[test]
fn a_lost_sync_is_seen() {
    let lost = "8 files are durable, 10 had been reported as synced";
    assert_violation("echo equal 8 40 400", "echo sound", lost);
}

#[test]
fn a_difference_is_seen() {
    let differs = "differs unsafe is missing";
    assert_violation(&format!("echo {differs}; exit 1"), "echo sound", differs);
}

#[test]
fn damage_is_seen() {
    let damage = "journal-0 at byte 4096: broken";
    assert_violation("echo equal 10 50 500", &format!("echo {damage}; exit 1"), damage);
}

#[test]
fn what_cannot_be_tried_is_no_violation() {
    let refused = |fake: &Fake, more: &[&str], expected: &str| {
        let output = fake.command().args(["--kills", "0"]).args(more).output().unwrap();
        let errors = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{errors}");
        assert!(
            errors.contains(expected) && !errors.contains("VIOLATION"),
            "{errors}"
        );
        assert!(!errors.contains("kept in"), "{errors}");
    };
    let sound = ("echo equal 10 50 500", "echo sound");
    let fake = Fake::new(sound.0, sound.1);
    refused(&fake, &["--bad"], "unexpected argument '--bad'");
    refused(&fake, &["--tracker", "magic"], "invalid value 'magic'");
    let full = "echo the heap has no room >&2; exit 2";
    refused(&Fake::ending(sound.0, sound.1, full), &[], "the heap has no room");
    // Not if what is durable is wrong as well.
    let fake = Fake::ending("echo equal 8 40 400", sound.1, full);
    let output = fake
        .command()
        .args(["--kills", "0"])
        .env("TMPDIR", fake.folder.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
}

#[test]
fn an_interrupt_ends_the_guest_and_removes_the_folder() {
    let fake = Fake::new("echo equal 10 50 500", "echo sound");
    let temporary = tempfile::tempdir().unwrap();
    let crash = fake
        .command()
        .args(["--kills", "0"])
        .env("TMPDIR", temporary.path())
        .spawn();
    let mut crash = crash.unwrap();
    let begun = Instant::now();
    let guest = loop {
        match fs::read_to_string(fake.folder.path().join("vmsync.pid")) {
            Ok(pid) if pid.ends_with('\n') => break pid.trim().to_owned(),
            _ => thread::sleep(Duration::from_millis(10)),
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "it does not start");
    };
    let kill = |signal: &str, pid: &str| Command::new("kill").args([signal, pid]).output().unwrap();
    assert!(kill("-0", &guest).status.success());
    assert!(kill("-INT", &crash.id().to_string()).status.success());
    assert_eq!(crash.wait().unwrap().code(), Some(130));
    // It would have slept for a minute.
    assert!(!kill("-0", &guest).status.success());
    assert!(fs::read_dir(temporary.path()).unwrap().next().is_none());
}

#[test]
fn what_is_missing_is_said() {
    let output = crash()
        .args(["--vmsync", "/no/such", "--guest", "/no/such"])
        .output()
        .unwrap();
    let errors = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{errors}");
    assert!(
        errors.contains("there is no command at /no/such: build it"),
        "{errors}"
    );
}
