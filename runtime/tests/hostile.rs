//! Guests and modules that mean harm, or are merely wrong: whatever they pass, the host lives, and answers with a
//! `kern_return`, a trap of the guest or an error in words.

mod harness;

use std::sync::Arc;

use harness::{
    BASE, Guest, P, Rig, RigOptions, SCRATCH, Width, each, each_width, guest::Window, own::Own, rig::name,
    rungs,
};
use vmsync::{Error, Grant, Host, HostOptions, KernReturn, Sandbox, TrackerKind, Vm};
use vmsync_pager_conformance::random::Random;
use vmsync_pager_memory::MemoryPager;

const SYNC: u32 = 2;
/// The end of the generic guest's memory.
const END: u64 = 64 << 16;

// --- modules ---------------------------------------------------------------------------------------------------

/// What is wrong with `wasm`, under every rung.
fn refusals(wasm: &[u8]) -> Vec<String> {
    let refuse = |kind: &TrackerKind| {
        let sandbox = Sandbox::builder().tracker(*kind).build().expect("an engine");
        match sandbox.instantiate(wasm) {
            Ok(_) => panic!("{kind}: instantiated"),
            Err(error) => error.to_string(),
        }
    };
    rungs().iter().map(refuse).collect()
}

#[test]
fn what_is_no_module_is_refused_in_words() {
    for wasm in [
        &b""[..],
        b"hello",
        b"\0asm",
        b"\0asm\x01\0\0\0\xff\xff",
        b"(module (func",
        &[0xff; 999],
    ] {
        for words in refusals(wasm) {
            assert!(words.len() > 10, "{words}");
        }
    }
    // Every prefix of a module, too.
    let whole = wasmtime::Module::new(
        &wasmtime::Engine::default(),
        "(module (memory (export \"memory\") 1))",
    );
    assert!(whole.is_ok());
    let sandbox = Sandbox::builder().build().expect("an engine");
    let text = Width::Bits32.wat();
    for end in (0..text.len()).step_by(701) {
        assert!(sandbox.instantiate(&text.as_bytes()[..end]).is_err());
    }
}

#[test]
fn modules_without_the_right_memory_are_refused_in_words() {
    let cases = [
        ("(module)", "memory"),
        ("(module (memory 1))", "memory"),
        ("(module (func (export \"memory\")))", "memory"),
        ("(module (memory (export \"memory\") 1 1 shared))", "shared"),
        (
            "(module (import \"env\" \"memory\" (memory 1)) (export \"memory\" (memory 0)))",
            "env",
        ),
        (
            "(module (import \"env\" \"f\" (func)) (memory (export \"memory\") 1))",
            "env",
        ),
        (
            "(module (import \"vmsync1\" \"vm_wire\" (func)) (memory (export \"memory\") 1))",
            "vm_wire",
        ),
        (
            "(module (import \"vmsync1\" \"vm_msync\" (func (param i32))) (memory (export \"memory\") 1))",
            "vm_msync",
        ),
    ];
    for (wasm, word) in cases {
        for words in refusals(wasm.as_bytes()) {
            assert!(words.contains(word), "{wasm}: {words}");
        }
    }
}

#[test]
fn a_guest_cannot_pass_off_its_own_memory_as_the_barriers_marks() {
    // The marks would be the guest's whole memory, holes and all; or too few; or not there.
    let table = |memories: &str| {
        let text = Width::Bits32.wat();
        let (head, tail) = text
            .split_once("(memory (export \"memory\") 64)")
            .expect("as generated");
        format!("{head}{memories}{tail}")
    };
    let modules = [
        table("(memory (export \"memory\") (export \"vmsync1:cards\") 64)"),
        table("(memory (export \"memory\") 64) (memory (export \"vmsync1:cards\") 0)"),
        table("(memory (export \"memory\") 64) (global (export \"vmsync1:cards\") i32 (i32.const 0))"),
    ];
    for kind in rungs() {
        for module in &modules {
            let rig = Rig::new(*kind, RigOptions::default());
            // Refused by the barrier's rewrite, or run with whatever the guest does to itself.
            let Ok(inner) = rig.sandbox.instantiate(module.as_bytes()) else {
                continue;
            };
            let mut guest = Guest::from(inner);
            guest.store64(SCRATCH, BASE);
            let made = guest.try_call::<_, i64>("vm_allocate", (1_i64, SCRATCH as i64, P as i64, 0_i64));
            if made.is_err() {
                continue;
            }
            let (_, port) = guest.try_open(b"a", 4 * P, 7);
            let _ = guest.try_map(Window {
                page: BASE / P + 1,
                ..Window::new(port, 4)
            });
            let _ = guest.deallocate(0, P);
            let _ = guest.try_call::<_, i64>("vm_msync", (1_i64, 0_i64, END as i64, 2_i64));
        }
    }
}

