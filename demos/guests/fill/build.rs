//! Leaves the window for regions between the stack and the static data: 1.25 GiB, so that a region of 1 GiB fits.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_FAMILY").is_ok_and(|family| family == "wasm") {
        println!("cargo::rustc-link-arg=--global-base=1342177280");
    }
}
