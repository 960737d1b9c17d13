//! What survives a restart, what a failed call leaves behind, and what a commit costs.

use vmsync::{
    ByteRange, Error, Grant, PagerErrorKind, Sandbox,
    pager::{LockRequest, ReturnPages},
};
use vmsync_pager_conformance::{Event, Fault, ScriptedPager};
use vmsync_pager_memory::MemoryPager;

use crate::{
    GUEST, each, guest,
    harness::{P, rig, rungs},
    open, run,
};
use std::sync::Arc;

#[test]
fn numbers_survive_and_the_beginning_is_not_repeated() {
    each(|folder, kind| {
        for round in 1..4 {
            let mut guest = guest(folder, kind);
            assert_eq!(guest.is_new(), round == 1);
            assert_eq!(run::<_, i32>(&mut guest, "count", ()), 40 + round);
            let numbers: (i64, f64, i64) = run(&mut guest, "numbers", ());
            let expected = (
                -1 + 3 * i64::from(round),
                0.5 * f64::from(1 << round),
                2 + 7 * i64::from(round),
            );
            assert_eq!(numbers, expected);
            // The start function and `_initialize` ran once.
            assert_eq!(&guest.memory().unwrap()[..2], [1, 1]);
            assert_eq!(&guest.memory().unwrap()[8..13], b"begun");
        }
    });
}

#[test]
fn memory_survives_with_its_size() {
    each(|folder, kind| {
        // Far apart, over several objects, and in the last byte.
        let mut expected = vec![(8, u32::from(b'b')), (65_535, 7)];
        run::<_, ()>(&mut guest(folder, kind), "store", (65_535, 7));
        for (grow, fill) in [(1, 9), (3, 8), (0, 7), (20, 6), (1, 5)] {
            let mut guest = guest(folder, kind);
            let old: i32 = run(&mut guest, "pages", ());
            let (first, last) = (old << 16, ((old + grow) << 16) - 1);
            guest
                .step(|calls| {
                    calls.call::<_, i32>("grow", grow)?;
                    if grow > 0 {
                        calls.call::<_, ()>("store", (first, fill))?;
                    }
                    calls.call::<_, ()>("store", (last, fill + 1))
                })
                .unwrap();
            if grow > 0 {
                expected.push((first, fill as u32));
            }
            expected.retain(|(at, _)| *at != last);
            expected.push((last, fill as u32 + 1));
        }
        let mut guest = guest(folder, kind);
        assert_eq!(run::<_, i32>(&mut guest, "pages", ()), 26);
        let memory = guest.memory().unwrap();
        let written = |at: &usize| memory[*at] != 0 && *at > 13;
        assert_eq!((0..memory.len()).filter(written).count(), expected.len() - 1);
        for (at, byte) in expected {
            assert_eq!(u32::from(memory[at as usize]), byte, "at {at}");
        }
    });
}

#[test]
fn tables_of_functions_survive() {
    each(|folder, kind| {
        {
            let mut guest = guest(folder, kind);
            assert!(guest.call::<_, i32>("call", 0).is_err(), "null");
            run::<_, ()>(&mut guest, "put", (0, 2));
            run::<_, ()>(&mut guest, "choose", 1);
            assert_eq!(run::<_, i32>(&mut guest, "grow_table", 4), 3);
        }
        let mut guest = guest(folder, kind);
        assert_eq!(run::<_, i32>(&mut guest, "table_size", ()), 7);
        let called = [0, 1, 2, 3, 6].map(|index| run::<_, i32>(&mut guest, "call", index));
        assert_eq!(called, [2, 1, 2, 3, 3]);
        assert_eq!(run::<_, i32>(&mut guest, "chosen", ()), 1);
    });
}

