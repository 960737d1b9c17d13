//! `kill -9`, for real: this program runs itself as a child that commits to a store in a folder, kills it at a random moment,
//! and checks what is left. Journals are so short that checkpoints run most of the time, and kills land in them, which is
//! counted. A child ends by the kill and in no other way, and in the end many calls were durable.
//!
//! `KILLS=` makes it longer than it is by default, `SEED=` repeats the moments (not what happens at them).

mod common;

use std::{
    io::{BufRead, BufReader, Read, Write},
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use common::{NAMES, PAGE, PAGES, State, client, contents};
use vmsync_core::PagerErrorKind;
use vmsync_pager_conformance::{Client, random::Random};
use vmsync_pager_file::{FileStore, Options, inspect, verify};

/// The child's store; its presence makes a process the child.
const STORE: &str = "VMSYNC_KILL_STORE";

/// Bytes of a journal segment, and of journal that starts a checkpoint.
const SEGMENT_BYTES: u64 = 16 << 10;

/// Calls that are durable in the end, at least. Three of four children are killed after a call of theirs, so a few times
/// the kills give so many, however slow the drive is.
const CALLS_MIN: u64 = 20;

fn options() -> Options {
    Options {
        segment_bytes: SEGMENT_BYTES,
        checkpoint_bytes: 1 << 10,
        ..Options::default()
    }
}

/// What call `number` changes: in every object its number at the front, and all of one page, so that a segment is full after
/// a call or two.
fn apply(state: &mut State, number: u64) {
    for (index, name) in NAMES.iter().enumerate() {
        let bytes = state.get_mut(*name).unwrap();
        bytes[..8].copy_from_slice(&number.to_le_bytes());
        let page = 1 + (number as usize + index) % (PAGES as usize - 1);
        Random::new(number << 2 | index as u64).fill(&mut bytes[page * PAGE..(page + 1) * PAGE]);
    }
}

fn empty() -> State {
    NAMES
        .iter()
        .map(|name| ((*name).into(), vec![0; PAGE * PAGES as usize]))
        .collect()
}

/// Which call `state` is after.
fn number_of(state: &State) -> u64 {
    let bytes = state.values().next().map_or(&[0; 8][..], |bytes| &bytes[..8]);
    u64::from_le_bytes(bytes.try_into().unwrap())
}

/// The child: commits for ever, and prints the number of each call that is durable.
fn commit_for_ever(folder: &Path) {
    let store = FileStore::open(folder, &options()).unwrap();
    let clients: Vec<Client> = NAMES
        .iter()
        .map(|name| client(&store, name, PAGES).unwrap())
        .collect();
    let mut state = contents(&store).unwrap();
    let mut out = std::io::stdout();
    for number in number_of(&state) + 1.. {
        apply(&mut state, number);
        let edit = common::Edit {
            pages: (0..NAMES.len())
                .flat_map(|object| (0..PAGES).map(move |page| (object, page)))
                .map(|(object, page)| {
                    let start = page as usize * PAGE;
                    ((object, page), state[NAMES[object]][start..start + PAGE].to_vec())
                })
                .collect(),
            synchronous: true,
        };
        edit.run(&clients).unwrap();
        writeln!(out, "{number}").unwrap();
        out.flush().unwrap();
    }
}

fn spawn(folder: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "the_child", "--nocapture", "--test-threads=1"])
        .env(STORE, folder)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn the_child() {
    if let Some(folder) = std::env::var_os(STORE) {
        commit_for_ever(folder.as_ref());
    }
}

/// Runs a child until a random moment; the last call that it reported.
fn live(folder: &Path, random: &mut Random) -> Option<u64> {
    let mut child = spawn(folder);
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut read = String::new();
    // Some are killed while they open the store, the others after their first call.
    if !random.once_in(4) {
        while output.read_line(&mut read).unwrap() > 0
            && !read.trim_end().ends_with(|end: char| end.is_ascii_digit())
        {}
    }
    std::thread::sleep(Duration::from_micros(random.below(20_000)));
    child.kill().unwrap();
    let status = child.wait().unwrap();
    assert_eq!(
        status.signal(),
        Some(9),
        "the child ended by itself: {status}, {read}"
    );
    output.read_to_string(&mut read).unwrap();
    // A line that the kill cut short may lack digits.
    let whole = read.rfind('\n').map_or("", |end| &read[..end]);
    whole.lines().rev().find_map(|line| line.trim().parse().ok())
}

#[test]
fn a_killed_process_leaves_a_whole_call() {
    if std::env::var_os(STORE).is_some() {
        return;
    }
    let kills: u64 = std::env::var("KILLS").map_or(40, |text| text.parse().unwrap());
    let mut random = Random::from_environment("kill");
    let folder = tempfile::tempdir().unwrap();
    let mut state = empty();
    let (mut kill, mut durable, mut in_checkpoint, mut in_journal) = (0, 0, 0, 0);
    // How many land in a checkpoint is up to the drive; some should.
    while kill < kills || (in_checkpoint < 3 || durable < CALLS_MIN) && kill < 20 * kills {
        kill += 1;
        let reported = live(folder.path(), &mut random);
        let summary = match inspect(folder.path()) {
            Ok(summary) => summary,
            Err(error) => {
                assert_eq!(error.kind, PagerErrorKind::NotFound, "kill {kill}: {error}");
                assert_eq!((reported, durable), (None, 0), "kill {kill}: the store is gone");
                continue;
            }
        };
        // A sealed segment is there only until the checkpoint that it starts at once is done.
        in_checkpoint += u64::from(summary.journal.segments > 1);
        in_journal += u64::from(summary.journal.calls > 0);
        assert_eq!(verify(folder.path()).unwrap().problems, [], "kill {kill}");
        let store = FileStore::open(folder.path(), &options()).unwrap();
        let found = contents(&store).unwrap();
        drop(store);
        let number = number_of(&found);
        let least = reported.unwrap_or(0).max(durable);
        assert!(
            number >= least,
            "kill {kill}: call {number} is left, {least} was durable"
        );
        for call in durable + 1..=number {
            apply(&mut state, call);
        }
        durable = number;
        let created = found.len() == NAMES.len();
        assert!(
            found == state || (!created && number == 0),
            "kill {kill}: a mix around call {number}"
        );
    }
    println!(
        "{kill} kills, {durable} calls, {in_checkpoint} kills in a checkpoint, {in_journal} with calls to replay"
    );
    assert!(durable >= CALLS_MIN.min(kills), "{durable} calls were durable");
}