#[test]
fn two_instances_on_one_vm_are_an_error_of_the_host() {
    for kind in rungs() {
        let (mut own, _) = own(*kind);
        let linker = own.linker.clone();
        let second = linker
            .instantiate(&mut own.store, &own.module)
            .expect("another instance");
        assert_eq!(own.run::<(), i32>("map", ()), 0);
        let error = own.call::<(), i32>(second, "map", ()).expect_err("a trap");
        let words = format!("{error:#} {:?}", error.root_cause());
        assert!(words.contains("serves one instance"), "{words}");
        // The first goes on.
        let first = own.instance;
        own.call::<_, ()>(first, "store8", (BASE as i32, 1))
            .expect("its own memory");
        assert_eq!(own.run::<_, i32>("msync", (BASE as i32, P as i32, 2)), 0);
    }
}

#[test]
fn an_engine_that_was_not_configured_is_an_error_of_the_host() {
    let engine = wasmtime::Engine::default();
    let mut linker = wasmtime::Linker::new(&engine);
    vmsync::add_to_linker(&mut linker, |vm: &mut Vm| vm).expect("a new linker");
    let module = wasmtime::Module::new(&engine, Width::Bits32.wat()).expect("a good module");
    let vm = Vm::builder(&Host::default()).build().expect("no grants");
    let mut store = wasmtime::Store::new(&engine, vm);
    let instance = linker
        .instantiate(&mut store, &module)
        .expect("every import is there");
    let close = instance.get_typed_func::<i64, i64>(&mut store, "memory_object_close");
    let error = close.expect("an export").call(&mut store, 1).expect_err("a trap");
    let words = format!("{:?}", error.root_cause());
    assert!(words.contains("Host::configure"), "{words}");
}

#[test]
fn a_vm_that_is_moved_to_another_store_serves_nobody() {
    for kind in rungs() {
        let (mut first, _) = own(*kind);
        let (mut second, _) = own(*kind);
        assert_eq!(first.run::<(), i32>("map", ()), 0);
        assert_eq!(second.run::<(), i32>("map", ()), 0);
        std::mem::swap(&mut first.store.data_mut().vm, &mut second.store.data_mut().vm);
        for own in [&mut first, &mut second] {
            let instance = own.instance;
            let error = own.call::<(), i32>(instance, "map", ()).expect_err("a trap");
            assert!(format!("{:?}", error.root_cause()).contains("serves one instance"));
        }
        // A Vm outlives its instance without harm.
        let vm = std::mem::replace(
            &mut first.store.data_mut().vm,
            Vm::builder(&Host::default()).build().expect("no grants"),
        );
        drop(second);
        drop(first);
        assert!(vm.stats().msyncs == 0);
        drop(vm);
    }
}

// --- names and pointers ----------------------------------------------------------------------------------------

