//! Leaves the window for regions between the stack and the static data: 256 MiB, less the stack.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_FAMILY").is_ok_and(|family| family == "wasm") {
        println!("cargo::rustc-link-arg=--global-base=268435456");
    }
}
