//! The checks, by what they are about.

mod calls;
#[cfg(not(target_family = "wasm"))]
mod concurrent;
mod objects;
mod random_model;
mod refusals;
mod runs;

use crate::Fixture;

/// A check: panics where the pager breaks the protocol.
type Check = fn(&mut Fixture);

/// All of them, with the names that [`crate::run`] prints.
pub(crate) const ALL: &[(&str, Check)] = &[
    (
        "what was never returned reads as zero",
        objects::unsupplied_reads_as_zero,
    ),
    ("what was committed is supplied", objects::round_trip),
    (
        "the last commit is there after reopening",
        objects::reopen_shows_last_commit,
    ),
    (
        "what was only returned is not there after reopening",
        objects::reopen_drops_uncommitted,
    ),
    (
        "an object grows and never shrinks",
        objects::grows_and_never_shrinks,
    ),
    ("an open object grows", objects::grows_while_open),
    ("the version only rises", objects::version_rises),
    (
        "the address is remembered with a commit",
        objects::address_is_remembered,
    ),
    ("an object has one writer", objects::one_writer),
    (
        "an object that is missing is not created unasked",
        objects::missing_is_not_found,
    ),
    (
        "a call over several objects commits as a whole",
        calls::group_over_objects,
    ),
    ("an aborted call leaves nothing", calls::abort_drops),
    (
        "completions match their requests exactly once",
        calls::completions_match,
    ),
    (
        "the last return of a page in a call counts",
        calls::last_return_counts,
    ),
    ("a call without returns completes", calls::empty_call_completes),
    (
        "a synchronous call is ordered behind asynchronous ones",
        calls::asynchronous_order,
    ),
    ("many runs go back at once", runs::many_at_once),
    ("one of many runs is refused", runs::one_is_refused),
    ("runs that do not ascend come back again", runs::come_back_again),
    ("a settled image shows what is supplied", calls::settle_image),
    (
        "bad arguments are refused and harm nothing",
        refusals::bad_arguments,
    ),
    ("a reader cannot write", refusals::reader_cannot_write),
    ("another page size is refused", refusals::page_size_differs),
    #[cfg(not(target_family = "wasm"))]
    ("threads commit side by side", concurrent::threads_side_by_side),
    ("random calls behave as the model", random_model::random_calls),
];