#[test]
fn bad_object_names_are_invalid_argument() {
    each_width(|rig, width| {
        let mut guest = Guest::new(&rig.sandbox, width);
        let long = vec![b'a'; 256];
        let names: [&[u8]; 14] = [
            b"",
            b"/",
            b"a/b",
            b"..",
            b".",
            b".a",
            b"../a",
            b"a\0",
            b"\0",
            b"a b",
            b"\xff\xfe",
            "\u{e4}".as_bytes(),
            b"a\\b",
            &long,
        ];
        for name in names {
            let (result, _) = guest.try_open(name, P, 7);
            assert_eq!(result, KernReturn::InvalidArgument, "{name:?}");
        }
        assert_eq!(guest.try_open(&long[..255], P, 7).0, KernReturn::NoAccess);
        let bad = [
            (SCRATCH, -1, P as i64, KernReturn::InvalidArgument),
            (
                SCRATCH,
                i64::from(i32::MAX),
                P as i64,
                KernReturn::InvalidArgument,
            ),
            (SCRATCH + 64, 1, -1, KernReturn::InvalidArgument),
            (SCRATCH + 64, 1, i64::MAX, KernReturn::ResourceShortage),
            (
                SCRATCH + 64,
                1,
                i64::MAX - P as i64 + 1,
                KernReturn::ResourceShortage,
            ),
            (END - 1, 2, P as i64, KernReturn::InvalidAddress),
            (END, 1, P as i64, KernReturn::InvalidAddress),
            (width.address_max(), 1, P as i64, KernReturn::InvalidAddress),
        ];
        guest.poke(SCRATCH + 64, b"a");
        for (pointer, length, size, expected) in bad {
            let words = (pointer as i64, length, size, 7_i64, SCRATCH as i64);
            let result: i64 = guest.call("memory_object_open", words);
            assert_eq!(
                harness::guest::kern(result),
                expected,
                "{pointer:#x} {length} {size}"
            );
        }
        assert!(rig.log().is_empty(), "no pager was asked");
    });
}

#[test]
fn out_pointers_are_checked_before_anything_is_done() {
    each_width(|rig, width| {
        let mut guest = Guest::new(&rig.sandbox, width);
        let port = guest.open("a", 4);
        let hole = BASE + 8 * P;
        assert_eq!(guest.deallocate(hole, P), KernReturn::Success);
        let read_only = BASE + 16 * P;
        assert_eq!(guest.protect(read_only, P, false, 1), KernReturn::Success);
        let bad = [
            (hole, KernReturn::InvalidAddress),
            (hole - 1, KernReturn::InvalidAddress),
            (END - 1, KernReturn::InvalidAddress),
            (END, KernReturn::InvalidAddress),
            (width.address_max(), KernReturn::InvalidAddress),
            (width.address_max() - 3, KernReturn::InvalidAddress),
            (read_only, KernReturn::ProtectionFailure),
            (read_only - 1, KernReturn::ProtectionFailure),
        ];
        guest.poke(SCRATCH + 64, b"a");
        guest.store64(SCRATCH + 80, 8);
        for (pointer, expected) in bad {
            let at = pointer as i64;
            let open: i64 = guest.call(
                "memory_object_open",
                ((SCRATCH + 64) as i64, 1_i64, P as i64, 7_i64, at),
            );
            let info: i64 = guest.call("memory_object_info", (port as i64, at));
            let allocate: i64 = guest.call("vm_allocate", (1_i64, at, P as i64, 1_i64));
            let good = (SCRATCH + 128) as i64;
            let region: i64 = guest.call(
                "vm_region",
                (1_i64, good, good + 8, 9_i64, at, (SCRATCH + 80) as i64, good + 16),
            );
            for result in [open, info, allocate, region] {
                assert_eq!(harness::guest::kern(result), expected, "{pointer:#x}");
            }
        }
        assert_eq!(guest.call::<(), i64>("size", ()), 64, "nothing was placed");
        assert_eq!(guest.open("b", 1), port + 1, "no port was given away");
    });
}

