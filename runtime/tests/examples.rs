//! The examples do what they say.

#[path = "../examples/counter.rs"]
#[allow(dead_code)]
mod counter;
#[path = "../examples/durable.rs"]
#[allow(dead_code)]
mod durable;
#[path = "../examples/tasks.rs"]
#[allow(dead_code)]
mod tasks;
#[path = "../examples/wasi.rs"]
#[allow(dead_code)]
mod wasi;

use wasmtime_wasi::{WasiCtxBuilder, p2::pipe::MemoryOutputPipe};

#[test]
fn the_counter_counts_on() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    for expected in 1..4 {
        let counted = counter::count(folder.path());
        assert_eq!(counted.expect("the guest runs"), expected);
    }
}

#[test]
fn the_durable_instance_goes_on() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let tell = |numbers: &[i32]| durable::tell(folder.path(), numbers).expect("the guest runs");
    assert_eq!(tell(&[1, 2, 3]), [1, 3, 6]);
    assert_eq!(tell(&[10]), [16]);
    // Too much for the fuel of one step: nothing of it has happened.
    assert!(durable::tell(folder.path(), &[7; 10_000]).is_err());
    assert_eq!(tell(&[-16]), [0]);
}

#[test]
fn the_tasks_count_on() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    // One thread for all of them. How many share a flush depends on the disk.
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let runtime = runtime.expect("a runtime");
    for round in 1..3 {
        let outcome = runtime.block_on(tasks::count(folder.path(), 16, 50));
        let tasks::Outcome { counts, syncs } = outcome.expect("the guests run");
        assert_eq!(counts, [round * 50; 16]);
        println!("{} calls, {} flushes", syncs.0, syncs.1);
        assert!(syncs.0 >= 16 * 50 && syncs.1 >= 50);
    }
}

#[test]
fn the_log_of_the_wasi_guest_grows() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    for expected in ["*\n", "**\n", "***\n"] {
        let output = MemoryOutputPipe::new(100);
        let context = WasiCtxBuilder::new().stdout(output.clone()).build_p1();
        wasi::run(folder.path(), context).expect("the guest runs");
        assert_eq!(output.contents(), expected);
    }
}
