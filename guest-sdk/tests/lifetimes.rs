//! Programs that must not compile: what they would do is a use of memory that is gone, two owners of the same bytes, or
//! bytes that are read as something else.
//!
//! The expected messages are those of the toolchain that the project is built with; `TRYBUILD=overwrite` renews them.

#[test]
fn lifetimes_are_kept() {
    trybuild::TestCases::new().compile_fail("tests/lifetimes/*.rs");
}