#[test]
fn arguments_at_the_edges_answer_with_a_result() {
    each_width(|rig, width| {
        let mut guest = rig.region_of(width, 4);
        let max = width.address_max();
        let edges = [
            0,
            1,
            P - 1,
            P,
            BASE,
            BASE + 1,
            END - 1,
            END,
            max / 2,
            max / 2 + 1,
            max - P + 1,
            max,
        ];
        for address in edges {
            for size in edges {
                let _ = guest.msync(address, size, SYNC);
                let _ = guest.mach_msync(address, size, 4);
                let _ = guest.behave(address, size, 4);
                let _ = guest.protect(address, size, false, 3);
                if address % P != 0 || size == 0 {
                    assert_ne!(guest.allocate(address, size, 0).0, KernReturn::Success);
                }
            }
            let _ = guest.region(address);
        }
        let too_much = guest.allocate(0, max - P, 1).0;
        assert_eq!(too_much, KernReturn::NoSpace);
        guest.touch([1], 7);
        assert_eq!(guest.msync(BASE, 4 * P, SYNC), KernReturn::Success);
        assert_eq!(rig.committed("a", 1), 7);
    });
}

// --- games with the map ----------------------------------------------------------------------------------------

#[test]
fn mapping_over_and_over_keeps_the_books() {
    each_width(|rig, width| {
        let mut guest = rig.region_of(width, 4);
        let (a, b) = (guest.open("a", 4), guest.open("b", 4));
        guest.touch([1], 7);
        let over = |port, page, first_page, pages| Window {
            page: BASE / P + page,
            first_page,
            flags: 0x4000,
            ..Window::new(port, pages)
        };
        // Another object over the middle; the first one's pages are free to be mapped elsewhere.
        guest.map(over(b, 1, 0, 2));
        guest.map(over(a, 8, 1, 2));
        assert_eq!(
            guest.try_map(over(a, 16, 0, 1)),
            KernReturn::NoAccess,
            "page 0 is still written at 0"
        );
        // Over itself, shifted: it gives its pages up first.
        guest.map(over(a, 0, 0, 1));
        guest.touch([0, 1, 8], 9);
        rig.log();
        assert_eq!(guest.msync(BASE, 16 * P, SYNC), KernReturn::Success);
        let committed: Vec<_> = (0..4).map(|page| rig.committed("a", page)).collect();
        assert_eq!((committed, rig.committed("b", 0)), (vec![9, 9, 0, 0], 9));
        // A refused OVERWRITE leaves zeroes where the object was, as it says.
        guest.map(over(b, 0, 2, 1));
        assert_eq!(guest.touched(0), 0);
        assert_eq!(guest.deallocate(0, END), KernReturn::Success);
    });
}

#[test]
fn a_region_over_its_own_pointer() {
    each_width(|rig, width| {
        let mut guest = Guest::new(&rig.sandbox, width);
        let port = guest.open("a", 4);
        // The scratch page with the out pointer is inside the new region: it reads the object, then gets the result.
        let window = Window {
            page: 0,
            flags: 0x4000,
            ..Window::new(port, 4)
        };
        assert_eq!(guest.try_map(window), KernReturn::Success);
        assert_eq!(guest.load64(SCRATCH), 0, "the address that was asked for");
        guest.store8(SCRATCH + 512, 7);
        assert_eq!(guest.msync(0, 4 * P, SYNC), KernReturn::Success);
        // Out parameters in a region are stores of the guest: they are returned.
        let (result, _) = guest.try_open(b"b", P, 7);
        assert_eq!(result, KernReturn::Success);
        rig.log();
        assert_eq!(guest.msync(0, 4 * P, SYNC), KernReturn::Success);
        rig.assert_log(&guest, &["a return 0..1 dirty kept", "a sync 0..4 now"]);
        // Mapped for loads only: there is nothing to tell that the guest did not ask for.
        let (result, reader) = guest.try_open(b"a", 0, 1);
        assert_eq!(result, KernReturn::Success);
        let window = Window {
            port: reader,
            protection: (1, 1),
            ..window
        };
        assert_eq!(guest.try_map(window), KernReturn::Success);
        assert_eq!(guest.load8(SCRATCH + 512), 7);
        assert_eq!(guest.deallocate(0, 4 * P), KernReturn::Success);
        guest.call::<i64, i64>("grow", 1);
        guest.store64(END, 0);
        let words = (1_i64, END as i64, 4 * P as i64, 0_i64);
        let result: i64 = guest.call("vm_allocate", words);
        assert_eq!(harness::guest::kern(result), KernReturn::Success);
        // Read-only scratch: the call is refused before it does anything.
        assert_eq!(guest.protect(0, P, false, 1), KernReturn::Success);
        let words = (1_i64, SCRATCH as i64, P as i64, 1_i64);
        let result: i64 = guest.call("vm_allocate", words);
        assert_eq!(harness::guest::kern(result), KernReturn::ProtectionFailure);
    });
}

