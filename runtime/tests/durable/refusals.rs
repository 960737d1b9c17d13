//! What cannot be kept is refused, and why is said.

use std::sync::Arc;

use vmsync::{DurableError, Error, Grant, Sandbox};
use vmsync_pager_file::{FileStore, Options};
use vmsync_pager_memory::{MemoryPager, Supply};

use crate::{GUEST, each, guest, harness::rig::name, open, run};

/// The words of the refusal of `wasm`.
#[track_caller]
fn refusal(wasm: &str) -> String {
    let folder = tempfile::tempdir().expect("a folder for the test");
    match open(folder.path(), vmsync::best(), wasm) {
        Ok(_) => panic!("kept: {wasm}"),
        Err(Error::Durable(DurableError::Module(error))) => error.to_string(),
        Err(other) => panic!("refused for another reason: {other}"),
    }
}

#[test]
fn state_that_would_be_lost_is_refused_with_the_reason() {
    for (wasm, words) in [
        (
            "(module (memory 1 1 shared))",
            "memory 0 is shared between threads",
        ),
        (r#"(module (import "e" "m" (memory 1)))"#, "memory 0 is imported"),
        ("(module (memory 1) (memory 1))", "2 memories"),
        ("(module (memory 1 (pagesize 1)))", "pages of its own size"),
        (
            r#"(module (import "e" "t" (table 1 funcref)))"#,
            "table 0 is imported",
        ),
        (
            r#"(module (import "e" "g" (global (mut i32))))"#,
            "global 0 is imported and mutable",
        ),
        (
            "(module (table 1 funcref) (table 1 externref))",
            "table 1 holds references of type externref",
        ),
        (
            "(module (global (mut externref) (ref.null extern)))",
            "global 0 holds a reference of type externref",
        ),
        (
            "(module (global (mut anyref) (ref.null any)))",
            "global 0 holds a reference of type anyref",
        ),
        (
            "(module (table 1 i31ref))",
            "table 0 holds references of type i31ref",
        ),
        ("(module (type (struct (field (mut i32)))))", "garbage-collected"),
        ("(module (type (array i8)))", "garbage-collected"),
        (r#"(module (func (export "_start")))"#, "command"),
        (
            r#"(module (import "vmsync1" "mach_task_self" (func (result i32))))"#,
            "imports `vmsync1`",
        ),
        (r#"(module (memory (export "vmsync1:cards") 1))"#, "reserved"),
        ("(component)", "component"),
    ] {
        let said = refusal(wasm);
        assert!(said.contains(words), "{wasm}: {said}");
    }
}

#[test]
fn what_does_not_change_or_does_not_belong_to_the_host_is_kept() {
    each(|folder, kind| {
        let module = r#"(module
          (global externref (ref.null extern))
          (table 2 funcref) (elem (i32.const 0) $f $f)
          (func $f) (tag (param i32))
          (memory 0) (data "passive")
          (func (export "_start_of_something") (call_indirect (i32.const 1)) (data.drop 0)))"#;
        open(folder, kind, module).unwrap();
    });
}

#[test]
fn the_module_must_be_the_one_that_made_it() {
    each(|folder, kind| {
        run::<_, i32>(&mut guest(folder, kind), "count", ());
        let other = GUEST.replace("(i32.const 40)", "(i32.const 41)");
        let Err(Error::Durable(DurableError::OtherModule { found, given })) = open(folder, kind, &other)
        else {
            panic!("{kind}: another module was accepted");
        };
        assert_ne!(found, given);
        // Names are not part of what it is.
        let renamed = GUEST.replace("$count", "$tally");
        assert_eq!(
            run::<_, i32>(&mut open(folder, kind, &renamed).unwrap(), "count", ()),
            42
        );
    });
}

#[test]
fn an_instance_is_open_once() {
    let folder = tempfile::tempdir().unwrap();
    let store = FileStore::open(folder.path(), &Options::default()).unwrap();
    let sandbox = Sandbox::builder().build().unwrap();
    let open = |object: &str| sandbox.durable(GUEST.as_bytes(), Grant::new(store.clone(), name(object)));
    let first = open("a").unwrap();
    assert!(matches!(
        open("a"),
        Err(Error::Durable(DurableError::InUse { .. }))
    ));
    // Two instances in one store.
    let mut second = open("b").unwrap();
    drop(first);
    assert_eq!(run::<_, i32>(&mut open("a").unwrap(), "count", ()), 41);
    assert_eq!(run::<_, i32>(&mut second, "count", ()), 41);
}

#[test]
fn a_pager_that_keeps_no_copy_is_refused() {
    let supply = vmsync_pager_memory::Options { supply: Supply::Move };
    let pager = Arc::new(MemoryPager::new(supply));
    let sandbox = Sandbox::builder().build().unwrap();
    let opened = sandbox.durable(GUEST.as_bytes(), Grant::new(pager, name("a")));
    assert!(matches!(
        opened,
        Err(Error::Durable(DurableError::KeepsNoCopy { .. }))
    ));
}

#[test]
fn a_grant_bounds_what_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let store = FileStore::open(folder.path(), &Options::default()).unwrap();
    let sandbox = Sandbox::builder().build().unwrap();
    let grant = || Grant::new(store.clone(), name("a"));
    let refused = |grant: Grant| match sandbox.durable(GUEST.as_bytes(), grant) {
        Err(Error::Durable(DurableError::Grant { why, .. })) => why,
        _ => panic!("not refused"),
    };
    assert!(refused(grant().read_only()).contains("rights"));
    assert!(refused(grant().size_max(1 << 15)).contains("above the size"));
    let mut guest = sandbox
        .durable(GUEST.as_bytes(), grant().size_max(3 << 16))
        .unwrap();
    assert_eq!(run::<_, i32>(&mut guest, "grow", 2), 1);
    assert!(guest.call::<_, i32>("grow", 1).is_err());
    assert_eq!(run::<_, i32>(&mut guest, "pages", ()), 3);
}
