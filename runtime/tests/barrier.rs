//! Instrumented guests hand to the pager what they stored to, and not much more.

use std::sync::Arc;

use vmsync::{
    Grant, Host, HostOptions, Marks, ObjectName, Sandbox, TrackerKind, instrument::instrument, prepare,
};
use vmsync_pager_memory::{MemoryPager, Options};

/// Maps 4 MiB and copies into them as compilers unroll it: by 32 bytes while at least 16 are left, which counts down past
/// the bound. Then a loop that looks counted and that a block within it leaves.
const GUEST: &str = r#"(module
  (import "vmsync1" "memory_object_open" (func $open (param i32 i32 i64 i32 i32) (result i32)))
  (import "vmsync1" "vm_map" (func $map (param i32 i32 i32 i32 i32 i32 i64 i32 i32 i32 i32) (result i32)))
  (import "vmsync1" "vm_msync" (func $msync (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 65)
  (data (i32.const 0) "region")
  (func (export "start") (result i32)
    (local $result i32)
    (local.set $result (call $open (i32.const 0) (i32.const 6) (i64.const 0x400000) (i32.const 7) (i32.const 16)))
    (i32.store (i32.const 20) (i32.const 65536))
    (i32.or (local.get $result)
      (call $map (i32.const 1) (i32.const 20) (i32.const 0x400000) (i32.const 0) (i32.const 0)
        (i32.load (i32.const 16)) (i64.const 0) (i32.const 0) (i32.const 3) (i32.const 3) (i32.const 1))))
  (func (export "copy") (param $to i32) (param $count i32)
    (loop $next
      (i64.store (local.get $to) (i64.const 1))
      (i64.store (i32.add (local.get $to) (i32.const 8)) (i64.const 2))
      (i64.store (i32.add (local.get $to) (i32.const 16)) (i64.const 3))
      (i64.store (i32.add (local.get $to) (i32.const 24)) (i64.const 4))
      (local.set $to (i32.add (local.get $to) (i32.const 32)))
      (br_if $next (i32.gt_u (local.tee $count (i32.add (local.get $count) (i32.const -32))) (i32.const 15)))))
  (func (export "until") (param $to i32) (param $last i32) (local $left i32)
    (loop $next
      (i32.store8 (local.get $to) (i32.const 9))
      (block $out
        (br_if $out (i32.eq (local.get $to) (local.get $last)))
        (local.set $to (i32.add (local.get $to) (i32.const 1)))
        (br_if $next (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))))
  (func (export "sync") (result i32)
    (call $msync (i32.const 1) (i32.const 65536) (i32.const 0x400000) (i32.const 2))))"#;

fn sandbox() -> Sandbox {
    let pager = Arc::new(MemoryPager::new(Options::default()));
    let grant = Grant::new(pager, ObjectName::new("region").expect("a good name"));
    let sandbox = Sandbox::builder().grant("region", grant);
    sandbox.build().expect("an engine can be made")
}

#[test]
fn a_module_that_was_instrumented_before_runs_as_it_is() {
    let done =
        instrument(&wat::parse_str(GUEST).expect("good text"), &Default::default()).expect("it can be");
    let mut guest = sandbox().instantiate(&done.wasm).expect("a good guest");
    assert_eq!(guest.call::<(), i32>("start", ()).expect("no trap"), 0);
    assert_eq!(guest.vm().tracker(), Some(TrackerKind::Barrier));
    guest.call::<_, ()>("copy", (65536, 100)).expect("no trap");
    assert_eq!(guest.call::<(), i32>("sync", ()).expect("no trap"), 0);
    assert_eq!(guest.stats().pages_returned, 2, "the page, and the one behind it");
}

/// A stack of 1000 bytes below 2000, with a store to it that needs no mark.
const STACK: &str = r#"(module
  (memory (export "memory") 1)
  (global $stack (export "__stack_pointer") (mut i32) (i32.const 2000))
  (func (export "use")
    (global.set $stack (i32.sub (global.get $stack) (i32.const 16)))
    (i32.store (global.get $stack) (i32.const 1))
    (global.set $stack (i32.add (global.get $stack) (i32.const 16)))))"#;

/// The same, which gives up the page of null pointers and maps where the host likes.
const HOLE: &str = r#"(module
  (import "vmsync1" "memory_object_open" (func $open (param i32 i32 i64 i32 i32) (result i32)))
  (import "vmsync1" "vm_map" (func $map (param i32 i32 i32 i32 i32 i32 i64 i32 i32 i32 i32) (result i32)))
  (import "vmsync1" "vm_allocate" (func $allocate (param i32 i32 i32 i32) (result i32)))
  (import "vmsync1" "vm_deallocate" (func $deallocate (param i32 i32 i32) (result i32)))
  (memory (export "memory") 2)
  (global $stack (export "__stack_pointer") (mut i32) (i32.const 8192))
  (data (i32.const 65536) "region")
  (func (export "use")
    (global.set $stack (i32.sub (global.get $stack) (i32.const 16)))
    (i32.store (global.get $stack) (i32.const 1))
    (global.set $stack (i32.add (global.get $stack) (i32.const 16))))
  (func (export "start") (result i32)
    (local $result i32)
    (local.set $result (call $deallocate (i32.const 1) (i32.const 0) (i32.const 4096)))
    (i32.or (local.get $result)
      (call $open (i32.const 65536) (i32.const 6) (i64.const 4096) (i32.const 7) (i32.const 65552))))
  (func (export "map") (result i32)
    (call $map (i32.const 1) (i32.const 65560) (i32.const 4096) (i32.const 0) (i32.const 1)
      (i32.load (i32.const 65552)) (i64.const 0) (i32.const 0) (i32.const 3) (i32.const 3) (i32.const 1)))
  (func (export "allocate") (result i32)
    (call $allocate (i32.const 1) (i32.const 65560) (i32.const 4096) (i32.const 1)))
  (func (export "address") (result i32) (i32.load (i32.const 65560))))"#;

