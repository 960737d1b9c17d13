//! The `mprotect` rung among other signal handlers, and at the limit of mappings.
//!
//! Signal actions belong to the process, so that the cases run in forked children, one after the other.
#![cfg(target_os = "linux")]

mod rig;

use std::{
    ffi::{c_int, c_void},
    mem::MaybeUninit,
    ptr,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use rig::{Rig, Subject, in_a_child, wait_for};
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect};
use vmsync_core::{PageSize, tracker::Backing, tracker::TrackerKind};

const SUBJECT: Subject = Subject::Rung(TrackerKind::Mprotect);
const PAGE: PageSize = PageSize::KIB_4;

/// Cases fork: one at a time, so that a child holds no lock of another case's thread.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn alone(body: impl FnOnce()) {
    let _one = ONE_AT_A_TIME
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    in_a_child(body);
}

/// A page that the foreign handler answers for, and how often it did; what it chains to, and how often it did.
static FOREIGN_PAGE: AtomicUsize = AtomicUsize::new(0);
static FOREIGN_ANSWERS: AtomicUsize = AtomicUsize::new(0);
static FOREIGN_PREVIOUS: AtomicUsize = AtomicUsize::new(0);
static FOREIGN_CHAINS: AtomicUsize = AtomicUsize::new(0);

extern "C" fn foreign(signal: c_int, information: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel fills it in for a fault.
    let address = unsafe { (*information).si_addr() }.addr();
    let page = FOREIGN_PAGE.load(Ordering::SeqCst);
    if page != 0 && (page..page + 4096).contains(&address) {
        FOREIGN_ANSWERS.fetch_add(1, Ordering::SeqCst);
        let start = ptr::with_exposed_provenance_mut(page);
        // SAFETY: a page of its own.
        unsafe { mprotect(start, 4096, MprotectFlags::READ | MprotectFlags::WRITE) }.expect("mprotect");
        return;
    }
    FOREIGN_CHAINS.fetch_add(1, Ordering::SeqCst);
    let previous = FOREIGN_PREVIOUS.load(Ordering::SeqCst);
    assert!(previous != libc::SIG_DFL && previous != libc::SIG_IGN);
    // SAFETY: every handler of this program takes three arguments.
    let previous: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) =
        unsafe { std::mem::transmute(previous) };
    previous(signal, information, context);
}

/// Installs [`foreign`] in front, as an engine does.
fn install_foreign() {
    // SAFETY: an all-zero action is valid, and both pointers are.
    unsafe {
        let mut action: libc::sigaction = MaybeUninit::zeroed().assume_init();
        action.sa_sigaction = foreign as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
        let mut old = MaybeUninit::<libc::sigaction>::uninit();
        assert_eq!(libc::sigaction(libc::SIGSEGV, &action, old.as_mut_ptr()), 0);
        FOREIGN_PREVIOUS.store(old.assume_init().sa_sigaction, Ordering::SeqCst);
    }
}

/// A store to a protected page that is the foreign handler's.
fn fault_for_foreign() {
    // SAFETY: a new mapping.
    let start = unsafe { mmap_anonymous(ptr::null_mut(), 4096, ProtFlags::empty(), MapFlags::PRIVATE) }
        .expect("mmap");
    FOREIGN_PAGE.store(start.expose_provenance(), Ordering::SeqCst);
    let before = FOREIGN_ANSWERS.load(Ordering::SeqCst);
    // SAFETY: it faults, and the handler makes the page writable.
    unsafe { start.cast::<u8>().write_volatile(1) };
    assert_eq!(FOREIGN_ANSWERS.load(Ordering::SeqCst), before + 1);
}

#[test]
fn a_foreign_handler_before_ours_gets_its_faults() {
    alone(|| {
        install_foreign();
        let mut rig = Rig::new(SUBJECT, Backing::Anonymous, PAGE, 8).expect("it works");
        rig.attach(0, 8);
        rig.store(3, 0);
        fault_for_foreign();
        rig.expect(0, 8, &[3]);
        assert_eq!(FOREIGN_CHAINS.load(Ordering::SeqCst), 0, "ours is in front");
    });
}

#[test]
fn a_foreign_handler_after_ours_is_overtaken() {
    alone(|| {
        let mut rig = Rig::new(SUBJECT, Backing::Anonymous, PAGE, 8).expect("it works");
        rig.attach(0, 4);
        install_foreign();
        rig.store(1, 0);
        assert_eq!(
            FOREIGN_CHAINS.load(Ordering::SeqCst),
            1,
            "it is in front, and chains to ours"
        );
        vmsync_tracker::ensure_installed().expect("there is room");
        rig.store(3, 0);
        assert_eq!(FOREIGN_CHAINS.load(Ordering::SeqCst), 1, "ours is in front again");
        fault_for_foreign();
        rig.expect(0, 8, &[1, 3]);
    });
}

