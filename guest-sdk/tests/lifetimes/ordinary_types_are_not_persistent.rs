//! The bytes of a `String` lie on the ordinary heap, which is gone after a restart.

vmsync_guest::persist! {
    struct Root { name: String }
}

fn main() {}
