//! A guest maps, stores, syncs and finds its state again: the main job, under every tracker that works here.

use std::sync::Arc;

use vmsync::{Grant, ObjectName, Sandbox, TrackerKind};
use vmsync_pager_memory::{MemoryPager, Options};

const COUNTER: &str = r#"(module
  (import "vmsync1" "memory_object_open" (func $open (param i32 i32 i64 i32 i32) (result i32)))
  (import "vmsync1" "vm_map" (func $map (param i32 i32 i32 i32 i32 i32 i64 i32 i32 i32 i32) (result i32)))
  (import "vmsync1" "vm_msync" (func $msync (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 4)
  (data (i32.const 0) "counter")
  (func (export "start") (result i32)
    (local $result i32)
    (local.set $result (call $open (i32.const 0) (i32.const 7) (i64.const 65536) (i32.const 7) (i32.const 16)))
    (i32.store (i32.const 20) (i32.const 65536))
    (i32.or (local.get $result)
      (call $map (i32.const 1) (i32.const 20) (i32.const 65536) (i32.const 0) (i32.const 0)
        (i32.load (i32.const 16)) (i64.const 0) (i32.const 0) (i32.const 3) (i32.const 3) (i32.const 1))))
  (func (export "add") (param $page i32) (result i32)
    (local $at i32)
    (local.set $at (i32.add (i32.const 65536) (i32.shl (local.get $page) (i32.const 12))))
    (i32.store (local.get $at) (i32.add (i32.load (local.get $at)) (i32.const 1)))
    (i32.load (local.get $at)))
  (func (export "sync") (param $flags i32) (result i32)
    (call $msync (i32.const 1) (i32.const 65536) (i32.const 65536) (local.get $flags))))"#;

#[test]
fn a_guest_finds_its_last_synced_state_under_every_tracker() {
    for rung in vmsync::probe() {
        if let Err(why) = &rung.available {
            eprintln!("{}: not here: {why}", rung.kind);
            continue;
        }
        eprintln!("{}", rung.kind);
        survives(rung.kind);
    }
}

#[test]
fn guests_are_instrumented_unless_another_tracker_is_asked_for() {
    let kind = |sandbox: Sandbox| sandbox.host().tracker();
    assert_eq!(kind(Sandbox::builder().build().unwrap()), TrackerKind::Barrier);
    let best = Sandbox::builder().tracker(vmsync::best()).build().unwrap();
    assert_eq!(kind(best), vmsync::best());
}

#[test]
fn a_call_that_cannot_be_made_names_the_function() {
    let pager = Arc::new(MemoryPager::new(Options::default()));
    let grant = Grant::new(pager, ObjectName::new("counter").unwrap());
    let sandbox = Sandbox::builder().grant("counter", grant).build().unwrap();
    let mut guest = sandbox.instantiate(COUNTER.as_bytes()).unwrap();
    assert_eq!(guest.call::<(), i32>("start", ()).unwrap(), 0);
    let no_such = guest.call::<(), ()>("subtract", ()).unwrap_err();
    assert!(no_such.to_string().contains("subtract"), "{no_such}");
    // Before it was called as what it is, and after.
    for _ in 0..2 {
        let other_type = guest.call::<i64, i32>("add", 1).unwrap_err();
        assert!(other_type.to_string().contains("add"), "{other_type}");
        guest.call::<i32, i32>("add", 1).unwrap();
    }
    assert_eq!(guest.call::<i32, i32>("add", 1).unwrap(), 3);
}

fn survives(kind: TrackerKind) {
    let pager = Arc::new(MemoryPager::new(Options::default()));
    let grant = Grant::new(pager, ObjectName::new("counter").unwrap());
    let sandbox = Sandbox::builder()
        .grant("counter", grant)
        .tracker(kind)
        .build()
        .unwrap();
    for round in 0..3 {
        let mut guest = sandbox.instantiate(COUNTER.as_bytes()).unwrap();
        assert_eq!(guest.call::<(), i32>("start", ()).unwrap(), 0);
        assert_eq!(guest.call::<i32, i32>("add", 3).unwrap(), round + 1);
        assert_eq!(guest.call::<i32, i32>("sync", 2).unwrap(), 0);
        let returned = guest.stats().pages_returned;
        let exact = !guest.vm().reports_superset();
        assert!(
            if exact { returned == 1 } else { returned >= 1 },
            "{kind}: {returned} pages"
        );
        // Not synced, so gone with the instance.
        guest.call::<i32, i32>("add", 3).unwrap();
        guest.call::<i32, i32>("add", 5).unwrap();
        // Dropped by INVALIDATE.
        assert_eq!(guest.call::<i32, i32>("sync", 4).unwrap(), 0);
        assert_eq!(guest.call::<i32, i32>("add", 3).unwrap(), round + 2);
        assert_eq!(guest.call::<i32, i32>("add", 5).unwrap(), 1);
    }
}
