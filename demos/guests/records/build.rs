//! Links with the POSIX library: `VMSYNC_POSIX` is its object, which `cargo xtask guests` builds.

use std::path::Path;

fn main() {
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR").expect("set by Cargo");
    let arguments = Path::new(&manifest).join("../../../guest-sdk/c/posix/link.args");
    println!("cargo::rerun-if-changed={}", arguments.display());
    println!("cargo::rerun-if-env-changed=VMSYNC_POSIX");
    let Ok(object) = std::env::var("VMSYNC_POSIX") else {
        println!(
            "cargo::warning=without VMSYNC_POSIX there is no mmap: build this with `cargo xtask guests`"
        );
        return;
    };
    println!("cargo::rerun-if-changed={object}");
    println!("cargo::rustc-link-arg={object}");
    let arguments = std::fs::read_to_string(&arguments).expect("the library has its arguments beside it");
    // They are written for clang, which hands what follows `-Wl,` to the linker that Rust calls itself.
    for argument in arguments.split_whitespace() {
        let argument = argument.strip_prefix("-Wl,").unwrap_or(argument);
        argument
            .split(',')
            .for_each(|word| println!("cargo::rustc-link-arg={word}"));
    }
}