#[test]
fn dropped_segments_stay_dropped() {
    each(|folder, kind| {
        run::<_, ()>(&mut guest(folder, kind), "take_once", ());
        assert_eq!(&guest(folder, kind).memory().unwrap()[100..104], b"once");
        assert!(guest(folder, kind).call::<_, ()>("take_once", ()).is_err());
        run::<_, ()>(&mut guest(folder, kind), "take_later", ());
        assert_eq!(run::<_, i32>(&mut guest(folder, kind), "call", 2), 3);
        assert!(guest(folder, kind).call::<_, ()>("take_later", ()).is_err());
    });
}

#[test]
fn a_trap_leaves_everything_as_before() {
    each(|folder, kind| {
        let mut guest = guest(folder, kind);
        run::<_, i32>(&mut guest, "count", ());
        run::<_, ()>(&mut guest, "store", (5000, 3));
        for _ in 0..2 {
            let error = guest.call::<_, ()>("trap", 5000).unwrap_err();
            assert!(
                matches!(&error, Error::Wasmtime(trap) if trap.is::<wasmtime::Trap>()),
                "{error}"
            );
            assert_eq!(run::<_, i32>(&mut guest, "load", 5000), 3);
            assert_eq!(run::<_, i32>(&mut guest, "load", 8), i32::from(b'b'));
            assert_eq!(run::<_, i32>(&mut guest, "pages", ()), 1);
            assert_eq!(run::<_, i32>(&mut guest, "table_size", ()), 3);
            assert_eq!(run::<_, i32>(&mut guest, "call", 1), 1);
        }
        assert_eq!(run::<_, i32>(&mut guest, "count", ()), 42);
        run::<_, ()>(&mut guest, "take_once", ());
    });
}

#[test]
fn a_step_is_durable_as_a_whole_or_not_at_all() {
    each(|folder, kind| {
        let mut guest = guest(folder, kind);
        let commits = guest.stats().msyncs;
        let counted = guest.step(|calls| {
            calls.call::<_, i32>("count", ())?;
            calls.call::<_, i32>("count", ())
        });
        assert_eq!(counted.unwrap(), 42);
        assert_eq!(guest.stats().msyncs, commits + 1);
        let failed = guest.step(|calls| {
            calls.call::<_, i32>("count", ())?;
            calls.call::<_, i32>("no such function", ())
        });
        assert!(failed.unwrap_err().to_string().contains("no such function"));
        assert_eq!(run::<_, i32>(&mut guest, "count", ()), 43);
    });
}

#[test]
fn a_commit_hands_over_what_changed() {
    each(|folder, kind| {
        let mut guest = guest(folder, kind);
        run::<_, i32>(&mut guest, "grow", 100);
        run::<_, ()>(&mut guest, "fill", (0, 1, 80 << 16));
        drop(guest);
        let mut guest = crate::guest(folder, kind);
        run::<_, ()>(&mut guest, "store", (50 << 16, 2));
        let before = guest.stats().pages_returned;
        run::<_, ()>(&mut guest, "store", (50 << 16, 3));
        let pages = guest.stats().pages_returned - before;
        assert!((1..=2).contains(&pages), "{kind}: {pages} pages for one byte");
    });
}

#[test]
fn a_commit_that_fails_is_a_call_that_did_not_happen() {
    let pager = Arc::new(ScriptedPager::new(Arc::new(MemoryPager::default())));
    let open = || {
        let sandbox = Sandbox::builder().build().expect("an engine");
        let grant = Grant::new(pager.clone(), rig::name("a"));
        sandbox
            .durable(GUEST.as_bytes(), grant)
            .expect("the instance opens")
    };
    let mut guest = open();
    run::<_, i32>(&mut guest, "count", ());
    for fault in [
        Fault::Return(Some(rig::error(PagerErrorKind::Io))),
        Fault::Synchronize(Some(rig::error(PagerErrorKind::NoSpace))),
        Fault::Completion(Some(rig::error(PagerErrorKind::Io))),
    ] {
        pager.inject(fault);
        let error = guest.call::<_, i32>("count", ()).unwrap_err();
        assert!(error.to_string().contains("committing"), "{error}");
        assert_eq!(run::<_, i32>(&mut guest, "load", 0), 1);
    }
    assert_eq!(run::<_, i32>(&mut guest, "count", ()), 42);
    drop(guest);
    assert_eq!(run::<_, i32>(&mut open(), "count", ()), 43);
}

