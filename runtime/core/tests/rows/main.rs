//! The contract: what calls promise, in rows, one test or more for each, named by the row's id.
//!
//! Rows that need more than the core are tested where they live: F1, a crash at every step of a store, in
//! `runtime/tests/rows`, B1 and B2, the POSIX shim, in `guest-sdk/c/tests`.

#[path = "../harness/mod.rs"]
mod harness;

mod a;
mod d;
mod e;
mod h;
mod i;
mod k;
mod o;
mod p;
mod s;

/// Every row that can be expressed at this level.
const ROWS: [&str; 53] = [
    "a1", "a2", "a3", "a4", "a5", "a6", "a7", "a8", "a9", "a10", "a11", "h1", "h2", "h3", "h4", "o1", "o2",
    "o3", "o4", "d1", "d2", "d3", "d4", "d5", "d6", "d7", "d8", "i1", "i2", "i3", "i4", "i5", "p1", "p2",
    "p4", "p5", "k1", "k2", "k3", "s1", "s2", "s3", "s4", "s5", "s6", "s7", "s8", "s9", "e1", "e2", "e3",
    "e4", "e5",
];

/// The files that hold the tests.
const SOURCES: [&str; 9] = [
    include_str!("a.rs"),
    include_str!("h.rs"),
    include_str!("o.rs"),
    include_str!("d.rs"),
    include_str!("i.rs"),
    include_str!("p.rs"),
    include_str!("k.rs"),
    include_str!("s.rs"),
    include_str!("e.rs"),
];

#[test]
fn every_row_has_a_test_and_every_test_a_row() {
    let tests: Vec<&str> = SOURCES
        .iter()
        .flat_map(|source| source.split("#[test]\nfn ").skip(1))
        .filter_map(|rest| rest.split('_').next())
        .collect();
    let rows: Vec<&str> = ROWS.to_vec();
    for row in &rows {
        let count = tests.iter().filter(|test| *test == row).count();
        println!("{row}: {count}");
        assert!(count > 0, "row {row} has no test");
    }
    for test in tests {
        assert!(rows.contains(&test), "test {test}_ names no row");
    }
}