#[test]
fn a_guest_that_gave_everything_up_is_still_answered() {
    each_width(|rig, width| {
        let mut guest = rig.region_of(width, 4);
        assert_eq!(guest.deallocate(0, END), KernReturn::Success);
        assert_eq!(guest.deallocate(0, END), KernReturn::Success, "a hole already");
        assert_eq!(guest.msync(0, END, SYNC), KernReturn::InvalidAddress);
        let words = (1_i64, SCRATCH as i64, P as i64, 1_i64);
        let result: i64 = guest.call("vm_allocate", words);
        assert_eq!(
            harness::guest::kern(result),
            KernReturn::InvalidAddress,
            "its pointer is in a hole"
        );
        assert!(guest.try_call::<i64, i64>("load8", 0).is_err());
        // Bulk operations are carried out by the host's code: a trap or not, but the process lives.
        let _ = guest.try_call::<_, ()>("fill", (BASE as i64, 1_i64, 2 * P as i64));
        let _ = guest.try_call::<_, ()>("copy", ((BASE + 8 * P) as i64, BASE as i64, P as i64));
        let _ = guest.try_call::<_, ()>("init", ((BASE + 16 * P) as i64, 0_i64, 8_i64));
        // Memory that it grows is its own.
        assert_eq!(guest.call::<i64, i64>("grow", 1), 64);
        guest.store64(END + 8, BASE);
        let words = (1_i64, (END + 8) as i64, P as i64, 0_i64);
        let result: i64 = guest.call("vm_allocate", words);
        assert_eq!(harness::guest::kern(result), KernReturn::Success);
        assert_eq!(guest.load8(BASE), 0);
    });
}

#[test]
fn bulk_stores_to_a_read_only_region_never_reach_the_pager() {
    each(|rig| {
        let mut guest = rig.region(4);
        guest.touch([0], 7);
        assert_eq!(guest.msync(BASE, 4 * P, SYNC), KernReturn::Success);
        assert_eq!(guest.protect(BASE, 4 * P, false, 1), KernReturn::Success);
        let _ = guest.try_call::<_, ()>("fill", (BASE as i64, 9_i64, 2 * P as i64));
        assert_eq!(guest.msync(BASE, 4 * P, SYNC), KernReturn::Success);
        assert_eq!(rig.committed("a", 0), 7);
        assert_eq!(rig.committed("a", 1), 0);
    });
}

#[test]
fn regions_without_end_meet_a_limit() {
    for kind in rungs() {
        println!("{kind}");
        let rig = Rig::new(*kind, RigOptions::default());
        let mut guest = rig.guest();
        assert_eq!(guest.call::<i64, i64>("grow", 2600), 64);
        let mut refused = None;
        for index in 0..20_000 {
            match guest.allocate(BASE + 2 * index * P, P, 0).0 {
                KernReturn::Success => {}
                result => {
                    refused = Some(result);
                    break;
                }
            }
        }
        assert_eq!(refused, Some(KernReturn::ResourceShortage));
        assert_eq!(guest.msync(0, END, SYNC), KernReturn::Success);
        assert_eq!(
            guest.deallocate(BASE, 2600 << 16),
            KernReturn::Success,
            "giving up has room"
        );
    }
}

/// How many mappings this process has.
fn mappings() -> usize {
    std::fs::read_to_string("/proc/self/maps")
        .expect("Linux tells")
        .lines()
        .count()
}

/// How many the kernel allows.
fn mappings_max() -> usize {
    let limit = std::fs::read_to_string("/proc/sys/vm/max_map_count").expect("Linux tells");
    limit.trim().parse().expect("a number")
}

