//! What a guest can do over and over never fills the host's log: it is told where somebody looks for it.

mod harness;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use harness::{Guest, P, Rig, RigOptions, Width, guest::Window};
use tracing::{
    Event, Level, Metadata, Subscriber,
    span::{Attributes, Id, Record},
};
use vmsync::{KernReturn, TrackerKind};

/// A shadow stack below 8192, with a store to it that needs no mark.
const STACK: &str = r#"(global $stack (export "__stack_pointer") (mut i32) (i32.const 8192))
  (func (export "use_stack")
    (global.set $stack (i32.sub (global.get $stack) (i32.const 16)))
    (i32.store (global.get $stack) (i32.const 1))
    (global.set $stack (i32.add (global.get $stack) (i32.const 16))))"#;

/// Counts what is told, where it is looked for and where it is not.
#[derive(Clone, Default)]
struct Counts(Arc<[AtomicUsize; 2]>);

impl Counts {
    fn take(&self) -> [usize; 2] {
        self.0.each_ref().map(|count| count.swap(0, Ordering::Relaxed))
    }
}

impl Subscriber for Counts {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("vmsync")
    }

    fn event(&self, event: &Event<'_>) {
        let is_debug = *event.metadata().level() >= Level::DEBUG;
        self.0[usize::from(is_debug)].fetch_add(1, Ordering::Relaxed);
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[test]
fn what_a_guest_is_refused_is_not_in_the_hosts_log() {
    let counts = Counts::default();
    tracing::subscriber::with_default(counts.clone(), || {
        let rig = Rig::new(TrackerKind::Barrier, RigOptions::default());
        let _writer = rig.region(4);
        // The store is one, the host another: the pager says that the object has a writer.
        let other = rig.restarted(RigOptions::default());
        let mut guest = other.guest();
        counts.take();
        assert_eq!(guest.try_open(b"a", P, 7).0, KernReturn::NoAccess);
        assert_eq!(counts.take(), [0, 1], "opening");
        let wat = Width::Bits32
            .wat()
            .replacen("(memory", &format!("{STACK} (memory"), 1);
        let mut guest = Guest::from(rig.sandbox.instantiate(wat.as_bytes()).expect("a good guest"));
        let port = guest.open("b", 1);
        counts.take();
        let over_stack = Window {
            page: 1,
            ..Window::new(port, 1)
        };
        assert_eq!(guest.try_map(over_stack), KernReturn::NoSpace);
        assert_eq!(counts.take(), [0, 1], "mapping");
    });
}
