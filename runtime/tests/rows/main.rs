//! The contract's conformance rows as a real guest meets them: a module under Wasmtime whose imports are vmsync's,
//! under every dirty tracker that works here. Each test is named by the id of its row.
//!
//! Not here, because no guest can bring them about: D7 and D8 (a store that races its own thread's call), I5 (a guest
//! cannot wire), P4 (an unasked `data_supply`), and the whole of the matrix P5. The core's own rows have them. B1 is a test of
//! the C library.

#[path = "../harness/mod.rs"]
mod harness;

mod a;
mod calls;
mod d;
mod e;
mod f;
mod h;
mod i;
mod k;
mod o;
mod p;
mod s;

/// Every row that a guest can bring about.
const ROWS: [&str; 50] = [
    "a1", "a2", "a3", "a4", "a5", "a6", "a7", "a8", "a9", "a10", "a11", "h1", "h2", "h3", "h4", "o1", "o2",
    "o3", "o4", "d1", "d2", "d3", "d4", "d5", "d6", "i1", "i2", "i3", "i4", "p1", "p2", "p5", "k1", "k2",
    "k3", "s1", "s2", "s3", "s4", "s5", "s6", "s7", "s8", "s9", "e1", "e2", "e3", "e4", "e5", "f1",
];

/// The files that hold the tests of rows.
const SOURCES: [&str; 10] = [
    include_str!("a.rs"),
    include_str!("h.rs"),
    include_str!("o.rs"),
    include_str!("d.rs"),
    include_str!("i.rs"),
    include_str!("p.rs"),
    include_str!("k.rs"),
    include_str!("s.rs"),
    include_str!("e.rs"),
    include_str!("f.rs"),
];

#[test]
fn every_row_has_a_test() {
    let tests: Vec<&str> = SOURCES
        .iter()
        .flat_map(|source| source.split("#[test]\nfn ").skip(1))
        .filter_map(|rest| rest.split('_').next())
        .collect();
    for row in ROWS {
        assert!(tests.contains(&row), "row {row} has no test");
    }
}

/// The words of `vm_sync_t`.
mod flags {
    pub const ASYNC: u32 = 0x01;
    pub const SYNC: u32 = 0x02;
    pub const INVALIDATE: u32 = 0x04;
    pub const KILLPAGES: u32 = 0x08;
    pub const DEACTIVATE: u32 = 0x10;
    pub const CONTIGUOUS: u32 = 0x20;
    pub const REUSABLEPAGES: u32 = 0x40;
}