#[test]
fn a_pagers_request_is_served_behind_a_commit_and_takes_nothing_of_it() {
    for kind in rungs() {
        println!("{kind}");
        let pager = Arc::new(ScriptedPager::new(Arc::new(MemoryPager::default())));
        let sandbox = Sandbox::builder().tracker(*kind).build().expect("an engine");
        let grant = Grant::new(pager.clone(), rig::name("a"));
        let guest = sandbox.durable(GUEST.as_bytes(), grant);
        let mut guest = guest.expect("the instance opens");
        let opened = pager.take_log();
        let object = |wanted: &str| {
            let found = opened.iter().find_map(|event| match event {
                Event::Init { object, name } if name.as_str() == wanted => Some(*object),
                _ => None,
            });
            found.expect("it is open")
        };
        // Carried out before the commit it would drop, or commit alone, a part of what the call changed.
        for (should_return, value) in [(ReturnPages::None, 3), (ReturnPages::Dirty, 4)] {
            pager.take_log();
            for wanted in ["a.memory.0", "a.state.0"] {
                let request = LockRequest {
                    range: ByteRange::new(0, P),
                    should_return,
                    flush: true,
                    prohibit: None,
                };
                let control = pager.control(object(wanted)).expect("it is open");
                assert_eq!(control.lock_request(request), Ok(()));
            }
            let count = guest.step(|calls| {
                calls.call::<_, ()>("store", (5, value))?;
                calls.call::<_, ()>("store", (60_000, value))?;
                calls.call::<_, i32>("count", ())
            });
            let count = count.expect("the step is committed");
            let log = pager.take_log();
            let commits = |event: &Event| matches!(event, Event::Synchronize { flags, .. } if !flags.more);
            let commit = log.iter().position(commits).expect("it is committed");
            let returned = |event: &Event| match event {
                Event::DataReturn { range, .. } => range.len(),
                _ => 0,
            };
            let returned: u64 = log[..commit].iter().map(returned).sum();
            assert!(returned >= 3 * P, "two pages of memory and one of state: {log:?}");
            for wanted in ["a.memory.0", "a.state.0"] {
                let dropped = |event: &Event| matches!(event, Event::DataRequest { object: of, .. } if *of == object(wanted));
                let dropped = log.iter().position(dropped);
                assert!(dropped > Some(commit), "{wanted}: {log:?}");
            }
            assert_eq!(run::<_, i32>(&mut guest, "load", 5), value);
            assert_eq!(run::<_, i32>(&mut guest, "count", ()), count + 1);
            assert!(guest.stats().pages_flushed >= 2);
        }
    }
}

#[test]
fn modules_without_memory_and_with_64_bit_memories_are_kept() {
    let counter = r#"(module (global $n (mut i32) (i32.const 0)) (func (export "f") (result i32)
        (global.set $n (i32.add (global.get $n) (i32.const 1))) (global.get $n)))"#;
    let wide = r#"(module (memory i64 0 3) (func (export "f") (result i32)
        (if (i64.eqz (memory.size)) (then (drop (memory.grow (i64.const 2)))))
        (i32.store (i64.const 70000) (i32.add (i32.load (i64.const 70000)) (i32.const 1)))
        (i32.load (i64.const 70000))))"#;
    for module in [counter, wide] {
        each(|folder, kind| {
            for round in 1..4 {
                let mut guest = open(folder, kind, module).unwrap();
                assert_eq!(run::<_, i32>(&mut guest, "f", ()), round);
            }
        });
    }
}
