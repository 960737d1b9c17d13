//! With an attribute that the fingerprint does not tell, a heap would open with its fields in other places.

vmsync_guest::persist! {
    #[repr(packed)]
    struct Packed<'h> { kind: u8, log: vmsync_guest::PVec<'h, u64> }

    #[repr(align(16))]
    struct Aligned { count: u64 }

    #[derive(Clone, Copy)]
    struct Plain { kind: u8, count: u64 }
}

fn main() {}
