//! Calls everything in the SDK once against a real host, and checks what it does. A WASI program:
//!
//! ```text
//! vmsync run --wasi --map smoke=STORE --map smoke-heap=STORE smoke.wasm [-- CASE]
//! ```
//!
//! Without a case it runs all that do not trap, prints `ok CASE` for each and `passed COUNT` at the end, and can run
//! any number of times on one store. The object `smoke-none` must not be granted. A failed check panics: exit by trap.
//! The cases `trap_…` end in a trap when all is well.

mod heap_cases;
mod region_cases;

type Case = (&'static str, fn());

macro_rules! cases {
    ($($module:ident :: $case:ident),* $(,)?) => {
        &[$((stringify!($case), $module::$case)),*]
    };
}

const CASES: &[Case] = cases![
    region_cases::a_flush_outlives_the_mapping,
    region_cases::what_is_not_flushed_is_lost,
    region_cases::a_region_keeps_its_address,
    region_cases::a_range_is_flushed_alone,
    region_cases::an_async_flush_is_followed_by_a_flush,
    region_cases::invalidate_undoes,
    region_cases::a_read_only_region_reads,
    region_cases::a_private_region_is_not_durable,
    region_cases::an_object_is_mapped_once,
    region_cases::an_object_grows,
    region_cases::a_taken_address_is_refused,
    region_cases::a_region_goes_behind_what_others_have_mapped,
    region_cases::an_object_that_is_not_granted_is_refused,
    region_cases::an_anonymous_region_is_zero,
    region_cases::an_anonymous_region_may_be_read_only,
    region_cases::advice_changes_nothing,
    region_cases::a_region_says_what_it_is,
    region_cases::views_are_checked,
    heap_cases::a_map_outlives_the_mapping,
    heap_cases::a_failed_transaction_leaves_no_trace,
    heap_cases::another_root_is_refused,
];

const TRAPS: &[Case] = cases![
    region_cases::trap_store_to_read_only,
    region_cases::trap_store_after_make_read_only
];

fn main() {
    if let Some(wanted) = std::env::args().nth(1) {
        let found = CASES.iter().chain(TRAPS).find(|(name, _)| *name == wanted);
        found.unwrap_or_else(|| panic!("there is no case {wanted}")).1();
        println!("ok {wanted}");
        return;
    }
    for (name, case) in CASES {
        case();
        println!("ok {name}");
    }
    println!("passed {}", CASES.len());
}