/// Waits for a child that runs `body`, which must end by SIGSEGV.
fn dies_by_a_fault(body: impl FnOnce()) {
    let _one = ONE_AT_A_TIME
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    // SAFETY: the child runs `body` alone.
    match unsafe { libc::fork() } {
        -1 => panic!("fork"),
        0 => {
            body();
            // SAFETY: ends the child at once.
            unsafe { libc::_exit(0) }
        }
        child => {
            let status = wait_for(child);
            assert!(libc::WIFSIGNALED(status), "status {status:#x}");
            assert_eq!(libc::WTERMSIG(status), libc::SIGSEGV);
        }
    }
}

fn crash() {
    // SAFETY: it is not sound, and the process is meant to end here.
    unsafe { ptr::without_provenance_mut::<u8>(8).write_volatile(1) };
}

#[test]
fn a_crash_is_still_a_crash() {
    dies_by_a_fault(|| {
        vmsync_tracker::ensure_installed().expect("there is room");
        crash();
    });
}

#[test]
fn a_crash_behind_a_circle_of_handlers_is_still_a_crash() {
    dies_by_a_fault(|| {
        vmsync_tracker::ensure_installed().expect("there is room");
        install_foreign();
        vmsync_tracker::ensure_installed().expect("there is room");
        crash();
    });
}

#[test]
fn a_signal_that_was_sent_is_still_received() {
    dies_by_a_fault(|| {
        // SAFETY: the default action, in place of the one of Rust's runtime, which waits for a second fault.
        unsafe { libc::signal(libc::SIGSEGV, libc::SIG_DFL) };
        vmsync_tracker::ensure_installed().expect("there is room");
        // SAFETY: sends a signal to this process.
        unsafe { libc::kill(libc::getpid(), libc::SIGSEGV) };
    });
}

#[test]
fn handlers_of_others_can_go_in_front_only_so_often() {
    alone(|| {
        let refused = (0..100).find(|_| {
            install_foreign();
            vmsync_tracker::ensure_installed().is_err()
        });
        assert!(refused.is_some_and(|rounds| rounds > 8), "{refused:?}");
    });
}

/// Alternating pages need a mapping each, of which the process has so many: one guest cannot have all.
#[test]
fn stores_without_end_leave_mappings_to_others() {
    alone(|| {
        let pages = 40_000;
        let mut rig = Rig::new(SUBJECT, Backing::Anonymous, PAGE, pages).expect("it works");
        rig.attach(0, pages);
        let even: Vec<u64> = (0..pages).step_by(2).collect();
        for round in 0..3 {
            even.iter().for_each(|page| rig.store(*page, round));
            let maps = std::fs::read_to_string("/proc/self/maps").expect("Linux tells");
            assert!(maps.lines().count() < 10_000);
            assert!(rig.tracker().reports_superset());
            // Others have a few all the same, and are exact.
            let mut other = Rig::new(SUBJECT, Backing::Anonymous, PAGE, 64).expect("it works");
            other.attach(0, 64);
            other.store(5, 0);
            other.store(7, 0);
            assert_eq!(other.collect(0, 64).pages().collect::<Vec<_>>(), [5, 7]);
            // A part at a time.
            let mut found = rig.collect(0, 111);
            found.union(&rig.collect(111, pages));
            assert!(even.iter().all(|page| found.contains(*page)));
            rig.store(5, 0);
            rig.store(9, 0);
            assert_eq!(rig.collect(0, pages).pages().collect::<Vec<_>>(), [5, 9]);
        }
    });
}

/// Alternating pages need a mapping each: where there are no more, the whole range counts as stored to.
#[test]
fn running_out_of_mappings_reports_a_superset() {
    let text = std::fs::read_to_string("/proc/sys/vm/max_map_count").expect("the limit");
    let mappings: u64 = text.trim().parse().expect("a number");
    if mappings > 200_000 {
        eprintln!("skipped: vm.max_map_count is {mappings}, too many to use up in a test");
        return;
    }
    alone(|| {
        let pages = mappings + 4000;
        let mut rig = Rig::new(SUBJECT, Backing::Anonymous, PAGE, pages).expect("it works");
        rig.attach(0, pages);
        let even: Vec<u64> = (0..pages).step_by(2).collect();
        even.iter().for_each(|page| rig.store(*page, 0));
        assert!(rig.tracker().reports_superset());
        assert_eq!(rig.collect(10, 12).len(), 2, "the odd page counts too");
        let rest: Vec<u64> = even.into_iter().filter(|page| *page != 10).collect();
        rig.expect(0, pages, &rest);
        // It recovers: one mapping again, and exact where there are enough.
        rig.store(5, 0);
        assert_eq!(rig.collect(0, pages).pages().collect::<Vec<_>>(), [5]);
    });
}