#[test]
fn guests_that_map_without_end_leave_others_what_they_need() {
    const PAGES: u64 = 40_000;
    let rig = Rig::new(rungs()[0], RigOptions::default());
    let before = mappings();
    // Takes regions or makes holes until it is refused; answers where.
    let hostile = |regions: bool| {
        let mut guest = rig.guest();
        guest.call::<i64, i64>("grow", (PAGES / 16) as i64);
        let mut places = (0..PAGES / 2).map(|index| BASE + 2 * index * P);
        let refused = places.find(|address| {
            let result = if regions {
                guest.allocate(*address, P, 0).0
            } else {
                guest.deallocate(*address, P)
            };
            assert!(matches!(
                result,
                KernReturn::Success | KernReturn::ResourceShortage
            ));
            result != KernReturn::Success
        });
        (guest, refused.expect("a limit"))
    };
    let mut guests: Vec<_> = (0..20).map(|index| hostile(index % 2 == 0)).collect();
    let taken = mappings().saturating_sub(before);
    assert!(taken < mappings_max() * 3 / 5, "{taken} mappings");
    let mut other = rig.region(4);
    other.touch([0, 2], 7);
    assert_eq!(other.msync(BASE, 4 * P, SYNC), KernReturn::Success);
    // Giving up has room, and makes some.
    let (guest, refused) = &mut guests[0];
    assert_eq!(guest.deallocate(BASE, *refused - BASE), KernReturn::Success);
    assert_eq!(guest.allocate(BASE, P, 0).0, KernReturn::Success);
}

#[test]
fn bulk_stores_to_holes_without_end_leave_others_what_they_need() {
    const PAGES: u64 = 80_000;
    for kind in rungs() {
        println!("{kind}");
        let rig = Rig::new(*kind, RigOptions::default());
        let before = mappings();
        let mut guest = rig.guest();
        guest.call::<i64, i64>("grow", (PAGES / 16) as i64);
        assert_eq!(guest.deallocate(BASE, PAGES * P), KernReturn::Success);
        for page in (0..PAGES).step_by(2) {
            let at = (BASE + page * P) as i64;
            let filled = guest.try_call::<_, ()>("fill", (at, 1_i64, 1_i64));
            assert!(filled.is_err() || guest.load8(BASE + page * P) == 1);
        }
        let taken = mappings().saturating_sub(before);
        assert!(taken < mappings_max() / 4, "{taken} mappings");
        let mut other = rig.region(4);
        other.touch([0, 2], 7);
        assert_eq!(other.msync(BASE, 4 * P, SYNC), KernReturn::Success);
    }
}

/// How many mappings reach into the guest's memory.
fn mappings_of(guest: &Guest) -> usize {
    let memory = guest.inner.memory().as_ptr_range();
    let text = std::fs::read_to_string("/proc/self/maps").expect("Linux tells");
    let ends = text
        .lines()
        .filter_map(|line| line.split(' ').next()?.split_once('-'));
    let ends = ends.map(|(start, end)| [start, end].map(|text| usize::from_str_radix(text, 16)));
    let reaches = |ends: &[Result<usize, _>; 2]| match ends {
        [Ok(start), Ok(end)] => *start < memory.end.addr() && *end > memory.start.addr(),
        _ => false,
    };
    ends.filter(reaches).count()
}

#[test]
fn what_is_given_up_piece_by_piece_takes_no_more_than_what_is_mapped() {
    const PAGES: u64 = 16_384;
    let allowed = mappings_max() / 32;
    each(|rig| {
        // Set apart by advice or as regions, which the kernel sees nothing of, in memory or in an object.
        for (regions, object) in [(false, false), (false, true), (true, false)] {
            let mut guest = rig.guest();
            guest.call::<i64, i64>("grow", (PAGES / 16) as i64);
            if object {
                guest.map_region("a", PAGES);
            }
            let pages = (1..PAGES).step_by(2).map(|page| BASE + page * P);
            let mut apart: Vec<u64> = pages.collect();
            apart.retain(|address| {
                let result = match regions {
                    true => guest.allocate(*address, P, 0).0,
                    false => guest.behave(*address, P, 1),
                };
                result == KernReturn::Success
            });
            for address in apart {
                assert_eq!(
                    guest.deallocate(address, P),
                    KernReturn::Success,
                    "giving up has room"
                );
            }
            let taken = mappings_of(&guest);
            assert!(taken <= allowed + 8, "{taken} mappings of {allowed}");
        }
    });
}