#[test]
fn an_object_is_not_offered_the_stack() {
    let mut guest = sandbox().instantiate(HOLE.as_bytes()).expect("a good guest");
    let mut call = |name: &str| guest.call::<(), i32>(name, ()).expect("no trap");
    assert_eq!(call("start"), 0);
    assert_eq!(call("map"), 0);
    assert_eq!(call("address"), 2 << 16, "behind everything");
    // Memory without an object may lie there.
    assert_eq!((call("allocate"), call("address")), (0, 0));
}

fn instrumented(page_size_shift: u32, suspect_bytes: u32) -> Vec<u8> {
    let options = vmsync::instrument::Options {
        page_size_shift,
        suspect_bytes,
        ..Default::default()
    };
    let stack = wat::parse_str(STACK).expect("good text");
    instrument(&stack, &options).expect("it can be").wasm
}

#[test]
fn a_module_that_was_instrumented_before_keeps_its_stack_to_itself() {
    let host = sandbox().host().clone();
    let now = prepare(&host, STACK.as_bytes()).expect("a good guest");
    let before = instrumented(host.options().page_size.shift(), 16);
    let before = prepare(&host, &before).expect("a good guest");
    let stack_ends = [now, before].map(|prepared| prepared.marks.map(Marks::stack_end));
    assert_eq!(stack_ends, [Some(2000); 2]);
}

#[test]
fn cards_that_say_nothing_to_this_host_are_refused() {
    for kind in [TrackerKind::Barrier, TrackerKind::Mprotect] {
        let mut options = HostOptions::default();
        options.tracker = Some(kind);
        let host = Host::new(options);
        let shift = host.options().page_size.shift();
        let other = if shift == 12 { 13 } else { 12 };
        let refused = |wasm: &[u8]| prepare(&host, wasm).expect_err("other cards").to_string();
        let message = refused(&instrumented(other, 16));
        let sizes = [other, shift].map(|shift| format!("pages of {}", 1 << shift));
        assert!(sizes.iter().all(|size| message.contains(size)), "{message}");
        let message = refused(&instrumented(shift, 64));
        assert!(message.contains("64 suspect"), "{message}");
        let unsaid = r#"(module (memory (export "memory") 1) (memory (export "vmsync1:cards") 16))"#;
        let message = refused(unsaid.as_bytes());
        assert!(message.contains("instrument it again"), "{message}");
        let fewer = instrumented(shift, 0);
        assert!(prepare(&host, &fewer).expect("it looks at more").marks.is_some());
        assert_eq!(
            prepare(&host, STACK.as_bytes())
                .expect("a good guest")
                .marks
                .is_some(),
            kind == TrackerKind::Barrier
        );
    }
}

#[test]
fn marks_ahead_of_loops_return_no_other_pages() {
    let mut guest = sandbox().instantiate(GUEST.as_bytes()).expect("a good guest");
    assert_eq!(guest.call::<(), i32>("start", ()).expect("no trap"), 0);
    // From the middle of page 3 of the region over 8 pages, and 100 bytes on page 500.
    let (copied, single) = (65536 + 3 * 4096 + 2048, 65536 + 500 * 4096);
    guest
        .call::<_, ()>("copy", (copied, 8 * 4096 + 7))
        .expect("no trap");
    guest
        .call::<_, ()>("until", (single, single + 99))
        .expect("no trap");
    assert_eq!(guest.call::<(), i32>("sync", ()).expect("no trap"), 0);
    // Behind each run is a page that counts as changed, because its head is not yet known.
    assert_eq!(guest.stats().pages_returned, 9 + 1 + 2);
}
