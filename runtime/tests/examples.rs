//! The examples do what they say.

#[path = "../examples/counter.rs"]
#[allow(dead_code)]
mod counter;
#[path = "../examples/durable.rs"]
#[allow(dead_code)]
mod durable;
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
fn the_log_of_the_wasi_guest_grows() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    for expected in ["*\n", "**\n", "***\n"] {
        let output = MemoryOutputPipe::new(100);
        let context = WasiCtxBuilder::new().stdout(output.clone()).build_p1();
        wasi::run(folder.path(), context).expect("the guest runs");
        assert_eq!(output.contents(), expected);
    }
}