#[test]
fn ports_without_end_meet_a_limit() {
    each(|rig| {
        let mut guest = rig.guest();
        let results: Vec<_> = (0..1100).map(|_| guest.try_open(b"a", P, 7).0).collect();
        assert_eq!(
            results[1023..1025],
            [KernReturn::Success, KernReturn::ResourceShortage]
        );
        // What the guest gets no port for is not made.
        assert_eq!(guest.try_open(b"c", P, 7).0, KernReturn::ResourceShortage);
        assert!(rig.other.take_log().is_empty(), "no pager was asked");
    });
}

#[test]
fn a_trap_in_the_midst_of_stores_makes_nothing_durable() {
    each_width(|rig, width| {
        let mut guest = rig.region_of(width, 4);
        guest.touch([0], 7);
        assert_eq!(guest.msync(BASE, P, SYNC), KernReturn::Success);
        guest.touch([0, 1], 8);
        let trap = guest.try_call::<_, ()>("store_and_trap", ((BASE + 2 * P) as i64, 9_i64));
        assert!(trap.is_err());
        let committed: Vec<_> = (0..4).map(|page| rig.committed("a", page)).collect();
        assert_eq!(committed, [7, 0, 0, 0]);
        drop(guest);
        let mut guest = rig.region_of(width, 4);
        assert_eq!((guest.touched(0), guest.touched(1), guest.touched(2)), (7, 0, 0));
    });
}

// --- WASI ------------------------------------------------------------------------------------------------------

/// A guest of the host's own store with WASI, granted `a`.
fn own(kind: TrackerKind) -> (Own, Arc<MemoryPager>) {
    let store = Arc::new(MemoryPager::default());
    let mut options = HostOptions::default();
    options.tracker = Some(kind);
    let host = Host::new(options);
    let vm = Vm::builder(&host).grant("a", Grant::new(store.clone(), name("a")));
    let own = Own::new(&host, vm, include_bytes!("guests/wasi.wat"));
    (own.expect("the guest runs"), store)
}

#[test]
fn wasi_calls_with_addresses_of_holes_do_not_end_the_process() {
    for kind in rungs() {
        println!("{kind}");
        let (mut own, store) = own(*kind);
        assert_eq!(own.run::<(), i32>("map", ()), 0);
        let (hole, size) = (BASE as i32 + P as i32, P as i32);
        // A hole in the object, and one in ordinary memory.
        for hole in [hole, BASE as i32 + 8 * size] {
            assert_eq!(own.run::<_, i32>("deallocate", (hole, size)), 0);
            let _ = own.run::<_, i32>("random_get", (hole - 8, size + 16));
            let _ = own.run::<_, i32>("fd_write", (hole - 8, size + 16));
            let _ = own.run::<_, i32>("fd_read", (hole - 8, size + 16));
            // What it reads there as an address may be anything: an error of WASI is an answer too.
            let instance = own.instance;
            let _ = own.call::<_, i32>(instance, "fd_write_at", (hole + 64, hole + 128));
            let _ = own.run::<_, i32>("clock_time_get", hole + 256);
        }
        // The hole stays a hole for the VM.
        assert_eq!(own.run::<_, i32>("msync", (hole, size, 2)), 1);
        assert_eq!(own.run::<_, i32>("msync", (BASE as i32, 4 * size, 2)), 0);
        let contents = store.contents(&name("a")).expect("the object exists");
        assert!(contents[P as usize..2 * P as usize].iter().all(|byte| *byte == 0));
    }
}

#[test]
fn wasi_writes_to_a_read_only_region_do_not_end_the_process() {
    for kind in rungs() {
        println!("{kind}");
        let (mut own, store) = own(*kind);
        assert_eq!(own.run::<(), i32>("map", ()), 0);
        let (base, size) = (BASE as i32, P as i32);
        assert_eq!(own.run::<_, i32>("protect", (base, 2 * size, 1)), 0);
        let _ = own.run::<_, i32>("random_get", (base, 64));
        let _ = own.run::<_, i32>("clock_time_get", base + size);
        assert_eq!(own.run::<_, i32>("msync", (base, 4 * size, 2)), 0);
        let contents = store.contents(&name("a")).expect("the object exists");
        assert!(
            contents.iter().all(|byte| *byte == 0),
            "nothing that the guest may not store is committed"
        );
    }
}

// --- at random -------------------------------------------------------------------------------------------------

/// A word that a hostile guest might pass.
fn word(random: &mut Random) -> i64 {
    let near = random.below(5) as i64 - 2;
    let value = match random.below(9) {
        0 => random.number() as i64,
        1 => i64::from(random.number() as i32),
        2 => (SCRATCH + 8 * random.below(16)) as i64,
        3 | 4 => (BASE + random.below(64) * P) as i64,
        5 => (random.below(8) * P) as i64,
        6 => 1 << random.below(64),
        7 => END as i64,
        _ => random.below(16) as i64,
    };
    if random.once_in(3) {
        value.wrapping_add(near)
    } else {
        value
    }
}

/// One call of any import with any words; its result.
fn call_at_random(random: &mut Random, guest: &mut Guest) -> Result<i64, Error> {
    let import = random.below(12);
    let task = if random.once_in(20) { word(random) } else { 1 };
    let mut next = || word(random);
    match import {
        0 => guest.try_call("vm_msync", (task, next(), next(), next() & 0x7f)),
        1 => guest.try_call("mach_vm_msync", (task, next(), next(), next() & 0x7f)),
        2 | 3 => guest.try_call(
            "vm_map",
            (
                task,
                SCRATCH as i64,
                next(),
                0_i64,
                next() & 0x4001,
                0x100 + (next() & 3),
                next(),
                next() & 1,
                next() & 3,
                3_i64,
                1_i64,
            ),
        ),
        4 => guest.try_call(
            "vm_map",
            (
                next(),
                next(),
                next(),
                next(),
                next(),
                next(),
                next(),
                next(),
                next(),
                next(),
                next(),
            ),
        ),
        5 => guest.try_call("vm_allocate", (task, next(), next(), next())),
        6 => guest.try_call("vm_deallocate", (task, next(), next())),
        7 => guest.try_call("vm_protect", (task, next(), next(), next() & 1, next() & 3)),
        8 => guest.try_call("vm_region", (task, next(), next(), 9_i64, next(), next(), next())),
        9 => guest.try_call("vm_behavior_set", (task, next(), next(), next())),
        10 => guest.try_call("memory_object_open", (next(), next(), next(), next(), next())),
        _ => guest.try_call("memory_object_info", (next(), next())),
    }
}

#[test]
fn any_words_to_any_import_answer_with_a_result() {
    let mut random = Random::from_environment("hostile");
    for width in Width::ALL {
        // Bounded, so that a guest that zeroes all of its memory takes no longer than the test may.
        let text = width.wat().replace(" 64)", " 64 128)");
        for kind in rungs() {
            println!("{kind} {width:?}");
            for _ in 0..6 {
                let rig = Rig::new(*kind, RigOptions::default());
                let inner = rig.sandbox.instantiate(text.as_bytes());
                let mut guest = Guest::from(inner.expect("the generic guest runs"));
                guest.map_region("a", 16);
                guest.open("b", 16);
                for _ in 0..400 {
                    // The guest's own stores may trap by now.
                    let _ = guest.try_call::<_, ()>("store64", (SCRATCH as i64, word(&mut random)));
                    let _ = guest.try_call::<_, ()>("store64", (word(&mut random), 1_i64));
                    let result = call_at_random(&mut random, &mut guest);
                    let code = result.unwrap_or_else(|error| panic!("an import trapped: {error}"));
                    let _ = harness::guest::kern(code);
                }
            }
        }
    }
}
